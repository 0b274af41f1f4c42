"""CLIENT TRACKING on real servers, row by row of the walk-through, in every set-up.

A set-up is a connection that reads and one that hears: the same one (RESP3), or two (RESP3, or
RESP2 by subscription). What must not come is proved by a PONG: in a stream, what was announced
before stands before it.
"""

from __future__ import annotations

import time
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


def test_rule_12_key_read_is_announced_once(pair: Pair) -> None:
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


def test_rule_20_binary_key_is_announced_as_it_is(pair: Pair) -> None:
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


def test_rule_15_broadcast_tells_of_several_keys_in_one_message(pair: Pair) -> None:
    pair.track(bcast=True)
    pair.other("MSET", "a", "1", "b", "2")
    assert sorted(pair.heard() or ()) == [b"a", b"b"]


def test_rule_11_optin_tracks_after_caching_yes_only(pair: Pair) -> None:
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


def test_rule_26_noloop_in_default_mode_ends_the_registration_silently(pair: Pair) -> None:
    """The trap: a client that kept its own value would never hear of the next change."""
    pair.track(noloop=True)
    pair.reader.execute("GET", "k")
    pair.reader.execute("SET", "k", "mine")
    pair.other("SET", "k", "theirs")
    assert pair.nothing_heard()


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_rule_17_flush_is_announced_by_a_null(pair: Pair, command: str) -> None:
    pair.track()
    pair.reader.execute("GET", "k")
    pair.other(command)
    assert pair.heard() is None


def test_rule_06_tracking_is_told_by_getredir_and_trackinginfo(pair: Pair) -> None:
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


def test_rule_08_self_redirect_in_resp2_hears_all_by_itself(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with Connection(Options.from_url(server.url, protocol=2)) as ear:
        ear.converse(listen(Tracking(bcast=True, prefixes=["p:"]), ear.greeting))
        ear.pushes.clear()
        wire(server)("SET", "p:1", "x")
        push = ear.read_push(PATIENCE)
        assert push is not None
        assert announced_keys(push) == (b"p:1",)


def test_rule_06_redirect_to_nobody_is_refused(server: client.EmbeddedServer) -> None:
    with (
        Connection(Options.from_url(server.url)) as reader,
        pytest.raises(client.TrackingRefused, match="redirect"),
    ):
        reader.converse(track(Tracking(), 10**9))


def test_rule_01_hello_2_mutes_tracking_and_reset_ends_it(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with Connection(Options.from_url(server.url, db=3)) as reader:
        reader.execute("CLIENT", "TRACKING", "ON")
        reader.execute("HELLO", 3)
        assert _flags(reader) == {b"on"}
        reader.execute("GET", "k")
        other("SET", "k", "1")
        assert reader.read_push(PATIENCE) is not None
        reader.execute("GET", "k")
        reader.execute("HELLO", 2)
        assert b"on" in _flags(reader)
        other("SET", "k", "2")
        reader.execute("PING")
        assert not reader.pushes  # on, and mute
        reader.execute("RESET")
        assert reader.execute("CLIENT", "GETREDIR") == -1
        assert reader.protocol == 2
        assert b" db=0 " in _line(reader)


def _line(connection: Connection) -> bytes:
    (line,) = [
        line
        for line in bytes(connection.execute("CLIENT", "LIST")).splitlines()
        if line.startswith(b"id=%d " % (connection.id or 0))
    ]
    return line


def _flags(connection: Connection) -> set[bytes]:
    info = connection.execute("CLIENT", "TRACKINGINFO")
    if isinstance(info, list):
        info = dict(zip(info[::2], info[1::2], strict=True))
    return set(info[b"flags"])


def test_rule_02_resp2_without_redirect_says_ok_and_announces_nothing(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with Connection(Options.from_url(server.url, protocol=2)) as reader:
        assert reader.execute("CLIENT", "TRACKING", "ON") == b"OK"
        reader.execute("GET", "k")
        wire(server)("SET", "k", "1")
        assert reader.read_push(0.1) is None


def test_rule_03_subscriber_in_resp2_may_send_neither_hello_3_nor_client(
    server: client.EmbeddedServer,
) -> None:
    with Connection(Options.from_url(server.url, protocol=2)) as ear:
        ear.execute("SUBSCRIBE", "channel")
        replies = ear.execute_many([("HELLO", 3), ("CLIENT", "ID"), ("PING",)])
        assert [isinstance(reply, client.ReplyError) for reply in replies] == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"bcast": True}),
        ({"bcast": True}, {}),
        ({"optin": True}, {"optout": True}),
        ({"optout": True}, {"optin": True}),
    ],
    ids=str,
)
def test_rule_04_change_of_mode_needs_off(
    server: client.EmbeddedServer, first: dict[str, Any], second: dict[str, Any]
) -> None:
    with Connection(Options.from_url(server.url)) as reader:
        reader.converse(track(Tracking(**first)))
        with pytest.raises(client.TrackingRefused):
            reader.converse(track(Tracking(**second)))
        reader.execute("CLIENT", "TRACKING", "OFF")
        reader.converse(track(Tracking(**second)))


