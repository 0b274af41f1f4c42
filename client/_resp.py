"""The seam: the one module of the client that names the codec.

Installed, `client` and `resp` are top-level neighbours. Vendored together inside another
package they are siblings there. Both layouts work unchanged because the sibling is tried first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resp import (
        NEED_DATA,
        Parser,
        ProtocolError,
        Push,
        ReplyError,
        RespError,
        Verbatim,
        encode_command,
        encode_commands,
        parse,
    )
else:
    try:
        from .. import resp as _resp
    except ImportError:  # not inside another package
        import resp as _resp

    NEED_DATA = _resp.NEED_DATA
    Parser = _resp.Parser
    ProtocolError = _resp.ProtocolError
    Push = _resp.Push
    ReplyError = _resp.ReplyError
    RespError = _resp.RespError
    Verbatim = _resp.Verbatim
    encode_command = _resp.encode_command
    encode_commands = _resp.encode_commands
    parse = _resp.parse

__all__ = [
    "NEED_DATA",
    "Parser",
    "ProtocolError",
    "Push",
    "ReplyError",
    "RespError",
    "Verbatim",
    "encode_command",
    "encode_commands",
    "parse",
]
