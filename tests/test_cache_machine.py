"""The cache as a state machine: any order of steps, beside a model that forgets nothing.

The model knows what each key holds now. What the machine asks: a hit is what the keys held when
it was read and still hold as far as anybody has said, the bounds hold, the index leads to what is
there, and every waiter is woken once.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from client import Cache
from client._cache import MISS, Entry, Source

KEYS = st.sampled_from([b"a", b"b", b"c", b"\xff"])
COMMANDS: dict[tuple[str, ...], tuple[bytes, ...]] = {
    ("GET", "a"): (b"a",),
    ("GET", "b"): (b"b",),
    ("STRLEN", "a"): (b"a",),
    ("SUNION", "a", "b"): (b"a", b"b"),
    ("SUNION", "b", "c"): (b"b", b"c"),
    ("GET", "\udcff"): (b"\xff",),
}


class CacheMachine(RuleBasedStateMachine):
    """Readers, writers, a clock, a channel that comes and goes."""

    flights: Bundle[Any] = Bundle("flights")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache = Cache(max_entries=4, max_bytes=2500, max_ttl=10.0, clock=lambda: self.now)
        self.epoch = self.cache.open(bound=5.0, proven=self.now)
        self.versions = dict.fromkeys((b"a", b"b", b"c", b"\xff"), 0)  # as announced so far
        self.source = Source()
        self.waiting = 0
        self.woken = 0
        self.forks = 0

    def held(self, command: tuple[str, ...]) -> Any:
        return [command[0].encode(), *(self.versions[key] for key in COMMANDS[command])]

    @rule(target=flights, command=st.sampled_from(sorted(COMMANDS)))
    def begin(self, command: tuple[str, ...]) -> Any:
        reservation = self.cache.reserve(command, COMMANDS[command], self.epoch, self.source)
        return (reservation, command, self.held(command), self.forks)

    @rule(flight=consumes(flights), ttl=st.none() | st.floats(0.1, 20))
    def end(self, flight: Any, ttl: float | None) -> None:
        reservation, command, value, forks = flight
        if reservation is None:
            return
        stored = self.cache.fill(reservation, value, ttl)
        if stored:
            assert value == self.held(command), "a value was stored that had been announced as old"
        assert reservation.gone is not None or forks != self.forks

    @rule(flight=consumes(flights), error=st.booleans())
    def fail(self, flight: Any, error: bool) -> None:
        reservation = flight[0]
        if reservation is None:
            return
        if error:
            assert not self.cache.fill(reservation, ValueError("WRONGTYPE"))
        else:
            self.cache.abandon(reservation)
        assert reservation.gone is not None or flight[3] != self.forks

    @rule(flight=flights)
    def wait(self, flight: Any) -> None:
        reservation, _, _, forks = flight
        # The child's threads find no flight of the parent's.
        if (
            reservation is not None
            and forks == self.forks
            and self.cache.when_ended(reservation, self.wake)
        ):
            self.waiting += 1

    def wake(self) -> None:
        self.woken += 1

    @rule(command=st.sampled_from(sorted(COMMANDS)))
    def read(self, command: tuple[str, ...]) -> None:
        value = self.cache.get(command)
        if value is not MISS:
            assert value == self.held(command), "a hit that was announced as old"
            value.append("ours")
            entry = self.cache.find(command)
            assert entry is not None
            assert entry.source.alive
            assert self.now < entry.expires

    @rule(keys=st.lists(KEYS, max_size=3))
    def announce(self, keys: list[bytes]) -> None:
        for key in keys:
            self.versions[key] += 1
        self.cache.invalidate(keys)

    @rule()
    def flush(self) -> None:
        for key in self.versions:
            self.versions[key] += 1
        self.cache.invalidate(None)

    @rule(seconds=st.floats(0.01, 4))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def prove(self) -> None:
        if self.cache.epoch:
            self.cache.prove(self.now)

    @rule()
    def lose_channel(self) -> None:
        self.cache.close("lost")
        for key in self.versions:  # changes that nobody announced
            self.versions[key] += 1

    @rule()
    def open_channel(self) -> None:
        for key in self.versions:
            self.versions[key] += 1
        self.epoch = self.cache.open(bound=5.0, proven=self.now)
        self.source = Source()

    @rule()
    def lose_connection(self) -> None:
        self.cache.end(self.source)
        self.source = Source()
        for key in self.versions:  # the server has forgotten what that connection read
            self.versions[key] += 1

    @rule()
    def fork(self) -> None:
        self.cache.after_fork()
        self.forks += 1
        self.epoch = 0
        self.waiting = self.woken = 0

    @invariant()
    def bounds_hold(self) -> None:
        stats = self.cache.stats
        assert stats.entries + stats.reservations <= 4
        assert stats.bytes <= 2500
        assert stats.bytes == sum(entry.size for entry in self.cache._entries.values())

    @invariant()
    def index_leads_to_what_is_there(self) -> None:
        cache = self.cache
        holders = {*cache._entries.values(), *cache._reserved.values()}
        indexed = set()
        for key, held in cache._index.items():
            for holder in held if isinstance(held, set) else (held,):
                assert holder in holders
                assert key in holder.keys
                indexed.add(holder)
        assert indexed == holders
        for command, entry in cache._entries.items():
            assert entry.command == command
            assert isinstance(entry, Entry)

    @invariant()
    def every_waiter_of_what_has_ended_is_woken(self) -> None:
        still = sum(len(r.waiters or ()) for r in self.cache._reserved.values())
        assert self.waiting - self.woken == still


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
