"""The grammar. Every element is read once: when bytes run out, the grammar waits where it stands.

`_grammar` is a generator that reads like the specification, from the type byte to the value. It
yields where it has a value to deliver or no bytes to go on; its open containers wait on an
explicit stack, so nothing recurses and nothing is read again when the next chunk arrives. `Parser`
around it takes chunks in and hands values out, and knows no grammar.

Nothing is ever allocated from a declared length: a list grows as its elements come, and a bulk is
the join of the chunks that brought it.
"""

from __future__ import annotations

from codecs import lookup_error
from collections import deque

from ._errors import ProtocolError, ReplyError
from ._lines import (
    MAX_LINE,
    check_line,
    check_null,
    parse_big_number,
    parse_boolean,
    parse_double,
    parse_integer,
    parse_length,
    parse_verbatim,
    refusal,
    shown,
)
from ._types import (
    ARRAY,
    ATTRIBUTE,
    BIG_NUMBER,
    BOOLEAN,
    BULK_ERROR,
    BULK_STRING,
    CHUNK,
    DOUBLE,
    END,
    INTEGER,
    MAP,
    NAMES,
    NEED_DATA,
    NULL,
    PUSH,
    SET,
    SIMPLE_ERROR,
    SIMPLE_STRING,
    VERBATIM_STRING,
    Attributed,
    Push,
    Verbatim,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any, Final, NoReturn, TypeAlias

    # What can be fed: bytes are kept as they are, the others copied.
    Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_DEPTH: Final = 128  # as serde_json; servers' own replies stay below 10
MAX_BULK: Final = 512 * 1024 * 1024  # proto-max-bulk-len, as servers ship
MAX_ELEMENTS: Final = 2**32 - 1  # as hiredis' maxelements

# Keys and members nest at most this deep, whatever max_depth allows: CPython hashes and compares
# what they are frozen to recursively, in C.
MAX_KEY_DEPTH: Final = 128

# What a frame of the stack can be, besides the type byte of an aggregate.
TOP: Final = 0  # where replies stand
ATTRIBUTED: Final = -1  # attributes are complete, and wait for their value

# How the end of a frame is found.
COUNTED: Final = 0
STREAMED: Final = 1  # by END
FULL: Final = 2  # by END, and max_elements have come

AGGREGATES: Final = frozenset((ARRAY, MAP, SET, ATTRIBUTE, PUSH))
STRINGS: Final = frozenset((BULK_STRING, BULK_ERROR, VERBATIM_STRING))
STREAMABLE: Final = frozenset((ARRAY, MAP, SET))
PAIRED: Final = frozenset((MAP, ATTRIBUTE))
SCOPES: Final = frozenset((ATTRIBUTE, PUSH))

# Whole lines, tried before any is taken apart. None has more than LONGEST_KNOWN bytes of content.
LENGTHS: Final = {b"$%d" % length: length for length in range(1000)}
KNOWN: Final[dict[bytes, Any]] = {
    b"_": None,
    b"$-1": None,
    b"*-1": None,
    b"#t": True,
    b"#f": False,
    **{b":%d" % number: number for number in range(1000)},
}
LONGEST_KNOWN: Final = 3

# A chunk of a bulk below this size is gathered with its neighbours: a server that sends a byte a
# packet would else cost an object a byte.
SMALL_CHUNK: Final = 512

SCRATCH: Final = 64 * 1024  # what get_buffer() offers at least

MISSING: Final = object()


class _Tape:
    """What a parser and its grammar share: chunks in, values out, and how far both have come."""

    __slots__ = ("chunks", "delivered", "fed", "interrupted", "single", "taken", "values")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()  # fed, not yet taken by the grammar
        self.values: list[Any] = []  # complete, not yet handed out
        self.single = False  # whether the grammar stops at every value
        self.fed = 0  # bytes ever fed
        self.taken = 0  # bytes of them that the grammar took: its buffer ends here
        self.delivered = 0  # bytes of them that are part of complete values
        self.interrupted = -1  # where the first push began that stood inside a reply

    def take(self) -> bytes:
        """Return the next chunk."""
        chunk = self.chunks.popleft()
        self.taken += len(chunk)
        return chunk


def _rest_of_line(tape: _Tape, line: bytes, limit: int) -> Generator[None, None, tuple[bytes, int]]:
    """Wait until `line` has its CRLF; return the buffer that it begins and where its CRLF is.

    Only what is new is searched, so a line that comes byte by byte costs its length.
    """
    while True:
        if line:
            check_line(line, tape.taken - len(line), limit, complete=False)
        gathered = bytearray(line)
        while True:
            while not tape.chunks:
                yield
            chunk = tape.take()
            if not line or line.endswith(b"\r") or b"\r" in chunk or b"\n" in chunk:
                break
            gathered += chunk
            chunk = b""
            if len(gathered) - 1 > limit:
                break
        line = bytes(gathered) + chunk
        end = line.find(b"\r\n")
        if end >= 0:
            return line, end


def _payload(
    tape: _Tape, buffer: bytes, position: int, length: int, name: str
) -> Generator[None, None, tuple[bytes, bytes, int]]:
    """Wait for `length` bytes and their CRLF; return them, the buffer and the position behind.

    A chunk's bytes are copied once, when the payload is joined.
    """
    if len(buffer) - position >= length:
        value = buffer[position : position + length]
        position += length
    else:
        parts: list[bytes | bytearray | memoryview] = [memoryview(buffer)[position:]]
        missing = length - (len(buffer) - position)
        while True:
            while not tape.chunks:
                yield
            buffer = tape.take()
            if len(buffer) >= missing:
                break
            missing -= len(buffer)
            last = parts[-1]
            if len(buffer) >= SMALL_CHUNK:
                parts.append(buffer)
            elif isinstance(last, bytearray):
                last += buffer
            else:
                parts.append(bytearray(buffer))
        parts.append(memoryview(buffer)[:missing])
        position = missing
        value = b"".join(parts)
    while len(buffer) - position < 2:
        while not tape.chunks:
            yield
        buffer = buffer[position:] + tape.take()
        position = 0
    trailer = buffer[position : position + 2]
    if trailer != b"\r\n":
        offset = tape.taken - len(buffer) + position
        raise refusal(f"CRLF after {name} of {length} bytes", shown(trailer), offset)
    return value, buffer, position + 2


def _streamed_string(
    tape: _Tape, buffer: bytes, position: int, max_bulk: int, max_line: int
) -> Generator[None, None, tuple[bytes, bytes, int]]:
    """Wait for the chunks of a `$?` string; return what `_payload` does.

    RESP3, "Streamed strings": `;` and a length before every chunk, and ;0 ends the string. Nothing
    else, not even a push, may stand between two chunks.
    """
    parts: list[bytes] = []
    total = 0
    while True:
        end = buffer.find(b"\r\n", position)
        if end < 0:
            buffer, end = yield from _rest_of_line(tape, buffer[position:], max_line)
            position = 0
        line = buffer[position:end]
        offset = tape.taken - len(buffer) + position
        check_line(line, offset, max_line, complete=True)
        if line[0] != CHUNK:
            raise refusal("a chunk of the streamed string", shown(line[:1]), offset)
        length = parse_length(line[1:], offset, NAMES[CHUNK])
        total += length
        if total > max_bulk:
            raise refusal(f"a bulk of at most {max_bulk} bytes", f"{total} or more", offset)
        if not length:
            return b"".join(parts), buffer, end + 2
        part, buffer, position = yield from _payload(tape, buffer, end + 2, length, NAMES[CHUNK])
        parts.append(part)


def _grammar(
    tape: _Tape,
    encoding: str | None,
    errors: str,
    attributes: bool,
    raw_pushes: bool,
    max_depth: int,
    max_bulk: int,
    max_elements: int,
    max_line: int,
) -> Generator[None, None, NoReturn]:
    """Turn the chunks of the tape into values, for ever, or until a `ProtocolError`."""
    values = tape.values
    chunks = tape.chunks
    memo = max_line >= LONGEST_KNOWN and max_bulk >= max(LENGTHS.values())
    known_length = (LENGTHS if memo else {}).get
    known = (KNOWN if memo else {}).get

    # The buffer ends at tape.taken; `base` is the offset of its first byte in the stream, and
    # `position` is in the buffer, at the element that comes next.
    buffer, base, position = b"", 0, 0

    # The open frame; those around it wait on the stack.
    #   items      the elements so far; of a map keys and values in turn; of ATTRIBUTED the map
    #   remaining  how many are still to come
    #   ending     COUNTED, STREAMED or FULL
    #   frozen     how many containers deep in a key or a member it is, or 0
    #   text       whether strings in it are decoded
    #   start      its offset in the stream; once FULL, that of the first byte too many
    kind, items, remaining, ending, frozen = TOP, values, 1, COUNTED, 0
    text, start = encoding is not None, 0
    stack: list[tuple[int, list[Any], int, int, int, bool, int]] = []

    # Text that can't be decoded fails the reply or the push that it is in. `failure` is that of
    # the innermost scope: the reply, or an attribute, or a push. The scopes around it wait, each
    # with the count of bytes delivered when the inner one began.
    failure: UnicodeError | None = None
    scopes: list[tuple[UnicodeError | None, int]] = []

    value: Any
    while True:
        end = buffer.find(b"\r\n", position)
        if end < 0:
            if kind == TOP:
                tape.delivered = base + position
            if position == len(buffer):
                # Let go of what is read: the next chunk may be long in coming.
                buffer, base, position = b"", tape.taken, 0
                while not chunks:
                    yield
                buffer = tape.take()
                continue
            buffer, end = yield from _rest_of_line(tape, buffer[position:], max_line)
            base = tape.taken - len(buffer)
            position = 0
        line = buffer[position:end]
        behind = end + 2

        opened = False
        length = known_length(line)
        value = known(line, MISSING) if length is None else None
        if value is MISSING:
            offset = base + position
            if kind == TOP:
                tape.delivered = offset
            byte = buffer[position]
            content = line[1:]
            if byte not in NAMES or len(content) > max_line or b"\r" in content or b"\n" in content:
                check_line(line or b"\r", offset, max_line, complete=True)

            if byte == SIMPLE_STRING:
                value = content
            elif byte == INTEGER:
                value = parse_integer(content, offset)
            elif byte in STRINGS:
                if content == b"-1" and byte == BULK_STRING:
                    value = None
                elif content == b"?" and byte == BULK_STRING:
                    value, buffer, behind = yield from _streamed_string(
                        tape, buffer, behind, max_bulk, max_line
                    )
                    base = tape.taken - len(buffer)
                else:
                    length = parse_length(content, offset, NAMES[byte])
                    if length > max_bulk:
                        expected = f"a {NAMES[byte]} of at most {max_bulk} bytes"
                        raise refusal(expected, str(length), offset)
                    if byte != BULK_STRING:
                        value, buffer, behind = yield from _payload(
                            tape, buffer, behind, length, NAMES[byte]
                        )
                        base = tape.taken - len(buffer)
                        length = None
                        if byte == BULK_ERROR:
                            value = ReplyError(value.decode("utf-8", "backslashreplace"))
                        else:
                            value = parse_verbatim(value, offset)
            elif byte in AGGREGATES:
                if content == b"-1" and byte == ARRAY:
                    value = None
                else:
                    streamed = content == b"?" and byte in STREAMABLE
                    count = max_elements if streamed else parse_length(content, offset, NAMES[byte])
                    if byte in PAIRED and not streamed:
                        count *= 2
                    if count > max_elements:
                        expected = f"at most {max_elements} elements in one {NAMES[byte]}"
                        raise refusal(expected, str(count), offset)
                    if len(stack) >= max_depth:
                        raise refusal(f"at most {max_depth} levels of nesting", "one more", offset)
                    # A key or a member must be hashable, and so must all that is in it.
                    hashed = frozen or kind == SET or (kind in PAIRED and not len(items) % 2)
                    depth_in_key = frozen + 1 if hashed and byte != PUSH else 0
                    if depth_in_key > MAX_KEY_DEPTH:
                        expected = f"at most {MAX_KEY_DEPTH} levels of nesting in a key or a member"
                        raise refusal(expected, "one more", offset)

                    stack.append((kind, items, remaining, ending, frozen, text, start))
                    kind, items, remaining, frozen, start = byte, [], count, depth_in_key, offset
                    ending = STREAMED if streamed else COUNTED
                    opened = True
                    if byte in SCOPES:
                        scopes.append((failure, tape.delivered))
                        failure = None
                        if byte == PUSH:
                            text = encoding is not None and not raw_pushes
                        else:
                            text = text and attributes
            elif byte == SIMPLE_ERROR:
                value = ReplyError(content.decode("utf-8", "backslashreplace"))
            elif byte == DOUBLE:
                value = parse_double(content, offset)
            elif byte == BIG_NUMBER:
                value = parse_big_number(content, offset)
            elif byte == BOOLEAN:
                value = parse_boolean(content, offset)
            elif byte == NULL:
                check_null(content, offset)
                value = None
            elif byte == END and ending != COUNTED:
                # RESP3, "Streamed aggregated data types": . ends what began with ?.
                if content:
                    raise refusal("CRLF after the end of a stream", shown(content), offset)
                if kind == MAP and len(items) % 2:
                    raise refusal("a value for the last key of the map", "its end", offset)
                remaining, ending = 0, COUNTED
                opened = True
            else:
                raise refusal("an element", f"the {NAMES[byte]} {shown(line)}", offset)

        if length is not None:
            stop = behind + length
            if buffer[stop : stop + 2] == b"\r\n":
                value = buffer[behind:stop]
                behind = stop + 2
            else:
                if kind == TOP:
                    tape.delivered = base + position
                value, buffer, behind = yield from _payload(
                    tape, buffer, behind, length, NAMES[BULK_STRING]
                )
                base = tape.taken - len(buffer)
        position = behind

        if not opened:
            if text and encoding is not None and isinstance(value, bytes):
                try:
                    decoded = str(value, encoding, errors)
                    value = (
                        Verbatim(decoded, value.format) if isinstance(value, Verbatim) else decoded
                    )
                except UnicodeError as error:
                    failure = failure or error.with_traceback(None)
            items.append(value)
            remaining -= 1

        # Close what is complete.
        while not remaining:
            if kind == TOP:
                if failure is not None:
                    values[-1] = failure
                    failure = None
                remaining = 1
                if tape.single:
                    tape.delivered = base + position
                    yield
                break
            if ending != COUNTED:
                if ending == FULL:
                    expected = f"at most {max_elements} elements in one {NAMES[kind]}"
                    raise refusal(expected, "one more", start)
                # All that may come have come: an end must follow, no element.
                ending, remaining, start = FULL, 1, base + position
                break
            if kind == ARRAY:
                value = tuple(items) if frozen else items
            elif kind in PAIRED:
                pairs = iter(items)
                value = dict(zip(pairs, pairs, strict=True))
                if frozen:
                    value = tuple(value.items())
                if kind == ATTRIBUTE:
                    kind, items, remaining = ATTRIBUTED, [value], 1
                    text = stack[-1][5]
                    break
            elif kind == SET:
                value = frozenset(items) if frozen else set(items)
            elif kind == ATTRIBUTED:
                value = Attributed(items[1], items[0]) if attributes else items[1]
                outer, _ = scopes.pop()
                failure = outer or failure
            else:  # PUSH
                value = Push(items)
                failed, began = failure, start
                failure, delivered = scopes.pop()
                kind, items, remaining, ending, frozen, text, start = stack.pop()
                while kind == ATTRIBUTED:
                    # RESP3, "Attribute type": they belong to what immediately follows.
                    value = Attributed(value, items[0]) if attributes else value
                    failed, began = failure or failed, start
                    failure, delivered = scopes.pop()
                    kind, items, remaining, ending, frozen, text, start = stack.pop()
                values.append(failed or value)
                tape.delivered = delivered + base + position - began
                if kind != TOP and tape.interrupted < 0:
                    tape.interrupted = began
                if tape.single:
                    yield
                break
            kind, items, remaining, ending, frozen, text, start = stack.pop()
            items.append(value)
            remaining -= 1


class Parser:
    """Bytes in, values out.

    `feed()` takes a chunk and `parse()` returns the next value, or `NEED_DATA`; iteration gives
    what is complete; `feed_all()` does both in one call. With a buffered protocol or `recv_into`,
    `get_buffer()` and `buffer_updated()` take the place of `feed()`.

    - `encoding`, `errors`: decode strings to str. A reply or push with text that can't be decoded
      becomes the UnicodeDecodeError as a whole, and the stream stays in step. Without an encoding
      strings are bytes. The text of errors is always str (UTF-8 with backslashreplace).
    - `attributes`: keep them, as `Attributed`; else they are read and dropped.
    - `raw_pushes`: strings in pushes stay bytes whatever the encoding says: invalidations name
      raw keys.
    - `max_depth`: containers inside each other, a push and what it interrupts included; an
      attributed value is one level inside its attributes.
    - `max_bulk`: bytes of one string, streamed ones in total.
    - `max_elements`: of one container; a map of n pairs has 2n.
    - `max_line`: bytes between a type byte and CRLF.

    An unknown encoding or error handler is a LookupError, a negative limit a ValueError.

    A push is delivered as soon as it is complete, before the reply that it interrupts. A push
    within a push, or within an attribute, likewise comes first and by itself.

    After a `ProtocolError` the parser is spent: every call that would read raises the same again.
    """

    __slots__ = ("_error", "_grammar", "_scratch", "_tape")

    def __init__(
        self,
        *,
        encoding: str | None = None,
        errors: str = "strict",
        attributes: bool = False,
        raw_pushes: bool = False,
        max_depth: int = MAX_DEPTH,
        max_bulk: int = MAX_BULK,
        max_elements: int = MAX_ELEMENTS,
        max_line: int = MAX_LINE,
    ) -> None:
        if encoding is not None:
            # LookupError, also for a codec that is not of text. Of no bytes Python would not ask.
            str(b"0000", encoding, "replace")
        lookup_error(errors)
        limits = {
            "max_depth": max_depth,
            "max_bulk": max_bulk,
            "max_elements": max_elements,
            "max_line": max_line,
        }
        for name, limit in limits.items():
            if not isinstance(limit, int) or isinstance(limit, bool):
                raise TypeError(f"{name} must be an int, not {type(limit).__name__}")
            if limit < 0:
                raise ValueError(f"{name} must not be negative, and is {limit}")
        self._tape = _Tape()
        self._grammar = _grammar(
            self._tape, encoding, errors, bool(attributes), bool(raw_pushes), **limits
        )
        self._error: ProtocolError | None = None
        self._scratch = bytearray()

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the stream; `parse()` then has what they complete."""
        if self._error is not None:
            raise self._same_error()
        chunk = data if type(data) is bytes else memoryview(data).tobytes()
        if chunk:
            self._tape.chunks.append(chunk)
            self._tape.fed += len(chunk)

    def parse(self) -> Any:
        """Return the next complete value, or `NEED_DATA`.

        Raises `ProtocolError` where the bytes are not RESP, after everything before them was
        returned, and UnicodeDecodeError, once, in place of a value that can't be decoded.
        """
        values = self._tape.values
        if not values:
            self._advance(single=True)
            if not values:
                return NEED_DATA
        value = values.pop()
        if isinstance(value, UnicodeError):
            raise value
        return value

    def __iter__(self) -> Iterator[Any]:
        """Yield what is complete, as `feed_all()` returns it, until bytes run out."""
        values = self._tape.values
        while True:
            if not values:
                self._advance(single=True)
                if not values:
                    return
            yield values.pop()

    def feed_all(self, data: Buffer) -> list[Any]:
        """Take the next bytes and return all values they complete, pushes included, in order.

        A value that can't be decoded stands in the list as its UnicodeDecodeError. Values before a
        `ProtocolError` are returned, and the next call raises it (`error` has it at once); without
        any, it is raised.
        """
        self.feed(data)
        values = self._tape.values
        try:
            self._advance(single=False)
        except ProtocolError:
            if not values:
                raise
        complete = values[:]
        values.clear()
        return complete

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return memory for the next bytes of the stream, `sizehint` or more of it.

        Write to its beginning, then call `buffer_updated()`. With it, this is the pair that
        asyncio.BufferedProtocol asks for.
        """
        if self._error is not None:
            raise self._same_error()
        if not self._scratch or len(self._scratch) < sizehint:
            self._scratch = bytearray(max(sizehint, SCRATCH))
        return memoryview(self._scratch)

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first `nbytes` of what `get_buffer()` returned last."""
        if not 0 <= nbytes <= len(self._scratch):
            size = len(self._scratch)
            raise ValueError(f"expected 0 to {size} bytes, the size of the buffer, found {nbytes}")
        self.feed(memoryview(self._scratch)[:nbytes])

    @property
    def pending(self) -> int:
        """How many of the bytes fed are not part of a value that is complete.

        That is all behind the last complete reply, but for pushes that came in between. Attributes
        belong to the value that they stand before.
        """
        return self._tape.fed - self._tape.delivered

    @property
    def error(self) -> ProtocolError | None:
        """The error that spent this parser, or None."""
        return self._error

    def _advance(self, *, single: bool) -> None:
        """Let the grammar go on, to the next value or to the end of what was fed."""
        if self._error is not None:
            raise self._same_error()
        self._tape.single = single
        try:
            next(self._grammar)
        except ProtocolError as error:
            self._error = ProtocolError(str(error), error.offset)
            raise self._same_error() from None
        except BaseException:
            # An interrupt or the lack of memory in the middle of an element.
            offset = self._tape.delivered
            self._error = ProtocolError(f"interrupted in the value at offset {offset}", offset)
            raise

    def _same_error(self) -> ProtocolError:
        """Return the error to raise: a new one each time, or tracebacks would pile up on it."""
        assert self._error is not None
        return ProtocolError(str(self._error), self._error.offset)


def parse(data: Buffer, **options: Any) -> Any:
    """Return the one value that the bytes are, no more and no less; a push is one too.

    Takes the options of `Parser`. Too few bytes, any behind the value, or a push inside it are a
    `ProtocolError`; text that can't be decoded is a UnicodeDecodeError.
    """
    parser = Parser(**options)
    parser.feed(data)
    value = parser.parse()
    tape = parser._tape
    if value is NEED_DATA:
        raise refusal("a complete value", f"only {tape.fed} bytes of it, ending", tape.fed)
    if tape.interrupted >= 0:
        raise refusal("one value", "a push inside it", tape.interrupted)
    if parser.pending:
        raise refusal("one value", f"{parser.pending} bytes more", tape.delivered)
    return value
