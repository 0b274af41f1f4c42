"""One schedule: two processes with their clients, somebody else who writes, and what goes wrong.

Everything is chosen: the set-ups, the dialect of the server, the delays, what the threads and
tasks do, and the faults. Then it runs, is healed, comes to rest and is judged.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

from greenlet import getcurrent

import client._cache
import client._read
import client._tracking
from client import Cache, Client, ClientError, CommandTimeout, Tracking
from client._asyncio import AsyncClient
from client._cache import Entry, Reservation
from client._options import Options
from client._tracking import FRESHNESS, PING_INTERVAL
from resp import ReplyError, RespError, parse

from ._choices import Choices
from ._loop import Loop, no_loop
from ._oracle import Oracle
from ._server import READS, Server, shown
from ._threads import KEEPALIVE, Machine, no_threads
from ._world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SETUPS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (3, {"listener": "dedicated"}),
    (3, {"listener": "inline"}),
    (2, {"listener": "dedicated"}),
    (3, {"listener": "dedicated", "bcast": True}),
    (2, {"listener": "dedicated", "bcast": True}),
    (3, {"listener": "inline", "bcast": True}),
    (3, {"listener": "dedicated", "optin": True}),
    (3, {"listener": "inline", "optin": True}),
    (2, {"listener": "dedicated", "optin": True}),
    (3, {"listener": "dedicated", "optout": True}),
    (3, {"listener": "inline", "noloop": True}),
    (3, {"listener": "dedicated", "noloop": True}),
    (3, {"listener": "dedicated", "bcast": True, "noloop": True}),
    (2, {"listener": "dedicated", "bcast": True, "noloop": True}),
    (3, {"listener": "inline", "bcast": True, "noloop": True}),
    (3, {"listener": "dedicated", "bcast": True, "prefixes": ["k", "s"]}),
)

# Two that differ in a byte that no text has, a list under a name that is read as a string too.
STRINGS = (b"k1", b"k2", b"k\xff", b"k\xfe", b"l1")
LISTS, HASHES, SETS = (b"l1",), (b"h1",), (b"s1", b"s2")

READ_COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("GET", "k1"),
    ("GET", b"k1"),
    ("GET", "k2"),
    ("GET", b"k\xff"),
    ("GET", b"k\xfe"),
    ("GET", "l1"),
    ("STRLEN", "k1"),
    ("MGET", "k1", "k2"),
    ("MGET", "k2", b"k1", "l1"),
    ("HGET", "h1", "f1"),
    ("HGET", "h1", "f2"),
    ("HGETALL", "h1"),
    ("LRANGE", "l1", 0, -1),
    ("LRANGE", b"l1", b"0", b"-1"),
    ("SUNION", "s1", "s2"),
    ("SINTERCARD", 2, "s1", "s2"),
)


class Mode(NamedTuple):
    """What kind of schedule this is."""

    faults: frozenset[str]
    timeout: float
    bound: float


class Walked(dict[Any, Any]):
    """The entries of a cache: nobody may go through them all to find some."""

    watcher: Any = None  # who invalidates: others may look meanwhile

    def _look(self) -> None:
        if Walked.watcher is getcurrent():
            raise Violation("an invalidation walks the whole cache")

    def __iter__(self) -> Any:
        self._look()
        return super().__iter__()

    def values(self) -> Any:
        self._look()
        return super().values()

    def items(self) -> Any:
        self._look()
        return super().items()


class WatchedCache(Cache):
    """A cache that notices what an invalidation looks at."""

    def _clear(self, reason: str) -> None:
        super()._clear(reason)
        self._entries = Walked()

    def invalidate(self, keys: Any, reason: str = "changed") -> None:
        Walked.watcher = None if keys is None else getcurrent()
        try:
            super().invalidate(keys, reason)
        finally:
            Walked.watcher = None


class Process:
    """One process with one client, and what its threads or tasks do."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.world = sim.world
        self.name = name
        choices = sim.choices
        self.protocol, options = choices.of(SETUPS)
        self.tracking = Tracking(**options)
        self.optin = self.tracking.optin
        small = choices.chance(0.15)
        self.server_ttl = choices.chance(0.2)
        self.cache = WatchedCache(
            max_entries=4 if small else 100,
            max_bytes=4000 if small else 1_000_000,
            max_ttl=choices.of((1.0, 100.0)),
            clock=self.world.clock,
            server_ttl=self.server_ttl,
        )
        self.options = Options(
            protocol=self.protocol, timeout=sim.mode.timeout, connect_timeout=sim.mode.timeout
        )
        self.oracle = Oracle(
            self.world,
            sim.server,
            name,
            sim.mode.bound,
            (0.0 if self.server_ttl else self.cache.max_ttl) + sim.mode.bound,
            self.protocol == 3,
        )
        self.running = 0
        self.trouble_until = 0.0  # until then a call may fail, for what was done to its connections
        self.forked = False
        self.connecting = True
        self.ready = False  # connected
        self._writes = 0

    # What a thread does: a program is a generator of calls, whoever carries them out.

    def program(self, number: int) -> Any:
        """Yield what is called, as (name, arguments); be sent the outcome."""
        choices, world = self.sim.choices, self.world
        for _ in range(choices.pick(7)):
            what = choices.pick(20)
            if self.sim.computes and what < 14:
                yield "computing", (), {}
            elif what < 12:
                command = self.sim.some_read()
                max_stale = 0.0 if choices.chance(0.08) else None
                yield from self._read(command, max_stale)
            elif what < 16:
                yield from self._write(number)
            elif what == 16:
                said = b"%s-%d-%d" % (self.name.encode(), number, choices.pick(1000))
                reply = yield "execute", ("ECHO", said), {}
                if reply != said and not isinstance(reply, BaseException):
                    raise Violation(f"{self.name}: ECHO {said!r} gave {reply!r}")
            elif what == 17:
                reply = yield "computing", (), {}
            elif what == 18:
                command = self.sim.some_read()
                began, floors = world.now, self.oracle.floors()
                reply = yield "uncached", command, {}
                self._judge(command, reply, began, floors, 0.0)
            else:
                yield "sleep", (0.01 * choices.pick(50),), {}

    def _read(self, command: tuple[Any, ...], max_stale: float | None) -> Any:
        began, floors = self.world.now, self.oracle.floors()
        options = {} if max_stale is None else {"max_stale": max_stale}
        name = "cached" if self.optin or options else "execute"
        reply = yield name, command, options
        self._judge(command, reply, began, floors, max_stale)
        if isinstance(reply, list):
            reply.append(b"spoiled")  # it is ours: nobody else may see this
        elif isinstance(reply, dict):
            reply[b"spoiled"] = b"yes"
        elif isinstance(reply, set):
            reply.add(b"spoiled")

    def _judge(
        self,
        command: tuple[Any, ...],
        reply: Any,
        began: float,
        floors: dict[bytes, int],
        bound: float | None,
    ) -> None:
        if not isinstance(reply, BaseException):
            self.oracle.read(command, reply, began, floors, bound)

    def _write(self, number: int) -> Any:
        choices = self.sim.choices
        self._writes += 1
        value = b"%s.%d.%03d" % (self.name.encode(), number, self._writes)
        command = self.sim.some_write(value)
        began = self.world.now
        way = choices.pick(6)
        if way == 0:
            reply = yield "transaction", ([command, ("ECHO", value)],), {}
        elif way == 1:
            reply = yield "execute_many", ([("ECHO", value), command],), {}
        elif way == 2:
            command = ("EVAL", "script", 0, "k1", value)
            reply = yield "execute", command, {}
        else:
            reply = yield "execute", command, {}
        if not isinstance(reply, BaseException):
            if isinstance(reply, list) and value not in reply:
                raise Violation(f"{self.name}: ECHO {value!r} in a batch gave {reply!r}")
            self.oracle.wrote(command, began)

    def trouble(self, seconds: float) -> None:
        """Excuse failures for a while: something was done to the connections."""
        until = self.world.now + seconds + 4 * self.sim.reach
        self.trouble_until = max(self.trouble_until, until)

    def call_ended(self, name: str, args: tuple[Any, ...], began: float, outcome: Any) -> None:
        """Judge how a call ended, whatever it gave."""
        took = self.world.now - began
        world = self.world
        if world.story is not None:
            shown_args = (
                shown(args) if all(isinstance(a, (str, bytes, int)) for a in args) else args
            )
            world.tell(
                f"{self.name}: {name} {shown_args} -> {outcome!r} after {took * 1000:.1f} ms"
            )
        if name == "sleep":
            return
        mode = self.sim.mode
        slack = 60 * self.sim.reach
        calls = 3 if name == "computing" else 1  # it waits, and reads twice
        if took > calls * mode.timeout + slack:
            raise Violation(
                f"{self.name}: {name} {args} took {took:.3f} s, time-out {mode.timeout}"
            )
        calm = not mode.faults - {"cancel", "flush"}
        if calm and took > slack:
            raise Violation(f"{self.name}: {name} {args} took {took:.3f} s, and nothing was wrong")
        if isinstance(outcome, (ReplyError, KeyboardInterrupt, asyncio.CancelledError)):
            if isinstance(outcome, ReplyError) and outcome.code != "WRONGTYPE":
                raise Violation(f"{self.name}: {name} {args} raised {outcome!r}")
            return
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, (ClientError, RespError)):
                raise Violation(f"{self.name}: {name} {args} raised {outcome!r}") from outcome
            if isinstance(outcome, CommandTimeout) and took < mode.timeout - 0.002:
                raise Violation(f"{self.name}: {name} {args} gave up after {took:.3f} s")
            if began > self.trouble_until and not isinstance(outcome, TimeoutError):
                raise Violation(
                    f"{self.name}: {name} {args} raised {outcome!r}, and nothing was done to it"
                )
            if calm:
                raise Violation(f"{self.name}: {name} {args} raised {outcome!r} on a calm day")

    def check_bounds(self) -> None:
        cache = self.cache
        if len(cache._entries) + len(cache._reserved) > cache.max_entries:
            raise Violation(f"{self.name}: {len(cache._entries)} entries and more reservations")
        if cache._bytes > cache.max_bytes:
            raise Violation(f"{self.name}: {cache._bytes} bytes")

    def check_rest(self) -> None:
        """Judge the cache when everything has been heard."""
        cache = self.cache
        if self.running:
            raise Violation(f"{self.name}: {self.running} threads wait for ever")
        if cache._reserved:
            raise Violation(f"{self.name}: nobody fetches {list(cache._reserved)}")
        size = 0
        for place, entry in tuple(dict.items(cache._entries)):
            size += entry.size
            for key in entry.keys:
                held = cache._index.get(key)
                if held is not entry and not (isinstance(held, set) and entry in held):
                    raise Violation(f"{self.name}: no invalidation finds {place}")
            if cache.find(place) is not None:
                self._check_entry(place, entry)
        if size != cache._bytes:
            raise Violation(f"{self.name}: counted {cache._bytes} bytes, held {size}")
        for key, held in cache._index.items():
            for holder in held if isinstance(held, set) else (held,):
                if (
                    not isinstance(holder, Entry)
                    or dict.get(cache._entries, holder.command) is not holder
                ):
                    raise Violation(f"{self.name}: the index of {key!r} leads nowhere")

    def _check_entry(self, place: Any, entry: Entry) -> None:
        if isinstance(place, bytes):
            words = parse(place)
        elif isinstance(place, tuple) and place[0] is client._read._NULL:
            words = [b"MGET", place[1]]
        elif isinstance(place, tuple) and isinstance(place[0], (str, bytes)):
            words = list(place)
        else:
            return
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        value = [entry.value] if words[0] == b"MGET" else entry.value
        if not self.oracle.now(words, value):
            raise Violation(
                f"{self.name}: at rest {shown(words)} is {value!r} in the cache and "
                f"{self.oracle.truth(words)!r} on the server"
            )


