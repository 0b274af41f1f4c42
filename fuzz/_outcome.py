"""What a codec made of an input, in a form that two of them can be compared in.

Equality of Python is too kind: `1 == 1.0 == True`, a `Push` equals its list, a nan not even
itself. Here the exact type counts, and so does the order of a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from resp import NEED_DATA, Attributed, ProtocolError, ReplyError, Verbatim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import resp


class Codec(Protocol):
    """What the package and its pure twin have in common."""

    Parser: type[resp.Parser]
    parse: Callable[..., Any]
    encode: Callable[..., bytes]
    encode_command: Callable[..., bytes]
    encode_commands: Callable[..., bytes]


def exact(value: Any) -> Any:
    """Return nested tuples that are equal if and only if the values are the same."""
    kind = type(value)
    if isinstance(value, UnicodeDecodeError):
        return kind, value.encoding, value.object, value.start, value.end, value.reason
    if isinstance(value, ProtocolError):
        return kind, str(value), value.offset
    if isinstance(value, ReplyError):
        return kind, str(value), value.args
    if isinstance(value, Attributed):
        return kind, exact(value.value), exact(value.attributes)
    if isinstance(value, Verbatim):
        text = str(value, "latin-1") if isinstance(value, bytes) else str(value)
        return kind, value.format, text
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(exact, value))
    if isinstance(value, dict):
        return kind, tuple((exact(key), exact(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return kind, tuple(sorted(map(exact, value), key=repr))
    if isinstance(value, float):
        return kind, repr(value)
    return kind, value


def failure(error: BaseException) -> Any:
    """Return what an exception says."""
    return exact(error) if isinstance(error, ProtocolError) else (type(error), str(error))


def outcome(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a call returns, or what it raises."""
    try:
        return exact(call(*args, **options))
    except Exception as error:  # noqa: BLE001  # whatever it is, the other one must raise it too
        return failure(error)


def by_parse(parser: resp.Parser, chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the values one by one, as `feed()` and `parse()` give them."""
    for chunk in chunks:
        parser.feed(chunk)
        while True:
            try:
                value = parser.parse()
            except UnicodeDecodeError as error:
                value = error
            if value is NEED_DATA:
                break
            yield value


def by_iteration(parser: resp.Parser, chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the values as `feed()` and iteration give them."""
    for chunk in chunks:
        parser.feed(chunk)
        yield from parser


def by_feed_all(parser: resp.Parser, chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the values as `feed_all()` gives them."""
    for chunk in chunks:
        yield from parser.feed_all(chunk)
        if parser.error is not None:
            parser.feed_all(b"")  # raises it


def by_buffer(parser: resp.Parser, chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the values as a buffered protocol gets them."""
    for chunk in chunks:
        buffer = parser.get_buffer(len(chunk))
        buffer[: len(chunk)] = chunk
        parser.buffer_updated(len(chunk))
        yield from parser


WAYS = (by_feed_all, by_parse, by_iteration, by_buffer)


def stream_outcome(
    way: Callable[[resp.Parser, Iterable[bytes]], Iterator[Any]],
    parser: resp.Parser,
    chunks: Iterable[bytes],
) -> list[Any]:
    """Return the values of a stream, the error that ended it, and how many bytes are left over."""
    found: list[Any] = []
    try:
        for value in way(parser, chunks):
            found.append(exact(value))  # noqa: PERF401  # those before an error count
    except ProtocolError as error:
        found.append(exact(error))
        if [outcome(parser.parse), exact(parser.error)] != [found[-1]] * 2:
            raise AssertionError("a spent parser says something else when asked again") from None
    else:
        assert parser.error is None, f"an error that was not raised: {parser.error}"
        found.append(parser.pending)
    return found
