"""hiredis-py's names over our parser, so that what was written for it runs on this package.

    import sys, resp.hiredis
    sys.modules["hiredis"] = resp.hiredis  # before anything imports redis

`Reader` takes hiredis-py's arguments and returns what it returns: sets as lists in the order of
the wire, big numbers and verbatim strings as plain strings, errors from the caller's own class.
What our parser makes otherwise is rewritten on its way in (`_Rewriter`), or replaced on its way out
(errors), and only where a chunk can hold any of it: everything else goes through as it is. Where
the two still differ, docs/hiredis.md says so and why.
"""

from __future__ import annotations

import codecs
from contextlib import suppress

from . import Parser as _Parser
from . import ProtocolError as _RespProtocolError
from . import Push as PushNotification
from . import ReplyError as _RespReplyError
from . import encode_command as _encode_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from ._parser import Buffer

__all__ = [
    "HiredisError",
    "ProtocolError",
    "PushNotification",
    "Reader",
    "ReplyError",
    "__version__",
    "pack_command",
]

__version__: Final = "3.5.0"  # of the hiredis-py whose behaviour this is; redis-py looks at it

MAX_DEPTH: Final = 1024  # REDIS_READER_MAX_REPLY_DEPTH
MAX_BUFFER: Final = 16 * 1024  # REDIS_READER_MAX_BUF, what getmaxbuf() begins with

# An element that begins with one of these is rewritten. A big number is an int to us, a set a set.
REWRITTEN: Final = (b"~", b"(", b"=")
ERRORS: Final = (b"-", b"!")
# Looked for as numbers: bytes.__contains__ takes 30 ns for one, and 180 for a byte string.
TILDE, BRACKET, EQUALS, MINUS, BANG, GREATER = b"~(=-!>"
LENGTHS: Final = {b"$%d" % length: length for length in range(1024)}
NO_REPLIES: Final[list[Any]] = []
MARKS: Final = frozenset(b"%c" % mark for mark in b"+-:_,#($*%~|>=!;.")  # every type byte
LONGEST_HELD: Final = 64 * 1024  # bytes of an incomplete line, as our parser's own limit


class HiredisError(Exception):
    """The root of both errors."""


class ProtocolError(HiredisError):
    """The bytes are not RESP. Raised by `Reader.gets()`, unless it was given another class."""


class ReplyError(HiredisError):
    """An error the server answered. Returned by `Reader.gets()`, unless given another class."""


def pack_command(cmd: tuple[Any, ...], /) -> bytes:
    """Return a command, a tuple of str, bytes, int, float and memoryview, as a server reads it.

    Anything else is a TypeError.
    """
    if not isinstance(cmd, tuple):
        raise TypeError(f"expected a tuple of arguments, found {type(cmd).__name__}")
    return _encode_command(*cmd) if cmd else b"*0\r\n"


