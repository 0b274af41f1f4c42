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
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from ._cache import MISS, Cache, Reservation
from ._calls import Calls, place_of_call, raise_error, read_options, to_batch
from ._memoize import Computation
from ._options import Options, check_int, check_seconds
from ._pool import DataConnection, Pool
from ._session import Role, Trace, Word, role
from ._steps import ARM, BARRIER, Call
from ._tracker import Tracker
from ._tracking import Tracking

if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Self

P = ParamSpec("P")
T = TypeVar("T")

_POOL_SIZE = 16


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
    options, cache = read_options(
        url,
        cache,
        tracking,
        protocol=protocol,
        encoding=encoding,
        errors=errors,
        username=username,
        password=password,
        db=db,
        client_name=client_name,
        timeout=timeout,
        connect_timeout=connect_timeout,
        max_bulk=max_bulk,
        ssl=ssl,
    )
    return Client(options, cache, tracking, max_connections=max_connections, trace=trace)


class Client(Calls):
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
        inline = cache is not None and tracking.listener == "inline"
        if max_connections is None:
            max_connections = 1 if inline else _POOL_SIZE
        check_int("max_connections", max_connections, 1, 2**31 - 1)
        if inline and max_connections > 1:
            raise ValueError(
                "inline tracking has one connection: an invalidation comes on the one that read "
                'the key, and an idle one is not read; use listener="dedicated" for a pool'
            )
        super().__init__(options, cache, tracking, hear=inline)
        self._tracker: Tracker | None = None
        if cache is not None:
            self._tracker = Tracker(options, tracking, cache, trace)
        self._pool = Pool(options, max_connections, self._tracker, cache, trace)
        self._closed = False
        _clients.add(self)
        try:
            first = self._pool.take()
            self.server = first.server
            self.protocol = first.protocol
            self.id = first.id
            try:
                if self._tracker is not None:
                    self._tracker.begin(first)
            finally:
                self._pool.give_back(first)
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
        if self._direct:
            try:
                value = cache.get(command)
            except TypeError:  # an argument that can't be hashed, such as a bytearray
                value = MISS
            if value is not MISS:
                return value
        return self._run(command, cache)

    def cached(
        self, *command: Word, ttl: float | None = None, max_stale: float | None = None
    ) -> Any:
        """Read through the cache, in OPTIN mode too.

        Args:
            *command: a read-only command whose reply depends on its keys alone.
            ttl: seconds that the reply may be served at most, if it is fetched now.
            max_stale: serve a hit only if all that was announced up to so many seconds ago has
                been heard; else ask the notification connection by one PING, shared with all who
                ask, and refetch only what has changed. 0 is as fresh as a round trip.

        Raises:
            CommandRefused: a command whose reply is never cached; the message says why.
            ValueError: the client has no cache, or `ttl` or `max_stale` makes no sense.
            All that `execute` raises.
        """
        cache = self.cache
        if cache is None:
            raise ValueError("this client has no cache: connect(…, cache=True)")
        if ttl is None and max_stale is None and self._direct:
            try:
                value = cache.get(command)
            except TypeError:
                value = MISS
            if value is not MISS:
                return value
        self._check_cacheable(command, ttl, max_stale)
        return self._run(command, cache, ttl, max_stale)

    def uncached(self, *command: Word) -> Any:
        """Send a command past the cache; in OPTOUT mode its keys are not tracked either."""
        if role(command) is not Role.PLAIN:
            return self._run(command, None)
        return raise_error(self._carry(self._call_uncached(command)))

    @overload
    def memoize(self, function: Callable[P, T]) -> Callable[P, T]: ...
    @overload
    def memoize(
        self, *, ttl: float | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def memoize(self, function: Any = None, *, ttl: float | None = None) -> Any:
        """Cache what a function returns, until one of the keys that it read changes.

            @db.memoize
            def profile(user: int) -> Profile: ...

        Its reads through this client are recorded while it runs, nested calls of other memoized
        functions included; any number, any cacheable command. If it also did what no invalidation
        tells of (a write, `TTL`, a script, a read of an uncovered key), the result is returned and
        not kept. Reads that it makes in *other threads* are not recorded. One thread computes, the
        others wait for it. Arguments must be hashable and are told apart as by
        `functools.lru_cache(typed=True)`; lists, dicts and sets that it returns are copied for
        each caller, other objects are shared.

        Args:
            function: the function; None to give `ttl`: `@db.memoize(ttl=60)`.
            ttl: seconds that a result lives at most.

        Raises:
            ValueError: the client has no cache, or `ttl` makes no sense.
        """
        check_seconds("ttl", ttl)
        self._need_cache()
        if function is None:
            return lambda function: self._memoized(function, ttl)
        return self._memoized(function, ttl)

    def _memoized(self, function: Callable[P, T], ttl: float | None) -> Callable[P, T]:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _LAZY:
            raise TypeError(
                "a coroutine or generator function returns before it has read anything; memoize "
                "what is awaited or collected"
            )

        @wraps(function)
        def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
            with _Computing(self, place_of_call(function, args, kwargs), ttl) as computation:
                if computation.value is MISS:
                    computation.value = function(*args, **kwargs)
            return computation.value  # type: ignore[no-any-return]

        return memoized

    def computing(self, *place: Hashable, ttl: float | None = None) -> _Computing:
        """Cache what a block computes under a name of your choice; see `Computation`.

        Raises:
            ValueError: the client has no cache, or `ttl` makes no sense.
        """
        check_seconds("ttl", ttl)
        return _Computing(self, (Computation, *place), ttl)

    def execute_many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Send commands in one round trip and give their replies, errors in place.

        They go past the cache, but what they write is dropped from it. Writing and reading
        interleave, so a pipeline of any size can't block both sides.

        Raises:
            As `execute`, but for the errors among the replies, which are values of the list.
        """
        batch = to_batch(commands)
        self._check_allowed(batch)
        return self._carry(self._call_many(batch))

    def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Run commands between MULTI and EXEC and give their replies, errors in place.

        Raises:
            ReplyError: the transaction was refused as a whole; its notes say which command was
                the cause.
            As `execute` otherwise.
        """
        batch = to_batch(commands)
        self._check_allowed(batch)
        return self._carry(self._call_transaction(batch))

    # Below: one command on its way.

    def _run(
        self,
        command: Sequence[Word],
        cache: Cache | None,
        ttl: float | None = None,
        max_stale: float | None = None,
    ) -> Any:
        """Send one command, unless it is a read that may be cached and `cache` has it."""
        if not command:
            raise ValueError("a command needs at least its name")
        command_role = role(command)
        if command_role is not Role.PLAIN:
            if command_role is Role.RESET:
                return self._reset()
            self._check_allowed((command,))
        return raise_error(self._carry(self._call(command, cache, ttl, max_stale)))

    def _carry(self, call: Call[T]) -> T:
        """Do what a call asks for, step by step, within one deadline; give its result."""
        tracker, deadline = self._tracker, self._pool.deadline()
        connection: DataConnection | None = None
        outcome: Any = None
        try:
            while True:
                step = call.send(outcome)
                if type(step) is list:
                    if connection is None:
                        connection = self._pool.take(deadline)
                    started = 0.0 if self.cache is None else self.cache.clock()
                    outcome = connection.roundtrip(*step, deadline=deadline)
                    if tracker is not None and connection.epoch:
                        tracker.prove(started)
                    continue
                assert tracker is not None
                if step is BARRIER:
                    outcome = tracker.barrier(connection, deadline)
                elif isinstance(step, Reservation):
                    if connection is not None:
                        # Whoever fetches may need it: inline, there is no other.
                        self._pool.give_back(connection)
                        connection = None
                    outcome = wait_for(self._need_cache(), step, deadline)
                else:
                    if connection is None:
                        connection = self._pool.take(deadline)  # which hears
                    if step is ARM:
                        outcome = tracker.arm(connection, deadline), connection.source
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            call.close()
            if connection is not None:
                self._pool.give_back(connection)

    def _reset(self) -> Any:
        """Send RESET, and let its connection go: it is no longer who or where it was."""
        connection = self._pool.take()
        try:
            return raise_error(connection.roundtrip((b"RESET",))[0])
        finally:
            connection.close()
            self._pool.give_back(connection)

    # Ends.

    def close(self) -> None:
        """Close every connection and stop caching. A call in flight ends first."""
        if self._closed:
            return
        self._closed = True
        _clients.discard(self)
        if self._tracker is not None:
            self._tracker.stop("client closed", "client closed")
        self._pool.close()
        if self.cache is not None:
            self.cache.release(self)

    def _after_fork(self) -> None:
        """Leave the parent's sockets alone, and start over with nothing cached."""
        self._counting = threading.Lock()
        self._pool.after_fork()
        if self.cache is not None:
            self.cache.after_fork()
        if self._tracker is not None:
            self._tracker.after_fork()

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


class _Computing(Computation):
    """A computation of the blocking client."""

    __slots__ = ("_client",)

    def __init__(self, client: Client, place: Hashable, ttl: float | None) -> None:
        super().__init__(client._need_cache(), place, ttl)
        self._client = client

    def __enter__(self) -> Self:
        self._client._carry(self._client._begin(self))
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._client._end(self, failed=kind is not None)


def wait_for(cache: Cache, flight: Reservation, deadline: float | None) -> bool:
    """Wait until another thread's fetch has ended; False if the deadline came first."""
    turn = threading.Lock()
    turn.acquire()
    if not cache.when_ended(flight, turn.release):
        return True
    left = -1 if deadline is None else max(0.0, deadline - time.monotonic())
    return turn.acquire(timeout=left)


# inspect.CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR, without importing inspect.
_LAZY = 0x20 | 0x80 | 0x200

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in tuple(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
