"""The bugs that other clients have, planted in ours, one at a time.

Each stands for a line of a list: what was found in the caching clients of the field, and what a
rule of the server's tracking breaks if it is forgotten. A mutant is a context manager; its
docstring says what goes wrong. `tests/test_simulation.py` shows that every one is found.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import client._asyncio
import client._cache
import client._calls
import client._commands
import client._connection
import client._handshake
import client._link
import client._listener
import client._memoize
import client._pool
import client._read
import client._session
import client._sync
import client._tracker
import client._tracking
from client import Cache, CommandTimeout, ConnectionClosed, Tracking
from client._cache import ALWAYS, MISS, Reservation
from client._connection import Connection
from client._pool import DataConnection, Pool
from client._session import Session
from client._tracker import Tracker
from resp import Push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Patch = tuple[Any, str, Any]
MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def mutant(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    """Register a mutant: a function that gives what it replaces."""

    @contextmanager
    def planted() -> Iterator[None]:
        with ExitStack() as stack:
            for target, name, replacement in make():
                stack.enter_context(patch.object(target, name, replacement))
            yield

    planted.__doc__ = make.__doc__
    MUTANTS[make.__name__.replace("_", " ")] = planted
    return make


# Where others fail.


@mutant
def waits_on_an_idle_socket() -> list[Patch]:
    """A reader finds another's placeholder and waits on its own idle connection."""

    def when_ended(self: Cache, reservation: Reservation, callback: object) -> bool:
        return reservation.gone is None

    return [(Cache, "when_ended", when_ended)]


@mutant
def error_leaves_its_placeholder() -> list[Patch]:
    """An error reply is neither stored nor given up: every later read of that key waits."""
    fill = Cache.fill

    def keep(self: Cache, reservation: Reservation, value: Any, ttl: float | None = None) -> bool:
        return False if isinstance(value, Exception) else fill(self, reservation, value, ttl)

    return [(Cache, "fill", keep), (Cache, "abandon", lambda self, reservation: None)]


@mutant
def flight_outlives_flushall() -> list[Patch]:
    """A value in flight is stored after FLUSHALL."""
    flush = Cache._flush

    def spare(self: Cache, reason: str) -> None:
        kept, self._reserved = self._reserved, {}
        flush(self, reason)
        for reservation in kept.values():
            self._reserved[reservation.command] = reservation
            for key in reservation.keys:
                self._link(key, reservation)

    return [(Cache, "_flush", spare)]


@mutant
def flush_is_an_empty_list() -> list[Patch]:
    """FLUSHALL's null is read as a list of no keys."""

    def announced_keys(push: Any) -> tuple[bytes, ...]:
        return client._handshake.announced_keys(push) or ()

    return [
        (module, "announced_keys", announced_keys)
        for module in (client._pool, client._listener, client._link)
    ]


@mutant
def key_without_all_arguments() -> list[Patch]:
    """The cache knows a command by its name and first argument: HGET f1 is served for f2."""
    place_of = client._read.place_of

    def short(command: Any) -> Any:
        return place_of(command[:2])

    get, find = Cache.get, Cache.find

    def cut(command: Any) -> Any:
        plain = isinstance(command, tuple) and command and command[0] in ("HGET", "SUNION")
        return command[:2] if plain else command

    return [
        (client._read, "place_of", short),
        (Cache, "get", lambda self, command: get(self, cut(command))),
        (Cache, "find", lambda self, command: find(self, cut(command))),
    ]


@mutant
def spellings_kept_apart() -> list[Patch]:
    """A key given as text is indexed as text, and no invalidation, which is bytes, finds it."""
    reserve = Cache.reserve

    def by_spelling(self: Cache, command: Any, keys: Any, epoch: int, source: Any = ALWAYS) -> Any:
        if isinstance(command, tuple) and len(command) == 2 and isinstance(command[1], str):
            keys = (command[1],)
        return reserve(self, command, keys, epoch, source)

    return [(Cache, "reserve", by_spelling)]


@mutant
def keys_that_collide_when_decoded() -> list[Patch]:
    """Binary keys are decoded with replacement characters, and two of them become one."""
    place_of: Any = client._read.place_of

    def decoded(command: Any) -> Any:
        return tuple(
            word.decode("utf-8", "replace") if isinstance(word, bytes) else word
            for word in place_of(command)
        )

    get, find = Cache.get, Cache.find

    def text(command: Any) -> Any:
        return decoded(command) if isinstance(command, tuple) and _is_command(command) else command

    return [
        (client._read, "place_of", decoded),
        (Cache, "get", lambda self, command: get(self, text(command))),
        (Cache, "find", lambda self, command: find(self, text(command))),
    ]


