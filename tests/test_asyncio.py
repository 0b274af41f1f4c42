"""The asyncio client: verbs, one connection for all tasks, who waits for whom, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from loops import let_go, on_loop, turns, until
from proxy import Proxy
from readers import open_things
from scripted import Peer, ScriptedServer

import client
from client import _asyncio, _link, _tracking

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from conftest import StartServer


class Counted:
    """A transport that counts what is written into it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def counted(db: client.AsyncClient) -> list[bytes]:
    """Give the list of what is written on the shared connection from now on."""
    link: Any = db._link
    link._transport = Counted(link._transport)
    return link._transport.writes  # type: ignore[no-any-return]


def task(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(awaitable)


# Verbs.


@pytest.mark.parametrize("protocol", [2, 3])
@on_loop
async def test_all_verbs(server: client.EmbeddedServer, protocol: Any) -> None:
    async with client.connect_async(server.url, protocol=protocol, client_name="me") as db:
        assert db.protocol == protocol
        assert db.server["proto"] == protocol
        assert db.id == await db.execute("CLIENT", "ID")
        assert await db.execute("SET", "k", "v") == b"OK"
        assert await db.execute("GET", bytearray(b"k")) == b"v"
        assert await db.execute("CLIENT", "GETNAME") == b"me"
        assert await db.uncached("GET", "k") == b"v"
        assert await db.execute_many([]) == []
        replies = await db.execute_many([("SET", "l", 1), ("INCR", "k"), ("GET", "l")])
        assert [replies[0], replies[2]] == [b"OK", b"1"]
        assert isinstance(replies[1], client.ReplyError)
        assert await db.transaction([("INCR", "l"), ("GET", "l")]) == [2, b"2"]
        assert await db.transaction([]) == []
        with pytest.raises(client.ReplyError, match="EXECABORT") as refusal:
            await db.transaction([("INCR",), ("GET", "l")])
        assert "command 1 of 2" in refusal.value.__notes__[0]
        with pytest.raises(client.ReplyError, match="not an integer"):
            await db.execute("INCR", "k")


@on_loop
async def test_replies_become_text_with_an_encoding(any_server: client.EmbeddedServer) -> None:
    async with client.connect_async(any_server.url, encoding="utf-8") as db:
        assert await db.execute("SET", "k", "é") == "OK"
        assert await db.execute("GET", "k") == "é"
        await db.execute("SET", "k", b"\xff")
        with pytest.raises(UnicodeDecodeError):
            await db.execute("GET", "k")
        assert isinstance((await db.execute_many([("GET", "k")]))[0], UnicodeDecodeError)


@on_loop
async def test_awaited_and_entered(any_server: client.EmbeddedServer) -> None:
    db = await client.connect_async(any_server.url)
    async with db as same:
        assert same is db
    assert repr(db).startswith("<AsyncClient of ")
    connecting = client.connect_async(any_server.url)
    async with connecting as db:
        with pytest.raises(RuntimeError, match="connected once"):
            await connecting
    with pytest.raises(RuntimeError, match="connected once"):
        await connecting


@on_loop
async def test_options_are_judged_before_anything_is_sent() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_connections": 0}, "max_connections"),
        ({"timeout": -1}, "timeout"),
        ({"tracking": client.Tracking(listener="inline"), "protocol": 2}, "RESP3"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            client.connect_async("redis://localhost:1", **options)
    with pytest.raises(client.ConnectError):
        await client.connect_async("redis://localhost:1")


@on_loop
async def test_a_server_that_does_not_greet_is_left_in_time() -> None:
    with (
        ScriptedServer(lambda peer: (peer.command(), peer.command())) as scripted,
        pytest.raises(client.CommandTimeout),
    ):
        await client.connect_async(scripted.url, timeout=0.1)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("SUBSCRIBE", "c"), "confirmed once per channel"),
        (("MULTI",), "changes the state"),
        (("WATCH", "k"), "changes the state"),
        (("SELECT", 1), "changes the state"),
        (("MONITOR",), "without end"),
        (("CLIENT", "REPLY", "OFF"), "without end"),
        (("CLIENT", "TRACKING", "ON"), "changes the state"),
        (("WAIT", 1, 0), "its own connection"),
    ],
)
@on_loop
async def test_what_a_shared_connection_can_not_carry_is_refused_with_a_reason(
    any_server: client.EmbeddedServer, command: Any, reason: str
) -> None:
    async with client.connect_async(any_server.url) as db:
        writes = counted(db)
        with pytest.raises(client.CommandRefused, match=reason):
            await db.execute(*command)
        with pytest.raises(client.CommandRefused):
            await db.execute_many([("GET", "k"), command])
        assert writes == []


