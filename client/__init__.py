"""A minimal client of Redis and Valkey with a cache that the server keeps fresh.

    import client

    with client.connect("redis://localhost:6379/0", cache=True) as db:
        db.execute("SET", "greeting", "hello")
        db.execute("GET", "greeting")  # fetched, and kept
        db.execute("GET", "greeting")  # from the cache, until anybody changes it

`connect` gives the thread-safe `Client`, `connect_async` the `AsyncClient`; `Connection` is a
single connection of one's own; `Session` and `Cache` do no I/O and serve other front ends.
"""

from typing import TYPE_CHECKING, Any

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
from ._pubsub import Message
from ._resp import ProtocolError, Push, ReplyError, RespError
from ._session import Session
from ._sync import Client, connect
from ._tracking import Tracking

if TYPE_CHECKING:
    from ._asyncio import AsyncClient, connect_async
    from ._subscriber import Subscriber

__all__ = [
    "MISS",
    "AsyncClient",
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
    "Message",
    "NoAuthError",
    "Options",
    "PoolTimeout",
    "ProtocolError",
    "Push",
    "ReplyError",
    "RespError",
    "Session",
    "Subscriber",
    "Tracking",
    "TrackingRefused",
    "UnexpectedReply",
    "WrongPassError",
    "announced_keys",
    "connect",
    "connect_async",
    "embedded",
    "handshake",
    "listen",
    "track",
]

# Loaded when they are asked for: asyncio takes longer to import than all the rest together.
_LAZY = {"AsyncClient": "_asyncio", "connect_async": "_asyncio", "Subscriber": "_subscriber"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
