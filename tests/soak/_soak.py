"""One server's time: clients in several set-ups at work, faults, and every few seconds a rest."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy import Proxy
from readers import OPTIN, SETUPS, open_things, resident

import client

from ._faults import Faults
from ._judge import Judge, Wrong
from ._load import TOLERATED, Caller, Listener, Step, Visitor, Worker, adrive, drive
from ._writer import HASHES, NAMES, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from servers import Binary

# Of each front end; one more is drawn from all that there are.
BLOCKING = ("resp3-dedicated", "resp3-inline", "resp2-dedicated", "resp3-dedicated-optin")
AIO = ("resp3-inline", "resp3-dedicated", "resp2-dedicated", "resp3-inline-bcast")
THREADS = 3  # of each blocking client
TASKS = 20  # of each asyncio client

ROUND = 10.0  # seconds between two rests
TIMEOUT = 2.0  # of a call
# Seconds that a call may take beyond it, on a machine that does other things as well.
SLOWNESS = 10.0
PATIENCE = 60.0  # for what has to come
LEAVES = 60.0  # for what has to be gone

# How much more memory there may be at the end than after the warm-up. Judge and caches hold now
# more, now less; measured over ten minutes.
TOLERANCES = {"rss": 0.25, "blocks": 0.1}


class Figures(NamedTuple):
    """What there is when all is at rest, beyond the links: each is two threads, three sockets."""

    rss: int  # KiB
    blocks: int  # of memory, that Python has allocated
    descriptors: int
    threads: int
    tasks: int

    @property
    def things(self) -> dict[str, int]:
        """All but the memory: what has to be the same to the last one."""
        return {name: getattr(self, name) for name in ("descriptors", "threads", "tasks")}

    def told(self) -> str:
        """Say it in a line."""
        return ", ".join(f"{name} {figure:,}" for name, figure in self._asdict().items())


class Soak:
    """Clients on one server; `run` gives the figures of each rest."""

    def __init__(self, binary: Binary, chance: random.Random, longest: float) -> None:
        self._stack = ExitStack()
        self._chance = chance
        self._running = threading.Event()
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._complaints: list[dict[str, Any]] = []
        self._hands: list[Any] = []  # of threads
        self._visitors: list[Visitor] = []
        self._first: dict[str, int] | None = None  # what there was at the first rest
        self.judge = Judge()
        self.callers: list[Caller] = []
        self.workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[client.AsyncClient] = []
        self._server = self._stack.enter_context(binary.start())
        self._proxy = self._stack.enter_context(Proxy(self._server))
        lock = threading.Lock()
        self.writer = Writer(self._server, lock, self.judge, self._derived())
        self._stack.callback(self.writer.close)
        self.faults = Faults(self._proxy, self._server, lock, self._derived(), longest)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self._complaints.append(context))
        self._looping = threading.Thread(target=self._loop.run_forever)

    def _derived(self) -> random.Random:
        return random.Random(self._chance.getrandbits(64))

    # Up and down.

    def __enter__(self) -> Soak:
        try:
            self._looping.start()
            self._stack.callback(self._end_loop)
            extra = self._chance.choice(sorted(SETUPS | OPTIN))
            for setup in (*BLOCKING, extra):
                self._add_blocking(setup)
            extra = self._chance.choice(sorted(SETUPS | OPTIN))
            self._on_loop(self._add_aio((*AIO, extra)))
            self._start(self._visitor(client.connect), "visitor")
            self._start(Repeated(self.writer.step, 0.004, self._chance), "writer")
            self._start(Repeated(self.faults.step, 0.5, self._chance), "faults")
        except BaseException:
            self._stopping.set()
            self._stack.close()
            raise
        return self

    def _options(self, setup: str, chance: random.Random) -> tuple[Any, dict[str, Any]]:
        protocol, tracking = (SETUPS | OPTIN)[setup]
        tracking = {"listener": "dedicated"} | tracking
        cache = client.Cache(max_entries=chance.choice((30, 10_000)))
        options = {"protocol": protocol, "tracking": client.Tracking(**tracking), "cache": cache}
        return tracking, options | {"timeout": TIMEOUT, "connect_timeout": TIMEOUT}

    def _add_blocking(self, setup: str) -> None:
        tracking, options = self._options(setup, self._chance)
        db = self._stack.enter_context(client.connect(self._proxy.url, **options))
        assert db.cache is not None
        while db.cache.status != "on":
            db.cached("GET", NAMES[0])
        caller = Caller(setup, db, self.judge, "optin" in tracking)
        self.callers.append(caller)
        if len(self.callers) == 1:
            self._start(Listener(caller), "listener")
        for _ in range(THREADS):
            worker = Worker(caller, self._derived(), len(self.workers))
            self.workers.append(worker)
            self._start(worker, setup)

    def _start(self, hand: Any, name: str) -> None:
        thread = threading.Thread(target=self._guarded, args=(hand,), name=f"soak {name}")
        thread.start()
        self._hands.append(hand)
        self._stack.callback(thread.join, PATIENCE)
        self._stack.callback(self._stopping.set)

    def _guarded(self, hand: Any) -> None:
        try:
            hand.run(self._running, self._stopping)
        except BaseException as error:  # noqa: BLE001 - told by `_complain`
            self._errors.append(error)

    async def _add_aio(self, setups: tuple[str, ...]) -> None:
        listened = False
        for setup in setups:
            tracking, options = self._options(setup, self._chance)
            db = await client.connect_async(self._proxy.url, **options)
            self._clients.append(db)
            assert db.cache is not None
            async with asyncio.timeout(PATIENCE):  # on a machine that does other things
                while db.cache.status != "on":
                    await db.cached("GET", NAMES[0])
            caller = Caller(f"asyncio {setup}", db, self.judge, "optin" in tracking)
            self.callers.append(caller)
            hands: list[Any] = [] if listened else [Listener(caller)]
            listened = True
            for _ in range(TASKS):
                worker = Worker(caller, self._derived(), len(self.workers))
                self.workers.append(worker)
                hands.append(worker)
            self._tasks += [
                asyncio.create_task(hand.arun(self._running, self._stopping)) for hand in hands
            ]
        visitor = self._visitor(client.connect_async)
        others = [self._cancel([*self._tasks[1:]]), visitor.arun(self._running, self._stopping)]
        self._tasks += [asyncio.create_task(other) for other in others]

    def _visitor(self, connect: Callable[..., Any]) -> Visitor:
        def come() -> Any:
            setup = chance.choice(sorted(SETUPS | OPTIN))
            return connect(self._proxy.url, **self._options(setup, chance)[1])

        chance = self._derived()
        visitor = Visitor(come, self.judge, chance)
        self._visitors.append(visitor)
        return visitor

    async def _cancel(self, workers: list[asyncio.Task[None]]) -> None:
        """Cancel tasks now and then, wherever they are."""
        chance = self._derived()
        while not self._stopping.is_set():
            await asyncio.sleep(chance.random() * 0.1)
            if self._running.is_set():
                chance.choice(workers).cancel()

    def _end_loop(self) -> None:
        try:
            self._on_loop(self._end_aio())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._looping.join(PATIENCE)
            self._loop.close()

    async def _end_aio(self) -> None:
        async with asyncio.timeout(PATIENCE):
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
            for db in self._clients:
                await db.aclose()
        self._errors += [each for each in ended if isinstance(each, Exception)]

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self.faults.heal()
        self._stack.close()
        if kind is None:
            self._complain()

    # Work and rest.

    def run(self, seconds: float) -> None:
        """Let all work for a while; raise what somebody found."""
        self._running.set()
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            self._complain()
        self._running.clear()

    def rest(self) -> Figures:
        """Wait until nobody works; judge what the caches hold, and give what there is."""
        hands = [*self.workers, *self._visitors, *self._hands]
        wait_until(lambda: not any(hand.busy for hand in hands), "a call never ends")
        self.faults.heal()
        truth = self.writer.rest()
        for caller in self.callers:
            self._finish(caller, truth)
        self._complain()
        slowest = max(self.callers, key=lambda caller: caller.slowest)
        if slowest.slowest > 2 * TIMEOUT + SLOWNESS:  # a step is two calls at most
            raise Wrong(f"a step of {slowest.name} took {slowest.slowest:.1f} s")
        return self._figures()

    def _finish(self, caller: Caller, truth: dict[str, bytes | None]) -> None:
        if isinstance(caller.db, client.AsyncClient):
            self._on_loop(adrive(self._at_rest(caller, truth)))
        else:
            drive(self._at_rest(caller, truth))

    def _at_rest(self, caller: Caller, truth: dict[str, bytes | None]) -> Step:
        """Nobody writes: what is cached is what the server holds, and caching works."""
        cache, deadline = caller.cache, time.monotonic() + PATIENCE
        name = self._chance.choice([each for each in NAMES if truth[each] is not None] or NAMES)
        yield from patiently(caller.read("GET", name, max_stale=0), deadline)
        while cache.status != "on":  # what was lost comes back
            if time.monotonic() > deadline:
                raise Wrong(f"{caller.name} does not cache again: {cache.status}")
            yield from patiently(caller.read("GET", name, max_stale=0), deadline)
        for command in cache:
            value = cache.get(command)
            if isinstance(command, tuple) and command[0] in ("GET", "HGETALL"):
                key = command[1]
                held = truth[key] if key in truth else self.writer.truth(key)
                if value is not client.MISS and caller.value_of(value) != held:
                    raise Wrong(f"{caller.name} holds {value!r} of {key}, the server {held!r}")
        for key in (*NAMES, *HASHES):
            read = caller.read("GET" if key in NAMES else "HGETALL", key)
            value = caller.value_of((yield from patiently(read, deadline)))
            if value != truth[key]:
                raise Wrong(f"{caller.name} reads {value!r} of {key}, not {truth[key]!r}")
        for first, second in pairwise(NAMES):
            pair = yield from patiently(partial(caller.pair, first, second), deadline)
            if pair != (truth[first], truth[second]):
                raise Wrong(f"{caller.name} computes {pair!r}, the server holds otherwise")
        hits = cache.stats.hits
        while cache.stats.hits == hits:
            yield from patiently(caller.read("GET", name), deadline)
            if time.monotonic() > deadline:
                raise Wrong(f"{caller.name} has no hit any more: {cache.explain('GET', name)}")
        if isinstance(caller.db, client.Client):
            self._look_at_the_idle(caller.db)
        if cache.stats.reservations:
            raise Wrong(f"{caller.name} has reservations left: {cache.stats}")

    @staticmethod
    def _look_at_the_idle(db: client.Client) -> None:
        """Have the pool notice which of its connections are dead, as it does before it uses them.

        Else a descriptor would stay, for as long as fewer connections are needed than there were.
        """
        pool, held = db._pool, []
        while pool._idle:
            held.append(pool.take())
        for connection in held:
            pool.give_back(connection)

    def _figures(self) -> Figures:
        """Count what there is, once it stays the same, and is what it was at the first rest."""
        before = None
        deadline = time.monotonic() + PATIENCE
        while (now := self._count()).things != (before if self._first is None else self._first):
            before = now.things
            if time.monotonic() > deadline:
                raise Wrong(f"it is not flat: {now.told()}; at first {self._first}")
            time.sleep(0.2)
        self._first = now.things
        return now

    def _count(self) -> Figures:
        self._proxy.reap()
        links = len(self._proxy.links)
        threads, descriptors = open_things()
        tasks = len(asyncio.all_tasks(self._loop))
        return Figures(*memory(), descriptors - 3 * links, threads - 2 * links, tasks)

    def _complain(self) -> None:
        """Raise what a thread or a task found."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if self._errors:
            raise self._errors[0]
        if self._complaints:
            raise Wrong(f"the loop complains: {self._complaints[0]}")

    def summary(self) -> str:
        """Say what was done."""
        count: Counter[str] = sum((caller.count for caller in self.callers), Counter())
        count += self.faults.count + self.writer.count
        count = sum((visitor.count for visitor in self._visitors), count)
        hits = sum(caller.cache.stats.hits for caller in self.callers)
        told = ", ".join(f"{name} {number:,}" for name, number in count.most_common())
        slowest = max(caller.slowest for caller in self.callers)
        judged = f"{self.judge.judged:,} values judged, {hits:,} hits, slowest step {slowest:.1f} s"
        return f"{judged}; {told}"


