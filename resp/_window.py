"""The fast walk: what is plain to see in a window of the buffer, taken without the grammar.

A window is up to 64 KiB of the stream, split at CRLF once. A token of it that stands where an
element must begin is a whole line, so a well-known one is its value at once. A token that is the
header of a bulk is followed by the payload if and only if the next token is as long as it says:
had the payload a CRLF inside, or none behind it, the lengths would differ. Behind it the next
element begins, and so on. That is exact whatever the bytes are.

The walk takes only what it can prove right. Whatever else there is (streams, attributes, pushes
inside of replies, keys that must be frozen, anything wrong, all that is not complete), it leaves
where it stands to the grammar, which reads one element of it and gives back the word. Both work on
the same stack of open containers, and nothing is taken twice.
"""

from __future__ import annotations

from itertools import islice

from ._errors import ProtocolError, ReplyError
from ._lines import parse_big_number, parse_double, parse_integer
from ._types import ARRAY, ATTRIBUTE, BULK_STRING, MAP, PUSH, SET, Push, VerbatimBytes, VerbatimStr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    # An open container: kind, items, remaining, ending, frozen, text, start; see the grammar.
    Frame = tuple[int, list[Any], int, int, int, bool, int]

# What a frame of the stack can be, besides the type byte of an aggregate.
TOP: Final = 0  # where replies stand
ATTRIBUTED: Final = -1  # attributes are complete, and wait for their value

# How the end of a frame is found.
COUNTED: Final = 0
STREAMED: Final = 1  # by END
FULL: Final = 2  # by END, and max_elements have come

MISSING: Final = object()

# What a token can mean, besides the type byte of an aggregate and its number of elements.
SCALAR: Final[Any] = None  # a value
BULK: Final = 1  # the length of the next token
OTHER: Final = 2  # nothing that the table has
UNKNOWN: Final[tuple[Any, Any]] = (OTHER, None)

# Bulks below this length have a header in the tables.
LONG: Final = 1000
# Aggregates below this length open without the grammar.
MANY: Final = 128
# Limits below these leave everything to the grammar: the tables know nothing of limits.
LEAST_LINE: Final = 18
LEAST_BULK: Final = LONG
LEAST_ELEMENTS: Final = 2 * MANY
TOO_LONG: Final = b"0" * LEAST_LINE

# The first window; each that is taken to its end doubles the next.
SMALLEST: Final = 8 * 1024
LARGEST: Final = 64 * 1024
# Bytes of a token, on average, above which windows stay small.
SPARSE: Final = 512
# A chunk that may be one reply is at most so long.
SMALL: Final = 1024
# More replies than a window can have; above 2**30 an int is slower.
ENDLESS: Final = 2**29

# The first bytes that may be integers alone; each time they are, 4 times as many are tried.
FIRST_LINES: Final = 256

# After so many tokens of strings and numbers a run is looked for: a window that fails at the end of
# every run costs no more than what was taken before it.
STREAK: Final = 10
LONGEST_STREAK: Final = 640  # where runs turned out to be short
FIRST_RUN: Final = 16  # so many are tried, and 4 times as many each time that all were taken
FEWEST: Final = 8  # elements still to come, or no run is tried
# How many aggregates, at most, are not taken for bulks alone, where the last ones were not.
MOST_DOUBTS: Final = 15

# More than so many elements are tried as bulks alone; up to so many are taken one by one, before
# their container has a frame.
SHORT: Final = 2
FEW: Final = 24

# Frames that take any element as it is.
LISTED: Final = frozenset((TOP, ARRAY))
PAIRED: Final = frozenset((MAP, ATTRIBUTE))
NUMERALS: Final = b"-0123456789"
ZEROS: Final = bytes.maketrans(NUMERALS, b"0" * len(NUMERALS))

# Encodings where ASCII bytes are ASCII text, whatever comes before them.
ASCII_BASED: Final = frozenset(("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252"))

