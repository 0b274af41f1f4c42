"""The compiled twins of `_parser` and `_encoder`, and nothing else: the names of `resp.pure`.

An ImportError where they were not compiled. `resp` chooses; this is for tests and benchmarks.
"""

from __future__ import annotations

from .._errors import ProtocolError, ReplyError, RespError
from .._types import NEED_DATA, Attributed, Push, Verbatim
from ._encoder import encode_command, encode_commands
from ._parser import Parser, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._encoder import encode

__all__ = [
    "NEED_DATA",
    "Attributed",
    "Parser",
    "ProtocolError",
    "Push",
    "ReplyError",
    "RespError",
    "Verbatim",
    "encode",
    "encode_command",
    "encode_commands",
    "implementation",
    "parse",
]

implementation = "cython"


if not TYPE_CHECKING:

    def __getattr__(name):
        if name != "encode":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .._encoder import encode

        return encode
