"""What both parsers go by: their limits unless told otherwise, and what options they take."""

from __future__ import annotations

from codecs import lookup_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_DEPTH: Final = 128  # as serde_json; servers' own replies stay below 10
MAX_BULK: Final = 512 * 1024 * 1024  # proto-max-bulk-len, as servers ship
MAX_ELEMENTS: Final = 2**32 - 1  # as hiredis' maxelements

SCRATCH: Final = 64 * 1024  # what get_buffer() offers at least


# A generator that runs says no more than ValueError, which it may mean by something else.
REENTERED: Final = "this parser is reading already, for another thread or for a caller further up"


def check_options(encoding: str | None, errors: str, limits: dict[str, int]) -> None:
    """Refuse what no parser can go by."""
    if encoding is not None:
        # LookupError, also for a codec that is not of text. Of no bytes Python would not ask.
        str(b"0000", encoding, "replace")
    lookup_error(errors)
    for name, limit in limits.items():
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"{name} must be an int, not {type(limit).__name__}")
        if limit < 0:
            raise ValueError(f"{name} must not be negative, and is {limit}")
