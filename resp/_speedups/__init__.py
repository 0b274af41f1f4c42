"""The compiled twins of `_parser` and `_encoder`, and nothing else: the names of `resp.pure`.

An ImportError where they were not compiled. `resp` chooses; this is for tests and benchmarks.
"""

from __future__ import annotations

from .._encoder import encode
from .._errors import ProtocolError, ReplyError, RespError
from .._types import NEED_DATA, Attributed, Push, Verbatim
from ._encoder import encode_command, encode_commands
from ._parser import Parser, parse

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
