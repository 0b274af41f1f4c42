"""Reads through the cache: per-key MGET, freshness on request, the server's TTL, audits, events."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from readers import Gate, Reader, in_thread, wait_until

import client
from client import Cache, Tracking, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Wire


class Traced:
    """A client whose frames can be looked at."""

    def __init__(self, url: str, cache: Cache | None = None, **options: Any) -> None:
        self.frames: list[Any] = []
        self.db = connect(
            url, cache=cache or Cache(), trace=lambda *frame: self.frames.append(frame), **options
        )

    def sent(self) -> list[Any]:
        """Give the commands sent on data connections since the last call."""
        sent = [frame for who, way, frame in self.frames if (who, way) == ("data", "sent")]
        self.frames.clear()
        return [tuple(bytes(w, "ascii") if isinstance(w, str) else w for w in f) for f in sent]


# MGET.


def test_mget_fetches_only_what_is_missing(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    wire(server)("MSET", "a", "1", "b", "2", "c", "3")
    traced = Traced(server.url)
    with traced.db as db:
        db.execute("GET", "b")
        traced.sent()
        assert db.execute("MGET", "a", "b", "c", "a") == [b"1", b"2", b"3", b"1"]
        assert traced.sent() == [(b"MGET", b"a", b"c")]
        assert db.execute("MGET", "c", "b") == [b"3", b"2"]
        assert db.execute("GET", "a") == b"1"  # shared with GET
        assert traced.sent() == []
        wire(server)("SET", "b", "new")
        wait_until(lambda: db.execute("MGET", "a", "b") == [b"1", b"new"])
        assert (b"MGET", b"b") in traced.sent()


def test_mgets_null_is_not_gets(server: client.EmbeddedServer, wire: Callable[[Any], Wire]) -> None:
    # MGET has a null for a key of another type, GET an error.
    wire(server)("RPUSH", "list", "x")
    traced = Traced(server.url)
    with traced.db as db:
        assert db.execute("MGET", "list", "none") == [None, None]
        traced.sent()
        assert db.execute("MGET", "none", "list") == [None, None]
        assert traced.sent() == []
        with pytest.raises(client.ReplyError, match="WRONGTYPE"):
            db.execute("GET", "list")


@pytest.mark.parametrize("key", ["none", "list"])
def test_mget_of_one_key_is_a_list_again_and_again(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], key: str
) -> None:
    wire(server)("RPUSH", "list", "x")
    with connect(server.url, cache=True) as db:
        for _ in range(3):
            assert db.execute("MGET", key) == [None]
            assert db.cached("MGET", key) == [None]


def test_negative_zero_is_another_key(plain_reader: Reader) -> None:
    plain_reader.other("SET", "-0.0", "negative")
    wire_form = plain_reader.db.execute("GET", 0.0)
    assert plain_reader.db.execute("GET", 0.0) == wire_form
    assert plain_reader.db.execute("GET", -0.0) != wire_form or wire_form is None


def test_mget_in_every_setup(reader: Reader) -> None:
    reader.other("MSET", "k:1", "1", "k:2", "2")
    assert reader.read("MGET", "k:1", b"k:2", "k:3") == [b"1", b"2", None]
    reader.other("MSET", "k:1", "one", "k:3", "three")
    reader.sees([b"one", b"2", b"three"], "MGET", "k:1", b"k:2", "k:3")


def test_mget_without_keys_is_the_servers_error(plain_reader: Reader) -> None:
    with pytest.raises(client.ReplyError, match="wrong number"):
        plain_reader.db.execute("MGET")


# Freshness on request.


def test_max_stale_zero_is_never_stale_and_refetches_nothing_unchanged(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    traced = Traced(server.url)
    with traced.db as db:
        assert db.cache is not None
        for number in range(100):
            other("SET", "k", number)  # completed: the next read must see it, at once
            assert db.cached("GET", "k", max_stale=0) == b"%d" % number
        db.cached("GET", "k")
        traced.sent()
        hits = db.cache.stats.hits
        for _ in range(20):
            assert db.cached("GET", "k", max_stale=0) == b"99"
        assert traced.sent() == []
        assert db.cache.stats.hits == hits + 20


@pytest.mark.parametrize(
    ("protocol", "tracking"),
    [(2, {"bcast": True}), (3, {"bcast": True}), (3, {"listener": "inline"})],
)
def test_max_stale_in_other_setups(
    server: client.EmbeddedServer,
    wire: Callable[[Any], Wire],
    tracking: dict[str, Any],
    protocol: Any,
) -> None:
    other = wire(server)
    with connect(server.url, protocol=protocol, tracking=Tracking(**tracking)) as db:
        for number in range(50):
            other("SET", "k", number)
            assert db.cached("GET", "k", max_stale=0) == b"%d" % number


def test_recent_proof_is_enough_for_a_laxer_bound(server: client.EmbeddedServer) -> None:
    now = [0.0]
    traced = Traced(server.url, Cache(clock=lambda: now[0]))
    with traced.db as db:
        assert db.cache is not None
        db.cached("GET", "k")
        wait_until(lambda: ("listener", "received", b"PONG") in traced.frames)
        db.cache.prove(0.0)
        now[0] = 0.5
        traced.frames.clear()
        assert db.cached("GET", "k", max_stale=0.6) is None
        assert traced.frames == []
        assert db.cached("GET", "k", max_stale=0.4) is None
        # One round trip: whether the data connection lives, and the PING.
        assert [way for _, way, _ in traced.frames] == ["sent"] * 3 + ["received"] * 3
        assert [frame[2] for frame in traced.frames][2:] == [["PING"], b"OK", b"OK", b"PONG"]


def test_proofs_are_shared(server: client.EmbeddedServer) -> None:
    traced = Traced(server.url)
    with traced.db as db:
        db.cached("GET", "k")
        threads = [
            in_thread(lambda: [db.cached("GET", "k", max_stale=0) for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.join()
        pings = [frame for frame in traced.frames if frame[1:] == ("sent", ["PING"])]
        assert len(pings) < 400


@pytest.mark.parametrize("max_stale", [-1, "0", float("nan")])
def test_max_stale_that_makes_no_sense(plain_reader: Reader, max_stale: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        plain_reader.db.cached("GET", "k", max_stale=max_stale)


# Life.


@pytest.mark.parametrize("optin", [True, False])
def test_rule_11_server_ttl_ends_an_entry_and_keeps_its_tracking(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], optin: bool
) -> None:
    other = wire(server)
    other("SET", "ends", "v", "PX", 5000)
    other("MSET", "stays", "v", "m", "v")
    other("PEXPIRE", "m", 4000)
    now = [100.0]
    cache = Cache(clock=lambda: now[0], server_ttl=True)
    traced = Traced(server.url, cache, tracking=Tracking(optin=optin))
    with traced.db as db:
        traced.sent()
        db.cached("GET", "ends")
        permit = [(b"CLIENT", b"CACHING", b"YES")] * optin
        sent = [frame for frame in traced.sent() if frame[1] != b"TRACKING"]
        assert sent == [(b"PTTL", b"ends"), *permit, (b"GET", b"ends")]
        db.cached("GET", "stays")
        db.cached("GET", "missing")
        db.cached("MGET", "stays", "m")
        lives = {
            command: entry.expires - 100.0
            for command in cache
            if (entry := cache.find(command)) is not None
        }
        assert 4.5 < lives[("GET", "ends")] <= 5.0
        assert 3.5 < lives[("GET", "m")] <= 4.0
        assert lives[("GET", "stays")] == lives[("GET", "missing")] == cache.max_ttl
        for key in ("ends", "stays", "m"):  # tracked all the same
            other("SET", key, "new")
        wait_until(lambda: len(cache) == 1)


def test_server_ttl_of_a_partly_tracked_mget(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    other("MSET", "u", "1", "k:1", "2")
    other("PEXPIRE", "k:1", 5000)
    now = [0.0]
    cache = Cache(clock=lambda: now[0], server_ttl=True)
    tracking = Tracking(bcast=True, prefixes=["k:"])
    with connect(server.url, cache=cache, tracking=tracking) as db:
        wait_until(lambda: (db.execute("MGET", "u", "k:1"), cache.find(("GET", "k:1")))[1])
        entry = cache.find(("GET", "k:1"))
        assert entry is not None
        assert 4 < entry.expires <= 5


@pytest.mark.parametrize("late", [True, False])
def test_server_ttl_of_what_was_read_but_not_kept_ends_what_is_computed_of_it(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], late: bool
) -> None:
    wire(server)("SET", "ends", "v", "PX", 5000)
    now = [100.0]

    def trace(_who: str, way: str, frame: Any) -> None:
        if late and (way, frame) == ("received", b"v"):
            now[0] += 6  # the reply took longer than its key had to live

    cache = Cache(clock=lambda: now[0], server_ttl=True)
    with connect(server.url, cache=cache, trace=trace) as db:
        if not late:  # somebody else is fetching it
            assert cache.reserve(("GET", "ends"), (b"ends",), cache.epoch) is not None
        with db.computing("report") as computation:
            computation.value = db.execute("GET", "ends")
        assert computation.value == b"v"
        assert cache.find(("GET", "ends")) is None
        [left] = [*map(cache.find, cache)] or [None]
        if late:
            assert left is None
            assert cache.stats.refused_by["expired"] == 2
        else:
            assert left is not None
            assert 104 < left.expires <= 105


# Losses that are dropped exactly.


def test_rule_31_lost_data_connection_drops_what_it_read_and_nothing_else(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with connect(server.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        first = db._pool.take()
        db.execute("GET", "by-second")
        db._pool.give_back(first)
        assert first is db._pool.take()
        db._pool.give_back(first)
        db.execute("GET", "by-first")
        assert first.id is not None
        other("CLIENT", "KILL", "ID", first.id)
        wait_until(lambda: cache.find(("GET", "by-first")) is None)
        assert cache.find(("GET", "by-second")) is not None
        assert "connection that read it is gone" in cache.explain("GET", "by-first")


def test_armed_connection_has_the_kernel_watch_for_silence(server: client.EmbeddedServer) -> None:
    with connect(server.url, cache=True) as db:
        db.execute("GET", "k")
        connection = db._pool.take()
        keep_alive = [
            connection._socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        ]
        db._pool.give_back(connection)
        assert keep_alive == [1, 1, 2]


def test_rule_32_connection_told_of_a_broken_redirect_is_armed_anew(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    """A RESP3 data connection is told when a tracked key changes and its target is gone."""
    other = wire(server)
    with connect(server.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        db.execute("GET", "k")
        connection = db._pool.take()
        connection.take_push(client.Push([b"tracking-redir-broken", 1]))
        db._pool.give_back(connection)
        assert cache.find(("GET", "k")) is None
        db.execute("GET", "k")  # armed anew
        assert cache.find(("GET", "k")) is not None
        other("SET", "k", "new")
        wait_until(lambda: db.execute("GET", "k") == b"new")


def test_rule_14_overflow_of_the_servers_table_is_an_invalidation(
    private_server: Any, wire: Callable[[Any], Wire]
) -> None:
    server = private_server(args=["--tracking-table-max-keys", "10"])
    with connect(server.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        for number in range(100):
            db.execute("GET", f"k:{number}")
        wait_until(lambda: len(cache) <= 12)
        other = wire(server)
        for number in range(100):
            other("SET", f"k:{number}", "new")
        for number in range(100):
            wait_until(lambda number=number: db.execute("GET", f"k:{number}") == b"new")  # type: ignore[misc]


@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", 0, 1)])
def test_rule_19_own_flush_and_swap_flush(plain_reader: Reader, command: tuple[Any, ...]) -> None:
    plain_reader.other("SET", "k", "v")
    assert plain_reader.read("GET", "k") == b"v"
    plain_reader.db.execute(*command)
    assert plain_reader.read("GET", "k") is None


# Hits that cost nothing.


def test_hit_borrows_no_connection_and_takes_no_lock(
    plain_reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = plain_reader.db
    db.execute("GET", "k")
    db.execute("LRANGE", "l", 0, -1)
    monkeypatch.setattr(db, "_pool", None)
    monkeypatch.setattr(db, "_tracker", None)
    with plain_reader.cache._lock:  # a hit that wanted it would wait for ever
        assert db.execute("GET", "k") is None
        assert db.cached("GET", "k") is None
        assert db.execute("LRANGE", "l", 0, -1) == []
    monkeypatch.undo()


# Audit.


def serve_wrong(db: Any, cache: Cache) -> None:
    """Make a hit stale, as a bug would that no invalidation follows; the audit counts it."""
    wait_until(lambda: (db.execute("GET", "k"), cache.find(("GET", "k")))[1])
    entry = cache.find(("GET", "k"))
    assert entry is not None
    entry.value = b"wrong"
    assert db.execute("GET", "k") == b"wrong"
    assert cache.stats.stale == 1


def test_audit_finds_a_stale_hit_and_no_other(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    told: list[Any] = []
    cache = Cache(audit=1.0, on_stale=lambda *finding: told.append(finding))
    with connect(server.url, cache=cache) as db:
        for number in range(30):  # races that the order explains
            db.execute("GET", "k")
            other("SET", "k", number)
            db.execute("GET", "k")
        assert cache.stats.audits > 0
        assert (cache.stats.stale, told) == (0, [])
        # A bug, made: an entry that no invalidation will reach.
        serve_wrong(db, cache)
        assert told == [(("GET", "k"), b"wrong", b"29")]
        assert db.execute("GET", "k") == b"29"


def test_audit_that_tells_nobody_drops_a_stale_hit_all_the_same(
    any_server: client.EmbeddedServer,
) -> None:
    cache = Cache(audit=1.0)
    with connect(any_server.url, cache=cache) as db:
        db.execute("SET", "k", "v")
        serve_wrong(db, cache)
        assert db.execute("GET", "k") == b"v"


# Telling.


def test_events_tell_keys_and_reasons(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    cache = Cache(max_entries=2)
    events = cache.events()
    with connect(server.url, cache=cache) as db:
        assert events.get(5) == (None, "connect")
        db.execute("GET", "a")
        other("SET", "a", "1")
        assert events.get(5) == ((b"a",), "changed")
        db.execute("SET", "b", "1")
        assert [events.get(5), events.get(5)] == [((b"b",), "own write")] * 2
        other("FLUSHALL")
        assert events.get(5) == (None, "flushed")
        for name in "xyz":
            db.execute("GET", name)
        evicted = events.get(5)
        assert evicted is not None
        assert evicted.reason == "evicted"
        assert events.get(0) is None
    assert events.get(5) == (None, "client closed")
    events.close()
    events.close()  # which changes nothing
    assert list(events) == []


def test_events_of_a_slow_reader_become_an_overflow() -> None:
    cache = Cache()
    events = cache.events(max_events=3)
    for number in range(4):
        cache.invalidate([b"%d" % number])
    assert events.get(0) == (None, "overflow")
    assert events.get(0) is None
    cache.invalidate([b"1", b"2"])
    cache.invalidate([b"3", b"4"])  # it is the keys that take the room
    assert events.get(0) == (None, "overflow")
    assert events.get(0) is None
    cache.invalidate([b"%d" % number for number in range(9)])  # alone it is as it came
    assert events.get(0) == (tuple(b"%d" % number for number in range(9)), "changed")
    cache.invalidate([b"k"])
    assert next(events) == ((b"k",), "changed")
    events.close()


def test_explain_says_why(plain_reader: Reader) -> None:
    cache, db = plain_reader.cache, plain_reader.db
    assert cache.explain("GET", "k") == (
        "not cached yet: not read, or one of its keys has changed since"
    )
    db.execute("GET", "k")
    assert cache.explain("GET", "k").startswith("cached, for ")
    assert cache.explain("TTL", "k").startswith("not cached: TTL counts down")
    assert cache.explain("SET", "k", "v").startswith("not cached: SET ")
    db.close()
    assert cache.explain("GET", "k") == "not cached: caching is off: client closed"


def test_explain_knows_the_prefixes(server: client.EmbeddedServer) -> None:
    with connect(server.url, tracking=Tracking(bcast=True, prefixes=["in:"])) as db:
        assert db.cache is not None
        assert "prefixes" in db.cache.explain("GET", "out")


def test_fetch_under_way_is_told(plain_reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_reader.read("GET", "warm")
    gate = Gate(monkeypatch, "GET")
    leader = in_thread(plain_reader.read, "GET", "k", name="leader")
    gate.entered.wait(5)
    assert plain_reader.cache.explain("GET", "k") == "not cached yet: being fetched"
    gate.leave.set()
    leader.join()


def test_staleness_bound_can_be_read(reader: Reader) -> None:
    assert reader.cache.staleness_bound == 2.5
