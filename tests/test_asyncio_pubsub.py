"""The asyncio client's subscriber: messages of a real server, slow readers, lost connections."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import greet, let_go, on_loop, turns, until
from proxy import Proxy
from readers import open_things
from scripted import Peer, ScriptedServer

import client
from client import Message, _async_subscriber

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Binary, Wire


@pytest.mark.parametrize("protocol", [2, 3])
@on_loop
async def test_channels_and_patterns(
    server: client.EmbeddedServer, wire: Callable[..., Wire], protocol: Any
) -> None:
    other = wire(server)
    async with (
        client.connect_async(server.url, protocol=protocol) as db,
        db.pubsub("news.*", "c", channels=["odd*"], patterns=["n?ws.x"]) as messages,
    ):
        for channel in ("c", "news.x", "odd*", "odder"):
            other("PUBLISH", channel, "hi")
        await db.execute("PUBLISH", "c", b"\xff")
        got = [await anext(messages) for _ in range(5)]
        assert got[0] == Message(b"c", b"hi")
        assert set(got[1:3]) == {
            Message(b"news.x", b"hi", b"news.*"),
            Message(b"news.x", b"hi", b"n?ws.x"),
        }
        assert got[3:] == [Message(b"odd*", b"hi"), Message(b"c", b"\xff")]
        assert await messages.get(timeout=0.01) is None
        assert (messages.interruptions, messages.dropped) == (0, 0)


@pytest.mark.parametrize("protocol", [2, 3])
@on_loop
async def test_sharded_channels(
    binary: Binary, server: client.EmbeddedServer, wire: Callable[..., Wire], protocol: Any
) -> None:
    async with client.connect_async(server.url, protocol=protocol) as db:
        messages = db.pubsub(shards=["s"])
        if binary.version < (7,):
            with pytest.raises(client.ReplyError, match="unknown command"):
                await messages.__aenter__()
            return
        async with messages:
            wire(server)("SPUBLISH", "s", "hi")
            assert await messages.get(5) == Message(b"s", b"hi", sharded=True)


@pytest.mark.parametrize("protocol", [2, 3])
@on_loop
async def test_text_and_what_is_none(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire], protocol: Any
) -> None:
    other = wire(any_server)
    async with (
        client.connect_async(any_server.url, protocol=protocol, encoding="utf-8") as db,
        db.pubsub("c") as messages,
    ):
        for payload in ("é".encode(), b"\xff", b"last"):
            other("PUBLISH", "c", payload)
        assert await messages.get(5) == Message("c", "é")
        with pytest.raises(UnicodeDecodeError):
            await messages.get(5)
        assert await messages.get(5) == Message("c", "last")


@pytest.mark.parametrize("protocol", [2, 3])
@on_loop
async def test_subscribed_again_after_a_kill(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire], protocol: Any
) -> None:
    other = wire(any_server)
    async with (
        client.connect_async(any_server.url, protocol=protocol) as db,
        db.pubsub("c", "p*") as messages,
    ):
        for times in (1, 2):
            other("PUBLISH", "c", "before")
            await until(lambda: messages._inbox.messages)
            other("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: messages._link is None)
            await until(lambda: messages._link is not None)
            assert messages.interruptions == times
            other("PUBLISH", "c", "after")
            other("PUBLISH", "party", "after")
            assert [(await anext(messages)).data for _ in range(3)] == [b"before", *[b"after"] * 2]


@on_loop
async def test_subscribed_again_after_a_restart(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    server = private_server()
    async with client.connect_async(server.url) as db, db.pubsub("c") as messages:
        port = server.port
        server.stop()
        await until(lambda: messages.interruptions == 1)
        await asyncio.sleep(0.1)
        private_server(args=["--port", str(port), "--bind", "127.0.0.1"])
        await until(lambda: messages._link is not None)
        wire(server)("PUBLISH", "c", "hi")
        assert (await anext(messages)).data == b"hi"


@on_loop
async def test_refused_for_good_is_told_to_the_reader(
    private_server: StartServer, wire: Callable[..., Wire]
) -> None:
    server = private_server()
    other = wire(server)
    other("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all")
    async with (
        client.connect_async(server.url, username="u", password="pw") as db,
        db.pubsub("c") as messages,
    ):
        waiting = asyncio.ensure_future(messages.get())
        await turns()
        other("ACL", "SETUSER", "u", "-subscribe")
        other("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(client.ReplyError, match="NOPERM"):
            await waiting
        with pytest.raises(client.ReplyError, match="NOPERM"):
            await anext(messages)


@on_loop
async def test_slow_reader_pauses_the_connection(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(any_server)
    count = 20_000
    async with (
        client.connect_async(any_server.url) as db,
        db.pubsub("c", max_pending=100) as messages,
    ):
        payload = b"x" * 1_000
        other.send_raw(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$1000\r\n%b\r\n" % payload * count)
        await until(lambda: messages._inbox.paused)
        await asyncio.sleep(0.2)
        # A read brings 256 KiB at most.
        assert 100 <= len(messages._inbox.messages) < 100 + 300
        for _ in range(count):
            assert (await anext(messages)).data == payload
        assert messages.dropped == 0
        assert messages.interruptions == 0
        assert await messages.get(0.01) is None


@on_loop
async def test_slow_reader_loses_the_oldest_if_it_says_so(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(any_server)
    async with (
        client.connect_async(any_server.url) as db,
        db.pubsub("c", max_pending=100, overflow="drop") as messages,
    ):
        await db.execute_many([("PUBLISH", "c", number) for number in range(10_000)])
        await until(lambda: messages.dropped == 9_900)
        assert len(messages._inbox.messages) == 100
        assert [(await anext(messages)).data for _ in range(100)] == [
            b"%d" % number for number in range(9_900, 10_000)
        ]
        other("PUBLISH", "c", "next")
        assert (await anext(messages)).data == b"next"


@on_loop
async def test_a_cut_is_seen_while_paused_once_there_is_room(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(any_server)
    async with (
        client.connect_async(any_server.url) as db,
        db.pubsub("c", max_pending=2) as messages,
    ):
        for number in range(5):
            other("PUBLISH", "c", number)
        await until(lambda: messages._inbox.paused)
        other("CLIENT", "KILL", "TYPE", "pubsub")
        got = [(await anext(messages)).data for _ in range(5)]
        assert got == [b"0", b"1", b"2", b"3", b"4"]
        await until(lambda: messages.interruptions == 1 and messages._link is not None)
        other("PUBLISH", "c", "on")
        assert (await anext(messages)).data == b"on"


@on_loop
async def test_a_cancelled_reader_loses_no_message(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    other = wire(any_server)
    async with client.connect_async(any_server.url) as db, db.pubsub("c") as messages:
        waiting = asyncio.ensure_future(messages.get())
        await turns()
        wake = messages._wake

        def wake_and_cancel() -> None:
            wake()
            waiting.cancel()  # in the turn in which the message came

        messages._wake = wake_and_cancel  # type: ignore[method-assign]
        other("PUBLISH", "c", "m")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await anext(messages)).data == b"m"


@on_loop
async def test_one_reader_entered_once(any_server: client.EmbeddedServer) -> None:
    async with client.connect_async(any_server.url) as db:
        messages = db.pubsub("c")
        with pytest.raises(RuntimeError, match="enter the subscriber first"):
            await messages.get()
        async with messages:
            waiting = asyncio.ensure_future(messages.get())
            await turns()
            with pytest.raises(RuntimeError, match="another task waits"):
                await messages.get()
            with pytest.raises(RuntimeError, match="entered once"):
                await messages.__aenter__()
        assert await waiting is None
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
        with pytest.raises(ValueError, match="nothing to subscribe to"):
            db.pubsub()


@on_loop
async def test_what_came_before_closing_can_still_be_read(
    any_server: client.EmbeddedServer,
) -> None:
    db = await client.connect_async(any_server.url)
    async with db.pubsub("c") as messages:
        await db.execute("PUBLISH", "c", "a")
        await until(lambda: messages._inbox.messages)
        await asyncio.gather(db.aclose(), db.aclose(), messages.aclose())
        assert [message.data async for message in messages] == [b"a"]
    with pytest.raises(client.ConnectionClosed, match="this client is closed"):
        await db.pubsub("c").__aenter__()


@on_loop
async def test_closing_while_it_is_subscribed_again(any_server: client.EmbeddedServer) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db, db.pubsub("c") as messages:
            proxy.refusing = True
            proxy.links[1].cut()
            await until(lambda: messages.interruptions == 1)
            await asyncio.sleep(0.05)


@on_loop
async def test_a_flood_during_the_subscription_and_nonsense_after_it() -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        if peer.command() == [b"SUBSCRIBE", b"c"]:
            message = b">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n"
            peer.send(message * 5 + b">3\r\n+subscribe\r\n$1\r\nc\r\n:1\r\n" + message)
            peer.command() if scripted.accepted > 2 else peer.send(b"?nonsense\r\n")
        peer.command()

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db, db.pubsub("c") as messages:
            assert [(await anext(messages)).data for _ in range(12)] == [b"m"] * 12
            assert messages.interruptions == 1


@on_loop
async def test_an_abandoned_subscriber_warns_and_frees_its_socket(
    any_server: client.EmbeddedServer,
) -> None:
    async with client.connect_async(any_server.url) as db:
        before = open_things()
        messages = db.pubsub("c")
        await messages.__aenter__()
        with pytest.warns(ResourceWarning, match="unclosed <AsyncSubscriber"):  # noqa: PT031
            del messages
            gc.collect()
        await until(lambda: open_things() == before)


@on_loop
async def test_a_dead_server_is_not_stormed(any_server: client.EmbeddedServer) -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        peer.command()
        peer.send(b">3\r\n+subscribe\r\n$1\r\nc\r\n:1\r\n")

    with ScriptedServer(script) as scripted:
        db = await client.connect_async(any_server.url)
        db._options = client.Options.from_url(scripted.url)
        async with db, db.pubsub("c") as messages:
            started = time.monotonic()
            await until(lambda: time.monotonic() > started + 1.0)
            assert 2 <= messages.interruptions <= 10


@on_loop
async def test_a_link_that_lived_long_enough_is_replaced_without_a_pause(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = wire(any_server)
    async with client.connect_async(any_server.url) as db, db.pubsub("c") as messages:
        other("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: messages.interruptions == 1 and messages._link is not None)
        pauses = messages._pauses
        monkeypatch.setattr(_async_subscriber, "STEADY", 0.0)  # any life is long enough
        other("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: messages.interruptions == 2 and messages._link is not None)
        assert messages._pauses is not pauses


@on_loop
async def test_a_flood_during_the_subscription_pauses_the_new_connection() -> None:
    message = b">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n"

    def script(peer: Peer) -> None:
        greet(peer)
        if peer.command() == [b"SUBSCRIBE", b"c"]:
            peer.send(message * 5 + b">3\r\n+subscribe\r\n$1\r\nc\r\n:1\r\n")
            peer.send(message * 3)
        peer.command()

    with ScriptedServer(script) as scripted:
        async with (
            client.connect_async(scripted.url) as db,
            db.pubsub("c", max_pending=2) as messages,
        ):
            assert messages._inbox.paused
            assert [(await anext(messages)).data for _ in range(8)] == [b"m"] * 8
            assert messages.interruptions == 0


@on_loop
async def test_a_full_inbox_is_read_while_its_connection_is_being_replaced() -> None:
    message = b">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n"

    def script(peer: Peer) -> None:
        greet(peer)
        if peer.command() == [b"SUBSCRIBE", b"c"]:
            peer.send(b">3\r\n+subscribe\r\n$1\r\nc\r\n:1\r\n")
            if peer.command() == [b"PING"]:
                peer.send(message * 5 + b"?nonsense\r\n")
        peer.command()

    with ScriptedServer(script) as scripted:
        async with (
            client.connect_async(scripted.url) as db,
            db.pubsub("c", max_pending=2) as messages,
        ):
            assert messages._link is not None
            messages._link.ping(float("inf"))  # now the flood may come
            await until(lambda: messages.interruptions == 1)
            assert messages._link is None
            assert messages._inbox.paused
            assert [(await anext(messages)).data for _ in range(5)] == [b"m"] * 5
            await until(lambda: messages._link is not None)


@on_loop
async def test_nonsense_behind_the_subscription_is_told_to_who_enters() -> None:
    def script(peer: Peer) -> None:
        greet(peer)
        if peer.command() == [b"SUBSCRIBE", b"c"]:
            peer.send(b">3\r\n+subscribe\r\n$1\r\nc\r\n:1\r\n?nonsense\r\n")
        peer.command()

    with ScriptedServer(script) as scripted:
        async with client.connect_async(scripted.url) as db:
            with pytest.raises(client.ConnectionClosed, match="the subscriber's connection"):
                await db.pubsub("c").__aenter__()


@on_loop
async def test_an_abandoned_subscriber_is_not_subscribed_again(
    any_server: client.EmbeddedServer,
) -> None:
    with Proxy(any_server) as proxy:
        async with client.connect_async(proxy.url) as db:
            messages: Any = db.pubsub("c")
            await messages.__aenter__()
            link = messages._link
            proxy.refusing = True
            proxy.links[1].cut()
            await until(lambda: link.closed)
            reopening = messages._reopening
            del messages
            gc.collect()
            await until(reopening.done)
            assert len(proxy.links) == 2


def test_a_subscriber_that_outlives_its_loop_warns_and_no_more(
    any_server: client.EmbeddedServer,
) -> None:
    async def subscribed() -> tuple[client.AsyncClient, client.AsyncSubscriber]:
        db = await client.connect_async(any_server.url)
        return db, await db.pubsub("c").__aenter__()

    kept = [*asyncio.run(subscribed())]
    said = let_go(kept)
    assert sum("unclosed <AsyncSubscriber" in each for each in said) == 1
    assert sum("unclosed <AsyncClient" in each for each in said) == 1
