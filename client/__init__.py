"""A minimal client of Redis and Valkey with a cache that the server keeps fresh.

    import client

    with client.connect("redis://localhost:6379/0", cache=True) as db:
        db.execute("SET", "greeting", "hello")
        db.execute("GET", "greeting")  # fetched, and kept
        db.execute("GET", "greeting")  # from the cache, until anybody changes it

`connect` gives the thread-safe `Client`, `connect_async` the `AsyncClient`; `Connection` is a
single connection of one's own; `Session` and `Cache` do no I/O and serve other front ends.
"""

from __future__ import annotations

from ._cache import MISS, Cache, CacheStats
from ._connection import Connection
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
    WatchError,
    WrongPassError,
)
from ._handshake import Conversation, Greeting, announced_keys, handshake, listen, track
from ._options import Options
from ._reply_errors import (
    AskError,
    BusyError,
    BusyGroupError,
    BusyKeyError,
    ClusterDownError,
    CrossSlotError,
    ExecAbortError,
    LoadingError,
    MasterDownError,
    MisconfiguredError,
    MovedError,
    NoGroupError,
    NoPermissionError,
    NoReplicasError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
    UnblockedError,
    WrongTypeError,
)
from ._resp import ProtocolError, Push, ReplyError, RespError
from ._session import Session
from ._sync import Client, connect
from ._tracking import Tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._async_subscriber import AsyncSubscriber
    from ._asyncio import AsyncClient, connect_async
    from ._embedded import EmbeddedServer, embedded
    from ._metrics import Metrics
    from ._pubsub import Message
    from ._script import Script
    from ._sync_subscriber import Subscriber

__all__ = [
    "MISS",
    "AskError",
    "AsyncClient",
    "AsyncSubscriber",
    "BusyError",
    "BusyGroupError",
    "BusyKeyError",
    "Cache",
    "CacheStats",
    "Client",
    "ClientError",
    "ClusterDownError",
    "CommandRefused",
    "CommandTimeout",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionClosed",
    "Conversation",
    "CrossSlotError",
    "EmbeddedServer",
    "EmbeddedServerError",
    "ExecAbortError",
    "Greeting",
    "HandshakeError",
    "LoadingError",
    "MasterDownError",
    "Message",
    "Metrics",
    "MisconfiguredError",
    "MovedError",
    "NoAuthError",
    "NoGroupError",
    "NoPermissionError",
    "NoReplicasError",
    "NoScriptError",
    "Options",
    "OutOfMemoryError",
    "PoolTimeout",
    "ProtocolError",
    "Push",
    "ReadOnlyError",
    "ReplyError",
    "RespError",
    "Script",
    "Session",
    "Subscriber",
    "Tracking",
    "TrackingRefused",
    "TryAgainError",
    "UnblockedError",
    "UnexpectedReply",
    "WatchError",
    "WrongPassError",
    "WrongTypeError",
    "announced_keys",
    "connect",
    "connect_async",
    "embedded",
    "handshake",
    "listen",
    "track",
]

# Loaded when they are asked for: asyncio takes longer to import than all the rest together, and
# many a program needs none of the others.
_LAZY = {
    "AsyncClient": "_asyncio",
    "AsyncSubscriber": "_async_subscriber",
    "EmbeddedServer": "_embedded",
    "Message": "_pubsub",
    "Metrics": "_metrics",
    "Script": "_script",
    "Subscriber": "_sync_subscriber",
    "connect_async": "_asyncio",
    "embedded": "_embedded",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
