"""A model of the server: the keyspace, CLIENT TRACKING, and when what is written to whom.

It follows tracking.c of Redis 6.2 and of 7.0 (Valkey 8.1 is like 7.0), cycle by cycle: a cycle
reads connections, runs their commands, announces what was broadcast, writes. Of keys it knows
strings, lists, hashes and sets as immutable Python values, and keeps every version of each with
the time of its birth. `tests/test_simulation.py` plays the same scripts to it and to real servers.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import resp

from ._world import Wire, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Value: TypeAlias = "bytes | tuple[Any, ...] | frozenset[Any] | None"
"""A string is bytes, a list a tuple of bytes, a hash a tuple of pairs, a set a frozenset."""

WRONG_TYPE = b"WRONGTYPE Operation against a key holding the wrong kind of value"
NEVER = float("inf")


class Version(NamedTuple):
    """What a key held, from when on, by whose hand, and when it was to expire."""

    value: Value
    born: float
    writer: str
    command: tuple[bytes, ...]
    expires: float = NEVER


class Refused(Exception):
    """An error reply."""


def _string(value: Value) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        raise Refused(WRONG_TYPE)
    return value


def _list(value: Value) -> tuple[bytes, ...]:
    if value is not None and not (isinstance(value, tuple) and value[:1] == (b"list",)):
        raise Refused(WRONG_TYPE)
    return value[1:] if value else ()


def _hash(value: Value) -> dict[bytes, bytes]:
    if value is not None and not (isinstance(value, tuple) and value[:1] == (b"hash",)):
        raise Refused(WRONG_TYPE)
    return dict(value[1:]) if value else {}


def _set(value: Value) -> frozenset[bytes]:
    if value is not None and not isinstance(value, frozenset):
        raise Refused(WRONG_TYPE)
    return value if value is not None else frozenset()


READS: Mapping[bytes, Callable[[Sequence[bytes]], Sequence[bytes]]] = {
    b"GET": lambda words: words[1:2],
    b"STRLEN": lambda words: words[1:2],
    b"MGET": lambda words: words[1:],
    b"LRANGE": lambda words: words[1:2],
    b"HGET": lambda words: words[1:2],
    b"HGETALL": lambda words: words[1:2],
    b"SUNION": lambda words: words[1:],
    b"SINTERCARD": lambda words: words[2 : 2 + int(words[1])],
}
"""The reads and the keys that they name: the model's own list, not the client's."""


def evaluate(words: Sequence[bytes], get: Callable[[bytes], Value]) -> Any:
    """Give a read's reply as the client decodes it in RESP3, from what its keys hold.

    Raises:
        Refused: an error reply.
    """
    name = words[0].upper()
    if name == b"GET":
        return _string(get(words[1]))
    if name == b"STRLEN":
        return len(_string(get(words[1])) or b"")
    if name == b"MGET":
        values = [get(key) for key in words[1:]]
        return [value if isinstance(value, bytes) else None for value in values]
    if name == b"LRANGE":
        return list(_list(get(words[1])))
    if name == b"HGET":
        return _hash(get(words[1])).get(words[2])
    if name == b"HGETALL":
        return _hash(get(words[1]))
    sets = [_set(get(key)) for key in READS[name](words)]
    if name == b"SUNION":
        return set(frozenset().union(*sets))
    return len(frozenset.intersection(*sets))


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, server: Server, number: int, owner: str, out: Wire | None) -> None:
        self.server = server
        self.id = number
        self.owner = owner
        self.out = out
        self.protocol = 2
        self.parser = resp.Parser()
        self.input: deque[list[bytes]] = deque()
        self.output: list[bytes] = []
        self.name = f"{owner}#{number}"
        self.queued: list[list[bytes]] | None = None
        self.subscribed: set[bytes] = set()
        self.closed = False
        self.untracked()

    def untracked(self) -> None:
        """Be as a connection that has asked for no tracking."""
        self.tracking = False
        self.bcast = self.optin = self.optout = self.noloop = self.broken = False
        self.redirect = 0
        self.caching: bool | None = None
        self.prefixes: tuple[bytes, ...] = ()

    def arrive(self, data: bytes) -> None:
        """Take bytes from the wire; b"" is the end."""
        if self.closed:
            return
        if not data:
            self.server.close(self)
            return
        self.input.extend(self.parser.feed_all(data))
        if self.input:
            self.server.wake(self)

    def reply(self, value: Any) -> None:
        """Write a reply in the connection's protocol."""
        self.output.append(resp.encode(value, protocol=self.protocol))

    def raw(self, data: bytes) -> None:
        """Write bytes."""
        self.output.append(data)


