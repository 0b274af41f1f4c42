"""The blocking client's tools beyond single commands: watch, scan, scripts, pub/sub, retries.

Where both front ends carry the same call, the asyncio client is tried beside it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from loops import until
from proxy import Proxy
from readers import PATIENCE, in_thread, wait_until
from scripted import Peer, ScriptedServer

import client
from client import (
    ConnectionClosed,
    ReplyError,
    WatchError,
    _sync_subscriber,
    connect,
    connect_async,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from conftest import StartServer
    from servers import Wire

    from client import AsyncClient, Client, EmbeddedServer


@pytest.fixture
def db(server: EmbeddedServer) -> Iterator[Client]:
    with connect(server.url, cache=True) as made:
        yield made


def in_loop(server: EmbeddedServer, act: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    """Do something with an asyncio client, in debug mode."""

    async def run() -> Any:
        async with connect_async(server.url) as made:
            return await act(made)

    return asyncio.run(run(), debug=True)


# WATCH.


def test_watch_changes_what_nobody_else_changed(db: Client) -> None:
    db.execute("SET", "stock", 5)
    for attempt in db.watch("stock"):
        with attempt as look:
            left = int(look.execute("GET", "stock"))
            look.queue("SET", "stock", left - 1)
            look.queue("LPUSH", "stock", "x")
    assert attempt.replies is not None
    assert attempt.replies[0] == b"OK"
    assert isinstance(attempt.replies[1], client.WrongTypeError)
    assert db.execute("GET", "stock") == b"4"


def test_watch_tries_again_when_somebody_came_in_between(
    db: Client, server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)
    other("SET", "stock", 1)
    seen = []
    for attempt in db.watch("stock", attempts=4):
        with attempt as look:
            seen.append(look.execute("GET", "stock"))
            if len(seen) < 3:
                other("INCR", "stock")
            look.queue("SET", "stock", int(seen[-1]) * 10)
    assert seen == [b"1", b"2", b"3"]
    assert other("GET", "stock") == b"30"


def test_watch_gives_up_after_its_attempts_and_runs_nothing(
    db: Client, server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)
    attempts = 0

    def take_one() -> None:
        nonlocal attempts
        for attempt in db.watch("stock", attempts=3):
            with attempt as look:
                attempts += 1
                other("INCR", "stock")
                look.queue("SET", "stock", "lost")

    with pytest.raises(WatchError, match="every attempt"):
        take_one()
    assert attempts == 3
    assert other("GET", "stock") == b"3"


def test_block_that_fails_runs_nothing_and_leaves_a_clean_connection(db: Client) -> None:
    def fail() -> None:
        with db.watch("k") as look:
            look.queue("SET", "k", "v")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    # The pool has one connection, so this is the one that watched.
    assert db.execute("GET", "k") is None
    db.execute("SET", "k", "other")
    assert db.transaction([("GET", "k")]) == [b"other"]


def test_watch_refuses_what_makes_no_sense(db: Client) -> None:
    with pytest.raises(ValueError, match="a key at least"):
        db.watch()
    with pytest.raises(ValueError, match="attempts"):
        db.watch("k", attempts=0)
    with pytest.raises(client.CommandRefused), db.watch("k") as look:
        look.execute("MULTI")
    with pytest.raises(RuntimeError, match="enter the attempt first"):
        next(iter(db.watch("k"))).execute("GET", "k")
    with pytest.raises(ValueError, match="its name"), db.watch("k") as look:
        look.queue()


def test_watch_outlives_the_end_of_its_connection(
    db: Client, server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)

    def die(look: Any) -> None:
        other("CLIENT", "KILL", "ID", look.execute("CLIENT", "ID"))

    def die_and(then: Callable[[Any], object]) -> None:
        with db.watch("k") as look:
            die(look)
            then(look)

    def fail(look: Any) -> None:
        raise KeyError

    for then, error in (
        (lambda look: look.execute("GET", "k"), ConnectionClosed),
        (lambda look: look.queue("SET", "k", "v"), ConnectionClosed),
        (fail, KeyError),  # what matters is why the block failed
    ):
        with pytest.raises(error):
            die_and(then)
    assert db.execute("GET", "k") is None
    with db.watch("k") as look:
        pass
    assert look.replies == []


def test_watch_whose_last_attempt_is_forgiven_ends(
    db: Client, server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)
    attempts = 0
    for attempt in db.watch("k", attempts=2):
        attempts += 1
        with suppress(WatchError), attempt as look:
            other("INCR", "k")
            look.queue("SET", "k", "lost")
    assert attempts == 2
    assert db.execute("GET", "k") == b"2"


def test_watched_write_is_seen_by_the_cache(db: Client) -> None:
    db.execute("SET", "k", "old")
    assert db.execute("GET", "k") == b"old"
    with db.watch("k") as look:
        look.queue("SET", "k", "new")
    assert db.execute("GET", "k") == b"new"


def test_watch_of_the_asyncio_client_ends_as_it_began(
    private_server: StartServer,
) -> None:
    server = private_server()

    async def lose_and_go_on(db: AsyncClient) -> int:
        attempts = 0
        async for attempt in db.watch("k", attempts=2):
            attempts += 1
            with suppress(WatchError):
                async with attempt as look:
                    await db.execute("INCR", "k")
                    look.queue("SET", "k", "lost")
        return attempts

    async def die(db: AsyncClient, *queued: str) -> None:
        async with db.watch("k") as look:
            number = await look.execute("CLIENT", "ID")
            await db.execute("CLIENT", "KILL", "ID", number)
            await until(lambda: look._link is not None and look._link.closed)
            if queued:
                look.queue(*queued)

    async def act() -> None:
        async with connect_async(server.url) as db:
            assert await lose_and_go_on(db) == 2
            with pytest.raises(RuntimeError, match="enter the attempt first"):
                await (await anext(aiter(db.watch("k")))).execute("GET", "k")
            await die(db)  # nothing was to be sent any more
            with pytest.raises(ConnectionClosed, match="was not sent"):
                await die(db, "SET", "k", "v")
            assert await db.execute("GET", "k") == b"2"
            await db.execute("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-watch")
        async with connect_async(server.url, username="u", password="pw") as db:
            with pytest.raises(ReplyError, match="NOPERM"):
                await db.watch("k").__aenter__()
            assert not db._aside

    asyncio.run(act())


def test_watch_whose_connection_ends_after_the_block_failed_tells_why_it_failed(
    any_server: EmbeddedServer,
) -> None:
    async def act(proxy: Proxy) -> None:
        async with connect_async(proxy.url) as db:
            look = db.watch("k")
            await look.__aenter__()
            proxy.links[1].down.hold()
            ending = asyncio.ensure_future(look.__aexit__(KeyError, KeyError("k"), None))
            await until(lambda: look._only._link is not None and look._only._link.flights)
            proxy.links[1].cut()
            await ending  # it raises nothing, so the block's own error goes on
            assert not db._aside

    with Proxy(any_server) as proxy:
        asyncio.run(act(proxy))


def test_watch_of_the_asyncio_client(server: EmbeddedServer) -> None:
    async def act(made: AsyncClient) -> list[int]:
        await made.execute("SET", "stock", 1)
        seen = []
        async for attempt in made.watch("stock"):
            async with attempt as look:
                seen.append(int(await look.execute("GET", "stock")))
                if len(seen) < 3:
                    await made.execute("INCR", "stock")
                look.queue("SET", "stock", seen[-1] * 10)

        async def lose() -> None:
            async with made.watch("stock") as look:
                await made.execute("INCR", "stock")
                look.queue("SET", "stock", "lost")

        async def fail() -> None:
            async with made.watch("stock"):
                raise KeyError

        with pytest.raises(WatchError):
            await lose()
        with pytest.raises(KeyError):
            await fail()
        return [*seen, int(await made.execute("GET", "stock"))]

    assert in_loop(server, act) == [1, 2, 3, 31]


# SCAN and its kin.


def test_scan_gives_every_key_of_a_large_database(db: Client) -> None:
    db.execute_many([("SET", f"user:{n}", n) for n in range(1_000)])
    db.execute("RPUSH", "list", 1)
    assert set(db.scan(match="user:*", count=50)) == {f"user:{n}".encode() for n in range(1_000)}
    assert set(db.scan(kind="list")) == {b"list"}


def test_scans_of_members_give_pairs_where_there_are_pairs(server: EmbeddedServer) -> None:
    for protocol in (2, 3):
        with connect(server.url, protocol=protocol) as db:
            db.execute("HSET", "h", *(word for n in range(500) for word in (f"f{n}", n)))
            db.execute("SADD", "s", *range(500))
            db.execute("ZADD", "z", *(word for n in range(500) for word in (n + 0.5, f"m{n}")))
            pairs = dict(db.scan("HSCAN", "h"))
            assert pairs == {f"f{n}".encode(): str(n).encode() for n in range(500)}
            assert set(db.scan("SSCAN", "s")) == {str(n).encode() for n in range(500)}
            assert dict(db.scan("ZSCAN", "z")) == {f"m{n}".encode(): n + 0.5 for n in range(500)}


def test_scan_of_the_asyncio_client(server: EmbeddedServer) -> None:
    async def act(made: AsyncClient) -> set[bytes]:
        await made.execute_many([("SET", f"user:{n}", n) for n in range(300)])
        return {key async for key in made.scan(match="user:*")}

    assert len(in_loop(server, act)) == 300


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"command": "KEYS"}, "expected one of"),
        ({"key": "k"}, "no key"),
        ({"command": "HSCAN"}, "needs a key"),
        ({"command": "SSCAN", "key": "k", "kind": "hash"}, "kind is for SCAN"),
        ({"values": False}, "for HSCAN"),
        ({"count": 0}, "count"),
    ],
)
def test_scan_refuses_what_does_not_go_together(
    any_server: EmbeddedServer, arguments: dict[str, Any], reason: str
) -> None:
    with connect(any_server.url) as db, pytest.raises(ValueError, match=reason):
        db.scan(**arguments)


def test_scan_refuses_an_answer_that_is_none() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        while peer.command() is not None:
            peer.send(b"+OK\r\n")

    with (
        ScriptedServer(script) as server,
        connect(server.url) as db,
        pytest.raises(client.UnexpectedReply, match="a cursor and a list"),
    ):
        list(db.scan())


def test_scan_takes_pairs_that_the_server_made() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        while peer.command() is not None:
            peer.send(b"*2\r\n$1\r\n0\r\n*2\r\n*2\r\n+a\r\n,1.5\r\n*2\r\n+b\r\n,2\r\n")

    with ScriptedServer(script) as server, connect(server.url) as db:
        assert list(db.scan("ZSCAN", "z")) == [(b"a", 1.5), (b"b", 2.0)]


# Scripts.


def test_script_is_sent_once_and_known_from_then_on(
    server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)
    other("SCRIPT", "FLUSH")
    other("CONFIG", "RESETSTAT")
    with connect(server.url) as db:
        take = db.script("return redis.call('DECRBY', KEYS[1], ARGV[1])")
        assert [take(["stock"], [2]), take(["stock"], [3])] == [-2, -5]
        assert other("SCRIPT", "EXISTS", take.sha) == [1]
        counts = other("INFO", "commandstats").decode()
        assert "cmdstat_eval:calls=1," in counts
        assert "cmdstat_evalsha:calls=2," in counts


def test_script_that_fails_raises_the_servers_error(db: Client) -> None:
    with pytest.raises(ReplyError, match="no luck"):
        db.script("return redis.error_reply('ERR no luck')")()
    with pytest.raises(TypeError, match="keys takes a sequence"):
        db.script("return 1")("key")
    with pytest.raises(TypeError, match="str or bytes, not int"):
        db.script(1)  # type: ignore[arg-type]


def test_script_of_a_caching_client_drops_what_it_wrote(db: Client) -> None:
    db.execute("SET", "k", "old")
    assert db.execute("GET", "k") == b"old"
    db.script("return redis.call('SET', KEYS[1], ARGV[1])")(["k"], ["new"])
    assert db.execute("GET", "k") == b"new"


def test_script_of_the_asyncio_client(server: EmbeddedServer) -> None:
    async def act(made: AsyncClient) -> Any:
        return await made.script("return {KEYS[1], ARGV[1]}")(["k"], ["v"])

    assert in_loop(server, act) == [b"k", b"v"]


# Errors by their code.


def test_errors_of_the_server_have_classes(db: Client) -> None:
    db.execute("RPUSH", "list", 1)
    with pytest.raises(client.WrongTypeError) as caught:
        db.execute("GET", "list")
    assert caught.value.code == "WRONGTYPE"
    assert [type(reply) for reply in db.execute_many([("GET", "list"), ("EVALSHA", "0", 0)])] == [
        client.WrongTypeError,
        client.NoScriptError,
    ]
    with pytest.raises(client.ExecAbortError):
        db.transaction([("NOSUCHCOMMAND",)])


# Retries.


def test_read_is_repeated_when_its_connection_was_lost(any_server: EmbeddedServer) -> None:
    del any_server
    answered = []

    def script(peer: Peer) -> None:
        peer.greet()
        answered.append(peer.command())
        if len(answered) >= 3:
            peer.send(b"$1\r\nv\r\n")
            peer.command()

    with ScriptedServer(script) as server, connect(server.url, timeout=5.0) as db:
        assert db.execute("GET", "k") == b"v"
    assert answered == [[b"GET", b"k"]] * 3


@pytest.mark.parametrize("retries", [0, 2])
def test_reads_are_repeated_as_often_as_was_said(retries: int) -> None:
    asked = []

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.command() is not None:
            asked.append(1)

    with ScriptedServer(script) as server, connect(server.url, retries=retries) as db:
        with pytest.raises(ConnectionClosed):
            db.execute("GET", "k")
        assert len(asked) == retries + 1


def test_write_that_may_have_run_is_not_repeated() -> None:
    asked = []

    def script(peer: Peer) -> None:
        peer.greet()
        while (command := peer.command()) is not None:
            asked.append(command)
            return

    with ScriptedServer(script) as server, connect(server.url) as db:
        for call in (
            lambda: db.execute("INCR", "k"),
            lambda: db.execute_many([("GET", "k"), ("INCR", "k")]),
            lambda: db.execute("EVAL", "return 1", 0),
            lambda: db.execute("NOBODYKNOWSTHIS"),
        ):
            before = len(asked)
            with pytest.raises(ConnectionClosed):
                call()
            assert len(asked) == before + 1


@pytest.mark.parametrize("code", ["LOADING", "TRYAGAIN", "READONLY", "MASTERDOWN"])
def test_what_the_server_has_not_begun_is_asked_again(code: str) -> None:
    asked = []

    def script(peer: Peer) -> None:
        peer.greet()
        while (command := peer.command()) is not None:
            asked.append(command)
            peer.send(b":1\r\n" if len(asked) > 2 else f"-{code} not now\r\n".encode())

    with ScriptedServer(script) as server:
        with connect(server.url) as db:
            assert db.execute("INCR", "k") == 1
        assert asked == [[b"INCR", b"k"]] * 3
        asked.clear()

        async def run() -> None:
            async with connect_async(server.url) as made:
                assert await made.execute("INCR", "k") == 1

        asyncio.run(run())
        assert asked == [[b"INCR", b"k"]] * 3
        asked.clear()
        with connect(server.url, retries=1) as db, pytest.raises(ReplyError, match=code):
            db.execute("INCR", "k")


def test_call_waits_for_a_server_that_restarts(private_server: StartServer) -> None:
    server = private_server()
    with connect(server.url, retries=50, timeout=PATIENCE) as db:
        db.execute("SET", "k", "v")
        port = server.port
        server.stop()
        started: list[EmbeddedServer] = []
        timer = threading.Timer(
            0.3, lambda: started.append(private_server(args=["--port", str(port)]))
        )
        timer.start()
        try:
            # Never sent until the server is there again, so a write is no danger.
            assert db.execute("SET", "k", "v") == b"OK"
        finally:
            timer.join()


# The pool.


def test_old_and_idle_connections_are_replaced(
    server: EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    del wire
    with connect(server.url, max_idle=0.2) as db:
        first = db.execute("CLIENT", "ID")
        assert db.execute("CLIENT", "ID") == first
        time.sleep(0.3)
        assert db.execute("CLIENT", "ID") != first
    with connect(server.url, max_age=0.2) as db:
        first = db.execute("CLIENT", "ID")
        time.sleep(0.3)
        assert db.execute("CLIENT", "ID") == first  # in use until it is given back
        assert db.execute("CLIENT", "ID") != first


def test_connection_that_sat_idle_is_checked_before_it_is_used(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server.url) as db:
        frames: list[Any] = []
        connection = db._pool.take()
        db._pool.give_back(connection)
        connection.idle_since -= 3_600
        monkeypatch.setattr(connection._session, "_trace", lambda *frame: frames.append(frame))
        db.execute("INCR", "k")
        assert [frame[2] for frame in frames if frame[1] == "sent"] == [[b"PING"], ["INCR", "k"]]


# Pub/sub.


@pytest.fixture(params=[2, 3])
def publisher(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Client]:
    with connect(server.url, protocol=request.param) as made:
        yield made


def test_messages_come_in_order_with_their_channels(publisher: Client) -> None:
    with publisher.pubsub("news.*", "alerts") as messages:
        assert publisher.execute("PUBLISH", "news.a", "1") == 1
        publisher.execute("PUBLISH", "alerts", b"\xff")
        publisher.execute("PUBLISH", "other", "unheard")
        assert tuple(messages.get(PATIENCE) or ()) == (b"news.a", b"1", b"news.*", False)
        assert tuple(messages.get_message(PATIENCE) or ()) == (b"alerts", b"\xff", None, False)
        assert messages.get(0.05) is None


def test_iteration_ends_when_the_subscriber_is_closed(publisher: Client) -> None:
    got = []
    with publisher.pubsub("c") as messages:
        for number in range(3):
            publisher.execute("PUBLISH", "c", number)
        threading.Timer(0.3, messages.close).start()
        got = [message.data for message in messages]
    assert got == [b"0", b"1", b"2"]


def test_callback_thread_hears_everything_and_ends_with_close(publisher: Client) -> None:
    got: list[Any] = []
    with publisher.pubsub(channels=["c*"]) as messages:  # a channel whose name has a star
        thread = messages.listen(got.append)
        for number in range(100):
            publisher.execute("PUBLISH", "c*", number)
        wait_until(lambda: len(got) == 100)
        with pytest.raises(RuntimeError, match="another thread"):
            messages.get(0.1)
        with pytest.raises(RuntimeError, match="listens already"):
            messages.listen(got.append)
    assert not thread.is_alive()
    assert [message.data for message in got] == [str(n).encode() for n in range(100)]


def test_subscriber_subscribes_again_and_says_so(publisher: Client) -> None:
    with publisher.pubsub("c", "p*") as messages:
        publisher.execute("CLIENT", "KILL", "TYPE", "pubsub")
        assert messages.get(0.3) is None
        assert messages.interruptions == 1
        publisher.execute("PUBLISH", "c", "back")
        publisher.execute("PUBLISH", "px", "too")
        assert [messages.get(PATIENCE).data for _ in range(2)] == [b"back", b"too"]  # type: ignore[union-attr]


def test_subscriber_is_entered_once(publisher: Client) -> None:
    messages = publisher.pubsub("c")
    with pytest.raises(RuntimeError, match="enter the subscriber first"):
        messages.get(0)
    with messages, pytest.raises(RuntimeError, match="entered once"):
        messages.__enter__()


def test_link_that_went_silent_is_replaced_although_the_reader_waits_without_end(
    any_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sync_subscriber, "_SILENCE", 0.05)
    got: list[Any] = []
    with (
        Proxy(any_server) as proxy,
        connect(any_server.url) as publisher,
        connect(proxy.url, timeout=0.5) as db,
        db.pubsub("c") as messages,
    ):
        reading = in_thread(lambda: got.append(messages.get()))
        proxy.links[-1].freeze()
        # The server still counts the old link among those who hear, so again and again.
        wait_until(
            lambda: messages.interruptions and publisher.execute("PUBLISH", "c", "back") and got
        )
        reading.join(PATIENCE)
    assert [message.data for message in got] == [b"back"]


def test_close_ends_a_reader_whose_server_is_gone(any_server: EmbeddedServer) -> None:
    got: list[Any] = []
    with (
        Proxy(any_server) as proxy,
        connect(proxy.url) as db,
        db.pubsub("c") as messages,
    ):
        reading = in_thread(lambda: got.extend(messages))
        proxy.refusing = True
        proxy.links[-1].cut()
        wait_until(lambda: messages.interruptions)
        messages.close()
        reading.join(PATIENCE)
        assert not reading.is_alive()
    assert got == []


def test_subscription_that_is_refused_from_now_on_is_told_to_the_reader(
    private_server: StartServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    server = private_server()
    other = wire(server)
    other("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all")
    with (
        connect(server.url, username="u", password="pw") as db,
        db.pubsub("c") as messages,
    ):
        other("ACL", "SETUSER", "u", "-subscribe")
        other("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(ReplyError, match="NOPERM"):
            messages.get(PATIENCE)
        other("ACL", "SETUSER", "u", "resetpass")
        with pytest.raises(client.HandshakeError, match="WRONGPASS"):
            messages.get(PATIENCE)


def test_sharded_channels(publisher: Client) -> None:
    if "SSUBSCRIBE" not in str(publisher.execute("COMMAND", "INFO", "SSUBSCRIBE")).upper():
        with pytest.raises(ReplyError), publisher.pubsub(shards=["s"]):
            pass
        return
    with publisher.pubsub(shards=["s"]) as messages:
        publisher.execute("SPUBLISH", "s", "1")
        assert tuple(messages.get(PATIENCE) or ()) == (b"s", b"1", None, True)


def test_text_is_decoded_and_what_is_none_is_an_error_of_its_own(server: EmbeddedServer) -> None:
    with connect(server.url, encoding="utf-8") as db, db.pubsub("c") as messages:
        for data in (b"one", b"\xff", b"two"):
            db.execute("PUBLISH", "c", data)
        assert messages.get(PATIENCE).data == "one"  # type: ignore[union-attr]
        with pytest.raises(UnicodeDecodeError):
            messages.get(PATIENCE)
        assert messages.get(PATIENCE).data == "two"  # type: ignore[union-attr]


def test_slow_reader_with_drop_loses_the_oldest_and_knows(publisher: Client) -> None:
    with publisher.pubsub("c", max_pending=10, overflow="drop") as messages:
        publisher.execute_many([("PUBLISH", "c", number) for number in range(100)])
        time.sleep(0.1)  # all is in the kernel by now, and one read brings it
        got = [message.data for message in iter(lambda: messages.get(0.2), None)]
        assert got[-1] == b"99"
        assert messages.dropped == 100 - len(got) > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "nothing to subscribe"),
        ({"channels": ["c"], "overflow": "wait"}, "overflow is"),
        ({"channels": ["c"], "max_pending": 0}, "max_pending"),
    ],
)
def test_pubsub_refuses_what_makes_no_sense(
    any_server: EmbeddedServer, arguments: dict[str, Any], reason: str
) -> None:
    with connect(any_server.url) as db, pytest.raises(ValueError, match=reason):
        db.pubsub(**arguments)
    with connect(any_server.url) as db, pytest.raises(TypeError, match="single one"):
        db.pubsub(channels="c")


def test_repeated_call_has_one_deadline() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        if peer.command() is not None:
            time.sleep(0.3)

    with ScriptedServer(script) as server, connect(server.url, timeout=0.5, retries=20) as db:
        started = time.monotonic()
        with pytest.raises((ConnectionClosed, TimeoutError)):
            db.execute("GET", "k")
        assert time.monotonic() - started < 3.0  # of 6


def test_cached_read_outlives_a_connection_that_is_lost_when_it_is_armed(
    server: EmbeddedServer,
    wire: Callable[[EmbeddedServer], Wire],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = wire(server)
    other("SET", "k", "v")
    killed: list[Any] = []
    with connect(server.url, cache=True) as db:
        assert db._tracker is not None
        arm = db._tracker.arm

        def arm_late(connection: Any, *rest: Any) -> int:
            if not killed:
                killed.append(other("CLIENT", "KILL", "ID", connection.id))
            return arm(connection, *rest)

        held = db._pool.take()  # so that a fresh one has to be armed
        monkeypatch.setattr(db._tracker, "arm", arm_late)
        assert db.execute("GET", "k") == b"v"
        db._pool.give_back(held)
    assert killed == [1]
