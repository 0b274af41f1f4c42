"""The asyncio client: one connection that any number of tasks share, and the cache before it.

A cached read is one look into the cache and does not suspend. Everything else is written into the
shared connection, together with what other tasks write in the same turn of the loop, and its reply
comes back in its turn. What would hold up the others gets a connection of its own.

A connection that is lost is replaced. The cache is empty before the first command goes out on the
new one, and what is announced there is turned on before anything is sent again; sent again is only
what never left or what only reads.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import warnings
import weakref
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Sequence,
)
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar, overload

from ._async_subscriber import AsyncSubscriber
from ._cache import ALWAYS, MISS, Cache, Reservation, Source
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
from ._commands import may_block
from ._errors import (
    ClientError,
    CommandRefused,
    CommandTimeout,
    ConnectionClosed,
    HandshakeError,
    PoolTimeout,
    TrackingRefused,
)
from ._handshake import identify, listen, track
from ._link import STEADY, Flight, Link, Queue, look, lost, open_link, take_over
from ._log import INFO, WARNING, log
from ._memoize import Computation
from ._options import AsyncCredentials, Credentials, Options, check_int, check_seconds
from ._pubsub import Inbox, Overflow
from ._resp import ProtocolError, ReplyError, RespError
from ._scan import Scan, ScanCommand
from ._script import Script
from ._session import Role, Trace, Word, role, without_secrets
from ._steps import ARM, BARRIER, NOT_BEGUN, Again, Call
from ._tracking import FRESHNESS, PING_INTERVAL, PING_TIMEOUT, Pause, Tracking
from ._watch import Attempt, check_watch

if TYPE_CHECKING:
    from ssl import SSLContext
    from types import TracebackType
    from typing import Self

    from ._async_follower import AsyncFollower
    from ._metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")

_NEVER = float("inf")
# Connections for commands that wait for somebody else's write, at most.
_ASIDE = 16
# Seconds that the shared connection lives before a READONLY may end it, without sentinels.
_RENEW_AFTER = 10.0
# Seconds for which closing waits for replies where no time-out says how long.
_PATIENCE = 5.0
# Seconds that the listening connection has to answer when the server knows nothing of it.
_LAST_WORD = 1.0


def connect_async(
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
    credentials: Credentials | AsyncCredentials | None = None,
    retries: int | None = None,
    max_idle: float | None = None,
    max_age: float | None = None,
    metrics: Metrics | None = None,
    replica: bool | None = None,
    sentinel_username: str | None = None,
    sentinel_password: str | None = None,
    trace: Trace | None = None,
) -> Connecting:
    """Connect to a server and give a client for the tasks of this event loop.

        db = await connect_async(url)           # and `await db.aclose()` in the end
        async with connect_async(url) as db: …  # closes it

    Args:
        tracking: its `listener` is "inline" if not said, where the server speaks RESP3.
        max_connections: connections beside the shared one, for commands that wait (BLPOP,
            XREAD BLOCK); 16 if not said.
        credentials: as of `connect`, or a coroutine function.
        url, and all others: as of `connect`.

    Raises:
        ValueError, TypeError: an option makes no sense; nothing was sent.
        And, when it is awaited, ConnectError and HandshakeError as `connect`.
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
    return Connecting(AsyncClient(options, cache, tracking, max_aside=max_connections, trace=trace))


