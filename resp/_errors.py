"""What can go wrong on the wire: one root, and under it the two things a caller tells apart.

A `ProtocolError` is about the bytes: they are not RESP, and nothing behind them can be trusted.
A `ReplyError` is about the command: the server understood it and says no. It is a value like any
other, so that a refusal inside a transaction's array stays in its place; raising it is the
client's choice.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class RespError(Exception):
    """The root of every error that this package defines."""


class ProtocolError(RespError):
    """The bytes are not RESP, or exceed a limit.

    `offset` counts from the first byte ever fed. It is the place of the byte that cannot stand
    there (an unknown type byte, a lone CR or LF, something else where CRLF must be), or else of
    the type byte of the element that is refused. It depends on the bytes alone, never on how they
    were cut into chunks.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.offset)


class ReplyError(RespError):
    """An error the server answered, `-` or `!` on the wire, in the server's own words.

    `ReplyError("WRONGTYPE Operation against a key")` has the `code` "WRONGTYPE", its first word,
    and the `message` "Operation against a key", the rest; `str()` is the whole text. An error of
    one word has an empty message. Two are equal if class and text are, and so they can be keys.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text)

    @property
    def code(self) -> str:
        """The first word: "ERR", "WRONGTYPE", "NOAUTH", ..."""
        return str(self).partition(" ")[0]

    @property
    def message(self) -> str:
        """What follows the first word and its space; "" if there is nothing."""
        return str(self).partition(" ")[2]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))
