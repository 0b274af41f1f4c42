"""What is parsed and packed, and how fast it must be.

A `must` is a ratio of times, peer / ours, at chunks of 64 KiB, on CPython 3.11 with hiredis-py
3.5: above 1 is faster than the peer. All of them were reached by prototypes, with 10 to 15 % to
spare for noise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

Argument: TypeAlias = bytes | str | int | float
Commands: TypeAlias = tuple[tuple[Argument, ...], ...]

KIB = 1024
MIB = 1024 * KIB

# The sides of a comparison, as the keys of `must`: which way of ours against which peer.
Side: TypeAlias = Literal[
    "compiled",  # feed_all, or one call of the encoder, to hiredis
    "compiled one",  # feed and parse, to hiredis
    "compiled libvalkey",  # feed_all, to libvalkey
    "pure",  # feed_all, to redis-py's faster parser
    "pure hiredis",  # feed_all, to hiredis
]
Musts: TypeAlias = dict[Side, float]

# What holds in every cell, beside the musts.
COMPILED_FLOOR = 0.95  # of hiredis and of libvalkey
PURE_FLOOR = 1.0  # of redis-py's parsers, chunks of 4 KiB and more
LINEAR = 1.5  # time of other chunks to that of chunks of 64 KiB, dropped or kept, at most
PURE_MEAN: Musts = {"pure": 5, "pure hiredis": 0.37}  # geometric, of the usual variant
PURE_MEAN_ROWS = 16  # that it is of: those without chunks of their own
TEXT = 1.15  # time of str to that of bytes, pure, at most


@dataclass(frozen=True)
class Parsing:
    """A stream of replies.

    `chunk` is None where the chunks of the variant apply, and else the number of replies that one
    chunk holds. `resp2` and `resp3` say which protocol's parser can read it.
    """

    name: str
    replies: tuple[bytes, ...]
    must: Musts = field(default_factory=dict)
    must_text: Musts = field(default_factory=dict)
    must_4k: Musts = field(default_factory=dict)
    chunk: int | None = None
    settle: bool = False  # big enough for its memory to be asked of the system and given back
    resp2: bool = True
    resp3: bool = True

    @cached_property
    def stream(self) -> bytes:
        """All replies, back to back."""
        return b"".join(self.replies)

    def chunks(self, size: int | None) -> list[bytes]:
        """Return the stream as it arrives: `size` bytes at a time, or all at once for None."""
        if self.chunk is not None:
            starts = range(0, len(self.replies), self.chunk)
            return [b"".join(self.replies[at : at + self.chunk]) for at in starts]
        stream = self.stream
        step = size or len(stream)
        return [stream[at : at + step] for at in range(0, len(stream), step)]


@dataclass(frozen=True)
class Packing:
    """Commands to be packed: one by one, or all in one call."""

    name: str
    commands: Commands
    must: Musts = field(default_factory=dict)
    pipeline: bool = False
    repeat: int = 1

    @property
    def count(self) -> int:
        """How many commands a run packs."""
        return len(self.commands) * self.repeat

    def repeated(self, commands: Commands | None = None) -> tuple[range, Commands]:
        """Return what a run goes through: one element a pipeline, and one a command.

        One command is packed in the time of three steps of a loop, so the loop must have few.
        """
        return range(self.repeat), (commands or self.commands) * self.repeat


def bulk(data: bytes) -> bytes:
    """Return a bulk."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(*elements: bytes, mark: bytes = b"*") -> bytes:
    """Return an array, or what else has a count."""
    return b"%b%d\r\n%b" % (mark, len(elements), b"".join(elements))


