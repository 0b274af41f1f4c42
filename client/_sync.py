"""The blocking client: a small pool of connections, thread-safe, and the cache before it.

A cached read is one look into the cache. Everything else borrows a connection, does one round
trip and gives it back; a connection that can't be trusted any more is closed instead, and
another is opened when it is needed.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from ._cache import MISS, Cache, Reservation
from ._commands import cacheable_keys, is_script, why_not_cacheable, written_keys
from ._errors import CommandRefused
from ._memoize import Computation, running
from ._options import Options, check_int, check_seconds
from ._pool import Pool
from ._read import Read, wait_for
from ._resp import ReplyError, encode_command, parse
from ._session import Role, Trace, Word, role, without_secrets
from ._tracker import Tracker
from ._tracking import Tracking

if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Self

P = ParamSpec("P")
T = TypeVar("T")

_POOL_SIZE = 16

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
        inline = cache is not None and tracking.listener == "inline"
        if options.protocol is not None and cache is not None:
            tracking.check_protocol(options.protocol)
        if max_connections is None:
            max_connections = 1 if inline else _POOL_SIZE
        check_int("max_connections", max_connections, 1, 2**31 - 1)
        if inline and max_connections > 1:
            raise ValueError(
                "inline tracking has one connection: an invalidation comes on the one that read "
                'the key, and an idle one is not read; use listener="dedicated" for a pool'
            )
        self._options = options
        self._tracking = tracking
        self.cache = cache
        self._tracker: Tracker | None = None
        if cache is not None:
            cache.claim(self, self._why_not_cached)
            self._tracker = Tracker(options, tracking, cache, trace)
        self._pool = Pool(options, max_connections, self._tracker, cache, trace)
        # What the hit path looks at: reads of `execute` go through the cache unless opted in, and
        # hits are served right there unless something has to be done first.
        self._auto: Cache | None = None if tracking.optin else cache
        self._careful = inline or (cache is not None and cache.audit > 0)
        self._direct = not self._careful
        self._computing = 0
        self._counting = threading.Lock()
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
        check_seconds("ttl", ttl)
        if max_stale != 0:
            check_seconds("max_stale", max_stale)
        words = _words(command)
        if cacheable_keys(words) is None:
            raise CommandRefused(why_not_cacheable(words) or "its reply is never cached")
        return self._run(command, cache, ttl, max_stale)

    def uncached(self, *command: Word) -> Any:
        """Send a command past the cache; in OPTOUT mode its keys are not tracked either."""
        if self.cache is not None and self._tracking.optout:
            self._check_allowed((command,))
            self._spoil("it read past the cache")
            if cacheable_keys(_words(command)) is not None:
                return _raise_error(self._roundtrip([_CACHING_NO, command])[1])
        return self._run(command, None)

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
            named = (_NAMED, *sorted(kwargs.items())) if kwargs else ()
            with self._computing_at((function, *args, *named), ttl) as computation:
                if computation.value is MISS:
                    computation.value = function(*args, **kwargs)
            return computation.value  # type: ignore[no-any-return]

        return memoized

    def computing(self, *place: Hashable, ttl: float | None = None) -> Computation:
        """Cache what a block computes under a name of your choice; see `Computation`.

        Raises:
            ValueError: the client has no cache, or `ttl` makes no sense.
        """
        check_seconds("ttl", ttl)
        return self._computing_at((Computation, *place), ttl)

    def execute_many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Send commands in one round trip and give their replies, errors in place.

        They go past the cache, but what they write is dropped from it. Writing and reading
        interleave, so a pipeline of any size can't block both sides.

        Raises:
            As `execute`, but for the errors among the replies, which are values of the list.
        """
        batch = _batch(commands)
        self._check_allowed(batch)
        return self._mutate(batch, batch) if batch else []

    def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Run commands between MULTI and EXEC and give their replies, errors in place.

        Raises:
            ReplyError: the transaction was refused as a whole; its notes say which command was
                the cause.
            As `execute` otherwise.
        """
        batch = _batch(commands)
        self._check_allowed(batch)
        if not batch:
            return []
        replies = self._mutate([(b"MULTI",), *batch, (b"EXEC",)], batch)
        if isinstance(replies[0], ReplyError):
            replies[0].add_note("MULTI was refused, so the commands ran one by one")
            raise replies[0]
        outcome = replies[-1]
        if isinstance(outcome, UnicodeDecodeError):
            raise outcome
        if isinstance(outcome, ReplyError):
            for number, reply in enumerate(replies[1:-1], 1):
                if isinstance(reply, ReplyError):
                    outcome.add_note(f"command {number} of {len(batch)}: {reply}")
            raise outcome
        return without_secrets(batch, list(outcome))

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
        if self.cache is None:
            return _raise_error(self._roundtrip([command])[0])
        words = _words(command)
        if cache is not None:
            keys = cacheable_keys(words)
            if keys:
                assert self._tracker is not None
                read = Read(self._pool, self._tracker, self._tracking, cache, ttl, max_stale)
                if len(words) > 1 and words[0].upper() == b"MGET":
                    return _raise_error(read.each(command[1:], keys))
                return _raise_error(read.one(command, keys))
        return _raise_error(self._mutate([command], [words])[0])

    def _spoil(self, reason: str) -> None:
        if self._computing and self.cache is not None:
            for computation in running(self.cache):
                computation.spoil(reason)

    def _need_cache(self) -> Cache:
        if self.cache is None:
            raise ValueError("this client has no cache: connect(…, cache=True)")
        return self.cache

    def _computing_at(self, place: Hashable, ttl: float | None) -> Computation:
        return _Counted(self, self._need_cache(), place, ttl, self._refresh, self._wait_for)

    def _refresh(self) -> None:
        """Have what was pushed inline reach the cache: before that a hit proves nothing."""
        if self._tracker is not None and self._tracker.inline:
            self._pool.give_back(self._pool.take())

    def _wait_for(self, flight: Reservation) -> None:
        """Wait until another thread's fetch has ended, or until a call's time is up."""
        wait_for(self._need_cache(), flight, self._pool.deadline())

    def _count_computing(self, change: int) -> None:
        # While anything is computed, every hit is recorded, and so none is served directly.
        with self._counting:
            self._computing += change
            self._direct = not (self._careful or self._computing)

    def _why_not_cached(self, command: tuple[Any, ...]) -> str | None:
        words = _words(command)
        keys = cacheable_keys(words)
        if keys is None:
            return why_not_cacheable(words)
        if not self._tracking.covers(keys):
            return "a key is not under the prefixes that are tracked"
        return None

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
        self._spoil("it sent commands that are not cached")
        keys = self._touched(counted)
        if keys == ():
            replies = self._roundtrip(batch)
            self._hear_scripts(counted)
            return replies
        cache.invalidate(keys, "own write")
        try:
            replies = self._roundtrip(batch)
        finally:
            cache.invalidate(keys, "own write")
        self._hear_scripts(counted)
        return replies

    def _hear_scripts(self, commands: Iterable[Sequence[Word]]) -> None:
        """Have the keys dropped that scripts wrote and did not declare, before they return."""
        if not any(is_script(_words(command)) for command in commands):
            return
        assert self.cache is not None
        assert self._tracker is not None
        if self._tracker.inline and not self._tracking.noloop:
            return  # the announcements will be read before the next hit
        if self._tracking.noloop or not self._tracker.barrier(None, self._pool.deadline()):
            self.cache.flush("own write")

    def _touched(self, commands: Iterable[Sequence[Word]]) -> tuple[bytes, ...] | None:
        """Give the keys that commands may write; None if it could be any."""
        touched: list[bytes] = []
        for command in commands:
            words = _words(command)
            keys = written_keys(words)
            if keys is None:
                return None
            touched += keys
        return tuple(touched)

    def _roundtrip(self, batch: Sequence[Sequence[Word]]) -> list[Any]:
        deadline = self._pool.deadline()
        connection = self._pool.take(deadline)
        try:
            started = 0.0 if self.cache is None else self.cache.clock()
            replies = connection.roundtrip(*batch, deadline=deadline)
            if connection.epoch and self._tracker is not None:
                self._tracker.prove(started)
            return replies
        finally:
            self._pool.give_back(connection)

    def _reset(self) -> Any:
        """Send RESET, and let its connection go: it is no longer who or where it was."""
        connection = self._pool.take()
        try:
            return _raise_error(connection.roundtrip((b"RESET",))[0])
        finally:
            connection.close()
            self._pool.give_back(connection)

    def _check_allowed(self, batch: Iterable[Sequence[Word]]) -> None:
        for command in batch:
            command_role = role(command)
            if command_role is not Role.PLAIN:
                name = b" ".join(_words(command[:2] if _is_client(command) else command[:1]))
                raise CommandRefused(
                    f"{name.decode('latin-1').upper()} {command_role.value}; this client shares "
                    f"its connections: {_INSTEAD.get(command_role, 'use a Connection')}"
                )

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


class _Counted(Computation):
    """A computation during which its client records every hit."""

    __slots__ = ("_client",)

    def __init__(self, client: Client, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._client = client

    def __enter__(self) -> Self:
        self._client._count_computing(1)
        try:
            return super().__enter__()
        except BaseException:
            self._client._count_computing(-1)
            raise

    def __exit__(self, *exc_info: Any) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            self._client._count_computing(-1)


# inspect.CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR, without importing inspect.
_LAZY = 0x20 | 0x80 | 0x200

_NAMED = object()  # between positional and named arguments

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


def _batch(commands: Iterable[Sequence[Word]]) -> list[tuple[Word, ...]]:
    batch = []
    for number, command in enumerate(commands):
        if isinstance(command, str | bytes | bytearray | memoryview):
            raise TypeError(
                f"command {number} is a single {type(command).__name__}; a command is a sequence "
                'of arguments, such as ("GET", "key")'
            )
        batch.append(tuple(command))
    return batch


def _is_client(command: Sequence[Word]) -> bool:
    return len(command) > 1 and bytes(_words(command[:1])[0]).upper() == b"CLIENT"


def _raise_error(reply: Any) -> Any:
    if isinstance(reply, ReplyError | UnicodeDecodeError):
        raise reply
    return reply