class Reader:
    """Bytes in with `feed()`, replies out with `gets()`.

    - `protocolError`, `replyError`: called with the text of an error, they return the exception.
    - `encoding`, `errors`: decode strings to str; without an encoding they are bytes.
    - `notEnoughData`: what `gets()` returns when it needs more bytes.

    An unknown encoding or error handler is a LookupError, an error class that can't be called a
    TypeError.
    """

    __slots__ = (
        "_count",
        "_encoding",
        "_errors_seen",
        "_failed",
        "_fed",
        "_max_buffer",
        "_mode",
        "_nothing",
        "_parser",
        "_plain",
        "_protocol_error",
        "_raw",
        "_ready",
        "_reply_error",
        "_rewriter",
        "_suspect",
    )

    def __init__(
        self,
        protocolError: Callable[[str], Exception] = ProtocolError,  # noqa: N803  # their names
        replyError: Callable[[str], Exception] = ReplyError,  # noqa: N803
        encoding: str | None = None,
        errors: str | None = None,
        notEnoughData: Any = False,  # noqa: N803
    ) -> None:
        for function in (protocolError, replyError):
            if not callable(function):
                raise TypeError(f"expected a callable, found {type(function).__name__}")
        self._protocol_error = protocolError
        self._reply_error = replyError
        self._nothing = notEnoughData
        self._max_buffer = MAX_BUFFER
        self._fed: list[bytes] = []  # not yet given to the parser
        self._raw: list[bytes] = []  # given to it, from the reply on that the batch began with
        self._ready: list[Any] = []  # the rest of the batch, last one first
        self._plain = NO_REPLIES  # the same, where it can go out without a look
        self._count = 0  # replies in what is raw
        self._failed: _RespProtocolError | None = None  # what ended the stream
        self._rewriter: _Rewriter | None = None
        self._errors_seen = False  # whether an error can be in the batch
        self._encoding = _lookup(encoding, errors)
        self._mode = self._encoding
        # Whether a reply of the batch needs a look before it goes out.
        self._suspect = self._mode is not None and not _ascii_safe(self._mode)
        self._parser = _parser(self._mode)

    def feed(self, buf: Buffer | str, offset: int = 0, length: int = -1, /) -> None:
        """Take bytes, or those of them from `offset` on, `length` of them; a str as UTF-8."""
        if type(buf) is not bytes or offset or length != -1:
            view = memoryview(buf.encode() if isinstance(buf, str) else buf)
            size = view.nbytes
            if length == -1:
                length = size - offset
            if offset < 0 or length < 0:
                raise ValueError("offset and length must not be negative")
            if offset + length > size:
                raise ValueError(f"expected {offset + length} bytes, found {size}")
            buf = view.cast("B")[offset : offset + length].tobytes()
        if buf:
            self._fed.append(buf)

    def gets(self, shouldDecode: bool = True, /) -> Any:  # noqa: N803
        """Return the next reply, or what stands for not enough data.

        With False, strings of this reply stay bytes whatever the encoding. Raises what
        `protocolError` makes where the bytes are not RESP, and UnicodeDecodeError, once, in place
        of a reply that can't be decoded.
        """
        if shouldDecode and self._plain:
            return self._plain.pop()
        mode = self._encoding if shouldDecode else None
        if mode is not self._mode and mode != self._mode:
            self._switch(mode)
        if not self._ready and not self._read():
            return self._nothing
        value = self._ready.pop()
        return self._checked(value) if self._suspect else value

    def set_encoding(self, encoding: str | None = None, errors: str | None = None) -> None:
        """Decode from the next reply on with another encoding, or not at all."""
        self._encoding = _lookup(encoding, errors)
        self._switch(self._encoding)

    def has_data(self) -> bool:
        """Whether bytes were fed that are not part of a reply already returned."""
        held = self._rewriter is not None and self._rewriter.held
        return bool(self._ready or self._fed or held or self._parser.pending)

    def len(self) -> int:
        """How many bytes were fed that are not part of a reply already returned."""
        waiting = sum(map(len, self._fed))
        if self._rewriter is not None:
            waiting += len(self._rewriter.held) - self._rewriter.given
        if not self._ready:
            return waiting + self._parser.pending
        # Of a batch only the end is known: read again what was returned of it.
        again = _parser(None)
        again.feed(b"".join(self._raw))
        for _ in range(self._count - len(self._ready)):
            again.parse()
        return waiting + again.pending

    def setmaxbuf(self, maxbuf: int | None, /) -> None:
        """Remember how much memory an idle buffer may hold; ours holds none."""
        if maxbuf is None:
            maxbuf = MAX_BUFFER
        if maxbuf < 0:
            raise ValueError(f"maxbuf must not be negative, and is {maxbuf}")
        self._max_buffer = int(maxbuf)

    def getmaxbuf(self) -> int:
        """Return what `setmaxbuf()` was given last."""
        return self._max_buffer

    def _read(self) -> bool:
        """Read what was fed, the next batch of replies; return whether there are any."""
        fed = self._fed
        if not fed or self._failed is not None:
            fed.clear()  # nothing behind an error can be trusted
            error = self._failed or self._parser.error
            if error is not None:
                raise self._protocol_error(str(error))
            return False
        if self._raw:
            self._forget()
        data = fed[0] if len(fed) == 1 else b"".join(fed)
        fed.clear()

        if not self._errors_seen and (MINUS in data or BANG in data) and _may_begin(data, ERRORS):
            self._errors_seen = self._suspect = True
        if not self._suspect and self._mode is not None and not data.isascii():
            self._suspect = True
        if (
            self._rewriter is not None
            or (
                (TILDE in data or BRACKET in data or EQUALS in data) and _may_begin(data, REWRITTEN)
            )
            or (self._errors_seen and not data.isascii())
        ):
            data = self._rewritten(data)
        parser = self._parser
        try:
            ready = parser.feed_all(data)
        except _RespProtocolError as error:
            self._failed = error.with_traceback(None)
            raise self._protocol_error(str(error)) from None
        if len(ready) == 1 and not (
            self._suspect or self._raw or self._rewriter is not None or parser.pending
        ):
            self._ready = ready  # the one reply to one request, which goes out at once
            return True
        self._raw.append(data)
        ready.reverse()
        self._serve(ready, self._count + len(ready))
        return bool(ready)

    def _serve(self, ready: list[Any], count: int) -> None:
        """Have these replies ready, the last ones of so many that are in what is raw."""
        self._ready, self._count = ready, count
        self._plain = ready if self._mode is self._encoding and not self._suspect else NO_REPLIES

    def _rewritten(self, data: bytes) -> bytes:
        """Return the bytes in our parser's terms."""
        if self._rewriter is None:
            rest = data[1:]
            if not self._raw and data[:1] == b"~" and not _may_begin(rest, REWRITTEN + ERRORS):
                return b"*" + rest  # one set and nothing else, the usual answer to SMEMBERS
            self._rewriter = _Rewriter(b"".join(self._raw))
        return self._rewriter.rewrite(data)

    def _forget(self) -> None:
        """Let go of the batch that is read, but for the beginning of the next reply."""
        pending = self._parser.pending
        idle = self._rewriter is None or self._rewriter.idle
        if not pending and idle:
            self._raw.clear()
            self._count = 0
            self._rewriter = None
            self._errors_seen = False
            self._suspect = self._mode is not None and not _ascii_safe(self._mode)
        elif self._count:
            last = self._raw[-1]
            data = last if len(last) >= pending else b"".join(self._raw)
            tail = data[len(data) - pending :]
            # A push in the middle of a reply, which no server sends, would leave a gap in it.
            pushes = any(GREATER in part for part in self._raw)
            if not pushes or not pending or _is_begun(tail):
                self._raw, self._count = [tail] if tail else [], 0

    def _switch(self, mode: tuple[str, str] | None) -> None:
        """Go on with another encoding: what is not yet returned is read again."""
        self._mode = mode
        self._suspect = self._errors_seen or mode is not None
        returned, ready = self._count - len(self._ready), []
        self._parser = _parser(mode)
        if self._raw:
            with suppress(_RespProtocolError):  # `_read` raises it
                ready = self._parser.feed_all(b"".join(self._raw))
        count = len(ready)
        del ready[:returned]
        ready.reverse()
        self._serve(ready, count)

    def _checked(self, value: Any) -> Any:
        """Return a reply with the errors in it made by `replyError`."""
        if isinstance(value, UnicodeError):
            raise value
        if not self._errors_seen:
            return value
        if type(value) is _RespReplyError:
            return self._made(value)
        containers = [value]
        for container in containers:
            if isinstance(container, list):
                items: Any = enumerate(container)
            elif isinstance(container, dict):
                items = list(container.items())
                if any(type(key) is _RespReplyError for key in container):
                    container.clear()
                    container.update((self._made(key), item) for key, item in items)
                    items = list(container.items())
            else:
                continue
            for place, item in items:
                if type(item) is _RespReplyError:
                    container[place] = self._made(item)
                elif isinstance(item, (list, dict)):
                    containers.append(item)
        return value

    def _made(self, value: Any) -> Any:
        """Return the caller's error for ours, and everything else as it is."""
        return self._reply_error(str(value)) if type(value) is _RespReplyError else value