def test_rule_04_second_on_replaces_noloop_and_the_redirect(server: client.EmbeddedServer) -> None:
    options = Options.from_url(server.url)
    with Connection(options) as reader, Connection(options) as ear:
        reader.converse(track(Tracking(noloop=True), ear.id))
        reader.converse(track(Tracking()))
        assert _flags(reader) == {b"on"}
        assert reader.execute("CLIENT", "GETREDIR") == 0


def test_rule_09_read_of_a_wrong_type_or_of_no_value_is_tracked_too(pair: Pair) -> None:
    pair.other("RPUSH", "list", "x")
    pair.track()
    for command in (("GET", "list"), ("TTL", "list"), ("EXISTS", "list"), ("HGETALL", "none")):
        pair.reader.execute_many([command])
        pair.other("DEL", command[1])
        pair.other("RPUSH", command[1], "x")
        assert pair.heard() == (command[1].encode(),)
        pair.ear.execute("PING")
        pair.ear.pushes.clear()  # DEL's and RPUSH's, if both


def test_rule_10_writes_that_read_and_walks_are_not_tracked(pair: Pair) -> None:
    pair.other("SET", "k", "1")
    pair.other("RPUSH", "list", "2", "1")
    pair.other("GEOADD", "geo", 1, 1, "here")
    pair.track()
    pair.reader.execute("GETEX", "k")
    pair.reader.execute("SORT", "list")
    pair.reader.execute("GEORADIUS", "geo", 1, 1, 10, "m")
    pair.reader.execute("SCAN", 0)
    pair.reader.execute("KEYS", "*")
    for key in ("k", "list", "geo"):
        pair.other("DEL", key)
    assert pair.nothing_heard()


def test_rule_11_caching_yes_is_spent_on_pttl_and_covers_a_whole_transaction(pair: Pair) -> None:
    pair.track(optin=True)
    yes = ("CLIENT", "CACHING", "YES")
    pair.reader.execute_many([yes, ("PTTL", "other"), ("GET", "k")])
    pair.other("SET", "k", "1")
    assert pair.nothing_heard()
    pair.reader.execute_many(
        [yes, ("MULTI",), ("PTTL", "k"), ("GET", "k"), ("GET", "m"), ("EXEC",)]
    )
    pair.other("SET", "k", "2")
    assert pair.heard() == (b"k",)
    pair.other("SET", "m", "2")
    assert pair.heard() == (b"m",)


@pytest.mark.parametrize("mode", [{}, {"bcast": True}], ids=str)
def test_rule_11_caching_is_an_error_outside_of_optin_and_optout(
    pair: Pair, mode: dict[str, Any]
) -> None:
    pair.track(**mode)
    (reply,) = pair.reader.execute_many([("CLIENT", "CACHING", "YES")])
    assert isinstance(reply, client.ReplyError)


def test_rule_13_off_keeps_old_registrations_and_loses_what_changes_meanwhile(pair: Pair) -> None:
    redirect = None if pair.ear is pair.reader else pair.ear.id
    pair.track()
    pair.reader.execute("MGET", "before", "meanwhile")
    pair.reader.execute("CLIENT", "TRACKING", "OFF")
    pair.other("SET", "meanwhile", "1")
    pair.reader.converse(track(Tracking(), redirect))
    pair.other("SET", "meanwhile", "2")
    assert pair.nothing_heard()
    pair.other("SET", "before", "1")
    assert pair.heard() == (b"before",)