class Connecting:
    """What `connect_async` gives: await it, or enter it with `async with`."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, AsyncClient]:
        return self._client._start().__await__()

    async def __aenter__(self) -> AsyncClient:
        return await self._client._start()

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()


class _Channel(NamedTuple):
    """The listening connection of dedicated tracking."""

    link: Link
    redirect: int
    server: bytes | None


class AsyncClient(Calls):
    """A client of one server and one database, for the tasks of one loop. See `connect_async`.

    Attributes:
        cache: the cache, or None.
        server: HELLO's map of the shared connection.
        protocol: 2 or 3, what it negotiated.
        id: its CLIENT ID, or None where the server would not tell.
    """

    def __init__(
        self,
        options: Options,
        cache: Cache | None = None,
        tracking: Tracking | None = None,
        *,
        max_aside: int | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._closed = True  # until something needs closing
        if max_aside is None:
            max_aside = _ASIDE
        check_int("max_connections", max_aside, 1, 2**31 - 1)
        self._follower: AsyncFollower | None = None
        if options.sentinels:
            from ._async_follower import AsyncFollower

            self._follower = AsyncFollower(options, trace, self)
            options = options.replace(finder=self._follower)
        super().__init__(options, cache, tracking or Tracking(), hear=False)
        self._sound = self._tracking.sound()
        self._trace = trace
        self._patience = options.timeout or _PATIENCE
        self._timeout = _NEVER if options.timeout is None else options.timeout
        self._link: Link | None = None
        self._channel: _Channel | None = None
        self._refused = False  # to track
        self._started = False
        self._starting = False
        self._connecting: asyncio.Task[None] | None = None
        self._pause = Pause()
        self._up_since = 0.0
        self._ended: asyncio.Future[None] | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._aside: set[Link] = set()
        self._aside_idle: list[Link] = []
        self._aside_opening = 0
        self._max_aside = max_aside
        self._aside_turns: deque[asyncio.Future[None]] = deque()
        self._subscribers: weakref.WeakSet[AsyncSubscriber] = weakref.WeakSet()
        self._forked = False

    async def _start(self) -> Self:
        if self._started:
            raise RuntimeError("a client is connected once; it reconnects by itself")
        self._started = True
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Calls without a connection wait here for the next one.
        self._waiting = Queue(self._loop, self._options.timeout, "connection to send it on")
        self._closed = False
        self._starting = True
        _clients.add(self)
        try:
            await self._bring_up()
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._starting = False
        if not self._complete():
            self._reconnect_soon()
        if self.cache is not None:
            self._prove(weakref.ref(self))
        return self

    # The commands.

    async def execute(self, *command: Word) -> Any:
        """Send a command and give its reply; serve a read from the cache where there is one.

        A command that waits for somebody else's write (BLPOP, XREAD BLOCK) gets a connection of
        its own, and its own time-out on top of the client's. Cancelled, it waits no more when the
        next command of this client runs; an element that was on its way by then is lost.

        Raises:
            ReplyError: the server answered with an error.
            CommandRefused: the command would change the state of the shared connection.
            CommandTimeout: the deadline passed; the command may have run.
            ConnectionClosed: the connection was lost; the message says whether the command may
                have run.
            PoolTimeout: all connections for commands that wait stayed busy; nothing was sent.
            TypeError, ValueError: an argument that a command can't carry.
        """
        cache = self._auto
        if cache is not None:
            if self._direct:
                try:
                    value = cache.get(command)
                except TypeError:  # an argument that can't be hashed, such as a bytearray
                    value = MISS
                if value is not MISS:
                    return value
        elif self.cache is None and (link := self._link) is not None and is_plain(command):
            # The shortest way for what nothing has to be decided about.
            loop = self._loop
            if not link.full and asyncio.get_running_loop() is loop:
                reply = await link.send(command, loop.time() + self._timeout)
                if not isinstance(reply, Exception):
                    return reply
                begun = not isinstance(reply, ReplyError) or reply.code not in NOT_BEGUN
                if begun or not self._options.retries:
                    raise_error(without_secrets((command,), [reply])[0])
                return raise_error(await self._carry(self._call(command, None, tried=1)))
        return await self._run(command, cache)

    async def cached(
        self, *command: Word, ttl: float | None = None, max_stale: float | None = None
    ) -> Any:
        """Read through the cache, in OPTIN mode too; see `Client.cached`."""
        cache = self.cache
        if cache is None:
            raise ValueError("this client has no cache: connect_async(…, cache=True)")
        if ttl is None and max_stale is None and self._direct:
            try:
                value = cache.get(command)
            except TypeError:
                value = MISS
            if value is not MISS:
                return value
        self._check_cacheable(command, ttl, max_stale)
        return await self._run(command, cache, ttl, max_stale)

    async def uncached(self, *command: Word) -> Any:
        """Send a command past the cache; in OPTOUT mode its keys are not tracked either."""
        if role(command) is not Role.PLAIN or may_block(to_words(command)):
            return await self._run(command, None)
        return raise_error(await self._carry(self._call_uncached(command)))

    async def execute_many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Send commands in one round trip and give their replies, errors in place.

        They go past the cache, but what they write is dropped from it.

        Raises:
            As `execute`, but for the errors among the replies, which are values of the list.
        """
        batch = to_batch(commands)
        self._check_shared(batch)
        return await self._carry(self._call_many(batch))

    async def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """Run commands between MULTI and EXEC and give their replies, errors in place.

        Raises:
            ReplyError: the transaction was refused as a whole; its notes say which command was
                the cause.
            As `execute` otherwise.
        """
        batch = to_batch(commands)
        self._check_allowed(batch)  # in a transaction nothing blocks
        return await self._carry(self._call_transaction(batch)) or []

    @overload
    def memoize(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]: ...
    @overload
    def memoize(
        self, *, ttl: float | None = None
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]: ...
    def memoize(self, function: Any = None, *, ttl: float | None = None) -> Any:
        """Cache what a coroutine function returns, until one of the keys that it read changes.

        As `Client.memoize`; the reads of tasks that it starts are recorded as well.

        Raises:
            ValueError: the client has no cache, or `ttl` makes no sense.
            TypeError: it is no coroutine function.
        """
        check_seconds("ttl", ttl)
        self._need_cache()
        if function is None:
            return lambda function: self._memoized(function, ttl)
        return self._memoized(function, ttl)

    def _memoized(
        self, function: Callable[P, Awaitable[T]], ttl: float | None
    ) -> Callable[P, Awaitable[T]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError("memoize of an asyncio client takes a coroutine function")
        cache = self._need_cache()

        @wraps(function)
        async def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
            place = place_of_call(function, args, kwargs)
            if self._direct and (value := cache.get(place)) is not MISS:
                return value  # type: ignore[no-any-return]
            async with _Computing(self, place, ttl) as computation:
                if computation.value is MISS:
                    computation.value = await function(*args, **kwargs)
            return computation.value  # type: ignore[no-any-return]

        return memoized

    def computing(self, *place: Hashable, ttl: float | None = None) -> _Computing:
        """Cache what an `async with` block computes under a name of your choice.

        Raises:
            ValueError: the client has no cache, or `ttl` makes no sense.
        """
        check_seconds("ttl", ttl)
        return _Computing(self, (Computation, *place), ttl)

    def pubsub(
        self,
        *names: str | bytes,
        channels: Iterable[str | bytes] = (),
        patterns: Iterable[str | bytes] = (),
        shards: Iterable[str | bytes] = (),
        max_pending: int = 10_000,
        overflow: Overflow = "pause",
    ) -> AsyncSubscriber:
        """Subscribe on a connection of its own; iterate over what is published.

            async with db.pubsub("news.*", "alerts") as messages:
                async for message in messages:
                    print(message.channel, message.data)

        It is subscribed again after a reconnect; `messages.interruptions` counts how often
        messages may have been missed.

        Args:
            *names: patterns where they hold one of `*?[`, channels else.
            channels, patterns, shards: to say it exactly: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
            max_pending: messages kept for a slow reader.
            overflow: what happens beyond: "pause" reads no further until the reader has caught
                up, so the server keeps them and cuts the connection where its
                client-output-buffer-limit ends; "drop" drops the oldest, counted in
                `messages.dropped`.

        Raises:
            ValueError, TypeError: nothing to subscribe to, or an option makes no sense.
        """
        inbox = Inbox(
            names,
            channels,
            patterns,
            shards,
            max_pending,
            overflow,
            self._options.encoding,
            self._options.errors,
        )
        subscriber = AsyncSubscriber(inbox, self._options, self._trace, self._check_open)
        self._subscribers.add(subscriber)
        return subscriber

    def watch(self, *keys: Word, attempts: int = 3) -> AsyncWatching:
        """Change all or nothing, depending on what was there: optimistic locking with WATCH.

            async for attempt in db.watch("stock", attempts=5):
                async with attempt as look:
                    left = int(await look.execute("GET", "stock"))
                    look.queue("DECR", "stock")

        As `Client.watch`.
        """
        check_watch(keys, attempts)
        return AsyncWatching(self, keys, attempts)

    def scan(
        self,
        command: ScanCommand = "SCAN",
        key: Word | None = None,
        *,
        match: str | bytes | None = None,
        count: int | None = None,
        kind: str | None = None,
        values: bool = True,
    ) -> AsyncIterator[Any]:
        """Iterate with `async for` over keys, or over the members of a key; see `Client.scan`."""
        return self._scanned(Scan(command, key, match, count, kind, values))

    async def _scanned(self, scan: Scan) -> AsyncIterator[Any]:
        while (command := scan.next_command()) is not None:
            for found in scan.take(await self._run(command, None)):
                yield found

    def script(self, source: str | bytes, *, read_only: bool = False) -> Script:
        """Make a Lua script callable, to be awaited; see `Client.script`."""

        async def carry(call: Call[Any]) -> Any:
            return raise_error(await self._carry(call))

        return Script(source, read_only, self._call_script, carry)

    # Below: one call on its way.

    async def _run(
        self,
        command: Sequence[Word],
        cache: Cache | None,
        ttl: float | None = None,
        max_stale: float | None = None,
    ) -> Any:
        """Send one command, unless it is a read that may be cached and `cache` has it."""
        if not command:
            raise ValueError("a command needs at least its name")
        if not is_plain(command):
            if role(command) is Role.RESET:
                return await self._run_aside(command, 0.0, last=True)
            self._check_allowed((command,))
            words = to_words(command)
            if may_block(words):
                return await self._run_aside(command, self._wait_of(words))
        return raise_error(await self._carry(self._call(command, cache, ttl, max_stale)))

    def _check_shared(self, batch: Iterable[Sequence[Word]]) -> None:
        """Refuse in a pipeline what would hold up, or change, the shared connection."""
        special = [command for command in batch if not is_plain(command)]
        self._check_allowed(special)
        for command in special:
            if may_block(to_words(command)):
                self._refuse_blocking(to_words(command)[0])

    async def _carry(
        self, call: Call[T], aside: Link | None = None, deadline: float | None = None
    ) -> T:
        """Do what a call asks for, step by step, within one deadline; give its result.

        Args:
            call: from `Calls`.
            aside: the connection to use instead of the shared one.
            deadline: by the loop's clock, where the call has begun before; else it begins now.
        """
        self._check_open()
        if deadline is None:
            deadline = self._loop.time() + self._timeout
        outcome: Any = None
        step: Any = None
        try:
            while True:
                step = call.send(outcome)
                if type(step) is list:
                    outcome = await self._roundtrip(step, deadline, aside)
                elif step is ARM:
                    link = self._link or await self._connected(deadline)
                    outcome = link.epoch, link.source
                elif step is BARRIER:
                    outcome = await self._barrier(deadline)
                elif isinstance(step, Again):
                    outcome = await self._again(step, deadline)
                else:
                    outcome = await self._end_of(step, deadline)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except BaseException:
            if type(step) is list and self._sound.noloop and self.cache is not None:
                self._forget_later()
            raise
        finally:
            call.close()

    async def _again(self, again: Again, deadline: float) -> bool:
        """Wait, on another connection if that is asked for; False if there is no time for it."""
        if self._loop.time() + again.delay >= deadline:
            return False
        link = self._link
        if again.renew and link is not None and self._may_have_moved():
            link.abort(ConnectionClosed("the server does not write any more"))
        await asyncio.sleep(again.delay)
        return True

    def _may_have_moved(self) -> bool:
        """Tell whether another server may be found where this one was a primary.

        Others share the connection: a client of a replica must not lose it with every write.
        """
        age = self._loop.time() - self._up_since
        return bool(self._options.sentinels) or age > _RENEW_AFTER

    async def _roundtrip(
        self, batch: list[Sequence[Word]], deadline: float, aside: Link | None = None
    ) -> list[Any]:
        link = aside or self._link
        while link is not None and link.full and not link.closed:
            await _until(link.room(), deadline, f"room on the way to {self._options.address}")
            if not link.closed:
                break  # let in
            link = aside or self._link
        if link is not None and not link.closed:
            if len(batch) == 1:
                return without_secrets(batch, [await link.send(batch[0], deadline)])
            return await link.roundtrip(batch, deadline)
        if aside is not None:  # on the shared one it would hold up the others
            raise lost(aside.why or ConnectionClosed("the connection was lost"), sent=False)
        self._check_open()
        future = self._loop.create_future()
        self._waiting.add((future, batch, len(batch), deadline, 0))
        return without_secrets(batch, await future)

    async def _connected(self, deadline: float) -> Link:
        """Wait for the shared connection."""
        while (link := self._link) is None:
            self._check_open()
            future = self._loop.create_future()
            self._waiting.add((future, ((b"PING",),), 1, deadline, 0))
            await future
        return link

    async def _barrier(self, deadline: float) -> bool:
        """Have all that was announced up to now reach the cache; False if it can't be known."""
        cache = self._need_cache()
        links = self._heard_on()
        if not links or not cache.epoch:
            return False
        started, epoch = cache.clock(), cache.epoch
        try:
            for ping in [link.ping(self._loop.time() + self._patience) for link in links]:
                # Shielded: it may be another's as well.
                await _until(asyncio.shield(ping), deadline, "answer to PING")
        except (ConnectionClosed, ProtocolError):
            return False
        if cache.epoch != epoch:
            return False
        cache.prove(max(started, cache.proven))
        return True

    def _heard_on(self) -> list[Link]:
        """Give the links whose answers prove together that all announcements have been heard.

        The listening one, and the one that reads: what the server has to announce it forgets
        when that is gone, which is seen last where it is gone without a word.
        """
        channel, link = self._channel, self._link
        links = [] if channel is None else [channel.link]
        if link is not None and link.epoch and link.source is not ALWAYS:
            links.append(link)
        return links

    async def _end_of(self, flight: Reservation, deadline: float) -> bool:
        """Wait until another task's fetch has ended; False if the deadline came first."""
        ended = self._loop.create_future()

        def wake() -> None:
            if threading.get_ident() == self._thread:
                _resolve(ended)
            else:
                self._loop.call_soon_threadsafe(_resolve, ended)

        if not self._need_cache().when_ended(flight, wake):
            return True
        try:
            await _until(ended, deadline, "end of another's fetch")
        except TimeoutError:
            return False
        return True

    def _forget_later(self) -> None:
        """Drop what is read until all that was sent has run.

        A write whose caller has gone still runs, and with NOLOOP nobody announces it.
        """
        cache, link = self._need_cache(), self._link
        if link is not None and not link.closed:
            ping = link.ping(self._loop.time() + self._patience)
            ping.add_done_callback(lambda _: cache.flush("own write"))

    # Commands that wait for somebody else.

    async def _run_aside(self, command: Sequence[Word], wait: float, last: bool = False) -> Any:
        """Send a command on a connection of its own; `last` lets that go afterwards."""
        deadline = self._loop.time() + self._timeout
        link = await self._take_aside(deadline)
        spent = True
        try:
            reply = await self._carry(self._call(command, None), link, deadline + wait)
            spent = last
        finally:
            self._give_back_aside(link, spent)
        return raise_error(reply)

    def _give_back_aside(self, link: Link, spent: bool) -> None:
        if spent or link.flights or link.closed or self._closed:
            # It owes a reply, or is no longer who it was.
            self._aside.discard(link)
            if link.flights and not link.closed:
                self._stop_waiting(link)
            link.abort(ConnectionClosed("its caller has left"))
        else:
            self._aside_idle.append(link)
        self._next_aside()

    def _stop_waiting(self, link: Link) -> None:
        """Have the server let go of a command that waits, before it runs what follows.

        Of a connection that is just closed it takes notice in its own time (freeClientAsync), and
        serves it until then. The address is a precaution: behind this one may be several servers,
        and on another one the id is a stranger's.
        """
        shared, number, address = self._link, link.greeting.id, link.address
        if shared is None or shared.full or number is None or address is None:
            return
        deadline = self._loop.time() + self._patience
        kill = shared.send((b"CLIENT", b"KILL", b"ID", number, *address), deadline)
        kill.add_done_callback(look)

    async def _take_aside(self, deadline: float) -> Link:
        self._check_open()
        while True:
            while self._aside_idle:
                link = self._aside_idle.pop()
                if not link.closed:
                    return link
                self._aside.discard(link)
            if len(self._aside) + self._aside_opening < self._max_aside:
                break
            turn = self._loop.create_future()
            self._aside_turns.append(turn)
            try:
                async with asyncio.timeout_at(None if deadline == _NEVER else deadline):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self._next_aside()  # it was our turn
                if isinstance(error, TimeoutError):
                    raise PoolTimeout(
                        f"all {self._max_aside} connections for commands that wait stayed busy "
                        f"for {self._options.timeout} s; nothing was sent"
                    ) from None
                raise
            self._check_open()
        self._aside_opening += 1
        try:
            link = self._new_link("aside")
            opening = open_link(link, self._options, self._loop)
            await _until(opening, deadline, f"connection to {self._options.address}")
            link.notice_silence()  # it may wait for ever, and the peer be gone for as long
        except BaseException:
            self._next_aside()
            raise
        finally:
            self._aside_opening -= 1
        self._aside.add(link)
        return link

    def _next_aside(self) -> None:
        while self._aside_turns:
            turn = self._aside_turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _refuse_blocking(self, name: bytes) -> None:
        raise CommandRefused(
            f"{name.decode('latin-1').upper()} waits for somebody else's write, and would hold up "
            "all that share the connection; use execute, which gives it one of its own"
        )

    # Coming up, and coming up again.

    def _new_link(
        self, name: str, *, cache: Cache | None = None, raw: bool = False, watched: bool = False
    ) -> Link:
        ref = weakref.ref(self)

        def on_lost(link: Link, error: Exception) -> None:
            client = ref()
            if client is not None:
                client._lost(link, error)

        return Link(
            self._options,
            self._loop,
            name=name,
            trace=self._trace,
            cache=cache,
            on_lost=on_lost if watched else None,
            raw=raw,
        )

    async def _bring_up(self) -> None:
        """Open what is missing: the shared connection, the listening one, the tracking.

        Where there is no listening connection to be had for now, the shared one goes on without
        the cache, and it is not `_complete`.

        Raises:
            ConnectError, HandshakeError: as `open_link`.
            ConnectionClosed: the connection was lost meanwhile.
        """
        link = self._link
        fresh = link is None
        if link is None:
            link = self._new_link("data", cache=self.cache, watched=True)
            greeting = await open_link(link, self._options, self._loop)
            self.server, self.protocol, self.id = greeting.server, greeting.protocol, greeting.id
        try:
            if self.cache is not None and not self._refused and not link.armed:
                await self._arm(link, self.cache)
            if link.closed:
                assert link.why is not None
                raise link.why
        except BaseException:
            if fresh:
                link.abort(ConnectionClosed("the connection was not needed any more"))
            raise
        if fresh:
            self._link = link
            self._up_since = self._loop.time()
            self._waiting.waiting_for = "connection to send it on"
            take_over(self._waiting.take(), link)

    async def _arm(self, link: Link, cache: Cache) -> None:
        """Have tracking turned on, or note in the cache's status why it is off."""
        try:
            await self._track(link, cache)
        except (TrackingRefused, ValueError) as error:
            if isinstance(error, TrackingRefused) and error.for_now:
                cache.close(str(error))  # and it is asked again
            else:
                self._give_up(str(error), cache)
        except (ClientError, RespError, OSError) as error:
            if self._channel is None:
                cache.close(f"no invalidation connection: {error}")

    async def _track(self, link: Link, cache: Cache) -> None:
        """Have the server announce what a connection reads.

        Raises:
            TrackingRefused, ValueError: it will not, or could not be heard.
            ConnectionClosed, HandshakeError: not now.
        """
        tracking = self._sound
        if tracking.listener == "inline" or (tracking.listener is None and link.protocol == 3):
            started = cache.clock()
            tracking.check_protocol(link.protocol)
            await link.converse(track(tracking))
            if not link.closed:
                link.epoch = cache.open(FRESHNESS, started)
                link.armed = True
            return
        channel = self._channel
        if channel is None:
            channel = await self._listen(tracking, cache)
        if tracking.on_listener:
            link.source = ALWAYS
            link.epoch = cache.epoch
            link.armed = True
            return
        try:
            server = await link.converse(track(tracking, channel.redirect))
        except TrackingRefused:
            # An id dies with its connection, and the server knows before we do.
            server = await link.converse(identify())
            if server == channel.server and await self._answers(channel):
                raise
        else:
            if server == channel.server and self._channel is channel:
                link.notice_silence()
                link.source = Source()
                link.epoch = cache.epoch
                link.armed = True
                return
        # Behind this address are several servers, or another than before. What the shared
        # connection reads has to be announced, so it is the listening one that goes.
        error = ConnectionClosed("the listening connection is another server's, or gone")
        channel.link.abort(error)
        raise error

    async def _answers(self, channel: _Channel) -> bool:
        """Tell whether the listening connection is alive."""
        ping = channel.link.ping(self._loop.time() + _LAST_WORD)
        await asyncio.wait([ping], timeout=_LAST_WORD)
        return self._channel is channel and ping.done() and ping.exception() is None

    async def _listen(self, tracking: Tracking, cache: Cache) -> _Channel:
        started = cache.clock()
        ear = self._new_link("listener", cache=cache, raw=True, watched=True)
        greeting = await open_link(ear, self._options, self._loop)
        try:
            server = await ear.converse(listen(tracking, greeting))
        except BaseException:
            ear.abort(ConnectionClosed("the listening connection was given up"))
            raise
        if ear.closed:
            raise ConnectionClosed("the listening connection was lost")
        assert greeting.id is not None  # or listen would have refused
        ear.epoch = cache.open(FRESHNESS, started)
        self._channel = _Channel(ear, greeting.id, server)
        return self._channel

    def _give_up(self, reason: str, cache: Cache) -> None:
        """Go on uncached: the server will not track."""
        log(WARNING, "tracking", "not caching: %s", reason)
        self._refused = True
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.link.abort(ConnectionClosed(reason))
        cache.close(reason, "reconnect")

    def _lost(self, link: Link, error: Exception) -> None:
        """Take leave of a connection; find out what is sent again on the next."""
        if not self._closed:
            log(INFO, "connection", "lost: %s", error)
        cache = self.cache
        channel = self._channel
        if channel is not None and link is channel.link:
            self._channel = None
            assert cache is not None  # or there were nothing to listen for
            cache.close(f"invalidation connection lost: {error}")
            if self._link is not None:
                self._link.epoch = 0
                self._link.armed = False
        elif link is self._link:
            self._link = None
            if cache is not None and link.epoch and link.source is not ALWAYS:
                if channel is None:
                    cache.close("connection lost", "connection lost")
                else:
                    cache.end(link.source)
            self._keep(link, error)
        else:
            return  # it was coming up, and whoever brings it up is told
        self._reconnect_soon()

    def _reconnect_soon(self) -> None:
        """Start to bring up what is missing, unless that is under way."""
        if self._closed or self._starting:
            return
        if self._connecting is not None and not self._connecting.done():
            return
        if self._loop.time() - self._up_since < STEADY:
            delay = self._pause.next()  # it may go on like that
        else:
            self._pause, delay = Pause(), 0.0
        self._connecting = self._loop.create_task(_reconnect(weakref.ref(self), self._pause, delay))

    def _keep(self, link: Link, error: Exception) -> None:
        """Keep for the next connection what may be sent again; the rest stays to be failed."""
        if self._closed or isinstance(error, ProtocolError):
            return
        sent = len(link.flights) - link.unsent
        stays: deque[Flight] = deque()
        for index, flight in enumerate(link.flights):
            future, commands, want, deadline, sendings = flight
            if future.done():
                continue
            sendings += index < sent
            if index >= sent or (
                sendings <= self._options.retries
                and all(may_repeat(c) for c in (commands if want else (commands,)))
            ):
                self._waiting.add((future, commands, want, deadline, sendings))
            else:
                stays.append(flight)
        link.leave(stays)

    def _complete(self) -> bool:
        """Whether there is all that there can be: the connection, and its tracking."""
        link = self._link
        if link is None or link.closed:
            return False
        return self.cache is None or self._refused or link.armed

    def _not_connected(self, error: Exception) -> None:
        """Note why there is no connection, and fail those for whom waiting is no use."""
        waiting = self._waiting
        waiting.waiting_for = f"connection ({error})"
        hopeless = isinstance(error, HandshakeError)
        for flight in waiting.flights:
            if (hopeless or flight[3] == _NEVER) and not flight[0].done():
                flight[0].set_exception(lost(error, sent=flight[4] > 0))

    @staticmethod
    def _prove(ref: weakref.ref[AsyncClient]) -> None:
        """Ask each link of the cache for a sign of life, once a second."""
        self = ref()
        if self is None or self._closed:
            return
        self._tick = self._loop.call_later(PING_INTERVAL, AsyncClient._prove, ref)
        cache, channel = self.cache, self._channel
        if cache is None or not cache.epoch:
            return
        started, epoch = cache.clock(), cache.epoch
        links = self._heard_on()
        left = len(links)

        def answered(ping: asyncio.Future[Any]) -> None:
            nonlocal left
            left -= 1
            if ping.cancelled() or ping.exception() is not None:
                left = -1
            elif left == 0 and cache.epoch == epoch:
                cache.prove(max(started, cache.proven))

        for each in links:
            ping = each.ping(self._loop.time() + self._patience)
            ping.add_done_callback(answered)
            if channel is not None and each is channel.link:
                # Nothing else is said on it: silence means that it is dead.
                self._loop.call_later(PING_TIMEOUT, _give_up_on, each, ping)

    # Ends.

    def _check_open(self) -> None:
        if self._forked:
            raise ConnectionClosed(
                "this client belongs to the parent process; connect another after a fork"
            )
        if self._closed:
            raise ConnectionClosed("this client is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this client belongs to another event loop")

    async def aclose(self) -> None:
        """Wait for the replies that are on their way, then close every connection.

        What is called from now on fails, and so does what has not been answered when its time is
        up. Cancelled, it closes at once.
        """
        if self._forked or not self._started:
            return
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this client belongs to another event loop")
        if self._closed:
            assert self._ended is not None  # by another task, or it was before
            await asyncio.shield(self._ended)
            return
        self._closed = True
        self._ended = self._loop.create_future()
        _clients.discard(self)
        if self._tick is not None:
            self._tick.cancel()
        link, self._link = self._link, None
        error = ConnectionClosed("this client is closed")
        links: list[Link] = []
        try:
            if self._follower is not None:
                await self._follower.stop()
            if self._connecting is not None:
                self._connecting.cancel()
                await asyncio.wait([self._connecting])
            self._waiting.fail(error)
            if link is not None:
                await link.drain(self._patience)
        finally:
            self._waiting.fail(error)
            for turn in self._aside_turns:
                if not turn.done():
                    turn.set_exception(lost(error, sent=False))
            links += self._aside
            if link is not None:
                links.append(link)
            if self._channel is not None:
                links.append(self._channel.link)
            for each in links:
                each.abort(error)
            for subscriber in tuple(self._subscribers):
                subscriber.stop()
            if self.cache is not None:
                self.cache.close("client closed", "client closed")
                self.cache.release(self)
            self._ended.set_result(None)
        for subscriber in tuple(self._subscribers):
            await subscriber.aclose()
        for each in links:
            await each.close()

    def _after_fork(self) -> None:
        # The sockets are left alone: the loop's selector is shared with the parent.
        self._forked = self._closed = True
        self._link = None
        if self.cache is not None:
            self.cache.after_fork()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._closed:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self._closed = True
        if self._loop.is_closed():
            return
        if self.cache is not None:
            self._loop.call_soon_threadsafe(self.cache.close, "client abandoned", "client closed")
        links = [*self._aside, self._link, self._channel and self._channel.link]
        error = ConnectionClosed("its client was abandoned")
        for link in links:
            if link is not None:
                self._loop.call_soon_threadsafe(link.abort, error)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._options.address} db {self._options.db}>"