def _lookup(encoding: str | None, errors: str | None) -> tuple[str, str] | None:
    """Return what the parser is to decode with; an unknown name is a LookupError."""
    codecs.lookup_error(errors or "strict")
    if encoding is None:
        return None
    return codecs.lookup(encoding).name, errors or "strict"


def _parser(mode: tuple[str, str] | None) -> _Parser:
    if mode is None:
        return _Parser(max_depth=MAX_DEPTH)
    return _Parser(max_depth=MAX_DEPTH, encoding=mode[0], errors=mode[1])


def _ascii_safe(mode: tuple[str, str]) -> bool:
    """Whether ASCII can't fail to decode."""
    return mode[0] in ("utf-8", "ascii", "iso8859-1")


def _may_begin(data: bytes, marks: tuple[bytes, ...]) -> bool:
    """Whether an element in the data may begin with one of the marks.

    False where that can't be; True also where it only looks like it, in the middle of a payload.
    """
    return any(mark in data and (data.startswith(mark) or b"\n" + mark in data) for mark in marks)


def _is_begun(data: bytes) -> bool:
    """Whether the bytes are the beginning of one reply."""
    parser = _parser(None)
    try:
        return not parser.feed_all(data) and parser.pending == len(data)
    except _RespProtocolError:
        return False