@pytest.mark.parametrize(
    ("command", "announced"),
    [
        (("SET", "k", "same"), True),
        (("EXPIRE", "k", 100), True),
        (("PERSIST", "lasting"), False),
        (("PERSIST", "ending"), True),
        (("SET", "k", "other", "NX"), False),
        (("DEL", "missing"), False),
        (("DEL", "k"), True),
    ],
    ids=str,
)
def test_rule_15_whatever_is_signalled_is_announced(
    pair: Pair, command: tuple[Any, ...], announced: bool
) -> None:
    pair.other("MSET", "k", "same", "lasting", "v")
    pair.other("SET", "ending", "v", "EX", 100)
    pair.track()
    pair.reader.execute("MGET", "k", "lasting", "ending", "missing")
    pair.other(*command)
    if announced:
        assert pair.heard() == (str(command[1]).encode(),)
    else:
        assert pair.nothing_heard()


def test_rule_15_mset_is_announced_key_by_key_in_default_mode(pair: Pair) -> None:
    pair.track()
    pair.reader.execute("MGET", "a", "b")
    pair.other("MSET", "a", "1", "b", "2")
    assert {pair.heard(), pair.heard()} == {(b"a",), (b"b",)}


def test_rule_16_expiry_is_announced_when_the_key_is_deleted_and_no_sooner(pair: Pair) -> None:
    pair.other("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        pair.other("SET", "k", "v", "PX", 300)  # long enough to be read on a loaded machine
        pair.track()
        assert pair.reader.execute("GET", "k") == b"v"
        time.sleep(0.35)
        assert pair.nothing_heard()
        assert pair.other("GET", "k") is None  # somebody touches it
        assert pair.heard() == (b"k",)
    finally:
        pair.other("DEBUG", "SET-ACTIVE-EXPIRE", 1)


@pytest.mark.parametrize(("reading", "hearing"), [(2, 3), (3, 2)])
def test_rule_18_null_of_a_flush_is_understood_where_protocols_mix(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], reading: Any, hearing: Any
) -> None:
    with (
        Connection(Options.from_url(server.url, protocol=reading)) as reader,
        Connection(Options.from_url(server.url, protocol=hearing)) as ear,
    ):
        ear.converse(listen(Tracking(), ear.greeting))
        ear.pushes.clear()
        reader.converse(track(Tracking(), ear.id))
        reader.execute("GET", "k")
        wire(server)("FLUSHALL")
        push = ear.read_push(PATIENCE)
        assert push is not None
        assert announced_keys(push) is None
        assert ear.execute("PING") in (b"PONG", [b"pong", b""])  # still in step


def test_rule_19_swapdb_is_never_announced(pair: Pair) -> None:
    pair.track()
    pair.reader.execute("GET", "k")
    pair.other("SELECT", 1)
    pair.other("SET", "unread", "in db 1")
    pair.other("SWAPDB", 0, 1)
    assert pair.nothing_heard()


def test_rule_20_key_of_another_db_is_announced_like_its_namesake(pair: Pair) -> None:
    pair.track()
    pair.reader.execute("GET", "k")
    pair.other("SELECT", 3)
    pair.other("SET", "k", "in db 3")
    assert pair.heard() == (b"k",)


def test_rule_27_each_connection_that_read_a_key_brings_a_message_of_its_own(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    options = Options.from_url(server.url)
    with ExitStack() as stack:
        ear = stack.enter_context(Connection(options))
        for _ in range(3):
            reader = stack.enter_context(Connection(options))
            reader.converse(track(Tracking(), ear.id))
            reader.execute("GET", "k")
        wire(server)("SET", "k", "1")
        ear.execute("PING")
        assert list(ear.pushes) == [[b"invalidate", [b"k"]]] * 3


def test_rule_33_ping_is_answered_while_subscribed(server: client.EmbeddedServer) -> None:
    for protocol, pong in ((2, [b"pong", b""]), (3, b"PONG")):
        with Connection(Options.from_url(server.url, protocol=protocol)) as ear:
            ear.execute("SUBSCRIBE", "channel")
            assert ear.execute("PING") == pong
