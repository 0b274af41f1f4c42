"""A minimal client of Redis and Valkey with a cache that the server keeps fresh.

    import client

    with client.connect("redis://localhost:6379/0", cache=True) as db:
        db.execute("SET", "greeting", "hello")
        db.execute("GET", "greeting")  # fetched, and kept
        db.execute("GET", "greeting")  # from the cache, until anybody changes it

`connect` gives the thread-safe `Client`; `Connection` is a single connection of one's own;
`Session` and `Cache` do no I/O and serve other front ends.
"""

from ._cache import MISS, Cache, CacheStats
from ._connection import Connection
from ._embedded import EmbeddedServer, embedded
from ._errors import (
    ClientError,
    CommandRefused,
    CommandTimeout,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    EmbeddedServerError,
    HandshakeError,
    NoAuthError,
    PoolTimeout,
    TrackingRefused,
    UnexpectedReply,
    WrongPassError,
)
from ._handshake import Conversation, Greeting, announced_keys, handshake, listen, track
from ._options import Options
from ._resp import ProtocolError, Push, ReplyError, RespError
from ._session import Session
from ._sync import Client, connect
from ._tracking import Tracking

__all__ = [
    "MISS",
    "Cache",
    "CacheStats",
    "Client",
    "ClientError",
    "CommandRefused",
    "CommandTimeout",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionClosed",
    "Conversation",
    "EmbeddedServer",
    "EmbeddedServerError",
    "Greeting",
    "HandshakeError",
    "NoAuthError",
    "Options",
    "PoolTimeout",
    "ProtocolError",
    "Push",
    "ReplyError",
    "RespError",
    "Session",
    "Tracking",
    "TrackingRefused",
    "UnexpectedReply",
    "WrongPassError",
    "announced_keys",
    "connect",
    "embedded",
    "handshake",
    "listen",
    "track",
]