class _Rewriter:
    """Rewrites what hiredis-py makes something else of than our parser, line by line.

    It knows where elements begin and nothing of how they nest, which is enough: a set becomes an
    array, a big number a simple string, a verbatim string a bulk, and an error's text valid UTF-8
    with U+FFFD for what is not. What it does not understand it leaves for the parser to refuse.
    """

    __slots__ = ("given", "held", "skip")

    def __init__(self, before: bytes) -> None:
        """Begin in the middle of a reply, behind what the parser was given of it."""
        self.held = b""  # the beginning of an element whose line is not complete
        self.skip = 0  # bytes of a payload and its CRLF still to come
        self.given = 0  # bytes of what is held that the parser has already; all of them ASCII
        self.rewrite(before)
        self.given = len(self.held)

    @property
    def idle(self) -> bool:
        """Whether it stands before an element, and holds nothing back."""
        return not self.held and not self.skip

    def rewrite(self, data: bytes) -> bytes:
        """Return the next bytes of the stream for the parser."""
        skip = self.skip
        if skip:
            self.skip = max(0, skip - len(data))
            if len(data) <= skip:
                return data
            return data[:skip] + self.rewrite(data[skip:])
        data, self.held = self.held + data, b""
        tokens = data.split(b"\r\n")  # the last one is of a line that is not complete
        last = len(tokens) - 1
        at = 0
        while at < last:
            token = tokens[at]
            length = LENGTHS.get(token, -1)
            if length >= 0 and at + 1 < last and len(tokens[at + 1]) == length:
                at += 2  # a bulk, as most elements are
                continue
            mark, content = token[:1], token[1:]
            if mark == b"~":
                tokens[at] = b"*" + content
            elif mark == b"(":
                if (content[1:] if content[:1] in (b"-", b"+") else content).isdigit():
                    tokens[at] = b"+" + content
            elif mark == b"-":
                if not content.isascii():
                    tokens[at] = b"-" + content.decode("utf-8", "replace").encode()
            elif mark in (b"$", b"=", b"!", b";") and content.isdigit() and len(content) < 20:
                length = int(content)
                if mark == b"=" and length >= 4:
                    if at + 1 == last and len(tokens[last]) < 4:
                        break  # the format is yet to come
                    if tokens[at + 1][3:4] == b":":
                        length -= 4
                        tokens[at] = b"$%d" % length
                        tokens[at + 1] = tokens[at + 1][4:]
                if mark != b";" or length:
                    at = self._behind(tokens, at + 1, length)
                    continue
            at += 1
        given, self.given = self.given, 0
        if at <= last and tokens[at][:1] in MARKS and sum(map(len, tokens[at:])) < LONGEST_HELD:
            self.held = b"\r\n".join(tokens[at:])
            tokens[at:] = [b""] if at else []
            self.given = 0 if at else given
        # Of a line that was held, what was given already is the same in what stands for it.
        return b"\r\n".join(tokens)[given:]

    def _behind(self, tokens: list[bytes], at: int, length: int) -> int:
        """Return where the element after a payload begins, with CRLF in it or not all there."""
        last = len(tokens) - 1
        size = len(tokens[at])
        while size < length and at < last:
            at += 1
            size += 2 + len(tokens[at])
        if at < last and size == length:
            return at + 1
        if at == last and size <= length + 2:
            self.skip = length + 2 - size
        return last + 1  # no element begins here any more, or none that could be understood
