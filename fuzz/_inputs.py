"""Where inputs come from: streams worth starting from, a grammar gone loose, and mutation.

The seeds are one of each kind, right and wrong. The grammar writes what no server would: every
type inside every other, streamed and counted, with lengths that are off now and then. Mutation
breaks both in the ways that bytes break: cut, doubled, spliced, a digit changed. URLs are made by
mutation alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random


class Corpus(NamedTuple):
    """What the inputs of a target are made of.

    Attributes:
        seeds: inputs to start from.
        tokens: what mutation puts in.
        header: how many bytes of choices stand before each.
        grammar: whether the grammar of replies makes others.
    """

    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...]
    header: int = 0
    grammar: bool = False

    def started(self) -> list[bytes]:
        """Return the seeds as inputs, each behind a header of its own."""
        return [
            bytes((number % 16, number))[: self.header] + seed
            for number, seed in enumerate(self.seeds)
        ]


SEEDS = (
    b"",
    b"+OK\r\n",
    b"-ERR unknown command\r\n",
    b":12345\r\n:-9223372036854775808\r\n:+7\r\n",
    b"$5\r\nhello\r\n$0\r\n\r\n$-1\r\n$4\r\n\r\n\r\n\r\n",
    b"*2\r\n$3\r\nfoo\r\n*-1\r\n*0\r\n",
    b"_\r\n#t\r\n#f\r\n,1.5\r\n,-inf\r\n,nan\r\n,1e400\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"!21\r\nSYNTAX invalid syntax\r\n=15\r\ntxt:Some string\r\n",
    b"%2\r\n+first\r\n:1\r\n*1\r\n+second\r\n:2\r\n",
    b"~4\r\n:1\r\n#t\r\n,1\r\n*1\r\n~1\r\n:1\r\n",
    b"|1\r\n+ttl\r\n:3600\r\n*2\r\n|1\r\n+a\r\n~0\r\n:1\r\n:2\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n+OK\r\n",
    b"*2\r\n+a\r\n>1\r\n+pubsub\r\n+b\r\n",
    b"%1\r\n>1\r\n+x\r\n|1\r\n+k\r\n+v\r\n>2\r\n+y\r\n>1\r\n+z\r\n+key\r\n+value\r\n",
    b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n*?\r\n:1\r\n.\r\n%?\r\n+a\r\n:1\r\n.\r\n~?\r\n.\r\n",
    b"$4\r\n\xe2\x82\xac!\r\n$2\r\n\xe2\x82\r\n+caf\xe9\r\n-ERR \xff\r\n",
    b"*1\r\n" * 130 + b":1\r\n",
    b"~1\r\n" * 130 + b":1\r\n",
    b"$3\r\nabcX\r\n",
    b"+lone\rCR\r\n",
    b":1_0\r\n",
    b"$1024\r\n" + b"x" * 1024 + b"\r\n",
    b"+" + b"y" * 70_000,
)

TOKENS = (
    *(b"\r\n", b"\r", b"\n", b"\r\r\n", b"\n\r", b"\x00", b"\xff", b" ", b"-", b"+", b"_", b"e"),
    *(b"?", b"-1", b"0", b"00", b"1", b"2", b"9", b"10", b"+1", b"4294967295", b"4294967296"),
    *(b"18446744073709551616", b"9223372036854775807", b"-9223372036854775809", b"1e999", b"nan"),
    *(b"*1\r\n", b"*2\r\n", b"*?\r\n", b"%1\r\n", b"%?\r\n", b"~1\r\n", b"~?\r\n", b"|1\r\n"),
    *(b">1\r\n", b"$?\r\n", b";1\r\n", b";0\r\n", b".\r\n", b"*-1\r\n", b"$-1\r\n", b"*0\r\n"),
    *(b"$1\r\na\r\n", b"$0\r\n\r\n", b"+OK\r\n", b":1\r\n", b"_\r\n", b"#t\r\n", b"=4\r\ntxt:\r\n"),
    *(
        b"!1\r\nE\r\n",
        b",1.5\r\n",
        b"(1\r\n",
        b"\xe2\x82\xac",
        b"\xed\xa0\x80",
        b"$3\r\n\xe2\x82\xac",
    ),
)

LINES = (
    *(
        b"+OK",
        b"+",
        b"+QUEUED",
        b"+\xe2\x82\xac",
        b"+\xff",
        b"-ERR no",
        b"-",
        b":0",
        b":-1",
        b":+5",
    ),
    *(b":999", b":1000", b":9223372036854775807", b":9223372036854775808", b":007", b"_", b"#t"),
    *(b"#f", b",1.5", b",1e5", b",1.e5", b",inf", b",-nan", b",0.1e-5", b"(12345678901234567890"),
    *(b"(-0", b"$-1", b"*-1", b"*0", b"~0", b"%0", b"*?\r\n.", b"~?\r\n.", b"$?\r\n;0"),
)
REPLIES = Corpus(SEEDS, TOKENS, header=2, grammar=True)

# What a connection hears: replies, and what they are to be told from.
TALK = Corpus(
    (
        *SEEDS,
        b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n",
        b"*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:1\r\n*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$2\r\npq\r\n$1\r\nm\r\n",
        b"*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\n\xff\r\n",
        b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n>3\r\n$12\r\npunsubscribe\r\n_\r\n:0\r\n+OK\r\n",
        b"*3\r\n$10\r\ninvalidate\r\n$1\r\nk\r\n*-1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n+PONG\r\n",
        b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n+OK\r\n",
        b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:2\r\n-NOPROTO sorry\r\n",
        b"+QUEUED\r\n*2\r\n-ERR in it, `secret`\r\n+OK\r\n-WRONGPASS no\r\n+RESET\r\n",
    ),
    (
        *TOKENS,
        *(b"message", b"subscribe", b"$9\r\nsubscribe\r\n", b"$7\r\nmessage\r\n", b"un", b"proto"),
        *(b">3\r\n", b">4\r\n", b"*3\r\n", b"*4\r\n", b"$1\r\nb\r\n", b"$1\r\ns\r\n", b":3\r\n"),
    ),
    header=2,
    grammar=True,
)

URLS = Corpus(
    (
        b"redis://localhost:6379/0",
        b"rediss://u:p%40ss@[::1]:1/15?protocol=2",
        b"unix:///tmp/s%20ock?db=3",
        b"unix://u:p@/tmp/socket?client_name=a",
        b"sentinel://a,b:26379,[::1]:1/mymaster/3?timeout=1.5",
        b"sentinels://:p@a:1,b/m?encoding=utf-8&connect_timeout=2",
        b"h?db=1&protocol=3&encoding=latin-1&client_name=n&timeout=.5",
        b"p@h:1/2",
    ),
    (
        *(b"redis", b"rediss", b"unix", b"sentinel", b"sentinels", b"://", b"//", b"/", b":", b"@"),
        *(b"?", b"&", b"=", b"#", b",", b"[", b"]", b"%", b"%40", b"%2F", b"%00", b"%ff", b"%u1"),
        *(b"db", b"protocol", b"encoding", b"client_name", b"timeout", b"connect_timeout", b"ssl"),
        *(b"0", b"-1", b"1.5", b".", b"65536", b"1e9", b"\xd9\xa1", b" ", b"\t", b"\n"),
        *(b"\x00", b"\xc2\xa0", b"\xef\xbc\x8f", b"\xe2\x84\x80", b"\xff", b"m", b"::1", b"v1.x"),
    ),
)

LONGEST = 4096  # bytes of a made input


def wire(random: Random, depth: int = 0) -> bytes:
    """Return one element, right most of the time."""
    choice = random.randrange(20)
    if choice < 7 or depth > 5:
        return random.choice(LINES) + b"\r\n"
    if choice < 12:
        payload = random.choice((b"", b"a", b"\r\n", b"key", b"\xe2\x82\xac", random.randbytes(12)))
        kind = random.choice(b"$$$$$!=")
        if kind == ord("="):
            payload = b"txt:" + payload
        length = len(payload) + (random.randrange(20) == 0)
        return b"%c%d\r\n%b\r\n" % (kind, length, payload)
    if choice == 12:
        parts = [random.randbytes(random.randint(1, 9)) for _ in range(random.randrange(3))]
        chunks = [b";%d\r\n%b\r\n" % (len(part), part) for part in parts]
        return b"$?\r\n" + b"".join(chunks) + b";0\r\n"
    kind = random.choice(b"***%%%~~|>")
    count = random.choice((0, 1, 1, 2, 3, 5))
    elements = count * 2 if kind in b"%|" else count
    elements += kind == ord("|")  # the value that they belong to
    body = b"".join(wire(random, depth + 1) for _ in range(elements))
    if kind in b"*%~" and random.randrange(6) == 0:
        return b"%c?\r\n%b.\r\n" % (kind, body)
    return b"%c%d\r\n%b" % (kind, count, body)


def mutate(random: Random, data: bytes, corpus: Corpus) -> bytes:
    """Return the bytes with one thing changed."""
    here = random.randint(0, len(data))
    there = min(len(data), here + random.choice((1, 1, 2, 4, 16, 64)))
    match random.randrange(7):
        case 0:
            return data[:here] + data[there:]
        case 1:
            return data[:here] + random.choice(corpus.tokens) + data[here:]
        case 2:
            return data[:here] + random.choice(corpus.tokens) + data[there:]
        case 3:
            return data[:there] + data[here:there] * random.choice((1, 1, 2, 9)) + data[there:]
        case 4 if data:
            here = min(here, len(data) - 1)
            changed = data[here] ^ 1 << random.randrange(8)
            return data[:here] + bytes((changed,)) + data[here + 1 :]
        case 5:
            other = random.choice(corpus.seeds)
            return data[:here] + other[random.randint(0, len(other)) :]
        case _:
            return data[:here] + random.randbytes(random.randint(0, 4)) + data[there:]


def make(random: Random, corpus: Corpus | None) -> bytes:
    """Return one input: made of a corpus, or choices for a target that makes the rest itself."""
    if corpus is None:
        return random.randbytes(random.choice((4, 16, 64, 256, 1024)))
    if random.randrange(2) or not corpus.grammar:
        data = random.choice(corpus.seeds)
    else:
        data = b"".join(wire(random) for _ in range(random.randint(1, 4)))
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        data = mutate(random, data, corpus)
    return random.randbytes(corpus.header) + data[-LONGEST:]
