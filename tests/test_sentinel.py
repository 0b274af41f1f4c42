"""Sentinel: the primary is found, confirmed and followed, in front of real ones that fail over."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from loops import on_loop, until
from proxy import Proxy
from readers import wait_until
from servers import Service, Wire, ask, find_servers

import client
from client import ConnectError, Options, Push, ReplyError
from client._async_follower import AsyncFollower, open_found
from client._follower import Follower
from client._link import Link
from client._sentinel import (
    Ask,
    Finder,
    Visit,
    Wait,
    _subscribe,
    ask_primary,
    ask_replicas,
    confirm,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client import AsyncClient, Client

SECRET = "hunter2"
SENTINELS_SECRET = "correct horse"


@pytest.fixture(scope="module")
def shared_service() -> Iterator[Service]:
    # SENTINEL DEBUG, which makes them quick, exists since Redis 7.0.
    binary = next((each for each in find_servers() if each.version >= (7,)), None)
    if binary is None:
        pytest.skip("no server of version 7 or newer to be a quick sentinel")
    with ExitStack() as stack:
        yield Service(binary, stack, password=SECRET, sentinel_password=SENTINELS_SECRET)


@pytest.fixture
def service(shared_service: Service) -> Service:
    shared_service.settle()
    ask(shared_service.primary, "FLUSHALL")
    return shared_service


def given(service: Service, **more: Any) -> dict[str, Any]:
    """Give the keywords for `connect`."""
    secrets = {"password": SECRET, "sentinel_password": SENTINELS_SECRET}
    return {"url": service.url, **secrets, **more}


def leads_to(db: Client | AsyncClient) -> int | None:
    """Give the port to which all of a client's connections lead."""
    assert db._follower is not None
    return db._follower.address and db._follower.address[1]


