"""The cache: reserve, fill if still reserved, invalidate, flush.

The rule it keeps: a value is stored only if nothing was said against its keys between the moment
before its command could reach the server and the moment its reply was read. So a reader
*reserves* first; an invalidation, a flush or the loss of the notifications removes the
reservation; and a *fill* whose reservation is gone stores nothing. A value that was stored is
served until one of its keys is invalidated, its time is up, or the channel of the invalidations
can't be shown to be alive any more.

No I/O happens here and the clock is passed in, so that a blocking client, an event loop and a
simulation can share it. Every change takes one lock; a hit takes none.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from threading import Condition, Lock

from ._eviction import Node, Sieve
from ._frozen import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, TypeAlias

Copier: TypeAlias = "Callable[[Any], Any]"
InvalidationCallback: TypeAlias = "Callable[[tuple[bytes, ...] | None, str], object]"
"""Called with the raw keys, or None for all of them, and the reason."""


class _Miss:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISS"


MISS = _Miss()
"""What `Cache.get` returns for a miss: None, 0, b"" and [] are values."""

# An entry may take this share of `max_bytes` at most: one huge value must not empty the cache.
_LARGEST_SHARE = 8
# What an entry costs beside its key and value: the object, its rows in the entries and the index.
# Measured with tracemalloc at 100,000 entries on CPython 3.11 (`tests/test_cache.py` holds it).
_ENTRY_OVERHEAD = 190
_KEY_OVERHEAD = 90  # a row of the index and a place in the entry's keys, for each key
# A value nested deeper than this is handed out uncached: copying it would recurse too far.
_DEEPEST_COPY = 32
# Keys that an iterator holds for a slow reader before they become one "overflow".
_MAX_EVENTS = 10_000


class CacheStats(NamedTuple):
    """A snapshot of what the cache did.

    Attributes:
        hits, misses: reads served from the cache, and reads that asked for a reservation.
        fills: values stored.
        refused_fills: values not stored although they were read to be.
        refused_by: those by reason: "invalidated", "flushed", "connection lost", "error",
            "too big", "too deep", "expired", "full".
        waits: reads that waited for another's fetch of the same.
        invalidations: keys that were announced, whether they were held or not.
        dropped: entries that an announcement or a write of our own removed.
        evictions: entries that made room.
        expirations: entries whose time was up.
        flushes: how often everything was dropped.
        audits, stale: hits that were checked against the server, and those that were wrong.
        entries, reservations, bytes: what is held now; `bytes` is an estimate.
    """

    hits: int
    misses: int
    fills: int
    refused_fills: int
    refused_by: dict[str, int]
    waits: int
    invalidations: int
    dropped: int
    evictions: int
    expirations: int
    flushes: int
    audits: int
    stale: int
    entries: int
    reservations: int
    bytes: int


_COUNTED = (
    "misses", "fills", "waits", "invalidations", "dropped", "evictions", "expirations", "flushes",
    "audits", "stale",
)  # fmt: skip


class Invalidation(NamedTuple):
    """What `Cache.events` tells: the raw keys, or None for all of them, and the reason."""

    keys: tuple[bytes, ...] | None
    reason: str


class Source:
    """Where values were read: what the server tracks for it, it forgets when the source ends.

    Attributes:
        alive: False once the server may have forgotten. Hits look at it, so that the end of a
            connection costs nothing however much it has read.
    """

    __slots__ = ("alive",)

    def __init__(self) -> None:
        self.alive = True


ALWAYS = Source()
"""The source of what is announced whoever has read it: broadcast mode."""


class Reservation:
    """A promise of a value: the unique token that a fill must still hold.

    Attributes:
        gone: why it stands no more; None while it does.
    """

    __slots__ = ("command", "expires", "gone", "keys", "size", "source", "types", "waiters")

    def __init__(
        self, command: Hashable, keys: tuple[bytes, ...], source: Source, expires: float
    ) -> None:
        self.command = command
        # Extended it is a dict with no values: a set that keeps the order.
        self.keys: tuple[bytes, ...] | dict[bytes, None] = keys
        self.size = 0  # of the keys that it was extended by
        self.source = source
        self.expires = expires
        self.types = _types_of(command)
        self.gone: str | None = None
        self.waiters: list[Callable[[], object]] | None = None


class Entry(Node):
    """A value that is held, with all that a hit has to look at."""

    __slots__ = ("_keys", "command", "copier", "expires", "size", "source", "types", "value")

    def __init__(
        self,
        reservation: Reservation,
        value: Any,
        copier: Copier | None,
        expires: float,
        size: int,
    ) -> None:
        self.command = reservation.command
        # Nearly every entry has one key: a tuple for it would cost 64 bytes.
        keys = tuple(reservation.keys)
        self._keys: bytes | tuple[bytes, ...] = keys[0] if len(keys) == 1 else keys
        self.source = reservation.source
        self.types = reservation.types
        self.value = value
        self.copier = copier
        self.expires = expires
        self.size = size

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The raw keys that it was read from."""
        return self._keys if isinstance(self._keys, tuple) else (self._keys,)

    def read(self) -> Any:
        """Count a hit and give the value, or a copy of what can be changed."""
        self.hits += 1
        copier = self.copier
        return self.value if copier is None else copier(self.value)


