"""What the servers' tracking asks of a client, rule by rule, and where other clients fail.

The rules were measured on Redis 6.2 to 7.4 and Valkey 8.1, or read in `tracking.c`. Each has tests
that are named after it, `test_rule_24_…`, wherever they stand: what the servers do is in
`test_tracking_live.py`, what the cache owes in `test_cache.py`, what a network can do to it in
`test_freshness.py`. The tests of this file are what the client as a whole owes.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from proxy import Proxy
from readers import PATIENCE, PROMPT, Reader, in_thread, wait_until

import client
from client import MISS, Cache, Push, Tracking, announced_keys, connect
from client._commands import cacheable_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer
    from servers import Wire

# Those about clusters and replicas as such (36, 37) wait for a client that speaks to several nodes.
RULES = {
    1: "HELLO 3 comes first; HELLO 2 mutes tracking and RESET ends it",
    2: "in RESP2 tracking without REDIRECT is OK and delivers nothing",
    3: "a subscriber in RESP2 may send neither HELLO 3 nor CLIENT",
    4: "which modes exclude each other, and what a second ON replaces",
    5: "prefixes must not overlap, and the client has to see to it",
    6: "REDIRECT to nobody is an error; GETREDIR and TRACKINGINFO tell",
    7: "a user may lack any of the commands: no cache, a visible reason, all else works",
    8: "in RESP2 a connection may redirect a broadcast to itself",
    9: "every key that a read names is tracked, whatever the reply",
    10: "writes that read, SCAN and KEYS are not tracked; scripts can't be relied on",
    11: "CLIENT CACHING YES covers the next command only, or a transaction",
    12: "a registration is spent by one announcement",
    13: "OFF keeps the registrations and loses what changes until ON",
    14: "the server's table may overflow, which is announced like a change",
    15: "what is announced, and in how many messages",
    16: "an expiry is announced when the key is deleted, which may be never",
    17: "FLUSHALL and FLUSHDB of any db and a full resync are a null: drop everything",
    18: "the null comes in either dialect",
    19: "SWAPDB, consumer groups and undeclared keys are never announced",
    20: "keys are raw bytes and name no db",
    21: "on one connection the order of the stream is the order of execution",
    22: "on two, a value is stored only if nothing was said since before it was asked for",
    23: "caching starts after the reply to CLIENT TRACKING, and belongs to its epoch",
    24: "an own write is announced after its reply, or before, or in the middle of an array",
    25: "own writes are read at once",
    26: "NOLOOP in default mode ends registrations silently",
    27: "k connections that read a key bring k messages: broadcast on one only",
    28: "pushes go by their kind; an unknown one is ignored",
    29: "the shape of the announcement in RESP2",
    30: "listener lost: flush before serving anything else",
    31: "data connection lost: drop what it filled",
    32: "a RESP3 data connection is told of a broken redirect, and late",
    33: "PING the listener; the published bound holds",
    34: "the server closes idle connections that don't subscribe",
    35: "a forked child drops the cache and the sockets",
    38: "entries, bytes and lives are bounded, placeholders count",
}  # fmt: skip

FAILURES = {
    1: "waiting for another thread's placeholder on an idle socket of one's own",
    2: "an error reply leaves the placeholder",
    3: "a value in flight is stored after FLUSHALL",
    4: "FLUSHALL's null is taken for an empty list, or raises",
    5: "a cache key without all arguments, spellings kept apart, binary keys that collide",
    6: "keys of multi-key or numkeys commands are taken as argument 1",
    7: "a cached container is handed out by reference",
    8: "falsy values are misses",
    9: "an invalidation scans the cache",
    10: "a failed leader fails everyone who waits for it",
    11: "an idle process never reads its pushes",
}

# Tests that show a rule and are there for more than it.
SHOWN_BY = {
    "others_fail_01": ("test_threads_share_one_fetch",),
    "others_fail_02": ("test_error_reply_leaves_nothing_that_blocks",),
    "others_fail_03": ("test_value_in_flight_is_not_stored_after_flushall",),
    "others_fail_04": ("test_flush_of_the_server_empties_the_cache",),
    "others_fail_05": (
        "test_hash_list_set_and_their_changes",
        "test_str_bytes_and_int_spellings_of_a_key_are_all_dropped",
    ),
    "others_fail_10": ("test_failed_leader_hands_over",),
    "others_fail_11": ("test_idle_process_hears_of_changes",),
    "rule_07": ("test_user_without_tracking_works_uncached",),
    "rule_10": ("test_not_cacheable_and_why",),
    "rule_16": ("test_expiry_is_noticed",),
    "rule_19": ("test_refused_read_does_change_in_silence",),
    "rule_25": (
        "test_own_write_is_read_at_once",
        "test_own_transaction_pipeline_and_script_are_read_at_once",
    ),
    "rule_26": ("test_foreign_write_after_an_own_one_is_noticed",),
    "rule_35": ("test_forked_child_starts_over_and_the_parent_goes_on",),
}


def test_every_rule_has_its_test() -> None:
    text = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    for kind, wanted in (("rule", RULES), ("others_fail", FAILURES)):
        for number, sentence in wanted.items():
            label = f"{kind}_{number:02}"
            shown = {name for name in names if name.startswith(f"test_{label}_")}
            assert shown | {*SHOWN_BY.get(label, ())}, f"{label} has no test: {sentence}"
    missing = {name for shown in SHOWN_BY.values() for name in shown} - names
    assert not missing


class Told:
    """The frames of a client's connections, as its `trace` tells them."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str, Any]] = []

    def __call__(self, who: str, way: Any, frame: Any) -> None:
        self.frames.append((who, way, frame))

    def sent(self, who: str) -> list[list[str]]:
        """Give the commands that connections of this name have sent, as text."""
        return [_words(frame) for name, way, frame in self.frames if (name, way) == (who, "sent")]