def _is_command(place: tuple[Any, ...]) -> bool:
    return all(isinstance(word, (str, bytes)) for word in place)


@mutant
def key_is_argument_one() -> list[Patch]:
    """The keys of commands with several keys, or with `numkeys`, are taken for argument 1."""
    cacheable_keys = client._commands.cacheable_keys

    def first(words: Any) -> Any:
        keys = cacheable_keys(words)
        return (words[1],) if keys and words[0].upper() != b"MGET" else keys

    return [(client._calls, "cacheable_keys", first)]


@mutant
def value_handed_out_by_reference() -> list[Patch]:
    """A cached list, set or dict is the caller's own, who changes it."""
    shape = client._cache._shape

    def uncopied(value: Any) -> Any:
        found = shape(value)
        return None if found is None else (found[0], None)

    return [(client._cache, "_shape", uncopied)]


@mutant
def falsy_value_is_a_miss() -> list[Patch]:
    """None and b"" are looked up again and again."""
    get, find = Cache.get, Cache.find

    def get_true(self: Cache, command: Any) -> Any:
        return get(self, command) or MISS

    def find_true(self: Cache, command: Any) -> Any:
        entry = find(self, command)
        return entry if entry is not None and entry.value else None

    return [(Cache, "get", get_true), (Cache, "find", find_true)]


@mutant
def invalidation_walks_the_cache() -> list[Patch]:
    """An invalidation looks at every entry."""
    invalidate = Cache.invalidate

    def walk(self: Cache, keys: Any, reason: str = "changed") -> None:
        if keys is not None:
            keys = tuple(keys)
            for entry in tuple(self._entries.values()):
                if set(entry.keys) & set(keys):
                    break
        invalidate(self, keys, reason)

    return [(Cache, "invalidate", walk)]


@mutant
def failed_leader_fails_those_who_wait() -> list[Patch]:
    """Whoever waits for another's fetch fails with it."""
    one = client._read.Read._hit

    def hit(self: Any, place: Any) -> Any:
        flight = self._cache.flight(place)
        entry = yield from one(self, place)
        if flight is None or entry is not None:
            return entry
        if (yield flight) and flight.gone == "abandoned":
            raise ConnectionClosed("the leader failed")
        return (yield from one(self, place))

    return [(client._read.Read, "_hit", hit)]


@mutant
def idle_pushes_are_not_read() -> list[Patch]:
    """The notifications are read when something else is, and not before."""
    poll_set: Any = client._listener.Listener._poll_set

    def without(self: Any, connection: Any, asker: Any) -> Any:
        poll, watched = poll_set(self, connection, asker)
        if self._connection is connection and connection._session.owed == 0:
            poll._wanted.pop(connection.fileno(), None)
        return poll, watched

    return [(client._listener.Listener, "_poll_set", without)]


@mutant
def inline_hit_without_hearing() -> list[Patch]:
    """On one connection a hit is served before what was pushed is read."""
    init = client._calls.Calls.__init__

    def deaf(self: Any, *args: Any, hear: bool) -> None:
        init(self, *args, hear=False)

    return [(client._calls.Calls, "__init__", deaf)]


# What the rules are for.


@mutant
def fill_without_its_reservation() -> list[Patch]:
    """A reply is stored although its key was invalidated while it was on its way."""
    fill = Cache.fill

    def late(self: Cache, reservation: Reservation, value: Any, ttl: float | None = None) -> bool:
        if reservation.gone is not None and reservation.command not in self._reserved:
            fresh = self.reserve(
                reservation.command, tuple(reservation.keys), self.epoch, reservation.source
            )
            if fresh is not None:
                reservation = fresh
        return fill(self, reservation, value, ttl)

    return [(Cache, "fill", late)]


@mutant
def reserved_after_sending() -> list[Patch]:
    """The place of a value is reserved when its reply is here, not before its command is sent."""
    fetch = client._read.Read._fetch

    def belated(self: Any, command: Any, wanted: Any) -> Any:
        cache = self._cache
        call = fetch(self, command, wanted)
        reply = None
        while True:
            try:
                step = call.send(reply)
            except StopIteration as end:
                return end.value
            reply = yield step
            if type(step) is list:
                # As if they had been made just now: what came in between is not seen.
                for place, keys in wanted:
                    gone = cache.flight(place)
                    if gone is None and keys:
                        fresh = cache.reserve(place, keys, cache.epoch)
                        if fresh is not None:
                            value = reply[-1]
                            if command[0] != b"MGET":
                                cache.fill(fresh, value)
                            else:
                                cache.abandon(fresh)

    return [(client._read.Read, "_fetch", belated)]


