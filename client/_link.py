"""One asyncio connection: a `Session` between a transport and those who wait for its replies.

Whoever sends gets a future; replies resolve the futures in the order of the commands. What is sent
in one turn of the loop leaves in one write. A caller that has gone, cancelled or out of time,
keeps its place in the line: its reply is read and dropped there, and nobody else is disturbed.
There is no task here and no lock, and one timer for all deadlines.

It is an `asyncio.Protocol`. As a `BufferedProtocol`, reading into memory of its own or into the
parser's, it was no better: 30.8 µs of CPU for a GET against 30.4, 127 ms for a value of 100 MB
against 124, with the same peak of memory, which is the value (CPython 3.11, compiled codec).
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ._cache import Cache, Source
from ._connection import not_connected, notice_silence, server_hostname, tls_context, tls_refused
from ._errors import (
    CommandTimeout,
    ConnectionClosed,
    ConnectTimeout,
    UnexpectedReply,
)
from ._handshake import Conversation, Greeting, announced_keys, handshake, scrub
from ._log import DEBUG, log
from ._options import Options
from ._resp import ProtocolError, Push, ReplyError
from ._session import Session, Trace, Word, without_secrets
from ._tracking import INVALIDATE_CHANNEL

if TYPE_CHECKING:
    from ._metrics import Metrics

# A call on its way: the future, the commands (one where `want` is 0, else so many), `want`, the
# deadline by the loop's clock (infinite for none), how often it was sent again. A plain tuple,
# because one is made for every command.
Flight: TypeAlias = tuple[asyncio.Future[Any], Sequence[Any], int, float, int]

T = TypeVar("T")

_NEVER = float("inf")
# Callers wait once so many commands are on their way: what is in flight is bounded.
MAX_FLIGHTS = 10_000
# A command of this size leaves at once: to join it with others would copy it.
_LARGE = 64 * 1024
# What is written in one turn leaves in one write, but in several beyond so many bytes: the
# transport says only of what it was given that it is too much.
_MOST_AT_ONCE = 1024 * 1024
# Callers that are let in together once there is room: each may be the one that fills it again.
_LET_IN = 64
# A connection that lives so many seconds was worth having: the next is made without a pause.
STEADY = 1.0
# Seconds between two looks for flights whose time is up.
_GRAIN = 0.01


class Line:
    """Flights in the order of their sending, each failed when its deadline has passed.

    Args:
        loop: the event loop.
        timeout: seconds of `Options.timeout`, for messages and to judge silence.
        waiting_for: what a caller whose time is up was waiting for.
    """

    sends = True  # whether what is in it was sent, or will be

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout: float | None, waiting_for: str
    ) -> None:
        self.flights: deque[Flight] = deque()
        self._loop = loop
        self._timeout = timeout
        self.waiting_for = waiting_for
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def watch(self, deadline: float) -> None:
        """Look for late flights at `deadline`, if not before."""
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._expire)

    def unwatch(self) -> None:
        """Look for late flights no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = _NEVER

    def _expire(self) -> None:
        self.unwatch()
        now = self._loop.time()
        nearest = _NEVER
        for flight in self.flights:
            if flight[0].done():
                continue
            if flight[3] <= now:
                fate = "it may have run" if self.sends or flight[4] else "it was not sent"
                flight[0].set_exception(CommandTimeout(f"no {self.waiting_for} in time; {fate}"))
            elif flight[3] < nearest:
                nearest = flight[3]
        self._rest(now, nearest)

    def _rest(self, now: float, nearest: float) -> None:
        if nearest < _NEVER:
            self.watch(max(nearest, now + min(_GRAIN, (self._timeout or 1.0) / 20)))