async def _reconnect(ref: weakref.ref[AsyncClient], pause: Pause, delay: float) -> None:
    """Bring a client up again; its task holds the client only while it tries."""
    await asyncio.sleep(delay)
    while (client := ref()) is not None and not client._closed:
        try:
            await client._bring_up()
        except Exception as error:  # noqa: BLE001 - whatever it was, another connection may do
            client._not_connected(error)
        if client._complete():
            return
        del client
        await asyncio.sleep(pause.next())


class AsyncWatching:
    """The attempts of `AsyncClient.watch`: iterate over them, or enter it for a single one."""

    def __init__(self, client: AsyncClient, keys: tuple[Word, ...], attempts: int) -> None:
        self._client = client
        self._keys = keys
        self._attempts = attempts

    async def __aiter__(self) -> AsyncIterator[AsyncWatchAttempt]:
        for number in range(1, self._attempts + 1):
            attempt = AsyncWatchAttempt(self._client, self._keys, number == self._attempts)
            yield attempt
            if not attempt.lost:
                return

    async def __aenter__(self) -> AsyncWatchAttempt:
        self._only = AsyncWatchAttempt(self._client, self._keys, last=True)
        return await self._only.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._only.__aexit__(*exc_info)


class AsyncWatchAttempt(Attempt):
    """One attempt, with a connection of its own. See `AsyncClient.watch`."""

    def __init__(self, client: AsyncClient, keys: tuple[Word, ...], last: bool) -> None:
        super().__init__(keys, last)
        self._client = client
        self._link: Link | None = None

    async def __aenter__(self) -> Self:
        client = self._client
        deadline = client._loop.time() + client._timeout
        self._link = await client._take_aside(deadline)
        try:
            raise_error((await self._link.roundtrip([(b"WATCH", *self._keys)], deadline))[0])
        except BaseException:
            self._let_go(broken=True)
            raise
        return self

    async def execute(self, *command: Word) -> Any:
        """Send a command now, on the watching connection; not through the cache."""
        if self._link is None:
            raise RuntimeError("enter the attempt first: async with attempt as look")
        self._client._check_shared((command,))
        call = self._client._call(command, None)
        return raise_error(await self._client._carry(call, self._link))

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        client, link = self._client, self._link
        assert link is not None
        broken = True
        try:
            if kind is not None or not self._queued:
                if not link.closed and not link.flights:
                    deadline = client._loop.time() + client._timeout
                    await link.roundtrip([(b"UNWATCH",)], deadline)
                    broken = False
                if kind is None:
                    self.replies = []
                return
            client._check_allowed(self._queued)
            replies = await client._carry(client._call_transaction(self._queued), link)
            broken = False
            self._settle(replies)
        except ConnectionClosed:
            if kind is None:
                raise  # else the block's own error is what matters
        finally:
            self._let_go(broken)

    def _let_go(self, broken: bool) -> None:
        link, self._link = self._link, None
        assert link is not None
        self._client._give_back_aside(link, spent=broken)


class _Computing(Computation):
    """A computation of the asyncio client."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncClient, place: Hashable, ttl: float | None) -> None:
        super().__init__(client._need_cache(), place, ttl)
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client._carry(self._client._begin(self))
        return self

    async def __aexit__(self, kind: object, *rest: object) -> None:
        self._client._end(self, failed=kind is not None)


async def _until(waited: Awaitable[T], deadline: float, what: str) -> T:
    """Wait until a deadline of the loop's clock.

    Raises:
        CommandTimeout: it came first.
    """
    limit = asyncio.timeout_at(None if deadline == _NEVER else deadline)
    try:
        async with limit:
            return await waited
    except TimeoutError:
        if not limit.expired():
            raise  # of something else
        raise CommandTimeout(f"no {what} in time; nothing was sent") from None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _give_up_on(link: Link, ping: asyncio.Future[Any]) -> None:
    if not ping.done():
        link.abort(ConnectionClosed(f"no PONG within {PING_TIMEOUT} s"))


_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in tuple(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
