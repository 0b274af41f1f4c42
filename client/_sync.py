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
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import wraps

from ._cache import MISS, Cache, Reservation
from ._calls import (
    Calls,
    is_plain,
    may_repeat,
    place_of_call,
    raise_error,
    read_options,
    to_batch,
    to_words,
)
from ._errors import CommandTimeout, ConnectionClosed, UnexpectedReply
from ._log import INFO, log
from ._memoize import Computation
from ._options import Credentials, Options, check_int, check_seconds
from ._pool import DataConnection, Pool
from ._resp import ReplyError
from ._session import Role, Trace, Word, role
from ._steps import ARM, BARRIER, NOT_BEGUN, Again, Call
from ._tracker import Tracker
from ._tracking import Pause, Tracking
from ._watch import Attempt, check_watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Any, Literal, ParamSpec, Self, TypeVar, overload

    from ._follower import Follower
    from ._metrics import Metrics
    from ._pubsub import Overflow
    from ._scan import Scan, ScanCommand
    from ._script import Script
    from ._sync_subscriber import Subscriber

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
    ssl_ca_certs: str | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    ssl_server_hostname: str | None = None,
    credentials: Credentials | None = None,
    retries: int | None = None,
    max_idle: float | None = None,
    max_age: float | None = None,
    metrics: Metrics | None = None,
    replica: bool | None = None,
    sentinel_username: str | None = None,
    sentinel_password: str | None = None,
    trace: Trace | None = None,
) -> Client:
    """Connect to a server and give a thread-safe client.

    Args:
        url: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` for TLS,
            `unix://[user[:password]@]/path?db=0`, or, for the primary that sentinels know by a
            name, `sentinel://[user[:password]@]host[:port][,host[:port]…]/name[/db]`,
            `sentinels://…` for TLS. A keyword wins over the URL's part.
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
        ssl_ca_certs, ssl_certfile, ssl_keyfile: files: the authorities to trust instead of the
            system's; our own certificate; its key, if that is not in the same file.
        ssl_server_hostname: the name to verify and to ask for (SNI) instead of the URL's host.
        credentials: a function that is called for each connection that is made and returns
            `(username or None, password)`, so that both can change while the client lives.
        retries: how often a call is tried again, 3 if not said; 0 for never. Again are tried, with
            pauses that grow and within the call's time-out: what never left; what only reads, if
            its connection was lost; and what the server says it has not begun (LOADING, TRYAGAIN,
            READONLY, MASTERDOWN). Never a write that may have run, nor a part of a pipeline.
        max_idle: seconds after which an unused connection is not used again.
        max_age: seconds after which a connection is replaced once it is idle.
        metrics: a `Metrics` that is told of every round trip.
        replica: with sentinels, True for a client of one of the replicas, to read from.
        sentinel_username, sentinel_password: credentials for the sentinels themselves; the URL's
            are for the server.
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
        ssl_ca_certs=ssl_ca_certs,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_server_hostname=ssl_server_hostname,
        credentials=credentials,
        retries=retries,
        max_idle=max_idle,
        max_age=max_age,
        metrics=metrics,
        replica=replica,
        sentinel_username=sentinel_username,
        sentinel_password=sentinel_password,
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
        self._follower: Follower | None = None
        if options.sentinels:
            from ._follower import Follower

            self._follower = Follower(options, trace)
            options = options.replace(finder=self._follower)
        super().__init__(options, cache, tracking, hear=inline)
        self._tracker: Tracker | None = None
        if cache is not None:
            self._tracker = Tracker(options, tracking, cache, trace)
        self._trace = trace
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
            if self.cache is None and is_plain(command):
                return self._request(command)
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
        if not is_plain(command):
            return self._run(command, None)
        return raise_error(self._carry(self._call_uncached(command)))

    if TYPE_CHECKING:

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
        return self._carry(self._call_transaction(batch)) or []

    def watch(self, *keys: Word, attempts: int = 3) -> Watching:
        """Change all or nothing, depending on what was there: optimistic locking with WATCH.

            for attempt in db.watch("stock", attempts=5):
                with attempt as look:
                    left = int(look.execute("GET", "stock"))
                    look.queue("DECR", "stock")

        The block reads through `look`, on a connection that it has for itself, and queues what is
        to be done if no key of `keys` has changed by then. If one has, the next attempt begins.

        Args:
            *keys: to be watched.
            attempts: how many there are.

        Raises:
            WatchError: by the last attempt: a key changed at each of them.
            ValueError: no key, or no attempt.
        """
        check_watch(keys, attempts)
        return Watching(self, keys, attempts)

    def scan(
        self,
        command: ScanCommand = "SCAN",
        key: Word | None = None,
        *,
        match: str | bytes | None = None,
        count: int | None = None,
        kind: str | None = None,
        values: bool = True,
    ) -> Iterator[Any]:
        """Iterate over keys, or over the members of a key, a few at a time.

            for key in db.scan(match="user:*"): …
            for field, value in db.scan("HSCAN", "user:1"): …

        What is there all the time comes at least once; anything may come twice.

        Args:
            command: SCAN, HSCAN, SSCAN or ZSCAN; the last gives members with `float` scores.
            key: of HSCAN, SSCAN and ZSCAN.
            match, count, kind, values: see `Scan`.

        Raises:
            ValueError, TypeError: the arguments do not go together; nothing was sent.
        """
        from ._scan import Scan

        return self._scanned(Scan(command, key, match, count, kind, values))

    def _scanned(self, scan: Scan) -> Iterator[Any]:
        while (command := scan.next_command()) is not None:
            yield from scan.take(self._run(command, None))

    def script(self, source: str | bytes, *, read_only: bool = False) -> Script:
        """Make a Lua script callable; see `Script`.

        Args:
            source: the script.
            read_only: run it with EVALSHA_RO (Redis 7.0, Valkey), as one that writes nothing.
        """

        def carry(call: Call[Any]) -> Any:
            return raise_error(self._carry(call))

        from ._script import Script

        return Script(source, read_only, self._call_script, carry)

    def pubsub(
        self,
        *names: str | bytes,
        channels: Iterable[str | bytes] = (),
        patterns: Iterable[str | bytes] = (),
        shards: Iterable[str | bytes] = (),
        max_pending: int = 10_000,
        overflow: Overflow = "pause",
    ) -> Subscriber:
        """Subscribe on a connection of its own; iterate over what is published.

            with db.pubsub("news.*", "alerts") as messages:
                for message in messages:
                    print(message.channel, message.data)

        Args:
            *names: patterns where they hold one of `*?[`, channels else.
            channels, patterns, shards: to say it exactly: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
            max_pending: messages kept for a slow reader.
            overflow: what happens beyond, while the reader is in `get`: "pause" reads no further,
                so the server keeps the rest; "drop" drops the oldest, counted in
                `messages.dropped`.

        Raises:
            ValueError, TypeError: nothing to subscribe to, or an option makes no sense.
        """
        options = self._options
        from ._pubsub import Inbox
        from ._sync_subscriber import Subscriber

        inbox = Inbox(
            names, channels, patterns, shards, max_pending, overflow, options.encoding,
            options.errors,
        )  # fmt: skip
        self._check_open()
        return Subscriber(inbox, options, self._trace)

    # Below: one command on its way.

    def _request(self, command: Sequence[Word]) -> Any:
        """Do one command the shortest way; where that fails and may be repeated, the long way."""
        pool = self._pool
        deadline = pool.deadline()
        connection = None
        try:
            connection = pool.take(deadline)
            reply = connection.request(command, deadline)
        except ConnectionClosed as error:
            sent = connection is not None and connection.sent
            if not (self._options.retries and self._is_repeatable(error, sent, [command])):
                raise
            reply = MISS
        finally:
            if connection is not None:
                pool.give_back(connection)
        if reply is not MISS:
            if not isinstance(reply, Exception):
                return reply
            begun = not isinstance(reply, ReplyError) or reply.code not in NOT_BEGUN
            if begun or not self._options.retries:
                raise_error(reply)
        _sleep(Pause().next(), deadline)
        call = self._call(command, None, tried=1)
        return raise_error(self._carry(call, tried=1, deadline=deadline))

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
        wait = 0.0
        if not is_plain(command):
            if role(command) is Role.RESET:
                return self._reset()
            self._check_allowed((command,))
            wait = self._wait_of(to_words(command))
        return raise_error(self._carry(self._call(command, cache, ttl, max_stale), wait))

    def _carry(
        self,
        call: Call[T],
        wait: float = 0.0,
        connection: DataConnection | None = None,
        tried: int = 0,
        deadline: float | None = None,
    ) -> T:
        """Do what a call asks for, step by step, within one deadline; give its result.

        Args:
            call: from `Calls`.
            wait: seconds that the server may take longer than the client's time-out.
            connection: the one to use, which stays the caller's, instead of one from the pool.
            tried: how many of the retries were made before.
            deadline: where the call has begun before; else it begins now.
        """
        if deadline is None:
            deadline = self._pool.deadline()
        lent = connection is not None
        outcome: Any = None
        failures: Pause | None = None
        try:
            step = call.send(None)
            while True:
                try:
                    if isinstance(step, Again):
                        if step.renew and connection is not None and not lent:
                            connection.close()
                            self._pool.give_back(connection)
                            connection = None
                        outcome = _sleep(step.delay, deadline)
                    elif isinstance(step, Reservation):
                        if connection is not None and not lent:
                            # Whoever fetches may need it: inline, there is no other.
                            self._pool.give_back(connection)
                            connection = None
                        outcome = wait_for(self._need_cache(), step, deadline)
                    elif step is BARRIER:
                        outcome = self._need_tracker().barrier(connection, deadline)
                    else:
                        if connection is None:
                            connection = self._pool.take(deadline)  # which hears
                        if type(step) is list:
                            outcome = self._exchange(connection, step, deadline, wait)
                        elif step is ARM:
                            epoch = self._need_tracker().arm(connection, deadline)
                            outcome = epoch, connection.source
                except ConnectionClosed as error:
                    log(INFO, "connection", "lost: %s", error)
                    batch = step if type(step) is list else ()
                    sent = connection is not None and connection.sent
                    if connection is not None and not lent:
                        self._pool.give_back(connection)
                        connection = None
                    failures = failures or Pause(self._options.retries - tried)
                    if (
                        lent
                        or not self._is_repeatable(error, sent, batch)
                        or not failures.left()
                        or not _sleep(failures.next(), deadline)
                    ):
                        raise
                else:
                    step = call.send(outcome)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            call.close()
            if connection is not None and not lent:
                self._pool.give_back(connection)

    def _exchange(
        self,
        connection: DataConnection,
        batch: list[Sequence[Word]],
        deadline: float | None,
        wait: float,
    ) -> list[Any]:
        """Do a round trip; with inline tracking it proves what has been heard."""
        started = None if self.cache is None else self.cache.clock()
        if wait:
            connection.waits = True  # before the look: `close` cuts it off
            try:
                self._check_open()
                replies = connection.roundtrip(*batch, deadline=deadline, wait=wait)
            finally:
                connection.waits = False
        else:
            replies = connection.roundtrip(*batch, deadline=deadline)
        if started is not None and connection.epoch:
            self._need_tracker().prove(started)
        return replies

    def _need_tracker(self) -> Tracker:
        assert self._tracker is not None  # only calls of a cache ask for it
        return self._tracker

    def _is_repeatable(
        self, error: ConnectionClosed, sent: bool, batch: Sequence[Sequence[Word]]
    ) -> bool:
        """Tell whether commands may be sent again: they never left, or they only read."""
        if isinstance(error, CommandTimeout | UnexpectedReply) or self._closed:
            return False
        return not sent or all(may_repeat(command) for command in batch)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionClosed("this client is closed")

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
        if self._follower is not None:
            self._follower.stop()
        if self._tracker is not None:
            self._tracker.stop("client closed", "client closed")
        self._pool.close()
        if self.cache is not None:
            self.cache.release(self)

    def _after_fork(self) -> None:
        """Leave the parent's sockets alone, and start over with nothing cached."""
        self._counting = threading.Lock()
        if self._follower is not None:
            self._follower.after_fork()
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


