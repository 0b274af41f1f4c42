"""The cache: what is stored, when it is refused, what an announcement drops, what it holds."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import MISS, Cache
from resp import ReplyError, Verbatim

FOREVER = float("inf")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Cache:
    cache = Cache(clock=clock)
    cache.open()
    return cache


def keep(cache: Cache, key: bytes, value: Any, ttl: float | None = None) -> bool:
    reservation = cache.reserve(("GET", key), (key,), cache.epoch)
    return reservation is not None and cache.fill(reservation, value, ttl)


def test_what_was_filled_is_served(cache: Cache) -> None:
    assert cache.get(("GET", b"k")) is MISS
    assert repr(MISS) == "MISS"
    assert keep(cache, b"k", b"v")
    assert cache.get(("GET", b"k")) == b"v"
    assert len(cache) == 1
    assert ("GET", b"k") in cache


@pytest.mark.parametrize("value", [None, 0, b"", False, 0.0])
def test_others_fail_08_falsy_values_are_hits(cache: Cache, value: Any) -> None:
    keep(cache, b"k", value)
    assert cache.get(("GET", b"k")) is value


def test_empty_containers_are_hits(cache: Cache) -> None:
    for key, value in ((b"l", []), (b"d", {}), (b"s", set())):
        keep(cache, key, value)
        assert cache.get(("GET", key)) == value


def test_others_fail_02_error_reply_is_never_stored_and_leaves_no_reservation(cache: Cache) -> None:
    assert not keep(cache, b"k", ReplyError("WRONGTYPE of value"))
    assert cache.get(("GET", b"k")) is MISS
    assert keep(cache, b"k", b"v")


def test_invalidation_drops_the_entries_of_its_keys_only(cache: Cache) -> None:
    keep(cache, b"one", b"1")
    keep(cache, b"two", b"2")
    cache.invalidate([b"one", b"unknown"])
    assert cache.get(("GET", b"one")) is MISS
    assert cache.get(("GET", b"two")) == b"2"


def test_all_commands_that_read_a_key_are_dropped_with_it(cache: Cache) -> None:
    for command in (("HGET", "h", "f1"), ("HGET", "h", "f2"), ("HGETALL", "h")):
        reservation = cache.reserve(command, (b"h",), cache.epoch)
        assert reservation is not None
        cache.fill(reservation, b"v")
    assert len(cache) == 3
    cache.invalidate(["h"])
    assert len(cache) == 0


def test_entry_of_several_keys_goes_with_any_of_them(cache: Cache) -> None:
    for victim in (b"a", b"b"):
        reservation = cache.reserve("MGET", (b"a", b"b", b"a"), cache.epoch)
        assert reservation is not None
        cache.fill(reservation, [b"1", b"2"])
        cache.invalidate([victim])
        assert cache.get("MGET") is MISS
    assert cache.stats.bytes == 0


def test_others_fail_05_binary_keys_stay_apart(cache: Cache) -> None:
    keep(cache, b"\xff", b"1")
    keep(cache, b"\xfe", b"2")
    cache.invalidate([b"\xff"])
    assert cache.get(("GET", b"\xfe")) == b"2"


def test_rule_22_key_invalidated_in_flight_is_not_stored(cache: Cache) -> None:
    reservation = cache.reserve("c", (b"k",), cache.epoch)
    assert reservation is not None
    cache.invalidate([b"k"])
    assert not cache.fill(reservation, b"old")
    assert cache.get("c") is MISS


def test_others_fail_03_flush_in_flight_is_not_outlived(cache: Cache) -> None:
    reservation = cache.reserve("c", (b"k",), cache.epoch)
    assert reservation is not None
    cache.invalidate(None)  # FLUSHALL
    assert not cache.fill(reservation, b"old")


def test_rule_23_channel_lost_in_flight_is_not_outlived(cache: Cache) -> None:
    reservation = cache.reserve("c", (b"k",), cache.epoch)
    assert reservation is not None
    cache.close("listener lost")
    cache.open()
    assert not cache.fill(reservation, b"old")


def test_rule_22_token_is_unique(cache: Cache) -> None:
    first = cache.reserve("c", (b"k",), cache.epoch)
    assert first is not None
    cache.invalidate([b"k"])
    second = cache.reserve("c", (b"k",), cache.epoch)
    assert second is not None
    assert not cache.fill(first, b"old")
    assert cache.fill(second, b"new")
    assert cache.get("c") == b"new"


def test_rule_23_older_epoch_can_not_reserve(cache: Cache) -> None:
    old = cache.epoch
    cache.close("lost")
    assert cache.reserve("c", (b"k",), 0) is None
    assert cache.reserve("c", (b"k",), old) is None
    assert cache.open() != old
    assert cache.reserve("c", (b"k",), old) is None


def test_command_in_flight_is_not_reserved_twice(cache: Cache) -> None:
    first = cache.reserve("c", (b"k",), cache.epoch)
    assert first is not None
    assert cache.reserve("c", (b"k",), cache.epoch) is None
    cache.abandon(first)
    cache.abandon(first)
    assert cache.reserve("c", (b"k",), cache.epoch) is not None


def test_closed_cache_serves_and_keeps_nothing(clock: Clock) -> None:
    cache = Cache(clock=clock)
    assert cache.status == "off: not connected"
    assert not keep(cache, b"k", b"v")
    cache.open()
    assert cache.status == "on"
    keep(cache, b"k", b"v")
    cache.close("why not")
    assert cache.get(("GET", b"k")) is MISS
    assert cache.status == "off: why not"


def test_rule_38_entry_lives_no_longer_than_max_ttl_or_its_own(clock: Clock) -> None:
    cache = Cache(clock=clock, max_ttl=10)
    cache.open()
    keep(cache, b"long", b"v", ttl=99)
    keep(cache, b"short", b"v", ttl=2)
    clock.now += 2
    assert cache.get(("GET", b"short")) is MISS
    assert cache.get(("GET", b"long")) == b"v"
    clock.now += 8
    assert cache.get(("GET", b"long")) is MISS


def test_expired_entry_can_be_fetched_anew(clock: Clock) -> None:
    cache = Cache(clock=clock, max_ttl=1)
    cache.open()
    keep(cache, b"k", b"old")
    clock.now += 1
    assert keep(cache, b"k", b"new")
    assert cache.get(("GET", b"k")) == b"new"
    assert len(cache) == 1


def test_nothing_is_served_beyond_the_proof_of_freshness(clock: Clock) -> None:
    cache = Cache(clock=clock)
    cache.open(bound=2, proven=clock.now)
    assert cache.staleness_bound == 2
    keep(cache, b"k", b"v")
    clock.now += 2
    assert cache.get(("GET", b"k")) is MISS
    cache.prove(clock.now)  # nothing was lost meanwhile: the entry is good again
    assert cache.get(("GET", b"k")) == b"v"


@pytest.mark.parametrize(
    "value",
    [
        [b"a", b"b"],
        {b"f": b"v"},
        {b"a", b"b"},
        [[b"a", [b"b"]], {b"k": [b"v"]}],
        {(b"frozen",): [b"v"]},
    ],
)
def test_others_fail_07_callers_can_not_change_what_is_cached(cache: Cache, value: Any) -> None:
    pristine = repr(value)
    keep(cache, b"k", value)
    spoil(value)
    first = cache.get(("GET", b"k"))
    assert repr(first) == pristine
    spoil(first)
    assert repr(cache.get(("GET", b"k"))) == pristine


def spoil(value: Any) -> None:
    for member in list(value.values() if isinstance(value, dict) else value):
        if isinstance(member, list | dict | set):
            spoil(member)
    value.clear()


def test_immutable_values_are_not_copied(cache: Cache) -> None:
    value = Verbatim(b"text", "txt")
    keep(cache, b"k", value)
    assert cache.get(("GET", b"k")) is value


def test_value_nested_too_deep_to_copy_is_not_kept(cache: Cache) -> None:
    value: list[Any] = []
    for _ in range(1000):
        value = [value]
    assert not keep(cache, b"k", value)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.binary(max_size=200), st.booleans(), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 8),
    st.integers(800, 6000),
)
def test_rule_38_bounds_hold_at_all_times(
    steps: list[tuple[int, bytes, bool, bool]], max_entries: int, max_bytes: int
) -> None:
    cache = Cache(max_entries=max_entries, max_bytes=max_bytes)
    cache.open()
    pending = []
    for number, value, finish, forget in steps:
        key = b"%d" % number
        reservation = cache.reserve(number, (key, b"shared"), cache.epoch)
        if reservation is not None:
            if finish:
                cache.fill(reservation, value)
            else:
                pending.append(reservation)
        elif forget:
            cache.invalidate([key])
        stats = cache.stats
        assert stats.entries + stats.reservations <= max_entries
        assert stats.bytes <= max_bytes
        assert (stats.entries == 0) == (stats.bytes == 0)
    for reservation in pending:
        cache.fill(reservation, b"late")
    assert cache.stats.bytes <= max_bytes
    cache.invalidate([b"shared"])
    assert (cache.stats.entries, cache.stats.bytes) == (0, 0)
    assert cache._index == {}  # no row outlives its entries


def test_bookkeeping_of_an_entry_costs_at_most_300_bytes() -> None:
    number = 100_000
    rows = [(("GET", f"key:{n}"), b"key:%d" % n, b"value:%d" % n) for n in range(number)]
    cache = Cache(max_entries=number, max_bytes=2**30)
    epoch = cache.open()
    tracemalloc.start()
    try:
        for command, key, value in rows:
            reservation = cache.reserve(command, (key,), epoch)
            assert reservation is not None
            cache.fill(reservation, value)
        del reservation, command, key, value
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(cache) == number
    assert taken / number <= 300
    # What the bound on bytes is held by is an estimate, and not a low one.
    beside = sum(
        sys.getsizeof(command) + sum(map(sys.getsizeof, command)) + sys.getsizeof(value)
        for command, _, value in rows
    )
    assert 0.8 <= (cache.stats.bytes - beside) / taken <= 1.3


def test_keys_of_an_entry_count_towards_the_bytes() -> None:
    cache = Cache(max_bytes=2**30)
    cache.open()
    keys = tuple(b"%d" % number for number in range(10_000))
    reservation = cache.reserve("EXISTS", keys, cache.epoch)
    assert reservation is not None
    cache.fill(reservation, 1)
    assert cache.stats.bytes > 10_000 * 90


def test_rule_38_value_too_big_for_its_share_is_not_kept() -> None:
    cache = Cache(max_bytes=8000)
    cache.open()
    keep(cache, b"small", b"v")
    assert not keep(cache, b"big", bytes(2000))
    assert cache.get(("GET", b"small")) == b"v"


def test_eviction_spares_what_was_hit() -> None:
    cache = Cache(max_entries=3)
    cache.open()
    for key in (b"a", b"b", b"c"):
        keep(cache, key, b"v")
    cache.get(("GET", b"a"))
    keep(cache, b"d", b"v")
    assert list(cache) == [("GET", b"a"), ("GET", b"c"), ("GET", b"d")]
    assert cache.stats.evictions == 1


def test_full_of_reservations_it_reserves_no_more() -> None:
    cache = Cache(max_entries=2)
    cache.open()
    assert cache.reserve(1, (b"a",), cache.epoch)
    assert cache.reserve(2, (b"b",), cache.epoch)
    assert cache.reserve(3, (b"c",), cache.epoch) is None


def test_others_fail_09_invalidation_costs_its_own_keys_not_the_cache(cache: Cache) -> None:
    looked_at: list[Any] = []

    class Counting(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            looked_at.append(key)
            return super().get(key, default)

        def __iter__(self) -> Any:
            raise AssertionError("went through all keys")

        items = values = keys = __iter__

    for number in range(1000):
        keep(cache, b"%d" % number, b"v")
    cache._index = Counting(cache._index)
    cache._entries = Counting(cache._entries)
    cache.invalidate([b"5", b"unknown"])
    assert len(looked_at) <= 4
    assert len(cache) == 999


def test_statistics_count_what_happened(cache: Cache) -> None:
    keep(cache, b"a", b"1")
    keep(cache, b"b", b"2")
    for _ in range(3):
        cache.get(("GET", b"a"))
    cache.invalidate([b"a", b"x"])
    cache.get(("GET", b"b"))
    cache.flush()
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.fills) == (4, 2, 2)
    assert (stats.invalidations, stats.dropped, stats.flushes) == (2, 1, 2)  # open flushes as well
    assert (stats.entries, stats.reservations, stats.bytes) == (0, 0, 0)


def test_callbacks_are_told_of_keys_and_flushes(cache: Cache) -> None:
    told: list[tuple[tuple[bytes, ...] | None, str]] = []
    cache.on_invalidate(lambda keys, reason: told.append((keys, reason)))
    cache.invalidate([b"k"])
    cache.invalidate(None)
    cache.flush("because")
    cache.close("lost")
    assert told == [
        ((b"k",), "changed"),
        (None, "flushed"),
        (None, "because"),
        (None, "reconnect"),
    ]


def test_callback_that_raises_does_not_stop_the_next(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    told: list[Any] = []

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    cache.on_invalidate(fail)
    cache.on_invalidate(lambda keys, _: told.append(keys))
    cache.invalidate([b"k"])
    assert told == [(b"k",)]
    assert [str(unraisable.exc_value) for unraisable in raised] == ["mine"]


def test_callback_may_use_the_cache(cache: Cache) -> None:
    cache.on_invalidate(lambda keys, _: cache.get("x"))
    cache.on_invalidate(lambda keys, _: cache.flush() if keys else None)
    keep(cache, b"k", b"v")
    cache.invalidate([b"other"])
    assert len(cache) == 0


def test_empty_cache_is_a_cache() -> None:
    assert Cache()
    assert len(Cache()) == 0


def test_single_key_instead_of_keys_is_refused(cache: Cache) -> None:
    with pytest.raises(TypeError, match="iterable of keys"):
        cache.invalidate("key")


@pytest.mark.parametrize("bound", ["max_entries", "max_bytes", "max_ttl"])
def test_bounds_are_positive_numbers(bound: str) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=bound):
            Cache(**{bound: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=bound):
        Cache(**{bound: "9"})  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_audit_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Cache(audit=share)


def test_cache_belongs_to_one_client() -> None:
    class Owner:
        pass

    cache, owner = Cache(), Owner()
    cache.claim(owner)
    cache.claim(owner)
    cache.release(Owner())  # who never had it
    with pytest.raises(ValueError, match="belongs to another"):
        cache.claim(Owner())
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    cache.claim(Owner())


def test_rule_35_forked_child_starts_empty_even_if_the_lock_was_held(cache: Cache) -> None:
    keep(cache, b"k", b"v")
    with cache._lock:
        cache.after_fork()
    assert len(cache) == 0
    assert cache.epoch == 0
    cache.open()
    assert keep(cache, b"k", b"v")


def test_many_threads_leave_it_consistent() -> None:
    cache = Cache(max_entries=50)
    cache.open()
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(2000):
                number = (seed * 7919 + step * 31) % 80
                key = b"%d" % number
                if cache.get(("GET", key)) is MISS:
                    keep(cache, key, b"v%d" % number)
                if step % 5 == 0:
                    cache.invalidate([b"%d" % (number // 2)])
                if step % 500 == 0:
                    cache.flush()
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    cache.invalidate([b"%d" % number for number in range(80)])
    assert (len(cache), cache._index, cache.stats.bytes) == (0, {}, 0)


def test_flush_frees_what_was_held_without_the_garbage_collector(cache: Cache) -> None:
    class Value:
        pass

    values = [Value() for _ in range(10)]
    gone = [weakref.ref(value) for value in values]
    for number, value in enumerate(values):
        keep(cache, b"%d" % number, value)
    cache.get(("GET", b"0"))
    del value, values
    gc.disable()
    try:
        cache.invalidate(None)
        assert [reference() for reference in gone] == [None] * 10
    finally:
        gc.enable()
    assert cache.stats.hits == 1


def test_rule_38_reservation_of_too_many_keys_is_dropped() -> None:
    cache = Cache(max_bytes=100_000)
    cache.open()
    reservation = cache.reserve("report", (b"first",), cache.epoch)
    assert reservation is not None
    woken: list[bool] = []
    cache.when_ended(reservation, lambda: woken.append(True))
    extended = 0
    while cache.extend(reservation, (b"%d" % extended,)):
        extended += 1
    assert 50 < extended < 200  # an eighth of the bytes
    assert woken == [True]
    assert cache.stats.reservations == 0
    assert cache._index == {}
    assert not cache.fill(reservation, b"v")
    assert cache.stats.refused_by == {"too big": 1}


def test_reservation_that_was_extended_depends_on_each_key_once(cache: Cache) -> None:
    for victim in (b"a", b"b", b"c"):
        reservation = cache.reserve("report", (b"a",), cache.epoch)
        assert reservation is not None
        assert cache.extend(reservation, (b"b", b"a"))
        assert cache.extend(reservation, (b"c", b"b"))
        assert cache.fill(reservation, b"v")
        entry = cache.find("report")
        assert entry is not None
        assert entry.keys == (b"a", b"b", b"c")
        cache.invalidate([victim])
        assert cache.get("report") is MISS
        assert cache._index == {}


def test_drop_that_is_interrupted_leaves_no_entry_that_no_invalidation_finds(cache: Cache) -> None:
    keep(cache, b"k", b"old")

    class Interrupting(dict[Any, Any]):
        def __delitem__(self, key: Any) -> None:
            raise KeyboardInterrupt

        def pop(self, key: Any, *default: Any) -> Any:
            raise KeyboardInterrupt

    cache._index = Interrupting(cache._index)
    with pytest.raises(KeyboardInterrupt):
        cache.invalidate([b"k"])
    assert cache.get(("GET", b"k")) is MISS
