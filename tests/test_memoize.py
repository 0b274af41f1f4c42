"""Derived values: kept until any of the keys that they were made of changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from readers import PATIENCE, PROMPT, Reader, in_thread, wait_until

import client
from client import MISS, ReplyError, Tracking, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Wire


class Calls:
    """A function of the database that counts how often it is run."""

    def __init__(self, reader: Reader) -> None:
        self.count = 0
        self.read = reader.read

    def total(self, *names: str) -> int:
        self.count += 1
        return sum(int(self.read("GET", f"k:{name}") or 0) for name in names)


def test_a_key_that_is_read_twice_is_depended_on_once(reader: Reader) -> None:
    calls = Calls(reader)
    total = reader.db.memoize(calls.total)
    reader.other("SET", "k:a", 1)
    wait_until(lambda: total("a", "a") == 2)
    reader.other("SET", "k:a", 2)
    wait_until(lambda: total("a", "a") == 4, PROMPT)


def test_result_is_kept_until_any_key_it_read_changes(reader: Reader) -> None:
    calls = Calls(reader)
    total = reader.db.memoize(calls.total)
    for number, name in enumerate("abc", 1):
        reader.other("SET", f"k:{name}", number)

    def settled() -> bool:
        before = calls.count
        return total("a", "b", "c") == 6 and calls.count == before

    wait_until(settled)
    for name in "abc":
        reader.other("SET", f"k:{name}", 10)
        expected = {"a": 15, "b": 23, "c": 30}[name]
        wait_until(lambda expected=expected: total("a", "b", "c") == expected, PROMPT)  # type: ignore[misc]
    before = calls.count
    reader.other("SET", "k:unread", 1)
    wait_until(lambda: total("a", "b", "c") == 30)
    assert calls.count <= before + 1


def test_own_write_drops_the_result_at_once(reader: Reader) -> None:
    calls = Calls(reader)
    total = reader.db.memoize(calls.total)
    for number in range(20):
        reader.db.execute("SET", "k:a", number)
        assert total("a") == number


def test_arguments_are_told_apart_by_type_too(plain_reader: Reader) -> None:
    seen: list[Any] = []

    @plain_reader.db.memoize
    def echo(value: object, *, named: object = None) -> tuple[object, object]:
        seen.append((value, named))
        return (value, named)

    for value in (1, True, 1.0, "1", b"1"):
        for _ in range(2):
            assert type(echo(value)[0]) is type(value)
    assert echo(1, named=2) == (1, 2)
    assert echo(1, named=2) == (1, 2)
    assert len(seen) == 6


def test_nested_results_depend_on_the_inner_ones_keys(plain_reader: Reader) -> None:
    reader = plain_reader
    runs: list[str] = []

    @reader.db.memoize
    def inner() -> Any:
        runs.append("inner")
        return reader.read("GET", "inner")

    @reader.db.memoize
    def outer() -> Any:
        runs.append("outer")
        return (inner(), reader.read("GET", "outer"))

    inner()
    assert outer() == (None, None)  # the inner one was a hit
    assert outer() == (None, None)
    assert runs == ["inner", "outer"]
    reader.other("SET", "inner", "1")
    wait_until(lambda: outer() == (b"1", None), PROMPT)
    assert "inner" in runs[2:]
    assert "outer" in runs[2:]


def test_key_changed_while_computing_is_not_outlived(plain_reader: Reader) -> None:
    reader = plain_reader
    runs: list[Any] = []

    @reader.db.memoize
    def slow() -> Any:
        value = reader.read("GET", "k")
        if not runs:
            told = reader.cache.stats.invalidations
            reader.other("SET", "k", "new")
            wait_until(lambda: reader.cache.stats.invalidations > told)
        runs.append(value)
        return value

    assert slow() is None
    assert slow() == b"new"
    assert slow() == b"new"
    assert len(runs) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda db: db.execute("SET", "other", "x"),
        lambda db: db.execute("TTL", "k"),
        lambda db: db.execute("EVAL", "return 1", 0),
        lambda db: db.execute_many([("GET", "k")]),
        lambda db: db.transaction([("GET", "k")]),
        lambda db: db.uncached("GET", "k"),
    ],
)
def test_what_nobody_announces_is_not_kept(
    plain_reader: Reader, spoil: Callable[[client.Client], Any]
) -> None:
    runs: list[Any] = []

    @plain_reader.db.memoize
    def function() -> None:
        runs.append(plain_reader.read("GET", "k"))
        spoil(plain_reader.db)

    function()
    function()
    assert len(runs) == 2


def test_untracked_keys_are_not_depended_on(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with connect(server.url, tracking=Tracking(bcast=True, prefixes=["in:"])) as db:
        runs: list[str] = []

        @db.memoize
        def read(key: str) -> Any:
            runs.append(key)
            return db.execute("MGET", key, "in:0")

        for _ in range(2):
            read("in:1")
            read("out:1")
        assert runs == ["in:1", "out:1", "out:1"]
    with connect(server.url, tracking=Tracking(optin=True)) as db:
        runs.clear()

        @db.memoize
        def plain() -> Any:
            runs.append("plain")
            return db.execute("GET", "k")

        plain()
        plain()
        assert runs == ["plain"] * 2


def test_error_is_raised_and_not_kept(plain_reader: Reader) -> None:
    plain_reader.other("RPUSH", "l", "x")
    runs: list[int] = []

    @plain_reader.db.memoize
    def function() -> Any:
        runs.append(1)
        return plain_reader.read("GET", "l")

    for _ in range(2):
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            function()
    assert len(runs) == 2
    assert plain_reader.cache.stats.reservations == 0


def test_one_thread_computes_and_the_others_wait(plain_reader: Reader) -> None:
    entered, leave, runs = threading.Event(), threading.Event(), []

    @plain_reader.db.memoize
    def function() -> Any:
        runs.append(1)
        entered.set()
        leave.wait(PATIENCE)
        return plain_reader.read("GET", "k")

    got: list[Any] = []
    threads = [in_thread(lambda: got.append(function()))]
    entered.wait(PATIENCE)
    threads += [in_thread(lambda: got.append(function())) for _ in range(5)]
    wait_until(lambda: plain_reader.cache.stats.waits == 5)
    leave.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert got == [None] * 6
    assert len(runs) == 1


def test_recursive_function_does_not_wait_for_itself(plain_reader: Reader) -> None:
    @plain_reader.db.memoize
    def down(number: int) -> int:
        plain_reader.read("GET", f"k:{number}")
        return 0 if number == 0 else down(number - 1) + (down(number) if number == -1 else 1)

    assert down(20) == 20
    assert down(20) == 20


def test_result_is_a_copy_of_ones_own(plain_reader: Reader) -> None:
    @plain_reader.db.memoize(ttl=60)
    def function() -> list[Any]:
        return [plain_reader.read("GET", "k")]

    function().append("spoiled")
    assert function() == [None]


def test_function_that_reads_only_later_is_refused(plain_reader: Reader) -> None:
    def lazy() -> Iterator[Any]:
        yield plain_reader.read("GET", "k")

    with pytest.raises(TypeError, match="generator function"):
        plain_reader.db.memoize(lazy)


def test_block_can_be_computed_under_a_name(plain_reader: Reader) -> None:
    def report() -> Any:
        with plain_reader.db.computing("report", 7) as computation:
            if computation.value is MISS:
                runs.append(1)
                computation.value = plain_reader.read("GET", "k")
        return computation.value

    runs: list[int] = []
    assert report() is None
    assert report() is None
    assert len(runs) == 1
    plain_reader.other("SET", "k", "new")
    wait_until(lambda: report() == b"new", PROMPT)


def test_lost_data_connection_ends_what_was_made_of_its_reads(plain_reader: Reader) -> None:
    @plain_reader.db.memoize
    def function() -> Any:
        return plain_reader.read("GET", "k")

    assert function() is None
    plain_reader.other("CLIENT", "KILL", "ID", plain_reader.db.id or 0)
    plain_reader.other("SET", "k", "new")
    wait_until(lambda: function() == b"new", PROMPT)


def test_result_ends_with_the_entries_it_was_made_of(server: client.EmbeddedServer) -> None:
    now = [0.0]
    cache = client.Cache(max_ttl=10, clock=lambda: now[0])
    with connect(server.url, cache=cache) as db:
        runs: list[int] = []

        @db.memoize
        def function() -> Any:
            runs.append(1)
            return db.execute("GET", "k")

        db.execute("GET", "k")  # at 0: this entry ends at 10
        cache.prove(now[0])
        now[0] = 2.0
        cache.prove(now[0])
        function()
        entry = cache.find(next(place for place in cache if place != ("GET", "k")))
        assert entry is not None
        assert entry.expires == 10.0


def test_without_a_cache_it_is_refused(any_server: client.EmbeddedServer) -> None:
    with connect(any_server.url) as db, pytest.raises(ValueError, match="no cache"):
        db.memoize(lambda: None)
