"""The pure Python codec, always: the same names as the package, whatever it chose."""

from __future__ import annotations

from ._encoder import encode, encode_command, encode_commands
from ._errors import ProtocolError, ReplyError, RespError
from ._parser import Parser, parse
from ._types import NEED_DATA, Attributed, Push, Verbatim

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

implementation = "python"
