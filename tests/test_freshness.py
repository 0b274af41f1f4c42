"""Never silently stale: races that a network can arrange, links that die, and a hammer.

A client of the default set-up opens its first data connection, then its listener: they are the
proxy's first two links.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from proxy import Link, Proxy
from readers import PATIENCE, PROMPT, in_thread, wait_until

import client
from client import MISS, Cache, Tracking, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer
    from servers import Wire

BOUND = 3.0  # seconds: no stale hit later than this after a link went dead


class Bench:
    """A caching client behind a proxy, and somebody else before it."""

    def __init__(self, proxy: Proxy, db: client.Client, other: Wire) -> None:
        self.proxy = proxy
        self.db = db
        self.other = other
        assert db.cache is not None
        self.cache = db.cache

    @property
    def data(self) -> Link:
        return self.proxy.links[0]

    @property
    def listener(self) -> Link:
        return self.proxy.links[1]


@pytest.fixture(params=[{}, {"bcast": True}, {"noloop": True}, {"optin": True}], ids=str)
def bench(
    request: pytest.FixtureRequest,
    server: client.EmbeddedServer,
    wire: Callable[[Any], Wire],
) -> Iterator[Bench]:
    tracking = Tracking(**request.param)
    with Proxy(server) as proxy, connect(proxy.url, tracking=tracking, timeout=PATIENCE) as db:
        yield Bench(proxy, db, wire(server))


@pytest.fixture
def plain_bench(server: client.EmbeddedServer, wire: Callable[[Any], Wire]) -> Iterator[Bench]:
    with Proxy(server) as proxy, connect(proxy.url, cache=True, timeout=PATIENCE) as db:
        yield Bench(proxy, db, wire(server))


def test_rule_22_invalidation_overtakes_the_reply(bench: Bench) -> None:
    bench.other("SET", "k", "old")
    bench.db.cached("GET", "warm")
    time.sleep(0.05)  # in broadcast mode the first SET is announced too
    told = bench.cache.stats.invalidations
    bench.data.down.hold()
    got: list[Any] = []
    reader = in_thread(lambda: got.append(bench.db.cached("GET", "k")))
    time.sleep(0.05)  # the server has answered; the answer is held
    bench.other("SET", "k", "new")
    wait_until(lambda: bench.cache.stats.invalidations > told)
    bench.data.down.release()
    reader.join(PATIENCE)
    assert got == [b"old"]  # it was, when it was read
    assert bench.db.cached("GET", "k") == b"new"


def test_rule_17_flushall_overtakes_the_reply(bench: Bench) -> None:
    bench.other("SET", "k", "old")
    bench.db.cached("GET", "warm")
    bench.data.down.hold()
    got: list[Any] = []
    reader = in_thread(lambda: got.append(bench.db.cached("GET", "k")))
    time.sleep(0.05)
    flushes = bench.cache.stats.flushes
    bench.other("FLUSHALL")
    wait_until(lambda: bench.cache.stats.flushes > flushes)
    bench.data.down.release()
    reader.join(PATIENCE)
    assert bench.db.cached("GET", "k") is None


def test_reply_overtakes_the_invalidation(bench: Bench) -> None:
    bench.other("SET", "k", "old")
    bench.db.cached("GET", "k")
    bench.listener.down.delay = 0.3
    bench.other("SET", "k", "new")
    deadline = time.monotonic() + PROMPT
    while bench.db.cached("GET", "k") != b"new":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rule_25_own_write_is_read_although_the_listener_lags(bench: Bench) -> None:
    bench.listener.down.delay = 0.05
    for number in range(20):
        bench.db.execute("SET", "k", number)
        assert bench.db.cached("GET", "k") == b"%d" % number


def test_max_stale_zero_waits_for_a_lagging_listener(bench: Bench) -> None:
    bench.listener.down.delay = 0.05
    for number in range(10):
        bench.other("SET", "k", number)
        assert bench.db.cached("GET", "k", max_stale=0) == b"%d" % number


def test_rule_33_frozen_listener_ends_the_hits_within_the_bound(plain_bench: Bench) -> None:
    bench = plain_bench
    bench.other("SET", "k", "old")
    assert bench.db.execute("GET", "k") == b"old"
    assert bench.cache.staleness_bound < BOUND
    bench.listener.freeze()
    dead = time.monotonic()
    bench.other("SET", "k", "new")
    while bench.db.execute("GET", "k") == b"old":
        assert time.monotonic() - dead < BOUND
        time.sleep(0.01)
    # A new listener takes over; the frozen one is not waited for.
    wait_until(lambda: (bench.db.execute("GET", "k"), ("GET", "k") in bench.cache)[1])
    bench.other("SET", "k", "newer")
    wait_until(lambda: bench.db.execute("GET", "k") == b"newer", PROMPT)


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("link", ["data", "listener"])
def test_rule_33_deserted_link_ends_the_hits_within_the_bound(
    server: client.EmbeddedServer,
    wire: Callable[[Any], Wire],
    link: str,
    protocol: Any,
    deaf: bool,
) -> None:
    """The server has noticed that a link is dead, and forgotten what it tracked. We have not."""
    with (
        Proxy(server) as proxy,
        connect(proxy.url, protocol=protocol, cache=True, timeout=PATIENCE) as db,
    ):
        bench = Bench(proxy, db, wire(server))
        victim = bench.data if link == "data" else bench.listener
        bench.other("SET", "k", "old")
        assert db.execute("GET", "k") == b"old"
        time.sleep(random.random())  # whenever it happens between two PINGs
        if deaf:
            victim.deafen()
        victim.desert()
        dead = time.monotonic()
        if link == "data":
            wait_until(lambda: b"id=%d " % (db.id or 0) not in bench.other("CLIENT", "LIST"))
        bench.other("SET", "k", "new")
        while bench.cache.get(("GET", "k")) == b"old":
            assert time.monotonic() - dead < BOUND
            time.sleep(0.01)
        victim.thaw()


@pytest.mark.parametrize("protocol", [2, 3])
def test_max_stale_zero_is_not_fooled_by_a_deserted_data_link(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], protocol: Any
) -> None:
    with (
        Proxy(server) as proxy,
        connect(proxy.url, protocol=protocol, cache=True, timeout=PATIENCE) as db,
    ):
        bench = Bench(proxy, db, wire(server))
        bench.other("SET", "k", "old")
        assert db.execute("GET", "k") == b"old"
        dead = db._pool.take()  # kept, so that what is read anew is read on another
        try:
            bench.data.desert()
            wait_until(lambda: b"id=%d " % (dead.id or 0) not in bench.other("CLIENT", "LIST"))
            bench.other("SET", "k", "new")
            assert db.cached("GET", "k", max_stale=0) == b"new"
        finally:
            bench.data.thaw()
            db._pool.give_back(dead)


def test_announcements_of_a_frozen_listener_do_no_harm_when_it_thaws(plain_bench: Bench) -> None:
    bench = plain_bench
    bench.db.execute("GET", "k")
    frozen = bench.listener
    frozen.freeze()
    bench.other("SET", "k", "new")
    wait_until(lambda: len(bench.proxy.links) > 2)
    frozen.thaw()
    wait_until(lambda: bench.db.execute("GET", "k") == b"new")


def test_rule_30_cut_listener_flushes_at_once(bench: Bench) -> None:
    bench.other("SET", "k", "old")
    bench.db.cached("GET", "k")
    bench.proxy.refusing = True
    bench.listener.cut()
    bench.other("SET", "k", "new")
    wait_until(lambda: bench.cache.get(("GET", "k")) is MISS, PROMPT)
    assert bench.db.cached("GET", "k") == b"new"  # uncached, but served
    wait_until(lambda: bench.cache.status.startswith("off: invalidation connection lost"))
    bench.proxy.refusing = False
    wait_until(lambda: bench.cache.status == "on")
    wait_until(lambda: (bench.db.cached("GET", "k"), ("GET", "k") in bench.cache)[1])


def test_rule_31_cut_data_connection_ends_what_it_read(plain_bench: Bench) -> None:
    bench = plain_bench
    bench.other("SET", "k", "old")
    bench.db.execute("GET", "k")
    bench.data.cut()
    bench.other("SET", "k", "new")
    wait_until(lambda: bench.db.execute("GET", "k") == b"new", PROMPT)


def test_rule_22_frozen_data_connection_times_out_and_hands_over(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with Proxy(server) as proxy, connect(proxy.url, cache=True, timeout=0.5) as db:
        db.execute("GET", "warm")
        proxy.links[0].freeze()
        outcomes: list[Any] = []

        def read() -> None:
            try:
                outcomes.append(db.execute("GET", "k"))
            except TimeoutError:
                outcomes.append("timed out")

        leader = in_thread(read)
        wait_until(lambda: db.cache is not None and db.cache.flight(("GET", "k")) is not None)
        time.sleep(0.2)
        followers = [in_thread(read) for _ in range(3)]
        for thread in (leader, *followers):
            thread.join(PATIENCE)
        assert outcomes[0] == "timed out"
        assert outcomes[1:] == [None] * 3


def test_callback_that_asks_for_a_proof_does_not_wait_for_itself(plain_bench: Bench) -> None:
    bench = plain_bench
    got: list[Any] = []

    def refetch(keys: tuple[bytes, ...] | None, reason: str) -> None:
        if reason == "changed":
            started = time.monotonic()
            values = [bench.db.cached("GET", key, max_stale=0) for key in ("k", "unchanged")]
            got.append((values, time.monotonic() - started < PROMPT))

    bench.db.execute("MGET", "k", "unchanged")
    bench.cache.on_invalidate(refetch)
    bench.other("SET", "k", "new")
    wait_until(lambda: got)
    assert got[0] == ([b"new", None], True)


def test_callback_that_reads_when_a_forked_child_starts_over_does_not_lock_it(
    plain_bench: Bench,
) -> None:
    bench = plain_bench
    bench.db.execute("GET", "k")
    bench.cache.on_invalidate(lambda *_: bench.db.execute("GET", "derived"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:  # the child: reports by its exit status, or by being ended
        signal.alarm(int(PATIENCE))
        status = 1
        try:
            status = 0 if bench.db.execute("GET", "k") is None else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_server_that_is_busy_is_asked_again(
    private_server: StartServer, wire: Callable[[Any], Wire]
) -> None:
    server = private_server(args=["--lua-time-limit", "1"])
    script, other = wire(server), wire(server)
    with connect(server.url, cache=True, timeout=PATIENCE) as db:
        cache = db.cache
        assert cache is not None
        first, second = db._pool.take(), db._pool.take()
        try:
            db._pool.give_back(second)  # connected, and not tracked yet
            script.send("EVAL", "while true do end", 0)
            time.sleep(0.1)
            with pytest.raises(client.ReplyError, match="BUSY"):
                db.execute("GET", "k")
            other("SCRIPT", "KILL")
            script.read()  # it is over
            wait_until(lambda: cache.status == "on")
            wait_until(lambda: (db.execute("GET", "k"), cache.find(("GET", "k")))[1])
        finally:
            db._pool.give_back(first)


def test_listener_that_is_ended_at_once_is_not_reopened_at_once(
    server: client.EmbeddedServer,
) -> None:
    with Proxy(server) as proxy, connect(proxy.url, cache=True, timeout=PATIENCE) as db:
        db.execute("GET", "k")
        until = time.monotonic() + 2
        while time.monotonic() < until:
            for link in proxy.links[1:]:
                link.cut()
            time.sleep(0.01)
        # At once each time it were two hundred; with pauses from 50 ms doubled it is about six.
        assert 3 <= len(proxy.links) < 20
        assert db.cache is not None
        wait_until(lambda: db.cache is not None and db.cache.status == "on")


def test_thread_that_can_not_be_started_leaves_the_client_uncached(
    server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        db = connect(server.url, cache=True)
    with db:
        assert db.cache is not None
        assert db.cache.status == "off: no thread to listen with: can't start new thread"
        assert db.execute("GET", "k") is None
        assert len(db.cache) == 0


def test_forked_child_whose_user_may_not_track_any_more_is_served_uncached(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    rule = "-client|tracking" if server.version >= (7,) else "-client"
    other("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all")
    try:
        tracking = Tracking(bcast=True)  # so that it is the listener that is refused
        with connect(server.url, username="poor", password="pw", tracking=tracking) as db:
            db.execute("GET", "k")
            other("ACL", "SETUSER", "poor", rule)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:  # the child: reports by its exit status, whatever happens
                status = 1
                try:
                    assert db.execute("GET", "k") is None
                    assert db.cache is not None
                    status = 0 if "perm" in db.cache.status.lower() else 2
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        other("ACL", "DELUSER", "poor")


def hammer(server: client.EmbeddedServer, seconds: float, tracking: Tracking, seed: int) -> None:
    """Read, write, flush and kill from many threads; then no entry may differ from the server."""
    names = [f"k:{number}" for number in range(40)]
    stop = threading.Event()
    errors: list[BaseException] = []
    cache = Cache(max_entries=30)

    def guarded(work: Callable[[random.Random], None], number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        while not stop.is_set():
            try:
                work(chance)
            except (ConnectionError, TimeoutError):
                pass  # killed, as it happens
            except BaseException as error:  # noqa: BLE001 - reported below
                errors.append(error)
                return

    with (
        connect(server.url, cache=cache, tracking=tracking, timeout=PATIENCE) as db,
        client.Connection(client.Options.from_url(server.url, timeout=PATIENCE)) as killer,
        client.Connection(client.Options.from_url(server.url, timeout=PATIENCE)) as writer,
    ):
        spared = {killer.id, writer.id}

        def read(chance: random.Random) -> None:
            name = chance.choice(names)
            command = chance.choice([("GET", name), ("MGET", name, chance.choice(names))])
            db.cached(*command, max_stale=chance.choice([None, None, None, 0.5, 0]))

        def own(number: int) -> Callable[[random.Random], None]:
            mine = f"mine:{number}"
            count = 0

            def step(chance: random.Random) -> None:
                nonlocal count
                count += 1
                db.execute("SET", mine, count)
                found = db.cached("GET", mine)
                # FLUSHALL may have come between the two, nothing else.
                assert found in (b"%d" % count, None), (mine, found, count)

            return step

        def write(chance: random.Random) -> None:
            commands: list[tuple[Any, ...]] = [
                ("SET", name, chance.getrandbits(30)) for name in chance.sample(names, 3)
            ]
            commands += [("DEL", chance.choice(names)), ("EXPIRE", chance.choice(names), 1)]
            writer.execute_many(commands)
            if chance.random() < 0.01:
                writer.execute("FLUSHALL")

        def kill(chance: random.Random) -> None:
            time.sleep(chance.random() * 0.1)
            lines = bytes(killer.execute("CLIENT", "LIST")).decode().splitlines()
            ids = {int(line.partition(" ")[0][3:]) for line in lines} - spared
            for ident in chance.sample(sorted(ids), min(1, len(ids))):
                killer.execute_many([("CLIENT", "KILL", "ID", ident)])

        work = [read] * 6 + [own(number) for number in range(3)] + [write, kill]
        threads = [in_thread(guarded, step, number) for number, step in enumerate(work)]
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == []
        assert not any(thread.is_alive() for thread in threads)
        # Quiescence: nobody writes, and everything announced has been heard.

        def caching() -> bool:
            with contextlib.suppress(ConnectionError):  # the last kill is heard of by the next read
                db.cached("GET", names[0])
            return cache.status == "on"

        wait_until(caching)
        # What has expired is announced when it is deleted: when it is asked for, at the latest.
        lives = [("PTTL", name) for name in names]
        wait_until(lambda: all(left < 0 for left in writer.execute_many(lives)))
        db.cached("GET", names[0], max_stale=0)
        stale = []
        for command in cache:
            value = cache.get(command)
            if value is MISS:
                continue
            key = command[1]  # type: ignore[index]
            actual = writer.execute("GET", key)
            if value != actual:
                stale.append((command, value, actual))
        assert stale == []
        assert cache.stats.fills > 0
        assert cache.stats.reservations == 0


HAMMER_SECONDS = float(os.environ.get("HAMMER_SECONDS", "1"))


@pytest.mark.timeout(HAMMER_SECONDS + 60)
@pytest.mark.parametrize(
    "tracking",
    [{}, {"bcast": True}, {"noloop": True}, {"optin": True}, {"listener": "inline"}],
    ids=str,
)
def test_hammer_leaves_no_stale_entry(
    server: client.EmbeddedServer, tracking: dict[str, Any]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    hammer(server, HAMMER_SECONDS, Tracking(**tracking), seed)