@mutant
def own_write_dropped_only_when_sent() -> list[Patch]:
    """What is written is dropped when the write is sent, and not when its reply is here."""

    def mutate(self: Any, batch: Any, counted: Any) -> Any:
        if self.cache is None:
            return (yield [*batch])
        self._spoil("it sent commands that are not cached")
        keys = self._touched(counted)
        if keys != ():
            self.cache.invalidate(keys, "own write")
        replies = yield [*batch]
        yield from self._hear_scripts(counted)
        return replies

    return [(client._calls.Calls, "_mutate", mutate)]


@mutant
def own_write_left_to_the_server() -> list[Patch]:
    """What is written is not dropped at all: the server will announce it."""

    def mutate(self: Any, batch: Any, counted: Any) -> Any:
        return (yield [*batch])

    return [(client._calls.Calls, "_mutate", mutate)]


@mutant
def noloop_in_default_mode() -> list[Patch]:
    """NOLOOP is asked for without BCAST: what expires in our own command is not announced."""
    return [(Tracking, "sound", lambda self: self)]


@mutant
def script_keys_forgotten() -> list[Patch]:
    """A script's undeclared keys are not dropped before it returns."""

    def nothing(self: Any, commands: Any) -> Any:
        return
        yield

    return [(client._calls.Calls, "_hear_scripts", nothing)]


@mutant
def inline_script_left_to_its_pushes() -> list[Patch]:
    """On one connection a script's writes are left to the pushes, which NOLOOP keeps back."""
    hear_scripts: Any = client._calls.Calls._hear_scripts

    def trust(self: Any, commands: Any) -> Any:
        if self._tracking.listener != "inline":
            yield from hear_scripts(self, commands)

    return [(client._calls.Calls, "_hear_scripts", trust)]


@mutant
def lost_channel_keeps_the_cache() -> list[Patch]:
    """The notifications are lost and come back, and the entries are still there."""

    def keep(self: Cache, reason: str, event: str = "reconnect") -> None:
        self.status = f"off: {reason}"

    def reopen(self: Cache, bound: float = float("inf"), proven: float = float("inf")) -> int:
        self._epochs = self._epoch = 1
        self._bound = bound
        self.prove(proven)
        self.status = "on"
        return 1

    return [(Cache, "close", keep), (Cache, "open", reopen)]


@mutant
def fill_across_epochs() -> list[Patch]:
    """A fill begun before the notifications were lost is stored after they came back."""
    clear = Cache._clear

    def spare(self: Cache, reason: str) -> None:
        kept = getattr(self, "_reserved", {})
        self._reserved = {}
        clear(self, reason)
        for reservation in kept.values():
            self._reserved[reservation.command] = reservation
            for key in reservation.keys:
                self._link(key, reservation)

    return [(Cache, "_clear", spare)]


@mutant
def dead_data_connection_keeps_its_entries() -> list[Patch]:
    """The server forgets what a connection has read when it ends; the cache does not."""
    return [(Cache, "end", lambda self, source: None)]


@mutant
def silent_link_is_trusted() -> list[Patch]:
    """No proof of life is asked for: a link that is dead without a word is believed for ever."""
    return [
        (client._listener, "FRESHNESS", 1e9),
        (client._tracker, "FRESHNESS", 1e9),
        (client._listener, "PING_INTERVAL", 1e6),
        (client._listener, "PING_TIMEOUT", 1e6),
        (client._asyncio, "FRESHNESS", 1e9),
        (client._asyncio, "PING_INTERVAL", 1e6),
        (client._asyncio, "PING_TIMEOUT", 1e6),
    ]


@mutant
def tracking_before_its_reply() -> list[Patch]:
    """Reads are cached on a connection that the server has not been asked to track."""

    def _track(self: Any, connection: Any, channel: Any, deadline: Any) -> bool:
        return True

    return [(Tracker, "_track", _track)]


@mutant
def caching_yes_before_pttl() -> list[Patch]:
    """In OPTIN mode CACHING YES stands before PTTL, which uses it up: the read is not tracked."""
    fetch = client._read.Read._fetch

    def swapped(self: Any, command: Any, wanted: Any) -> Any:
        call = fetch(self, command, wanted)
        reply = None
        while True:
            try:
                step = call.send(reply)
            except StopIteration as end:
                return end.value
            if type(step) is list and len(step) > 2 and step[-2][:2] == (b"CLIENT", b"CACHING"):
                order = [step[-2], *step[:-2], step[-1]]
                replies = yield order
                reply = [*replies[1:-1], replies[0], replies[-1]]
            else:
                reply = yield step

    return [(client._read.Read, "_fetch", swapped)]


@mutant
def optin_without_caching_yes() -> list[Patch]:
    """In OPTIN mode the read is sent without CACHING YES."""
    return [(client._read, "_CACHING_YES", (b"ECHO", b"yes"))]