class BlockingProcess(Process):
    """A process with threads and a `Client`."""

    client: Client | None = None

    def __init__(self, sim: Simulation, name: str) -> None:
        super().__init__(sim, name)
        self.machine = sim.machine
        self.size = 1 if self.tracking.listener == "inline" else 2
        self.machine.spawn(name, self._connect, f"{name} connects")

    def _connect(self) -> None:
        try:
            self.client = Client(self.options, self.cache, self.tracking, max_connections=self.size)
        except (ClientError, RespError) as error:
            self.world.tell(f"{self.name}: can't connect: {error}")
            self.sim.connect_failed(self, error)
            return
        finally:
            self.connecting = False
        self.ready = True
        for number in range(1 + self.sim.choices.pick(3)):
            self.start(number)

    def start(self, number: int) -> None:
        self.running += 1
        thread = self.machine.spawn(self.name, lambda: self._run(number), f"{self.name}.{number}")
        if "cancel" in self.sim.mode.faults:
            for _ in range(self.sim.choices.pick(4)):
                self.sim.later(0.3, self._interrupt, thread)

    def _run(self, number: int) -> None:
        try:
            self._carry_out(number)
        except Violation as violation:
            self.world.violations.append(str(violation))
        finally:
            if not self.machine.over:
                self.running -= 1

    def _carry_out(self, number: int) -> None:
        program = self.program(number)
        outcome: Any = None
        while True:
            try:
                name, args, options = program.send(outcome)
            except StopIteration:
                return
            began = self.world.now
            try:
                outcome = self._call(name, args, options)
            except Violation:
                raise
            except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - judged
                outcome = error
            self.call_ended(name, args, began, outcome)
            if self.sim.choices.chance(0.5):
                self.machine.sleep(self.sim.gap())

    def _call(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        db = self.client
        assert db is not None
        if name == "sleep":
            return self.machine.sleep(*args)
        if name != "computing":
            return getattr(db, name)(*args, **options)
        began, floors = self.world.now, self.oracle.floors()
        read = db.cached if self.optin else db.execute
        with db.computing("report") as computation:
            if computation.value is client._cache.MISS:
                computation.value = (read("GET", "k1"), read("HGET", "h1", "f1"))
            one, other = computation.value
        self.oracle.read(("GET", "k1"), one, began, floors)
        self.oracle.read(("HGET", "h1", "f1"), other, began, floors)
        return None

    def _interrupt(self, thread: Any) -> None:
        # As a signal does: it ends a wait. Not that for a lock, which Python does not interrupt.
        polls = any(thread in sock.pollers for sock in self.machine.sockets.values())
        if polls and thread.waiting and not thread.finished and not thread.dead:
            self.world.tell(f"{thread.name}: interrupted")
            thread.interrupt = KeyboardInterrupt()
            self.machine.wake(thread)

    # What is done to it.

    def connections(self) -> list[Any]:
        return [
            sock
            for sock in self.machine.sockets.values()
            if sock.owner == self.name and sock.peer is not None and not sock.inherited
        ]

    def is_idle(self, sock: Any) -> bool:
        """Tell whether nothing is on its way to a connection."""
        db = self.client
        if db is None or sock.inbox:
            return False
        known: list[Any] = [*db._pool._idle]  # not one that somebody has taken, and found empty
        listener = db._tracker._listener if db._tracker is not None else None
        if listener is not None and listener._connection is not None:
            known.append(listener._connection)
        return any(each._socket is sock and each._session.owed == 0 for each in known)

    def unreachable(self, until: float) -> None:
        self.machine.unreachable_until[self.name] = until

    def fork(self) -> None:
        """Go on as the child: no other thread came along, and the sockets are the parent's too."""
        if self.forked or self.client is None or not self.ready:
            return
        self.forked = True
        self.trouble(0.0)
        self.world.tell(f"{self.name}: forks, and goes on as the child")
        for thread in self.machine.threads:
            if thread.owner == self.name and not thread.finished:
                thread.dead = True
        self.running = 0
        for sock in tuple(self.machine.sockets.values()):
            if sock.owner == self.name:
                sock.inherited = True
        self.machine.spawn(self.name, self._after_fork, f"{self.name} child")

    def _after_fork(self) -> None:
        assert self.client is not None
        self.client._after_fork()
        if len(self.cache) or self.cache._reserved:
            self.world.violations.append(f"{self.name}: the child has what the parent cached")
        for number in range(7, 9):
            self.start(number)

    def hear(self) -> None:
        """Have an idle inline connection read: nobody else does."""
        if self.tracking.listener == "inline" and self.client is not None:
            self.machine.spawn(self.name, self._hear, f"{self.name} hears")

    def _hear(self) -> None:
        assert self.client is not None
        try:
            self.client.execute("ECHO", "anything new?")
        except (ClientError, RespError) as error:
            self.world.tell(f"{self.name}: can't hear: {error}")

    def close(self) -> None:
        self.machine.spawn(self.name, self._close, f"{self.name} closes")

    def _close(self) -> None:
        if self.client is not None:
            self.client.close()

    def check_closed(self) -> None:
        left = [
            thread.name
            for thread in self.machine.threads
            if thread.owner == self.name and not thread.finished and not thread.dead
        ]
        if left:
            raise Violation(f"{self.name}: closed, and threads are left: {left}")
        sockets = [
            sock.number
            for sock in self.machine.sockets.values()
            if sock.owner == self.name and not sock.inherited
        ]
        if sockets:
            raise Violation(f"{self.name}: closed, and sockets are left: {sockets}")

    def reads_again(self, done: Callable[[], None]) -> None:
        self.machine.spawn(self.name, lambda: self._read_twice(done), f"{self.name} reads again")

    def _read_twice(self, done: Callable[[], None]) -> None:
        assert self.client is not None
        read = self.client.cached if self.optin else self.client.execute
        try:
            for command in AGAIN:
                read(*command)
                before = self.sim.server.commands.get(self.name, 0)
                read(*command)
                if self.sim.server.commands.get(self.name, 0) != before:
                    raise Violation(f"{self.name}: {shown(command)} is asked for twice")
            done()
        except Violation as violation:
            self.world.violations.append(str(violation))


# Read twice at rest, the second time is a hit: nothing, an empty value, and one of each kind.
AGAIN = (
    ("GET", "k-nothing"),
    ("GET", "k-empty"),
    ("GET", "k-full"),
)


class AsyncProcess(Process):
    """A process with tasks and an `AsyncClient`."""

    client: AsyncClient | None = None

    def __init__(self, sim: Simulation, name: str) -> None:
        super().__init__(sim, name)
        self.loop = Loop(self.world, sim.server, name)  # type: ignore[abstract]
        self.tasks: list[asyncio.Task[Any]] = []
        self._spawn(self._connect())

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(coroutine)
        self.tasks.append(task)
        return task

    async def _connect(self) -> None:
        db = AsyncClient(self.options, self.cache, self.tracking)
        try:
            await db._start()
        except (ClientError, RespError) as error:
            self.world.tell(f"{self.name}: can't connect: {error}")
            self.sim.connect_failed(self, error)
            return
        finally:
            self.connecting = False
        self.client = db
        self.ready = True
        for number in range(1 + self.sim.choices.pick(3)):
            self.running += 1
            task = self._spawn(self._run(number))
            if "cancel" in self.sim.mode.faults:
                for _ in range(self.sim.choices.pick(4)):
                    self.sim.later(0.3, self._cancel, task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if not task.done():
            self.world.tell(f"{self.name}: a task is cancelled")
            self.loop.call_soon(task.cancel)

    async def _run(self, number: int) -> None:
        try:
            await self._carry_out(number)
        except Violation as violation:
            self.world.violations.append(str(violation))
        finally:
            self.running -= 1

    async def _carry_out(self, number: int) -> None:
        program = self.program(number)
        outcome: Any = None
        cancelled = 0
        while True:
            try:
                name, args, options = program.send(outcome)
            except StopIteration:
                return
            began = self.world.now
            try:
                outcome = await self._call(name, args, options)
            except Violation:
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling() == cancelled:
                    raise Violation(f"{self.name}: {name} was cancelled by nobody") from error
                cancelled = task.cancelling()
                outcome = error
            except Exception as error:  # noqa: BLE001 - judged
                outcome = error
            self.call_ended(name, args, began, outcome)
            if self.sim.choices.chance(0.5):
                try:
                    await asyncio.sleep(self.sim.gap())
                except asyncio.CancelledError:
                    cancelled += 1

    async def _call(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        db = self.client
        assert db is not None
        if name == "sleep":
            return await asyncio.sleep(*args)
        if name != "computing":
            return await getattr(db, name)(*args, **options)
        began, floors = self.world.now, self.oracle.floors()
        read = db.cached if self.optin else db.execute
        async with db.computing("report") as computation:
            if computation.value is client._cache.MISS:
                computation.value = (await read("GET", "k1"), await read("HGET", "h1", "f1"))
            one, other = computation.value
        self.oracle.read(("GET", "k1"), one, began, floors)
        self.oracle.read(("HGET", "h1", "f1"), other, began, floors)
        return None

    def connections(self) -> list[Any]:
        return [each for each in self.loop.transports if not each.closed]

    def is_idle(self, transport: Any) -> bool:
        """Tell whether nothing is on its way to a connection."""
        return not transport.arriving and transport.protocol._session.owed == 0

    def unreachable(self, until: float) -> None:
        self.loop.unreachable_until = until

    def fork(self) -> None:
        """Do nothing: a loop does not survive a fork, and `AsyncClient` says so."""

    def hear(self) -> None:
        """Nothing is needed: a loop reads."""

    def close(self) -> None:
        if self.client is not None:
            self._spawn(self.client.aclose())

    def check_closed(self) -> None:
        left = [task for task in self.tasks if not task.done()]
        if left:
            raise Violation(f"{self.name}: closed, and tasks are left: {left}")
        for task in self.tasks:
            if not task.cancelled() and task.exception() is not None:
                raise Violation(f"{self.name}: a task died: {task.exception()!r}")
        if self.connections():
            raise Violation(f"{self.name}: closed, and connections are left")

    def reads_again(self, done: Callable[[], None]) -> None:
        self._spawn(self._read_twice(done))

    async def _read_twice(self, done: Callable[[], None]) -> None:
        assert self.client is not None
        read = self.client.cached if self.optin else self.client.execute
        try:
            for command in AGAIN:
                await read(*command)
                before = self.sim.server.commands.get(self.name, 0)
                await read(*command)
                if self.sim.server.commands.get(self.name, 0) != before:
                    raise Violation(f"{self.name}: {shown(command)} is asked for twice")
            done()
        except Violation as violation:
            self.world.violations.append(str(violation))


FAULTS = ("kill", "cancel", "black hole", "pause", "restart", "fork", "unreachable", "surplus")


class Simulation:
    """One schedule, from its choices to its verdict."""

    def __init__(self, choices: Choices, log: bool = False) -> None:
        self.choices = choices
        self.world = world = World(choices, log)
        self.server = Server(
            world,
            early=choices.chance(0.3),
            table=choices.of((0, 0, 0, 2)),
            active_expiry=not choices.chance(0.3),
        )
        world.delays = choices.of(
            ((0.0005,), (0.0005, 0.0005, 0.002), (0.0002, 0.002, 0.02), (0.0001, 0.01, 0.05))
        )
        world.jitter = choices.of(((0.0,), (0.0, 0.0, 0.0003), (0.0, 0.001, 0.005)))
        faults = set()
        if choices.chance(0.6):
            for _ in range(1 + choices.pick(3)):
                faults.add(choices.of(FAULTS))
        # What a change needs at most to be heard while everything is in order.
        self.reach = max(world.delays) * 2 + max(world.jitter) * 10 + 0.002
        bound = self.reach
        if "black hole" in faults:
            bound += KEEPALIVE if faults & {"kill", "restart", "surplus"} else FRESHNESS
        self.mode = Mode(frozenset(faults), choices.of((5.0, 1.0)), bound)
        self.machine = Machine(world, self.server)
        self.machine.preemption = choices.of((0.0, 0.02, 0.1))
        for key in (*STRINGS[:2], b"k-full"):
            self.server.put(key, b"first", (b"(setup)",))
        self.server.put(b"k-empty", b"", (b"(setup)",))
        self.server.broadcast.clear()
        self._written = 0
        # What everybody wants: all, or a few things that they meet at.
        few = choices.of((0, 4, 2, 1))
        self.wanted = [choices.of(READ_COMMANDS) for _ in range(few)] or READ_COMMANDS
        self.computes = choices.chance(0.15)
        kinds: list[type[Process]] = [BlockingProcess, AsyncProcess]
        names = ("A", "B")[: 1 + choices.chance(0.5)]
        self.processes: list[Any] = []
        for name in names:
            self.processes.append(choices.of(kinds)(self, name))
            if world.story is not None:
                process = self.processes[-1]
                world.tell(
                    f"{name}: {type(process).__name__}, RESP{process.protocol}, {process.tracking}"
                )
        world.tell(
            f"faults {sorted(faults)}, delays {world.delays}, jitter {world.jitter}, "
            f"{'6.2' if self.server.early else '7.0'}"
        )

    def gap(self) -> float:
        """Give a pause between two calls."""
        return self.choices.of((0.0, 0.001, 0.01, 0.1, 0.7))

    def later(self, within: float, event: Callable[..., object], *args: Any) -> None:
        """Have something happen some time soon."""
        self.world.at(self.world.now + within * self.choices.pick(100) / 100, event, *args)

    def some_read(self) -> tuple[Any, ...]:
        """Give a command that reads something."""
        return self.choices.of(self.wanted)

    def some_write(self, value: bytes) -> tuple[Any, ...]:
        """Give a command that changes something to this value, or with it."""
        choices = self.choices
        what = choices.pick(16)
        if len(self.wanted) < 5 and choices.chance(0.5):
            # Something that is read.
            words = [w if isinstance(w, bytes) else str(w).encode() for w in self.some_read()]
            key = choices.of(list(READS[words[0]](words)))
            if key in SETS:
                return ("SADD", key, value)
            return ("HSET", key, "f1", value) if key in HASHES else ("SET", key, value)
        if what < 6:
            return ("SET", STRINGS[choices.pick(5)], value)
        if what == 6:
            return ("SET", STRINGS[choices.pick(5)], value, "PX", 10 * (1 + choices.pick(30)))
        if what == 7:
            return ("MSET", "k1", value, b"k2", value)
        if what == 8:
            return ("DEL", *self._two(STRINGS))
        if what == 9:
            return ("DEL", "l1", "h1")
        if what == 10:
            return ("RPUSH", "l2", value) if choices.chance(0.2) else ("HSET", "h1", "f1", value)
        if what == 11:
            return ("HSET", "h1", choices.of(("f1", "f2")), value)
        if what < 14:
            return ("SADD", choices.of(SETS), value)
        if what == 14:
            return ("PEXPIRE", STRINGS[choices.pick(3)], 5 + choices.pick(200))
        return ("FLUSHALL",)

    def _two(self, keys: Sequence[bytes]) -> tuple[bytes, ...]:
        return (keys[self.choices.pick(len(keys))], keys[self.choices.pick(len(keys))])

    def connect_failed(self, process: Process, error: BaseException) -> None:
        if not self.mode.faults - {"cancel"}:
            self.world.violations.append(f"{process.name} can't connect: {error!r}")

    # Somebody else, and what goes wrong.

    def _stranger_writes(self) -> None:
        self._written += 1
        command = self.some_write(b"stranger.%03d" % self._written)
        if self.choices.chance(0.1):
            command = ("DEL", "l1")
            self.server.foreign(b"DEL", b"l1")
            command = ("RPUSH", "l1", b"stranger.%03d" % self._written)
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        self.server.foreign(*words)

    def _fault(self, fault: str) -> None:
        choices, world = self.choices, self.world
        process = self.processes[choices.pick(len(self.processes))]
        connections = process.connections()
        chosen = connections[choices.pick(len(connections))] if connections else None
        if fault == "fork":
            process.fork()
            return
        if fault == "pause":
            self.server.paused_until = world.now + 0.3 * choices.pick(10)
            for each in self.processes:  # a PONG that is late ends a connection
                each.trouble(3.0 + self.mode.timeout * 2)
            world.tell(f"the server pauses until {(self.server.paused_until - 100) * 1000:.0f} ms")
            return
        if fault == "restart":
            for each in self.processes:
                each.trouble(0.0)
            world.tell("the server restarts")
            self.server.restart()
            return
        if fault == "unreachable":
            seconds = 0.1 * choices.pick(20)
            process.unreachable(world.now + seconds)
            process.trouble(seconds + 2.5)  # the longest pause between two attempts
            return
        if chosen is None:
            return
        world.tell(f"{fault}: {chosen.peer.name}")
        if fault == "kill":
            process.trouble(0.0)
            self.server.close(chosen.peer)
        elif fault == "black hole":
            process.trouble(KEEPALIVE + 3 * self.mode.timeout)
            chosen.black_hole()
        elif fault == "surplus" and process.is_idle(chosen):
            # From nowhere: a reply that nobody asked for.
            process.trouble(0.0)
            chosen.arrive(b"$7\r\nsurplus\r\n")

    def check(self) -> None:
        """Judge what must hold after every step."""
        if self.world.violations:
            raise Violation(self.world.violations[0])
        for process in self.processes:
            process.check_bounds()

    def run(self) -> None:
        """Run the schedule.

        Raises:
            Violation: something happened that must not.
        """
        world, choices = self.world, self.choices
        start = world.now
        for _ in range(3 + choices.pick(10)):
            self.later(0.6, self._stranger_writes)
        for fault in sorted(self.mode.faults - {"cancel"}):
            for _ in range(1 + choices.pick(2)):
                self.later(0.6, self._fault, fault)
        world.run(start + 0.7, self.check)
        # From here on nothing more goes wrong; what was begun ends.
        until = world.now + 90.0
        while world.now < until and any(each.running or each.connecting for each in self.processes):
            world.run(world.now + 0.5, self.check)
        # A last round of writes finds out what is not announced any more.
        for _ in range(choices.pick(4)):
            self._stranger_writes()
        bound = max(self.mode.bound, FRESHNESS) if self.mode.faults else self.mode.bound
        world.run(world.now + bound + 0.01, self.check)
        self.check()
        while self.server.will_expire:  # or it is announced when everybody has heard
            world.run(world.now + 0.05, self.check)
        for process in self.processes:
            process.hear()
        world.run(world.now + self.reach * 8, self.check)
        for process in self.processes:
            process.check_rest()
        self._read_again()
        for process in self.processes:
            process.close()
        world.run(world.now + self.mode.timeout + 5.5, self.check)
        self.check()
        for process in self.processes:
            process.check_closed()

    def _read_again(self) -> None:
        """See that what is read twice at rest is asked for once."""
        self.server.table_size = 0
        waiting: list[Process] = []
        for process in self.processes:
            calm = process.ready and process.cache.status == "on" and not self.mode.faults
            if calm and process.cache.max_entries > 4:
                waiting.append(process)
                process.reads_again(partial(waiting.remove, process))
        if waiting:
            self.world.run(self.world.now + PING_INTERVAL, self.check)
            self.check()
            if waiting:
                raise Violation(f"{waiting[0].name}: at rest a read does not end")


class _Numbers:
    """Gives the holders of a cache numbers, so that a set of them has the same order again."""

    last = 0


class _Reservation(Reservation):
    __slots__ = ("number",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _Numbers.last += 1
        self.number = _Numbers.last

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Entry(Entry):
    __slots__ = ("number",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _Numbers.last += 1
        self.number = _Numbers.last

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


@contextmanager
def laboratory() -> Iterator[None]:
    """Have everything stand on the fakes, and nothing left to chance."""
    with ExitStack() as stack:
        stack.enter_context(no_threads())
        stack.enter_context(no_loop())
        stack.enter_context(patch("random.uniform", lambda _, high: high))
        stack.enter_context(patch("random.random", lambda: 0.5))
        stack.enter_context(patch.object(client._cache, "Reservation", _Reservation))
        stack.enter_context(patch.object(client._cache, "Entry", _Entry))
        enabled = gc.isenabled()
        gc.disable()  # no finaliser at a time of its own
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def play(choices: Choices, log: bool = False) -> tuple[str | None, list[str]]:
    """Run one schedule in the laboratory; give what was violated, if anything, and the story."""
    _Numbers.last = 0
    simulation = None
    error = None
    try:
        simulation = Simulation(choices, log)
        simulation.run()
    except Violation as violation:
        error = str(violation)
    except Exception as failure:  # noqa: BLE001 - whatever broke, the schedule found it
        error = f"{type(failure).__name__}: {failure}"
        if log:
            traceback.print_exc()
    story = simulation.world.story if simulation is not None else None
    if simulation is not None:
        finish(simulation)
    return error, story or []


def quiet(task: Any) -> None:
    """Have a task say nothing when it is freed in the middle of things."""
    task._log_destroy_pending = False


def finish(simulation: Simulation) -> None:
    """Let go of everything, without a word."""
    simulation.machine.abandon()
    for process in simulation.processes:
        db = process.client
        if db is not None:
            db._closed = True
        if isinstance(process, AsyncProcess):
            for task in process.tasks:
                if not task.done():
                    quiet(task)
            if db is not None and db._connecting is not None:
                quiet(db._connecting)