def mapping(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return a map."""
    return b"%%%d\r\n%b" % (len(pairs), b"".join(part for pair in pairs for part in pair))


def _strings(random_: random.Random, count: int, shortest: int, longest: int) -> list[bytes]:
    letters = b"abcdefghijklmnopqrstuvwxyz0123456789:"
    return [
        bytes(random_.choices(letters, k=random_.randint(shortest, longest))) for _ in range(count)
    ]


def _small_reply(random_: random.Random) -> bytes:
    """Return what a pipeline of reads and writes gets back."""
    choice = random_.randrange(10)
    if choice < 3:
        return b"+OK\r\n"
    if choice < 5:
        return b":%d\r\n" % random_.randrange(100_000)
    if choice < 8:
        return bulk(_strings(random_, 1, 0, 40)[0])
    if choice == 8:
        return b"$-1\r\n"
    return array(*map(bulk, _strings(random_, random_.randint(0, 5), 3, 12)))


def _mixed(random_: random.Random) -> bytes:
    """Return an array with one of each type of RESP3."""
    name, value = _strings(random_, 2, 4, 12)
    return array(
        b"+OK\r\n",
        b":%d\r\n" % random_.randrange(1_000_000),
        bulk(value),
        b",%b\r\n" % repr(random_.random()).encode(),
        b"#t\r\n",
        b"_\r\n",
        mapping((bulk(name), b":1\r\n"), (bulk(b"ttl"), b":3600\r\n")),
        array(*(b":%d\r\n" % number for number in random_.sample(range(100), 4)), mark=b"~"),
        b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value),
    )


def _stream_entry(random_: random.Random, number: int) -> bytes:
    """Return an entry of a stream, as XRANGE has it."""
    sensor, value = _strings(random_, 2, 4, 8)
    fields = (b"sensor", sensor, b"value", value)
    return array(bulk(b"1700000000%03d-0" % (number % 1000)), array(*map(bulk, fields)))


def parsing() -> list[Parsing]:
    """Return the workloads of the parser; the same bytes every time."""
    chance = random.Random(2024)
    ten = _strings(chance, 1000, 10, 10)
    mixed = [_mixed(chance) for _ in range(200)]
    small = [_small_reply(chance) for _ in range(5000)]
    keys = _strings(chance, 5000, 8, 16)
    names = [b"field:%d" % number for number in range(10)]
    tens = [array(*map(bulk, chance.sample(ten, 10))) for _ in range(500)]
    gaps = [
        array(*(b"$-1\r\n" if chance.random() < 0.2 else bulk(item) for item in some))
        for some in (chance.sample(ten, 10) for _ in range(500))
    ]
    maps = [
        mapping(*((bulk(name), bulk(chance.choice(ten))) for name in names)) for _ in range(300)
    ]
    entries = [array(*(_stream_entry(chance, number) for number in range(10))) for _ in range(100)]
    return [
        Parsing(
            "+OK",
            (b"+OK\r\n",) * 20_000,
            {"compiled": 10, "compiled one": 2.2, "pure": 8, "pure hiredis": 0.85},
        ),
        Parsing(
            "integers",
            tuple(b":%d\r\n" % chance.randrange(100_000) for _ in range(20_000)),
            {"compiled": 3.2, "compiled one": 1.5, "pure": 5, "pure hiredis": 0.5},
        ),
        Parsing(
            "bulks of 10 B",
            tuple(map(bulk, ten)) * 18,
            {"compiled": 3.0, "compiled one": 1.6, "pure": 9, "pure hiredis": 0.7},
            must_text={"compiled": 3.8, "compiled one": 2.0},
        ),
        Parsing(
            "bulks of 0-40 B",
            tuple(map(bulk, _strings(chance, 2500, 0, 40))) * 6,
            {"pure": 8, "pure hiredis": 0.6},
        ),
        Parsing(
            "small replies, mixed",
            tuple(small) * 3,
            {"pure": 3.5, "pure hiredis": 0.35},
            resp3=False,
        ),
        Parsing(
            "bulks of 1 KiB",
            (bulk(b"x" * KIB),) * 2500,
            {"compiled": 5, "compiled one": 5, "pure": 5, "pure hiredis": 1.3},
            must_4k={"compiled": 2.0, "compiled one": 1.8},
        ),
        Parsing(
            "bulks of 100 KiB",
            (bulk(b"x" * 100 * KIB),) * 60,
            # redis-py copies each byte four times where the pure parser does it twice. A prototype
            # was 8 to 13 times as fast, where redis-py's buffer came from the system anew in every
            # run; a process that has run for a while has that memory (24 us a bulk, not 120).
            {"compiled": 2, "compiled one": 2, "pure": 7, "pure hiredis": 0.9},
            settle=True,
        ),
        Parsing(
            "bulks of 10 MB",
            (bulk(b"x" * 10_000_000),),
            {"compiled": 2, "compiled one": 2, "pure": 3, "pure hiredis": 1.8},
            settle=True,
        ),
        Parsing(
            "arrays of 10",
            tuple(tens) * 6,
            {"compiled": 1.6, "compiled one": 1.6, "pure": 5, "pure hiredis": 0.22},
            must_text={"compiled": 2.2, "compiled one": 2.2},
        ),
        Parsing(
            "arrays of 10, 20 % null",
            tuple(gaps) * 6,
            {"pure": 3.4, "pure hiredis": 0.17},
            resp3=False,
        ),
        Parsing(
            "an array of 100,000",
            (array(*map(bulk, ten * 100)),),
            {"compiled": 1.25, "compiled one": 1.25, "pure": 7, "pure hiredis": 0.22},
            must_text={"compiled": 2.0, "compiled one": 2.0},
            settle=True,
        ),
        Parsing(
            "maps of 10 pairs",
            tuple(maps) * 2,
            {
                "compiled": 4,
                "compiled one": 4,
                "compiled libvalkey": 1.5,
                "pure": 5.5,
                "pure hiredis": 0.75,
            },
            resp2=False,
        ),
        Parsing(
            "RESP3, mixed",
            tuple(mixed) * 6,
            {"compiled": 1.7, "compiled one": 1.8, "pure": 2.3},
            resp2=False,
        ),
        Parsing(
            "64 levels of nesting",
            (b"*1\r\n" * 64 + b":1\r\n",) * 500,
            {"compiled": 1.1, "compiled one": 1.1, "pure": 2.5},
        ),
        Parsing(
            "invalidation pushes",
            tuple(array(bulk(b"invalidate"), array(bulk(key)), mark=b">") for key in keys) * 2,
            {"compiled": 1.7, "compiled one": 1.8, "pure": 5.5},
            resp2=False,
        ),
        Parsing("XRANGE of 10", tuple(entries) * 2, {"pure": 3}),
        Parsing("+OK, one per chunk", (b"+OK\r\n",) * 6_000, {"pure": 4}, chunk=1),
        Parsing(
            "integer, one per chunk",
            tuple(b":%d\r\n" % chance.randrange(100_000) for _ in range(6_000)),
            {"pure": 2.3},
            chunk=1,
        ),
        Parsing(
            "bulk of 10 B, one per chunk",
            tuple(map(bulk, ten)) * 6,
            {"compiled": 2.5, "compiled one": 2.0, "pure": 4},
            chunk=1,
        ),
        Parsing("array of 10, one per chunk", tuple(tens) * 4, {"pure": 6}, chunk=1),
        Parsing("100 +OK per chunk", (b"+OK\r\n",) * 20_000, {"compiled": 8}, chunk=100),
        Parsing("100 bulks per chunk", tuple(map(bulk, ten)) * 18, {"compiled": 2.6}, chunk=100),
        Parsing(
            "100 small replies per chunk",
            tuple(small) * 3,
            {"compiled": 2.4},
            chunk=100,
            resp3=False,
        ),
    ]


def packing() -> list[Packing]:
    """Return the workloads of the encoder."""
    chance = random.Random(2024)
    keys = [f"user:{number}" for number in range(100)]
    values = [text.decode() for text in _strings(chance, 100, 10, 30)]
    fields = [part for pair in zip(keys[:10], values[:10], strict=True) for part in pair]
    pipeline: list[tuple[Argument, ...]] = [
        ("SET", key, value) if number % 2 else ("EXPIRE", key, 3600)
        for number, (key, value) in enumerate(zip(keys, values, strict=True))
    ]
    return [
        Packing(
            "one command",
            (("SET", "user:1000", b"some value"),),
            {"compiled": 5, "pure": 3.5, "pure hiredis": 0.55},
            repeat=5000,
        ),
        Packing(
            "HSET of 10 pairs", (("HSET", "user:1000", *fields),), {"compiled": 10}, repeat=1000
        ),
        Packing("a value of 1 MiB", ((b"SET", b"key", b"x" * MIB),), {"compiled": 2.5}, repeat=30),
        Packing(
            "a pipeline of 100",
            tuple(pipeline),
            {"compiled": 12, "pure": 5.5, "pure hiredis": 0.7},
            pipeline=True,
            repeat=30,
        ),
    ]


@dataclass(frozen=True)
class Variant:
    """How a stream arrives, what strings become, and what is done with the results."""

    name: str
    chunk: int | None = 64 * KIB
    text: bool = False
    keep: bool = False

    def must(self, workload: Parsing) -> Musts:
        """Return what a workload must reach in this variant."""
        if self.keep or self.chunk is None:
            return {}
        if self.chunk == 4 * KIB:
            return workload.must_4k
        return workload.must_text if self.text else workload.must


VARIANTS = (
    Variant("64 KiB chunks, bytes, drop"),
    Variant("64 KiB chunks, bytes, keep", keep=True),
    Variant("64 KiB chunks, str, drop", text=True),
    Variant("64 KiB chunks, str, keep", text=True, keep=True),
    Variant("4 KiB chunks, bytes, drop", chunk=4 * KIB),
    Variant("whole, bytes, keep", chunk=None, keep=True),  # one call has no way to drop them
)


def sized(workload: Any, variant: Variant) -> bool:
    """Whether a variant says anything new of a workload: one with its own chunks has no others."""
    return workload.chunk is None or variant.chunk == 64 * KIB