class Server:
    """The model.

    Args:
        world: where it runs.
        early: announce a client's own writes before their reply, inside arrays too, as 6.2 does;
            7.0 and later do it after the command's reply.
        table: `tracking-table-max-keys`; 0 for no limit.
        active_expiry: whether keys are deleted soon after their time is up, or when touched.
    """

    def __init__(
        self, world: World, *, early: bool = False, table: int = 0, active_expiry: bool = True
    ) -> None:
        self.world = world
        self.early = early
        self.table_size = table
        self.active_expiry = active_expiry
        self.history: dict[bytes, list[Version]] = {}
        self.peers: dict[int, Peer] = {}
        self.table: dict[bytes, dict[int, None]] = {}
        self.broadcast: dict[bytes, int] = {}  # the keys of this cycle and who wrote them last
        self.run_id = b"run-0"
        self.runs = 0
        self.paused_until = 0.0
        self.commands: dict[str, int] = {}  # data commands by owner
        self._ids = 0
        self._ready: dict[Peer, None] = {}
        self._cycling = False
        self._current: Peer | None = None
        self._pending: list[tuple[Peer, list[bytes] | None]] = []

    # Connections.

    def accept(self, owner: str, out: Wire | None) -> Peer:
        """Have a new connection."""
        self._ids += 1
        peer = Peer(self, self._ids, owner, out)
        self.peers[peer.id] = peer
        return peer

    def close(self, peer: Peer) -> None:
        """End a connection; its tracking ends with it, without a word to anybody."""
        if peer.closed:
            return
        peer.closed = True
        self.peers.pop(peer.id, None)
        self._ready.pop(peer, None)
        if peer.out is not None:
            peer.out.send(b"")

    def restart(self) -> None:
        """Lose every connection and the tracking table, keep the data."""
        for peer in tuple(self.peers.values()):
            self.close(peer)
        self.table.clear()
        self.broadcast.clear()
        self._ids = 0
        self.runs += 1
        self.run_id = b"run-%d" % self.runs

    # Cycles.

    def wake(self, peer: Peer) -> None:
        """Note that a connection has something to say."""
        self._ready[peer] = None
        if not self._cycling:
            self._cycling = True
            when = max(self.world.now, self.paused_until)
            self.world.at(when, self.cycle)

    def cycle(self) -> None:
        """Read, run, announce, write: one turn of the server's loop."""
        if self.world.now < self.paused_until:
            self.world.at(self.paused_until, self.cycle)
            return
        self._cycling = False
        ready = list(self._ready)
        self._ready.clear()
        while ready:
            peer = ready.pop(self.world.choices.pick(len(ready)) if len(ready) > 1 else 0)
            while peer.input and not peer.closed:
                self.serve(peer, [bytes(word) for word in peer.input.popleft()])
        self.before_sleep()

    def before_sleep(self) -> None:
        """Announce what is broadcast, keep the table small, write everything."""
        if self.broadcast:
            self._broadcast()
        if self.table_size:
            self._shrink_table()
        for peer in tuple(self.peers.values()):
            if peer.output and peer.out is not None:
                data = b"".join(peer.output)
                peer.output.clear()
                peer.out.send(data)

    def foreign(self, *words: bytes) -> None:
        """Have somebody else's command run now, in a cycle of its own."""
        if self.world.now < self.paused_until:
            self.world.at(self.paused_until, lambda: self.foreign(*words))
            return
        writer = Peer(self, 0, "stranger", None)
        self.world.tell(f"stranger: {shown(words)}")
        self.serve(writer, list(words))
        self.before_sleep()

    # Commands.

    def serve(self, peer: Peer, words: list[bytes]) -> None:
        """Run one command and write its reply, and around it what it announces."""
        name = words[0].upper()
        if peer.queued is not None and name not in (b"EXEC", b"DISCARD", b"MULTI"):
            peer.queued.append(words)
            peer.raw(b"+QUEUED\r\n")
            return
        caching = peer.caching
        self._current = peer
        try:
            reads = self._run(peer, words, name)
        except Refused as refusal:
            peer.raw(b"-%b\r\n" % refusal.args[0])
            reads = READS[name](words) if name in READS else ()
        if reads:
            self._remember(peer, reads)
        if self.table_size:
            self._shrink_table()
        # CACHING covers the next command, and a whole transaction where that is MULTI.
        if peer.queued is None and name != b"CLIENT" and caching is not None:
            peer.caching = None
        self._current = None
        pending, self._pending = self._pending, []
        for target, keys in pending:
            self._push(target, keys)

    def _run(self, peer: Peer, words: list[bytes], name: bytes) -> Sequence[bytes]:
        """Run a command; give the keys that it is tracked for."""
        if name in READS:
            self.commands[peer.owner] = self.commands.get(peer.owner, 0) + 1
            keys = READS[name](words)
            for key in keys:
                self._expire(key, touched=True)
            peer.reply(evaluate(words, self.get))
            return keys
        handler = _HANDLERS.get(name)
        if handler is None:
            raise Refused(b"ERR unknown command '%b'" % words[0])
        handler(self, peer, words)
        return ()

    def _remember(self, peer: Peer, keys: Sequence[bytes]) -> None:
        if not peer.tracking or peer.bcast:
            return
        if (peer.optin and not peer.caching) or (peer.optout and peer.caching is False):
            return
        for key in keys:
            self.table.setdefault(key, {})[peer.id] = None

    # The keyspace.

    def get(self, key: bytes) -> Value:
        """Give what a key holds now."""
        versions = self.history.get(key)
        return versions[-1].value if versions else None

    def put(
        self,
        key: bytes,
        value: Value,
        words: Sequence[bytes],
        expires: float = NEVER,
        *,
        expiry: bool = False,
    ) -> None:
        """Change a key, and announce it; an expiry is nobody's write."""
        writer = None if expiry else self._current
        owner = writer.owner if writer is not None else "expiry"
        born = self.world.now
        self.history.setdefault(key, [Version(None, 0.0, "", ())]).append(
            Version(value, born, owner, tuple(words), expires)
        )
        if expires < NEVER and self.active_expiry:
            late = 0.016 + 0.02 * self.world.choices.pick(6)
            self.world.at(expires + late, self._expire_now, key)
        self._changed(key, writer)

    @property
    def will_expire(self) -> bool:
        """Whether a key is still to be expired, and announced, by the server's own cycle."""
        latest = [versions[-1] for versions in self.history.values()]
        return self.active_expiry and any(
            each.value is not None and each.expires < NEVER for each in latest
        )

    def _expire_now(self, key: bytes) -> None:
        if self._expire(key):
            self.before_sleep()

    def _expire(self, key: bytes, touched: bool = False) -> bool:
        versions = self.history.get(key)
        if not versions or versions[-1].value is None or versions[-1].expires > self.world.now:
            return False
        self.world.tell(f"server: {shown((key,))} expires{', touched' if touched else ''}")
        self.put(key, None, (b"(expiry)",), expiry=True)
        return True

    def _changed(self, key: bytes, writer: Peer | None) -> None:
        current = self._current
        if any(peer.bcast for peer in self.peers.values()):
            self.broadcast[key] = writer.id if writer is not None else 0
        ids = self.table.pop(key, None)
        for number in ids or ():
            peer = self.peers.get(number)
            if peer is None or not peer.tracking or peer.bcast:
                continue
            if peer.noloop and peer is current:
                continue  # and the registration is gone all the same
            self._announce(peer, [key])

    def _flush_all(self) -> None:
        current = self._current
        for key in tuple(self.history):
            if self.get(key) is not None:
                self.history[key].append(
                    Version(
                        None,
                        self.world.now,
                        current.owner if current is not None else "",
                        (b"FLUSHALL",),
                    )
                )
        for peer in tuple(self.peers.values()):
            if peer.tracking:
                self._announce(peer, None)
        self.table.clear()

    def _announce(self, peer: Peer, keys: list[bytes] | None) -> None:
        if peer is self._current and not self.early:
            self._pending.append((peer, keys))
        else:
            self._push(peer, keys)

    def _push(self, peer: Peer, keys: list[bytes] | None) -> None:
        """Tell one client, in the dialect that it reads, or whom it redirects to."""
        null = b"_\r\n" if peer.protocol == 3 else b"*-1\r\n"
        payload = null if keys is None else resp.encode(keys, protocol=2)
        target = peer
        if peer.redirect:
            found = self.peers.get(peer.redirect)
            if found is None:
                peer.broken = True
                if peer.protocol == 3:
                    self._write(
                        peer, b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % peer.redirect
                    )
                return
            target = found
        if target.protocol == 3:
            self._write(target, b">2\r\n$10\r\ninvalidate\r\n" + payload)
        elif peer.redirect and b"__redis__:invalidate" in target.subscribed:
            self._write(target, b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n" + payload)

    def _write(self, peer: Peer, data: bytes) -> None:
        peer.output.append(data)

    def _broadcast(self) -> None:
        keys, self.broadcast = self.broadcast, {}
        for peer in tuple(self.peers.values()):
            if not peer.bcast:
                continue
            for prefix in peer.prefixes:
                told = [
                    key
                    for key, writer in keys.items()
                    if key.startswith(prefix) and not (peer.noloop and writer == peer.id)
                ]
                if told:
                    self._push(peer, told)

    def _shrink_table(self) -> None:
        while len(self.table) > self.table_size:
            key = tuple(self.table)[self.world.choices.pick(len(self.table))]
            for number in self.table.pop(key):
                peer = self.peers.get(number)
                if peer is None or not peer.tracking or peer.bcast:
                    continue
                if not (peer.noloop and peer is self._current):
                    self._announce(peer, [key])


def shown(words: Sequence[Any]) -> str:
    """Give a command for a reader."""
    texts = (word.decode("latin-1") if isinstance(word, bytes) else str(word) for word in words)
    return " ".join(text.encode("unicode_escape").decode() for text in texts)


# The commands that are no reads.


def _hello(server: Server, peer: Peer, words: list[bytes]) -> None:
    if len(words) > 1:
        if words[1] not in (b"2", b"3"):
            raise Refused(b"NOPROTO unsupported protocol version")
        peer.protocol = int(words[1])
    pairs = {b"server": b"model", b"version": b"7", b"proto": peer.protocol, b"id": peer.id}
    peer.reply(pairs)


def _client(server: Server, peer: Peer, words: list[bytes]) -> None:
    what = words[1].upper()
    if what == b"ID":
        peer.reply(peer.id)
    elif what == b"SETNAME":
        peer.raw(b"+OK\r\n")
    elif what == b"CACHING":
        if not peer.tracking or not (peer.optin or peer.optout):
            raise Refused(b"ERR CLIENT CACHING can be called only when the client is in tracking")
        peer.caching = words[2].upper() == b"YES"
        peer.raw(b"+OK\r\n")
    elif what == b"GETREDIR":
        peer.reply(peer.redirect if peer.tracking else -1)
    elif what == b"TRACKING":
        _tracking(server, peer, [word.upper() for word in words[2:]], words[2:])
    else:
        raise Refused(b"ERR unknown subcommand")


def _tracking(server: Server, peer: Peer, names: list[bytes], words: list[bytes]) -> None:
    if names[0] == b"OFF":
        peer.untracked()
        peer.raw(b"+OK\r\n")
        return
    redirect, prefixes, flags = 0, [], set()
    at = 1
    while at < len(names):
        if names[at] == b"REDIRECT":
            at += 1
            redirect = int(words[at])
            if redirect not in server.peers:
                raise Refused(b"ERR The client ID you want redirect to does not exist")
        elif names[at] == b"PREFIX":
            at += 1
            prefixes.append(words[at])
        else:
            flags.add(names[at])
        at += 1
    peer.untracked()
    peer.tracking = True
    peer.redirect = redirect
    peer.bcast = b"BCAST" in flags
    peer.optin = b"OPTIN" in flags
    peer.optout = b"OPTOUT" in flags
    peer.noloop = b"NOLOOP" in flags
    peer.prefixes = tuple(prefixes) or (b"",)
    peer.raw(b"+OK\r\n")


def _info(server: Server, peer: Peer, words: list[bytes]) -> None:
    peer.reply(b"# Server\r\nrun_id:%b\r\n" % server.run_id)


def _ping(server: Server, peer: Peer, words: list[bytes]) -> None:
    if peer.subscribed and peer.protocol == 2:
        peer.reply([b"pong", b""])
    else:
        peer.raw(b"+PONG\r\n")


def _subscribe(server: Server, peer: Peer, words: list[bytes]) -> None:
    for channel in words[1:]:
        peer.subscribed.add(channel)
        frame: list[Any] = [b"subscribe", channel, len(peer.subscribed)]
        peer.reply(resp.Push(frame) if peer.protocol == 3 else frame)


def _set_string(server: Server, peer: Peer, words: list[bytes]) -> None:
    expires = NEVER
    if len(words) > 3:
        expires = server.world.now + int(words[4]) / 1000
    server.put(words[1], words[2], words, expires)
    peer.raw(b"+OK\r\n")


def _mset(server: Server, peer: Peer, words: list[bytes]) -> None:
    for key, value in zip(words[1::2], words[2::2], strict=True):
        server.put(key, value, words)
    peer.raw(b"+OK\r\n")


def _del(server: Server, peer: Peer, words: list[bytes]) -> None:
    count = 0
    for key in words[1:]:
        server._expire(key)
        if server.get(key) is not None:
            server.put(key, None, words)
            count += 1
    peer.reply(count)


def _rpush(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._expire(words[1])
    members = (*_list(server.get(words[1])), words[2])
    server.put(words[1], (b"list", *members), words)
    peer.reply(len(members))


def _sadd(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._expire(words[1])
    members = _set(server.get(words[1]))
    new = words[2] not in members
    if new:
        server.put(words[1], members | {words[2]}, words)
    peer.reply(int(new))


def _hset(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._expire(words[1])
    fields = _hash(server.get(words[1]))
    new = words[2] not in fields
    fields[words[2]] = words[3]
    server.put(words[1], (b"hash", *fields.items()), words)
    peer.reply(int(new))


def _pttl(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._expire(words[1])
    versions = server.history.get(words[1])
    if not versions or versions[-1].value is None:
        peer.reply(-2)
    elif versions[-1].expires == NEVER:
        peer.reply(-1)
    else:
        peer.reply(int((versions[-1].expires - server.world.now) * 1000))
    server._remember(peer, words[1:2])


def _pexpire(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._expire(words[1])
    value = server.get(words[1])
    if value is not None:
        server.put(words[1], value, words, server.world.now + int(words[2]) / 1000)
    peer.reply(int(value is not None))


def _flush(server: Server, peer: Peer, words: list[bytes]) -> None:
    server._flush_all()
    peer.raw(b"+OK\r\n")


def _echo(server: Server, peer: Peer, words: list[bytes]) -> None:
    peer.reply(words[1])


def _eval(server: Server, peer: Peer, words: list[bytes]) -> None:
    """Write the key that the script's last argument names, declared or not."""
    server.put(words[-2], words[-1], words)
    peer.raw(b"$2\r\nOK\r\n")


def _multi(server: Server, peer: Peer, words: list[bytes]) -> None:
    if peer.queued is not None:
        raise Refused(b"ERR MULTI calls can not be nested")
    peer.queued = []
    peer.raw(b"+OK\r\n")


def _exec(server: Server, peer: Peer, words: list[bytes]) -> None:
    queued, peer.queued = peer.queued, None
    if queued is None:
        raise Refused(b"ERR EXEC without MULTI")
    output, peer.output = peer.output, []
    pending: list[tuple[Peer, list[bytes] | None]] = []
    caching = peer.caching
    for command in queued:
        peer.caching = caching
        before, server._pending = server._pending, []
        server._current = peer
        try:
            reads = server._run(peer, command, command[0].upper())
        except Refused as refusal:
            peer.raw(b"-%b\r\n" % refusal.args[0])
            reads = ()
        if reads:
            server._remember(peer, reads)
        pending += server._pending
        server._pending = before
    server._current = peer
    server._pending += pending  # after EXEC's reply; what is early stands inside it
    peer.output = [*output, b"*%d\r\n" % len(queued), *peer.output]


_HANDLERS: dict[bytes, Callable[[Server, Peer, list[bytes]], None]] = {
    b"HELLO": _hello,
    b"CLIENT": _client,
    b"INFO": _info,
    b"PING": _ping,
    b"SUBSCRIBE": _subscribe,
    b"SET": _set_string,
    b"MSET": _mset,
    b"DEL": _del,
    b"RPUSH": _rpush,
    b"SADD": _sadd,
    b"HSET": _hset,
    b"PTTL": _pttl,
    b"PEXPIRE": _pexpire,
    b"FLUSHALL": _flush,
    b"FLUSHDB": _flush,
    b"ECHO": _echo,
    b"EVAL": _eval,
    b"MULTI": _multi,
    b"EXEC": _exec,
}
