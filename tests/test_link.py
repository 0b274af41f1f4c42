"""One asyncio connection on a transport of memory: what is written when, and what fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loops import on_loop, turns

import client
from client import Options, _link
from client._link import Link, Queue, lost, take_over

NEVER = float("inf")


class Memory(asyncio.Transport):
    """Keeps what is written; calls back as a socket's transport does."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link
        self.writes: list[bytes] = []
        self.aborted = False
        link.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1234) if name == "sockname" else default


def link_and_wire(lost_links: list[Any] | None = None, **options: Any) -> tuple[Link, Memory]:
    link = Link(
        Options(**options),
        asyncio.get_running_loop(),
        name="data",
        trace=None,
        on_lost=lambda link, error: (
            lost_links.append((error, link.unsent, len(link.flights)))
            if lost_links is not None
            else None
        ),
    )
    return link, Memory(link)


@on_loop
async def test_one_turn_is_one_write_and_replies_come_in_order() -> None:
    link, wire = link_and_wire()
    futures = [link.send(("ECHO", number), NEVER) for number in range(3)]
    many = link.send_many([("ECHO", "a"), ("ECHO", "b")], NEVER)
    assert link.unsent == 4
    await turns(1)
    assert len(wire.writes) == 1
    assert link.unsent == 0
    link.data_received(b"$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\na\r\n$1\r")
    assert [future.result() for future in futures] == [b"0", b"1", b"2"]
    assert not many.done()
    link.data_received(b"\nb\r\n")
    assert many.result() == [b"a", b"b"]
    assert not link.flights
    await link.close()


@on_loop
async def test_what_the_answered_send_next_leaves_in_the_turn_in_which_they_wake() -> None:
    link, wire = link_and_wire()

    async def caller() -> None:
        for _ in range(3):
            await link.send(("PING",), NEVER)

    callers = [asyncio.ensure_future(caller()) for _ in range(10)]
    await turns(2)
    for number in range(1, 4):
        assert len(wire.writes) == number
        link.data_received(b"+PONG\r\n" * 10)
        await turns(1)
    assert len(wire.writes) == 3
    await asyncio.gather(*callers)
    await link.close()


@on_loop
async def test_a_turn_of_many_bytes_is_handed_over_in_pieces() -> None:
    link, wire = link_and_wire()
    for _ in range(30):
        link.send(("ECHO", b"x" * 60_000), NEVER).cancel()
    await turns(1)
    assert [len(data) // 60_000 for data in wire.writes] == [18, 12]
    link.send(("ECHO", b"small"), NEVER).cancel()
    link.send(("ECHO", b"x" * 100_000), NEVER).cancel()
    link.send(("ECHO", b"small"), NEVER).cancel()
    await turns(1)
    assert [len(data) > 1_000 for data in wire.writes[2:]] == [False, True, False]
    await link.close()


@on_loop
async def test_nothing_is_written_while_paused_and_all_of_it_after() -> None:
    link, wire = link_and_wire()
    link.pause_writing()
    assert link.full
    future = link.send(("ECHO", "a"), NEVER)
    waiting = [asyncio.ensure_future(link.room()) for _ in range(100)]
    await turns()
    assert wire.writes == []
    link.resume_writing()
    await asyncio.gather(*waiting)
    await turns(1)
    assert len(wire.writes) == 1
    future.cancel()
    await link.close()


@pytest.mark.parametrize("filling", [3, 4])  # let in together, the first or the last of the two
@on_loop
async def test_those_who_wait_for_room_go_in_their_order_and_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, filling: int
) -> None:
    monkeypatch.setattr(_link, "_LET_IN", 2)
    link, _ = link_and_wire()
    link.pause_writing()
    order: list[int] = []

    async def caller(number: int) -> None:
        await link.room()
        order.append(number)
        if number == filling:
            link.pause_writing()  # what it sends is too much again

    callers = [asyncio.ensure_future(caller(number)) for number in range(10)]
    await turns()
    callers[1].cancel()
    await turns()
    link.resume_writing()
    await turns(20)
    assert order == [0, 2, 3, 4][:filling]
    assert link.full
    callers[6].cancel()  # in the turn in which there is room
    link.resume_writing()
    await turns(20)
    assert order == [0, 2, 3, 4, 5, 7, 8, 9]
    assert not link.full
    await link.close()


@on_loop
async def test_losing_it_tells_once_what_never_left_and_fails_each_caller() -> None:
    told: list[Any] = []
    link, wire = link_and_wire(told)
    sent = link.send(("INCR", "a"), NEVER)
    await turns(1)
    link.pause_writing()
    unsent = link.send(("INCR", "b"), NEVER)
    waiting, leaving = (asyncio.ensure_future(link.room()) for _ in range(2))
    await turns(1)
    leaving.cancel()
    link.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    link.connection_lost(None)
    ((error, count, flights),) = told
    assert "Connection reset by peer" in str(error)
    assert (count, flights) == (1, 2)
    for future, fate in [(sent, "may have run"), (unsent, "was not sent")]:
        with pytest.raises(client.ConnectionClosed, match=fate):
            await future
    await waiting  # closed: it looks for another
    with pytest.raises(client.ConnectionClosed, match="was not sent"):
        await link.roundtrip([("PING",)], NEVER)
    assert len(wire.writes) == 1


