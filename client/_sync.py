"""The blocking client: a small pool of connections, thread-safe, and the cache before it.

A cached read is one look into the cache. Everything else borrows a connection, does one round
trip and gives it back; a connection that can't be trusted any more is closed instead, and
another is opened when it is needed.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ._cache import MISS, Cache
from ._commands import cacheable_keys, is_script, why_not_cacheable, written_keys
from ._connection import Connection
from ._errors import CommandRefused, ConnectionClosed, PoolTimeout, TrackingRefused
from ._handshake import announced_keys, track
from ._listener import FRESHNESS, Channel, Listener
from ._options import Options, check_int, check_seconds
from ._resp import Push, ReplyError, encode_command, parse
from ._session import Role, Trace, Word, role
from ._tracking import Tracking

if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Self

_POOL_SIZE = 16

_CACHING_YES = (b"CLIENT", b"CACHING", b"YES")
_CACHING_NO = (b"CLIENT", b"CACHING", b"NO")


def connect(
    url: str = "redis://localhost:6379/0",
    *,
    protocol: Literal[2, 3] | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    cache: Cache | bool | None = None,
    tracking: Tracking | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int | None = None,
    client_name: str | None = None,
    timeout: float | None = 5.0,
    connect_timeout: float | None = 5.0,
    max_connections: int | None = None,
    max_bulk: int | None = None,
    ssl: bool | SSLContext | None = None,
    trace: Trace | None = None,
) -> Client:
    """Connect to a server and give a thread-safe client.

    Args:
        url: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` for TLS, or
            `unix://[user[:password]@]/path?db=0`. A keyword wins over the URL's part.
        protocol: 3, 2, or None for 3 with a fall-back to 2.
        encoding, errors: how replies become `str`; None leaves them `bytes`.
        cache: True or a `Cache` for client-side caching; None or False for none.
        tracking: how the server keeps the cache right; given alone it brings a `Cache()`.
        username, password, db, client_name: as in the URL.
        timeout: seconds for one whole call, a deadline; None waits for ever.
        connect_timeout: seconds for the transport to come up.
        max_connections: data connections at most, 16 if not said; inline tracking has one.
        max_bulk: the longest bulk reply accepted, in bytes; 512 MiB if not said.
        ssl: True for verified TLS, or an `ssl.SSLContext`.
        trace: told of every frame: `trace(connection, "sent" or "received", frame)`.

    Raises:
        ValueError, TypeError: an option makes no sense; nothing was sent.
        ConnectError: the server can't be reached.
        HandshakeError: the server refuses (NoAuthError, WrongPassError).
    """
    given: dict[str, Any] = {
        "protocol": protocol,
        "encoding": encoding,
        "errors": errors,
        "username": username,
        "password": password,
        "db": db,
        "client_name": client_name,
        "max_bulk": max_bulk,
        "ssl": ssl,
    }
    given = {name: value for name, value in given.items() if value is not None}
    options = Options.from_url(url, timeout=timeout, connect_timeout=connect_timeout, **given)
    if cache is True or (cache is None and tracking is not None):
        cache = Cache()
    elif cache is False or cache is None:
        if tracking is not None:
            raise ValueError("tracking keeps a cache right, and cache=False refuses one")
        cache = None
    elif not isinstance(cache, Cache):
        raise TypeError(f"cache takes a Cache, a bool or None, not {type(cache).__name__}")
    return Client(options, cache, tracking, max_connections=max_connections, trace=trace)


class _DataConnection(Connection):
    """A pooled connection.

    Attributes:
        epoch: of the channel on which changes of what it reads are announced; 0 before that.
    """

    def __init__(self, options: Options, cache: Cache | None, trace: Trace | None) -> None:
        self.epoch = 0
        self._cache = cache
        super().__init__(options, name="data", trace=trace)

    def take_push(self, push: Push) -> None:
        if self._cache is None:
            return
        if push.kind == "invalidate":
            self._cache.invalidate(announced_keys(push))
        elif push.kind == "tracking-redir-broken":
            # The target of our redirect is gone: what this connection reads goes unannounced.
            self.epoch = 0
            self._cache.flush("redirect broken")


class Client:
    """A client of one server and one database, for any number of threads. See `connect`.

    Attributes:
        cache: the cache, or None.
        server: HELLO's map of the first connection.
        protocol: 2 or 3, what the first connection negotiated.
        id: CLIENT ID of the first connection, or None where the server would not tell.
    """

    def __init__(
        self,
        options: Options,
        cache: Cache | None = None,
        tracking: Tracking | None = None,
        *,
        max_connections: int | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._closed = True  # until something needs closing
        tracking = tracking or Tracking()
        self._inline = cache is not None and tracking.listener == "inline"
        if options.protocol is not None and cache is not None:
            tracking.check_protocol(options.protocol)
        if max_connections is None:
            max_connections = 1 if self._inline else _POOL_SIZE
        check_int("max_connections", max_connections, 1, 2**31 - 1)
        if self._inline and max_connections > 1:
            raise ValueError(
                "inline tracking has one connection: an invalidation comes on the one that read "
                'the key, and an idle one is not read; use listener="dedicated" for a pool'
            )
        check_seconds("timeout", options.timeout)
        self._options = options
        self._max_connections = max_connections
        self._trace = trace
        self._tracking = tracking
        self._listener: Listener | None = None
        self.cache = cache
        if cache is not None:
            cache.claim(self)
        # What the hit path looks at: reads of `execute` go through the cache unless opted in.
        self._auto: Cache | None = None if tracking.optin else cache
        self._prepare_pool()
        self._closed = False
        _clients.add(self)
        try:
            first = self._take()
            self.server = first.server
            self.protocol = first.protocol
            self.id = first.id
            try:
                if cache is not None:
                    self._begin_caching(first)
            finally:
                self._give_back(first)
        except BaseException:
            self.close()
            raise

    # The commands.

    def execute(self, *command: Word) -> Any:
        """Send a command and give its reply; serve a read from the cache where there is one.

        Raises:
            ReplyError: the server answered with an error.
            CommandRefused: the command would change a pooled connection's state.
            CommandTimeout: the deadline passed; the command may have run.
            ConnectionClosed: the connection was lost; the command may have run.
            PoolTimeout: all connections stayed busy; nothing was sent.
            TypeError, ValueError: an argument that a command can't carry.
        """
        cache = self._auto
        if cache is None:
            return self._run(command, None)
        if not self._inline:
            try:
                value = cache.get(command)
            except TypeError:  # an argument that can't be hashed, such as a bytearray
                value = MISS
            if value is not MISS:
                return value
        return self._run(command, cache)

    def cached(self, *command: Word, ttl: float | None = None) -> Any:
        """Read through the cache, in OPTIN mode too.

        Args:
            *command: a read-only command whose reply depends on its keys alone.
            ttl: seconds that the reply may be served at most, if it is fetched now.

        Raises:
            CommandRefused: a command whose reply is never cached; the message says why.
            ValueError: the client has no cache, or `ttl` makes no sense.
            All that `execute` raises.
        """
        cache = self.cache
        if cache is None:
            raise ValueError("this client has no cache: connect(…, cache=True)")
        check_seconds("ttl", ttl)
        if not self._inline:
            try:
                value = cache.get(command)
            except TypeError:
                value = MISS
            if value is not MISS:
                return value
        words = _words(command)
        if cacheable_keys(words) is None:
            raise CommandRefused(why_not_cacheable(words) or "its reply is never cached")
        return self._run(command, cache, ttl)

    def uncached(self, *command: Word) -> Any:
        """Send a command past the cache; in OPTOUT mode its keys are not tracked either."""
        if self.cache is not None and self._tracking.optout:
            self._check_allowed((command,))
            if cacheable_keys(_words(command)) is not None:
                return _raise_error(self._roundtrip([_CACHING_NO, command])[1])
        return self._run(command, None)

    def execute_many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Send commands in one round trip and give their replies, errors in place.

        They go past the cache, but what they write is dropped from it. Writing and reading
        interleave, so a pipeline of any size can't block both sides.

        Raises:
            As `execute`, but for the errors among the replies, which are values of the list.
        """
        batch = [tuple(command) for command in commands]
        self._check_allowed(batch)
        return self._mutate(batch, batch) if batch else []

    def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Run commands between MULTI and EXEC and give their replies, errors in place.

        Raises:
            ReplyError: the transaction was refused as a whole; its notes say which command was
                the cause.
            As `execute` otherwise.
        """
        batch = [tuple(command) for command in commands]
        self._check_allowed(batch)
        if not batch:
            return []
        replies = self._mutate([(b"MULTI",), *batch, (b"EXEC",)], batch)
        outcome = replies[-1]
        if isinstance(outcome, ReplyError):
            for number, reply in enumerate(replies[1:-1], 1):
                if isinstance(reply, ReplyError):
                    outcome.add_note(f"command {number} of {len(batch)}: {reply}")
            raise outcome
        return list(outcome)

    # Below: one command on its way.

    def _run(self, command: Sequence[Word], cache: Cache | None, ttl: float | None = None) -> Any:
        """Send one command; with a cache, reserve and fill if it is a read that may be cached."""
        command_role = role(command)
        if command_role is not Role.PLAIN:
            if command_role is Role.RESET:
                return self._reset()
            self._check_allowed((command,))
        if self.cache is None:
            return _raise_error(self._roundtrip([command])[0])
        words = _words(command)
        if cache is not None:
            keys = cacheable_keys(words)
            if keys and self._tracking.covers(keys):
                return _raise_error(self._fetch(cache, command, keys, ttl))
        return _raise_error(self._mutate([command], [words])[0])

    def _fetch(
        self, cache: Cache, command: Sequence[Word], keys: tuple[bytes, ...], ttl: float | None
    ) -> Any:
        """Read from the server, and keep what came if nothing was said against it meanwhile."""
        # 1 == 1.0 == True: only strings are their own wire form, and equal only to themselves.
        plain = all(type(word) is str or type(word) is bytes for word in command)
        place = tuple(command) if plain else encode_command(*command)
        if not plain and not self._inline and (value := cache.get(place)) is not MISS:
            return value
        connection = self._take()
        try:
            # Inline, the connection was drained just now; before that a hit proves nothing.
            if self._inline and (value := cache.get(place)) is not MISS:
                return value
            epoch = self._arm(connection)
            reservation = cache.reserve(place, keys, epoch)
            try:
                if reservation is not None and self._tracking.optin:
                    started = cache.clock()
                    permit, reply = connection.roundtrip(_CACHING_YES, command)
                    kept = not isinstance(permit, ReplyError)
                else:
                    started = cache.clock()
                    (reply,) = connection.roundtrip(command)
                    kept = True
                if self._inline and epoch:
                    cache.prove(started + FRESHNESS)
                if reservation is not None and kept:
                    cache.fill(reservation, reply, ttl)
                return reply
            finally:
                if reservation is not None:
                    cache.abandon(reservation)  # does nothing after a fill
        finally:
            self._give_back(connection)

    def _mutate(
        self, batch: Sequence[Sequence[Word]], counted: Iterable[Sequence[Word]]
    ) -> list[Any]:
        """Send a batch and keep the cache from showing what was there before it.

        What is written is dropped when the write is sent, and again when its reply is here: a
        read that started in between may have seen the old value. It is dropped as well if the
        outcome is not known.
        """
        cache = self.cache
        if cache is None:
            return self._roundtrip(batch)
        keys = self._touched(counted)
        if keys == ():
            return self._roundtrip(batch)
        cache.invalidate(keys, "own write")
        try:
            return self._roundtrip(batch)
        finally:
            cache.invalidate(keys, "own write")

    def _touched(self, commands: Iterable[Sequence[Word]]) -> tuple[bytes, ...] | None:
        """Give the keys that commands may write; None if it could be any."""
        touched: list[bytes] = []
        for command in commands:
            words = _words(command)
            if self._tracking.noloop and is_script(words):
                return None  # nobody will announce the keys that it did not declare
            keys = written_keys(words)
            if keys is None:
                return None
            touched += keys
        return tuple(touched)

    def _roundtrip(self, batch: Sequence[Sequence[Word]]) -> list[Any]:
        connection = self._take()
        try:
            started = 0.0 if self.cache is None else self.cache.clock()
            replies = connection.roundtrip(*batch)
            if self._inline and connection.epoch and self.cache is not None:
                self.cache.prove(started + FRESHNESS)
            return replies
        finally:
            self._give_back(connection)

    def _reset(self) -> Any:
        """Send RESET, and let its connection go: it is no longer who or where it was."""
        connection = self._take()
        try:
            return _raise_error(connection.roundtrip((b"RESET",))[0])
        finally:
            connection.close()
            self._give_back(connection)
            if self.cache is not None:
                self.cache.flush("RESET")

    def _check_allowed(self, batch: Iterable[Sequence[Word]]) -> None:
        for command in batch:
            command_role = role(command)
            if command_role is not Role.PLAIN:
                name = b" ".join(_words(command[:2] if _is_client(command) else command[:1]))
                raise CommandRefused(
                    f"{name.decode('latin-1').upper()} {command_role.value}; this client shares "
                    f"its connections: {_INSTEAD.get(command_role, 'use a Connection')}"
                )

    # The channel.

    def _begin_caching(self, first: _DataConnection) -> None:
        assert self.cache is not None
        try:
            self._tracking.check_protocol(self.protocol)
            if not self._inline:
                self._listener = Listener(self._options, self._tracking, self.cache, self._trace)
                self._listener.start()
            self._arm(first)
        except (TrackingRefused, ValueError) as error:
            self._give_up_caching(str(error))

    def _give_up_caching(self, reason: str) -> None:
        """Go on without caching: the server or its ACL will not have it."""
        self._refused = True
        if self._listener is not None:
            self._listener.stop()
        if self.cache is not None:
            self.cache.close(reason)

    def _arm(self, connection: _DataConnection) -> int:
        """Have the server announce what this connection reads; give the channel's epoch or 0."""
        assert self.cache is not None
        if self._refused:
            return 0
        if self._inline:
            if not connection.epoch and self._track(connection, None):
                connection.epoch = self.cache.open(self.cache.clock() + FRESHNESS)
            return connection.epoch
        listener = self._listener
        assert listener is not None
        channel = listener.channel
        if channel is None:
            listener.start()  # does nothing, but in a forked child
            channel = listener.channel
        if channel is None:
            return 0
        if self._tracking.on_listener or connection.epoch == channel.epoch:
            return channel.epoch
        if not self._track(connection, channel):
            return 0
        connection.epoch = channel.epoch
        listener.watch(connection)
        return channel.epoch

    def _track(self, connection: _DataConnection, channel: Channel | None) -> bool:
        try:
            connection.converse(track(self._tracking, channel and channel.redirect))
        except TrackingRefused as error:
            listener = self._listener
            if listener is None or listener.channel == channel:
                self._give_up_caching(str(error))
            # Otherwise the id died with its channel; the next one will be another.
            return False
        return True

    # The pool.

    def _prepare_pool(self) -> None:
        self._idle: deque[_DataConnection] = deque()
        self._all: set[_DataConnection] = set()
        self._opening = 0
        self._waiting = 0
        self._changed = threading.Condition()
        self._refused = False

    def _take(self) -> _DataConnection:
        """Give a connection that is drained and ours alone until `_give_back`."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                fresh = self._open_or_wait()
                if fresh is not None:
                    return fresh
                continue
            try:
                connection.drain()
            except Exception:  # noqa: BLE001 - whatever it is, it was before our command
                self._give_back(connection)
                continue
            return connection

    def _open_or_wait(self) -> _DataConnection | None:
        """Open another connection, or wait for one to be idle and give None."""
        timeout = self._options.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._waiting += 1
            try:
                while len(self._all) + self._opening >= self._max_connections:
                    self._check_open()
                    if self._idle:
                        return None
                    left = None if deadline is None else deadline - time.monotonic()
                    if (left is not None and left <= 0) or not self._changed.wait(left):
                        raise PoolTimeout(
                            f"all {self._max_connections} connections were busy for {timeout} s"
                        )
                self._check_open()
                self._opening += 1
            finally:
                self._waiting -= 1
        try:
            connection = _DataConnection(self._options, self.cache, self._trace)
        except BaseException:
            with self._changed:
                self._opening -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._opening -= 1
            self._all.add(connection)
        return connection

    def _give_back(self, connection: _DataConnection) -> None:
        if connection.closed or self._closed:
            self._discard(connection)
        else:
            self._idle.append(connection)
            if self._closed:  # closed between the look and the append
                self._close_idle()
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _discard(self, connection: _DataConnection) -> None:
        """Let a connection go, and drop what it has read: the server no longer tracks it."""
        if self._listener is not None:
            self._listener.unwatch(connection)
        connection.close()
        with self._changed:
            self._all.discard(connection)
        if connection.epoch and self.cache is not None:
            if self._inline:
                self.cache.close("connection lost")
            else:
                self.cache.flush("data connection lost")

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionClosed("this client is closed")

    # Ends.

    def close(self) -> None:
        """Close every connection and stop caching. A call in flight ends first."""
        if self._closed:
            return
        self._closed = True
        _clients.discard(self)
        if self._listener is not None:
            self._listener.stop()
        self._close_idle()
        with self._changed:
            self._changed.notify_all()
        if self.cache is not None:
            self.cache.close("client closed")

    def _close_idle(self) -> None:
        while True:
            try:
                self._discard(self._idle.pop())
            except IndexError:
                return

    def _after_fork(self) -> None:
        """Leave the parent's sockets alone, and start over with nothing cached."""
        for connection in tuple(self._all):
            connection.close()  # closes the child's descriptor; the parent's goes on
        refused = self._refused
        self._prepare_pool()
        self._refused = refused
        if self.cache is not None:
            self.cache.after_fork()
        if self._listener is not None:
            self._listener.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._options.address} db {self._options.db}>"


_INSTEAD = {
    Role.SUBSCRIBE: "subscribe on a Connection of its own",
    Role.STATE: "use connect's options, transaction() or a Connection",
}

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in tuple(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _words(command: Sequence[Word]) -> Sequence[bytes]:
    """Give a command's arguments as the server will see them."""
    try:
        words = [word.encode() if type(word) is str else word for word in command]
        if all(type(word) is bytes for word in words):
            return words  # type: ignore[return-value]
    except UnicodeEncodeError:
        pass  # the encoder's own error names the argument
    return parse(encode_command(*command))  # type: ignore[no-any-return]


def _is_client(command: Sequence[Word]) -> bool:
    return len(command) > 1 and bytes(_words(command[:1])[0]).upper() == b"CLIENT"


def _raise_error(reply: Any) -> Any:
    if isinstance(reply, ReplyError | UnicodeDecodeError):
        raise reply
    return reply
