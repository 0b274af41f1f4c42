"""The tree of client errors: one root, and the builtin wherever a builtin is meant.

What the server answers is `resp.ReplyError`. What this package finds wrong itself hangs from
`ClientError`; a lost connection is also a `ConnectionError`, a time-out also a `TimeoutError`, so
code that knows nothing of this library still catches the right thing. No message ever carries a
credential or an argument of a command.
"""

from __future__ import annotations

from ._resp import ReplyError


class ClientError(Exception):
    """The root of every error that this package raises on its own account."""


class ConnectionClosed(ClientError, ConnectionError):
    """The connection is gone; a command that was in flight on it may or may not have run."""


class ConnectError(ConnectionClosed):
    """No connection could be made: nothing was sent."""


class ConnectTimeout(ConnectError, TimeoutError):
    """The peer did not accept the connection within `connect_timeout`."""


class CommandTimeout(ConnectionClosed, TimeoutError):
    """The call's deadline passed; its connection was closed, and the command may have run."""


class UnexpectedReply(ConnectionClosed):
    """The server answered what nobody asked, so no later reply could be trusted either."""


class PoolTimeout(ClientError, TimeoutError):
    """All `max_connections` stayed busy until the call's deadline; nothing was sent."""


class CommandRefused(ClientError, ValueError):
    """A command that would change the state of a shared connection; nothing was sent."""


class WatchError(ClientError):
    """A watched key changed at every attempt; nothing was executed."""


class HandshakeError(ClientError):
    """The server refused a step of the handshake that the options asked for."""


class NoAuthError(HandshakeError, ReplyError):
    """NOAUTH: the server wants credentials and the options hold none."""


class WrongPassError(HandshakeError, ReplyError):
    """WRONGPASS: the server does not accept the credentials of the options."""


class TrackingRefused(HandshakeError):
    """The server will not do CLIENT TRACKING for this user; the client goes on uncached.

    Attributes:
        for_now: whether it may at another time: it is busy with something else.
    """

    def __init__(self, message: str = "", for_now: bool = False) -> None:
        super().__init__(message)
        self.for_now = for_now


class EmbeddedServerError(ClientError):
    """`embedded()` found no server binary, or the one it found would not start."""