@on_loop
async def test_a_server_that_leaves_after_an_error_is_quoted() -> None:
    link, _ = link_and_wire()
    greeting = link.send_many([("HELLO", 3), ("PING",)], NEVER)
    await turns(1)
    link.data_received(b"-ERR max number of clients reached\r\n")
    link.connection_lost(None)
    with pytest.raises(client.ConnectionClosed, match="max number of clients reached"):
        await greeting


@on_loop
async def test_a_closed_link_neither_hears_nor_stops_hearing() -> None:
    link, wire = link_and_wire()
    call = link.send(("PING",), NEVER)
    await turns(1)
    await link.close()
    link.data_received(b"+PONG\r\n")  # read before, and handed over only now
    link.pause_reading()
    link.resume_reading()
    with pytest.raises(client.ConnectionClosed, match="may have run"):
        await call
    assert wire.aborted


@on_loop
async def test_a_ping_that_nobody_waits_for_any_more_fails_unnoticed() -> None:
    link, _ = link_and_wire()
    link.ping(NEVER).cancel()
    await turns(1)
    link.ping(NEVER)
    await turns(1)
    await link.close()
    assert not link.flights


@on_loop
async def test_late_flights_fail_in_time_and_keep_their_place() -> None:
    link, _ = link_and_wire(timeout=0.2)
    loop = asyncio.get_running_loop()
    late = link.send(("ECHO", "late"), loop.time() + 0.05)
    patient = link.send(("ECHO", "patient"), loop.time() + 10)
    with pytest.raises(client.CommandTimeout, match="may have run"):
        await late
    link.data_received(b"$4\r\nlate\r\n$7\r\npatient\r\n")
    assert await patient == b"patient"
    await link.close()


@on_loop
async def test_pings_that_have_not_left_are_shared() -> None:
    link, wire = link_and_wire()
    first, second = link.ping(NEVER), link.ping(NEVER)
    assert first is second
    await turns(1)
    third = link.ping(NEVER)
    assert third is not first
    await turns(1)
    assert len(wire.writes) == 2
    await link.close()
    with pytest.raises(client.ConnectionClosed):
        await third


@on_loop
async def test_draining_waits_for_the_last_reply_and_not_for_ever() -> None:
    link, _ = link_and_wire()
    future = link.send(("ECHO", "a"), NEVER)
    await link.drain(0.01)
    assert not future.done()
    draining = asyncio.ensure_future(link.drain(10))
    await turns()
    link.data_received(b"+a\r\n")
    await draining
    assert await future == b"a"
    await link.close()


@on_loop
async def test_sending_again_keeps_the_order_and_leaves_out_who_has_left() -> None:
    link, wire = link_and_wire()
    loop = asyncio.get_running_loop()
    queue = Queue(loop, 5.0, "connection")
    futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(3)]
    for number, future in enumerate(futures):
        queue.add((future, [("ECHO", number)], 1, loop.time() + 10, 0))
    wrong: asyncio.Future[Any] = loop.create_future()
    queue.add((wrong, [("ECHO", None)], 1, loop.time() + 10, 0))
    futures[1].cancel()
    take_over(queue.take(), link)
    await turns(1)
    assert wire.writes == [b"*2\r\n$4\r\nECHO\r\n$1\r\n0\r\n*2\r\n$4\r\nECHO\r\n$1\r\n2\r\n"]
    with pytest.raises(TypeError):
        await wrong
    await link.close()
    for future in (futures[0], futures[2]):
        with pytest.raises(client.ConnectionClosed):
            await future


@on_loop
async def test_a_queue_forgets_who_has_left_and_tells_the_rest() -> None:
    loop = asyncio.get_running_loop()
    queue = Queue(loop, 0.1, "connection")
    for _ in range(1_000):
        future: asyncio.Future[Any] = loop.create_future()
        queue.add((future, [("PING",)], 1, loop.time() + 10, 0))
        future.cancel()
        assert len(queue.flights) <= 65
    hasty, unlucky = loop.create_future(), loop.create_future()
    queue.add((hasty, [("PING",)], 1, loop.time() + 0.02, 0))
    queue.add((unlucky, [("PING",)], 1, loop.time() + 10, 1))
    with pytest.raises(client.CommandTimeout, match="was not sent"):
        await hasty
    queue.fail(client.ConnectionClosed("gone"))
    with pytest.raises(client.ConnectionClosed, match="gone; it may have run"):
        await unlucky


def test_each_caller_is_told_with_an_error_of_its_own() -> None:
    why = client.ConnectionClosed("gone")
    assert str(lost(why, sent=True)) == "gone; it may have run"
    assert lost(why, sent=True).__cause__ is why
    assert type(lost(client.UnexpectedReply("odd"), sent=True)) is client.UnexpectedReply
    assert type(lost(OSError("odd"), sent=False)) is client.ConnectionClosed
    nonsense = client.ProtocolError("nonsense", 7)
    told = lost(nonsense, sent=True)
    assert isinstance(told, client.ProtocolError)
    assert told is not nonsense
    assert (str(told), told.offset) == ("nonsense", 7)


@on_loop
async def test_link_that_is_aborted_by_what_it_reads_delivers_nothing_more() -> None:
    link, _ = link_and_wire()
    link._on_push = lambda _: link.abort(client.ConnectionClosed("moved"))
    future = link.send(("PING",), NEVER)
    await turns(1)
    link.data_received(b">2\r\n+switch\r\n+x\r\n+PONG\r\n")
    with pytest.raises(client.ConnectionClosed, match="moved"):
        await future
    await link.close()