@on_loop
async def test_what_is_no_command_is_refused_before_anything_is_sent(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url) as db:
        writes = counted(db)
        for command, error in [
            ((), ValueError),
            (("SET", "k", None), TypeError),
            (("SET", "k", True), TypeError),
            (("SET", "k", "\ud800"), ValueError),
        ]:
            with pytest.raises(error):
                await db.execute(*command)  # type: ignore[arg-type]
            with pytest.raises(error):
                await db.execute_many([("GET", "k"), command])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="single str"):
            await db.execute_many(["GET k"])
        with pytest.raises(client.CommandRefused, match="BLPOP waits for somebody else"):
            await db.execute_many([("BLPOP", "k", 0)])
        with pytest.raises(ValueError, match="no cache"):
            await db.cached("GET", "k")
        assert writes == []
        assert await db.execute("PING") == b"PONG"


# One connection for all.


@on_loop
async def test_what_is_written_in_one_turn_leaves_in_one_write(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url) as db:
        writes = counted(db)
        answers = await asyncio.gather(
            *(db.execute("ECHO", number) for number in range(500)),
            db.execute_many([("ECHO", "a"), ("ECHO", "b")]),
        )
        assert answers == [*(b"%d" % number for number in range(500)), [b"a", b"b"]]
        assert len(writes) == 1
        assert len(any_server_connections(any_server)) == 1


def any_server_connections(server: client.EmbeddedServer) -> list[str]:
    from servers import Wire

    other = Wire(server)
    lines = other("CLIENT", "LIST").decode().splitlines()
    other.quit()
    return [line for line in lines if "cmd=client" not in line]


@on_loop
async def test_ten_thousand_tasks_make_one_write(any_server: client.EmbeddedServer) -> None:
    async with client.connect_async(any_server.url, timeout=60) as db:
        writes = counted(db)
        calls = [db.execute("GET", number) for number in range(10_000)]
        assert await asyncio.gather(*calls) == [None] * 10_000
        assert len(writes) == 1


@on_loop
async def test_large_commands_are_not_joined_and_keep_their_place(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url) as db:
        big = b"x" * 300_000
        replies = await asyncio.gather(
            db.execute("ECHO", "first"),
            db.execute("ECHO", big),
            db.execute("ECHO", "last"),
            *(db.execute("ECHO", b"y" * 60_000) for _ in range(50)),
        )
        assert replies == [b"first", big, b"last", *[b"y" * 60_000] * 50]


@on_loop
async def test_who_waits_keeps_the_place_in_line(any_server: client.EmbeddedServer) -> None:
    async with client.connect_async(any_server.url) as db:
        await db.execute("PING")
        link = db._link
        assert link is not None
        link.pause_writing()
        calls = [task(db.execute("RPUSH", "line", number)) for number in range(5)]
        await turns(2)
        link._paused = False
        link._make_room()  # all are let in,
        link.pause_writing()  # and find no room any more
        await turns(2)
        link._paused = False
        link._make_room()
        calls.append(task(db.execute("RPUSH", "line", 5)))  # who comes now runs before no one
        await turns(2)
        link.resume_writing()
        await asyncio.gather(*calls)
        assert await db.execute("LRANGE", "line", 0, -1) == [b"%d" % number for number in range(6)]


@on_loop
async def test_back_pressure_reaches_the_callers(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=30) as db:
            link = db._link
            assert link is not None
            proxy.links[0].up.hold()
            value = b"v" * 50_000
            calls = [task(db.execute("SET", f"k{number}", value)) for number in range(1_000)]
            await until(lambda: link._paused)
            await turns(10)
            # 50 MB are wanted; a few MB are in the kernel's hands, and little in ours.
            held = link._transport.get_write_buffer_size()  # type: ignore[union-attr]
            assert held + sum(map(len, link._out)) < 3_000_000
            assert 0 < len(link.flights) < 400
            late = task(db.execute("GET", "k999"))
            await turns(10)
            assert len(link.flights) < 400
            proxy.links[0].up.release()
            assert await asyncio.gather(*calls) == [b"OK"] * 1_000
            assert await late == value  # it waited behind those that came before
            assert db._link is link


