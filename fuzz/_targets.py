"""The targets: what must hold for all bytes. Each takes any bytes at all and returns None."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import resp
from resp import Attributed, ProtocolError, Push, ReplyError

from ._client_targets import CLIENT_CORPORA, CLIENT_TARGETS
from ._inputs import REPLIES
from ._outcome import WAYS, Codec, exact, outcome, stream_outcome
from ._source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PURE: Codec = resp.pure
COMPILED: Codec | None = resp if resp.implementation != "python" else None

# What the first byte of a stream's input chooses. Low limits are met by short inputs.
LOW = {"max_depth": 3, "max_bulk": 20, "max_elements": 4, "max_line": 12}
OPTIONS: Sequence[dict[str, Any]] = (
    {},
    {"attributes": True},
    {"encoding": "utf-8"},
    {"encoding": "utf-8", "attributes": True},
    {"encoding": "utf-8", "raw_pushes": True, "attributes": True},
    {"encoding": "utf-8", "errors": "replace", "attributes": True},
    {"encoding": "ascii", "errors": "surrogateescape"},
    {"encoding": "latin-1"},
    {"encoding": "utf-16"},
    LOW,
    {**LOW, "encoding": "utf-8", "attributes": True},
    {"max_bulk": 0, "max_line": 3},
    {"max_depth": 0},
    {"max_elements": 0, "attributes": True},
    {"max_depth": 1, "max_line": 2, "attributes": True},
    {"max_elements": 2, "max_bulk": 999, "encoding": "utf-8"},
)
HEADER = 2  # bytes of a stream's input before the stream: its options, and where to cut


def any_cut(data: bytes, codec: Codec = resp) -> None:
    """Check that a stream has one outcome, in all ways of reading it and however it is cut."""
    options, cuts, stream = _stream(data)
    expected = stream_outcome(WAYS[0], codec.Parser(**options), [stream])
    for way in WAYS:
        for chunks in ([stream], _bytewise(stream), cuts):
            found = stream_outcome(way, codec.Parser(**options), chunks)
            assert found == expected, f"{way.__name__}: {found} is not {expected}, cut {chunks}"


def twins(data: bytes, first: Codec = PURE, second: Codec | None = COMPILED) -> None:
    """Check that two parsers agree: values, exact types, error class, message and offset."""
    assert second is not None, "the compiled twin is not importable"
    options, cuts, stream = _stream(data)
    for way in WAYS[:2]:
        for chunks in ([stream], _bytewise(stream), cuts):
            expected = stream_outcome(way, first.Parser(**options), chunks)
            found = stream_outcome(way, second.Parser(**options), chunks)
            assert found == expected, f"{way.__name__}: {found} is not {expected}, cut {chunks}"
    # In the middle of things they agree as well: on what is there, and on what is pending.
    one, other = first.Parser(**options), second.Parser(**options)
    for chunk in cuts:
        expected, found = outcome(one.feed_all, chunk), outcome(other.feed_all, chunk)
        assert found == expected, f"feed_all({chunk!r}): {found} is not {expected}"
        pending = one.pending, other.pending
        assert pending[0] == pending[1], f"pending after {chunk!r}: {pending}"
    expected, found = (outcome(codec.parse, stream, **options) for codec in (first, second))
    assert found == expected, f"parse: {found} is not {expected}"


def round_trip(data: bytes, codec: Codec = resp) -> None:
    """Check that a value survives: in RESP3 exactly, in RESP2 as what RESP2 can say of it."""
    source = Source(data)
    text = source.byte() % 2 == 1
    value = source.reply(text=text)
    encoding = "utf-8" if text else None
    for protocol, expected in ((3, value), (2, _in_resp2(value))):
        wire = codec.encode(value, protocol=protocol)
        found = codec.parse(wire, attributes=True, encoding=encoding)
        if protocol == 2 and not text:
            expected = _as_bytes(expected)
        assert exact(found) == exact(expected), f"RESP{protocol}: {found!r} is not {expected!r}"


def reencode(data: bytes, codec: Codec = resp) -> None:
    """Check that what a parser made of any bytes is encoded to bytes that mean the same."""
    options, _, stream = _stream(data)
    options = {"attributes": True, "encoding": "utf-8" if "encoding" in options else None}
    try:
        values = codec.Parser(**options).feed_all(stream)
    except ProtocolError:
        return
    for value in values:
        # A push that interrupts a key has the attributes that the key would have had: frozen.
        frozen = isinstance(value, Attributed) and isinstance(value.attributes, tuple)
        if not isinstance(value, UnicodeDecodeError) and not frozen:
            wire = codec.encode(value)
            found = codec.Parser(**options, max_depth=1000).feed_all(wire)
            assert len(found) == 1, f"{value!r} became {found!r}"
            assert exact(found[0]) == exact(value), f"{found[0]!r} is not {value!r}"


def commands(data: bytes, codec: Codec = resp) -> None:
    """Check that commands go out as their arguments, alone and in a pipeline, or not at all."""
    source = Source(data)
    pipeline = [source.command() for _ in range(source.byte() % 4)]
    sent = []
    for command in pipeline:
        if isinstance(command, (list, tuple)):
            expected = [_argument(argument) for argument in command]
            if command and None not in expected:
                wire = codec.encode_command(*command)
                assert codec.parse(wire) == expected, f"{command!r} is sent as {wire!r}"
                sent.append(wire)
                continue
            found = outcome(codec.encode_command, *command)
            assert found[0] in (TypeError, ValueError), f"{command!r}: {found}"
            assert not {"secret", "pass"} & set(found[1].split()), f"it shows: {found}"
    found = outcome(codec.encode_commands, pipeline)
    if len(sent) == len(pipeline):
        assert found == (bytes, b"".join(sent)), f"{pipeline!r} is sent as {found}"
    else:
        assert found[0] in (TypeError, ValueError), f"{pipeline!r}: {found}"


def encoder_twins(data: bytes, first: Codec = PURE, second: Codec | None = COMPILED) -> None:
    """Check that two encoders agree: bytes, or the class and the message of the error."""
    assert second is not None, "the compiled twin is not importable"
    source = Source(data)
    kind = source.byte() % 3
    if kind == 2:
        value: Any = source.reply(text=source.byte() % 2 == 1)
        if source.byte() % 4 == 3:
            value = [value, {b"in": [source.argument(), source.argument()]}]
        for protocol in (2, 3):
            expected, found = (outcome(c.encode, value, protocol=protocol) for c in (first, second))
            assert found == expected, f"encode({value!r}, {protocol}): {found} is not {expected}"
        return
    if kind == 1:
        pipeline = [source.command() for _ in range(source.byte() % 4)]
        expected, found = (outcome(codec.encode_commands, pipeline) for codec in (first, second))
        assert found == expected, f"encode_commands({pipeline!r}): {found} is not {expected}"
        return
    command = [source.argument() for _ in range(source.byte() % 6)]
    expected, found = (outcome(codec.encode_command, *command) for codec in (first, second))
    assert found == expected, f"encode_command(*{command!r}): {found} is not {expected}"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "any_cut": any_cut,
    "twins": twins,
    "round_trip": round_trip,
    "reencode": reencode,
    "commands": commands,
    "encoder_twins": encoder_twins,
    **CLIENT_TARGETS,
}
# The same on the pure twins, where the target chooses its codec.
PURE_TARGETS: dict[str, Callable[[bytes], None]] = {
    **TARGETS,
    **{
        target.__name__: partial(target, codec=PURE)
        for target in (any_cut, round_trip, reencode, commands)
    },
}
# What inputs are made of; the others take their choices from a `Source`.
CORPORA = {"any_cut": REPLIES, "twins": REPLIES, "reencode": REPLIES, **CLIENT_CORPORA}
# Those that compare the two implementations, and so need both.
PARITY = frozenset(("twins", "encoder_twins"))


def _stream(data: bytes) -> tuple[dict[str, Any], list[bytes], bytes]:
    """Return the options of the parser, the chunks of the stream and the stream."""
    header, stream = data[:HEADER], data[HEADER:]
    options = OPTIONS[header[0] % len(OPTIONS)] if header else {}
    generator = random.Random(header[1] if len(header) > 1 else 0)
    size = (2, 5, 20, 100)[generator.randrange(4)]
    cuts, position = [], 0
    while position < len(stream):
        step = generator.randint(0, size)  # an empty chunk now and then
        cuts.append(stream[position : position + step])
        position += step
    return dict(options), cuts, stream


def _bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def _argument(argument: Any) -> bytes | None:
    """Return what a server must read for an argument; None where it can't be sent."""
    if isinstance(argument, (bytes, bytearray, memoryview)):
        return bytes(argument)
    if isinstance(argument, str):
        try:
            return str.encode(argument)
        except UnicodeEncodeError:
            return None
    if isinstance(argument, float):
        return repr(argument).encode()
    if isinstance(argument, int) and not isinstance(argument, bool):
        return int.__repr__(argument).encode()
    return None


def _in_resp2(value: Any) -> Any:
    """Return what a client of RESP2 sees of a value, strings aside."""
    if isinstance(value, Attributed):
        return _in_resp2(value.value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, ReplyError):
        return ReplyError(str(value).replace("\r", " ").replace("\n", " "))
    if isinstance(value, dict):
        return [_in_resp2(part) for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple, set, frozenset, Push)):
        return [_in_resp2(item) for item in value]
    if isinstance(value, bytes):
        return bytes(value)
    return str(value) if isinstance(value, str) else value


def _as_bytes(value: Any) -> Any:
    """Return the value with its text as bytes."""
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value
