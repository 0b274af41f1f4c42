"""CLIENT TRACKING on real servers, row by row of the walk-through, in every set-up.

A set-up is a connection that reads and one that hears: the same one (RESP3), or two (RESP3, or
RESP2 by subscription). What must not come is proved by a PONG: in a stream, what was announced
before stands before it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import client
from client import Connection, Options, Tracking, announced_keys, listen, track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Wire

PATIENCE = 5.0


class Pair:
    """Who reads, who hears, and somebody else who writes."""

    def __init__(self, stack: ExitStack, url: str, setup: str, other: Wire) -> None:
        self._options = Options.from_url(url, protocol=2 if "resp2" in setup else 3)
        self.reader = stack.enter_context(Connection(self._options, name="reader"))
        self.ear = self.reader
        if setup != "resp3-inline":
            self.ear = stack.enter_context(Connection(self._options, name="ear"))
        self.other = other

    def track(self, **tracking: Any) -> None:
        wanted = Tracking(**tracking)
        if self.ear is self.reader:
            self.reader.converse(track(wanted))
            return
        # Tracked by who reads and writes, in broadcast mode too: NOLOOP is about that connection.
        if self.ear.protocol == 2:
            self.ear.converse(listen(Tracking(), self.ear.greeting))
            self.ear.pushes.clear()
        self.reader.converse(track(wanted, self.ear.id))

    def heard(self) -> tuple[bytes, ...] | None:
        push = self.ear.read_push(PATIENCE)
        assert push is not None, "nothing was announced"
        return announced_keys(push)

    def nothing_heard(self) -> bool:
        self.ear.execute("PING")
        return not self.ear.pushes


@pytest.fixture(params=["resp3-inline", "resp3-dedicated", "resp2-dedicated"])
def pair(
    request: pytest.FixtureRequest, server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, server.url, request.param, wire(server))


def test_key_read_is_announced_once(pair: Pair) -> None:
    pair.track()
    pair.reader.execute("GET", "cat_one:key_one")
    pair.other("SET", "cat_one:key_one", "Anapest")
    assert pair.heard() == (b"cat_one:key_one",)
    pair.other("SET", "cat_one:key_one", "Iamb")
    assert pair.nothing_heard()  # registration is one-shot


def test_key_not_read_is_not_announced(pair: Pair) -> None:
    pair.track()
    pair.other("SET", "unread", "x")
    assert pair.nothing_heard()


def test_binary_key_is_announced_as_it_is(pair: Pair) -> None:
    pair.track()
    key = bytes(range(256))
    pair.reader.execute("GET", key)
    pair.other("SET", key, "x")
    assert pair.heard() == (key,)


@pytest.mark.parametrize("prefixes", [["cat_one:"], ["cat_one:", "cat_two:"]])
def test_broadcast_tells_of_keys_never_read(pair: Pair, prefixes: list[str]) -> None:
    pair.track(bcast=True, prefixes=prefixes)
    for prefix in prefixes:
        pair.other("SET", prefix + "key", "x")
        assert pair.heard() == (prefix.encode() + b"key",)
    pair.other("SET", "elsewhere", "x")
    assert pair.nothing_heard()


def test_broadcast_tells_of_several_keys_in_one_message(pair: Pair) -> None:
    pair.track(bcast=True)
    pair.other("MSET", "a", "1", "b", "2")
    assert sorted(pair.heard() or ()) == [b"a", b"b"]


def test_optin_tracks_after_caching_yes_only(pair: Pair) -> None:
    pair.track(optin=True)
    pair.reader.execute("GET", "key_one")
    pair.reader.execute_many([("CLIENT", "CACHING", "YES"), ("GET", "key_two"), ("GET", "key_3")])
    pair.other("MSET", "key_one", "1", "key_3", "3")
    assert pair.nothing_heard()
    pair.other("SET", "key_two", "2")
    assert pair.heard() == (b"key_two",)


def test_optout_tracks_but_after_caching_no(pair: Pair) -> None:
    pair.track(optout=True)
    pair.reader.execute_many([("CLIENT", "CACHING", "NO"), ("GET", "key_one"), ("GET", "key_two")])
    pair.other("SET", "key_one", "1")
    assert pair.nothing_heard()
    pair.other("SET", "key_two", "2")
    assert pair.heard() == (b"key_two",)


@pytest.mark.parametrize("bcast", [True, False])
def test_noloop_is_silent_about_own_writes_only(pair: Pair, bcast: bool) -> None:
    pair.track(noloop=True, bcast=bcast)
    pair.reader.execute("GET", "k")
    pair.reader.execute("SET", "k", "mine")
    assert pair.nothing_heard()
    pair.reader.execute("GET", "k")
    pair.other("SET", "k", "theirs")
    assert pair.heard() == (b"k",)


def test_noloop_in_default_mode_ends_the_registration_silently(pair: Pair) -> None:
    """The trap: a client that kept its own value would never hear of the next change."""
    pair.track(noloop=True)
    pair.reader.execute("GET", "k")
    pair.reader.execute("SET", "k", "mine")
    pair.other("SET", "k", "theirs")
    assert pair.nothing_heard()


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_flush_is_announced_by_a_null_in_either_dialect(pair: Pair, command: str) -> None:
    pair.track()
    pair.reader.execute("GET", "k")
    pair.other(command)
    assert pair.heard() is None


def test_tracking_is_told_by_getredir_and_trackinginfo(pair: Pair) -> None:
    assert pair.reader.execute("CLIENT", "GETREDIR") == -1
    pair.track(optout=True, noloop=True)
    redirect = 0 if pair.ear is pair.reader else pair.ear.id
    assert pair.reader.execute("CLIENT", "GETREDIR") == redirect
    info = pair.reader.execute("CLIENT", "TRACKINGINFO")
    if isinstance(info, list):
        info = dict(zip(info[::2], info[1::2], strict=True))
    assert set(info[b"flags"]) == {b"on", b"optout", b"noloop"}
    assert info[b"redirect"] == redirect
    pair.reader.execute("CLIENT", "TRACKING", "OFF")
    assert pair.reader.execute("CLIENT", "GETREDIR") == -1


def test_self_redirect_in_resp2_hears_all_by_itself(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with Connection(Options.from_url(server.url, protocol=2)) as ear:
        ear.converse(listen(Tracking(bcast=True, prefixes=["p:"]), ear.greeting))
        ear.pushes.clear()
        wire(server)("SET", "p:1", "x")
        push = ear.read_push(PATIENCE)
        assert push is not None
        assert announced_keys(push) == (b"p:1",)


def test_redirect_to_nobody_is_refused(server: client.EmbeddedServer) -> None:
    with (
        Connection(Options.from_url(server.url)) as reader,
        pytest.raises(client.TrackingRefused, match="redirect"),
    ):
        reader.converse(track(Tracking(), 10**9))
