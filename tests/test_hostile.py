"""Servers that are broken, or mean it: both clients name the error, let go, and work on.

A server's first connection misbehaves after a good beginning, every later one is as it should be.
What is asked each time: a named error (at once where the bytes are wrong, when the time is up
where they are missing), no more memory than the limits allow, nothing said any more on that
connection, the next command answered on another, nobody left waiting.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from scripted import HELLO_3, Peer, ScriptedServer

import resp
from client import (
    ClientError,
    CommandTimeout,
    ConnectionClosed,
    HandshakeError,
    Tracking,
    connect,
    connect_async,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 0.5
# A tenth more than the time-out, and what a thread may wait for its turn on a busy machine.
LATE = TIMEOUT * 1.1 + 1.0
MIB = 1024 * 1024
LIMIT = 2 * MIB  # of one bulk reply

# Bytes that are wrong: the answer to a command, and what is said of them.
WRONG: dict[str, tuple[bytes, str]] = {
    "bulk of 100 GB": (b"$99999999999\r\n", "bulk"),
    "bulk of negative length": (b"$-5\r\n", "length"),
    "array of negative length": (b"*-5\r\n", "length"),
    "arrays without end": (b"*1\r\n" * 100_000, "nest"),
    "wrong type byte": (b"?what\r\n", "type"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "type"),
    "number that is none": (b":abc\r\n", "integer"),
    "number with spaces": (b": 1\r\n", "integer"),
    "number beyond 64 bits": (b":9223372036854775808\r\n", "64"),
    "bulk without trailer": (b"$3\r\nabcXY", "CRLF"),
    "length with a plus sign": (b"$+3\r\nabc\r\n", "length"),
    "boolean that is none": (b"#x\r\n", "t"),
    "double that is none": (b",one\r\n", ","),
    "lone line feed": (b"+OK\nmore\r\n", "line"),
    "chunk outside a stream": (b";1\r\na\r\n", "chunk"),
    "end of a stream that never began": (b".\r\n", ""),
    "push of negative length": (b">-1\r\n", "length"),
}

# Bytes that never come to an end, though each might.
MISSING: dict[str, bytes] = {
    "nothing": b"",
    "half a line": b"+O",
    "array of a thousand million": b"*1000000000\r\n:1\r\n",
    "map of a thousand million": b"%1000000000\r\n+key\r\n",
    "bulk that ends too soon": b"$10\r\nabc",
    "push instead of a reply": b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    "attribute of nothing": b"|1\r\n+a\r\n:1\r\n",
}


def rest_of(peer: Peer) -> None:
    """Answer as a server should."""
    while (command := peer.command()) is not None:
        name = command[0].upper()
        if name == b"HELLO":
            peer.send(HELLO_3)
        elif name == b"CLIENT" and command[1].upper() == b"ID":
            peer.send(b":7\r\n")
        elif name == b"INFO":
            peer.send(b"$0\r\n\r\n")
        elif name == b"PING":
            peer.send(b"+PONG\r\n")
        elif name == b"GET":
            peer.send(b"$4\r\ngood\r\n")
        else:
            peer.send(b"+OK\r\n")


class Hostile(ScriptedServer):
    """A server whose first connection answers GET with `misbehave`.

    Attributes:
        heard: what the client said on that connection afterwards.
    """

    def __init__(self, misbehave: Callable[[Peer], object]) -> None:
        self._misbehave = misbehave
        self._turn = threading.Lock()
        self._first = True
        self.heard: list[list[bytes]] = []
        self.left = threading.Event()
        super().__init__(self._serve)

    def _serve(self, peer: Peer) -> None:
        with self._turn:
            first, self._first = self._first, False
        if not first:
            rest_of(peer)
            return
        peer.greet()
        command = peer.command()
        assert command is not None
        assert command[0] == b"GET"
        try:
            self._misbehave(peer)
            while (command := peer.command()) is not None:
                self.heard.append(command)
        except (OSError, resp.ProtocolError):
            pass  # the client has left
        finally:
            self.left.set()


def saying(data: bytes) -> Callable[[Peer], object]:
    return lambda peer: peer.send(data)


class Blocking:
    """The blocking client, asked by a test."""

    name = "blocking"

    @staticmethod
    def ask(
        server: Hostile,
        judge: Callable[[Exception, float], None],
        again: float = 0.0,
        **options: Any,
    ) -> None:
        with connect(server.url, timeout=TIMEOUT, **options) as db:
            began = time.monotonic()
            with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller judges
                db.execute("GET", "k")
            judge(raised.value, time.monotonic() - began)
            assert db.execute("GET", "k") == b"good"
        assert server.left.wait(5), "the connection was kept"


class Asyncio:
    """The asyncio client, asked by a test."""

    name = "asyncio"

    @staticmethod
    def ask(
        server: Hostile,
        judge: Callable[[Exception, float], None],
        again: float = 0.0,
        **options: Any,
    ) -> None:
        async def main() -> None:
            async with connect_async(server.url, timeout=TIMEOUT, **options) as db:
                began = time.monotonic()
                with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller judges
                    await db.execute("GET", "k")
                judge(raised.value, time.monotonic() - began)
                # Others wait on the same connection: silence alone ends it after a while.
                deadline = time.monotonic() + again
                while time.monotonic() < deadline:
                    with suppress(CommandTimeout, ConnectionClosed):
                        assert await db.execute("GET", "k") == b"good"
                        break
                assert await db.execute("GET", "k") == b"good"
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        assert server.left.wait(5), "the connection was kept"


@pytest.fixture(params=[Blocking, Asyncio], ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = threading.active_count()
    yield request.param
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "a thread is left"
        time.sleep(0.01)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bytes_are_named_at_once(front: Any, name: str) -> None:
    data, word = WRONG[name]

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, resp.ProtocolError)  # so before the time-out, which is another
        assert word in str(error)

    with Hostile(saying(data)) as server:
        front.ask(server, judge)
    assert server.heard == []


@pytest.mark.parametrize("name", MISSING)
def test_missing_bytes_are_a_time_out(front: Any, name: str) -> None:
    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, CommandTimeout)
        assert isinstance(error, TimeoutError)
        assert TIMEOUT * 0.9 <= took < LATE

    with Hostile(saying(MISSING[name])) as server:
        front.ask(server, judge, again=3 * TIMEOUT)
    if front is Blocking:
        assert server.heard == []


def test_one_byte_at_a_time_does_not_outlast_the_deadline(front: Any) -> None:
    def drip(peer: Peer) -> None:
        for byte in b"$400\r\n" + b"x" * 400 + b"\r\n":
            peer.send(bytes((byte,)))
            time.sleep(TIMEOUT / 10)

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, CommandTimeout)
        assert took < LATE

    if front is Asyncio:
        # The link lives: bytes come. Its caller has left in time, and the reply finds nobody.
        async def main() -> None:
            with Hostile(drip) as server:
                async with connect_async(server.url, timeout=TIMEOUT) as db:
                    began = time.monotonic()
                    with pytest.raises(CommandTimeout):
                        await db.execute("GET", "k")
                    assert time.monotonic() - began < LATE

        asyncio.run(main())
        return
    with Hostile(drip) as server:
        front.ask(server, judge)
    assert server.heard == []


def test_line_without_end_is_cut_off(front: Any) -> None:
    def endless(peer: Peer) -> None:
        peer.send(b"+")
        while True:
            peer.send(b"x" * 65536)

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, resp.ProtocolError)
        assert "line" in str(error)

    with Hostile(endless) as server:
        front.ask(server, judge)


@pytest.mark.parametrize(
    "data",
    [b"+first\r\n+second\r\n", b"$5\r\nfirst\r\n:2\r\n", b"+first\r\n-ERR second\r\n"],
    ids=["line", "number", "error"],
)
def test_surplus_reply_is_nobodys(front: Any, data: bytes) -> None:
    with Hostile(saying(data)) as server:
        if front is Blocking:
            with connect(server.url, timeout=TIMEOUT) as db:
                with suppress(ConnectionClosed):
                    assert db.execute("GET", "k") == b"first"
                for _ in range(3):
                    assert db.execute("GET", "k") == b"good"
        else:

            async def main() -> None:
                async with connect_async(server.url, timeout=TIMEOUT) as db:
                    with suppress(ConnectionClosed):
                        assert await db.execute("GET", "k") in (b"first", b"good")
                    for _ in range(3):
                        assert await db.execute("GET", "k") == b"good"

            asyncio.run(main())
        assert server.left.wait(5)
        assert server.heard == []


def test_reply_that_comes_later_than_its_caller_waits_is_not_the_next_ones(front: Any) -> None:
    def late(peer: Peer) -> None:
        time.sleep(TIMEOUT * 1.5)
        peer.send(b"$4\r\nlate\r\n")
        rest_of(peer)

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, CommandTimeout)

    with Hostile(late) as server:
        front.ask(server, judge, again=3 * TIMEOUT)


def test_answers_to_hello_that_are_none_are_named(front: Any) -> None:
    for nonsense in (b"+OK\r\n", b":1\r\n", b"*1\r\n+x\r\n", b"%1\r\n+proto\r\n:9\r\n", b"_\r\n"):

        def script(peer: Peer, nonsense: bytes = nonsense) -> None:
            peer.command()
            peer.send(nonsense)
            while peer.command() is not None:
                pass

        def come_up(url: str) -> None:
            if front is Blocking:
                connect(url, timeout=TIMEOUT)
            else:
                asyncio.run(connect_async(url, timeout=TIMEOUT)._client._start())

        with ScriptedServer(script) as server, pytest.raises(HandshakeError):
            come_up(server.url)


# Pushes of every shape that is wrong, before a good reply. What can't be read may have meant
# anything: the cache is emptied, and the reply is the command's all the same.
PUSHES = {
    "empty": (b">0\r\n", False),
    "only a kind": (b">1\r\n+invalidate\r\n", True),
    "kind that is a number": (b">2\r\n:1\r\n:2\r\n", False),
    "kind that is a list": (b">2\r\n*0\r\n*0\r\n", False),
    "kind that is null": (b">1\r\n_\r\n", False),
    "number for keys": (b">2\r\n+invalidate\r\n:5\r\n", True),
    "numbers among the keys": (b">2\r\n+invalidate\r\n*2\r\n$1\r\nk\r\n:5\r\n", True),
    "null among the keys": (b">2\r\n+invalidate\r\n*1\r\n_\r\n", True),
    "map for keys": (b">2\r\n+invalidate\r\n%1\r\n+k\r\n+k\r\n", True),
    "null of RESP2": (b">2\r\n$10\r\ninvalidate\r\n*-1\r\n", True),
    "null of RESP3": (b">2\r\n$10\r\ninvalidate\r\n_\r\n", True),
    "bulk null": (b">2\r\n$10\r\ninvalidate\r\n$-1\r\n", True),
    "kind that nobody knows": (b">3\r\n+moving\r\n:1\r\n+elsewhere\r\n", False),
    "subscription that nobody asked for": (b">3\r\n+subscribe\r\n+news\r\n:1\r\n", False),
    "message out of nowhere": (b">3\r\n+message\r\n+news\r\n+hello\r\n", False),
    "push inside a push": (b">2\r\n+invalidate\r\n>1\r\n+x\r\n*1\r\n$1\r\nz\r\n", False),
}


@pytest.mark.parametrize("name", PUSHES)
def test_malformed_push_is_no_reply_and_at_worst_a_flush(front: Any, name: str) -> None:
    push, flushes = PUSHES[name]

    def script(peer: Peer) -> None:
        while (command := peer.command()) is not None:
            if command[0] == b"HELLO":
                peer.send(HELLO_3)
            elif command[0] == b"GET" and command[1] == b"two":
                peer.send(push + b"$3\r\ntwo\r\n")
            elif command[0] == b"GET":
                peer.send(b"$3\r\none\r\n")
            else:
                peer.send(b"+OK\r\n" if command[0] == b"CLIENT" else b"+PONG\r\n")

    tracking = Tracking(listener="inline")
    with ScriptedServer(script) as server:
        if front is Blocking:
            with connect(server.url, timeout=TIMEOUT, tracking=tracking) as db:
                assert db.cache is not None
                assert db.execute("GET", "one") == b"one"
                assert db.execute("GET", "two") == b"two"
                assert (("GET", "one") not in db.cache) == flushes
        else:

            async def main() -> None:
                async with connect_async(server.url, timeout=TIMEOUT, tracking=tracking) as db:
                    assert db.cache is not None
                    assert await db.execute("GET", "one") == b"one"
                    assert await db.execute("GET", "two") == b"two"
                    assert (("GET", "one") not in db.cache) == flushes

            asyncio.run(main())


def test_pushes_without_end_do_not_outlast_the_deadline(front: Any) -> None:
    def flood(peer: Peer) -> None:
        while True:
            peer.send(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n" * 500)

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, CommandTimeout)
        assert took < LATE * 2  # two threads share an interpreter, and one of them never rests

    with Hostile(flood) as server:
        if front is Blocking:
            front.ask(server, judge)
            return

        async def main() -> None:
            async with connect_async(server.url, timeout=TIMEOUT) as db:
                began = time.monotonic()
                with pytest.raises(CommandTimeout) as raised:
                    await db.execute("GET", "k")
                judge(raised.value, time.monotonic() - began)

        asyncio.run(main())


# Memory: what is kept of a hostile answer is within twice the limit that was set.

GREEDY: dict[str, tuple[bytes, bytes]] = {
    "bulk of the allowed length": (b"$%d\r\n" % LIMIT, b"x" * 65536),
    "bulk beyond it": (b"$%d\r\n" % (LIMIT + 1), b"x" * 65536),
    "array that announces a thousand million": (b"*1000000000\r\n", b""),
    "nested arrays that each announce many": (b"*100000000\r\n" * 100, b""),
    "line": (b"+", b"x" * 65536),
}


@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage.py's own memory would count")
@pytest.mark.parametrize("name", GREEDY)
def test_memory_stays_within_twice_the_limit(front: Any, name: str) -> None:
    head, more = GREEDY[name]

    def greedy(peer: Peer) -> None:
        peer.send(head)
        while more:
            peer.send(more)

    def judge(error: Exception, took: float) -> None:
        assert isinstance(error, (resp.ProtocolError, ClientError))

    with Hostile(greedy) as server:
        gc.collect()
        tracemalloc.start()
        try:
            front.ask(server, judge, again=3 * TIMEOUT, max_bulk=LIMIT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2 * LIMIT + MIB  # and the bookkeeping of the test itself


# Bugs that the simulation found, as they are met.


def test_listener_lost_while_the_client_comes_up_leaves_no_connection_behind() -> None:
    listeners = 0

    def script(peer: Peer) -> None:
        nonlocal listeners
        while (command := peer.command()) is not None:
            if command[0] == b"INFO":
                listeners += 1
                if listeners == 1:
                    peer.send(b"$0\r\n\r\n")
                    return  # the listener is gone as soon as it listens
                peer.send(b"$0\r\n\r\n")
            elif command[0] == b"HELLO":
                peer.send(HELLO_3)
            elif command[0] == b"CLIENT":
                time.sleep(0.1)  # time enough to hear of it before tracking is on
                peer.send(b"+OK\r\n")
            else:
                peer.send(b"+PONG\r\n")

    async def main() -> None:
        opened = []
        client = connect_async(
            server.url, tracking=Tracking(listener="dedicated"), timeout=5
        )._client
        new_link = client._new_link

        def noted(*args: Any, **options: Any) -> Any:
            opened.append(new_link(*args, **options))
            return opened[-1]

        client._new_link = noted  # type: ignore[method-assign]
        await client._start()
        await client.execute("PING")
        await asyncio.sleep(0.5)
        await client.aclose()
        assert [link for link in opened if not link.closed] == []

    with ScriptedServer(script) as server:
        asyncio.run(main())


def test_call_ends_in_time_although_a_connection_has_to_come_up_first() -> None:
    slow = threading.Event()
    # Three round trips, each of which takes nearly the whole time-out.
    answers = {b"HELLO": b"-ERR unknown\r\n", b"CLIENT": b":7\r\n", b"SELECT": b"+OK\r\n"}

    def script(peer: Peer) -> None:
        while (command := peer.command()) is not None:
            if command[0] == b"PING":
                slow.set()
                peer.send(b"+PONG\r\n")
                return
            if slow.is_set():
                time.sleep(TIMEOUT * 0.9)
            peer.send(answers[command[0]])

    with ScriptedServer(script) as server, connect(server.url, db=1, timeout=TIMEOUT) as db:
        assert db.execute("PING") == b"PONG"
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            db.execute("PING")
        assert time.monotonic() - began < LATE


def test_waiting_for_anothers_computation_holds_no_connection() -> None:
    with (
        ScriptedServer(rest_of) as server,
        connect(server.url, timeout=2, tracking=Tracking(listener="inline")) as db,
    ):
        began, waits = threading.Event(), threading.Event()

        @db.memoize
        def report() -> object:
            began.set()
            assert waits.wait(5)
            return db.execute("GET", "k")

        found: list[object] = []
        threads = [threading.Thread(target=lambda: found.append(report())) for _ in range(2)]
        threads[0].start()
        assert began.wait(5)
        threads[1].start()
        assert db.cache is not None
        deadline = time.monotonic() + 5
        while not db.cache.stats.waits:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        waits.set()
        for thread in threads:
            thread.join()
        assert found == [b"good", b"good"]


def test_key_that_an_inline_script_wrote_is_dropped_although_its_push_is_late() -> None:
    def script(peer: Peer) -> None:
        value = b"old"
        while (command := peer.command()) is not None:
            if command[0] == b"HELLO":
                peer.send(HELLO_3)
            elif command[0] == b"GET":
                peer.send(b"$3\r\n" + value + b"\r\n")
            elif command[0] == b"EVAL":
                value = b"new"
                peer.send(b"+OK\r\n")
                time.sleep(0.1)  # one write of the server's may come as two
                peer.send(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n")
            else:
                peer.send(b"+PONG\r\n" if command[0] == b"PING" else b"+OK\r\n")

    with (
        ScriptedServer(script) as server,
        connect(server.url, tracking=Tracking(listener="inline")) as db,
    ):
        assert db.execute("GET", "k") == b"old"
        db.execute("EVAL", "redis.call('SET', 'k', 'new')", 0)
        assert db.execute("GET", "k") == b"new"


def test_script_whose_connection_ends_behind_its_reply_has_run() -> None:
    def script(peer: Peer) -> None:
        while (command := peer.command()) is not None:
            if command[0] == b"EVAL":
                peer.send(b"$3\r\nran\r\n")
                return
            peer.send(HELLO_3 if command[0] == b"HELLO" else b"+OK\r\n")

    with (
        ScriptedServer(script) as server,
        connect(server.url, tracking=Tracking(listener="inline")) as db,
    ):
        assert db.execute("EVAL", "redis.call('SET', 'k', 'new')", 0) == b"ran"
