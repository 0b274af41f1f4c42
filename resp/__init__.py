"""RESP, the wire: bytes to Python values and back. Standard library only; it opens nothing.

`Parser` and `parse` read RESP2 and RESP3, `encode_command` and `encode_commands` write what a
client sends, `encode` writes any value, as a server would. This module is the only place that
chooses an implementation: the compiled one where it was built, else the pure Python one, and that
too if RESP_PURE_PYTHON=1 is in the environment. `implementation` says which, "cython" or "python";
`pure` is always the pure one.

Annotations are for checkers: no module here loads typing at run time, which with all that it
brings takes twice as long to import (12 ms) as the package does (5.5 ms).
"""

from __future__ import annotations

import os

from ._errors import ProtocolError, ReplyError, RespError
from ._types import NEED_DATA, Attributed, Push, Verbatim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import pure
    from ._encoder import encode

if TYPE_CHECKING or os.environ.get("RESP_PURE_PYTHON", "0") not in ("", "0"):
    from .pure import Parser, encode_command, encode_commands, implementation, parse
else:
    try:
        from ._speedups import Parser, encode_command, encode_commands, implementation, parse
    except ImportError:
        from .pure import Parser, encode_command, encode_commands, implementation, parse

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
    "pure",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        # What the compiled twins can do without: a client that has them never loads it.
        from importlib import import_module

        if name == "encode":
            return import_module("._encoder", __name__).encode
        if name == "pure":
            return import_module(".pure", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
