"""The targets for what of the client does no I/O: replies, URLs, messages, the command table."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import resp
from client import MISS, Cache, UnexpectedReply
from client._cache import Source as Origin
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
from resp import NEED_DATA, ProtocolError, Push, ReplyError

from ._inputs import TALK, URLS
from ._outcome import exact
from ._source import Source

if TYPE_CHECKING:
    from client._cache import Reservation
    from client._session import Trace

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
    ("HELLO", 3, "AUTH", "me", "secret"),
    (bytearray(b"unsubscribe"), b"b"),
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
    traced: list[str] = []
    slowly = _replies(sent, [stream], lambda _, way, frame: traced.append(f"{way} {frame}"))
    assert slowly == whole, f"traced: {slowly} is not {whole}"
    assert not any("secret" in line for line in traced[: len(sent)]), traced
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
    commands: list[tuple[Any, ...]], chunks: list[bytes], trace: Trace | None = None
) -> tuple[list[Any], list[Any], type[Exception] | None]:
    pushes: list[Any] = []

    def on_push(push: Push) -> None:
        pushes.append(exact(push))
        announced_keys(push)

    talk = Session(on_push=on_push, max_bulk=MAX_BULK, trace=trace)
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
    """Check that a cache serves nothing that changed since it was read, and keeps its bounds.

    Every key has a version, which a change moves on and announces. A value names the versions that
    were there when its keys were read: so a hit tells by itself whether it is stale.
    """
    source = Source(data)
    now = 0.0
    versions = dict.fromkeys(range(6), 0)
    most = (3, 20)[source.byte() % 2]
    held = Cache(max_entries=most, max_bytes=4800, max_ttl=10.0, clock=lambda: now)
    news = held.events(max_events=8)
    woken: list[Reservation] = []
    epoch = held.open()
    alive = Origin()
    fresh_until = float("inf")
    standing: list[tuple[Reservation, dict[int, int], Origin]] = []
    filled: dict[Any, tuple[Origin, float]] = {}  # who read it, and when it ends

    def read(key: int) -> tuple[bytes, dict[int, int]]:
        return b"%d" % key, {key: versions[key]}

    while source.position < len(source.data):
        step, key = source.byte() % 16, source.byte() % 6
        chosen = standing.pop(source.byte() % len(standing)) if standing else None
        match step:
            case 0 | 1 | 2:
                name, seen = read(key)
                asked = (b"GET", name) if step else (b"GET", name, key)
                token = held.reserve(asked, (name,), epoch, alive)
                if token is not None:
                    assert held.flight(asked) is token
                    standing.append((token, seen, alive))
                    ended = partial(woken.append, token)
                    assert held.when_ended(token, ended)
            case 3 if chosen is not None:
                name, seen = read(key)
                if held.extend(chosen[0], (name,), now + source.byte()):
                    for known, version in seen.items():
                        chosen[1].setdefault(known, version)
                standing.append(chosen)
                chosen = None
            case 4 | 5 | 6 if chosen is not None:
                token, seen, reader = chosen
                ttl = source.byte() / 10 or None
                command = token.command
                if held.fill(token, _valued(source, seen), ttl):
                    filled[command] = reader, now + min(ttl or 10.0, 10.0)
                assert token.gone is not None
                assert not held.when_ended(token, woken.clear)
                chosen = None
            case 7 if chosen is not None:
                held.abandon(chosen[0])
                assert chosen[0] in woken
                chosen = None
            case 8 if chosen is not None:
                held.rename(chosen[0], (b"RENAMED", key))
            case 9 | 10:
                versions[key] += 1
                held.invalidate((str(key),) if step == 9 else (b"%d" % key, b"unknown"))
            case 11:
                now += source.byte() / 50
            case 12:
                alive = Origin()
            case 13:
                held.end(alive)
                alive = Origin()
            case 14 if key == 0:
                held.close("test")
                assert not len(held)
                bound = source.byte() / 10 or float("inf")
                epoch, fresh_until = held.open(bound, now), now + bound
            case 14 if key == 1:
                held.invalidate(None)
            case 14 if key == 2:
                held.after_fork()
                epoch, fresh_until = held.open(), float("inf")
                assert not any(held.fill(token, b"late") for token, *_ in standing)
                standing, chosen = [], None
            case _:
                while news.get(0) is not None:
                    pass
        if chosen is not None:
            standing.append(chosen)
        commands: list[Any] = [*held, (b"GET", b"0")]
        for command in commands:
            held.explain(*command)
            entry, found = held.find(command), held.get(command)
            assert (entry is None) == (found is MISS)
            if entry is not None:
                reader, ends = filled[command]
                assert reader.alive, f"{command}: who read it is gone"
                assert now < min(ends, fresh_until), f"{command}: served at {now}"
                expected = _stamp_of({int(key): versions[int(key)] for key in entry.keys})
                assert _innermost(found) == expected, f"{command}: {found} is not {expected!r}"
                if isinstance(found, list):
                    found.clear()
                    assert held.get(command), "its caller changed what is held"
        stats = held.stats
        assert stats.entries + stats.reservations <= most
        assert stats.bytes <= 4800
        assert stats.reservations <= len(standing)
        assert len(held._index) <= 7 * (stats.entries + stats.reservations)
        assert stats.refused_fills == sum(stats.refused_by.values())
    for token, *_ in standing:
        held.abandon(token)
    assert held.stats.reservations == 0
    held.flush()
    assert (held.stats.bytes, len(held._index), len(held)) == (0, 0, 0)


def _valued(source: Source, seen: dict[int, int]) -> Any:
    """Return a value of any shape that names the versions it was made of."""
    stamp = _stamp_of(seen)
    match source.byte() % 8:
        case 0:
            return [stamp, source.string(), [source.byte()]]
        case 1:
            return [stamp, source.string()]
        case 2:
            return {stamp: {source.byte(): {source.byte()}}}
        case 3:
            return {stamp}
        case 4:
            return ReplyError("ERR")
        case 5:
            nested: Any = stamp
            for _ in range(source.byte() % 40):
                nested = [nested]
            return nested
        case _:
            return stamp


def _stamp_of(versions: dict[int, int]) -> bytes:
    return b",".join(sorted(b"%d=%d" % pair for pair in versions.items()))


def _innermost(value: Any) -> Any:
    while not isinstance(value, bytes):
        value = next(iter(value))
    return value


CLIENT_TARGETS = {
    "session": session,
    "url": url,
    "messages": messages,
    "command_table": command_table,
    "cache": cache,
}
CLIENT_CORPORA = {"session": TALK, "messages": TALK, "url": URLS}