def insist(call: Callable[[], Any]) -> Any:
    """Do a call until it succeeds: while there is no primary, it can't."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return call()
        except client.ConnectionClosed:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def entries(db: Client | AsyncClient) -> int:
    assert db.cache is not None
    return db.cache.stats.entries


# Real ones.


def test_killed_primary_is_followed_by_the_next_and_nothing_old_is_served(service: Service) -> None:
    old = service.primary
    with client.connect(**given(service), cache=True) as db:
        assert leads_to(db) == old.port
        db.execute("SET", "k", "old")
        service.replicate()
        assert [db.execute("GET", "k") for _ in range(2)] == [b"old"] * 2
        assert entries(db) == 1
        old.kill()
        assert insist(lambda: db.execute("SET", "k", "new")) == b"OK"
        wait_until(lambda: service.primary is not old)
        new = service.primary
        assert leads_to(db) == new.port
        assert db.execute("GET", "k") == b"new"
        # The cache is kept right again, by the new one.
        cache = db.cache
        assert cache is not None
        wait_until(lambda: cache.status == "on")
        assert db.execute("GET", "k") == b"new"
        assert entries(db) == 1
        ask(new, "SET", "k", "changed")
        wait_until(lambda: entries(db) == 0)
        assert db.execute("GET", "k") == b"changed"


def test_idle_client_moves_without_a_call_and_though_its_sentinel_is_frozen(
    service: Service,
) -> None:
    old = service.primary
    frozen, other, _ = service.sentinels
    with client.connect(**given(service, connect_timeout=1.5), cache=True) as db:
        db.execute("SET", "k", "old")
        service.replicate()
        db.execute("GET", "k")
        assert entries(db) == 1
        frozen.pause()
        try:
            ask(other, "SENTINEL", "FAILOVER", service.name)
            wait_until(lambda: leads_to(db) != old.port)
            wait_until(lambda: entries(db) == 0)
            # The first call finds the way, and is not told of anything.
            assert db.execute("SET", "k", "new") == b"OK"
        finally:
            frozen.resume()
        wait_until(lambda: service.primary.port == leads_to(db))


def test_frozen_primary_that_comes_back_is_not_listened_to(service: Service) -> None:
    """Split brain: the old primary thinks for a while that it is one still."""
    old = service.primary

    async def both() -> None:
        async with client.connect_async(**given(service), cache=True) as adb:
            with client.connect(**given(service), cache=True) as db:
                db.execute("MSET", "k", "old", "w", "old")
                await asyncio.to_thread(service.replicate)
                assert db.execute("GET", "k") == await adb.execute("GET", "k") == b"old"
                assert entries(db) == entries(adb) == 1
                await asyncio.to_thread(split, db, asyncio.get_running_loop(), adb)

    def split(db: Client, loop: asyncio.AbstractEventLoop, adb: AsyncClient) -> None:
        waiting: list[Any] = []
        thread = threading.Thread(target=lambda: waiting.append(db.execute("GET", "w")))
        assert adb._link is not None
        old.pause()
        try:
            # One waits for a reply, the other for a connection, which is accepted.
            loop.call_soon_threadsafe(adb._link.abort, client.ConnectionClosed("cut"))
            thread.start()
            waits = asyncio.run_coroutine_threadsafe(adb.execute("GET", "w"), loop)
            wait_until(lambda: leads_to(db) == leads_to(adb) != old.port)
            wait_until(lambda: service.primary is not old)
            new = service.primary
            assert leads_to(db) == new.port
            # Reads that waited for the old one were repeated at the new one.
            thread.join(10)
            assert waiting == [b"old"] == [waits.result(10)]
            ask(new, "SET", "k", "new")
        finally:
            old.resume()
        ask(old, "GET", "k")  # it is there again, and may still take itself for the primary
        for _ in range(20):
            assert db.execute("GET", "k") == b"new"
            again = asyncio.run_coroutine_threadsafe(adb.execute("GET", "k"), loop)
            assert again.result(10) == b"new"
            assert db.execute("SET", "mine", "x") == b"OK"

    asyncio.run(both())


def test_asyncio_client_follows_and_repeats_reads(service: Service) -> None:
    async def go() -> None:
        old = service.primary
        async with client.connect_async(**given(service), cache=True) as db:
            await db.execute("SET", "k", "old")
            await asyncio.to_thread(service.replicate)
            assert await db.execute("GET", "k") == b"old"
            assert entries(db) == 1
            await asyncio.to_thread(ask, service.sentinels[1], "SENTINEL", "FAILOVER", service.name)
            async with asyncio.timeout(10):
                while leads_to(db) == old.port:
                    assert await db.execute("GET", "k") == b"old"
                    await asyncio.sleep(0.01)
            assert await db.execute("SET", "k", "new") == b"OK"
            assert await db.execute("GET", "k") == b"new"
            assert db.cache is not None
            assert db.cache.status == "on"

    asyncio.run(go())


def test_replica_is_read_and_left_when_it_is_gone(service: Service) -> None:
    primary = service.primary
    with client.connect(**given(service, replica=True), cache=True) as db:
        first = next(server for server in service.servers if server.port == leads_to(db))
        assert first is not primary
        with pytest.raises(client.ReadOnlyError):
            db.execute("SET", "k", "x")
        assert leads_to(db) == first.port  # a refusal is no failover
        ask(primary, "SET", "k", "1")
        wait_until(lambda: db.uncached("GET", "k") == b"1")
        assert db.execute("GET", "k") == b"1"
        assert entries(db) == 1
        ask(primary, "SET", "k", "2")  # heard of from the replica
        wait_until(lambda: entries(db) == 0)
        db.execute("GET", "k")
        first.kill()
        assert insist(lambda: db.uncached("GET", "k")) == b"2"
        assert leads_to(db) not in (first.port, primary.port)

    async def go() -> None:
        async with client.connect_async(**given(service, replica=True)) as db:
            assert leads_to(db) != primary.port
            assert await db.execute("GET", "k") == b"2"
            with pytest.raises(client.ReadOnlyError):
                await db.execute("SET", "k", "x")

    asyncio.run(go())


def test_subscriber_and_database_and_pool_go_where_the_service_is(service: Service) -> None:
    with client.connect(**given(service, url=f"{service.url}/3", max_connections=3)) as db:
        db.execute("SET", "k", "in 3")
        ask_3 = Wire(service.primary)
        ask_3("SELECT", 3)
        assert ask_3("GET", "k") == b"in 3"
        ask_3.close()
        with db.pubsub("news") as messages:
            ask(service.primary, "PUBLISH", "news", "hello")
            message = messages.get(5)
            assert message is not None
            assert message.data == b"hello"


def test_forked_child_goes_its_own_way_and_the_parent_goes_on(service: Service) -> None:
    with client.connect(**given(service), cache=True) as db:
        db.execute("SET", "k", "1")
        pid = os.fork()
        if not pid:
            status = 1
            try:
                good = db.execute("GET", "k") == b"1" and leads_to(db) == service.primary.port
                assert db._follower is not None
                good &= db._follower._thread is not None
                db._follower.move(None)  # as after a failover
                db.close()
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert leads_to(db) == service.primary.port
        before = db.execute("CLIENT", "ID")
        assert db.execute("GET", "k") == b"1"
        assert db.execute("CLIENT", "ID") == before  # not even reconnected


def test_neither_thread_nor_connection_outlives_a_client(service: Service) -> None:
    def connected() -> list[int]:
        # HELLO's own connections, and those of sentinels among themselves, stay.
        return [
            ask(each, "CLIENT", "LIST").count(b"resp-client-test") for each in service.sentinels
        ]

    threads = threading.active_count()
    with client.connect(**given(service, client_name="resp-client-test")) as db:
        db.execute("PING")
        wait_until(lambda: sum(connected()) == 1)
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    wait_until(lambda: sum(connected()) == 0)

    async def go() -> None:
        async with client.connect_async(**given(service, client_name="resp-client-test")) as db:
            await db.execute("PING")
            await asyncio.to_thread(wait_until, lambda: sum(connected()) == 1)

    asyncio.run(go())
    wait_until(lambda: sum(connected()) == 0)


@on_loop
async def test_asyncio_client_listens_to_its_sentinel_again_after_a_cut(service: Service) -> None:
    with Proxy(service.sentinels[0]) as proxy:
        url = f"sentinel://{proxy.url.removeprefix('redis://')}/{service.name}"
        async with client.connect_async(**given(service, url=url)) as db:
            follower: Any = db._follower
            await until(lambda: follower._news is not None)  # it listens
            first = follower._kept
            proxy.refusing = True
            for link in list(proxy.links):
                link.cut()
            await until(lambda: follower._kept is None)
            proxy.refusing = False
            await until(lambda: follower._news is not None and follower._kept is not first)
            assert await db.execute("PING") == b"PONG"


def test_client_listens_to_its_sentinel_again_after_a_cut(service: Service) -> None:
    with Proxy(service.sentinels[0]) as proxy:
        url = f"sentinel://{proxy.url.removeprefix('redis://')}/{service.name}"
        with client.connect(**given(service, url=url)) as db:
            follower: Any = db._follower
            wait_until(lambda: follower._kept is not None)
            first = follower._kept
            proxy.refusing = True
            for link in list(proxy.links):
                link.cut()
            wait_until(lambda: follower._kept is None)
            proxy.refusing = False
            wait_until(lambda: follower._kept not in (None, first))
            assert db.execute("PING") == b"PONG"


def test_client_does_not_keep_what_moved_while_it_came_up(service: Service) -> None:
    class Late(Follower):
        def add(self, connection: Any, address: Any, moves: int) -> bool:
            self.move(("127.0.0.1", 1))  # a failover, heard of just now
            return super().add(connection, address, moves)

    secrets = given(service)
    options = Options.from_url(secrets.pop("url"), **secrets)
    follower = Late(options, None)
    with pytest.raises(ConnectError, match="while it was connected to"):
        client.Connection(options.replace(finder=follower))
    assert follower._thread is None


@on_loop
async def test_follower_of_an_abandoned_client_ends(service: Service) -> None:
    db: Any = await client.connect_async(**given(service))
    follower = db._follower
    await until(lambda: follower._news is not None)
    with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):  # noqa: PT031
        del db
        gc.collect()
    follower._wake()  # or it would when it asks again
    await until(follower._task.done)
    assert follower._kept is None


@on_loop
async def test_asyncio_client_does_not_keep_what_moved_while_it_came_up(service: Service) -> None:
    class Late(AsyncFollower):
        def add(self, connection: Any, address: Any, moves: int) -> bool:
            self.move(("127.0.0.1", 1))  # a failover, heard of just now
            return super().add(connection, address, moves)

    secrets = given(service)
    options = Options.from_url(secrets.pop("url"), **secrets)
    follower = Late(options, None, service)
    options = options.replace(finder=follower)
    loop = asyncio.get_running_loop()
    link = Link(options, loop, name="data", trace=None)
    with pytest.raises(ConnectError, match="moved while it was connected to"):
        await open_found(link, options, loop)
    assert follower._task is None
    await link.close()


# What fails is one error that names what was asked.


def fails(url: str, **keywords: Any) -> str:
    """Give the error with which both clients fail, which is the same."""
    with pytest.raises(ConnectError) as caught:
        client.connect(url, **keywords)

    async def go() -> None:
        await client.connect_async(url, **keywords)

    with pytest.raises(ConnectError) as caught_async:
        asyncio.run(go())
    for error in (caught, caught_async):
        assert SECRET not in repr(error.value)
        assert SENTINELS_SECRET not in repr(error.value)
    assert str(caught.value) == str(caught_async.value)
    return str(caught.value)


def test_sentinels_that_are_all_down_are_named() -> None:
    said = fails("sentinel://127.0.0.1:1,[::1]:2/mymaster")
    assert "the primary of 'mymaster'" in said
    assert "127.0.0.1:1" in said
    assert "[::1]:2" in said


def test_service_that_no_sentinel_knows_is_named(service: Service) -> None:
    for replica in (False, True):
        said = fails(**given(service, url=f"{service.url}s", replica=replica))
        assert said.count("knows no service 'mymasters'") == 3


def test_credentials_that_sentinels_refuse_are_not_in_the_error(service: Service) -> None:
    assert fails(**given(service, sentinel_password="wrong-1")).count("WRONGPASS") == 3
    assert fails(**given(service, sentinel_password=None)).count("NOAUTH") == 3


def test_credentials_that_the_server_refuses_are_their_own_error(service: Service) -> None:
    with pytest.raises(client.WrongPassError):
        client.connect(**given(service, password="wrong"))

    async def go() -> None:
        await client.connect_async(**given(service, password="wrong"))

    with pytest.raises(client.WrongPassError):
        asyncio.run(go())


# The conversations and the search, without a socket.


def outcome(conversation: Any, *replies: Any) -> Any:
    try:
        next(conversation)
        for reply in replies:
            conversation.send([reply])
    except StopIteration as end:
        return end.value
    raise AssertionError("it asks for more")


A, B, C = ("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)


def test_primary_is_read_from_what_a_sentinel_answers() -> None:
    assert outcome(ask_primary("m"), [b"10.0.0.1", b"1"]).usable == (A,)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (None, "knows no service 'm'"),
        (ReplyError("NOPERM no"), "NOPERM"),
        ([b"h"], "expected a host and a port"),
        ([b"h", b"0"], "expected a host and a port"),
        ([b"h", b"65536"], "expected a host and a port"),
        ([b"h", b"99999999999999999999"], "expected a host and a port"),
        ([b"", b"1"], "expected a host and a port"),
        (7, "expected a host and a port"),
    ],
)
def test_answer_that_names_no_primary_is_an_error(reply: Any, said: str) -> None:
    with pytest.raises(ConnectError, match=said):
        outcome(ask_primary("m"), reply)


def replica(address: tuple[str, int], flags: str, link: str = "ok") -> dict[bytes, bytes]:
    host, port = address
    return {
        b"ip": host.encode(),
        b"port": str(port).encode(),
        b"flags": flags.encode(),
        b"master-link-status": link.encode(),
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_replicas_that_are_up_come_first_the_ones_that_are_down_not_at_all(protocol: int) -> None:
    told = [replica(A, "slave", "err"), replica(B, "s_down,slave"), replica(C, "slave")]
    answer: list[Any] = told
    if protocol == 2:
        answer = [[word for pair in each.items() for word in pair] for each in told]
    named = outcome(ask_replicas("m"), answer)
    assert named.usable == (C, A)
    assert named.known == {A, B, C}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (ReplyError("ERR No such master with that name"), "knows no service 'm'"),
        (ReplyError("NOPERM no"), "NOPERM"),
        ([{b"flags": b"slave"}], "expected the ip and port"),
    ],
)
def test_answer_that_names_no_replicas_is_an_error(reply: Any, said: str) -> None:
    with pytest.raises(ConnectError, match=said):
        outcome(ask_replicas("m"), reply)


def test_role_is_what_hello_says_or_else_what_role_says() -> None:
    assert outcome(confirm(False, {"role": "master"})) is None
    assert outcome(confirm(True, {"role": "replica"})) is None
    assert outcome(confirm(False, {}), [b"master", 0, []]) is None
    assert outcome(confirm(True, {}), [b"slave", b"h", 1, b"connected", 0]) is None
    for reply in ([b"slave"], [b"sentinel"], ReplyError("NOPERM"), None):
        with pytest.raises(ConnectError, match="role"):
            outcome(confirm(False, {}), reply)
    with pytest.raises(ConnectError, match="'master'"):
        outcome(confirm(True, {"role": "master"}))


URL = "sentinel://10.1.0.1,10.1.0.2,10.1.0.3/m"


def finder(ended: list[Any] | None = None, **more: Any) -> Finder[Any]:
    return Finder(Options.from_url(URL, **more), None if ended is None else ended.append)


class Connected:
    """Stands for a connection."""


def test_sentinel_that_announces_nothing_is_asked_all_the_same() -> None:
    assert outcome(_subscribe({"proto": 3}), ReplyError("NOPERM")) is None
    assert outcome(_subscribe({"proto": 2})) is None


def named(*usable: tuple[str, int], down: tuple[tuple[str, int], ...] = ()) -> Any:
    return type(outcome(ask_primary("m"), [b"h", b"1"]))(usable, frozenset(usable + down))


def search(finder: Finder[Any], world: dict[str, Any]) -> tuple[list[str], Any]:
    """Play a search in a world of hosts: what each of them says, or the error that it is."""
    steps = finder.search(finder.options)
    visited = []
    try:
        step = next(steps)
        while True:
            assert not step.options.sentinels
            visited.append(step.options.host)
            said = world[step.options.host]
            step = steps.throw(said) if isinstance(said, Exception) else steps.send(said)
    except StopIteration as end:
        return visited, end.value


def test_sentinel_whose_primary_says_it_is_none_is_not_believed() -> None:
    found = finder()
    world = {
        "10.1.0.1": ConnectError("can't connect to 10.1.0.1:26379"),
        "10.1.0.2": named(A),
        "10.0.0.1": ConnectError("it says that its role is 'slave'"),
        "10.1.0.3": named(B),
        "10.0.0.2": None,
    }
    assert search(found, world) == (["10.1.0.1", "10.1.0.2", "10.0.0.1", "10.1.0.3", "10.0.0.2"], B)
    # The one that knew is asked first from now on.
    assert search(found, world) == (["10.1.0.3", "10.0.0.2"], B)


def test_search_that_fails_says_what_everyone_did() -> None:
    world = {
        "10.1.0.1": ConnectError("can't connect to 10.1.0.1:26379"),
        "10.1.0.2": named(A),
        "10.0.0.1": ConnectError("it says that its role is 'slave'"),
        "10.1.0.3": named(A),
    }
    with pytest.raises(ConnectError) as caught:
        search(finder(), world)
    assert str(caught.value) == (
        "found no server to be the primary of 'm': can't connect to 10.1.0.1:26379; "
        "10.1.0.2:26379 names 10.0.0.1:1: it says that its role is 'slave'; "
        "10.1.0.3:26379 names 10.0.0.1:1 as well"
    )


def test_no_replica_that_is_up_is_said() -> None:
    world = dict.fromkeys(("10.1.0.1", "10.1.0.2", "10.1.0.3"), named(down=(A,)))
    with pytest.raises(ConnectError, match=r"a replica of 'm': 10\.1\.0\.1.* knows of no replica"):
        search(finder(replica=True), world)


def test_refusal_of_the_server_ends_the_search() -> None:
    world = {"10.1.0.1": named(A), "10.0.0.1": client.WrongPassError("WRONGPASS")}
    with pytest.raises(client.WrongPassError):
        search(finder(), world)


def test_replica_is_kept_while_it_is_up() -> None:
    found = finder(replica=True)
    world = {"10.1.0.1": named(A, B, C), **dict.fromkeys(("10.0.0.1", "10.0.0.2"))}
    assert search(found, world)[1] == A
    assert found.add(Connected(), B, found.moves)
    assert search(found, world)[1] == B


def test_options_for_a_sentinel_carry_its_credentials_and_not_the_servers() -> None:
    found = finder(
        username="me", password=SECRET, sentinel_username="us", sentinel_password="other", db=3,
        connect_timeout=6.0, encoding="utf-8", protocol=2,
    )  # fmt: skip
    step = next(found.search(found.options))
    asked = step.options
    assert (asked.host, asked.port, asked.db) == ("10.1.0.1", 26379, 0)
    assert (asked.username, asked.password) == ("us", "other")
    assert asked.encoding is None
    # Together they have as long as a server has.
    assert asked.connect_timeout == asked.timeout == 2.0


def test_connection_found_before_a_move_is_not_kept_after_it() -> None:
    ended: list[Any] = []
    found = finder(ended)
    first, second, late = Connected(), Connected(), Connected()
    assert found.add(first, A, 0)
    moves = found.moves
    assert found.add(second, A, moves)
    found.move(B)
    assert set(ended) == {first, second}
    assert not found.add(late, A, moves)
    assert found.add(late, B, moves)


def test_connection_that_is_coming_up_is_ended_by_a_move_as_well() -> None:
    ended: list[Any] = []
    found = finder(ended)
    assert found.add(Connected(), A, found.moves)
    coming = Connected()
    found.note(coming, Options(host=A[0], port=A[1]))
    found.move(B)
    assert coming in ended


def test_new_connection_that_leads_elsewhere_ends_the_others() -> None:
    ended: list[Any] = []
    found = finder(ended)
    first, second = Connected(), Connected()
    assert found.add(first, A, found.moves)
    assert found.add(second, B, found.moves)
    assert ended == [first]
    assert found.address == B


def at(found: Finder[Any], address: tuple[str, int]) -> Connected:
    connection = Connected()
    assert found.add(connection, address, found.moves)
    return connection


def begin(found: Finder[Any]) -> Any:
    """Follow up to the first answer that is waited for."""
    steps = found.follow()
    step = next(steps)
    assert isinstance(step, Visit)
    assert step.keep
    assert isinstance(steps.send(None), Ask)
    return steps


SWITCH = Push([b"message", b"+switch-master", b"m 10.0.0.1 1 10.0.0.2 2"])


def test_announced_failover_is_followed_at_once() -> None:
    ended: list[Any] = []
    found = finder(ended)
    first = at(found, A)
    steps = begin(found)
    assert isinstance(steps.send(named(A)), Wait)
    assert isinstance(steps.send([SWITCH]), Ask)
    assert isinstance(steps.send(named(B)), Wait)
    assert ended == [first]
    assert found.address == B


def test_sentinel_that_is_behind_is_not_followed() -> None:
    ended: list[Any] = []
    found = finder(ended)
    at(found, B)
    steps = begin(found)
    probe = steps.send(named(A))  # it has missed the failover from A to B
    assert isinstance(probe, Visit)
    assert probe.options.host == A[0]
    assert not probe.keep
    assert isinstance(steps.throw(ConnectError("it says that its role is 'slave'")), Wait)
    assert (ended, found.address) == ([], B)
    # A primary of another service has failed over: no news.
    other = Push([b"message", b"+switch-master", b"mm 10.0.0.1 1 10.0.0.2 2"])
    assert isinstance(steps.send([other]), Ask)
    assert isinstance(steps.send(named(A)), Visit)
    # What the failover was that we have not heard of, the server itself confirms.
    assert isinstance(steps.send(None), Wait)
    assert found.address == A


def test_replica_that_is_down_is_left_if_there_is_another() -> None:
    ended: list[Any] = []
    found = finder(ended, replica=True)
    first = at(found, A)
    steps = begin(found)
    steps.send(named(down=(A,)))
    assert ended == []  # nothing better is known
    steps.send([])
    steps.send(named(B, down=(A,)))
    assert ended == [first]
    assert found.address is None


def test_replica_that_became_the_primary_is_left() -> None:
    ended: list[Any] = []
    found = finder(ended, replica=True)
    first = at(found, A)
    begin(found).send(named(down=(B,)))
    assert ended == [first]


def test_lost_sentinel_is_replaced_by_the_next_and_all_are_tried_again_after_a_pause() -> None:
    found = finder()
    steps = begin(found)
    hosts = []
    step = steps.throw(client.ConnectionClosed("gone"))
    while isinstance(step, Visit):
        hosts.append(step.options.host)
        step = steps.throw(ConnectError("refused"))
    assert hosts == ["10.1.0.2", "10.1.0.3"]
    assert isinstance(step, Wait)
    assert step.seconds < 1
    assert steps.send([]).options.host == "10.1.0.1"
