"""The type bytes, and what Python has no word for: pushes, verbatim strings, attributes.

Everything else becomes what Python already has. The container never depends on its content: an
array is a list, a map a dict, a set a set. What cannot be hashed is frozen where it stands as a key
or a member: a list to a tuple, a set to a frozenset, a dict to a tuple of pairs. Equal keys and
members fall together as in any dict or set, where 1 == 1.0 == True.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar, Final

# RESP2 and RESP3: the first byte of every element.      What it becomes in Python:
SIMPLE_STRING: Final = ord("+")  # bytes, or str with encoding=
BULK_STRING: Final = ord("$")  # bytes, or str with encoding=; None if its length is -1
INTEGER: Final = ord(":")  # int, within signed 64 bits
BIG_NUMBER: Final = ord("(")  # int
DOUBLE: Final = ord(",")  # float
BOOLEAN: Final = ord("#")  # bool
NULL: Final = ord("_")  # None
SIMPLE_ERROR: Final = ord("-")  # ReplyError
BULK_ERROR: Final = ord("!")  # ReplyError
VERBATIM_STRING: Final = ord("=")  # Verbatim
ARRAY: Final = ord("*")  # list; None if its length is -1
MAP: Final = ord("%")  # dict
SET: Final = ord("~")  # set
ATTRIBUTE: Final = ord("|")  # Attributed, around the value that follows; or nothing
PUSH: Final = ord(">")  # Push, delivered by itself

# RESP3, "Streamed strings" and "Streamed aggregated data types": they stand only inside a stream.
CHUNK: Final = ord(";")
END: Final = ord(".")

# How error messages call them.
NAMES: Final = {
    SIMPLE_STRING: "simple string",
    BULK_STRING: "bulk",
    INTEGER: "integer",
    BIG_NUMBER: "big number",
    DOUBLE: "double",
    BOOLEAN: "boolean",
    NULL: "null",
    SIMPLE_ERROR: "error",
    BULK_ERROR: "bulk error",
    VERBATIM_STRING: "verbatim string",
    ARRAY: "array",
    MAP: "map",
    SET: "set",
    ATTRIBUTE: "attribute",
    PUSH: "push",
    CHUNK: "chunk",
    END: "end of a stream",
}


class NeedData:
    """The class of `NEED_DATA`, which is what `Parser.parse()` returns when bytes run out.

    It is no value of the protocol: None, 0, b"" and an empty list all are.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEED_DATA"

    def __reduce__(self) -> str:
        return "NEED_DATA"


NEED_DATA: Final = NeedData()


class Push(list["Any"]):
    """A push (`>`): data the server sends unasked. A list, with the `kind` of its news."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        """The first element as text: "invalidate", "message", ...; "" if it is no string.

        RESP3, "Push type": the first element says what kind of push this is.
        """
        first = self[0] if self else None
        if isinstance(first, bytes):
            return first.decode("utf-8", "backslashreplace")
        return first if isinstance(first, str) else ""

    def __repr__(self) -> str:
        return f"Push({super().__repr__()})"


class Verbatim:
    """A verbatim string (`=`): equal to its text in every way, with a `format` of three bytes.

    RESP3, "Verbatim string": "txt" is plain text, "mkd" is Markdown. `Verbatim(b"...")` is bytes
    and `Verbatim("...")` is str; `isinstance(value, Verbatim)` holds for both.
    """

    format: str = "txt"  # nearly always; only another costs the instance a dict

    def __new__(cls, text: str | bytes, format: str = "txt") -> Verbatim:  # noqa: A002
        """Return bytes or str, as the text is. A format of any other length is a ValueError."""
        if len(format) != 3 or max(format) > "\xff":
            raise ValueError(f"expected a format of three bytes, found {format!r}")
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"expected text as str or bytes, found {type(text).__name__}")
        kind: type[Verbatim] = cls
        if cls is Verbatim:
            kind = VerbatimStr if isinstance(text, str) else VerbatimBytes
        self = super(Verbatim, kind).__new__(kind, text)  # type: ignore[call-arg]
        if format != "txt":
            self.format = format
        return self

    def __repr__(self) -> str:
        return f"Verbatim({super().__repr__()}, format={self.format!r})"


class VerbatimBytes(Verbatim, bytes):
    """A verbatim string as the wire has it."""


class VerbatimStr(Verbatim, str):  # type: ignore[misc]  # its format is the wire's, not str's method
    """A verbatim string decoded, where the parser has an encoding."""


class Attributed:
    """A value and the attributes (`|`) that stood before it, where the parser keeps them.

    `value, attributes = attributed` takes it apart. `attributes` is a dict; as a key or a member
    of a set both sides come frozen, so the attributes are a tuple of pairs there; so do those of a
    push that stands in such a place, since what they belong to is only known behind them.
    """

    __slots__ = ("attributes", "value")
    __match_args__: ClassVar = ("value", "attributes")

    def __init__(self, value: Any, attributes: Any) -> None:
        self.value = value
        self.attributes = attributes

    def __iter__(self) -> Iterator[Any]:
        yield self.value
        yield self.attributes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Attributed):
            return NotImplemented
        return bool(self.value == other.value and self.attributes == other.attributes)

    def __hash__(self) -> int:
        return hash((self.value, self.attributes))

    def __repr__(self) -> str:
        return f"Attributed({self.value!r}, {self.attributes!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Attributed, (self.value, self.attributes)
