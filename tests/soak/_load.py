"""What the clients are asked for, described once for both front ends.

A step is a generator that yields what to call: the blocking worker calls it, the asyncio worker
awaits what it gives.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import client

from ._judge import Judge, Wrong, text_of
from ._writer import CHANNEL, HASHES, NAMES

if TYPE_CHECKING:
    import random
    import threading

Step = Generator[Callable[[], Any], Any, None]

# What a call may end with while connections die and the server is short of memory. Then it takes
# no transaction, not even one that only reads.
TOLERATED = (ConnectionError, TimeoutError, client.OutOfMemoryError, client.ExecAbortError)

_PAIRS = [(NAMES[number], NAMES[number + 1]) for number in range(10)]


class Caller:
    """One client, and how its replies are judged."""

    def __init__(
        self, name: str, db: client.Client | client.AsyncClient, judge: Judge, optin: bool
    ) -> None:
        assert db.cache is not None
        self.name = name
        self.db: Any = db
        self.cache = db.cache
        self.bound = db.cache.staleness_bound
        assert 0 < self.bound < 10
        self.judge = judge
        self.optin = optin
        self.count: Counter[str] = Counter()
        self.slowest = 0.0
        self.pair: Callable[..., Any]
        if isinstance(db, client.AsyncClient):
            self.pair = _compute_on_a_loop(db)
        else:
            self.pair = _compute(db)

    def read(self, *command: Any, **options: Any) -> Callable[[], Any]:
        return lambda: self.db.cached(*command, **options)

    @staticmethod
    def value_of(reply: Any) -> Any:
        """Give what a key holds, to be judged: of a hash, in either protocol, its one value."""
        if isinstance(reply, list):
            reply = dict(zip(reply[::2], reply[1::2], strict=True))
        if isinstance(reply, dict):
            return reply.pop(b"value", None)  # taken out, to spoil it for others if it is shared
        return reply


def _compute(db: client.Client) -> Callable[..., Any]:
    @db.memoize
    def pair(*names: str) -> tuple[Any, ...]:
        return tuple([db.cached("GET", name) for name in names])

    return pair


def _compute_on_a_loop(db: client.AsyncClient) -> Callable[..., Any]:
    @db.memoize
    async def pair(*names: str) -> tuple[Any, ...]:
        return tuple([await db.cached("GET", name) for name in names])

    return pair


class Worker:
    """Asks for one thing after the other."""

    def __init__(self, caller: Caller, chance: random.Random, number: int) -> None:
        self.caller = caller
        self.chance = chance
        self.number = number
        self.busy = False
        self._written = self._attempts = self._generation = 0
        self._steps: list[Callable[[], Step]] = [
            *[self.hit] * 6, *[self.hash] * 3, *[self.plain] * 2, *[self.fresh] * 2,
            *[self.several] * 2, *[self.computed] * 2, *[self.own] * 3,
            self.echo, self.pipeline, self.transaction, self.increment, self.past,
        ]  # fmt: skip

    def step(self) -> Step:
        return self.chance.choice(self._steps)()

    # Replies belong to their commands.

    def echo(self) -> Step:
        asked = self._unique() * self.chance.choice((1, 1, 1, 20_000))
        self._same((yield lambda: self.caller.db.execute("ECHO", asked)), asked)

    def pipeline(self) -> Step:
        asked = [self._unique() for _ in range(5)]
        commands = [("ECHO", each) for each in asked]
        self._same((yield lambda: self.caller.db.execute_many(commands)), asked)

    def transaction(self) -> Step:
        asked, name = self._unique(), self.chance.choice(NAMES)
        commands = [("ECHO", asked), ("GET", name)]
        since = time.monotonic()
        echoed, value = yield lambda: self.caller.db.transaction(commands)
        self._same(echoed, asked)
        self._judge(name, value, since, 0)

    def increment(self) -> Step:
        # A write is never run twice, however often it failed.
        self._attempts += 1
        key = f"count:{self.caller.name}:{self.number}"
        reply = yield lambda: self.caller.db.execute("INCR", key)
        if not 1 <= reply <= self._attempts:
            raise Wrong(f"INCR was called {self._attempts} times, and gives {reply}")

    # Values are what they were when they were asked for, or as old as is allowed.

    def hit(self) -> Step:
        name, since = self.chance.choice(NAMES), time.monotonic()
        self._judge(name, (yield self.caller.read("GET", name)), since)

    def hash(self) -> Step:
        name, since = self.chance.choice(HASHES), time.monotonic()
        self._judge(name, (yield self.caller.read("HGETALL", name)), since)

    def plain(self) -> Step:
        name, since = self.chance.choice(NAMES), time.monotonic()
        value = yield lambda: self.caller.db.execute("GET", name)
        self._judge(name, value, since, 0 if self.caller.optin else None)

    def fresh(self) -> Step:
        name, bound = self.chance.choice(NAMES), self.chance.choice((0, 0, 0.5))
        since = time.monotonic()
        value = yield self.caller.read("GET", name, max_stale=bound)
        self._judge(name, value, since, bound)

    def past(self) -> Step:
        name, since = self.chance.choice(NAMES), time.monotonic()
        value = yield lambda: self.caller.db.uncached("GET", name)
        self._judge(name, value, since, 0)

    def several(self) -> Step:
        names, since = self.chance.sample(NAMES, 3), time.monotonic()
        values = yield self.caller.read("MGET", *names)
        for name, value in zip(names, values, strict=True):
            self._judge(name, value, since)

    def computed(self) -> Step:
        names, since = self.chance.choice(_PAIRS), time.monotonic()
        values = yield lambda: self.caller.pair(*names)
        for name, value in zip(names, values, strict=True):
            self._judge(name, value, since)

    def own(self) -> Step:
        # A client reads its own write at once.
        judge = self.caller.judge
        key = f"own:{self.caller.name}:{self.number}:{self._generation}"
        self._written += 1
        value = text_of(key, self._written)
        possible = judge.begin(key, value)
        try:
            yield lambda: self.caller.db.execute("SET", key, value)
        except BaseException:
            # It may run yet, behind the next one: what comes of this key is anybody's guess.
            self._generation += 1
            judge.forget(key)
            raise
        judge.done(key, possible)
        since = time.monotonic()
        self._judge(key, (yield self.caller.read("GET", key)), since, 0)

    def _unique(self) -> bytes:
        return b"%d:%d " % (self.number, self.chance.getrandbits(40))

    def _same(self, reply: Any, asked: Any) -> None:
        if reply != asked:
            raise Wrong(f"{self.caller.name} asked for {asked!r:.80}, got {reply!r:.80}")

    def _judge(self, name: str, reply: Any, since: float, bound: float | None = None) -> None:
        value = self.caller.value_of(reply)
        try:
            self.caller.judge.check(
                name, value, since, self.caller.bound if bound is None else bound
            )
        except Wrong as wrong:
            raise Wrong(f"{self.caller.name}: {wrong}") from None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        with tolerating(self.caller.count, "steps"):
            yield
        self.caller.slowest = max(self.caller.slowest, time.monotonic() - began)

    # The two ways to carry a step out.

    def run(self, running: threading.Event, stopping: threading.Event) -> None:
        """Work in a thread of its own until it is over."""
        while not stopping.is_set():
            self.busy = True
            if running.is_set():
                with self._timed():
                    drive(self.step())
            self.busy = False
            time.sleep(self.chance.random() * (0.004 if running.is_set() else 0.1))

    async def arun(self, running: threading.Event, stopping: threading.Event) -> None:
        """Work in a task of its own until it is over, and survive being cancelled."""
        while not stopping.is_set():
            self.busy = True
            try:
                if running.is_set():
                    with self._timed():
                        await adrive(self.step())
                self.busy = False
                await asyncio.sleep(self.chance.random() * 0.04)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                self.caller.count["cancelled"] += 1


@contextmanager
def tolerating(count: Counter[str], what: str) -> Iterator[None]:
    """Count how often something was done, and what of the tolerated errors it ended with."""
    try:
        yield
        count[what] += 1
    except TOLERATED as error:
        count[type(error).__name__] += 1


def drive(step: Step) -> None:
    """Carry a step out."""
    try:
        call = next(step)
        while True:
            try:
                reply = call()
            except BaseException as error:  # noqa: BLE001 - the step's to handle
                call = step.throw(error)
            else:
                call = step.send(reply)
    except StopIteration:
        return


async def adrive(step: Step) -> None:
    """Carry a step out on a loop."""
    try:
        call = next(step)
        while True:
            try:
                reply = await call()
            except BaseException as error:  # noqa: BLE001 - the step's to handle
                call = step.throw(error)
            else:
                call = step.send(reply)
    except StopIteration:
        return


class Listener:
    """A subscriber: messages come in order, and none comes twice."""

    def __init__(self, caller: Caller) -> None:
        self.busy = False  # it may always be waited for
        self._caller = caller
        self._last = 0

    def run(self, running: threading.Event, stopping: threading.Event) -> None:
        while not stopping.is_set():
            with (
                tolerating(self._caller.count, "subscriptions"),
                self._caller.db.pubsub(CHANNEL) as messages,
            ):
                while not stopping.is_set():
                    self._take(messages.get(0.1))

    async def arun(self, running: threading.Event, stopping: threading.Event) -> None:
        while not stopping.is_set():
            with tolerating(self._caller.count, "subscriptions"):
                async with self._caller.db.pubsub(CHANNEL) as messages:
                    while not stopping.is_set():
                        self._take(await messages.get(0.1))
            await asyncio.sleep(0.01)

    def _take(self, message: client.Message | None) -> None:
        if message is None:
            return
        number = int(message.data)
        if number <= self._last:
            raise Wrong(f"{self._caller.name} heard {number} after {self._last}")
        self._last = number
        self._caller.count["messages"] += 1


class Visitor:
    """Comes, reads, and goes: what does not come up, or goes early, leaves nothing behind."""

    def __init__(
        self,
        connect: Callable[[], Any],
        judge: Judge,
        chance: random.Random,
    ) -> None:
        self.busy = False
        self.count: Counter[str] = Counter()
        self._connect = connect
        self._judge = judge
        self._chance = chance

    def run(self, running: threading.Event, stopping: threading.Event) -> None:
        while not stopping.wait(self._chance.random() * 0.5):
            self.busy = True
            if running.is_set():
                with tolerating(self.count, "visits"), self._connect() as db:
                    for name in self._names():
                        since = time.monotonic()
                        self._check(db, name, db.cached("GET", name), since)
            self.busy = False

    async def arun(self, running: threading.Event, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self.busy = True
            if running.is_set():
                with tolerating(self.count, "visits"):
                    async with self._connect() as db:
                        for name in self._names():
                            since = time.monotonic()
                            self._check(db, name, await db.cached("GET", name), since)
            self.busy = False
            await asyncio.sleep(self._chance.random() * 0.5)

    def _names(self) -> list[str]:
        return self._chance.choices(NAMES, k=self._chance.randrange(4))

    def _check(self, db: Any, name: str, value: Any, since: float) -> None:
        self._judge.check(name, value, since, db.cache.staleness_bound)
