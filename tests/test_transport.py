"""The ways to a server, and their time limits: unix sockets, IPv6, keep-alive, deadlines."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from loops import on_loop
from readers import wait_until
from scripted import Peer, ScriptedServer
from servers import ask, find_servers

import client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client import EmbeddedServer


def works(url: str, server: EmbeddedServer) -> None:
    """Check reads, writes and the cache of both clients, in both ways of listening."""
    for listener in ("dedicated", "inline"):
        tracking = client.Tracking(listener=listener)
        ask(server, "SET", "k", "1")
        with client.connect(url, tracking=tracking) as db:
            assert [db.execute("GET", "k") for _ in range(2)] == [b"1"] * 2
            assert db.cache is not None
            assert db.cache.stats.hits == 1
            ask(server, "SET", "k", "2")
            wait_until(lambda: db.execute("GET", "k") == b"2")

        @on_loop
        async def go(tracking: client.Tracking = tracking) -> None:
            async with client.connect_async(url, tracking=tracking) as db:
                assert [await db.execute("GET", "k") for _ in range(2)] == [b"2"] * 2
                assert db.cache is not None
                assert db.cache.stats.hits == 1
                ask(server, "SET", "k", "3")
                async with asyncio.timeout(10):
                    while await db.execute("GET", "k") != b"3":
                        await asyncio.sleep(0.001)

        go()


def test_unix_socket(any_server: EmbeddedServer) -> None:
    works(any_server.unix_url, any_server)


def test_unix_socket_that_is_not_there_is_named(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(client.ConnectError, match=f"{path}: No such file"):
        client.connect(f"unix://{path}")

    @on_loop
    async def go() -> None:
        with pytest.raises(client.ConnectError, match=f"{path}: No such file"):
            await client.connect_async(f"unix://{path}")

    go()


@pytest.fixture
def on_ipv6() -> Iterator[EmbeddedServer]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with find_servers()[0].start(args=["--bind", "127.0.0.1", "::1"]) as server:
        yield server


def test_ipv6(on_ipv6: EmbeddedServer) -> None:
    works(f"redis://[::1]:{on_ipv6.port}/0", on_ipv6)
    with client.connect(f"redis://[::1]:{on_ipv6.port}") as db:
        assert repr(db) == f"<Client of [::1]:{on_ipv6.port} db 0>"
        on_ipv6.kill()
        with pytest.raises(client.ConnectError, match=rf"\[::1\]:{on_ipv6.port}"):
            db.execute("GET", "k")


def test_small_commands_leave_at_once_and_dead_peers_are_noticed(
    any_server: EmbeddedServer,
) -> None:
    def check(sock: Any) -> None:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    with client.Connection(client.Options.from_url(any_server.url)) as connection:
        check(connection._socket)

    @on_loop
    async def go() -> None:
        async with client.connect_async(any_server.url) as db:
            assert db._link is not None
            assert db._link._transport is not None
            check(db._link._transport.get_extra_info("socket"))

    go()


@pytest.fixture
def unreachable() -> Iterator[str]:
    """Give the URL of a port that does not even refuse: its queue is full, and SYNs are dropped."""
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.socket()))
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            sock = stack.enter_context(closing(socket.socket()))
            sock.setblocking(False)
            sock.connect_ex(address)
        yield f"redis://{address[0]}:{address[1]}"


def test_time_to_connect_is_limited_apart(unreachable: str) -> None:
    started = time.monotonic()
    with pytest.raises(client.ConnectTimeout, match=r"within 0\.3 s"):
        client.connect(unreachable, connect_timeout=0.3, timeout=30)

    @on_loop
    async def go() -> None:
        with pytest.raises(client.ConnectTimeout, match=r"within 0\.3 s"):
            await client.connect_async(unreachable, connect_timeout=0.3, timeout=30)

    go()
    assert time.monotonic() - started < 20  # of 30


def test_server_that_accepts_and_is_silent_costs_the_time_of_a_call() -> None:
    with ScriptedServer(lambda peer: peer.command() and peer.command()) as server:
        started = time.monotonic()
        with pytest.raises(client.CommandTimeout):
            client.connect(server.url, connect_timeout=30, timeout=0.3)

        @on_loop
        async def go() -> None:
            with pytest.raises(client.CommandTimeout):
                await client.connect_async(server.url, connect_timeout=30, timeout=0.3)

        go()
        assert time.monotonic() - started < 20  # of 30


def drip(peer: Peer) -> None:
    peer.greet()
    if peer.command():
        for byte in b"$10\r\n0123456789\r\n":
            time.sleep(1.0)
            peer.send(bytes([byte]))


@pytest.mark.parametrize("front", ["blocking", "asyncio"])
def test_time_out_is_a_deadline_even_if_a_byte_comes_every_second(front: str) -> None:
    """A time-out for each `recv` alone would let it take 17 s."""
    with ScriptedServer(drip) as server:
        if front == "blocking":
            with client.connect(server.url, timeout=1.5) as db:
                started = time.monotonic()
                with pytest.raises(client.CommandTimeout):
                    db.execute("GET", "k")
                assert 1.4 < time.monotonic() - started < 5
            return

        @on_loop
        async def go() -> None:
            async with client.connect_async(server.url, timeout=1.5) as db:
                started = time.monotonic()
                with pytest.raises(client.CommandTimeout):
                    await db.execute("GET", "k")
                assert 1.4 < time.monotonic() - started < 5

        go()
