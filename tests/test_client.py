"""The blocking client on real servers: both set-ups, every mode, and a cache that does not lie.

The names of most tests are the ways in which other clients were made to lie or hang.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from proxy import Balancer
from readers import PATIENCE, PROMPT, Gate, Reader, in_thread, open_things, wait_until
from scripted import Peer, ScriptedServer

import client
from client import Cache, CommandRefused, ConnectionClosed, ReplyError, Tracking, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Wire

    from client import EmbeddedServer

# What every set-up does.


def test_second_read_is_a_hit_and_a_foreign_write_ends_it(reader: Reader) -> None:
    reader.other("SET", "k:1", "old")
    assert reader.read("GET", "k:1") == b"old"
    assert reader.hit("GET", "k:1") == b"old"
    reader.other("SET", "k:1", "new")
    reader.sees(b"new", "GET", "k:1")
    assert reader.hit("GET", "k:1") == b"new"
    reader.other("DEL", "k:1")
    reader.sees(None, "GET", "k:1")


def test_missing_key_is_cached_until_it_appears(reader: Reader) -> None:
    assert reader.read("GET", "k:none") is None
    assert reader.hit("GET", "k:none") is None
    reader.other("SET", "k:none", "now")
    reader.sees(b"now", "GET", "k:none")


def test_flush_of_the_server_empties_the_cache(reader: Reader) -> None:
    reader.other("SET", "k:1", "old")
    assert reader.read("GET", "k:1") == b"old"
    assert reader.hit("GET", "k:1") == b"old"
    reader.other("FLUSHALL")
    reader.sees(None, "GET", "k:1")


def test_flush_of_another_database_drops_as_well(reader: Reader) -> None:
    reader.read("GET", "k:1")
    flushes = reader.cache.stats.flushes
    reader.other("SELECT", 5)
    reader.other("FLUSHDB")
    if reader.inline:
        wait_until(
            lambda: reader.read("GET", "k:1") is None and reader.cache.stats.flushes > flushes
        )
    else:
        wait_until(lambda: reader.cache.stats.flushes > flushes)


def test_own_write_is_read_at_once(reader: Reader) -> None:
    for number in range(50):
        value = b"%d" % number
        reader.db.execute("SET", "k:own", value)
        assert reader.read("GET", "k:own") == value
        assert reader.read("GET", "k:own") == value


def test_foreign_write_after_an_own_one_is_noticed(reader: Reader) -> None:
    # With NOLOOP the own write ends the registration without a word.
    reader.other("SET", "k:1", "old")
    reader.read("GET", "k:1")
    reader.db.execute("SET", "k:1", "mine")
    assert reader.read("GET", "k:1") == b"mine"
    reader.other("SET", "k:1", "theirs")
    reader.sees(b"theirs", "GET", "k:1")


def test_own_transaction_pipeline_and_script_are_read_at_once(reader: Reader) -> None:
    reader.read("MGET", "k:1", "k:2")
    reader.db.transaction([("SET", "k:1", "a"), ("INCR", "n:1")])
    assert reader.read("MGET", "k:1", "k:2") == [b"a", None]
    reader.db.execute_many([("SET", "k:2", "b"), ("GET", "k:2")])
    assert reader.read("MGET", "k:1", "k:2") == [b"a", b"b"]
    reader.db.execute("EVAL", "redis.call('SET', KEYS[1], 'c')", 1, "k:1")
    assert reader.read("MGET", "k:1", "k:2") == [b"c", b"b"]


def test_key_that_a_script_did_not_declare_is_read_at_once(reader: Reader) -> None:
    for number in range(30):
        reader.read("GET", "k:1")
        reader.db.execute("EVAL", f"redis.call('SET', 'k:1', '{number}')", 0)
        assert reader.read("GET", "k:1") == b"%d" % number


def test_hash_list_set_and_their_changes(reader: Reader) -> None:
    reader.other("HSET", "k:h", "f", "1", "g", "2")
    reader.other("RPUSH", "k:l", "a", "b")
    reader.other("SADD", "k:s", "x")
    assert reader.read("HGET", "k:h", "f") == b"1"
    assert reader.read("HGET", "k:h", "g") == b"2"
    assert reader.hit("HGET", "k:h", "f") == b"1"
    entire = reader.read("LRANGE", "k:l", 0, -1)
    entire.append("spoiled by its reader")
    assert reader.hit("LRANGE", "k:l", 0, -1) == [b"a", b"b"]
    assert list(reader.read("SMEMBERS", "k:s")) == [b"x"]
    reader.other("HSET", "k:h", "f", "3")
    reader.sees(b"3", "HGET", "k:h", "f")


def test_str_bytes_and_int_spellings_of_a_key_are_all_dropped(reader: Reader) -> None:
    reader.other("SET", "k:7", "old")
    for key in ("k:7", b"k:7", bytearray(b"k:7")):
        assert reader.read("GET", key) == b"old"
        if not isinstance(key, bytearray):  # that one is kept under its wire form
            assert reader.hit("GET", key) == b"old"
    reader.other("SET", "k:7", "new")
    for key in ("k:7", b"k:7", bytearray(b"k:7")):
        reader.sees(b"new", "GET", key)


def test_numbers_are_arguments_like_their_text_and_true_is_none(reader: Reader) -> None:
    # As keys of a dict 1, 1.0 and True are one.
    reader.other("RPUSH", "k:l", "a", "b", "c")
    assert reader.read("LRANGE", "k:l", 0, 1) == [b"a", b"b"]
    assert reader.hit("LRANGE", "k:l", 0, 1) == [b"a", b"b"]
    with pytest.raises(TypeError, match="argument"):
        reader.read("LRANGE", "k:l", False, True)
    with pytest.raises(ReplyError, match="not an integer"):
        reader.read("LRANGE", "k:l", 0.5, 1)


def test_text_that_can_not_be_sent_is_refused_by_its_place(reader: Reader) -> None:
    with pytest.raises(ValueError, match="argument 1"):
        reader.read("GET", "k:\udcff")


def test_error_reply_leaves_nothing_that_blocks(reader: Reader) -> None:
    reader.other("RPUSH", "k:l", "a")
    for _ in range(3):
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            reader.read("GET", "k:l")
    assert reader.cache.stats.reservations == 0
    reader.other("DEL", "k:l")
    reader.sees(None, "GET", "k:l")


def test_expiry_is_noticed(reader: Reader) -> None:
    reader.other("SET", "k:e", "v", "PX", 50)
    reader.read("GET", "k:e")
    reader.sees(None, "GET", "k:e")


# Modes.


def test_key_outside_the_prefixes_is_never_cached(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with connect(server.url, tracking=Tracking(bcast=True, prefixes=["in:"])) as db:
        assert db.cache is not None
        db.execute("GET", "in:1")
        db.execute("GET", "out:1")
        db.execute("MGET", "in:1", "out:1")
        assert list(db.cache) == [("GET", "in:1")]


def test_optin_execute_is_plain(server: client.EmbeddedServer) -> None:
    with connect(server.url, tracking=Tracking(optin=True)) as db:
        assert db.cache is not None
        db.execute("GET", "k")
        assert len(db.cache) == 0
        db.cached("GET", "k")
        assert len(db.cache) == 1


def test_optout_uncached_is_not_tracked(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with connect(server.url, tracking=Tracking(optout=True)) as db:
        assert db.cache is not None
        before = db.cache.stats.invalidations
        db.uncached("GET", "untracked")
        db.execute("GET", "tracked")
        other("SET", "untracked", "1")
        other("SET", "tracked", "1")
        wait_until(lambda: ("GET", "tracked") not in db.cache)  # type: ignore[operator]
        assert db.cache.stats.invalidations == before + 1


def test_uncached_reads_the_server(plain_reader: Reader) -> None:
    db = plain_reader.db
    db.execute("GET", "k")
    hits = plain_reader.hits
    assert db.uncached("GET", "k") is None
    assert plain_reader.hits == hits


def test_cached_takes_its_ttl(server: client.EmbeddedServer) -> None:
    now = [0.0]
    cache = Cache(clock=lambda: now[0])
    with connect(server.url, cache=cache) as db:
        db.cached("GET", "k", ttl=5)
        now[0] = 1.0
        assert len(cache) == 1
        for wrong in (0, -1, "1"):
            with pytest.raises((ValueError, TypeError)):
                db.cached("GET", "k", ttl=wrong)  # type: ignore[arg-type]


def test_command_that_is_never_cached_is_refused_with_the_reason(plain_reader: Reader) -> None:
    with pytest.raises(CommandRefused, match="TTL counts down"):
        plain_reader.db.cached("TTL", "k")
    assert plain_reader.db.execute("TTL", "k") == -2


def test_cached_without_a_cache_is_refused(any_server: client.EmbeddedServer) -> None:
    with connect(any_server.url) as db, pytest.raises(ValueError, match="no cache"):
        db.cached("GET", "k")


# What a shared connection can't do.


@pytest.mark.parametrize(
    "command",
    [
        ("SUBSCRIBE", "c"),
        ("select", 1),
        ("MULTI",),
        ("WATCH", "k"),
        ("AUTH", "x"),
        ("HELLO", 2),
        ("CLIENT", "TRACKING", "OFF"),
        ("client", "caching", "yes"),
        ("CLIENT", "REPLY", "OFF"),
        ("CLIENT", "NO-EVICT", "on"),
        ("MONITOR",),
        ("QUIT",),
    ],
)
def test_command_that_changes_a_shared_connection_is_refused(
    any_server: client.EmbeddedServer, command: tuple[Any, ...]
) -> None:
    with connect(any_server.url, cache=True) as db:
        for call in (db.execute, db.uncached, lambda *c: db.execute_many([("PING",), c])):
            with pytest.raises(CommandRefused, match="shares its connections"):
                call(*command)
        assert db.execute("PING") == b"PONG"


def test_reset_is_absorbed(plain_reader: Reader) -> None:
    plain_reader.read("GET", "k")
    assert plain_reader.db.execute("RESET") == b"RESET"
    assert plain_reader.cache.get(("GET", "k")) is client.MISS
    plain_reader.read("GET", "k")
    plain_reader.other("SET", "k", "new")
    plain_reader.sees(b"new", "GET", "k")


def test_transaction(plain_reader: Reader) -> None:
    db = plain_reader.db
    assert db.transaction([]) == []
    replies = db.transaction([("SET", "k", "1"), ("LPUSH", "k", "x"), ("INCR", "k")])
    assert (replies[0], replies[1].code, replies[2]) == (b"OK", "WRONGTYPE", 2)
    with pytest.raises(ReplyError, match="EXECABORT") as caught:
        db.transaction([("SET", "k", "2"), ("NOSUCH",)])
    assert "command 2 of 2" in caught.value.__notes__[0]
    assert db.execute("GET", "k") == b"2"


# Races and losses.


def test_transaction_without_the_right_to_multi_says_what_ran(private_server: StartServer) -> None:
    server = private_server()
    with connect(server.url) as db:
        db.execute("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-multi")
    with connect(server.url, username="u", password="pw") as db:
        with pytest.raises(ReplyError, match="NOPERM") as caught:
            db.transaction([["SET", "k", "v"]])
        assert "one by one" in caught.value.__notes__[0]
        assert db.execute("GET", "k") == b"v"


def test_transaction_whose_replies_are_no_text_has_run(server: client.EmbeddedServer) -> None:
    with connect(server.url, encoding="utf-8") as db:
        with pytest.raises(UnicodeDecodeError):
            db.transaction([("SET", "k", b"\xff"), ("GET", "k")])
        assert db.execute("STRLEN", "k") == 1


def test_value_in_flight_is_not_stored_after_flushall(private_server: StartServer) -> None:
    """The reply waits in the server while FLUSHALL's announcement overtakes it."""
    server = private_server()
    with connect(server.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        original = client.Connection.roundtrip

        def slow(self: client.Connection, *commands: Any, **options: Any) -> list[Any]:
            replies = original(self, *commands, **options)
            if commands[0][0] == "GET":
                flushes = cache.stats.flushes
                client.Connection.roundtrip = original  # type: ignore[method-assign]
                db.execute("SET", "other", "x")
                with client.Connection(client.Options.from_url(server.url)) as other:
                    other.execute("FLUSHALL")
                wait_until(lambda: cache.stats.flushes > flushes)
            return replies

        db.execute("SET", "k", "old")
        client.Connection.roundtrip = slow  # type: ignore[method-assign]
        try:
            assert db.execute("GET", "k") == b"old"
        finally:
            client.Connection.roundtrip = original  # type: ignore[method-assign]
        assert len(cache) == 0
        assert cache.stats.refused_fills == 1
        assert db.execute("GET", "k") is None


def test_key_changed_in_flight_is_not_stored(plain_reader: Reader) -> None:
    cache = plain_reader.cache
    original = client.Connection.roundtrip

    def slow(self: client.Connection, *commands: Any, **options: Any) -> list[Any]:
        replies = original(self, *commands, **options)
        told = cache.stats.invalidations
        plain_reader.other("SET", "k", "new")
        wait_until(lambda: cache.stats.invalidations > told)
        return replies

    plain_reader.other("SET", "k", "old")
    client.Connection.roundtrip = slow  # type: ignore[method-assign]
    try:
        assert plain_reader.read("GET", "k") == b"old"
    finally:
        client.Connection.roundtrip = original  # type: ignore[method-assign]
    assert plain_reader.read("GET", "k") == b"new"


def test_lost_listener_flushes_and_comes_back(reader: Reader) -> None:
    reader.other("SET", "k:1", "old")
    assert reader.read("GET", "k:1") == b"old"
    for ident in listeners(reader):
        reader.other("CLIENT", "KILL", "ID", ident)
    reader.other("SET", "k:1", "new")
    if reader.inline:
        # The one connection is found dead before the next command is sent.
        reader.sees(b"new", "GET", "k:1")
    else:
        reader.sees(b"new", "GET", "k:1")
        wait_until(lambda: reader.cache.status == "on")
    reader.read("GET", "k:1")
    wait_until(lambda: (reader.read("GET", "k:1"), reader.hits)[1])
    reader.other("SET", "k:1", "newer")
    reader.sees(b"newer", "GET", "k:1")


def listeners(reader: Reader) -> list[int]:
    """Give the ids of the connections that hear of invalidations."""
    listener = reader.tracker._listener
    if listener is None:
        assert reader.db.id is not None
        return [reader.db.id]
    assert listener.channel is not None
    return [listener.channel.redirect]


def test_killed_idle_data_connection_drops_what_it_read(plain_reader: Reader) -> None:
    # The server forgets what that connection tracked, and says nothing to the listener.
    plain_reader.other("SET", "k", "old")
    assert plain_reader.read("GET", "k") == b"old"
    plain_reader.other("CLIENT", "KILL", "ID", plain_reader.db.id or 0)
    plain_reader.other("SET", "k", "new")
    plain_reader.sees(b"new", "GET", "k")


def test_server_restart_is_survived(private_server: StartServer) -> None:
    server = private_server()
    with connect(server.url, cache=True, timeout=2) as db:
        assert db.cache is not None
        db.execute("SET", "k", "old")
        assert db.execute("GET", "k") == b"old"
        server.restart()

        def read() -> Any:
            try:
                return db.execute("GET", "k")
            except ConnectionError:
                return b"not yet"

        wait_until(lambda: read() is None)
        wait_until(lambda: db.cache is not None and db.cache.status == "on")
        with client.Connection(client.Options.from_url(server.url)) as other:
            other.execute("SET", "k", "new")
            wait_until(lambda: read() == b"new")
            other.execute("SET", "k", "newer")
            wait_until(lambda: read() == b"newer")


def test_dead_link_ends_the_hits(private_server: StartServer) -> None:
    """A server that stops answering is a black hole: nothing arrives, nothing is closed."""
    server = private_server()
    now = [1000.0]
    cache = Cache(clock=lambda: now[0])
    with connect(server.url, cache=cache, timeout=1) as db:
        db.execute("GET", "k")
        assert cache.get(("GET", "k")) is None
        server.pause()
        try:
            now[0] += 10
            assert cache.get(("GET", "k")) is client.MISS
        finally:
            server.resume()


def test_no_stale_hit_after_three_seconds_of_silence(private_server: StartServer) -> None:
    server = private_server()
    with connect(server.url, cache=True, timeout=1) as db:
        assert db.cache is not None
        db.execute("GET", "k")
        server.pause()
        paused = time.monotonic()
        try:
            wait_until(lambda: db.cache is not None and db.cache.get(("GET", "k")) is client.MISS)
            assert time.monotonic() - paused < 3.0
        finally:
            server.resume()
        wait_until(lambda: db.cache is not None and db.cache.status == "on")


def test_idle_process_hears_of_changes(plain_reader: Reader) -> None:
    plain_reader.other("SET", "k", "old")
    plain_reader.read("GET", "k")
    plain_reader.other("SET", "k", "new")
    wait_until(lambda: len(plain_reader.cache) == 0)  # and the client did nothing


def test_threads_share_one_fetch(plain_reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_reader.other("SET", "k", "v")
    plain_reader.read("GET", "warm")  # the connections are armed
    gate = Gate(monkeypatch, "GET")
    got: list[Any] = []
    threads = [in_thread(lambda: got.append(plain_reader.read("GET", "k")), name="leader")]
    gate.entered.wait(PATIENCE)
    threads += [in_thread(lambda: got.append(plain_reader.read("GET", "k"))) for _ in range(7)]
    wait_until(lambda: plain_reader.cache.stats.waits == 7)
    gate.leave.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert got == [b"v"] * 8
    assert gate.sent == 1


def test_failed_leader_hands_over(
    server: EmbeddedServer,
    wire: Callable[[EmbeddedServer], Wire],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db = connect(server.url, cache=True, retries=0)  # or it would read again itself
    plain_reader = Reader(db, wire(server))
    plain_reader.other("SET", "k", "v")
    plain_reader.read("GET", "warm")
    gate = Gate(monkeypatch, "GET")
    failed: list[BaseException] = []
    got: list[Any] = []

    def lead() -> None:
        try:
            plain_reader.read("GET", "k")
        except ConnectionError as error:
            failed.append(error)

    leader = in_thread(lead, name="leader")
    gate.entered.wait(PATIENCE)
    followers = [in_thread(lambda: got.append(plain_reader.read("GET", "k"))) for _ in range(3)]
    wait_until(lambda: plain_reader.cache.stats.waits == 3)
    ids = plain_reader.other("CLIENT", "LIST", "TYPE", "normal").decode().split("id=")[1:]
    listener = listeners(plain_reader)[0]
    me = plain_reader.other("CLIENT", "ID")
    for ident in {int(line.split()[0]) for line in ids} - {listener, me}:
        plain_reader.other("CLIENT", "KILL", "ID", ident)  # the leader's among them
    gate.leave.set()
    for thread in (leader, *followers):
        thread.join(PATIENCE)
    db.close()
    assert len(failed) == 1
    assert got == [b"v"] * 3


def test_leader_of_a_wrong_type_poisons_nothing(
    plain_reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_reader.other("RPUSH", "k", "v")
    plain_reader.read("GET", "warm")
    gate = Gate(monkeypatch, "GET")
    errors: list[ReplyError] = []

    def read() -> None:
        try:
            plain_reader.read("GET", "k")
        except ReplyError as error:
            errors.append(error)

    threads = [in_thread(read, name="leader")]
    gate.entered.wait(PATIENCE)
    threads += [in_thread(read) for _ in range(3)]
    wait_until(lambda: plain_reader.cache.stats.waits >= 3)
    gate.leave.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [error.code for error in errors] == ["WRONGTYPE"] * 4
    assert plain_reader.cache.stats.reservations == 0


def test_forked_child_starts_over_and_the_parent_goes_on(reader: Reader) -> None:
    reader.other("SET", "k:1", "old")
    assert reader.read("GET", "k:1") == b"old"
    assert reader.hit("GET", "k:1") == b"old"
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads. That it works is what this test shows.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:  # the child: reports by its exit status, whatever happens
        try:
            assert len(reader.cache) == 0
            assert reader.read("GET", "k:1") == b"old"
            deadline = time.monotonic() + PATIENCE
            while not reader.hits:
                assert time.monotonic() < deadline
                reader.read("GET", "k:1")
            reader.db.execute("SET", "k:1", "child")
            assert reader.read("GET", "k:1") == b"child"
            reader.db.close()
        except BaseException:  # noqa: BLE001 - a child must not run the parent's tests
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    reader.sees(b"child", "GET", "k:1")
    assert reader.db.execute("PING") == b"PONG"


def test_forked_child_without_a_cache_has_a_connection_of_its_own(
    any_server: client.EmbeddedServer,
) -> None:
    with connect(any_server.url) as db:
        number = db.execute("CLIENT", "ID")
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = 0 if db.execute("CLIENT", "ID") != number else 2
                db.close()
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert db.execute("CLIENT", "ID") == number


def test_user_without_tracking_works_uncached(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    # Redis 6.2 has no rules for the subcommands of allowed commands.
    rule = "-client|tracking" if server.version >= (7,) else "-client"
    other("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", rule)
    try:
        for tracking in (Tracking(), Tracking(listener="inline"), Tracking(bcast=True)):
            with connect(server.url, username="poor", password="pw", tracking=tracking) as db:
                assert db.cache is not None
                assert "NOPERM" in db.cache.status
                db.execute("SET", "k", "v")
                assert db.execute("GET", "k") == b"v"
                assert db.cached("GET", "k") == b"v"
                assert len(db.cache) == 0
    finally:
        other("ACL", "DELUSER", "poor")


def test_tracking_unknown_to_the_server_works_uncached() -> None:
    def old_server(peer: Peer) -> None:
        while (command := peer.command()) is not None:
            peer.send(b"$1\r\nv\r\n" if command[0] == b"GET" else b"-ERR unknown command\r\n")

    with ScriptedServer(old_server) as server, connect(server.url, cache=True) as db:
        assert db.execute("GET", "k") == b"v"
        assert db.cache is not None
        assert db.cache.status.startswith("off: ")
        assert db.protocol == 2


def test_inline_without_resp3_works_uncached_and_says_why() -> None:
    def old_server(peer: Peer) -> None:
        while (command := peer.command()) is not None:
            peer.send(b":1\r\n" if command[0] == b"CLIENT" else b"-ERR unknown command\r\n")

    with (
        ScriptedServer(old_server) as server,
        connect(server.url, tracking=Tracking(listener="inline")) as db,
    ):
        assert db.cache is not None
        assert "needs RESP3" in db.cache.status


def test_inline_that_meets_a_server_without_resp3_later_closes_the_cache() -> None:
    greeted: list[Peer] = []

    def aging_server(peer: Peer) -> None:
        if not greeted:
            greeted.append(peer)
            peer.greet()
        while (command := peer.command()) is not None:
            if command[0] == b"HELLO":
                peer.send(b"-ERR unknown command\r\n")
            elif command[0] == b"GET":
                peer.send(b"$1\r\nv\r\n")
            else:
                peer.send(b":1\r\n" if command[1:2] == [b"ID"] else b"+OK\r\n")

    with (
        ScriptedServer(aging_server) as server,
        connect(server.url, tracking=Tracking(listener="inline")) as db,
    ):
        cache = db.cache
        assert cache is not None
        assert db.execute("GET", "k") == b"v"
        assert cache.status == "on"
        greeted[0].socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: db.execute("GET", "k") == b"v" and "needs RESP3" in cache.status)
        assert len(cache) == 0


def test_callback_that_reads_does_not_wait_for_itself(plain_reader: Reader) -> None:
    read: list[Any] = []

    def look(keys: Any, reason: str) -> None:
        if reason == "changed" and not read:
            read.append(None)
            read.append(plain_reader.db.cached("GET", "other", max_stale=0))

    plain_reader.other("SET", "other", "v")
    plain_reader.read("GET", "other")
    plain_reader.read("GET", "k")
    plain_reader.cache.on_invalidate(look)
    plain_reader.other("SET", "k", "new")
    wait_until(lambda: read[1:] == [b"v"])


def test_one_address_of_two_servers_is_not_trusted(private_server: StartServer) -> None:
    """Behind one address the listener may be on one server and the data on another."""
    servers = [private_server(), private_server()]
    with Balancer(servers) as balancer, connect(balancer.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        held = [db._pool.take() for _ in range(4)]
        for connection in held:
            db._pool.give_back(connection)
        others = [client.Connection(client.Options.from_url(server.url)) for server in servers]
        with others[0], others[1]:
            for number in range(10):
                for peer in others:
                    peer.execute("SET", "k", number)
                # Whichever is asked: at once, because none is cached, or once it is heard of.
                wait_until(
                    lambda number=number: db.execute("GET", "k") == b"%d" % number,  # type: ignore[misc]
                    PROMPT,
                )


def test_script_debugger_can_not_be_started(plain_reader: Reader) -> None:
    with pytest.raises(CommandRefused):
        plain_reader.db.execute("SCRIPT", "DEBUG", "YES")


def test_wait_is_for_a_connection_of_ones_own(
    any_server: EmbeddedServer, plain_reader: Reader
) -> None:
    with pytest.raises(CommandRefused, match="WAIT waits for what its own connection wrote"):
        plain_reader.db.execute("WAIT", 0, 100)
    _, replicas = plain_reader.db.execute_many([("SET", "k", "v"), ("WAIT", 0, 100)])
    assert replicas == 0
    with client.Connection(client.Options.from_url(any_server.url)) as connection:
        assert connection.execute("WAIT", 0, 100) == 0


def test_single_string_is_no_command(plain_reader: Reader) -> None:
    for call in (plain_reader.db.execute_many, plain_reader.db.transaction):
        with pytest.raises(TypeError, match="command 0 is a single str"):
            call(["PING"])
    with pytest.raises(ValueError, match="at least its name"):
        plain_reader.db.execute()


def test_cache_of_a_closed_client_can_be_another_ones(any_server: client.EmbeddedServer) -> None:
    cache = Cache()
    connect(any_server.url, cache=cache).close()
    with connect(any_server.url, cache=cache) as db:
        db.execute("GET", "k")
        assert len(cache) == 1


def test_secret_is_not_in_a_servers_error(private_server: StartServer) -> None:
    server = private_server(args=["--rename-command", "CONFIG", ""])
    frames: list[Any] = []
    with connect(server.url, cache=True, trace=lambda *frame: frames.append(frame)) as db:
        for words in (
            ("CONFIG", "SET", "requirepass", "hunter2"),  # unknown here, so it is quoted
            ("ACL", "SETUSER", "u", "<hunter2"),  # a wrong rule is quoted too
        ):
            shown: list[Any] = [db.execute_many([words])]
            for call in (db.execute, lambda *words: db.transaction([words])):
                try:
                    shown.append(call(*words))
                except ReplyError as error:
                    shown.append((error, getattr(error, "__notes__", None)))
            assert "ERR" in repr(shown)
            assert "hunter2" not in repr(shown)
        assert "hunter2" not in repr(frames)


def test_deadline_covers_the_wait_for_a_connection_too(
    server: client.EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    with connect(server.url, max_connections=1, timeout=2.0) as db:
        held = db._pool.take()
        threading.Timer(1.5, db._pool.give_back, [held]).start()
        wire(server)("CLIENT", "PAUSE", 3900, "WRITE")
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            db.execute("SET", "k", "v")
        assert time.monotonic() - started < 3.2  # not 3.5


# The pool.


def test_threads_get_their_own_replies(plain_reader: Reader) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(100):
                value = f"{number}-{step}".encode()
                assert plain_reader.db.execute("ECHO", value) == value
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_pool_is_bounded_and_waits(server: client.EmbeddedServer) -> None:
    with connect(server.url, max_connections=1, timeout=0.5) as db:
        held = db._pool.take()
        with pytest.raises(client.PoolTimeout, match="all 1 connections"):
            db.execute("PING")
        threading.Timer(0.05, db._pool.give_back, [held]).start()
        assert db.execute("PING") == b"PONG"


def test_time_out_closes_only_its_connection(
    server: client.EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    with connect(server.url, timeout=0.2) as db:
        wire(server)("CLIENT", "PAUSE", 600, "WRITE")
        with pytest.raises(TimeoutError):
            db.execute("SET", "k", "v")
        assert db.execute("ECHO", "fresh") == b"fresh"


def test_command_that_waits_has_its_own_time_on_top(
    server: client.EmbeddedServer, wire: Callable[[EmbeddedServer], Wire]
) -> None:
    other = wire(server)
    with connect(server.url, timeout=0.2) as db:
        assert db.execute("BLPOP", "nothing", 0.5) is None
        assert db.execute("XREAD", "BLOCK", 400, "STREAMS", "nothing", "$") is None
        later = threading.Timer(0.5, other, ["RPUSH", "list", "item"])
        later.start()
        assert db.execute("BLPOP", "list", 0) == [b"list", b"item"]
        later.join()


def test_close_ends_a_wait_without_end(server: client.EmbeddedServer) -> None:
    db = connect(server.url)
    threading.Timer(0.2, db.close).start()
    with pytest.raises(ConnectionClosed):
        db.execute("BLPOP", "nothing", 0)


def test_connection_lost_while_idle_is_replaced(plain_reader: Reader) -> None:
    db = plain_reader.db
    db.execute("PING")
    plain_reader.other("CLIENT", "KILL", "ID", db.id or 0)
    assert db.execute("PING") == b"PONG"


def test_closed_client_refuses(any_server: client.EmbeddedServer) -> None:
    db = connect(any_server.url, cache=True)
    db.execute("GET", "k")
    db.close()
    db.close()
    with pytest.raises(ConnectionClosed, match="client is closed"):
        db.execute("GET", "k")
    assert db.cache is not None
    assert db.cache.status == "off: client closed"


def test_no_thread_or_descriptor_outlives_a_client(any_server: client.EmbeddedServer) -> None:
    connect(any_server.url, cache=True).close()
    before = open_things()
    for _ in range(5):
        with connect(any_server.url, cache=True) as db:
            db.execute("GET", "k")
    assert open_things() == before


def test_forgotten_client_warns_and_ends(any_server: client.EmbeddedServer) -> None:
    before = threading.active_count()
    db = connect(any_server.url, cache=True)
    holder = [db]
    del db
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        holder.clear()  # the last reference
    assert threading.active_count() == before


def test_cache_is_not_shared_by_two_clients(any_server: client.EmbeddedServer) -> None:
    cache = Cache()
    with (
        connect(any_server.url, cache=cache),
        pytest.raises(ValueError, match="belongs to another"),
    ):
        connect(any_server.url, cache=cache)


def test_failed_connect_leaves_nothing_open(any_server: client.EmbeddedServer) -> None:
    before = open_things()
    with pytest.raises(client.HandshakeError):
        connect(any_server.url, db=10_000, cache=True)
    assert open_things() == before
