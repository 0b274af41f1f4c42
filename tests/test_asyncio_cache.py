"""The asyncio client's cache: kept right in every set-up, whoever writes and whatever is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import AIO_SETUPS, AioReader, at_once, on_loop, turns, until
from proxy import Proxy

import client
from client import MISS, Cache, Tracking, _asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from conftest import StartServer
    from servers import Wire


@contextlib.asynccontextmanager
async def reading(
    url: str, other: Wire, setup: str = "default", **options: Any
) -> AsyncIterator[AioReader]:
    protocol, tracking = AIO_SETUPS[setup]
    options = {"protocol": protocol, "tracking": Tracking(**tracking)} | options
    async with client.connect_async(url, **options) as db:
        assert db.cache is not None
        assert db.cache.status == "on"
        yield AioReader(db, other)


def calls_of(other: Wire, command: str) -> int:
    """Give how often the server has run a command."""
    stats = other("INFO", "commandstats").decode()
    line = next((s for s in stats.split() if s.startswith(f"cmdstat_{command}:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


@pytest.mark.parametrize("setup", AIO_SETUPS)
@on_loop
async def test_every_setup_sees_every_change(
    server: client.EmbeddedServer, wire: Callable[..., Wire], setup: str
) -> None:
    other = wire(server)
    async with reading(server.url, other, setup) as reader:
        db = reader.db
        assert await reader.read("GET", "k:1") is None
        assert await reader.hit("GET", "k:1") is None
        other("SET", "k:1", "foreign")
        await reader.sees(b"foreign", "GET", "k:1")
        assert await reader.hit("GET", "k:1") == b"foreign"
        # Own writes, and reads in the same breath.
        for number in range(20):
            writing = asyncio.ensure_future(db.execute("SET", "k:1", number))
            await asyncio.sleep(0)
            assert await reader.read("GET", "k:1") == b"%d" % number
            assert await writing == b"OK"
            assert await reader.read("GET", "k:1") == b"%d" % number
        await db.execute_many([("SET", "k:1", "a"), ("SET", "k:2", "b")])
        assert await reader.read("MGET", "k:1", "k:2", "k:3") == [b"a", b"b", None]
        assert await reader.hit("GET", "k:2") == b"b"
        await db.transaction([("DEL", "k:1"), ("SET", "k:3", "c")])
        assert await reader.read("MGET", "k:1", "k:2", "k:3") == [None, b"b", b"c"]
        await db.execute("BLPOP", "k:list", 0.01)
        await reader.hit("GET", "k:3")
        other("FLUSHALL")
        await reader.sees(None, "GET", "k:3")
        assert await reader.hit("GET", "k:2") is None
        # Foreign again: the own writes left nothing unannounced.
        other("SET", "k:1", "last")
        await reader.sees(b"last", "GET", "k:1")


@pytest.mark.parametrize("setup", ["default", "resp3-dedicated", "resp2-dedicated-bcast-noloop"])
@on_loop
async def test_a_write_whose_caller_has_left_is_seen_all_the_same(
    server: client.EmbeddedServer, wire: Callable[..., Wire], setup: str
) -> None:
    with Proxy(server) as proxy:
        async with reading(proxy.url, wire(server), setup) as reader:
            await reader.hit("GET", "k")
            proxy.links[0].up.delay = 0.05
            write = asyncio.ensure_future(reader.db.execute("SET", "k", "v"))
            await turns()
            write.cancel()
            proxy.links[0].up.delay = 0.0
            await until(lambda: reader.other("GET", "k") == b"v")
            await reader.sees(b"v", "GET", "k")


@on_loop
async def test_a_hit_does_not_suspend(
    server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(server.url, wire(server)) as reader:
        db = reader.db
        await db.execute("RPUSH", "l", "a", "b")
        await reader.hit("LRANGE", "l", 0, -1)
        assert at_once(db.execute("LRANGE", "l", 0, -1)) == [b"a", b"b"]
        assert at_once(db.cached("LRANGE", "l", 0, -1)) == [b"a", b"b"]
        at_once(db.cached("LRANGE", "l", 0, -1)).append(b"mine")
        assert at_once(db.cached("LRANGE", "l", 0, -1, max_stale=60)) == [b"a", b"b"]

        @db.memoize
        async def joined() -> bytes:
            return b"".join(await db.execute("LRANGE", "l", 0, -1))

        assert await joined() == b"ab"
        assert at_once(joined()) == b"ab"


@pytest.mark.parametrize("setup", ["default", "resp3-dedicated"])
@on_loop
async def test_a_hundred_tasks_fetch_once(
    server: client.EmbeddedServer, wire: Callable[..., Wire], setup: str
) -> None:
    async with reading(server.url, wire(server), setup) as reader:
        answers = await asyncio.gather(*(reader.db.execute("GET", "k") for _ in range(100)))
        assert answers == [None] * 100
        assert calls_of(reader.other, "get") == 1


@on_loop
async def test_a_cancelled_leader_hands_over(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with reading(proxy.url, wire(any_server)) as reader:
            proxy.links[0].down.hold()
            leader = asyncio.ensure_future(reader.db.execute("GET", "k"))
            await turns()
            others = [asyncio.ensure_future(reader.db.execute("GET", "k")) for _ in range(100)]
            await turns()
            leader.cancel()
            others[0].cancel()
            await turns(5)
            proxy.links[0].down.release()
            assert await asyncio.gather(*others[1:]) == [None] * 99
            assert calls_of(reader.other, "get") == 2
            assert reader.cache.stats.reservations == 0


@on_loop
async def test_another_thread_may_invalidate(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with reading(proxy.url, wire(any_server)) as reader:
            proxy.links[0].down.hold()
            calls = [asyncio.ensure_future(reader.db.execute("GET", "k")) for _ in range(3)]
            await until(lambda: calls_of(reader.other, "get") == 1)
            await asyncio.to_thread(reader.cache.invalidate, ["k"])
            await until(lambda: calls_of(reader.other, "get") == 2)  # by one who waited
            proxy.links[0].down.release()
            assert await asyncio.gather(*calls) == [None] * 3


@on_loop
async def test_a_waiter_is_not_held_beyond_its_time(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with reading(proxy.url, wire(any_server), timeout=1.0) as reader:
            proxy.links[0].down.hold()
            started = time.monotonic()
            calls = [reader.db.execute("GET", "k") for _ in range(10)]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, client.CommandTimeout)
            assert time.monotonic() - started < 5.0  # not 10
            assert reader.cache.stats.reservations == 0


@on_loop
async def test_errors_are_never_cached(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        await reader.db.execute("RPUSH", "l", "a")
        for _ in range(3):
            with pytest.raises(client.ReplyError, match="WRONGTYPE"):
                await reader.db.execute("GET", "l")
        assert reader.hits == 0
        assert reader.cache.stats.reservations == 0


@pytest.mark.parametrize("setup", ["default", "resp3-dedicated", "resp2-dedicated"])
@on_loop
async def test_as_fresh_as_a_round_trip_for_one_ping(
    server: client.EmbeddedServer, wire: Callable[..., Wire], setup: str
) -> None:
    async with reading(server.url, wire(server), setup) as reader:
        db, other = reader.db, reader.other
        for number in range(50):
            await reader.hit("GET", "k")
            other("SET", "k", number)
            assert await db.cached("GET", "k", max_stale=0) == b"%d" % number
        for number in range(50):
            await db.execute("GET", f"k{number}")
        before = calls_of(other, "ping")
        gets = calls_of(other, "get")
        answers = await asyncio.gather(
            *(db.cached("GET", f"k{number}", max_stale=0) for number in range(50))
        )
        assert answers == [None] * 50
        assert calls_of(other, "get") == gets
        # One for each connection; the clock may add its own.
        links = 1 if setup == "default" else 2
        assert links <= calls_of(other, "ping") - before <= 2 * links


@pytest.mark.parametrize(
    ("setup", "which"),
    [
        ("default", 0),
        ("resp3-dedicated", 0),
        ("resp3-dedicated", 1),
        ("resp2-dedicated", 0),
        ("resp2-dedicated-bcast", 0),
        ("resp2-dedicated-bcast", 1),
    ],
)
@on_loop
async def test_no_hit_is_staler_than_the_bound_when_a_link_is_a_black_hole(
    any_server: client.EmbeddedServer,
    wire: Callable[..., Wire],
    setup: str,
    which: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, seconds in [("FRESHNESS", 0.6), ("PING_INTERVAL", 0.2), ("PING_TIMEOUT", 0.4)]:
        monkeypatch.setattr(_asyncio, name, seconds)
    with Proxy(any_server) as proxy:
        async with reading(proxy.url, wire(any_server), setup, timeout=0.5) as reader:
            await reader.hit("GET", "k")
            # The server has dropped the connection, and nobody tells us.
            channel = reader.db._channel
            proxy.links[which].freeze()
            dropped = channel.redirect if which and channel else reader.db.id
            reader.other("CLIENT", "KILL", "ID", str(dropped))
            frozen = time.monotonic()
            reader.other("SET", "k", "new")
            bound = reader.cache.staleness_bound
            assert bound == 0.6
            while (asked := time.monotonic()) < frozen + 1.5:
                value = reader.cache.get(("GET", "k"))
                assert value in (MISS, b"new") or asked < frozen + bound
                with contextlib.suppress(client.ConnectionClosed):
                    assert await reader.db.cached("GET", "k", max_stale=0) == b"new"
                await asyncio.sleep(0.02)
            proxy.links[which].thaw()
            await until(lambda: reader.cache.status == "on")
            assert await reader.hit("GET", "k") == b"new"


@on_loop
async def test_user_that_may_not_track_goes_on_uncached(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    server = private_server()
    other = wire(server)
    other("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-client")
    for subcommand in ("id", "setname"):  # Redis 6.2 knows no other way to leave one out
        other("ACL", "SETUSER", "u", f"+client|{subcommand}")
    for tracking in (Tracking(), Tracking(listener="dedicated")):
        async with client.connect_async(
            server.url, username="u", password="pw", tracking=tracking
        ) as db:
            assert await db.execute("SET", "k", "v") == b"OK"
            assert await db.execute("GET", "k") == b"v"
            assert await db.cached("GET", "k") == b"v"
            assert db.cache is not None
            assert db.cache.status.startswith("off: the server refuses CLIENT TRACKING")
            assert db.cache.stats.fills == 0
            assert "the server refuses" in db.cache.explain("GET", "k")


@on_loop
async def test_memoized_functions_follow_their_keys(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        db, runs = reader.db, 0

        @db.memoize(ttl=60)
        async def total(*names: str) -> int:
            nonlocal runs
            runs += 1
            values = await asyncio.gather(*(db.execute("GET", name) for name in names))
            return sum(int(value or 0) for value in values)

        @db.memoize
        async def double(*names: str) -> int:
            return 2 * await total(*names)

        assert await asyncio.gather(*(double("a", "b") for _ in range(50))) == [0] * 50
        assert runs == 1
        reader.other("SET", "b", 5)  # read by a task that the function started
        await until(lambda: reader.cache.get(("GET", "b")) is MISS)
        assert await double("a", "b") == 10
        assert runs == 2
        assert await double("a", "b") == 10
        assert runs == 2
        with pytest.raises(TypeError, match="coroutine function"):
            db.memoize(lambda: 1)  # type: ignore[arg-type, return-value]
        async with db.computing("name", 1) as computation:
            assert computation.value is MISS
            computation.value = await db.execute("GET", "b")
        async with db.computing("name", 1) as computation:
            assert computation.value == b"5"


@on_loop
async def test_a_cancelled_computation_hands_over_to_one(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        runs = 0
        go = asyncio.Event()

        @reader.db.memoize
        async def slow() -> bytes | None:
            nonlocal runs
            runs += 1
            await go.wait()
            return await reader.db.execute("GET", "k")  # type: ignore[no-any-return]

        calls = [asyncio.ensure_future(slow()) for _ in range(20)]
        await turns(5)
        assert runs == 1
        calls[0].cancel()
        await turns(5)
        assert runs == 2
        go.set()
        assert await asyncio.gather(*calls[1:]) == [None] * 19
        assert runs == 2
        assert reader.db._computing == 0


@on_loop
async def test_a_change_while_it_is_computed_is_no_hit(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:

        @reader.db.memoize
        async def value() -> bytes | None:
            found = await reader.db.execute("GET", "k")
            reader.other("SET", "k", "new")
            await until(lambda: reader.cache.get(("GET", "k")) is MISS)
            return found  # type: ignore[no-any-return]

        assert await value() is None
        assert await value() == b"new"


@on_loop
async def test_hits_are_audited(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server), cache=Cache(audit=1.0)) as reader:
        for number in range(20):
            await reader.db.execute("GET", "k")
            if number % 3 == 0:
                reader.other("SET", "k", number)
        stats = reader.cache.stats
        assert stats.audits > 0
        assert stats.stale == 0


@on_loop
async def test_values_live_no_longer_than_the_server_says(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    cache = Cache(server_ttl=True)
    async with reading(any_server.url, wire(any_server), cache=cache) as reader:
        reader.other("SET", "k", "v", "PX", "60000")
        await reader.hit("GET", "k")
        entry = cache.find(("GET", "k"))
        assert entry is not None
        assert entry.expires - cache.clock() <= 60


@on_loop
async def test_a_flush_between_read_and_reply_is_not_lost(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with reading(proxy.url, wire(any_server), "resp3-dedicated") as reader:
            reader.other("SET", "k", "old")
            proxy.links[0].down.hold()
            read = asyncio.ensure_future(reader.db.execute("GET", "k"))
            await asyncio.sleep(0.05)
            reader.other("FLUSHALL")
            await until(lambda: reader.cache.stats.reservations == 0)
            proxy.links[0].down.release()
            assert await read == b"old"
            assert await reader.db.execute("GET", "k") is None


@on_loop
async def test_what_can_not_be_hashed_is_looked_up_as_bytes(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        reader.other("SET", "k", "v")
        assert await reader.db.execute("GET", bytearray(b"k")) == b"v"
        assert await reader.hit("GET", bytearray(b"k")) == b"v"


@on_loop
async def test_past_the_cache_what_waits_waits_on_a_connection_of_its_own(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        pop = asyncio.ensure_future(reader.db.uncached("BLPOP", "l", 0))
        await until(lambda: reader.other("INFO", "clients").count(b"blocked_clients:1"))
        assert await reader.db.execute("RPUSH", "l", "a") == 1
        assert await pop == [b"l", b"a"]


@on_loop
async def test_a_fetch_that_has_ended_is_not_waited_for(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async with reading(any_server.url, wire(any_server)) as reader:
        cache = reader.cache
        reservation = cache.reserve(("GET", "k"), (b"k",), cache.epoch)
        assert reservation is not None
        cache.invalidate([b"k"])  # as another thread may, between two steps
        assert await reader.db._end_of(reservation, 0.0)
