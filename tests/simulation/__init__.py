"""Deterministic simulation: whole clients against a model of the server, every choice from a seed.

The code under test is the code that ships: `Client` with its pool, its tracker and its listening
thread, and `AsyncClient` with its links. What is exchanged is what they stand on. Threads are
greenlets and sockets are queues (`_threads`), the event loop is a few lines (`_loop`), the server
is a model of Redis's tracking (`_server`) that `tests/test_simulation.py` holds to real ones, and
time is a number (`_world`). So one list of choices is one schedule: who runs when, how bytes are
cut and delayed, which connection dies, who is cancelled, when the process forks.

`_oracle` knows every value that every key ever had, and judges each reply. `_mutants` plants the
bugs that other clients have, one at a time: a simulation that finds nothing has shown nothing
until it was seen to find something. `python -m tests.simulation --help` runs it all.
"""
