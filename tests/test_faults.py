"""Servers that die, stop, refuse and run full, under each of the client's tools.

A fault is done to a real server of the test's own. What is asked each time: the error is named, it
comes in time, and the same client works again once the server does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from readers import PATIENCE, wait_until

import client
from client import CommandTimeout, ConnectError, ConnectionClosed, connect, connect_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from conftest import StartServer

    from client import AsyncClient, Client, EmbeddedServer

TIMEOUT = 0.5


@pytest.fixture
def broken(private_server: StartServer) -> EmbeddedServer:
    return private_server()


def again(call: Callable[[], Any]) -> Any:
    """Call; again, if it was not served in time: that is short, and machines do other things."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except TimeoutError:
            assert time.monotonic() < deadline


async def again_async(call: Callable[[], Awaitable[Any]]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except TimeoutError:
            assert time.monotonic() < deadline


@pytest.fixture
def db(broken: EmbeddedServer) -> Iterator[Client]:
    with again(lambda: connect(broken.url, timeout=TIMEOUT, connect_timeout=TIMEOUT)) as made:
        yield made


def watch(db: Client) -> None:
    with db.watch("k") as look:
        look.execute("GET", "k")
        look.queue("SET", "k", "v")


TOOLS: dict[str, Callable[[Client], Any]] = {
    "execute": lambda db: db.execute("SET", "k", "v"),
    "execute_many": lambda db: db.execute_many([("SET", "k", "v"), ("GET", "k")]),
    "transaction": lambda db: db.transaction([("SET", "k", "v")]),
    "watch": watch,
    "scan": lambda db: list(db.scan()),
    "script": lambda db: db.script("return 1")(),
    "blocking": lambda db: db.execute("BLPOP", "nothing", 0.1),
    "pubsub": lambda db: db.pubsub("c").__enter__().close(),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_killed_server_is_an_error_at_once_and_forgotten_when_it_is_back(
    tool: str, broken: EmbeddedServer, db: Client
) -> None:
    use = TOOLS[tool]
    again(lambda: use(db))
    broken.kill()
    started = time.monotonic()
    with pytest.raises(ConnectionClosed):
        use(db)
    assert time.monotonic() - started < TIMEOUT + 1.0
    broken.restart()
    again(lambda: use(db))


@pytest.mark.parametrize("tool", TOOLS)
def test_stopped_server_is_a_time_out_and_forgotten_when_it_goes_on(
    tool: str, broken: EmbeddedServer, db: Client
) -> None:
    use = TOOLS[tool]
    again(lambda: use(db))
    broken.pause()
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        use(db)
    taken = time.monotonic() - started
    broken.resume()
    assert isinstance(caught.value, CommandTimeout)
    # Opening a connection may take its own time on top: the kernel accepts for the server.
    assert TIMEOUT * 0.9 <= taken < 2 * TIMEOUT + 2.0
    again(lambda: use(db))


def test_server_that_takes_no_more_clients_says_so(broken: EmbeddedServer, db: Client) -> None:
    db.execute("CONFIG", "SET", "maxclients", 1)
    told = set()
    for _ in range(50):
        with pytest.raises(ConnectionClosed) as caught:
            connect(broken.url)
        told.add(str(caught.value))
    # It says so and closes; what it said is lost with the connection if our HELLO comes later.
    assert any("takes no more connections: ERR max number of clients" in text for text in told)
    assert db.execute("PING") == b"PONG"


def test_server_that_is_full_refuses_writes_and_serves_reads(
    broken: EmbeddedServer, db: Client
) -> None:
    del broken
    db.execute("SET", "k", "v")
    db.execute("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(client.OutOfMemoryError):
        db.execute("SET", "k", "w")
    with pytest.raises(client.ExecAbortError):
        db.transaction([("SET", "k", "w")])
    assert db.execute("GET", "k") == b"v"
    db.execute("CONFIG", "SET", "maxmemory", 0)
    assert db.execute("SET", "k", "w") == b"OK"


def test_server_that_became_a_replica_refuses_writes_until_it_is_none(
    broken: EmbeddedServer,
) -> None:
    with connect(broken.url, timeout=PATIENCE, retries=0) as hasty:
        hasty.execute("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(client.ReadOnlyError):
            hasty.execute("SET", "k", "v")
    with connect(broken.url, timeout=PATIENCE, retries=20) as db:
        later = threading.Timer(0.1, _promote, [db])
        later.start()
        assert db.execute("SET", "k", "v") == b"OK"  # asked again, until it was
        later.join()


def _promote(db: Client) -> None:
    db.execute("REPLICAOF", "NO", "ONE")


def test_server_busy_with_a_script_says_so(broken: EmbeddedServer, db: Client) -> None:
    db.execute("CONFIG", "SET", "lua-time-limit", 1)
    stuck = threading.Thread(target=_run_for_ever, args=(broken,))
    stuck.start()
    try:
        wait_until(lambda: _answer(db) == "BUSY")
    finally:
        wait_until(lambda: _kill_script(db))
        stuck.join(PATIENCE)
    assert db.execute("PING") == b"PONG"


def _run_for_ever(server: EmbeddedServer) -> None:
    with connect(server.url, timeout=PATIENCE) as db, pytest.raises(client.ReplyError):
        db.execute("EVAL", "while true do end", 0)


def _answer(db: Client) -> str:
    try:
        db.execute("GET", "k")
    except client.BusyError as error:
        return error.code
    except TimeoutError:
        return "time-out"
    return "none"


def _kill_script(db: Client) -> bool:
    try:
        db.execute("SCRIPT", "KILL")
    except client.ReplyError as error:
        return error.code == "NOTBUSY"  # the one before was not answered in time
    except TimeoutError:
        return False
    return True


def test_subscriber_outlives_its_server(broken: EmbeddedServer, db: Client) -> None:
    with db.pubsub("c") as messages:
        broken.kill()
        assert messages.get(0.2) is None
        broken.restart()
        wait_until(lambda: messages.get(0.1) is None and db.execute("PUBLISH", "c", "x") == 1)
        message = messages.get(PATIENCE)
        assert message is not None
        assert message.data == b"x"
        assert messages.interruptions >= 1


def test_first_connection_fails_at_once_and_says_where(broken: EmbeddedServer) -> None:
    broken.kill()
    started = time.monotonic()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{broken.port}"):
        connect(broken.url)
    assert time.monotonic() - started < 4.0  # of 5


ASYNC_TOOLS: dict[str, Callable[[AsyncClient], Any]] = {
    "execute": lambda db: db.execute("SET", "k", "v"),
    "execute_many": lambda db: db.execute_many([("SET", "k", "v"), ("GET", "k")]),
    "transaction": lambda db: db.transaction([("SET", "k", "v")]),
    "script": lambda db: db.script("return 1")(),
    "blocking": lambda db: db.execute("BLPOP", "nothing", 0.1),
}


@pytest.mark.parametrize("tool", ASYNC_TOOLS)
def test_asyncio_client_outlives_a_stop_and_a_kill(tool: str, broken: EmbeddedServer) -> None:
    async def run() -> None:
        use = ASYNC_TOOLS[tool]
        made = lambda: connect_async(broken.url, timeout=TIMEOUT, connect_timeout=TIMEOUT)  # noqa: E731
        async with await again_async(made) as db:
            await again_async(lambda: use(db))
            broken.pause()
            with pytest.raises(TimeoutError):
                await use(db)
            broken.resume()
            await again_async(lambda: use(db))
            broken.kill()
            with pytest.raises((ConnectionClosed, TimeoutError)):
                await use(db)
            broken.restart()
            await again_async(lambda: use(db))

    asyncio.run(run(), debug=True)
