"""Soak: whole clients on real servers to which everything happens, for as long as one likes.

Blocking clients with threads and asyncio clients with tasks read, write, compute and listen
(`_load`), in RESP2 and RESP3, listening on a connection of their own and inline, through a proxy.
Meanwhile links are cut, frozen, delayed and deserted, connections killed, the server is paused
(`_faults`), restarted, flushed, short of memory or of room in its tracking table (`_writer`).

Each value says which key it belongs to and when it was written, and `_judge` knows from when until
when a key can have held it. So every reply is judged: is it the one that was asked for, is a hit no
older than `cache.staleness_bound`, and no older than the call where it asked for that. Every few
seconds all comes to rest: then no entry may differ from the server, every cache has to work again,
and memory, descriptors, threads and tasks must be what they were (`_soak`).

`python -m tests.soak --help`, or `make soak MINUTES=10`. A seed gives the same choices again, not
the same run: threads, kernel and server have their own mind. `tests/simulation` is for that.
"""