class Watching:
    """The attempts of `Client.watch`: iterate over them, or enter it for a single one."""

    def __init__(self, client: Client, keys: tuple[Word, ...], attempts: int) -> None:
        self._client = client
        self._keys = keys
        self._attempts = attempts

    def __iter__(self) -> Iterator[WatchAttempt]:
        for number in range(1, self._attempts + 1):
            attempt = WatchAttempt(self._client, self._keys, number == self._attempts)
            yield attempt
            if not attempt.lost:
                return

    def __enter__(self) -> WatchAttempt:
        self._only = WatchAttempt(self._client, self._keys, last=True)
        return self._only.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        self._only.__exit__(*exc_info)


class WatchAttempt(Attempt):
    """One attempt: a context manager with a connection of its own. See `Client.watch`."""

    def __init__(self, client: Client, keys: tuple[Word, ...], last: bool) -> None:
        super().__init__(keys, last)
        self._client = client
        self._connection: DataConnection | None = None

    def __enter__(self) -> Self:
        pool = self._client._pool
        self._connection = pool.take(pool.deadline())
        try:
            raise_error(self._connection.roundtrip((b"WATCH", *self._keys))[0])
        except BaseException:
            self._let_go(broken=True)
            raise
        return self

    def execute(self, *command: Word) -> Any:
        """Send a command now, on the watching connection; not through the cache.

        Raises:
            As `Client.execute`.
        """
        client, connection = self._client, self._connection
        if connection is None:
            raise RuntimeError("enter the attempt first: with attempt as look")
        client._check_allowed((command,))
        return raise_error(client._carry(client._call(command, None), connection=connection))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        connection = self._connection
        assert connection is not None
        broken = True
        try:
            if kind is not None or not self._queued:
                if not connection.closed:
                    connection.roundtrip((b"UNWATCH",))
                    broken = False
                if kind is None:
                    self.replies = []
                return
            self._client._check_allowed(self._queued)
            call = self._client._call_transaction(self._queued)
            replies = self._client._carry(call, connection=connection)
            broken = False
            self._settle(replies)
        except ConnectionClosed:
            if kind is None:
                raise  # else the block's own error is what matters
        finally:
            self._let_go(broken)

    def _let_go(self, broken: bool) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if broken:
            connection.close()
        self._client._pool.give_back(connection)


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


def _sleep(delay: float, deadline: float | None) -> bool:
    """Sleep, unless the deadline comes before the end of it."""
    if deadline is not None and time.monotonic() + delay >= deadline:
        return False
    time.sleep(delay)
    return True


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