@mutant
def prefixes_are_ignored() -> list[Patch]:
    """Keys outside the prefixes of a broadcast are cached, and nobody announces them."""
    return [(Tracking, "covers", lambda self, keys: True)]


@mutant
def life_is_endless() -> list[Patch]:
    """No maximum life, and no PTTL: what expires on a lazy server is served for ever."""
    fill = Cache.fill

    def forever(self: Cache, reservation: Reservation, value: Any, ttl: Any = None) -> bool:
        before, self.max_ttl = self.max_ttl, 1e9
        try:
            return fill(self, reservation, value, None)
        finally:
            self.max_ttl = before

    return [(Cache, "fill", forever)]


@mutant
def cache_without_bounds() -> list[Patch]:
    """Entries are never evicted, and placeholders not counted."""
    reserve, fill = Cache.reserve, Cache.fill

    def roomy(call: Any) -> Any:
        def wrapped(self: Cache, *args: Any) -> Any:
            before = self.max_entries, self.max_bytes
            self.max_entries, self.max_bytes = 10**9, 10**12
            try:
                return call(self, *args)
            finally:
                self.max_entries, self.max_bytes = before

        return wrapped

    return [(Cache, "reserve", roomy(reserve)), (Cache, "fill", roomy(fill))]


@mutant
def push_taken_for_a_reply() -> list[Patch]:
    """A push that stands before a reply is handed to the command."""

    def receive(self: Session, data: Any) -> list[Any]:
        values = self._parser.feed_all(data)
        results: list[Any] = []
        for value in values:
            if type(value) is Push and self.owed == 0:
                self._take_push(value, results)
            elif self.protocol == 2 and (message := self._as_push(value)) is not None:
                self._take_push(message, results)
            else:
                self._take_reply(value, results)
        return results

    return [(Session, "receive", receive)]


@mutant
def surplus_reply_is_used() -> list[Patch]:
    """A reply that nobody asked for is handed to the next command (redis-py 8.1 does)."""
    receive = Session.receive
    kept: dict[int, list[Any]] = {}

    def lenient(self: Session, data: Any) -> list[Any]:
        if self.owed == 0 and bytes(data[:1]) not in (b">", b""):
            self._sent += 1  # from now on every reply is one behind
            kept.setdefault(id(self), []).extend(receive(self, data))
            return []
        results = receive(self, data)
        return [*kept.pop(id(self), []), *results][: len(results)]

    return [(Session, "receive", lenient)]


@mutant
def timed_out_connection_is_used_again() -> list[Patch]:
    """A connection that still owes a reply goes back into the pool."""
    exchange = Connection._exchange

    def _exchange(self: Any, data: bytes, want: int, deadline: float | None) -> list[Any]:
        close = self.close
        try:
            self.close = lambda: None
            return exchange(self, data, want, deadline)
        except (CommandTimeout, KeyboardInterrupt):
            raise
        except BaseException:
            close()
            raise
        finally:
            del self.close

    return [(Connection, "_exchange", _exchange)]


@mutant
def child_keeps_the_parents_cache() -> list[Patch]:
    """A forked child serves what the parent cached."""
    return [(Cache, "after_fork", lambda self: None)]


@mutant
def child_uses_the_parents_sockets() -> list[Patch]:
    """A forked child writes into the connections of its parent."""
    return [(Pool, "after_fork", lambda self: None)]


@mutant
def waiting_holds_the_only_connection() -> list[Patch]:
    """Whoever waits for another's computation keeps the connection that it needs (found here)."""
    give_back = Pool.give_back
    wait_for = client._sync.wait_for
    held: dict[int, Any] = {}

    def keep(self: Pool, connection: DataConnection) -> None:
        frame = sys._getframe(1)
        if frame.f_code.co_name == "_carry" and "step" in frame.f_locals:
            step = frame.f_locals["step"]
            if isinstance(step, Reservation) and step.gone is None:
                held[id(step)] = (self, connection)
                return
        give_back(self, connection)

    def wait(cache: Cache, flight: Reservation, deadline: float | None) -> bool:
        try:
            return wait_for(cache, flight, deadline)
        finally:
            kept = held.pop(id(flight), None)
            if kept is not None:
                give_back(*kept)

    return [(Pool, "give_back", keep), (client._sync, "wait_for", wait)]


@mutant
def connection_leaks_when_the_listener_is_lost_early() -> list[Patch]:
    """The asyncio client brings itself up twice at once, and forgets one of them (found here)."""
    reconnect_soon: Any = client._asyncio.AsyncClient._reconnect_soon

    def at_once(self: Any) -> None:
        starting, self._starting = self._starting, False
        try:
            reconnect_soon(self)
        finally:
            self._starting = starting

    return [(client._asyncio.AsyncClient, "_reconnect_soon", at_once)]
