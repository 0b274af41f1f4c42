"""Bytes as a source of choices: the same bytes make the same value, fewer bytes a smaller one."""

from __future__ import annotations

from typing import Any

from resp import Attributed, Push, ReplyError, Verbatim

DEEPEST = 6

INTEGERS = (0, 1, -1, 999, 1000, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**4299)
DOUBLES = (0.0, -0.0, 0.1, -1.5, 1e22, 5e-324, 1.7976931348623157e308)
SPECIAL = (float("inf"), float("-inf"), float("nan"), 2.0**53, 1 / 3)
TEXTS = ("", "\r\n", "OK", "\u20ac", "\U0001f600", "\x00", "a" * 1024, "$5\r\n")
# A lone surrogate can't be sent.
ODD_TEXTS = ("\ud800", "pass\udfffword")


class Source:
    """Choices, read from the front. When the bytes are used up, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def byte(self) -> int:
        """Return the next byte, or 0."""
        position = self.position
        self.position += 1
        return self.data[position] if position < len(self.data) else 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, or what there is of them."""
        taken = self.data[self.position : self.position + count]
        self.position += count
        return taken

    def string(self) -> bytes:
        """Return a short string of any bytes."""
        return self.take(self.byte() % 40)

    def text(self) -> str:
        """Return text, some of it with what is special on the wire."""
        choice = self.byte()
        if choice < 2 * len(TEXTS):
            return TEXTS[choice % len(TEXTS)]
        return self.string().decode("utf-8", "ignore")

    def integer(self) -> int:
        """Return an integer of any size that the wire allows."""
        choice = self.byte()
        if choice < len(INTEGERS):
            return INTEGERS[choice]
        return int.from_bytes(self.take(choice % 12), signed=True)

    def double(self) -> float:
        """Return a double, any that there is."""
        choice = self.byte()
        if choice < len(DOUBLES + SPECIAL):
            return (DOUBLES + SPECIAL)[choice]
        return int.from_bytes(self.take(8)) / (1 + int.from_bytes(self.take(4)))

    def value(self, *, text: bool, frozen: bool = False, depth: int = 0) -> Any:
        """Return a value as a parser would: strings as `text` says, keys and members frozen."""
        kind = self.byte() % (9 if depth == DEEPEST else 16)
        match kind:
            case 0:
                return None
            case 1 | 2:
                return self.text() if text else self.string()
            case 3 | 4:
                return self.integer()
            case 5:
                return self.double()
            case 6:
                return self.byte() % 2 == 1
            case 7:
                return ReplyError(self.text())
            case 8:
                name = "".join(map(chr, (self.byte(), self.byte(), self.byte())))
                return Verbatim(self.text() if text else self.string(), name)
            case 15 if not frozen:
                attributes = self._dict(text=text, depth=depth)
                return Attributed(self.value(text=text, depth=depth + 1), attributes)
            case 13 | 14:
                items = {self.value(text=text, frozen=True, depth=depth + 1) for _ in self._few()}
                return frozenset(items) if frozen else items
            case 12 if not frozen:
                return self._dict(text=text, depth=depth)
            case _:
                elements = [
                    self.value(text=text, frozen=frozen, depth=depth + 1) for _ in self._few()
                ]
                return tuple(elements) if frozen else elements

    def reply(self, *, text: bool) -> Any:
        """Return what can stand at the top: any value, or a push."""
        value = self.value(text=text)
        return Push(value) if type(value) is list and self.byte() % 4 == 3 else value

    def _dict(self, *, text: bool, depth: int) -> dict[Any, Any]:
        return {
            self.value(text=text, frozen=True, depth=depth + 1): self.value(
                text=text, depth=depth + 1
            )
            for _ in self._few()
        }

    def _few(self) -> range:
        return range(self.byte() % 5)

    def argument(self) -> Any:
        """Return an argument of a command, now and then one that can't be sent."""
        choice = self.byte() % 24
        match choice:
            case 0:
                return self.integer()
            case 1:
                return self.double()
            case 2:
                return bytearray(self.string())
            case 3:
                return memoryview(self.string())
            case 4:
                return memoryview(self.string())[::-2]
            case 5:
                return (None, True, [], object(), 1j, Exception("secret"))[self.byte() % 6]
            case 6:
                return ODD_TEXTS[self.byte() % len(ODD_TEXTS)]
            case 7:
                return (StrangeBytes, StrangeText)[self.byte() % 2](b"" if choice % 2 else ())
            case 8:
                return Small(self.byte())
            case 9:
                return b"x" * (1020 + self.byte() % 8)  # around the table of headers
            case choice if choice < 16:
                return self.text()
            case _:
                return self.string()

    def command(self) -> Any:
        """Return a command, now and then what is none."""
        if self.byte() == 255:
            return (b"PING", "PING", bytearray(b"PING"), memoryview(b"PING"))[self.byte() % 4]
        arguments = [self.argument() for _ in range(self.byte() % 6)]
        return tuple(arguments) if self.byte() % 2 else arguments


class StrangeBytes(bytes):
    """A subclass that thinks otherwise about its length."""

    def __new__(cls, _: object = b"") -> StrangeBytes:
        return super().__new__(cls, b"strange")


class StrangeText(str):
    """A subclass of str."""

    __slots__ = ()

    def __new__(cls, _: object = "") -> StrangeText:
        return super().__new__(cls, "strange \u20ac")


class Small(int):
    """A subclass of int whose str is no number."""

    def __repr__(self) -> str:
        return "Small()"

    __str__ = __repr__