@on_loop
async def test_commands_in_flight_are_bounded(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "MAX_FLIGHTS", 100)
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=60) as db:
            proxy.links[0].down.hold()
            calls = [task(db.execute("ECHO", number)) for number in range(1_000)]
            await turns()
            assert db._link is not None
            assert len(db._link.flights) == 100
            for call in calls[100:900]:
                call.cancel()  # while they wait for room
            await turns()
            assert len(db._link._room) == 100
            proxy.links[0].down.release()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert answers[:100] == [b"%d" % number for number in range(100)]
            assert answers[900:] == [b"%d" % number for number in range(900, 1_000)]


@on_loop
async def test_who_finds_no_room_in_time_is_told_that_nothing_was_sent(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "MAX_FLIGHTS", 1)
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=0.3) as db:
            proxy.links[0].down.hold()
            first = task(db.execute("INCR", "n"))
            await turns()
            with pytest.raises(client.CommandTimeout, match="nothing was sent"):
                await db.execute("INCR", "n")
            with pytest.raises(client.CommandTimeout, match="may have run"):
                await first
            proxy.links[0].down.release()
            assert await db.execute("GET", "n") == b"1"


# Cancellation.


@on_loop
async def test_who_waits_for_room_when_the_connection_is_lost_goes_on_with_the_next(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            link = db._link
            assert link is not None
            link.pause_writing()
            write = task(db.execute("INCR", "n"))
            await until(lambda: link._room)
            proxy.links[0].cut()
            assert await write == 1


@on_loop
async def test_a_caller_that_leaves_disturbs_nobody(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            link = db._link
            before_flush = task(db.execute("ECHO", "a"))
            stays = task(db.execute("ECHO", "b"))
            await asyncio.sleep(0)
            before_flush.cancel()
            assert await stays == b"b"
            proxy.links[0].down.hold()
            in_flight = [task(db.execute("ECHO", number)) for number in range(10)]
            many = task(db.execute_many([("ECHO", "x")] * 3))
            transaction = task(db.transaction([("INCR", "n")]))
            last = task(db.execute("ECHO", "last"))
            await asyncio.sleep(0.05)
            for call in (*in_flight[::2], many, transaction):
                call.cancel()
            proxy.links[0].down.release()
            assert await last == b"last"
            assert [await call for call in in_flight[1::2]] == [b"1", b"3", b"5", b"7", b"9"]
            assert await db.execute("GET", "n") == b"1"
            assert db._link is link
            assert not link.flights  # type: ignore[union-attr]


@on_loop
async def test_cancelled_in_the_turn_in_which_the_reply_came(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url) as db:
        link = db._link
        assert link is not None
        call = task(db.execute("ECHO", "a"))
        other = task(db.execute("ECHO", "b"))
        received = link.data_received

        def receive(data: bytes) -> None:
            received(data)
            call.cancel()

        link.data_received = receive  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await other == b"b"
        assert await db.execute("ECHO", "c") == b"c"


@on_loop
async def test_time_limits_of_the_callers_own(any_server: client.EmbeddedServer) -> None:
    async with client.connect_async(any_server.url) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await db.execute("BLPOP", "nothing", 0)
        assert await db.execute("PING") == b"PONG"


# Commands that wait for somebody else.


@on_loop
async def test_commands_that_wait_hold_up_nobody(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, timeout=10) as db:
        pops = [task(db.execute("BLPOP", "list", 0)) for _ in range(5)]
        stream = task(db.execute("XREAD", "BLOCK", 0, "STREAMS", "s", "$"))
        while b"cmd=xread" not in await db.execute("CLIENT", "LIST"):
            await asyncio.sleep(0.01)
        link = db._link
        assert await db.execute("PING") == b"PONG"
        await db.execute("RPUSH", "list", *range(5))
        await db.execute("XADD", "s", "1-1", "f", "v")
        assert sorted([(await pop)[1] for pop in pops]) == [b"0", b"1", b"2", b"3", b"4"]
        assert b"1-1" in str(await stream).encode()
        assert db._link is link
        # XREAD that does not wait needs no connection of its own.
        writes = counted(db)
        await db.execute("XREAD", "STREAMS", "s", "0")
        assert len(writes) == 1


@on_loop
async def test_own_time_out_of_a_command_is_added_to_the_clients(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, timeout=0.2) as db:
        started = time.monotonic()
        assert await db.execute("BLPOP", "nothing", 1) is None
        assert time.monotonic() - started >= 1


@on_loop
async def test_connections_of_their_own_are_used_again_and_bounded(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, max_connections=2) as db:
        for _ in range(5):
            assert await db.execute("BLPOP", "nothing", 0.01) is None
        assert len(db._aside) == 1
        calls = [task(db.execute("BLPOP", "nothing", 0.05)) for _ in range(6)]
        assert await asyncio.gather(*calls) == [None] * 6
        assert len(db._aside) == 2


@on_loop
async def test_who_gets_no_connection_in_time_is_told_so(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, max_connections=1, timeout=0.2) as db:
        pop = task(db.execute("BLPOP", "list", 0))
        await asyncio.sleep(0.05)
        waiting = task(db.execute("BLPOP", "list", 0))
        with pytest.raises(client.PoolTimeout, match="nothing was sent"):
            await db.execute("BLPOP", "list", 0)
        waiting.cancel()
        with suppress(asyncio.CancelledError, client.PoolTimeout):
            await waiting
        await db.execute("RPUSH", "list", "a")
        assert await pop == [b"list", b"a"]
        assert await db.execute("BLPOP", "list", 0.01) is None


@on_loop
async def test_waiting_for_a_connection_and_for_its_reply_is_one_deadline(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, max_connections=1, timeout=2.0) as db:
            first = task(db.execute("BLPOP", "list", 1.5))
            await until(lambda: len(proxy.links) == 2)
            first.add_done_callback(lambda _: proxy.links[1].down.hold())
            started = time.monotonic()
            with pytest.raises(client.CommandTimeout, match="may have run"):
                await db.execute("BLPOP", "list", 0.2)
            assert time.monotonic() - started < 3.2  # not 3.7
            assert await first is None


@on_loop
async def test_a_cancelled_pop_takes_no_element(server: client.EmbeddedServer) -> None:
    async with client.connect_async(server.url) as db:
        for number in range(20):
            pop = task(db.execute("BLPOP", f"list{number}", 0))
            await until(lambda: any("cmd=blpop" in c for c in any_server_connections(server)))
            pop.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pop
            assert await db.execute("RPUSH", f"list{number}", "a") == 1
            assert await db.execute("LLEN", f"list{number}") == 1
        assert not db._aside


@on_loop
async def test_a_cancelled_wait_for_a_connection_passes_its_turn_on(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, max_connections=1) as db:
        link = await db._take_aside(float("inf"))
        waiting = [task(db.execute("BLPOP", "list", 0)) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        db._give_back_aside(link, spent=False)
        waiting[1].cancel()  # it is its turn, and it does not know yet
        await db.execute("RPUSH", "list", "a", "b")
        assert await waiting[2] == [b"list", b"a"]


@on_loop
async def test_an_idle_connection_that_was_lost_is_not_used_again(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, max_connections=1) as db:
            assert await db.execute("BLPOP", "l", 0.01) is None
            (idle,) = db._aside_idle
            proxy.links[1].cut()
            await until(lambda: idle.closed)
            assert await db.execute("BLPOP", "l", 0.01) is None
            assert idle not in db._aside


@on_loop
async def test_a_pop_that_is_cancelled_while_there_is_no_shared_connection_just_leaves(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            pop = task(db.execute("BLPOP", "l", 0))
            await until(lambda: any("cmd=blpop" in c for c in any_server_connections(any_server)))
            proxy.refusing = True
            proxy.links[0].cut()
            await until(lambda: db._link is None)
            pop.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pop
            assert not db._aside
            proxy.refusing = False
            assert await db.execute("PING") == b"PONG"


@on_loop
async def test_a_late_answer_to_ping_is_no_proof_and_no_failure(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asyncio, "_PATIENCE", 0.1)
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url, timeout=None, cache=True) as db:
            assert await db.execute("GET", "k") is None
            link = db._link
            assert link is not None
            proxy.links[0].down.hold()
            read = task(db.cached("GET", "k", max_stale=0))
            # Nothing is proven, so it is fetched.
            await until(lambda: any("GET" in str(commands) for _, commands, *_ in link.flights))
            proxy.links[0].down.release()
            assert await read is None


@on_loop
async def test_a_server_that_is_not_ready_is_not_asked_again_when_there_is_no_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tracking, "_FIRST_DELAY", 3_600.0)
    monkeypatch.setattr(_tracking, "_LONGEST_DELAY", 3_600.0)

    def script(peer: Peer) -> None:
        peer.greet()
        while peer.command():
            peer.send(b"-LOADING Redis is loading the dataset in memory\r\n")

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db:
            with pytest.raises(client.ReplyError, match="LOADING"):
                await db.execute("GET", "k")


@on_loop
async def test_reset_leaves_the_shared_connection_as_it_was(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url, db=3) as db:
        await db.execute("SET", "k", "v")
        assert await db.execute("RESET") == b"RESET"
        assert await db.execute("GET", "k") == b"v"
        assert not db._aside


@on_loop
async def test_nonsense_behind_the_greeting_of_a_private_connection_is_not_sent_elsewhere() -> None:
    commands: list[Any] = []

    def script(peer: Peer) -> None:
        peer.command()
        hello = b"%2\r\n+proto\r\n:3\r\n+id\r\n:7\r\n"
        peer.send(hello if scripted.accepted == 1 else hello + b"?nonsense\r\n")
        while command := peer.command():
            commands.append(command)

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url, timeout=0.5) as db:
            with pytest.raises((client.ProtocolError, client.ConnectionClosed)):
                await db.execute("BLPOP", "k", 0)
        assert commands == []


# Ends.


@on_loop
async def test_closing_waits_for_replies_and_refuses_what_comes_later(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        db = await client.connect_async(proxy.url)
        proxy.links[0].down.delay = 0.2
        call = task(db.execute("INCR", "n"))
        await turns()
        closing = task(db.aclose())
        again = task(db.aclose())
        await turns()
        with pytest.raises(client.ConnectionClosed, match="this client is closed"):
            await db.execute("INCR", "n")
        with pytest.raises(client.ConnectionClosed, match="this client is closed"):
            await db.execute("BLPOP", "n", 0)
        assert not again.done()
        await closing
        assert await call == 1
        await again
        await db.aclose()


@on_loop
async def test_what_is_late_when_closing_fails(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        db = await client.connect_async(proxy.url, timeout=0.3)
        proxy.links[0].freeze()
        call = task(db.execute("INCR", "n"))
        pop = task(db.execute("BLPOP", "l", 0))
        await turns()
        await db.aclose()
        with pytest.raises(client.ConnectionClosed, match="may have run"):
            await call
        with pytest.raises(client.ConnectionClosed):
            await pop


@on_loop
async def test_a_cancelled_close_closes_at_once(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        db = await client.connect_async(proxy.url, cache=True)
        async with db.pubsub("c") as messages:
            proxy.links[0].freeze()
            call = task(db.execute("INCR", "n"))
            await turns()
            closing = task(db.aclose())
            await asyncio.sleep(0.05)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            with pytest.raises(client.ConnectionClosed, match="may have run"):
                await call
            assert await messages.get() is None
        assert db.cache is not None
        assert db.cache.status == "off: client closed"


@on_loop
async def test_closing_fails_those_who_wait_for_a_connection_of_their_own(
    any_server: client.EmbeddedServer,
) -> None:
    db = await client.connect_async(any_server.url, max_connections=1, timeout=None)
    calls = [task(db.execute("BLPOP", "l", 0)) for _ in range(5)]
    await until(lambda: len(db._aside_turns) == 4)
    calls.pop().cancel()  # it keeps its place, and is told nothing
    await db.aclose()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, client.ConnectionClosed)


@on_loop
async def test_closing_what_was_never_connected_does_nothing() -> None:
    db = client.AsyncClient(client.Options())
    await db.aclose()
    await client.connect_async("redis://127.0.0.1:1").__aexit__(None, None, None)
    with pytest.raises(client.ConnectionClosed, match="this client is closed"):
        await db.execute("PING")


@on_loop
async def test_closing_while_it_reconnects(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        db = await client.connect_async(proxy.url)
        proxy.refusing = True
        proxy.links[0].cut()
        await until(lambda: db._link is None)
        call = task(db.execute("GET", "k"))
        await turns()
        await db.aclose()
        with pytest.raises(client.ConnectionClosed, match="was not sent"):
            await call


@on_loop
async def test_closing_while_the_listener_is_replaced_waits_for_replies_all_the_same(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        db = await client.connect_async(proxy.url, tracking=client.Tracking(listener="dedicated"))
        proxy.links[0].down.delay = 0.1
        call = task(db.execute("INCR", "n"))
        await turns()
        proxy.links[1].cut()
        await until(lambda: db._channel is None)
        await asyncio.sleep(0)
        await db.aclose()
        assert await call == 1


@on_loop
async def test_nothing_is_left_open(server: client.EmbeddedServer) -> None:
    before = open_things()
    for tracking in (client.Tracking(), client.Tracking(listener="dedicated")):
        async with client.connect_async(server.url, tracking=tracking) as db, db.pubsub("c"):
            await db.execute("BLPOP", "l", 0.01)
    await turns()
    assert open_things() == before


@on_loop
async def test_an_abandoned_client_warns_and_frees_its_sockets(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asyncio, "PING_INTERVAL", 0.05)  # its clock goes on once more
    before = open_things()
    ways: list[dict[str, Any]] = [
        {},
        {"cache": True},
        {"tracking": client.Tracking(listener="dedicated")},
    ]
    for options in ways:
        db: Any = await client.connect_async(any_server.url, **options)
        await db.execute("BLPOP", "l", 0.01)
        cache, tick = db.cache, db._tick
        with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):  # noqa: PT031
            del db
            gc.collect()
        await until(lambda: open_things() == before)
        looked_at = tick.when() if tick is not None else 0.0
        await asyncio.sleep(looked_at - asyncio.get_running_loop().time())
        assert cache is None or cache.status == "off: client abandoned"


def test_a_client_that_outlives_its_loop_warns_and_no_more(
    any_server: client.EmbeddedServer,
) -> None:
    async def connected() -> client.AsyncClient:
        return await client.connect_async(any_server.url, cache=True)

    said = let_go([asyncio.run(connected())])
    assert sum("unclosed <AsyncClient" in each for each in said) == 1


@on_loop
async def test_an_abandoned_client_is_not_connected_again(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        db: Any = await client.connect_async(proxy.url)
        link = db._link
        proxy.refusing = True
        proxy.links[0].cut()
        await until(lambda: link.closed)
        connecting = db._connecting
        with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):  # noqa: PT031
            del db
            await until(lambda: gc.collect() >= 0 and connecting.done())
        assert len(proxy.links) == 1


@on_loop
async def test_a_client_belongs_to_its_loop_and_thread(
    any_server: client.EmbeddedServer,
) -> None:
    errors: list[BaseException] = []
    async with client.connect_async(any_server.url) as db:

        def stranger() -> None:
            for call in (db.execute("PING"), db.execute_many([("PING",)]), db.aclose()):
                try:
                    asyncio.run(call)
                except RuntimeError as error:
                    errors.append(error)

        thread = threading.Thread(target=stranger)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [str(error) for error in errors] == ["this client belongs to another event loop"] * 3
        assert await db.execute("PING") == b"PONG"


@pytest.mark.parametrize("cache", [True, False])
@on_loop
async def test_a_forked_child_is_refused_and_leaves_the_parent_alone(
    any_server: client.EmbeddedServer, cache: bool
) -> None:
    async with client.connect_async(any_server.url, cache=cache) as db:
        await db.execute("GET", "k")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12: there are threads
            child = os.fork()
        if child == 0:
            try:
                asyncio.run(db.execute("PING"))
                os._exit(1)
            except client.ConnectionClosed as error:
                os._exit(0 if "parent process" in str(error) and len(db.cache or ()) == 0 else 2)
            finally:
                os._exit(3)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await db.execute("GET", "k") is None


# Other ways to connect.


@on_loop
async def test_unix_socket(server: client.EmbeddedServer) -> None:
    async with client.connect_async(
        server.unix_url, tracking=client.Tracking(listener="dedicated")
    ) as db:
        await db.execute("SET", "k", "v")
        assert await db.execute("GET", "k") == b"v"
        assert await db.execute("GET", "k") == b"v"
        assert await db.execute("BLPOP", "l", 0.01) is None
        async with db.pubsub("c") as messages:
            await db.execute("PUBLISH", "c", "hi")
            assert (await messages.get(5)).data == b"hi"  # type: ignore[union-attr]


@on_loop
async def test_passwords(private_server: StartServer) -> None:
    server = private_server(password="secret")
    async with client.connect_async(server.url) as db:
        assert await db.execute("PING") == b"PONG"
    url = f"redis://{server.host}:{server.port}"
    with pytest.raises(client.WrongPassError) as refusal:
        await client.connect_async(url, password="guessed")
    assert "guessed" not in str(refusal.value)
    with pytest.raises(client.NoAuthError):
        await client.connect_async(url)
