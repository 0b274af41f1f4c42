"""The asyncio client when connections are lost: what comes back, in which order, who is told."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import AioReader, greet, on_loop, until
from proxy import Balancer, Proxy
from scripted import HELLO_3, Peer, ScriptedServer

import client
from client import Cache, Tracking

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Wire

DEDICATED = Tracking(listener="dedicated")


def ids_of(other: Wire, kind: str = "normal") -> list[int]:
    """Give the ids of everybody else's connections to a server, in the order of their coming."""
    me = other("CLIENT", "ID")
    lines = other("CLIENT", "LIST").decode().splitlines()
    ids = [int(dict(f.partition("=")[::2] for f in line.split())["id"]) for line in lines]
    return sorted(i for i in ids if i != me)


def parted(lines: list[str], word: str) -> int:
    return next(i for i, line in enumerate(lines) if word in line)


@on_loop
async def test_reads_and_what_never_left_go_on_after_a_kill(
    server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(server)
    async with client.connect_async(server.url) as db:
        await db.execute("SET", "k", "v")
        other("CLIENT", "KILL", "ID", str(db.id))
        assert await asyncio.gather(*(db.execute("GET", "k") for _ in range(100))) == [b"v"] * 100
        assert await db.execute("INCR", "n") == 1


@on_loop
async def test_a_write_in_flight_fails_and_says_that_it_may_have_run(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            proxy.links[0].down.hold()
            write = asyncio.ensure_future(db.execute("INCR", "n"))
            batch = asyncio.ensure_future(db.execute_many([("GET", "k"), ("INCR", "m")]))
            read = asyncio.ensure_future(db.execute_many([("GET", "k"), ("PING",)]))
            reads = asyncio.ensure_future(db.transaction([("GET", "k")]))
            await asyncio.sleep(0.05)
            proxy.links[0].cut()
            with pytest.raises(client.ConnectionClosed, match="may have run"):
                await write
            with pytest.raises(client.ConnectionClosed, match="may have run"):
                await batch
            assert await read == [None, b"PONG"]
            assert await reads == [None]
            assert await db.execute("GET", "n") == b"1"  # it had run, once


@on_loop
async def test_a_write_that_waits_for_a_connection_is_sent_once(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            proxy.refusing = True
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            write = asyncio.ensure_future(db.execute("INCR", "n"))
            await asyncio.sleep(0.1)
            assert not write.done()
            proxy.refusing = False
            assert await write == 1


@on_loop
async def test_without_a_server_a_call_ends_with_its_time_and_says_why(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=0.3) as db:
            proxy.refusing = True
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            with pytest.raises(client.CommandTimeout, match="was not sent"):
                await db.execute("INCR", "n")
            proxy.refusing = False
            await until(lambda: db._link is not None)
            assert await db.execute("GET", "n") is None


@on_loop
async def test_callers_that_leave_while_there_is_no_connection_are_not_kept(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            proxy.refusing = True
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            for _ in range(20):
                calls = [asyncio.ensure_future(db.execute("SET", "k", "v")) for _ in range(50)]
                await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            assert len(db._waiting.flights) <= 128


@on_loop
async def test_a_command_is_not_sent_for_ever_to_those_whom_it_kills() -> None:
    seen: list[Any] = []

    def script(peer: Peer) -> None:
        greet(peer)
        seen.append(peer.command())

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db:
            with pytest.raises(client.ConnectionClosed, match="may have run"):
                await db.execute("GET", "poison")
        await until(lambda: seen.count([b"GET", b"poison"]) == 4)  # once, and 3 retries
        assert scripted.accepted <= 5


@on_loop
async def test_a_server_that_greets_and_leaves_is_not_stormed() -> None:
    with ScriptedServer(greet) as scripted:
        async with client.connect_async(scripted.url):
            await asyncio.sleep(1.0)
            # 0.05, 0.1, 0.2, 0.4 s, less the jitter: a storm would be hundreds.
            assert 2 <= scripted.accepted <= 10


@on_loop
async def test_a_restarted_server_is_found_again(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    first = private_server()
    async with client.connect_async(first.url, cache=True) as db:
        await db.execute("SET", "k", "v")
        port = first.port
        first.stop()
        await until(lambda: db._link is None)
        assert db.cache is not None
        assert len(db.cache) == 0
        private_server(args=["--port", str(port), "--bind", "127.0.0.1"])
        assert await db.execute("GET", "k") is None
        reader = AioReader(db, wire(first))
        await until(lambda: reader.cache.status == "on")
        assert await reader.hit("GET", "k") is None


@pytest.mark.parametrize("listener", ["inline", "dedicated"])
@on_loop
async def test_tracking_is_on_again_before_anything_is_sent_again(
    server: client.EmbeddedServer, listener: Any
) -> None:
    frames: list[str] = []

    def trace(name: str, direction: str, frame: Any) -> None:
        if direction == "sent":
            frames.append(" ".join(map(str, frame)).replace("b'", "").replace("'", ""))

    with Proxy(server) as proxy:
        options: Any = {"tracking": Tracking(listener=listener), "trace": trace}
        async with client.connect_async(proxy.url, **options) as db:
            assert await db.execute("GET", "k") is None
            assert db.cache is not None
            for link in proxy.links:
                link.down.hold()
            fetch = asyncio.ensure_future(db.execute("GET", "other"))
            await asyncio.sleep(0.05)
            frames.clear()
            for link in list(proxy.links):
                link.cut()
            await until(lambda: db._link is None)
            assert db.cache.get(("GET", "k")) is client.MISS
            assert await fetch is None
            assert parted(frames, "CLIENT TRACKING") < parted(frames, "GET other")


@on_loop
async def test_listening_connection_lost_while_the_shared_one_stays(
    server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(server) as proxy:
        async with client.connect_async(proxy.url, tracking=DEDICATED) as db:
            reader = AioReader(db, wire(server))
            await reader.hit("GET", "k")
            # Its successor is refused for a while: the shared connection goes on uncached.
            proxy.refusing = True
            proxy.links[1].cut()
            await until(lambda: reader.cache.status != "on")
            assert len(reader.cache) == 0
            assert await db.execute("GET", "k") is None
            await asyncio.sleep(0.2)
            proxy.refusing = False
            await reader.hit("GET", "k")
            reader.other("SET", "k", "new")
            await reader.sees(b"new", "GET", "k")


@on_loop
async def test_connecting_without_a_listening_connection_serves_uncached_until_there_is_one(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    server = private_server()
    other = wire(server)
    room = len(other("CLIENT", "LIST").splitlines())
    other("CONFIG", "SET", "maxclients", str(room + 1))
    async with client.connect_async(server.url, tracking=DEDICATED) as db:
        assert await db.execute("GET", "k") is None
        assert db.cache is not None
        assert "no invalidation connection" in db.cache.status
        other("CONFIG", "SET", "maxclients", "100")
        reader = AioReader(db, other)
        await until(lambda: reader.cache.status == "on")
        await reader.hit("GET", "k")


@on_loop
async def test_shared_connection_lost_while_the_listening_one_stays(
    server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(server)
    async with client.connect_async(server.url, tracking=DEDICATED) as db:
        reader = AioReader(db, other)
        await reader.hit("GET", "k")
        other("CLIENT", "KILL", "ID", str(db.id))
        other("SET", "k", "new")  # announced to nobody
        await reader.sees(b"new", "GET", "k")
        await reader.hit("GET", "k")
        other("SET", "k", "newer")
        await reader.sees(b"newer", "GET", "k")


@on_loop
async def test_listening_connection_lost_while_tracking_is_being_turned_on(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, tracking=DEDICATED) as db:
            reader = AioReader(db, wire(any_server))
            await reader.hit("GET", "k")
            for _ in range(4):
                proxy.links[-2].cut()
                proxy.links[-1].cut()
                await asyncio.sleep(0.01)
                for link in proxy.links[-2:]:
                    link.cut()
                await reader.hit("GET", "k")
                reader.other("INCR", "k")
                value = reader.other("GET", "k")
                await reader.sees(value, "GET", "k")
                assert db._complete()


@on_loop
async def test_redirect_to_a_listener_that_just_died_is_no_refusal_for_good(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(any_server)
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, tracking=DEDICATED) as db:
            reader = AioReader(db, other)
            await reader.hit("GET", "k")
            assert db._channel is not None
            # The server drops the listener, and that is not heard of here for a while.
            proxy.links[1].freeze()
            proxy.links[0].down.hold()
            other("CLIENT", "KILL", "ID", str(db._channel.redirect))
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            await asyncio.sleep(0.1)
            proxy.links[1].down.hold()
            await reader.hit("GET", "k")
            assert reader.cache.status == "on"


@on_loop
async def test_behind_an_address_of_several_servers_both_connections_meet_on_one(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    servers = [private_server(), private_server()]
    with Balancer(servers) as balancer:
        async with client.connect_async(balancer.url, tracking=DEDICATED) as db:
            assert db.cache is not None
            assert "another server" in db.cache.status
            assert await db.execute("GET", "k") is None
            reader = AioReader(db, wire(servers[0]))
            await reader.hit("GET", "k")
            reader.other("SET", "k", "v")
            await reader.sees(b"v", "GET", "k")


@on_loop
async def test_after_a_failover_the_listening_connection_follows(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    old, new = private_server(), private_server()
    with Proxy(old) as proxy:
        async with client.connect_async(proxy.url, tracking=DEDICATED) as db:
            reader = AioReader(db, wire(new))
            await reader.hit("GET", "k")
            proxy._target = (new.host, new.port)
            proxy.links[0].cut()  # the old one lives on, and so does the listener there
            await until(lambda: db._link is None)
            reader.other("SET", "k", "new")
            await reader.sees(b"new", "GET", "k")
            await reader.hit("GET", "k")
            reader.other("SET", "k", "newer")
            await reader.sees(b"newer", "GET", "k")


@on_loop
async def test_a_reply_before_its_command_was_sent_ends_the_connection() -> None:
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(peer: Peer) -> None:
        greet(peer)
        peer.command()
        peer.send(b"+one\r\n" if scripted.accepted > 1 else b"+one\r\n+stray\r\n")
        loop.call_soon_threadsafe(released.set)
        peer.command()

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db:
            link = db._link
            assert link is not None
            first = asyncio.ensure_future(db.execute("INCR", "a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            link.pause_writing()  # what comes now stays here
            second = asyncio.ensure_future(db._link.send(("INCR", "b"), float("inf")))  # type: ignore[union-attr]
            await released.wait()
            assert await first == b"one"
            # Never sent, so it waits for the next connection, which answers it.
            assert await second == b"one"


@on_loop
async def test_a_handshake_cut_in_two_fails_at_once() -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        peer.socket.close()

    with ScriptedServer(script) as scripted:
        started = time.monotonic()
        with pytest.raises(client.ConnectionClosed):
            await client.connect_async(scripted.url, db=3, timeout=None)
        assert time.monotonic() - started < 5


@on_loop
async def test_pushes_before_and_within_the_handshake_are_nobodys_reply() -> None:
    def script(peer: Peer) -> None:
        peer.command()
        peer.send(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n" * 3 + HELLO_3)
        peer.command()
        peer.send(b">1\r\n+news\r\n+OK\r\n")
        peer.command()
        peer.send(b"$1\r\nv\r\n")
        peer.command()

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url, cache=True) as db:
            assert await db.execute("GET", "k") == b"v"
            assert await db.execute("GET", "k") == b"v"


@on_loop
async def test_nonsense_fails_all_that_wait_with_errors_of_their_own() -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        peer.command()
        peer.send(b"$2\r\nok\r\n?nonsense\r\n")
        peer.command()

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db:
            calls = [asyncio.ensure_future(db.execute("INCR", "k")) for _ in range(3)]
            assert await calls[0] == b"ok"
            errors = await asyncio.gather(*calls[1:], return_exceptions=True)
            assert [type(error) for error in errors] == [client.ProtocolError] * 2
            assert errors[0] is not errors[1]


@on_loop
async def test_read_on_demand_is_sent_again_with_its_permission(
    server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(server) as proxy:
        tracking = Tracking(optin=True)
        async with client.connect_async(
            proxy.url, tracking=tracking, cache=Cache(server_ttl=True)
        ) as db:
            proxy.links[0].down.hold()
            read = asyncio.ensure_future(db.cached("GET", "k"))
            await asyncio.sleep(0.05)
            proxy.links[0].cut()
            assert await read is None


@on_loop
async def test_a_silent_server_is_left_after_twice_the_time_out(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=0.8) as db:
            proxy.links[0].freeze()
            started = time.monotonic()
            with pytest.raises(client.CommandTimeout, match="may have run"):
                await db.execute("INCR", "n")
            assert 0.7 < time.monotonic() - started < 1.5
            link = db._link
            await until(lambda: db._link is not link and db._link is not None)
            assert time.monotonic() - started > 0.55
            assert await db.execute("GET", "k") is None


@on_loop
async def test_a_late_reply_is_dropped_in_its_place_and_the_connection_goes_on(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=0.5) as db:
            link = db._link
            proxy.links[0].down.hold()
            with pytest.raises(client.CommandTimeout):
                await db.execute("ECHO", "late")
            other = asyncio.ensure_future(db.execute("ECHO", "in time"))
            await asyncio.sleep(0.05)
            proxy.links[0].down.release()
            assert await other == b"in time"
            assert db._link is link


@on_loop
async def test_a_trace_that_raises_does_not_end_the_reconnecting(
    any_server: client.EmbeddedServer,
) -> None:
    broken = 0

    def trace(name: str, direction: str, frame: object) -> None:
        nonlocal broken
        if broken:
            broken -= 1
            raise RuntimeError("a bug of the user's")

    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, trace=trace) as db:
            broken = 2
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            assert await db.execute("GET", "k") is None
            assert broken == 0


@on_loop
async def test_calls_that_wait_for_a_connection_are_told_that_the_password_has_changed(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    server = private_server(password="old")
    other = wire(server)
    async with client.connect_async(server.url) as db:
        other("CONFIG", "SET", "requirepass", "new")
        other("CLIENT", "KILL", "ID", str(db.id))
        await until(lambda: db._link is None)
        with pytest.raises(client.ConnectionClosed, match="WRONGPASS"):
            await db.execute("INCR", "n")


@pytest.mark.parametrize("listener", ["inline", "dedicated"])
@on_loop
async def test_nonsense_behind_the_answer_to_tracking_is_no_connection_to_cache_on(
    listener: Any,
) -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        while command := peer.command():
            if b"TRACKING" in command:
                peer.send(b"+OK\r\n?nonsense\r\n")
            elif command[0] == b"INFO":  # what the listening connection asks last
                peer.send(b"$0\r\n\r\n?nonsense\r\n")
            else:
                peer.send(b"$1\r\nv\r\n")

    tracking = Tracking(listener=listener)
    with ScriptedServer(script) as scripted:
        if listener == "inline":
            with pytest.raises(client.ProtocolError):
                await client.connect_async(scripted.url, tracking=tracking)
            return
        async with client.connect_async(scripted.url, tracking=tracking) as db:
            assert db.cache is not None
            assert "the listening connection was lost" in db.cache.status
            assert await db.execute("GET", "k") == b"v"


@on_loop
async def test_tracking_that_is_refused_for_now_is_asked_for_again() -> None:
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        greet(peer)
        while command := peer.command():
            if b"TRACKING" in command:
                asked.append(command)
                peer.send(b"-BUSY a script runs\r\n" if len(asked) == 1 else b"+OK\r\n")
            else:
                peer.send(b"$1\r\nv\r\n")

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url, cache=True) as db:
            cache = db.cache
            assert cache is not None
            assert "BUSY" in cache.status
            assert await db.execute("GET", "k") == b"v"
            await until(lambda: cache.status == "on")
        assert scripted.accepted == 1


@on_loop
async def test_a_listener_lost_while_freshness_is_being_proven_proves_nothing(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, tracking=DEDICATED) as db:
            reader = AioReader(db, wire(any_server))
            await reader.hit("GET", "k")
            link, channel = db._link, db._channel
            assert link is not None
            assert channel is not None
            proxy.links[0].down.hold()
            read = asyncio.ensure_future(db.cached("GET", "k", max_stale=0))
            await until(lambda: link.flights and not channel.link.flights)
            epoch = reader.cache.epoch
            proxy.links[1].cut()
            await until(lambda: reader.cache.epoch != epoch)
            reader.other("SET", "k", "new")
            proxy.links[0].down.release()
            assert await read == b"new"