def _words(frame: Any) -> list[str]:
    return [word.decode() if isinstance(word, bytes) else str(word) for word in frame]


@contextmanager
def held_reader(
    server: client.EmbeddedServer, **tracking: Any
) -> Iterator[tuple[client.Client, Cache, Proxy]]:
    """Give a caching client, its cache, and the proxy before it."""
    with (
        Proxy(server) as proxy,
        connect(proxy.url, tracking=Tracking(**tracking), timeout=PATIENCE) as db,
    ):
        assert db.cache is not None
        yield db, db.cache, proxy


# Enabling.


def test_rule_01_first_word_of_every_connection_is_hello(server: client.EmbeddedServer) -> None:
    told = Told()
    with connect(server.url, cache=True, trace=told) as db:
        db.execute("GET", "k")
        for who in ("data", "listener"):
            assert told.sent(who)[0][:2] == ["HELLO", "3"]
        words = [command[:2] for command in told.sent("data")]
        assert words.index(["CLIENT", "TRACKING"]) > words.index(["HELLO", "3"])
        for again in (("HELLO", 2), ("HELLO", 3)):
            with pytest.raises(client.CommandRefused):
                db.execute(*again)


def test_rule_02_inline_in_resp2_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="needs RESP3"):
        connect("redis://nowhere.invalid", protocol=2, tracking=Tracking(listener="inline"))


@pytest.mark.parametrize("bcast", [False, True])
def test_rule_03_listener_in_resp2_sends_no_client_command_once_subscribed(
    server: client.EmbeddedServer, bcast: bool
) -> None:
    told = Told()
    tracking = Tracking(bcast=bcast)
    with connect(server.url, protocol=2, tracking=tracking, trace=told) as db:
        db.execute("GET", "k")
        assert db.cached("GET", "k", max_stale=0) is None
        names = [command[0] for command in told.sent("listener")]
        assert {*names[names.index("SUBSCRIBE") + 1 :]} == {"PING"}


