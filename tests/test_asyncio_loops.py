"""The asyncio client on other loops: uvloop, and anyio's asyncio back end, on its own terms."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from loops import AioReader, at_once, turns, until
from proxy import Proxy
from servers import Wire

import client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Scenario = Callable[[client.EmbeddedServer], Coroutine[Any, Any, None]]


def on_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main(), debug=True)


def on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import uvloop

    with asyncio.Runner(debug=True, loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_anyio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    anyio.run(main, backend="asyncio", backend_options={"debug": True})


def on_anyio_and_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # anyio's own use of uvloop
        anyio.run(main, backend="asyncio", backend_options={"debug": True, "use_uvloop": True})


LOOPS = [on_asyncio, on_anyio]
if find_spec("uvloop"):  # no wheels for some platforms
    LOOPS += [on_uvloop, on_anyio_and_uvloop]


async def many_tasks(server: client.EmbeddedServer) -> None:
    big = b"x" * 1_000_000
    async with (
        client.connect_async(server.url, timeout=60) as db,
        anyio.create_task_group() as tasks,
    ):
        replies: dict[int, Any] = {}

        async def echo(number: int) -> None:
            replies[number] = await db.execute("ECHO", number)

        for number in range(500):
            tasks.start_soon(echo, number)
        assert await db.execute("ECHO", big) == big
        assert await asyncio.gather(*(db.execute("ECHO", big) for _ in range(5))) == [big] * 5
        assert await db.execute_many([("ECHO", "a")] * 100) == [b"a"] * 100
        await until(lambda: replies == {number: b"%d" % number for number in range(500)})


async def caching(server: client.EmbeddedServer) -> None:
    for listener in ("inline", "dedicated"):
        tracking = client.Tracking(listener=listener)
        with closing(Wire(server)) as other:
            async with client.connect_async(server.url, tracking=tracking) as db:
                reader = AioReader(db, other)
                other("SET", "k", "old")
                await reader.hit("GET", "k")
                assert at_once(db.execute("GET", "k")) == b"old"
                other("SET", "k", "new")
                await reader.sees(b"new", "GET", "k")
                assert await db.cached("GET", "k", max_stale=0) == b"new"
                other("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                other("SET", "k", "newer")
                await reader.sees(b"newer", "GET", "k")


async def leaving(server: client.EmbeddedServer) -> None:
    async with client.connect_async(server.url) as db:
        with anyio.move_on_after(0.05) as scope:
            await db.execute("BLPOP", "list", 0)
        assert scope.cancelled_caught
        await db.execute("RPUSH", "list", "a")
        assert await db.execute("LRANGE", "list", 0, -1) == [b"a"]
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(db.execute, "INCR", "n")
            await anyio.sleep(0)
            tasks.cancel_scope.cancel()
        assert await db.execute("ECHO", "next") == b"next"
        with pytest.raises(client.CommandTimeout):
            async with client.connect_async(server.url, timeout=0.05) as hasty:
                await hasty.execute("DEBUG", "SLEEP", 0.3)


async def back_pressure(server: client.EmbeddedServer) -> None:
    with Proxy(server) as proxy:
        async with client.connect_async(proxy.url, timeout=30) as db:
            link = db._link
            assert link is not None
            proxy.links[0].up.hold()
            value = b"v" * 50_000
            calls = [
                asyncio.ensure_future(db.execute("SET", number, value)) for number in range(500)
            ]
            await until(lambda: link._paused)
            await turns(5)
            assert 0 < len(link.flights) < 400
            proxy.links[0].up.release()
            assert await asyncio.gather(*calls) == [b"OK"] * 500


async def messages(server: client.EmbeddedServer) -> None:
    async with (
        client.connect_async(server.url) as db,
        db.pubsub("c", "p*", max_pending=10) as inbox,
    ):
        await db.execute_many([("PUBLISH", "c", number) for number in range(1_000)])
        assert [(await anext(inbox)).data for _ in range(1_000)] == [
            b"%d" % number for number in range(1_000)
        ]
        with closing(Wire(server)) as other:
            other("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: inbox.interruptions == 1 and inbox._link is not None)
            other("PUBLISH", "party", "on")
        assert (await anext(inbox)).pattern == b"p*"


async def unix_socket(server: client.EmbeddedServer) -> None:
    async with client.connect_async(
        server.unix_url, tracking=client.Tracking(listener="dedicated")
    ) as db:
        assert await db.execute("GET", "k") is None
        assert at_once(db.execute("GET", "k")) is None
        with anyio.move_on_after(0.05):
            await db.execute("BLPOP", "list", 0)
        assert await db.execute("RPUSH", "list", "a") == 1
        assert await db.execute("LLEN", "list") == 1


async def ends(server: client.EmbeddedServer) -> None:
    with pytest.raises(client.ConnectError):
        await client.connect_async("redis://127.0.0.1:1")
    db = await client.connect_async(server.url, cache=True)
    call = asyncio.ensure_future(db.execute("INCR", "n"))
    await turns(1)
    await asyncio.gather(db.aclose(), db.aclose())
    assert await call == 1
    with pytest.raises(client.ConnectionClosed):
        await db.execute("PING")
    with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):
        await _abandon(server)


async def _abandon(server: client.EmbeddedServer) -> None:
    db: Any = await client.connect_async(server.url)
    await db.execute("PING")
    del db
    gc.collect()
    await turns(5)


SCENARIOS: list[Scenario] = [
    many_tasks,
    caching,
    leaving,
    back_pressure,
    messages,
    unix_socket,
    ends,
]


@pytest.mark.parametrize("run", LOOPS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_it_works(
    any_server: client.EmbeddedServer,
    run: Callable[[Any], None],
    scenario: Scenario,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 60.0
        await scenario(any_server)

    run(main)
    gc.collect()
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