class Repeated:
    """Does a step again and again, with pauses of up to so many seconds."""

    def __init__(self, step: Callable[[], None], pause: float, chance: random.Random) -> None:
        self.busy = False
        self._step = step
        self._pause = pause
        self._chance = random.Random(chance.getrandbits(64))

    def run(self, running: threading.Event, stopping: threading.Event) -> None:
        while not stopping.wait(self._chance.random() * self._pause):
            self.busy = True
            if running.is_set():
                self._step()
            self.busy = False


def patiently(call: Callable[[], Any], deadline: float) -> Generator[Callable[[], Any], Any, Any]:
    """Call again until it is not a connection's end that comes: some are noticed only now."""
    while True:
        try:
            return (yield call)
        except TOLERATED:
            if time.monotonic() > deadline:
                raise


def wait_until(condition: Callable[[], object], complaint: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(complaint)
        time.sleep(0.01)


def nothing_more_than(before: tuple[int, int]) -> bool:
    """Tell whether there are as many threads and descriptors as there were."""
    gc.collect()
    return open_things() == before


def memory() -> tuple[int, int]:
    """Give the resident memory of this process, in KiB, and how many blocks Python has in it."""
    gc.collect()
    # What is freed between two others stays the allocator's until it is asked: some 20 MiB here,
    # with as many threads, as many arenas and a message of 300 kB now and then.
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    return resident() // 1024, sys.getallocatedblocks()


def soak(
    servers: list[Binary], seconds: float, seed: int, tell: Callable[[str], object] = print
) -> list[Figures]:
    """Soak on one server after the other; give the figures of every rest.

    Raises:
        Wrong: something is not as it should be.
    """
    chance = random.Random(seed)
    each = seconds / len(servers)
    rounds = max(1, round(each / ROUND))
    figures: list[Figures] = []
    for server in servers:
        gc.collect()
        before = open_things()
        # Longer than any time-out, and than the bound of a cache.
        with Soak(server, chance, longest=min(6.0, each / 2)) as soaking:
            for number in range(rounds):
                soaking.run(each / rounds)
                now = soaking.rest()
                tell(f"{server.name}, round {number + 1} of {rounds}: {now.told()}")
                figures.append(now)
            tell(soaking.summary())
            idle = [caller.name for caller in soaking.callers if not caller.cache.stats.hits]
            if idle:
                raise Wrong(f"nothing was shown: no hits of {idle}")
        wait_until(partial(nothing_more_than, before), "something is left over", LEAVES)
    check_memory(figures, tell)
    return figures


def check_memory(figures: list[Figures], tell: Callable[[str], object] = print) -> None:
    """Compare the memory of the last rests with that after the warm-up, the first quarter."""
    warm = len(figures) // 4
    if warm < 2:
        tell("too short to judge memory: eight rounds are needed")
        return
    for name, tolerance in TOLERANCES.items():
        after = mean(getattr(each, name) for each in figures[warm : 2 * warm])
        end = mean(getattr(each, name) for each in figures[-warm:])
        told = (
            f"{name}: {after:,.0f} after the warm-up, {end:,.0f} at the end: "
            f"{end / after - 1:+.1%}, tolerated are {tolerance:+.0%}"
        )
        tell(told)
        if end > after * (1 + tolerance):
            raise Wrong(f"memory is not flat; {told}")