def test_rule_04_connection_is_redirected_anew_to_a_new_listener(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other, told = wire(server), Told()
    with connect(server.url, cache=True, trace=told) as db:
        cache = db.cache
        assert cache is not None
        db.execute("GET", "k")
        redirects = [words[-1] for words in told.sent("data") if words[1:2] == ["TRACKING"]]
        epoch = cache.epoch
        other("CLIENT", "KILL", "ID", redirects[0])
        wait_until(lambda: cache.epoch > epoch)
        wait_until(lambda: (db.execute("GET", "k"), cache.find(("GET", "k")))[1])
        redirects = [words[-1] for words in told.sent("data") if words[1:2] == ["TRACKING"]]
        assert len(redirects) == len(set(redirects)) == 2
        other("SET", "k", "new")
        wait_until(lambda: db.execute("GET", "k") == b"new", PROMPT)


@pytest.mark.parametrize(
    ("lacking", "tracking", "caches"),
    [
        ("-client|tracking", {}, False),
        ("-client|tracking", {"bcast": True}, False),
        ("-client|tracking", {"listener": "inline"}, False),
        ("-client|caching", {"optin": True}, False),
        ("-client|list", {}, True),
        ("-client|list", {"bcast": True}, True),
        ("-client|id", {}, True),  # HELLO tells it
        ("-client|id", {"protocol": 2}, True),
        ("-subscribe", {"protocol": 2}, False),
        ("-subscribe", {}, True),
        ("-client", {}, False),
        ("-info", {}, True),
        ("-ping", {}, True),  # a refusal comes from a server that lives
    ],
    ids=str,
)
def test_rule_07_user_without_permission_is_served_and_told_why_not_from_the_cache(
    server: client.EmbeddedServer,
    wire: Callable[[Any], Wire],
    lacking: str,
    tracking: dict[str, Any],
    caches: bool,
) -> None:
    if "|" in lacking and server.version < (7,):
        pytest.skip("Redis 6.2 has no rules for the subcommands of allowed commands")
    other = wire(server)
    other("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", *lacking.split())
    try:
        protocol = tracking.get("protocol")
        modes = {name: value for name, value in tracking.items() if name != "protocol"}
        with connect(
            server.url,
            protocol=protocol,
            username="poor",
            password="pw",
            tracking=Tracking(**modes),
        ) as db:
            cache = db.cache
            assert cache is not None
            for number in range(3):
                other("SET", "k", number)
                wait_until(lambda n=number: db.cached("GET", "k") == b"%d" % n, PROMPT)  # type: ignore[misc]
            if caches:
                assert cache.status == "on"
                wait_until(lambda: (db.cached("GET", "k"), cache.find(("GET", "k")))[1])
            else:
                assert len(cache) == 0
                if lacking != "-client|caching":
                    assert re.search("NOPERM|does not tell|needs RESP3|no perm", cache.status)
    finally:
        other("ACL", "DELUSER", "poor")


def test_rule_08_data_connections_of_a_broadcast_in_resp2_do_not_track(
    server: client.EmbeddedServer,
) -> None:
    told = Told()
    with connect(server.url, protocol=2, tracking=Tracking(bcast=True), trace=told) as db:
        db.execute("GET", "k")
        assert not [words for words in told.sent("data") if words[1:2] == ["TRACKING"]]
        (tracking,) = [words for words in told.sent("listener") if words[1:2] == ["TRACKING"]]
        redirect = tracking[tracking.index("REDIRECT") + 1]
        assert int(redirect) == db._tracker._listener.channel.redirect  # type: ignore[union-attr]


# What is tracked.


def test_rule_09_uncached_reads_fill_the_servers_table_but_in_optin(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    for optin, told in ((False, 1), (True, 0)):
        with connect(server.url, tracking=Tracking(optin=optin)) as db:
            cache = db.cache
            assert cache is not None
            db.cached("GET", "warm")
            before = cache.stats.invalidations
            db.execute("TTL", "k")
            other("SET", "k", "1")
            assert db.cached("GET", "warm", max_stale=0) is None  # all has been heard
            assert cache.stats.invalidations == before + told


@pytest.mark.parametrize(
    "command", ["GETEX k", "SORT k", "SCAN 0", "KEYS *", "EVAL_RO s 1 k", "FCALL_RO f 1 k"]
)
def test_rule_10_what_is_not_tracked_is_not_cached(command: str) -> None:
    assert cacheable_keys(command.encode().split()) is None


def test_rule_13_tracking_can_not_be_turned_off_behind_the_cache(plain_reader: Reader) -> None:
    for words in (("CLIENT", "TRACKING", "OFF"), (b"client", bytearray(b"tracking"), "on")):
        with pytest.raises(client.CommandRefused):
            plain_reader.db.execute(*words)
        with pytest.raises(client.CommandRefused):
            plain_reader.db.transaction([words])


# What is announced.


def test_rule_16_life_is_capped_where_no_expiry_is_announced(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    other("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        for cache in (Cache(server_ttl=True), Cache(max_ttl=0.3)):
            with connect(server.url, cache=cache) as db:
                other("SET", "k", "v", "PX", 300)
                wait_until(lambda: db.execute("GET", "k") == b"v")
                wait_until(lambda: db.execute("GET", "k") is None, PROMPT)
    finally:
        other("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_rule_17_full_resync_of_a_replica_drops_everything(
    private_server: StartServer, wire: Callable[[Any], Wire]
) -> None:
    at_once = ["--repl-diskless-sync-delay", "0"]
    primary, replica = private_server(args=at_once), private_server()
    other = wire(replica)
    wire(primary)("SET", "k", "of the primary")
    other("SET", "k", "its own")
    with connect(replica.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        assert db.execute("GET", "k") == b"its own"
        other("REPLICAOF", primary.host, primary.port)
        wait_until(lambda: cache.get(("GET", "k")) is MISS)  # and the client asked for nothing

        def read() -> Any:
            try:
                return db.execute("GET", "k")
            except client.ReplyError:  # LOADING
                return None

        wait_until(lambda: read() == b"of the primary", 30)


@pytest.mark.parametrize("null", [b"_\r\n", b"$-1\r\n", b"*-1\r\n"])
def test_rule_18_any_null_drops_everything(null: bytes) -> None:
    heard: list[Push] = []
    for protocol, wire in (
        (3, b">2\r\n$10\r\ninvalidate\r\n" + null),
        (2, b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n" + null),
    ):
        session = client.Session(on_push=heard.append)
        session.send("SUBSCRIBE", "__redis__:invalidate")
        session.receive(b"*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n")
        heard.clear()
        session.protocol = protocol
        assert session.receive(wire) == []
        assert [announced_keys(push) for push in heard] == [None]


@pytest.mark.parametrize(("mine", "elsewhere"), [(0, 3), (3, 0), (3, 3)])
def test_rule_20_key_is_dropped_whichever_db_it_changed_in(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire], mine: int, elsewhere: int
) -> None:
    other = wire(server)
    with connect(server.url, db=mine, cache=True) as db:
        cache = db.cache
        assert cache is not None
        other("SELECT", mine)
        other("SET", "k", "old")
        other("SELECT", elsewhere)
        assert db.execute("GET", "k") == b"old"
        other("SET", "k", "new")
        wait_until(lambda: cache.get(("GET", "k")) is MISS, PROMPT)
        assert db.execute("GET", "k") == (b"new" if mine == elsewhere else b"old")


# Order and races.


def test_rule_21_announcement_read_with_the_reply_drops_it(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with held_reader(server, listener="inline") as (db, cache, proxy):
        other("SET", "k", "old")
        db.execute("GET", "warm")
        proxy.links[0].down.hold()
        got: list[Any] = []
        reader = in_thread(lambda: got.append(db.execute("GET", "k")))
        time.sleep(0.05)
        other("SET", "k", "new")
        time.sleep(0.05)  # both frames wait in the proxy, and will be read together
        proxy.links[0].down.release()
        reader.join(PATIENCE)
        assert got == [b"old"]
        assert db.execute("GET", "k") == b"new"
        assert cache.stats.refused_by == {"invalidated": 1}


def test_rule_23_nothing_is_read_to_be_kept_before_tracking_is_confirmed(
    server: client.EmbeddedServer,
) -> None:
    for tracking in ({}, {"listener": "inline"}, {"optin": True}):
        told = Told()
        with connect(server.url, tracking=Tracking(**tracking), trace=told) as db:
            db.cached("GET", "k")
            data = [(way, frame) for who, way, frame in told.frames if who == "data"]
            asked = next(n for n, (_, frame) in enumerate(data) if "TRACKING" in str(frame))
            read = next(n for n, (_, frame) in enumerate(data) if "GET" in _sent(frame))
            confirmed = data.index(("received", b"OK"), asked)
            assert asked < confirmed < read


def _sent(frame: Any) -> list[str]:
    return [str(word) for word in frame] if isinstance(frame, list) else []


def test_rule_24_own_write_push_inside_an_array_on_6_2(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    commands = [("SET", "a", "1"), ("GET", "a"), ("SET", "b", "2"), ("GET", "b")]
    # What the server really sends, read by nobody's parser.
    other = wire(server)
    other("HELLO", 3)
    other("CLIENT", "TRACKING", "ON")
    other("MGET", "a", "b")
    other.send("MULTI")
    for command in commands:
        other.send(*command)
    other.send("EXEC")
    seen = b""
    while seen.count(b"invalidate") < 2 or b"*4\r\n" not in seen:
        seen += other._socket.recv(65536)
    start, push = seen.index(b"*4\r\n"), seen.index(b">2\r\n")
    ends = seen.index(b"$1\r\n2\r\n", start)
    assert (start < push < ends) == (server.version < (7,))

    with connect(server.url, tracking=Tracking(listener="inline")) as db:
        for _ in range(3):
            db.execute("DEL", "a", "b")
            assert db.execute("MGET", "a", "b") == [None, None]
            assert db.transaction(commands) == [b"OK", b"1", b"OK", b"2"]
            assert db.execute("MGET", "a", "b") == [b"1", b"2"]
            assert db.execute_many([("GET", "a"), ("SET", "a", "3"), ("MGET", "a", "b")]) == [
                b"1",
                b"OK",
                [b"3", b"2"],
            ]
            assert db.execute("GET", "a") == b"3"


def test_rule_24_key_that_expires_while_it_is_read(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    # On 6.2 the announcement stands in the middle of MGET's array.
    other = wire(server)
    other("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        with connect(server.url, tracking=Tracking(listener="inline")) as db:
            for number in range(3):
                names = [f"k:{number}:{index}" for index in range(4)]
                for name in names:
                    other("SET", name, "v", "PX", 20)
                assert db.execute("HGETALL", "h") in ({}, [])
                db.uncached("MGET", *names)
                time.sleep(0.03)
                assert db.uncached("MGET", *names) == [None] * 4
                assert db.execute("MGET", *names) == [None] * 4
    finally:
        other("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_rule_25_write_of_unknown_keys_drops_everything(plain_reader: Reader) -> None:
    plain_reader.read("GET", "k")
    flushes = plain_reader.cache.stats.flushes
    plain_reader.db.execute_many([("NOSUCH", "command")])
    assert plain_reader.cache.stats.flushes > flushes
    assert plain_reader.cache.get(("GET", "k")) is MISS


@pytest.mark.parametrize(("bcast", "flags"), [(False, {"on"}), (True, {"on", "bcast", "noloop"})])
def test_rule_26_client_asks_for_noloop_in_broadcast_mode_only(
    server: client.EmbeddedServer, bcast: bool, flags: set[str]
) -> None:
    with connect(server.url, encoding="utf-8", tracking=Tracking(noloop=True, bcast=bcast)) as db:
        db.execute("GET", "k")
        info = db.execute("CLIENT", "TRACKINGINFO")
        assert set(info["flags"]) == flags


def test_rule_27_broadcast_brings_one_message_however_many_connections(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with connect(server.url, tracking=Tracking(bcast=True)) as db:
        cache = db.cache
        assert cache is not None
        held = [db._pool.take() for _ in range(4)]
        for connection in held:
            db._pool.give_back(connection)
        readers = [in_thread(db.execute, "GET", f"k:{number}") for number in range(8)]
        for reader in readers:
            reader.join(PATIENCE)
        before = cache.stats.invalidations
        other("SET", "k:0", "v")
        assert db.cached("GET", "k:0", max_stale=0) == b"v"
        assert cache.stats.invalidations == before + 1


def test_rule_28_push_of_another_kind_is_ignored(reader: Reader) -> None:
    if reader.db.protocol == 2:
        reply = reader.db.execute("ECHO", "a push needs RESP3")
    else:
        reader.read("GET", "k:1")
        connection = reader.db._pool.take()
        try:
            # The server's own: a push, then a reply, "for clients that discard the push".
            reply = connection.execute("DEBUG", "PROTOCOL", "push")
            for kind in (b"MOVING", b"SMIGRATED", b"message", b"no such"):
                connection.take_push(Push([kind, [b"k:1"], 1]))
        finally:
            reader.db._pool.give_back(connection)
    assert b"push" in reply
    reader.other("SET", "k:1", "new")
    reader.sees(b"new", "GET", "k:1")


def test_rule_29_message_on_another_channel_names_no_keys(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    with connect(server.url, protocol=2, cache=True) as db:
        cache = db.cache
        assert cache is not None
        db.execute("GET", "k")
        ear = db._tracker._listener._connection  # type: ignore[union-attr]
        assert ear is not None
        ear.take_push(Push([b"message", b"elsewhere", [b"k"]]))
        ear.drain()
        assert cache.get(("GET", "k")) is None
        # Who may publish there can have everything dropped, and no more than that.
        wire(server)("PUBLISH", "__redis__:invalidate", "nonsense")
        wait_until(lambda: cache.get(("GET", "k")) is MISS, PROMPT)
        assert cache.status == "on"


# Losing connections.


def test_rule_32_dead_target_is_told_by_a_push_when_a_tracked_key_changes(
    server: client.EmbeddedServer, wire: Callable[[Any], Wire]
) -> None:
    other = wire(server)
    with held_reader(server) as (db, cache, proxy):
        listener = db._tracker._listener  # type: ignore[union-attr]
        assert listener is not None
        assert listener.channel is not None
        other("SET", "k", "old")
        db.execute("GET", "k")
        proxy.links[1].freeze()  # we do not see it end
        other("CLIENT", "KILL", "ID", listener.channel.redirect)
        other("SET", "k", "new")
        time.sleep(0.05)
        db.execute("PING")  # reads what was pushed to the data connection
        assert cache.find(("GET", "k")) is None
        assert db.execute("GET", "k") == b"new"


@pytest.mark.parametrize("protocol", [2, 3])
def test_rule_33_channel_is_proven_again_and_again(
    server: client.EmbeddedServer, protocol: Any
) -> None:
    with connect(server.url, protocol=protocol, cache=True) as db:
        cache = db.cache
        assert cache is not None
        epoch, proven = cache.epoch, [cache.proven]
        for _ in range(2):
            wait_until(lambda: cache.proven > proven[-1], PATIENCE)
            proven.append(cache.proven)
        assert cache.epoch == epoch
        assert proven[-1] + cache.staleness_bound > cache.clock()


def test_rule_34_server_that_closes_idle_connections(
    private_server: StartServer, wire: Callable[[Any], Wire]
) -> None:
    server = private_server(args=["--timeout", "1"])
    with connect(server.url, cache=True) as db:
        cache = db.cache
        assert cache is not None
        db.execute("GET", "k")
        epoch = cache.epoch
        wait_until(lambda: cache.find(("GET", "k")) is None)  # the data connection was closed
        assert cache.epoch == epoch  # the listener was not: its PINGs are no idleness
        wire(server)("SET", "k", "new")
        assert db.execute("GET", "k") == b"new"


# Where others fail.


@pytest.mark.parametrize(
    "command",
    [
        ("MGET", "k:1", "k:2"),
        ("SINTER", "k:1", "k:2"),
        ("ZUNION", 2, "k:1", "k:2", "WEIGHTS", 1, 1),
        ("ZDIFF", 2, "k:1", "k:2"),
        ("XREAD", "COUNT", 9, "STREAMS", "k:1", "k:2", "0", "0"),
        ("EXISTS", "k:1", "k:2"),
        ("BITPOS", "k:2", 1),
    ],
    ids=lambda command: command[0],
)
def test_others_fail_06_change_of_any_of_the_keys_drops(
    plain_reader: Reader, command: tuple[Any, ...]
) -> None:
    before = plain_reader.read(*command)
    misses = plain_reader.cache.stats.misses
    assert plain_reader.read(*command) == before
    assert plain_reader.cache.stats.misses == misses
    change: dict[str, tuple[Any, ...]] = {
        "SINTER": ("SADD", "k:2", "x"),
        "ZUNION": ("ZADD", "k:2", 1, "x"),
        "ZDIFF": ("ZADD", "k:2", 1, "x"),
        "XREAD": ("XADD", "k:2", "1-1", "f", "v"),
    }
    plain_reader.other(*change.get(command[0], ("SET", "k:2", "\x01")))
    wait_until(
        lambda: (plain_reader.read(*command), plain_reader.cache.stats.misses > misses)[1], PROMPT
    )
    if command[0] not in ("SINTER", "ZDIFF"):  # of an empty set they are empty
        assert plain_reader.read(*command) != before


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (("GET", "none"), None),
        (("GET", "empty"), b""),
        (("EXISTS", "none"), 0),
        (("STRLEN", "none"), 0),
        (("LRANGE", "none", 0, -1), []),
        (("HGETALL", "none"), {}),
        (("SMEMBERS", "none"), set()),
    ],
    ids=str,
)
def test_others_fail_08_falsy_replies_are_hits(
    plain_reader: Reader, command: tuple[Any, ...], value: Any
) -> None:
    plain_reader.other("SET", "empty", "")
    assert plain_reader.read(*command) == value
    assert plain_reader.hit(*command) == value


def test_others_fail_09_one_key_of_many_is_dropped_alone(plain_reader: Reader) -> None:
    names = [f"k:{number}" for number in range(1000)]
    plain_reader.read("MGET", *names)
    plain_reader.other("SET", "k:500", "new")
    wait_until(lambda: len(plain_reader.cache) == 999, PROMPT)