class Queue(Line):
    """Flights that wait for a link. Whoever has left takes no room in it."""

    sends = False

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout: float | None, waiting_for: str
    ) -> None:
        super().__init__(loop, timeout, waiting_for)
        self._crowd = 64

    def add(self, flight: Flight) -> None:
        """Let a flight wait until its deadline."""
        if len(self.flights) >= self._crowd:
            # Each is looked at once in a while, not whenever one leaves.
            self.flights = deque(f for f in self.flights if not f[0].done())
            self._crowd = max(64, 2 * len(self.flights))
        self.flights.append(flight)
        self.watch(flight[3])

    def take(self) -> deque[Flight]:
        """Give all that wait, oldest first; nobody waits then."""
        self.unwatch()
        flights, self.flights = self.flights, deque()
        return flights

    def fail(self, error: Exception) -> None:
        """Fail all that wait."""
        for flight in self.take():
            if not flight[0].done():
                flight[0].set_exception(lost(error, sent=flight[4] > 0))


class Link(Line, asyncio.Protocol):
    """A connection of an asyncio client. `open_link` makes one.

    Args:
        options: where to and as whom.
        loop: the event loop, which is running.
        name, trace: as of `Session`.
        cache: where invalidations go, or None.
        on_push: told of every other push.
        on_lost: told once of the end, its reason, and of the flights that nobody has answered;
            the last `unsent` of them never left.
        raw: whether replies stay bytes whatever `options.encoding` says.

    Attributes:
        epoch: of the channel on which changes of what it reads are announced; 0 before that.
        source: of what it reads, ended with it.
        armed: whether all is done that the cache needs of it; the server may have said no.
        closed: whether it must not be used any more.
        why: the reason, once it is closed.
        greeting: what the handshake learned.
    """

    greeting: Greeting

    def __init__(
        self,
        options: Options,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        trace: Trace | None,
        cache: Cache | None = None,
        on_push: Callable[[Push], None] | None = None,
        on_lost: Callable[[Link, Exception], None] | None = None,
        raw: bool = False,
    ) -> None:
        super().__init__(loop, options.timeout, f"reply from {options.address}")
        self.name = name
        self._options = options
        self._metrics = options.metrics
        self._cache = cache
        self._on_push = on_push
        self._on_lost = on_lost
        self._session = Session(
            on_push=self._take_push,
            encoding=None if raw else options.encoding,
            errors=options.errors,
            max_bulk=options.max_bulk,
            trace=trace,
            name=name,
        )
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._flushing = False  # at the end of this turn, or of the next
        self._paused = False
        self._partial: list[Any] = []  # replies of the oldest flight, if it wants several
        self._announced: list[bytes] = []
        self._heard = 0.0
        self.why: Exception | None = None
        self._ping: asyncio.Future[Any] | None = None  # not written yet, so others may share it
        self._room: OrderedDict[object, asyncio.Future[None]] = OrderedDict()
        self._emptied: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = loop.create_future()
        self.epoch = 0
        self.source = Source()
        self.armed = False
        self.closed = False

    # Sending.

    @property
    def protocol(self) -> int:
        """2 or 3: what is spoken now."""
        return self._session.protocol

    @property
    def unsent(self) -> int:
        """How many flights, the last ones, have not been written."""
        return len(self._out)

    def leave(self, flights: deque[Flight]) -> None:
        """Keep only these flights, which have been written; the others are somebody else's now."""
        self.flights = flights
        self._out.clear()

    @property
    def full(self) -> bool:
        """Whether callers have to wait: the peer takes no more, or too much is on its way."""
        return self._paused or len(self.flights) >= MAX_FLIGHTS or bool(self._room)

    async def room(self) -> None:
        """Wait in line until the link takes one more, or is closed. What then comes is sent."""
        place = object()
        try:
            while not self.closed:
                # Again in the same place, where those who were let in before have filled it.
                turn = self._room[place] = self._loop.create_future()
                await turn
                if not self._paused and len(self.flights) < MAX_FLIGHTS:
                    return
        finally:
            self._room.pop(place, None)

    def send(self, command: Sequence[Word], deadline: float) -> asyncio.Future[Any]:
        """Send one command; its reply resolves the future, an error as a value.

        Raises:
            TypeError, ValueError, CommandRefused: as `Session.send`; nothing was sent.
        """
        data = self._session.send(*command)
        future = self._loop.create_future()
        self.flights.append((future, command, 0, deadline, 0))
        if self._metrics is not None:
            self._measure(self._metrics, future, (command,))
        size = self._out_size + len(data)
        if size < _LARGE and self._flushing:  # the usual case of `_write`
            self._out_size = size
            self._out.append(data)
        else:
            self._write(data)
        if deadline < self._timer_at:
            self.watch(deadline)
        return future

    def send_many(
        self, commands: Sequence[Sequence[Word]], deadline: float
    ) -> asyncio.Future[list[Any]]:
        """Send several commands in one piece; the list of their replies resolves the future."""
        future = self._loop.create_future()
        self.resend((future, commands, len(commands), deadline, 0))
        return future

    def resend(self, flight: Flight) -> None:
        """Send a flight that another link has not brought home."""
        _, commands, want, deadline, _ = flight
        data = self._session.send_many(commands) if want else self._session.send(*commands)
        self.flights.append(flight)
        if self._metrics is not None:
            self._measure(self._metrics, flight[0], commands if want else (commands,))
        self._write(data)
        self.watch(deadline)

    def _measure(
        self, metrics: Metrics, future: asyncio.Future[Any], commands: Sequence[Sequence[Word]]
    ) -> None:
        """Have a round trip counted when it is over."""
        started = self._loop.time()

        def over(done: asyncio.Future[Any]) -> None:
            failure = asyncio.CancelledError() if done.cancelled() else done.exception()
            metrics.on_roundtrip(commands, self._loop.time() - started, failure)
            if failure is None:
                replies = done.result() if len(commands) > 1 else [done.result()]
                for reply in replies:
                    if isinstance(reply, ReplyError):
                        metrics.on_error(reply.code)

        future.add_done_callback(over)

    def _write(self, data: bytes) -> None:
        out = self._out
        size = len(data)
        if size >= _LARGE:
            self._flush()
        self._out_size += size
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._end_turn)
        out.append(data)
        if size >= _LARGE or self._out_size >= _MOST_AT_ONCE:
            self._flush()

    def _end_turn(self) -> None:
        self._flushing = False
        if self._out:
            self._flush()  # what is large has left before

    def _flush(self) -> None:
        out = self._out
        if not out or self._paused or self.closed or self._transport is None:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self._ping = None
        if self._metrics is not None:
            self._metrics.on_bytes(len(data), 0)
        self._transport.write(data)

    def ping(self, deadline: float) -> asyncio.Future[Any]:
        """Send a PING, or share the one that has not left yet.

        Its reply proves that all that was pushed before has reached the cache. It is no one's:
        shield it.
        """
        ping = self._ping
        if ping is None or ping.done():
            ping = self._ping = self.send((b"PING",), deadline)
            ping.add_done_callback(look)
        return ping

    async def roundtrip(self, commands: Sequence[Sequence[Word]], deadline: float) -> list[Any]:
        """Send several commands and give their replies, errors in place."""
        if self.closed:
            raise lost(self.why or ConnectionClosed("the connection is closed"), sent=False)
        return without_secrets(commands, await self.send_many(commands, deadline))

    def aim(self, options: Options) -> None:
        """Take other options before it is opened: where to, as messages show it."""
        self._options = options
        self.waiting_for = f"reply from {options.address}"

    async def converse(self, conversation: Conversation[T]) -> T:
        """Carry a conversation on to its end and give its result."""
        try:
            batch = next(conversation)
            while True:
                batch = conversation.send(await self.roundtrip(batch, self._deadline()))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            conversation.close()

    def _deadline(self) -> float:
        return _NEVER if self._timeout is None else self._loop.time() + self._timeout

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._heard = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._heard = self._loop.time()
        if self._metrics is not None:
            self._metrics.on_bytes(0, len(data))
        try:
            results = self._session.receive(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing will match any more
            self._hear()
            self.abort(error)
            return
        if self.closed:  # by what a push or a trace was told to do
            self._hear()
            return
        flights = self.flights
        if len(results) == 1 and not self._out and not flights[0][2]:
            future = flights.popleft()[0]  # the usual case of `_deliver`
            if not future.done():
                future.set_result(results[0])
        elif not self._deliver(results):
            return
        if not self._flushing and results:
            # Behind those who have been answered: what they send next leaves in the turn in which
            # they wake, not in one more, which costs a look at the selector (2 to 3 µs).
            self._flushing = True
            self._loop.call_soon(self._end_turn)
        if self._announced:
            self._hear()
        if self._session.failure is not None:
            self.abort(self._session.failure)
        if self._room:
            self._make_room()
        if self._emptied is not None and not flights and not self._emptied.done():
            self._emptied.set_result(None)

    def _deliver(self, results: list[Any]) -> bool:
        """Resolve the oldest flights; False if there is none that a result can belong to."""
        flights, out = self.flights, self._out
        at, end = 0, len(results)
        while at < end:
            if out and len(flights) <= len(out):
                self._hear()
                self.abort(
                    UnexpectedReply(
                        "expected no reply before a command was sent, "
                        f"found one of type {type(results[at]).__name__}"
                    )
                )
                return False
            future, _, want, _, _ = flights[0]
            if want:
                partial = self._partial
                some = results[at : at + want - len(partial)]
                at += len(some)
                partial += some
                if len(partial) < want:
                    break
                self._partial = []
                if not future.done():
                    future.set_result(partial)
            else:
                if not future.done():
                    future.set_result(results[at])
                at += 1
            flights.popleft()
        return True

    def _hear(self) -> None:
        """Have the announcements of one read reach the cache together."""
        if self._announced:
            announced, self._announced = self._announced, []
            assert self._cache is not None
            self._cache.invalidate(announced)

    def _take_push(self, push: Push) -> None:
        kind = push.kind
        if self._cache is not None:
            if kind == "invalidate" or (
                kind == "message" and len(push) == 3 and push[1] == INVALIDATE_CHANNEL
            ):
                keys = announced_keys(push)
                if keys is None:
                    self._cache.invalidate(None)
                else:
                    self._announced += keys
            elif kind == "tracking-redir-broken":
                # The target of our redirect is gone: what this connection reads goes unannounced.
                self.epoch = 0
                self._cache.end(self.source)
                self.source = Source()
        if self._on_push is not None:
            self._on_push(push)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()
        self._make_room()

    def _make_room(self) -> None:
        """Let in those who have waited longest, a few in each turn of the loop."""
        if self._paused:
            return
        room = min(MAX_FLIGHTS - len(self.flights), _LET_IN)
        if room > 0 and self._room:
            # They stand in line until they run, or who comes in between would pass them by.
            for turn in islice(self._room.values(), room):
                if not turn.done():
                    turn.set_result(None)
            if len(self._room) > room:
                self._loop.call_soon(self._make_room)  # after those have sent

    def connection_lost(self, exc: Exception | None) -> None:
        error = self.why
        if error is None:
            reason = "the server closed it"
            if exc is not None:
                reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            last = self._partial[-1] if self._partial else None
            if isinstance(last, ReplyError):
                reason += f", after {scrub(self._options, last)!r}"
            error = ConnectionClosed(
                f"the connection to {self._options.address} was lost: {reason}"
            )
            if self._metrics is not None:
                self._metrics.on_loss(error)
        self._end(error)
        if not self._gone.done():
            self._gone.set_result(None)

    # Ends.

    def _rest(self, now: float, nearest: float) -> None:
        if self.flights and self._timeout is not None:
            # Whoever ran out of time has left. A peer that stays silent for as long again, with
            # something owed, is taken for dead.
            oldest = self.flights[0][3] - self._timeout
            dead = max(self._heard, oldest if oldest < _NEVER else 0.0) + 2 * self._timeout
            if now >= dead:
                self.abort(
                    ConnectionClosed(
                        f"{self._options.address} was silent for {2 * self._timeout} s"
                    )
                )
                return
            nearest = min(nearest, dead)
        super()._rest(now, nearest)

    def abort(self, why: Exception) -> None:
        """Close the connection at once: it can't be trusted, or nobody needs it."""
        if self.why is None:
            self.why = why
        if self._transport is not None:
            self._transport.abort()
        self._end(self.why)

    def _end(self, error: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        self.why = error
        self.unwatch()
        if self._on_lost is not None:
            self._on_lost(self, error)
        self.fail(error)
        for turn in self._room.values():
            if not turn.done():
                turn.set_result(None)
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def fail(self, error: Exception) -> None:
        """Fail what is still on its way."""
        flights, sent = self.flights, len(self.flights) - self.unsent
        self.leave(deque())
        for index, flight in enumerate(flights):
            if not flight[0].done():
                flight[0].set_exception(lost(error, index < sent))

    async def drain(self, patience: float) -> None:
        """Wait until every reply is here, at most `patience` seconds."""
        if self.flights and not self.closed:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=patience)

    async def close(self) -> None:
        """Close the connection and wait until it is."""
        self.abort(ConnectionClosed("this client is closed"))
        if self._transport is not None:
            await asyncio.shield(self._gone)

    # Reading less.

    def pause_reading(self) -> None:
        """Let the peer's bytes wait in the kernel, and then at the peer."""
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    @property
    def address(self) -> tuple[bytes, str] | tuple[()] | None:
        """Our end as CLIENT KILL takes it: `ADDR ip:port`, nothing on a unix socket."""
        name = self._transport and self._transport.get_extra_info("sockname")
        if not isinstance(name, tuple):
            return () if self._options.unix_path is not None else None
        host, port = name[:2]
        return b"ADDR", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def notice_silence(self) -> None:
        """Have the kernel end the connection when its peer is gone without a word."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            notice_silence(sock)


def look(reply: asyncio.Future[Any]) -> None:
    """Take note of a failure: it is no news, whoever needed the answer or not."""
    if not reply.cancelled():
        reply.exception()


def lost(error: Exception, sent: bool) -> Exception:
    """Give what a caller is told whose command was not answered."""
    if isinstance(error, ProtocolError):
        return copy(error)  # each caller raises its own: raising adds to the traceback
    said = "it may have run" if sent else "it was not sent"
    told = type(error) if isinstance(error, ConnectionClosed) else ConnectionClosed
    raised = told(f"{error}; {said}")
    raised.__cause__ = error
    return raised


async def open_link(link: Link, options: Options, loop: asyncio.AbstractEventLoop) -> Greeting:
    """Connect a link, TLS included, and shake hands.

    Raises:
        ConnectTimeout: no answer within `options.connect_timeout`.
        ConnectError: the address can't be reached, or TLS was refused.
        HandshakeError: the server refused the handshake.
    """
    if options.sentinels:
        from ._async_follower import open_found

        return await open_found(link, options, loop)
    if options.credentials is not None:
        given: Any = options.credentials()
        options = options.with_credentials(await given if inspect.isawaitable(given) else given)
    try:
        try:
            async with asyncio.timeout(options.connect_timeout):
                if options.unix_path is not None:
                    await loop.create_unix_connection(lambda: link, options.unix_path)
                elif options.ssl:
                    await loop.create_connection(
                        lambda: link,
                        options.host,
                        options.port,
                        ssl=tls_context(options),
                        server_hostname=server_hostname(options),
                    )
                else:
                    await loop.create_connection(lambda: link, options.host, options.port)
        except TimeoutError:
            raise ConnectTimeout(
                f"{options.address} did not accept a connection within {options.connect_timeout} s"
            ) from None
        except OSError as error:
            raise not_connected(options, error) from error
        link.greeting = await link.converse(handshake(options))
        log(DEBUG, "connection", "%s: connected to %s in RESP%d", link.name, options.address,
            link.greeting.protocol)  # fmt: skip
        if options.metrics is not None:
            options.metrics.on_connect()
        return link.greeting
    except BaseException as error:
        link.abort(ConnectionClosed("the handshake was given up"))
        if options.ssl and type(error) is ConnectionClosed:
            raise tls_refused(options, error.__cause__ or error) from error
        raise


def take_over(flights: Iterable[Flight], link: Link) -> None:
    """Send again what waited for a link."""
    for flight in flights:
        if not flight[0].done():
            try:
                link.resend(flight)
            except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
                flight[0].set_exception(error)
