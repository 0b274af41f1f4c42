"""The targets for what of the client does no I/O: replies, URLs, messages, the command table."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import resp
from client import Cache, UnexpectedReply
from client._command_table import COMMANDS as TABLE
from client._commands import (
    blocks_for,
    cacheable_keys,
    find_command,
    is_read_only,
    is_script,
    may_block,
    why_not_cacheable,
    written_keys,
)
from client._handshake import announced_keys
from client._options import Options
from client._pubsub import Inbox, Message
from client._session import Session, redact, role
from resp import NEED_DATA, ProtocolError, Push

from ._inputs import REPLIES, URLS
from ._outcome import exact
from ._source import Source

HEADER = 2
MAX_BULK = 4096
COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("GET", "k"),
    ("PING",),
    ("HELLO", 3),
    ("HELLO", 2),
    ("SUBSCRIBE", "a"),
    ("SUBSCRIBE", "a", "b"),
    ("PSUBSCRIBE", "*"),
    ("SSUBSCRIBE", "s"),
    ("UNSUBSCRIBE",),
    ("UNSUBSCRIBE", "a"),
    ("PUNSUBSCRIBE",),
    ("RESET",),
    ("CLIENT", "TRACKING", "ON"),
    ("AUTH", "secret"),
    ("MULTI",),
    ("EXEC",),
)


def session(data: bytes) -> None:
    """Check that a session turns any bytes into replies in their order, or names what is wrong.

    However they are cut, the replies are the same; there are never more than commands; pushes are
    none of them; and what is kept of an unfinished reply is no more than the limit allows.
    """
    source = Source(data[:HEADER])
    chosen, size = source.byte(), 1 + source.byte() % 40
    sent = [COMMANDS[(chosen + step * step * (chosen % 7)) % len(COMMANDS)] for step in range(5)]
    if chosen % 3 == 0:
        sent = [("GET", "k")] * (1 + chosen % 5)  # the plain way, which looks at nothing else
    stream = data[HEADER:]
    whole = _replies(sent, [stream])
    cut = _replies(sent, [stream[at : at + size] for at in range(0, len(stream), size)])
    assert cut == whole, f"cut by {size}: {cut} is not {whole}"
    results, _, failure = whole
    assert len(results) <= len(sent)
    if chosen % 3 == 0:
        parser = resp.Parser(raw_pushes=True, max_bulk=MAX_BULK)
        try:
            parser.feed(stream)
            values = list(iter(parser.parse, NEED_DATA))
        except ProtocolError:
            values = None
        if values is not None:
            expected = [exact(value) for value in values if type(value) is not Push]
            if failure is None:
                assert results == expected, f"{results} is not {expected}"
            assert (failure is UnexpectedReply) == (len(expected) > len(sent))


def _replies(
    commands: list[tuple[Any, ...]], chunks: list[bytes]
) -> tuple[list[Any], list[Any], type[Exception] | None]:
    pushes: list[Any] = []

    def on_push(push: Push) -> None:
        pushes.append(exact(push))
        announced_keys(push)

    talk = Session(on_push=on_push, max_bulk=MAX_BULK)
    for command in commands:
        talk.send(*command)
    results: list[Any] = []
    for chunk in chunks:
        try:
            found = talk.receive(chunk)
        except ProtocolError:
            return results, pushes, ProtocolError
        except UnexpectedReply:
            # A chunk with a surplus reply gives none of its replies: how it was cut decides.
            return [], [], UnexpectedReply
        results += map(exact, found)
        assert talk.owed == len(commands) - len(results)
        if talk.failure is not None:
            assert isinstance(talk.failure, ProtocolError)
            return results, pushes, ProtocolError
    return results, pushes, None


def url(data: bytes) -> None:
    """Check that a URL is understood or refused, and that no refusal shows what it holds."""
    text = data.decode("utf-8", "surrogateescape")
    for candidate in (text, f"redis://user:s3cr3t-{text}", f"redis://:s3cr3t@{text}"):
        options, refusal = _read(candidate)
        while refusal is not None:
            assert "s3cr3t" not in str(refusal), f"{candidate!r}: {refusal}"
            refusal = refusal.__cause__ or refusal.__context__
        if options is None:
            continue
        assert "s3cr3t" not in repr(options)
        assert 1 <= options.port <= 65535
        assert options.db >= 0
        assert options.host or options.unix_path
        assert "s3cr3t" not in options.address or "s3cr3t" in text


def _read(text: str) -> tuple[Options | None, BaseException | None]:
    try:
        return Options.from_url(text), None
    except (ValueError, TypeError, LookupError) as error:
        return None, error


def messages(data: bytes) -> None:
    """Check that a subscriber in RESP2 tells messages, confirmations and replies apart.

    Whatever else arrives, a subscriber's inbox takes it or leaves it, and stays within its bound.
    """
    source = Source(data[:HEADER])
    chosen = source.byte()
    encoding = (None, "utf-8", "ascii")[chosen % 3]
    overflow: Any = ("pause", "drop")[chosen % 2]
    inbox = Inbox(("a", "p*"), (), (), ("s",), 1 + chosen % 5, overflow, encoding, "strict")
    talk = Session(on_push=lambda push: found.append(inbox.take(push)))
    found: list[bool] = []
    for command in inbox.commands():
        talk.send(*command)
    talk.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
    stream, size = data[HEADER:], 1 + source.byte() % 40
    try:
        for at in range(0, len(stream), size):
            talk.receive(stream[at : at + size])
            if talk.failure is not None:
                break
    except (ProtocolError, UnexpectedReply):
        pass
    assert talk.owed >= 0
    if overflow == "drop":
        assert len(inbox.messages) <= 1 + chosen % 5
    while inbox.messages:
        with suppress(UnicodeDecodeError):
            assert isinstance(inbox.next(), Message)


def command_table(data: bytes) -> None:
    """Check what is said of arbitrary commands: consistent, about arguments that they have.

    What can't be judged may write any key; what is cached has keys, and reads only.
    """
    source = Source(data)
    names = [*_names()]
    words = [names[(source.byte() * 256 + source.byte()) % len(names)]]
    while source.position < len(source.data) and len(words) < 12:
        kind = source.byte()
        words.append(_WORDS[kind] if kind < len(_WORDS) else source.string())
    keys = cacheable_keys(words)
    assert (keys is None) == (why_not_cacheable(words) is not None)
    written = written_keys(words)
    for named in (keys, written):
        assert named is None or set(named) <= set(words[1:]), f"{words}: {named}"
    if keys is not None:
        assert written == (), f"{words} is cached, and writes {written}"
        assert is_read_only(words), f"{words} is cached, and no read"
        assert find_command(words) is not None
    if is_read_only(words) and words[0].upper() != b"PFCOUNT":  # which may refresh what it counts
        assert written in ((), None), f"{words} only reads, and writes {written}"
    is_script(words)
    role(words)
    assert len(redact(words)) == len(words), words
    if may_block(words):
        assert blocks_for(words) >= 0, f"{words} waits for {blocks_for(words)}"
        assert keys is None, f"{words} may block, and is cached"


_WORDS = (
    *(b"k", b"0", b"1", b"2", b"-1", b"18446744073709551616", b"STORE", b"BLOCK", b"STREAMS"),
    *(b"KEYS", b"BY", b"GET", b"COUNT", b"WITHSCORES", b"WEIGHTS", b"LIMIT", b"NUMKEYS", b"1x"),
    *(b"ID", b"LIST", b"block", b"", b"\xff", b"ENCODING", b"PERSIST"),
)
_known: list[bytes] = []


def _names() -> list[bytes]:
    if not _known:
        _known.extend(sorted({name.split()[0] for name in TABLE}))
        _known.extend((b"get", b"Sort", b"nonsense", b"", b"\xff"))
    return _known


def cache(data: bytes) -> None:
    """Check that a cache stays within its bounds and consistent, whatever is done to it."""
    source = Source(data)
    now = 0.0
    held = Cache(max_entries=5, max_bytes=3000, max_ttl=10.0, clock=lambda: now)
    epoch = held.open()
    standing: list[Any] = []
    while source.position < len(source.data):
        step = source.byte() % 9
        key = b"%d" % (source.byte() % 6)
        if step < 3:
            reservation = held.reserve((b"GET", key), (key, b"0"), epoch)
            if reservation is not None:
                standing.append(reservation)
        elif step < 6 and standing:
            value = source.string() if step == 3 else [source.string(), [source.byte()]]
            held.fill(standing.pop(source.byte() % len(standing)), value, source.byte() or None)
        elif step == 6:
            held.invalidate((key,))
        elif step == 7:
            now += source.byte() / 50
        elif source.byte() % 4:
            held.get((b"GET", key))
        else:
            held.close("test")
            epoch = held.open()
        stats = held.stats
        assert stats.entries + stats.reservations <= 5
        assert stats.bytes <= 3000
        assert stats.reservations <= len(standing)
        assert len(held._index) <= 2 * (stats.entries + stats.reservations)


CLIENT_TARGETS = {
    "session": session,
    "url": url,
    "messages": messages,
    "command_table": command_table,
    "cache": cache,
}
CLIENT_CORPORA = {"session": REPLIES, "messages": REPLIES, "url": URLS}