SCALARS: Final[dict[bytes, Any]] = {
    b"_": None,
    b"$-1": None,
    b"*-1": None,
    b"#t": True,
    b"#f": False,
    b"+OK": b"OK",
    b"+QUEUED": b"QUEUED",
    b"+PONG": b"PONG",
    **{b":%d" % number: number for number in range(-1, 1000)},
}
_HEADERS: Final = {length: b"$%d" % length for length in range(LONG)}
_OPENERS: Final = {
    b"%c%d" % (kind, count): (kind, count * (1 + (kind == MAP)))
    for kind in (ARRAY, MAP, SET)
    for count in range(MANY)
} | {b">2": (PUSH, 0)}


class Tables:
    """What is known of whole tokens, as bytes and as text."""

    scalars: dict[Any, Any]
    headers: dict[int, Any]
    openers: dict[Any, tuple[int, int]]

    def __init__(self, text: bool) -> None:
        self.crlf: Any = b"\r\n"
        self.scalars, self.headers, self.openers = SCALARS, _HEADERS, _OPENERS
        self.invalidate: list[Any] = [b"$10", b"invalidate", b"*1"]
        self.integer: Any = b":"
        self.marks: list[Any] = [b"+", b"-", b"\r", b"\n"]
        self.verbatim: Any = b"="
        self.colon: Any = b":"
        self.plain_text: Any = b"txt"
        self.new_verbatim: Any = (bytes.__new__, VerbatimBytes)
        if text:
            self.crlf = "\r\n"
            self.scalars = {
                token.decode(): value.decode() if type(value) is bytes else value
                for token, value in SCALARS.items()
            }
            self.headers = {length: header.decode() for length, header in _HEADERS.items()}
            self.openers = {token.decode(): frame for token, frame in _OPENERS.items()}
            self.invalidate = ["$10", "invalidate", "*1"]
            self.integer = ":"
            self.marks = [mark.decode() for mark in self.marks]
            self.verbatim, self.colon, self.plain_text = "=", ":", "txt"
            self.new_verbatim = (str.__new__, VerbatimStr)
        self.meanings: dict[Any, tuple[Any, Any]] = {
            **{token: (SCALAR, value) for token, value in self.scalars.items()},
            **{header: (BULK, length) for length, header in self.headers.items()},
            **self.openers,
        }
        self.listed = [*self.headers.values()]
        # Stands behind the last token: it is as long as no bulk of the tables, and is no line.
        self.sentinel: Any = self.crlf * LONG
        self.is_number: Any = str.isdecimal if text else bytes.isdigit
        self.numbers: dict[Any, Callable[[bytes, int], Any]] = {
            ":" if text else b":": parse_integer,
            "," if text else b",": parse_double,
            "(" if text else b"(": parse_big_number,
        }


