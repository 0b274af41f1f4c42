"""Workloads times implementations: how fast the codec is, beside what people use now.

`make bench` measures everything, prints one table and writes the JSON and the pictures of
docs/benchmarks. `make bench QUICK=1` measures what the codec promises, and fails if a promise is
missed by far.

How it is measured. One process. In every round each implementation runs once over the same bytes,
in an order that changes from round to round, so that a machine that slows down does so for all, and
nobody always runs behind the same one. Where a reply is so big that its memory comes from the
system, each run follows one of its own that is not timed, or it would pay for its predecessor's.
The figure of a cell is the minimum of its rounds, and what counts is the ratio of two figures of
the same rounds. The clock counts the time that the process had a processor, so that what else the
machine does counts for nobody. The garbage collector is off while the clock runs, as timeit has it.
Building the parser is inside the clock, the bytes and their chunks are made before. Before it is
timed, an implementation has to return as many replies as there are.

How each is driven: the fastest way that its public interface has.

- resp: `feed_all(chunk)`, one call per chunk; and, as a line of its own, `feed(chunk)` and then
  `parse()` until `NEED_DATA`. Packing: `encode_command(*args)` and `encode_commands(commands)`.
- hiredis, libvalkey: `Reader(notEnoughData=sentinel)`, `feed(chunk)` and then `gets()` until the
  sentinel, as a local name and a `while` loop: quicker than `iter(gets, sentinel)`. They decode
  where text is asked for (`encoding="utf-8"`). Packing: `pack_command(args)`, and for a pipeline
  one join of those.
- redis-py: `_RESP2Parser` and `_RESP3Parser` on a socket that is a list of chunks, `read_response`
  as often as there are replies, with `disable_decoding` where bytes are asked for; of the two the
  faster. Push handlers return at once. Packing: the connection's own `PythonRespSerializer` and
  `pack_commands`. Their result is a list of parts; joining it is not asked of it.
- coredis: its `Parser` (compiled by mypyc), `feed` and `parse` until `NOT_ENOUGH_DATA`; its
  `Packer`. The type that it returns beside each value is dropped.

`drop` lets go of every result at once (with `feed_all`, of the results of one chunk); `keep` holds
all of them to the end. Allocating anew and reusing what was just freed are two speeds, so drop is
compared with drop and keep with keep. A stream fed whole is only kept: one call returns all of it.
"""