_Holder: TypeAlias = "Entry | Reservation"


class Cache:
    """A bounded cache of replies, indexed by the keys they were read from.

    Args:
        max_entries: entries and reservations together, at most.
        max_bytes: the estimated bytes of keys, values and bookkeeping, at most.
        max_ttl: seconds that any entry lives at most. It bounds what no server announces in
            time: an expiry on a server that expires lazily, for one.
        clock: a monotonic clock, in seconds.
        server_ttl: have the client ask for the keys' PTTL with each read, and end the entry by it.
        audit: the share of hits, 0 to 1, that the client checks against the server.
        on_stale: called with the command, the value served and the server's, for each checked hit
            that no order of events explains.

    One cache belongs to one client. Commands given to it are any hashable; keys are the raw bytes
    that the server names in its invalidations. They carry no database: the server does not send
    one, and a key that changes in any database is dropped.

    Raises:
        ValueError: a bound that is not positive, or a share that is none.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_ttl: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        server_ttl: bool = False,
        audit: float = 0.0,
        on_stale: Callable[[Hashable, Any, Any], object] | None = None,
    ) -> None:
        for name, value in (
            ("max_entries", max_entries),
            ("max_bytes", max_bytes),
            ("max_ttl", max_ttl),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} takes a number, not {type(value).__name__}")
            if not value > 0:
                raise ValueError(f"{name} takes a positive number, not {value}")
        if not 0 <= audit <= 1:
            raise ValueError(f"audit takes a share from 0 to 1, not {audit}")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_ttl = max_ttl
        self.server_ttl = server_ttl
        self.audit = audit
        self.on_stale = on_stale
        self.status = "off: not connected"
        self.clock = clock
        self._owner: Callable[[], object] = lambda: None
        self._why_not: Callable[[], Callable[[tuple[Any, ...]], str | None] | None] = lambda: None
        self._callbacks: list[InvalidationCallback] = []
        self._counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._refused: dict[str, int] = {}
        self._past_hits = 0
        self._epochs = 0
        self._bound = 0.0
        self._reset()

    def _reset(self) -> None:
        """Start empty and closed, with a fresh lock."""
        self._lock = Lock()
        self._epoch = 0
        self._proven = 0.0
        self._fresh_until = 0.0
        self._reserved: dict[Hashable, Reservation] = {}
        # What is to be told once the lock is free.
        self._woken: list[Callable[[], object]] = []
        self._news: list[Invalidation] = []
        self._let_go: list[tuple[dict[Hashable, Entry], dict[bytes, _Holder | set[_Holder]]]] = []
        self._entries: dict[Hashable, Entry] = {}
        self._index: dict[bytes, _Holder | set[_Holder]] = {}
        self._clear("flushed")

    def _clear(self, reason: str) -> None:
        for reservation in self._reserved.values():
            self._end(reservation, reason)
        # The old tables are let go whole, and taken apart when the lock is free.
        self._let_go.append((self._entries, self._index))
        self._entries = {}
        self._reserved = {}
        # A key has one holder nearly always; a set of one would cost 200 bytes more.
        self._index = {}
        self._queue = Sieve()
        self._bytes = 0

    # Reading.

    def get(self, command: Hashable) -> Any:
        """Give the cached reply of a command, or `MISS`.

        A list, dict or set is a copy of its own: the caller may change it.
        """
        # The hit path: no lock, no call but the clock's. What it looks at is written whole.
        entry = self._entries.get(command)
        if entry is None:
            return MISS
        now = self.clock()
        if now >= entry.expires or now >= self._fresh_until or not entry.source.alive:
            return MISS
        if entry.types is not None and entry.types != _types_of(command):
            return MISS  # 1 == 1.0 == True, as a key; not on the wire
        entry.hits += 1
        copier = entry.copier
        return entry.value if copier is None else copier(entry.value)

    def find(self, command: Hashable) -> Entry | None:
        """Give the entry that `get` would serve, without counting a hit."""
        entry = self._entries.get(command)
        now = self.clock()
        if (
            entry is None
            or now >= entry.expires
            or now >= self._fresh_until
            or not entry.source.alive
            or (entry.types is not None and entry.types != _types_of(command))
        ):
            return None
        return entry

    def reserve(
        self,
        command: Hashable,
        keys: tuple[bytes, ...],
        epoch: int,
        source: Source = ALWAYS,
    ) -> Reservation | None:
        """Announce that a reply is about to be fetched. Call it before any byte is sent.

        Args:
            command: what `get` will be asked for.
            keys: the raw keys the command reads; none of them may change unnoticed.
            epoch: of the channel (see `open`) on which changes of the keys will be announced.
            source: whose end makes the server forget that it must announce them.

        Returns:
            The token for `fill` or `abandon`, one of which must follow; None if the reply must
            not be cached: the channel is closed or another, or the same command is being
            fetched already (see `flight`).
        """
        with self._lock:
            self._counts["misses"] += 1
            reservation = None
            if epoch and epoch == self._epoch and command not in self._reserved:
                room = True
                while room and len(self._entries) + len(self._reserved) >= self.max_entries:
                    room = self._evict()
                if room:
                    reservation = Reservation(command, keys, source, float("inf"))
                    for key in keys:
                        self._link(key, reservation)
                    # Last: what an interrupt leaves behind before it blocks nobody.
                    self._reserved[command] = reservation
        if self._news:
            self._tell_news()
        return reservation

    def extend(
        self, reservation: Reservation, keys: tuple[bytes, ...], expires: float = float("inf")
    ) -> bool:
        """Let a reservation depend on more keys, before they are read.

        Returns False if it is gone, or goes now because it has too many.

        Args:
            reservation: from `reserve`, not filled yet.
            keys: more raw keys.
            expires: what is read ends then at the latest, and with it what is made of it.
        """
        with self._lock:
            if self._reserved.get(reservation.command) is not reservation:
                return False
            reservation.expires = min(reservation.expires, expires)
            if not keys:
                return True
            held = reservation.keys
            if isinstance(held, tuple):
                held = reservation.keys = dict.fromkeys(held)
            for key in keys:
                if key not in held:
                    held[key] = None
                    reservation.size += _KEY_OVERHEAD + len(key)
                    self._link(key, reservation)
            if reservation.size * _LARGEST_SHARE <= self.max_bytes:
                return True
            # Never to be kept, so not to be held either: the bounds hold for reservations too.
            self._drop_reservation(reservation, "too big")
        self._tell_news()
        return False

    def rename(self, reservation: Reservation, command: Hashable) -> bool:
        """Let a reservation's value be found under another command that reads the same keys.

        False if it can't be: the reservation is gone, or that command is being fetched.
        """
        with self._lock:
            standing = self._reserved.get(reservation.command) is reservation
            if not standing or command in self._reserved:
                return False
            del self._reserved[reservation.command]
            self._reserved[command] = reservation
            reservation.command = command
            reservation.types = _types_of(command)
            return True

    def fill(self, reservation: Reservation, value: Any, ttl: float | None = None) -> bool:
        """Store a reply, if its reservation still stands.

        The cache keeps a copy of its own of what can be changed. Errors are never stored.

        Args:
            reservation: from `reserve`; it is spent whatever happens.
            value: the reply.
            ttl: seconds to live at most, below `max_ttl`.

        Returns:
            Whether the value was stored.
        """
        # Shape and copy are worked out before the lock is taken: they cost what the value costs.
        shape = None if isinstance(value, Exception) else _shape(value)
        kept = shape[1](value) if shape is not None and shape[1] is not None else value
        size = 0
        if isinstance(value, Exception):
            refusal = "error"
        elif shape is None:
            refusal = "too deep"
        else:
            size = shape[0] + _ENTRY_OVERHEAD + _size_of_command(reservation.command)
            size += sum(_KEY_OVERHEAD + len(key) for key in reservation.keys)
            refusal = "too big" if size * _LARGEST_SHARE > self.max_bytes else ""
        with self._lock:
            if self._reserved.get(reservation.command) is not reservation:
                refusal = reservation.gone or "flushed"
            else:
                self._drop_reservation(reservation, "filled")
                if not reservation.source.alive:
                    refusal = "connection lost"
            now = self.clock()
            life = self.max_ttl if ttl is None else min(ttl, self.max_ttl)
            expires = min(now + life, reservation.expires)
            if not refusal and expires <= now:
                refusal = "expired"
            if not refusal:
                replaced = self._entries.get(reservation.command)
                if replaced is not None:
                    self._drop_entry(replaced)
                while self._bytes + size > self.max_bytes:
                    if not self._evict():
                        refusal = "full"
                        break
            if not refusal:
                assert shape is not None
                entry = Entry(reservation, kept, shape[1], expires, size)
                # Indexed before it is there to be served: an interrupt between the two leaves an
                # entry that nobody sees, not one that no invalidation finds.
                for key in entry.keys:
                    self._link(key, entry)
                self._bytes += size
                self._queue.add(entry)
                self._entries[entry.command] = entry
                self._counts["fills"] += 1
            else:
                self._refused[refusal] = self._refused.get(refusal, 0) + 1
        self._tell_news()
        return not refusal

    def abandon(self, reservation: Reservation) -> None:
        """Give a reservation up: its command failed, or its reply must not be stored."""
        with self._lock:
            if self._reserved.get(reservation.command) is reservation:
                self._drop_reservation(reservation, "abandoned")
        self._tell_news()

    def flight(self, command: Hashable) -> Reservation | None:
        """Give the reservation under which the same is being fetched now, if there is one."""
        return self._reserved.get(command)

    def when_ended(self, reservation: Reservation, callback: Callable[[], object]) -> bool:
        """Call back once a reservation was filled, given up or removed; False if it was before.

        The callback comes from the thread that ended it, without the cache's lock. What a waiter
        does then is to `get`, and if that is a `MISS` to fetch the value itself.
        """
        with self._lock:
            if reservation.gone is not None:
                return False
            self._counts["waits"] += 1
            if reservation.waiters is None:
                reservation.waiters = []
            reservation.waiters.append(callback)
            return True

    # Forgetting.

    def invalidate(self, keys: Iterable[bytes | str] | None, reason: str = "changed") -> None:
        """Drop everything that was, or is being, read from these keys; None drops all.

        Costs what the keys hold, whatever the size of the cache.

        Args:
            keys: raw keys; a `str` stands for its UTF-8 bytes.
            reason: for those who are told, see `events`.

        Raises:
            TypeError: a single key instead of an iterable of keys.
        """
        if keys is None:
            self.flush("flushed" if reason == "changed" else reason)
            return
        if isinstance(keys, str | bytes):
            raise TypeError("invalidate takes an iterable of keys, not a single key")
        named = tuple(keys)
        if _BYTES.issuperset(map(type, named)):
            raw: tuple[bytes, ...] = named  # type: ignore[assignment]
        else:
            raw = tuple(key.encode() if isinstance(key, str) else key for key in named)
        with self._lock:
            self._counts["invalidations"] += len(raw)
            index, entries, remove = self._index, self._entries, self._queue.remove
            dropped = freed = hits = 0
            for key in raw:
                holder = index.get(key)
                if holder is None:
                    continue
                if type(holder) is Entry:
                    # Nearly always, and in a storm this is the whole cost: `_drop_entry` written
                    # out for an entry of one key takes 0.5 µs instead of 0.7.
                    found = entries.pop(holder.command, None)
                    if found is holder and type(holder._keys) is bytes:
                        remove(holder)
                        freed += holder.size
                        hits += holder.hits
                        del index[key]
                    else:
                        if found is not None:
                            entries[holder.command] = found
                        self._drop_entry(holder)
                    dropped += 1
                    continue
                for each in tuple(holder) if isinstance(holder, set) else (holder,):
                    if isinstance(each, Reservation):
                        self._drop_reservation(each, "invalidated")
                    else:
                        self._drop_entry(each)
                        dropped += 1
            self._counts["dropped"] += dropped
            self._bytes -= freed
            self._past_hits += hits
            if self._callbacks:
                self._news.append(Invalidation(raw, reason))
        if self._woken or self._news:
            self._tell_news()

    def flush(self, reason: str = "flushed") -> None:
        """Drop every entry and every reservation."""
        with self._lock:
            self._flush(reason)
        self._tell_news()

    def _flush(self, reason: str) -> None:
        self._counts["flushes"] += 1
        self._clear("flushed")
        if self._callbacks:
            self._news.append(Invalidation(None, reason))

    def on_invalidate(self, callback: InvalidationCallback) -> None:
        """Call `callback(keys, reason)` after each invalidation; `keys` is None for all keys.

        The reasons are those of `events`. It is called by whichever thread brought the news,
        without the cache's lock, but perhaps in the middle of a call, with a connection in hand: a
        callback that wants to read leaves that to a thread of its own, see `events`. An exception
        from it goes to `sys.unraisablehook`: it must not stop the invalidations that follow.
        """
        self._callbacks.append(callback)

    def events(self, max_events: int = _MAX_EVENTS) -> Events:
        """Give an iterator of invalidations from now on; it waits for the next one.

        The reasons: "changed" (announced: a change, an expiry, or the server's table was full),
        "own write", "flushed", "evicted" (room was made here), "connect", "reconnect", "fork",
        "connection lost", "client closed", and "overflow" with None for keys where a reader so
        slow that more than `max_events` keys were waiting has to take everything for changed.
        """
        return Events(self, max_events)

    def _tell_news(self) -> None:
        """Wake and tell those concerned, now that the lock is free."""
        while self._woken:
            try:
                wake = self._woken.pop()
            except IndexError:
                break
            wake()
        while self._news:
            with self._lock:
                news, self._news = self._news, []
            for event in news:
                for callback in tuple(self._callbacks):
                    try:
                        callback(*event)
                    except Exception as error:  # noqa: BLE001 - a stranger's; see on_invalidate
                        sys.unraisablehook(_Unraisable(error, callback))
        if self._let_go:
            self._take_apart()

    def _take_apart(self) -> None:
        """Free what was flushed, one by one: other threads go on meanwhile.

        Entries stand in a ring of references, so without this they would stay until the garbage
        collector comes by, or for ever where it is turned off.
        """
        with self._lock:
            tables, self._let_go = self._let_go, []
        hits = 0
        for entries, index in tables:
            while entries:
                _, entry = entries.popitem()
                hits += entry.hits
                entry.newer = entry.older = None
            while index:
                index.popitem()
        with self._lock:
            self._past_hits += hits

    # The channel of the invalidations.

    def claim(
        self, owner: object, why_not: Callable[[tuple[Any, ...]], str | None] | None = None
    ) -> None:
        """Belong to one client, as long as it lives; no reference is kept.

        Args:
            owner: the client.
            why_not: a method of it, for `explain`: why it would not cache a command, or None.

        Raises:
            ValueError: another client has this cache: its entries may be another server's.
        """
        if self._owner() not in (None, owner):
            raise ValueError("this cache belongs to another client; give each one its own")
        self._owner = weakref.ref(owner)
        self._why_not = weakref.WeakMethod(why_not) if why_not is not None else lambda: None

    def release(self, owner: object) -> None:
        """Belong to nobody again, if `owner` has it."""
        if self._owner() is owner:
            self._owner = lambda: None

    def open(self, bound: float = float("inf"), proven: float = float("inf")) -> int:
        """Begin to cache: from now on changes are announced.

        Call it after the server's reply to CLIENT TRACKING, or to the subscription, was read.

        Args:
            bound: seconds after the channel's last proof of life that entries may be served.
            proven: when the channel was proven alive: before the request was sent whose answer
                was the proof.

        Returns:
            The epoch of this channel, for `reserve`. No epoch is ever given twice.
        """
        with self._lock:
            self._flush("reconnect" if self._epochs else "connect")
            self._epochs += 1
            self._epoch = self._epochs
            self._bound = bound
            self.prove(proven)
            self.status = "on"
            epoch = self._epoch
        self._tell_news()
        return epoch

    def prove(self, proven: float) -> None:
        """Extend the time until which entries may be served.

        Args:
            proven: a time before which every change announced so far was made: when the request
                was sent whose answer has just been read from the channel.
        """
        self._proven = proven
        self._fresh_until = proven + self._bound

    def close(self, reason: str, event: str = "reconnect") -> None:
        """End the channel: drop everything, and cache nothing until the next `open`."""
        with self._lock:
            if self._epoch:
                self._epoch = 0
                self._proven = self._fresh_until = 0.0
                self._flush(event)
            self.status = f"off: {reason}"
        self._tell_news()

    def end(self, source: Source) -> None:
        """Serve nothing more that was read from a source: it is gone, and its tracking with it."""
        if source.alive:
            source.alive = False
            if self._callbacks and self._epoch:
                with self._lock:
                    self._news.append(Invalidation(None, "connection lost"))
                self._tell_news()

    @property
    def epoch(self) -> int:
        """The open channel's epoch, or 0."""
        return self._epoch

    @property
    def proven(self) -> float:
        """When, by the clock, the channel was last proven to have brought everything."""
        return self._proven

    @property
    def staleness_bound(self) -> float:
        """Seconds after a link went dead without a word that a hit may still be served.

        That goes for the link of the notifications and for those that read: what the server does
        not announce because it has lost the one that read it is not served longer either. While
        they live an invalidation takes as long as the network does. 0.0 before the first channel
        was open.
        """
        return self._bound

    def after_fork(self) -> None:
        """Start anew in a forked child, whatever another thread of the parent was doing."""
        self._reset()
        self._counts["flushes"] += 1
        self.status = "off: forked"
        if self._callbacks:
            self._news.append(Invalidation(None, "fork"))
        self._woken = []  # the threads that waited did not come along
        self._tell_news()

    # Looking.

    @property
    def stats(self) -> CacheStats:
        """What the cache did so far, and what it holds."""
        with self._lock:
            return CacheStats(
                hits=self._past_hits + sum(entry.hits for entry in self._entries.values()),
                refused_fills=sum(self._refused.values()),
                refused_by=dict(self._refused),
                entries=len(self._entries),
                reservations=len(self._reserved),
                bytes=self._bytes,
                **self._counts,
            )

    def explain(self, *command: Any) -> str:
        """Say in a sentence whether a command would be served from the cache now, and why not."""
        entry = self.find(command)
        if entry is not None:
            left = entry.expires - self.clock()
            return f"cached, for {left:.1f} s more at most unless one of its keys changes"
        why_not = self._why_not()
        reason = why_not(command) if why_not is not None else None
        if reason is not None:
            return f"not cached: {reason}"
        if not self._epoch:
            return f"not cached: caching is {self.status}"
        if command in self._reserved:
            return "not cached yet: being fetched"
        stale = self._entries.get(command)
        if stale is None:
            return "not cached yet: not read, or one of its keys has changed since"
        if not stale.source.alive:
            return "no longer cached: the connection that read it is gone"
        if self.clock() >= stale.expires:
            return "no longer cached: its time is up"
        return "not served now: the notification channel has not been proven alive in time"

    def count(self, what: str) -> None:
        """Add one to a count of `stats`; for the front ends."""
        with self._lock:
            self._counts[what] += 1

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True  # `if db.cache` asks whether there is one, not whether it holds anything

    def __contains__(self, command: Hashable) -> bool:
        return command in self._entries

    def __iter__(self) -> Iterator[Hashable]:
        """Go through the commands that are held, oldest first."""
        return iter(tuple(self._entries))

    # Bookkeeping, under the lock.

    def _link(self, key: bytes, holder: _Holder) -> None:
        held = self._index.get(key)
        if held is None:
            self._index[key] = holder
        elif isinstance(held, set):
            held.add(holder)
        elif held is not holder:
            self._index[key] = {held, holder}

    def _unlink(self, key: bytes, holder: _Holder) -> None:
        held = self._index.get(key)
        if held is holder:
            del self._index[key]
        elif isinstance(held, set):
            held.discard(holder)
            if len(held) == 1:
                self._index[key] = held.pop()

    def _end(self, reservation: Reservation, reason: str) -> None:
        reservation.gone = reason
        if reservation.waiters is not None:
            self._woken += reservation.waiters
            reservation.waiters = None

    def _drop_reservation(self, reservation: Reservation, reason: str) -> None:
        if self._reserved.get(reservation.command) is reservation:
            del self._reserved[reservation.command]
        for key in reservation.keys:
            self._unlink(key, reservation)
        self._end(reservation, reason)

    def _drop_entry(self, entry: Entry) -> None:
        # First it is there no more, then the index forgets it: an interrupt between the two leaves
        # a row too many, not an entry that no invalidation finds.
        found = self._entries.pop(entry.command, None)
        if found is entry:
            self._queue.remove(entry)
            self._bytes -= entry.size
            self._past_hits += entry.hits
        elif found is not None:
            self._entries[entry.command] = found  # an interrupt came before ours was there
        keys = entry._keys
        if type(keys) is bytes:
            if self._index.get(keys) is entry:
                del self._index[keys]
            else:
                self._unlink(keys, entry)
            return
        for key in entry.keys:
            self._unlink(key, entry)

    def _evict(self) -> bool:
        victim: Entry | None = self._queue.next_victim()  # type: ignore[assignment]
        if victim is None:
            return False
        expired = self.clock() >= victim.expires
        self._counts["expirations" if expired else "evictions"] += 1
        self._drop_entry(victim)
        if self._callbacks:
            self._news.append(Invalidation(victim.keys, "evicted"))
        return True


class Events:
    """An iterator of `Invalidation`s that waits for the next; `close` ends it.

    `get(timeout)` waits no longer than that and gives None then.
    """

    def __init__(self, cache: Cache, max_events: int) -> None:
        self._events: deque[Invalidation] = deque()
        self._waiting = 0  # keys, and events without any
        self._max_events = max_events
        self._changed = Condition()
        self._closed = False
        self._cache = cache
        cache._callbacks.append(self._take)

    def _take(self, keys: tuple[bytes, ...] | None, reason: str) -> None:
        with self._changed:
            more = _weight(keys)
            if self._events and self._waiting + more > self._max_events:
                self._events.clear()
                self._waiting, more = 0, 1
                keys, reason = None, "overflow"
            self._waiting += more
            self._events.append(Invalidation(keys, reason))
            self._changed.notify()

    def get(self, timeout: float | None = None) -> Invalidation | None:
        """Give the next event, or None if there is none within `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout)
            if not self._events:
                return None
            event = self._events.popleft()
            self._waiting -= _weight(event.keys)
            return event

    def close(self) -> None:
        """End the iteration once what has come is read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._take in self._cache._callbacks:
            self._cache._callbacks.remove(self._take)

    def __iter__(self) -> Iterator[Invalidation]:
        return self

    def __next__(self) -> Invalidation:
        event = self.get()
        if event is None:
            raise StopIteration
        return event


def _weight(keys: tuple[bytes, ...] | None) -> int:
    return len(keys) if keys else 1


class _Unraisable:
    """The argument of `sys.unraisablehook`, whose own type can't be made."""

    def __init__(self, error: BaseException, source: object) -> None:
        self.exc_type: type[BaseException] = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback: TracebackType | None = error.__traceback__
        self.err_msg: str | None = "Exception ignored in an on_invalidate callback"
        self.object: object = source


_TEXT = frozenset((str, bytes))
_BYTES = frozenset((bytes,))


def _types_of(command: Hashable) -> tuple[type, ...] | None:
    """Give what tells commands apart that are equal as keys of a dict; None if nothing has to."""
    if type(command) is not tuple:
        return None
    types = tuple(map(type, command))
    return None if _TEXT.issuperset(types) else types


# What a reply costs and how it is copied.


def _size_of_command(command: Hashable) -> int:
    size = sys.getsizeof(command)
    return size + sum(map(sys.getsizeof, command)) if isinstance(command, tuple) else size


def _shape(value: Any) -> tuple[int, Copier | None] | None:
    """Give a reply's estimated bytes and how to copy it; None if it nests too deeply to keep."""
    if not isinstance(value, list | dict | set):
        return (_size_flat((value,)), None)
    members = list(_members(value))
    if not any(isinstance(member, _CONTAINERS) for member in members):
        return (sys.getsizeof(value) + _size_flat(members), type(value))
    size = 0
    level: list[Any] = [value]
    for _ in range(_DEEPEST_COPY):
        size += _size_flat(level)
        level = [
            member
            for container in level
            if isinstance(container, _CONTAINERS)
            for member in _members(container)
        ]
        if not level:
            return (size, _copy_nested)
    return None


_CONTAINERS = (list, dict, set, tuple, frozenset)


def _members(container: Any) -> Iterable[Any]:
    if isinstance(container, dict):
        yield from container.keys()
        yield from container.values()
    else:
        yield from container


def _size_flat(values: Iterable[Any]) -> int:
    return sum(map(sys.getsizeof, values))


def _copy_nested(value: Any) -> Any:
    """Copy what can be changed, at every depth; keys and members of sets can't be."""
    if isinstance(value, list):
        return type(value)(map(_copy_nested, value))
    if isinstance(value, dict):
        return {key: _copy_nested(member) for key, member in value.items()}
    return set(value) if isinstance(value, set) else value
