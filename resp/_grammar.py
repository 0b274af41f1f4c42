"""The grammar. Every element is read once: when bytes run out, the grammar waits where it stands.

`grammar` is a generator that reads like the specification, from the type byte to the value. It
yields where it has a value to hand out or no bytes to go on; its open containers wait on an
explicit stack, so nothing recurses, and nothing is read again when the next chunk arrives. What it
shares with the `Parser` around it is the `Tape`.

It can read everything, and says all that is wrong. What is plain to see is taken before by the walk
of `_window.py`, several times as fast, on the same stack.

Nothing is ever allocated from a declared length: a list grows as its elements come, and a bulk is
the join of the chunks that brought it.
"""

from __future__ import annotations

from codecs import lookup
from collections import deque

from ._errors import ReplyError
from ._lines import (
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
from ._window import (
    ASCII_BASED,
    ATTRIBUTED,
    COUNTED,
    FULL,
    LEAST_BULK,
    LEAST_ELEMENTS,
    LEAST_LINE,
    LISTED,
    LONG,
    PAIRED,
    SCALARS,
    STREAMED,
    TOP,
    Window,
    large_bulks,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, Final, NoReturn

# Keys and members nest at most this deep, whatever max_depth allows: CPython hashes and compares
# what they are frozen to recursively, in C.
MAX_KEY_DEPTH: Final = 128

STRINGS: Final = frozenset((BULK_STRING, BULK_ERROR, VERBATIM_STRING))
AGGREGATES: Final = frozenset((ARRAY, MAP, SET, ATTRIBUTE, PUSH))
STREAMABLE: Final = frozenset((ARRAY, MAP, SET))
SCOPES: Final = frozenset((ATTRIBUTE, PUSH))

# A chunk of a bulk below this size is gathered with its neighbours: a server that sends a byte a
# packet would else cost an object a byte.
SMALL_CHUNK: Final = 512

# A bulk that is not complete keeps the chunk that it begins in, and so at most this of others.
MOST_KEPT: Final = 256 * 1024

CR: Final = ord("\r")
LF: Final = ord("\n")


class Tape:
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


def _rest_of_line(tape: Tape, line: bytes, limit: int) -> Generator[None, None, tuple[bytes, int]]:
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
            if not line or line[-1] == CR or CR in chunk or LF in chunk:
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
    tape: Tape, buffer: bytes, position: int, length: int, name: str
) -> Generator[None, None, tuple[bytes, bytes, int]]:
    """Wait for `length` bytes and their CRLF; return them, the buffer and the position behind.

    A chunk's bytes are copied once, when the payload is joined.
    """
    if len(buffer) - position >= length:
        value = buffer[position : position + length]
        position += length
    else:
        parts: list[bytes | bytearray | memoryview] = [memoryview(buffer)[position:]]
        if position > MOST_KEPT:
            parts = [buffer[position:]]
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
    tape: Tape, buffer: bytes, position: int, max_bulk: int, max_line: int
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
        check_line(line or b"\r", offset, max_line, complete=True)
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


def decoder(encoding: str | None, errors: str) -> Callable[[bytes], str]:
    """Return what makes text of bytes."""
    if errors == "strict" and (encoding or "").lower() in ("utf-8", "utf8"):
        return bytes.decode  # a third of the cost of naming the codec each time
    return lambda data: str(data, encoding or "utf-8", errors)


def grammar(
    tape: Tape,
    *,
    encoding: str | None,
    errors: str,
    attributes: bool,
    raw_pushes: bool,
    max_depth: int,
    max_bulk: int,
    max_elements: int,
    max_line: int,
) -> Generator[None, None, NoReturn]:
    """Turn the chunks of the tape into values, until a `ProtocolError`."""
    values = tape.values
    chunks = tape.chunks
    decode = decoder(encoding, errors)
    short = min(LEAST_LINE, max_line)

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

    # What is plain to see is not read here.
    decoded = encoding is not None
    window = Window(
        stack,
        decode,
        text=decoded,
        raw_pushes=raw_pushes,
        max_depth=max_depth,
        max_bulk=max_bulk,
        max_line=max_line,
    )
    fast = (
        max_line >= LEAST_LINE
        and max_bulk >= LEAST_BULK
        and max_elements >= LEAST_ELEMENTS
        and (encoding is None or lookup(encoding).name in ASCII_BASED)
    )

    value: Any
    while True:
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

        # All that the walk can take, as far as it goes.
        if (
            fast
            and position < len(buffer)
            and failure is None
            and not frozen
            and text == decoded
            # For one string or number a window is not worth it: 1.7 without.
            and (kind != TOP or not tape.single or buffer[position] in AGGREGATES)
        ):
            if buffer[position] == INTEGER and kind in LISTED:
                most = remaining if kind != TOP else len(buffer)
                numbers, position = window.integers(buffer, position, base + position, most)
                items += numbers
                if kind == TOP:
                    tape.delivered = base + position
                else:
                    remaining -= len(numbers)
                if not remaining or position == len(buffer):
                    continue
            if window.look(buffer, position, base + position):
                complete = len(values)
                kind, items, remaining, ending, start = window.walk(
                    kind, items, remaining, ending, start, tape.single
                )
                position = window.offset - base
                if kind == TOP:
                    tape.delivered = window.offset
                    if tape.single and len(values) > complete:
                        yield
                        continue
                elif window.reply >= 0:
                    tape.delivered = window.reply
                if not remaining:
                    continue

        # The line of the next element.
        end = buffer.find(b"\r\n", position)
        if end < 0:
            if kind == TOP:
                tape.delivered = tape.taken - len(buffer) + position
            if position == len(buffer):
                buffer, value = b"", None  # let go: the next chunk may be long in coming
                window.drop()
                while not chunks:
                    yield
                base, position = tape.taken, 0
                buffer = tape.take()
                continue
            buffer, end = yield from _rest_of_line(tape, buffer[position:], max_line)
            base, position = tape.taken - len(buffer), 0
        line = buffer[position:end]
        behind = end + 2

        # The element; or the frame that it opens or ends.
        is_value = True
        value = None
        length = None
        byte = line[0] if line else CR
        content = line[1:]
        offset = base + position
        if kind == TOP:
            tape.delivered = offset
        # Digits, as most lines are, need no further look; bytes.isdigit() is ASCII only.
        number = int(content) if content.isdigit() and len(content) <= short else -1

        if byte == BULK_STRING and 0 <= number <= max_bulk:
            length = number
        elif fast and line in SCALARS:
            value = SCALARS[line]
        elif number < 0 and (CR in line or LF in line or len(content) > max_line):
            check_line(line, offset, max_line, complete=True)
        elif byte == INTEGER:
            value = number if number >= 0 else parse_integer(content, offset)
        elif byte == SIMPLE_STRING:
            value = content
        elif number < 0 and content == b"-1" and byte in (BULK_STRING, ARRAY):
            value = None
        elif byte in AGGREGATES:
            is_value = False
            streamed = number < 0 and content == b"?" and byte in STREAMABLE
            if streamed:
                count = max_elements
            else:
                count = number if number >= 0 else parse_length(content, offset, NAMES[byte])
                if byte in PAIRED:
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
            if byte in SCOPES:
                scopes.append((failure, tape.delivered))
                failure = None
                if byte == PUSH:
                    text = encoding is not None and not raw_pushes
                else:
                    text = text and attributes
        elif byte == BULK_STRING and content == b"?":
            value, buffer, behind = yield from _streamed_string(
                tape, buffer, behind, max_bulk, max_line
            )
            base = tape.taken - len(buffer)
        elif byte in STRINGS:
            length = number if number >= 0 else parse_length(content, offset, NAMES[byte])
            if length > max_bulk:
                expected = f"a {NAMES[byte]} of at most {max_bulk} bytes"
                raise refusal(expected, str(length), offset)
            if byte != BULK_STRING:
                value, buffer, behind = yield from _payload(
                    tape, buffer, behind, length, NAMES[byte]
                )
                base, length = tape.taken - len(buffer), None
                if byte == BULK_ERROR:
                    value = ReplyError(value.decode("utf-8", "backslashreplace"))
                else:
                    value = parse_verbatim(value, offset)
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
            is_value = False
            if content:
                raise refusal("CRLF after the end of a stream", shown(content), offset)
            if kind == MAP and len(items) % 2:
                raise refusal("a value for the last key of the map", "its end", offset)
            remaining, ending = 0, COUNTED
        else:
            check_line(line or b"\r", offset, max_line, complete=True)
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

        if is_value:
            if text and isinstance(value, bytes):
                try:
                    string = decode(value)
                    if isinstance(value, Verbatim):
                        value = Verbatim(string, value.format)
                    else:
                        value = string
                except UnicodeError as error:
                    failure = failure or error.with_traceback(None)
            items.append(value)
            remaining -= 1

            # Large bulks come in runs.
            if (
                length is not None
                and LONG <= length < len(buffer) - position
                and (kind != TOP or not tape.single)
                and fast
                and failure is None
            ):
                most = remaining if kind != TOP else len(buffer)
                run, position = large_bulks(
                    buffer, position, most, max_bulk, decode if text else None
                )
                items += run
                remaining -= len(run) if kind != TOP else 0
