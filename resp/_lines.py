"""What stands on one line, read strictly: `int` and `float` take far more than RESP does.

`1_0` and ` 7` are numbers to Python and refused here. Every function takes the bytes
between the type byte and CRLF and the offset of the type byte, and returns the value or raises
the `ProtocolError` that says what was expected, what was found and where.
"""

from __future__ import annotations

from ._errors import ProtocolError
from ._types import NAMES, Verbatim, VerbatimBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1

MAX_LINE: Final = 64 * 1024  # PROTO_INLINE_MAX_SIZE, the server's own limit for a line

# CPython's own default limit for int <-> str, against the quadratic conversion (CVE-2020-10735).
MAX_DIGITS: Final = 4300
# Digits that int() takes whatever sys.set_int_max_str_digits() says: its lowest threshold.
SAFE_DIGITS: Final = 640

# How C libraries spell what is no finite number, in any case and with any sign: C17, 7.21.6.1 (%f,
# %g), and nan(ind) and nan(snan) of Microsoft's. Redis before 7.2 sends what its libc prints.
NOT_FINITE: Final = frozenset((b"inf", b"infinity", b"nan", b"nan(ind)", b"nan(snan)"))
# Digits that are finite as a double, however many stand before the point.
MOST_PLAIN: Final = 300
INFINITY: Final = float("inf")


def shown(data: bytes) -> str:
    """Return bytes as an error message shows them: `b"XY"`, cut after 40."""
    text = data[:40].decode("latin-1").encode("unicode_escape").decode("ascii")
    text = text.replace('"', '\\"')
    return f'b"{text}"' if len(data) <= 40 else f'b"{text}"... ({len(data)} bytes)'


def refusal(expected: str, found: str, offset: int) -> ProtocolError:
    """Return the error; every message says what was expected, what was found and where."""
    return ProtocolError(f"expected {expected}, found {found} at offset {offset}", offset)


def check_line(line: bytes, offset: int, limit: int, *, complete: bool) -> None:
    """Refuse a line that no more bytes can mend: type byte, then length, then lone CR or LF.

    `line` starts with its type byte and, where it is `complete`, ends before its CRLF. Where it
    is not, a CR at its end may yet be half of one. Both ways find the same at the same place.
    """
    if line[0] not in NAMES:
        raise refusal("a type byte", shown(line[:1]), offset)
    stray = min((at for at in (line.find(b"\r"), line.find(b"\n")) if at >= 0), default=len(line))
    if stray - 1 > limit:
        raise refusal(f"a line of at most {limit} bytes", "a longer one", offset)
    if stray < len(line) and (complete or stray < len(line) - 1 or line.endswith(b"\n")):
        raise refusal("no lone CR or LF in a line", shown(line[stray : stray + 1]), offset + stray)


def parse_length(content: bytes, offset: int, name: str) -> int:
    """Return the length of a bulk or an aggregate: decimal digits and nothing else."""
    # bytes.isdigit() is ASCII only. 20 digits are more than any limit of lengths.
    if not content.isdigit() or len(content) > 20:
        raise refusal(f"a length for this {name}", shown(content), offset)
    return int(content)


def parse_integer(content: bytes, offset: int) -> int:
    """Return a `:` integer: an optional sign, digits, within signed 64 bits."""
    digits = content[1:] if content[:1] in (b"-", b"+") else content
    if digits.isdigit():
        digits = digits.lstrip(b"0")
        if len(digits) <= 19:
            value = int(digits or b"0")
            if content[:1] == b"-":
                value = -value
            if INTEGER_MIN <= value <= INTEGER_MAX:
                return value
        raise refusal("an integer of 64 bits", shown(content), offset)
    raise refusal("an integer", shown(content), offset)


def parse_big_number(content: bytes, offset: int) -> int:
    """Return a `(` big number: an optional sign and at most `MAX_DIGITS` digits."""
    digits = content[1:] if content[:1] in (b"-", b"+") else content
    if not digits.isdigit():
        raise refusal("a big number", shown(content), offset)
    if len(digits) > MAX_DIGITS:
        found = f"{len(digits)} digits"
        raise refusal(f"a big number of at most {MAX_DIGITS} digits", found, offset)
    value = 0
    for at in range(0, len(digits), SAFE_DIGITS):
        part = digits[at : at + SAFE_DIGITS]
        value = value * 10 ** len(part) + int(part)
    return -value if content[:1] == b"-" else value


def parse_double(content: bytes, offset: int) -> float:
    """Return a `,` double: digits, fraction, exponent; inf or nan.

    RESP3, "Doubles": digits on both sides of the point, if there is one.
    """
    integral, _, fraction = content.partition(b".")
    if integral.isdigit() and fraction.isdigit() and len(content) <= MOST_PLAIN:
        return float(content)  # as most are: 1.6 for these
    unsigned = content[1:] if content[:1] in (b"-", b"+") else content
    mantissa, e, exponent = unsigned.lower().partition(b"e")
    integral, point, fraction = mantissa.partition(b".")
    if (
        integral.isdigit()
        and (fraction.isdigit() if point else True)
        and ((exponent[1:] if exponent[:1] in (b"-", b"+") else exponent).isdigit() if e else True)
    ):
        value = float(content)
        # As hiredis (isfinite): a decimal beyond the doubles is refused, not turned into inf.
        if -INFINITY < value < INFINITY:
            return value
        raise refusal("a finite double", shown(content), offset)
    if unsigned.lower() in NOT_FINITE:
        # float() knows no nan(ind); the sign of a nan says nothing.
        return float(content.partition(b"(")[0])
    raise refusal("a double", shown(content), offset)


def parse_boolean(content: bytes, offset: int) -> bool:
    """Return a `#` boolean: t or f."""
    if content == b"t":
        return True
    if content == b"f":
        return False
    raise refusal("a boolean, t or f", shown(content), offset)


def check_null(content: bytes, offset: int) -> None:
    """Refuse a `_` null that has anything behind its type byte."""
    if content:
        raise refusal("CRLF after a null's type byte", shown(content), offset)


def parse_verbatim(payload: bytes, offset: int) -> Verbatim:
    """Return a `=` verbatim string: three bytes of format, a colon, and the text."""
    if payload[3:4] != b":":
        raise refusal("three bytes of format and a colon", shown(payload[:4]), offset)
    verbatim = bytes.__new__(VerbatimBytes, payload[4:])  # 5 times as fast as Verbatim()
    if payload[:3] != b"txt":
        verbatim.format = payload[:3].decode("latin-1")
    return verbatim