# Whole replies that are most usual.
_ANSWERS: Final = {
    line + b"\r\n": value for line, value in SCALARS.items() if not line.startswith(b":")
}
LONGEST_ANSWER: Final = max(map(len, _ANSWERS))
# By the number of tokens where all elements are bulks.
_ARRAYS: Final = {2 * count + 2: b"*%d" % count for count in range(1, SMALL // 8)}


def whole_reply(data: bytes, decode: Callable[[bytes], str] | None) -> Any:
    """Return the value of bytes that are one small reply, plain to see, and no more.

    The usual answer to one command needs no window: 3 for these. Returns `MISSING` for all others.
    """
    value: Any = _ANSWERS.get(data, MISSING) if len(data) <= LONGEST_ANSWER else MISSING
    if value is MISSING:
        tokens = data.split(b"\r\n")
        count, line = len(tokens), tokens[0]
        if tokens[-1]:
            return MISSING
        if count == 3:
            if _HEADERS.get(len(tokens[1])) == line:
                value = tokens[1]
        elif count == 2:
            if line[:1] == b":" and line[1:].isdigit() and len(line) <= LEAST_LINE:
                return int(line[1:])
        elif line == _ARRAYS.get(count):
            payloads = tokens[2::2]
            try:
                if [_HEADERS[len(payload)] for payload in payloads] == tokens[1:-1:2]:
                    value = payloads
            except KeyError:
                return MISSING
    if decode is not None and value is not MISSING:
        try:
            if type(value) is bytes:
                return decode(value)
            if type(value) is list:
                return [*map(decode, value)]
        except UnicodeError:
            return MISSING  # the grammar says what becomes of it
    return value


def large_bulks(
    buffer: bytes, position: int, most: int, longest: int, decode: Callable[[bytes], str] | None
) -> tuple[list[Any], int]:
    """Return the large bulks that stand at a position one after the other, and what is behind.

    They end before what is no large bulk, is not complete or can't be decoded.
    """
    values: list[Any] = []
    going_on = True
    while going_on and len(values) < most:
        begin = buffer.find(b"\r\n", position, position + LEAST_LINE) + 2
        digits = buffer[position + 1 : begin - 2]
        if begin < position + 7 or buffer[position] != BULK_STRING or not digits.isdigit():
            break
        length = int(digits)
        if length > longest:
            break
        # Many are as long as the one before, and the bytes between them say so: 2 for 1 KiB.
        between = b"\r\n" + buffer[position:begin]
        size = len(between)
        step = length + size
        last = min(len(buffer) - 2, begin + step * (most - len(values)) - size)
        before, going_on = len(values), False
        try:
            for end in range(begin + length, last + 1, step):
                behind = buffer[end : end + size]
                alike = behind == between
                if not alike and behind[:2] != b"\r\n":
                    break
                value = buffer[end - length : end]
                values.append(value if decode is None else decode(value))
                if not alike:
                    going_on = True
                    break
        except UnicodeError:
            pass  # the grammar says what becomes of it
        position += step * (len(values) - before)
    return values, position


def plain_integers(lines: bytes) -> list[int] | None:
    """Return the integers of lines with CRLF between them, or None if not all are plain.

    Their bytes but for digits and signs must be the marks, and no number may be longer than a line.
    With commas between them they then are JSON or no numbers, and its scanner, written in C, takes
    less time than `int()` takes alone. It refuses leading zeros too, which RESP has: not plain.
    """
    marks = lines.translate(None, NUMERALS)
    if marks != b":" + b"\r\n:" * ((len(marks) - 1) // 3):
        return None
    if TOO_LONG in lines.translate(ZEROS):
        return None
    if not _json:
        # Not loaded for those who never have a run of them.
        from json import JSONDecoder

        _json.append(JSONDecoder().decode)
    numbers = lines[1:].decode().replace("\r\n:", ",")
    try:
        return _json[0](f"[{numbers}]")
    except ValueError:
        return None


_json: Final[list[Callable[[str], list[int]]]] = []
_tables: Final[dict[bool, Tables]] = {}


class Window:
    """A part of the buffer as tokens, and how far it was taken."""

    __slots__ = (
        "_alike",
        "_at",
        "_bytes",
        "_count",
        "_decode",
        "_doubt",
        "_doubts",
        "_end",
        "_max_bulk",
        "_max_depth",
        "_max_line",
        "_plain",
        "_raw_pushes",
        "_single",
        "_size",
        "_stack",
        "_tables",
        "_text",
        "_tokens",
        "_tried",
        "offset",
        "reply",
    )

    def __init__(
        self,
        stack: list[Frame],
        decode: Callable[[bytes], str],
        *,
        text: bool,
        raw_pushes: bool,
        max_depth: int,
        max_bulk: int,
        max_line: int,
    ) -> None:
        tables = _tables.get(text)
        if tables is None:
            tables = _tables[text] = Tables(text)
        self._tables = tables
        self._stack = stack
        self._decode = decode
        self._text = text
        self._raw_pushes = raw_pushes
        self._max_depth = max_depth
        self._max_bulk = max_bulk
        self._max_line = max_line
        self._tokens: list[Any] = []
        self._plain = True  # whether text is ASCII
        self._at = 0  # the token that comes next
        self._count = 0  # of tokens that are complete
        self._end = 0  # the offset in the stream behind them
        self.offset = 0  # that of the token that comes next
        self.reply = -1  # that of the reply that is open, if it began in the last walk
        self._size = SMALLEST
        self._doubt, self._doubts = 0, 0
        self._alike, self._tried = STREAK, FIRST_RUN
        self._bytes = FIRST_LINES

    def integers(
        self, buffer: bytes, position: int, offset: int, most: int
    ) -> tuple[list[int], int]:
        """Return the integers of a long run that begins where no window is, and what is behind.

        Tokens are not made of them: 2.2 for these.
        """
        numbers: list[int] = []
        if offset < self._end or buffer.find(b"\r\n:", position, position + LEAST_LINE) < 0:
            return numbers, position
        while len(numbers) < most:
            end = buffer.rfind(b"\r\n", position, position + self._bytes)
            run = plain_integers(buffer[position:end]) if end > 0 else None
            if run is not None and len(numbers) + len(run) <= most:
                numbers += run
                position = end + 2
                self._bytes = min(4 * self._bytes, LARGEST)
            elif self._bytes > FIRST_LINES:
                self._bytes //= 4
            else:
                break
        return numbers, position

    def look(self, buffer: bytes, position: int, offset: int) -> bool:
        """Have the tokens from a position on, or say that the grammar may as well go on alone."""
        if offset < self._end:
            if offset != self.offset:
                # The grammar took elements of this window: what was a CRLF to split at, is one.
                passed = position - (offset - self.offset)
                self._at += buffer.count(b"\r\n", passed, position)
                self.offset = offset
            return True
        # Large bulks are found by their lengths: 3 for 1 KiB. Their headers end in no 6 bytes.
        if buffer[position] == BULK_STRING and buffer.find(b"\r\n", position, position + 6) < 0:
            return False
        self._split(buffer, position, offset)
        return self._count > 0

    def _split(self, buffer: bytes, position: int, offset: int) -> None:
        """Make the window that begins at a position."""
        data: Any = buffer[position : position + self._size]
        if self._text:
            # Decoded as a whole: what is not ASCII is decoded again, by itself.
            self._plain = data.isascii()
            data = data.decode("latin-1")
        tables = self._tables
        tokens = data.split(tables.crlf)
        self._end = offset + len(data) - len(tokens[-1])
        tokens[-1] = tables.sentinel
        tokens += [tables.sentinel] * 3
        self._tokens = tokens
        self._at, self._count, self.offset = 0, len(tokens) - 4, offset

    def drop(self) -> None:
        """Let go of the tokens; all values of a window were handed out."""
        self._tokens, self._at, self._count, self._end = [], 0, 0, 0

    def walk(
        self,
        kind: int,
        items: list[Any],
        remaining: int,
        ending: int,
        start: int,
        single: bool,
    ) -> tuple[int, list[Any], int, int, int]:
        """Take what is plain to see, and return the frame that is then open.

        Stops at what is not, after one reply if `single`, and where an end is none of the walk's.
        """
        stack, tokens, began = self._stack, self._tokens, self._at
        tables, text, plain = self._tables, self._text, self._plain
        header, meaning = tables.headers.get, tables.meanings.get
        listed = tables.listed
        integer, is_number, odd = tables.integer, tables.is_number, self._odd
        at, count, reply, room = began, self._count, -1, self._max_depth - len(stack)
        if kind == TOP:
            remaining = 1 if single else ENDLESS
        # What opens here waits here, with its kind, items and remaining: half of a frame.
        opened: list[tuple[Any, list[Any], int]] = []
        alike, doubt, doubts = self._alike, self._doubt, self._doubts
        trigger, last = at + alike, None

        # Constants of the module cost more than locals: 1.02 for these.
        unknown, length, other, array = UNKNOWN, BULK, OTHER, ARRAY
        while True:
            # Whole tokens are looked up before any is taken apart.
            what, value = meaning(token := tokens[at], unknown)
            if what == length:
                bulk = tokens[at + 1]
                if len(bulk) != value:
                    break
                value = bulk
                if not plain and not value.isascii():
                    try:
                        value = self._decode(value.encode("latin-1"))
                    except UnicodeError:
                        break
                at += 2
            elif what is None:
                at += 1
            elif what == other:
                mark = token[:1]
                if mark == integer and is_number(digits := token[1:]) and len(digits) < LEAST_LINE:
                    value = int(digits)
                    at += 1
                else:
                    value, behind = odd(at, mark)
                    if not behind:
                        break
                    at = behind
                    trigger = at + alike
            elif (
                kind != array
                and kind != TOP
                and (kind == SET or (kind in PAIRED and not len(items) % 2))
            ):
                break  # to be frozen
            elif len(opened) >= room:
                break
            elif value:
                # An aggregate opens, and often another one in it, before any of both has an end.
                if kind == TOP:
                    reply = at
                while True:
                    at += 1
                    opening: Any = what
                    size, many = value, False
                    if size > SHORT and plain:
                        # All of its elements may be bulks.
                        if doubt:
                            doubt -= 1
                        elif (stop := at + 2 * size) <= count and header(
                            len(tokens[stop - 1])
                        ) == tokens[stop - 2]:
                            within = tokens[at + 1 : stop : 2]
                            try:
                                if [listed[len(bulk)] for bulk in within] == tokens[at:stop:2]:
                                    # Three that open alike mostly are the first of many.
                                    many = token == tokens[stop] == last
                                    last = token
                                    at, size, doubts = stop, 0, 0
                                    break
                            except IndexError:
                                pass
                            doubt = doubts = min(2 * doubts + 1, MOST_DOUBTS)
                    # Or few of them, and most of them plain; of many some may be a run.
                    within, few, last = [], size <= FEW, None
                    while few:
                        what, value = meaning(token := tokens[at], unknown)
                        if what is None:
                            at += 1
                        elif what == length:
                            bulk = tokens[at + 1]
                            if len(bulk) != value or not (plain or bulk.isascii()):
                                break
                            value = bulk
                            at += 2
                        elif what == other:
                            mark = token[:1]
                            if (
                                mark == integer
                                and is_number(digits := token[1:])
                                and len(digits) < LEAST_LINE
                            ):
                                value = int(digits)
                                at += 1
                            else:
                                value, behind = odd(at, mark)
                                if not behind:
                                    break
                                at = behind
                        else:
                            break
                        within.append(value)
                        size -= 1
                        if not size:
                            break
                    if not size:
                        break
                    opened.append((kind, items, remaining))
                    kind, items, remaining = opening, within, size
                    if (
                        kind != array  # what comes next may have to be frozen
                        or not few
                        or what == length
                        or not value
                        or len(opened) >= room
                    ):
                        break
                trigger = at - 1 if many and kind in LISTED else at + alike
                if size:
                    continue
                if opening == array:
                    value = within
                elif opening == MAP:
                    # Even by construction: strict=True would only cost.
                    value = dict(zip(pairs := iter(within), pairs))  # noqa: B905
                else:
                    value = set(within)
            elif what == PUSH:
                # By itself it mostly is an invalidation: 2 for these.
                if kind != TOP or (value := self._invalidation(at)) is None:
                    break
                at += 6
                trigger = at + alike
            else:
                at += 1
                value = [] if what == array else {} if what == MAP else set()

            items.append(value)
            remaining -= 1
            if remaining:
                if at <= trigger or remaining < FEWEST:
                    continue
                # So many strings and numbers, or tables of strings, mostly are many more.
                taken, at = self._run(items, at, remaining)
                remaining -= taken
                alike = self._alike
                trigger = at + alike
                if remaining:
                    continue

            # Close what is complete.
            while not remaining:
                if kind == array:
                    value = items
                elif kind == MAP:
                    value = dict(zip(pairs := iter(items), pairs))  # noqa: B905
                elif kind == SET:
                    value = set(items)
                else:
                    break
                if opened:
                    kind, items, remaining = opened.pop()
                elif ending == COUNTED:
                    kind, items, remaining, ending, _, _, start = stack.pop()
                    room += 1
                    if kind == TOP and not single:
                        remaining = ENDLESS
                else:
                    break
                items.append(value)
                remaining -= 1
            if not remaining:
                break
            trigger = at + alike

        # The frames of what opened here and is not complete.
        for outer, others, left in opened:
            left = 1 if outer == TOP else left
            stack.append((outer, others, left, ending, 0, text, start))
            ending = COUNTED

        self._doubt, self._doubts = doubt, doubts
        if kind == TOP:
            remaining = 1
        if at > began:
            if at >= count - 1:
                # Where tokens are long, the end of a window is split in vain.
                self._size = (
                    min(2 * self._size, LARGEST) if count * SPARSE > self._size else SMALLEST
                )
            # The offset of a token, from the side that is nearer.
            if at - began < count - at:
                self.offset += sum(map(len, tokens[began:at])) + 2 * (at - began)
            else:
                self.offset = self._end - sum(map(len, tokens[at:count])) - 2 * (count - at)
            self._at = at
        self.reply = -1
        if reply >= 0 and kind != TOP:
            self.reply = self.offset - sum(map(len, tokens[reply:at])) - 2 * (at - reply)
        return kind, items, remaining, ending, start

    def _run(self, items: list[Any], at: int, most: int) -> tuple[int, int]:
        """Take what comes in a run; return how many, and the token behind."""
        tokens, tables = self._tokens, self._tables
        if tables.headers.get(len(tokens[at + 1])) == tokens[at]:
            return self._run_of_bulks(items, at, most)
        if tokens[at] in tables.openers:
            return self._run_of_aggregates(items, at, most)
        return self._run_of_scalars(items, at, most)

    def _decoded(self, payloads: list[Any]) -> list[Any] | None:
        """Return strings as they are to be, or None if one can't be decoded."""
        if not self._text or self._plain:
            return payloads
        try:
            return [
                text if text.isascii() else self._decode(text.encode("latin-1"))
                for text in payloads
            ]
        except UnicodeError:
            return None

    def _run_of_bulks(self, items: list[Any], at: int, most: int) -> tuple[int, int]:
        """Take bulks that stand one after the other; return how many, and the token behind."""
        tokens, header = self._tokens, self._tables.headers.get
        # A list is asked faster than a dict, and without a call: 1.08 for these.
        known = self._tables.listed
        most = min(most, (self._count - at) // 2)
        taken = 0
        while taken < most:
            tried = min(self._tried, most - taken)
            stop = at + 2 * tried
            payloads = tokens[at + 1 : stop : 2]
            headers = tokens[at:stop:2]
            good = tried
            try:
                alike = [known[len(payload)] for payload in payloads] == headers
            except IndexError:
                alike = False
            if not alike:
                found = map(header, map(len, payloads))
                good = next(n for n, one in enumerate(found) if one != headers[n])
                del payloads[good:]
            decoded = self._decoded(payloads)
            if decoded is None:
                good = 0
            else:
                items += decoded
            taken += good
            at += 2 * good
            if not self._learn(tried, good):
                break
        return taken, at

    def _run_of_aggregates(self, items: list[Any], at: int, most: int) -> tuple[int, int]:
        """Take aggregates of as many bulks as the first one has; return what `_run` does."""
        tokens, known = self._tokens, self._tables.listed
        opener = tokens[at]
        kind, size = self._tables.openers[opener]
        if size <= SHORT or not self._plain:
            return 0, at
        each = 1 + 2 * size
        most = min(most, (self._count - at) // each)
        tried, taken = 1, 0
        while taken < most:
            tried = min(4 * tried, most - taken)
            # As a table with a line for each, its first column are the openers.
            within = tokens[at : at + tried * each]
            good = tried
            if within[::each].count(opener) < tried:
                good = next(n for n, token in enumerate(within[::each]) if token != opener)
                del within[good * each :]
            del within[::each]
            payloads, headers = within[1::2], within[::2]
            try:
                alike = [known[len(payload)] for payload in payloads] == headers
            except IndexError:
                alike = False
            if not alike:
                found = map(self._tables.headers.get, map(len, payloads))
                good = next(n for n, one in enumerate(found) if one != headers[n]) // size
            elements = range(0, good * size, size)
            if kind == ARRAY:
                items += [payloads[n : n + size] for n in elements]
            elif kind == MAP:
                pairs = zip(payloads[::2], payloads[1::2], strict=True)
                items += [dict(islice(pairs, size // 2)) for _ in elements]
            else:
                items += [set(payloads[n : n + size]) for n in elements]
            taken += good
            at += good * each
            if good < tried:
                break
        return taken, at

    def _run_of_scalars(self, items: list[Any], at: int, most: int) -> tuple[int, int]:
        """Take lines that stand one after the other; return how many, and the token behind.

        Well-known ones, or integers; of those a run mostly has both.
        """
        tokens, before = self._tokens, len(items)
        most = min(most, self._count - at)
        known = self._tables.scalars.__getitem__
        taken = 0
        while taken < most:
            tried = min(self._tried, most - taken)
            run = tokens[at : at + tried]
            numbers = None
            if run[0][:1] == self._tables.integer:
                lines = self._tables.crlf.join(run)
                numbers = plain_integers(lines.encode("latin-1") if self._text else lines)
            if numbers is not None:
                items += numbers
            else:
                try:  # noqa: SIM105  # contextlib is not loaded for this
                    items.extend(map(known, run))  # what comes before an unknown one stays
                except KeyError:
                    pass
            good = len(items) - before - taken
            taken += good
            at += good
            if not self._learn(tried, good):
                break
        return taken, at

    def _learn(self, tried: int, good: int) -> bool:
        """Remember how long runs are: so few attempts fail that all is linear."""
        if good == tried:
            self._tried = min(4 * self._tried, LARGEST)
            self._alike = STREAK
            return True
        self._tried = FIRST_RUN
        if 4 * good < tried:
            self._alike = min(2 * self._alike, LONGEST_STREAK)
        return False

    def _odd(self, at: int, mark: Any) -> tuple[Any, int]:
        """Return a value that is less usual, and the token behind it; 0 if it is the grammar's."""
        tokens, tables, text = self._tokens, self._tables, self._text
        token = tokens[at]
        if len(token) > self._max_line:
            return None, 0
        content = token[1:]
        number = tables.numbers.get(mark)
        if number is not None:
            try:
                return number(content.encode("latin-1") if text else content, 0), at + 1
            except ProtocolError:
                return None, 0
        if mark == tables.verbatim:
            payload = tokens[at + 1]
            header = tables.headers.get(len(payload))
            if header is None or content != header[1:] or payload[3:4] != tables.colon:
                return None, 0
            strings = self._decoded([payload[4:]])
            if strings is None:
                return None, 0
            new, kind = tables.new_verbatim
            value = new(kind, strings[0])
            if payload[:3] != tables.plain_text:
                value.format = payload[:3] if text else payload[:3].decode("latin-1")
            return value, at + 2
        simple, error, cr, lf = tables.marks
        if cr in token or lf in token:
            return None, 0
        if mark == simple:
            strings = self._decoded([content])
            return (strings[0], at + 1) if strings else (None, 0)
        if mark == error:
            if text:
                content = content.encode("latin-1")
            return ReplyError(content.decode("utf-8", "backslashreplace")), at + 1
        return None, 0

    def _invalidation(self, at: int) -> Push | None:
        """Return the push of six tokens that begins at one, if it is the usual one."""
        tokens, tables = self._tokens, self._tables
        if (
            tokens[at + 1 : at + 4] != tables.invalidate
            or tables.headers.get(len(tokens[at + 5])) != tokens[at + 4]
            or self._max_depth < 2
            or not self._plain
        ):
            return None
        name, key = tables.invalidate[1], tokens[at + 5]
        if self._raw_pushes and self._text:
            name, key = name.encode(), key.encode()
        return Push((name, [key]))
