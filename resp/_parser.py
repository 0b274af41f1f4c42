"""The parser: takes chunks in and hands values out, and leaves the rest to the grammar."""

from __future__ import annotations

from ._errors import ProtocolError
from ._grammar import Tape, decoder, grammar
from ._limits import MAX_BULK, MAX_DEPTH, MAX_ELEMENTS, REENTERED, SCRATCH, check_options
from ._lines import MAX_LINE, refusal
from ._types import NEED_DATA
from ._window import LEAST_BULK, LEAST_ELEMENTS, LEAST_LINE, MISSING, SMALL, whole_reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn, TypeAlias

    # What can be fed: bytes are kept as they are, the others copied.
    Buffer: TypeAlias = bytes | bytearray | memoryview


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
    within a push, or within an attribute, likewise comes first and by itself. Attributes belong to
    what immediately follows, even to a push; two in a row stand one around the other.

    After a `ProtocolError` the parser is spent: every call that would read raises the same again.
    """

    __slots__ = ("_decode", "_direct", "_error", "_grammar", "_scratch", "_tape")

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
        limits = {
            "max_depth": max_depth,
            "max_bulk": max_bulk,
            "max_elements": max_elements,
            "max_line": max_line,
        }
        check_options(encoding, errors, limits)
        self._tape = Tape()
        self._grammar = grammar(
            self._tape,
            encoding=encoding,
            errors=errors,
            attributes=bool(attributes),
            raw_pushes=bool(raw_pushes),
            **limits,
        )
        self._decode = None if encoding is None else decoder(encoding, errors)
        self._error: ProtocolError | None = None
        # Whether a reply may pass by the grammar, where small limits are checked, and by feed(),
        # which a subclass may want to see all bytes.
        self._direct = (
            type(self).feed is Parser.feed
            and max_line >= LEAST_LINE
            and max_bulk >= LEAST_BULK
            and max_elements >= LEAST_ELEMENTS
            and max_depth > 0
        )
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
        tape = self._tape
        values = tape.values
        if not values:
            if self._direct and len(tape.chunks) == 1 and tape.delivered == tape.taken:
                [chunk] = tape.chunks
                value = whole_reply(chunk, self._decode) if len(chunk) <= SMALL else MISSING
                if value is not MISSING:
                    tape.chunks.clear()
                    tape.taken = tape.delivered = tape.fed
                    return value
            tape.single = True
            try:
                next(self._grammar)
            except (ProtocolError, StopIteration) as error:
                self._spend(error)
                raise self._same_error() from None
            except ValueError as error:
                self._check_running(error)
                raise
            if not values:
                return NEED_DATA
        if isinstance(values[0], UnicodeError):
            raise values.pop(0)
        return values.pop(0)

    def __iter__(self) -> Iterator[Any]:
        """Yield what is complete, as `feed_all()` returns it, until bytes run out."""
        while True:
            try:
                value = Parser.parse(self)  # as everywhere, not what a subclass made of it
            except UnicodeError as error:
                value = error.with_traceback(None)
            if value is NEED_DATA:
                return
            yield value

    def feed_all(self, data: Buffer) -> list[Any]:
        """Take the next bytes and return all values they complete, pushes included, in order.

        A value that can't be decoded stands in the list as its UnicodeDecodeError. Values before a
        `ProtocolError` are returned, and the next call raises it (`error` has it at once); without
        any, it is raised.
        """
        tape = self._tape
        # The grammar is at rest, and these bytes may be all there is.
        if (
            self._direct
            and type(data) is bytes
            and len(data) <= SMALL
            and tape.delivered == tape.fed
        ):
            value = whole_reply(data, self._decode)
            if value is not MISSING:
                tape.fed = tape.taken = tape.delivered = tape.fed + len(data)
                return [value]
        self.feed(data)
        values = tape.values
        tape.single = False
        try:
            next(self._grammar)
        except (ProtocolError, StopIteration) as error:
            self._spend(error)
            if not values:
                raise self._same_error() from None
        except ValueError as error:
            self._check_running(error)
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a parser cannot be copied or pickled: it stands in a stream")

    def _check_running(self, error: ValueError) -> None:
        """Refuse a call that came in the middle of another one."""
        # A generator that runs refuses to be run, and may be at rest again by now; whatever else
        # it raises has come through its own frame.
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise RuntimeError(REENTERED) from None

    def _spend(self, error: ProtocolError | StopIteration) -> None:
        """Remember what ended the grammar.

        An ended grammar answers with StopIteration. Where no error of the bytes ended it, it was
        an interrupt or the lack of memory, and its place in the stream is lost.
        """
        if self._error is None:
            if isinstance(error, StopIteration):
                offset = self._tape.delivered
                error = refusal("to go on", "that the parser was interrupted", offset)
            self._error = ProtocolError(str(error), error.offset)
            self._direct = False

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
