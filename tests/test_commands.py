"""What the client believes of every command, held against what the servers say and do.

The tables below are examples, one command a line, run on the data of `DATA`. Each server is asked
for its commands, so a server with a command that has no example makes the suite fail: somebody has
to judge whether its reply may be cached.
"""

from __future__ import annotations

import hashlib
import importlib.util
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import resp
from client import _command_table, _commands
from client._commands import (
    blocks_for,
    cacheable_keys,
    find_command,
    is_read_only,
    is_script,
    may_block,
    why_not_cacheable,
    written_keys,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from client._embedded import EmbeddedServer

    Vector = tuple[bytes, ...]
    Connect = Callable[[], "Connection"]


def vectors(text: str) -> list[Vector]:
    """Give one argument vector a line, its words separated by spaces."""
    return [tuple(line.encode().split(b" ")) for line in text.strip().splitlines()]


def vector(text: str) -> Vector:
    return tuple(text.encode().split(b" "))


DATA = vectors("""
SET string value
SET string2 other
SET number 10
SETEX volatile 1000 value
RPUSH list c a b
RPUSH list2 3 1 2
HSET hash a 1 b 2 n 3
SADD set a b c
SADD set2 b c d
ZADD zset 1 a 2 b 3 c
ZADD zset2 10 b 20 d
ZADD lexical 0 a 0 b 0 c
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
PFADD hll a b c
PFADD hll2 c d
XADD stream 1-1 f v
XADD stream 2-1 f w
XADD stream2 1-1 f v
XGROUP CREATE stream group 0
XGROUP CREATE stream2 group 0
XREADGROUP GROUP group consumer COUNT 1 STREAMS stream >
""")

KEYS = vector(
    "string string2 number volatile list list2 hash set set2 zset zset2 lexical geo hll hll2"
    " stream stream2 target target2 missing"
)

# Every read that may be cached, in the forms in which its keys or its reply could differ.
READS = vectors("""
BITCOUNT string
BITCOUNT string 0 -1
BITCOUNT string 0 8 BIT
BITFIELD_RO string GET u8 0 GET i5 3
BITPOS string 1
BITPOS string 0 0 -1
EXISTS string
EXISTS string missing string
EXISTS target target2
GEODIST geo Palermo Catania km
GEOHASH geo Palermo Catania
GEOPOS geo Palermo nowhere
GEORADIUS_RO geo 15 37 200 km WITHDIST ASC
GEORADIUSBYMEMBER_RO geo Palermo 200 km
GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC
GEOSEARCH geo FROMMEMBER Palermo BYBOX 400 400 km WITHCOORD
GEOSEARCH target FROMLONLAT 15 37 BYRADIUS 200 km ASC
GET string
GET missing
GET hll
GET target
GETBIT string 7
GETRANGE string 0 2
HEXISTS hash a
HGET hash a
HGETALL hash
HKEYS hash
HLEN hash
HMGET hash a missing
HSTRLEN hash a
HVALS hash
LCS string string2
LCS string target LEN
LINDEX list -1
LLEN list
LPOS list a
LPOS list a COUNT 0 RANK -1
LRANGE list 0 -1
LRANGE target 0 -1
MGET string
MGET string missing list string2
SCARD set
SDIFF set set2 missing
SINTER set set2
SINTERCARD 2 set set2
SINTERCARD 2 set set2 LIMIT 1
SISMEMBER set a
SMEMBERS set
SMEMBERS target
SMISMEMBER set a z
SORT_RO list2
SORT_RO list LIMIT 0 2 ALPHA DESC
STRLEN string
SUBSTR string 0 2
SUNION set set2 target
TYPE string
TYPE target
XLEN stream
XRANGE stream - +
XRANGE target - + COUNT 1
XREAD STREAMS stream 0
XREAD COUNT 1 STREAMS stream stream2 1-1 0-0
XREAD STREAMS stream missing 99-1 0
XREVRANGE stream + -
ZCARD zset
ZCOUNT zset -inf (3
ZDIFF 2 zset zset2 WITHSCORES
ZINTER 2 zset zset2
ZINTERCARD 2 zset zset2
ZLEXCOUNT lexical - [b
ZMSCORE zset a missing
ZRANGE zset 0 -1 WITHSCORES
ZRANGE lexical [b [a BYLEX REV
ZRANGE target 0 -1 WITHSCORES
ZRANGEBYLEX lexical - +
ZRANGEBYSCORE zset 1 2 WITHSCORES
ZRANK zset b
ZRANK zset b WITHSCORE
ZREVRANGE zset 0 0
ZREVRANGEBYLEX lexical + -
ZREVRANGEBYSCORE zset 2 1 LIMIT 0 1
ZREVRANK zset b
ZSCORE zset a
ZUNION 2 zset zset2 WEIGHTS 1 2 AGGREGATE MAX
""")

SCRIPT = b"redis.call('set', KEYS[1], ARGV[1]); return redis.call('del', KEYS[2])"
SHA = hashlib.sha1(SCRIPT).hexdigest().encode()
LIBRARY = b"""#!lua name=library
redis.register_function('overwrite', function(keys, args)
    return redis.call('set', keys[1], args[1])
end)
"""

# Every command that may change a key, <dump> standing for what DUMP string says.
WRITES = vectors("""
APPEND string x
BITFIELD string SET u8 0 1
BITFIELD string GET u8 0
BITOP AND target string string2
BITOP NOT string string2
BLMOVE list list2 LEFT RIGHT 1
BLMPOP 1 2 missing list LEFT
BLPOP missing list 1
BRPOP list list2 1
BRPOPLPUSH list list2 1
BZMPOP 1 2 missing zset MIN COUNT 2
BZPOPMAX zset zset2 1
BZPOPMIN missing zset2 1
COPY string target
COPY list string REPLACE
COPY string target DB 1
DECR number
DECRBY number 3
DEL string missing list
DELIFEQ string value
EVAL <script> 2 string list new
EVALSHA <sha> 2 target string new
EXPIRE string 100
EXPIRE string -1
EXPIREAT hash 9999999999
FCALL overwrite 1 string new
GEOADD geo 12 41 Rome
GEOADD geo 14 38 Palermo
GEORADIUS geo 15 37 200 km
GEORADIUS geo 15 37 200 km STORE target
GEORADIUS geo 15 37 200 km ASC STOREDIST target
GEORADIUSBYMEMBER geo Palermo 200 km STORE target
GEOSEARCHSTORE target geo FROMLONLAT 15 37 BYRADIUS 200 km
GETDEL string
GETEX string
GETEX string EX 100
GETSET string new
HDEL hash a
HDEL hash a b n
HEXPIRE hash 100 FIELDS 1 a
HEXPIRE hash 0 FIELDS 1 a
HEXPIREAT hash 9999999999 FIELDS 1 a
HGETDEL hash FIELDS 1 a
HGETEX hash EX 100 FIELDS 1 a
HINCRBY hash n 1
HINCRBYFLOAT hash n 1.5
HMSET hash a new z 1
HPERSIST hash FIELDS 1 a
HPEXPIRE hash 100000 FIELDS 2 a b
HPEXPIREAT hash 1 FIELDS 1 a
HSET hash a new
HSETEX hash EX 100 FIELDS 1 a new
HSETNX hash z 1
INCR number
INCRBY number 5
INCRBYFLOAT number 1.5
LINSERT list BEFORE a x
LMOVE list list LEFT RIGHT
LMOVE list target LEFT RIGHT
LMPOP 2 missing list LEFT COUNT 9
LPOP list
LPOP list 9
LPUSH list x
LPUSHX list x
LREM list 0 a
LSET list 0 x
LTRIM list 1 1
MIGRATE 127.0.0.1 1 string 0 10
MIGRATE 127.0.0.1 1  0 10 COPY KEYS string list
MOVE string 1
MSET string x target y string z
MSETEX 2 string x target y EX 100
MSETNX target x target2 y
PERSIST volatile
PEXPIRE string 100000
PEXPIREAT string 1
PFADD hll x y z
PFCOUNT hll
PFCOUNT hll hll2
PFDEBUG TODENSE hll
PFMERGE hll2 hll
PSETEX string 100000 new
RENAME string target
RENAME list string
RENAMENX string target
RESTORE target 0 <dump>
RESTORE-ASKING string2 0 <dump> REPLACE
RPOP list
RPOPLPUSH list list2
RPUSH list x
RPUSHX list x
SADD set x
SDIFFSTORE target set set2
SDIFFSTORE set set set
SET string new
SET string new GET
SET string value
SET missing new
SETBIT string 6 1
SETEX string 100 new
SETNX target x
SETRANGE string 1 XX
SINTERSTORE target set set2
SMOVE set set2 a
SORT list2
SORT list2 STORE target
SORT list BY weight_* GET # STORE list2
SPOP set
SPOP set 9
SREM set a b
SUNIONSTORE set set set2
UNLINK string list
XACK stream group 1-1
XADD stream 9-1 f new
XADD stream MAXLEN 1 9-1 f new
XADD target 9-1 f new
XADD missing 9-1 f new
XAUTOCLAIM stream group other 0 0
XCLAIM stream group other 0 1-1
XDEL stream 1-1
XGROUP CREATE stream second $
XGROUP CREATE target group $ MKSTREAM
XGROUP CREATECONSUMER stream group other
XGROUP DELCONSUMER stream group consumer
XGROUP DESTROY stream group
XGROUP SETID stream group 0
XREADGROUP GROUP group consumer STREAMS stream stream2 > >
XSETID stream 99-1
XTRIM stream MAXLEN 1
ZADD zset 9 x
ZADD zset INCR 2 a
ZDIFFSTORE target 2 zset zset2
ZINCRBY zset 1 a
ZINTERSTORE zset 2 zset zset2
ZMPOP 2 missing zset MAX
ZPOPMAX zset
ZPOPMIN zset 9
ZRANGESTORE target zset 0 1
ZREM zset a
ZREM geo Catania
ZREMRANGEBYLEX lexical [a [b
ZREMRANGEBYRANK zset 0 0
ZREMRANGEBYSCORE zset 1 2
ZUNIONSTORE target 2 zset zset2 WEIGHTS 1 2
""")

# Debugging, undocumented: it rewrites a HyperLogLog's bytes, which GET shows, and tells nobody.
SILENT = {b"PFDEBUG"}

# Those that no private server can carry out.
FAIL_HERE = {b"MIGRATE"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load the script that makes the table."""
    path = Path(__file__).resolve().parent.parent / "scripts" / "generate_commands.py"
    spec = importlib.util.spec_from_file_location("generate_commands", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Connection:
    """A plain connection: commands out, replies in, pushes set aside."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._socket = socket.create_connection((server.host, server.port), timeout=10)
        self._parser = resp.Parser()
        self.pushes: list[resp.Push] = []

    def __call__(self, *command: str | bytes | int) -> Any:
        self.send(*command)
        reply = self.read()
        if isinstance(reply, resp.ReplyError):
            raise reply
        return reply

    def send(self, *command: str | bytes | int) -> None:
        self._socket.sendall(resp.encode_command(*command))

    def read(self) -> Any:
        while True:
            while (reply := self._parser.parse()) is resp.NEED_DATA:
                data = self._socket.recv(1 << 16)
                assert data, "the server closed the connection"
                self._parser.feed(data)
            if not isinstance(reply, resp.Push):
                return reply
            self.pushes.append(reply)

    def ask_all(self, commands: Iterable[Vector]) -> list[Any]:
        """Send all commands in one go; give their replies, errors among them."""
        commands = list(commands)
        self._socket.sendall(resp.encode_commands(commands))
        return [self.read() for _ in commands]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def connect(server: EmbeddedServer) -> Iterator[Connect]:
    """Connect to the server, and hang up in the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Connection(server)))


def known_to(server: Connection, examples: Iterable[Vector]) -> list[Vector]:
    """Give the examples of commands that this server has, with as many arguments as it takes."""
    arity = {entry[0].upper(): entry[1] for entry in server("COMMAND")}
    return [
        example
        for example in examples
        if len(example) == arity.get(example[0], 0) or len(example) >= -arity.get(example[0], 0) > 0
    ]


def named_by(server: Connection, command: Vector) -> list[bytes]:
    """Give the keys of a command as the server finds them."""
    keys: list[bytes] = server("COMMAND", "GETKEYS", *command)
    return keys


def prepare(server: Connection) -> None:
    server("FLUSHALL")
    server("SCRIPT", "LOAD", SCRIPT)
    assert not any(isinstance(reply, resp.ReplyError) for reply in server.ask_all(DATA))


def spell_out(server: Connection, command: Vector) -> Vector:
    """Put scripts and a dump where an example names them."""
    words = {b"<script>": SCRIPT, b"<sha>": SHA}
    if b"<dump>" in command:
        words[b"<dump>"] = server("DUMP", "string")
    return tuple(words.get(word, word) for word in command)


def track(server: Connection) -> None:
    server("HELLO", 3)
    server("CLIENT", "TRACKING", "ON")


def announced_to(server: Connection) -> set[bytes]:
    """Give the keys invalidated until now, and forget them."""
    server("PING")
    pushes, server.pushes[:] = list(server.pushes), []
    keys: set[bytes] = set()
    for kind, payload in pushes:
        assert kind == b"invalidate"
        keys.update(KEYS if payload is None else payload)
    return keys


# The tables against the servers


def test_every_command_of_the_server_has_been_judged(
    server: EmbeddedServer, script: ModuleType
) -> None:
    reads = {find_name(example) for example in READS}
    writes = {find_name(example) for example in WRITES}
    missing = []
    for name, row in rows_of_the_core(script, server).items():
        known = find_command(tuple(name.encode().split()))
        if known is None:
            # A container alone, which 6.2 does not call one.
            assert name.encode() in _command_table.COMMANDS, "run scripts/generate_commands.py"
        elif known.refusal is None:
            missing += [name] if name not in reads else []
        elif not known.changes_nothing and row.specs:
            missing += [name] if name not in writes else []
    assert missing == [], "each needs a row in READS or WRITES, or a reason in client/_commands.py"


def find_name(command: Vector) -> str | None:
    found = find_command(command)
    return found.name if found else None


def test_table_is_what_the_server_says(server: EmbeddedServer, script: ModuleType) -> None:
    # The servers that made the table are not all here, but each must have nothing to add to it.
    table = parse_table(script)
    merged = script.merge(table, rows_of_the_core(script, server))
    added = {name: str(row) for name, row in merged.items() if row != table.get(name)}
    assert added == {}, "run scripts/generate_commands.py"


def test_table_is_as_the_script_writes_it(script: ModuleType) -> None:
    text = script.render(parse_table(script), _command_table.SERVERS)
    assert text == script.TABLE.read_text()


def test_script_asks_a_running_server_or_starts_one(
    server: EmbeddedServer, script: ModuleType
) -> None:
    answer = script.ask(server.binary)
    assert answer.server == script.ask(server.unix_url).server
    assert answer.rows == rows_of_the_core(script, server)
    assert answer.server.startswith(f"{server.name.capitalize()} {server.version[0]}.")


def rows_of_the_core(script: ModuleType, server: EmbeddedServer) -> dict[str, Any]:
    """Give what a server says of its commands; those of modules, JSON.GET, are in no table."""
    return {name: row for name, row in script.ask(server.url).rows.items() if "." not in name}


def parse_table(script: ModuleType) -> dict[str, Any]:
    table = {}
    for name, text in _command_table.COMMANDS.items():
        words = text.split()
        flags = tuple(word for word in words if word.islower())
        specs = tuple(word for word in words if ":" in word)
        (arity,) = {*words} - {*flags} - {*specs}
        table[name.decode()] = script.Row(flags, int(arity), specs)
    return table


def test_newer_server_stands_and_older_one_widens(script: ModuleType) -> None:
    newer = {
        "XINFO": script.Row(("container",), -2, ()),
        "ZRANK": script.Row(("readonly",), -3, ("RO:1",)),
        "X": script.Row(("readonly",), 2, ("RO:1",)),
    }
    older = {
        "XINFO": script.Row(("readonly",), -2, ("RO:2",)),
        "ZRANK": script.Row(("readonly",), 3, ("RO:1",)),
        "X": script.Row(("write",), 2, ("RW:1",)),
        "GONE": script.Row(("readonly",), 2, ("RO:1",)),
    }
    assert script.merge(newer, older) == {
        "XINFO": newer["XINFO"],
        "ZRANK": newer["ZRANK"],
        "X": script.Row(("write",), 2, ("RO:1",)),
        "GONE": older["GONE"],
    }


# Keys, against COMMAND GETKEYS


def test_keys_of_reads_are_those_that_the_server_names(connect: Connect) -> None:
    other = connect()
    for read in known_to(other, READS):
        assert list(cacheable_keys(read) or ()) == named_by(other, read), read
        assert written_keys(read) == ()
        assert is_read_only(read)
        assert why_not_cacheable(read) is None


def test_keys_of_writes_are_those_that_the_server_says_it_may_write(
    server: EmbeddedServer, connect: Connect
) -> None:
    other = connect()
    for write in known_to(other, WRITES):
        keys = written_keys(write)
        assert keys is not None, write
        assert cacheable_keys(write) is None
        if server.version < (7,):
            named = named_by(other, write)
            assert {*keys} <= {*named}, write
            assert keys or named == [write[1]]
            continue
        access = dict(other("COMMAND", "GETKEYSANDFLAGS", *write))
        may_be_written = {key for key, flags in access.items() if {*flags} & {b"RW", b"OW", b"RM"}}
        assert may_be_written <= {*keys} <= {*access}, write


def test_no_cacheable_reply_is_called_nondeterministic_by_the_server(connect: Connect) -> None:
    for name, *_, tips, _specs, _subcommands in (
        entry
        for entry in connect()("COMMAND")
        if len(entry) == 10  # 6.2 has no tips
    ):
        if b"nondeterministic_output" in tips:
            assert name.upper() not in {read[0] for read in READS}


# Behaviour: tracked, and announced


def test_each_cacheable_read_is_tracked_by_all_its_keys_and_no_others(connect: Connect) -> None:
    reader, writer = connect(), connect()
    track(reader)
    answered = set()
    for read in known_to(writer, READS):
        prepare(writer)
        announced_to(reader)
        if isinstance(reader.ask_all([read])[0], resp.ReplyError):
            continue  # a form that is too new for this server
        answered.add(read[0])
        writer.ask_all([(b"SET", key, b"changed") for key in KEYS])
        assert announced_to(reader) == {*(cacheable_keys(read) or ())}, read
    assert answered == {read[0] for read in known_to(writer, READS)}


def test_no_write_changes_a_cacheable_reply_without_announcing_it(
    server: EmbeddedServer, connect: Connect
) -> None:
    reader, writer = connect(), connect()
    track(reader)
    dumps = [(b"DUMP", key) for key in KEYS]
    reads = known_to(writer, READS)
    if server.version > (7,):
        writer("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    unchanged = {*reads}
    for write in known_to(writer, WRITES):
        prepare(writer)
        write = spell_out(writer, write)
        values_before = writer.ask_all(dumps)
        announced_to(reader)
        before = reader.ask_all(reads)

        (reply,) = writer.ask_all([write])
        assert not isinstance(reply, resp.ReplyError) or write[0] in FAIL_HERE, (write, reply)

        announced = announced_to(reader)
        after = reader.ask_all(reads)
        for read, old, new in zip(reads, before, after, strict=True):
            cached = not isinstance(old, resp.ReplyError)
            if cached and old != new and write[0] not in SILENT:
                unchanged.discard(read)
                assert announced & {*(cacheable_keys(read) or ())}, (write, read)

        values_after = writer.ask_all(dumps)
        changed = {
            key
            for key, old, new in zip(KEYS, values_before, values_after, strict=True)
            if old != new
        }
        assert changed <= {*(written_keys(write) or ())}, write

    # And no read has passed by never changing, unless its form is too new for this server.
    replies = reader.ask_all(unchanged)
    assert all(isinstance(reply, resp.ReplyError) for reply in replies), unchanged


@pytest.mark.parametrize(
    ("refused", "write"),
    [
        ("XPENDING stream group", "XACK stream group 1-1"),
        ("XINFO GROUPS stream", "XREADGROUP GROUP group consumer STREAMS stream >"),
        ("DUMP stream", "XGROUP DESTROY stream group"),
        ("SORT_RO list BY weight_*", "MSET weight_a 3 weight_b 2 weight_c 1"),
    ],
)
def test_refused_read_does_change_in_silence(connect: Connect, refused: str, write: str) -> None:
    reader, writer = connect(), connect()
    prepare(writer)
    track(reader)
    if not known_to(writer, [vector(refused)]):
        return  # SORT_RO is new in 7.0
    assert cacheable_keys(vector(refused)) is None
    before = reader(*vector(refused))
    writer(*vector(write))
    assert announced_to(reader) == set()
    assert reader(*vector(refused)) != before


def test_blocked_move_announces_its_target_when_it_is_served(connect: Connect) -> None:
    # The one who pushes names the source only; the target changes at the same moment.
    reader, blocked, pusher = connect(), connect(), connect()
    track(reader)
    assert reader("LRANGE", "target", 0, -1) == []
    blocked.send("BLMOVE", "source", "target", "LEFT", "LEFT", 5)
    while not pusher("INFO", "clients").count(b"blocked_clients:1"):
        pass
    pusher("RPUSH", "source", "x")
    assert blocked.read() == b"x"
    assert announced_to(reader) == {b"target"}


# Odd forms, row by row


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("get k", "k"),
        ("gEt k", "k"),
        ("MGET a b a", "a b a"),
        ("XREAD STREAMS STREAMS 0", "STREAMS"),
        ("xread count 1 streams block 0", "block"),
        ("XREAD STREAMS a b 1 1-1", "a b"),
        ("ZUNION 1 WEIGHTS WEIGHTS 2", "WEIGHTS"),
        ("SINTERCARD 2 a b LIMIT 1", "a b"),
        ("LCS a b IDX", "a b"),
        ("SORT_RO k LIMIT 0 5 ALPHA", "k"),
        ("SORT_RO BY", "BY"),
    ],
)
def test_cacheable_keys(command: str, keys: str) -> None:
    assert cacheable_keys(vector(command)) == vector(keys)
    assert why_not_cacheable(vector(command)) is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("TTL k", "TTL counts down, with no change of its key"),
        ("srandmember k", "SRANDMEMBER picks at random"),
        ("OBJECT ENCODING k", "OBJECT ENCODING shows how the value is stored"),
        ("XINFO STREAM s", "XINFO STREAM shows consumer groups"),
        ("SORT_RO k BY nosort", "SORT_RO with BY or GET reads keys that it does not name"),
        ("SORT_RO k get other_*", "SORT_RO with BY or GET"),
        ("XREAD BLOCK 0 STREAMS s 0", "XREAD with BLOCK waits"),
        ("XREAD STREAMS s $", "XREAD with an id such as $ or +"),
        ("XREAD STREAMS s +", "XREAD with an id such as $ or +"),
        ("EVAL_RO return 1 k", "EVAL_RO may read keys it did not declare"),
        ("FCALL f 1 k", "FCALL may read keys it did not declare"),
        ("SET k v", "SET is a write, so the server does not track its keys"),
        ("GETEX k", "GETEX is a write"),
        ("GEORADIUS k 1 2 3 m", "GEORADIUS is a write"),
        ("PING", "PING is not flagged as a read"),
        ("DBSIZE", "DBSIZE names no key"),
        ("KEYS *", "KEYS names no key"),
        ("GET", "GET has the wrong number of arguments"),
        ("GET a b", "GET has the wrong number of arguments"),
        ("ZUNION x a", "ZUNION does not say which keys it reads"),
        ("ZUNION 3 a b", "ZUNION does not say which keys it reads"),
        ("ZUNION 0 a", "ZUNION does not say which keys it reads"),
        ("ZUNION -1 a", "ZUNION does not say which keys it reads"),
        ("ZUNION 01 a", "ZUNION does not say which keys it reads"),
        ("ZUNION 99999999999999999999 a", "ZUNION does not say which keys it reads"),
        (f"ZUNION {'9' * 9999} a", "ZUNION does not say which keys it reads"),
        ("XREAD COUNT 1 a 0", "XREAD does not say which keys it reads"),
        ("XREAD STREAMS a b 0", "XREAD does not say which keys it reads"),
        ("XREAD COUNT 1 STREAMS", "XREAD does not say which keys it reads"),
        ("AUHT password", "'AUHT' is not in the table of commands"),
        ("JSON.GET k", "'JSON.GET' is not in the table of commands"),
        ("XINFO NOSUCH k", "'XINFO NOSUCH' is not in the table of commands"),
        ("", "'' is not in the table of commands"),
    ],
)
def test_not_cacheable_and_why(command: str, reason: str) -> None:
    assert cacheable_keys(vector(command)) is None
    assert str(why_not_cacheable(vector(command))).startswith(reason)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("set k v", "k"),
        ("MSET a 1 b 2 c 3", "a b c"),
        ("MSETEX 2 a 1 b 2 EX 10", "a b"),
        ("DEL a b a", "a b a"),
        ("RENAME a b", "a b"),
        ("COPY a b", "b"),
        ("SMOVE a b member", "a b"),
        ("BITOP OR d a b", "d"),
        ("ZUNIONSTORE d 2 a b", "d"),
        ("LMPOP 2 a b LEFT", "a b"),
        ("BLPOP a b 0", "a b"),
        ("SORT k BY w_* LIMIT 0 5 GET # STORE d", "d"),
        ("SORT k store d STORE e", "d e"),
        ("GEORADIUS k 1 2 3 m STOREDIST d", "d"),
        ("GEORADIUS STORE 1 2 3 m STORE STORE", "STORE"),
        ("XREADGROUP GROUP STREAMS c STREAMS a b > 0", "a b"),
        ("XGROUP CREATE s g $", "s"),
        ("xgroup create s g $", "s"),
        ("MIGRATE host 1 k 0 10", "k"),
        ("MIGRATE host 1  0 10 AUTH pass KEYS a b", "a b"),
        ("MIGRATE host 1  0 10", ""),
        ("EVAL return 2 a b argument", "a b"),
        ("FCALL f 1 a", "a"),
        ("PFCOUNT a b", "a b"),
        ("RESTORE k 0 payload", "k"),
    ],
)
def test_written_keys(command: str, keys: str) -> None:
    assert written_keys(vector(command)) == vector(keys)


@pytest.mark.parametrize(
    "command",
    vectors("""
GET k
get
TTL k
SORT k
SORT_RO k BY x
GEORADIUS k 1 2 3 m
EVAL return 0
EVAL_RO return 1 k
FCALL_RO f 1 k
XINFO STREAM s
WATCH a b
MULTI
EXEC
PING
CLIENT TRACKING ON
CONFIG SET maxmemory 1
SCRIPT FLUSH
FUNCTION LOAD code
FUNCTION FLUSH
COMMAND
SPUBLISH channel message
SSUBSCRIBE channel
PUBLISH channel message
KEYS *
OBJECT HELP
"""),
)
def test_changes_no_key(command: Vector) -> None:
    assert written_keys(command) == ()


@pytest.mark.parametrize(
    "command",
    vectors("""
FLUSHALL
flushdb ASYNC
SWAPDB 0 1
DEBUG RELOAD
REPLICAOF host 1
SLAVEOF NO ONE
FAILOVER
RESET
MODULE LOAD /m.so
CLUSTER FLUSHSLOT 1
CLUSTER RESET HARD
JSON.SET k $ 1
CLIENT NOSUCH
CLIENT
CLIENT|KILL a b
SET k
DEL
LMPOP x a LEFT
LMPOP 3 a LEFT
EVAL return
EVAL return -1
EVAL return x k
EVAL return 2 k
ZUNIONSTORE d x a
XREADGROUP GROUP g c STREAMS a b >
XREADGROUP GROUP g c COUNT 1 a >
MIGRATE host 1  0 10 KEYS
"""),
)
def test_may_change_any_key(command: Vector) -> None:
    assert written_keys(command) is None


def test_container_and_subcommand_are_two_words() -> None:
    assert find_command((b"client", b"tracking")) is not None
    assert find_command((b"client tracking",)) is None
    assert find_command((b"CLIENT|TRACKING",)) is None


def test_scripts() -> None:
    for name in ("EVAL", "evalsha", "FCALL", "EVAL_RO", "EVALSHA_RO", "fcall_ro"):
        assert is_script(vector(f"{name} x 0"))
    assert not is_script(vector("SCRIPT LOAD x"))
    assert not is_script(vector("EVALUATE x 0"))
    assert not is_script(())


def test_may_block() -> None:
    for command in vectors("BLPOP a 0\nWAIT 1 0\nXREAD block 0 STREAMS s $\nBZMPOP 0 1 a MIN"):
        assert may_block(command)
    for command in vectors("LPOP a\nXREAD STREAMS s 0\nXREAD STREAMS block 0\nNOSUCH"):
        assert not may_block(command)


def test_read_only_is_what_the_server_flags() -> None:
    assert is_read_only(vector("GET k"))
    assert is_read_only(vector("SCAN 0"))
    for command in vectors("GETEX k\nSORT k\nPING\nEVAL return 0\nNOSUCH"):
        assert not is_read_only(command)


def test_many_spellings_of_names_are_not_all_remembered() -> None:
    for number in range(5000):
        name = "".join(
            letter.lower() if number >> index & 1 else letter
            for index, letter in enumerate("GEORADIUSBYMEMBER_RO")
        )
        assert cacheable_keys((name.encode(), b"k", b"m", b"1", b"km")) == (b"k",)
        find_command((b"unknown%d" % number,))
    assert len(_commands._spelled) <= _commands._MAX_SPELLINGS


# Any vector at all

words = st.sampled_from(
    b"0 1 2 3 -1 $ > a b STREAMS BLOCK STORE STOREDIST KEYS COUNT BY GET GROUP LIMIT".split()
)
names = st.sampled_from([name.split(b" ") for name in _command_table.COMMANDS])
likely = st.builds(
    lambda name, arguments: (*name, *arguments), names, st.lists(st.one_of(words, st.binary()))
)
anything = st.lists(st.binary()).map(tuple)


@given(st.one_of(likely, anything))
def test_any_vector_is_answered_from_its_own_words(command: Vector) -> None:
    cacheable, written = cacheable_keys(command), written_keys(command)
    assert {*(cacheable or ()), *(written or ())} <= {*command[1:]}
    assert cacheable != ()
    assert (cacheable is None) == (why_not_cacheable(command) is not None)
    if cacheable is not None:
        assert written == ()
        assert is_read_only(command)
        assert not is_script(command)
        assert not may_block(command)


@given(likely)
def test_case_of_the_name_does_not_matter(command: Vector) -> None:
    small = (command[0].lower(), *command[1:])
    assert cacheable_keys(small) == cacheable_keys(command)
    assert written_keys(list(small)) == written_keys(command)
    assert (why_not_cacheable(small) is None) == (why_not_cacheable(command) is None)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(b"0", float("inf")), (b"0.5", 0.5), (b"-1", 0.0), (b"nan", 0.0), (b"soon", 0.0)],
)
def test_time_out_that_the_server_refuses_is_not_waited_for(timeout: bytes, seconds: float) -> None:
    assert blocks_for((b"BRPOP", b"list", timeout)) == seconds
