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
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._eviction import Node, Sieve

if TYPE_CHECKING:
    from types import TracebackType

Copier: TypeAlias = Callable[[Any], Any]
InvalidationCallback: TypeAlias = Callable[[tuple[bytes, ...] | None, str], object]
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
# Measured with tracemalloc at 100,000 entries on CPython 3.11; see `make bench`'s memory figures.
_ENTRY_OVERHEAD = 280
# A value nested deeper than this is handed out uncached: copying it would recurse too far.
_DEEPEST_COPY = 32


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A snapshot of what the cache did.

    Attributes:
        hits, misses: reads served from the cache, and reads that asked for a reservation.
        fills: values stored.
        refused_fills: values not stored, because their reservation was gone when they came.
        invalidations: keys that were announced, whether they were held or not.
        dropped: entries that an announcement or a write of our own removed.
        evictions: entries that made room.
        expirations: entries whose time was up.
        flushes: how often everything was dropped.
        entries, reservations, bytes: what is held now; `bytes` is an estimate.
    """

    hits: int
    misses: int
    fills: int
    refused_fills: int
    invalidations: int
    dropped: int
    evictions: int
    expirations: int
    flushes: int
    entries: int
    reservations: int
    bytes: int


class Reservation:
    """A promise of a value: the unique token that a fill must still hold."""

    __slots__ = ("command", "keys")

    def __init__(self, command: Hashable, keys: tuple[bytes, ...]) -> None:
        self.command = command
        self.keys = keys


class _Entry(Node):
    __slots__ = ("command", "copier", "expires", "keys", "size", "value")

    def __init__(
        self,
        reservation: Reservation,
        value: Any,
        copier: Copier | None,
        expires: float,
        size: int,
    ) -> None:
        self.command = reservation.command
        self.keys = reservation.keys
        self.value = value
        self.copier = copier
        self.expires = expires
        self.size = size


_Holder: TypeAlias = "_Entry | Reservation"


class Cache:
    """A bounded cache of replies, indexed by the keys they were read from.

    Args:
        max_entries: entries and reservations together, at most.
        max_bytes: the estimated bytes of keys, values and bookkeeping, at most.
        max_ttl: seconds that any entry lives at most. It bounds what no server announces in
            time: an expiry on a server that expires lazily, for one.
        clock: a monotonic clock, in seconds.

    One cache belongs to one client. Commands given to it are any hashable; keys are the raw bytes
    that the server names in its invalidations. They carry no database: the server does not send
    one, and a key that changes in any database is dropped.

    Raises:
        ValueError: a bound that is not positive.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_ttl: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
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
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_ttl = max_ttl
        self.status = "off: not connected"
        self.clock = clock
        self._owner: Callable[[], object] = lambda: None
        self._callbacks: list[InvalidationCallback] = []
        self._counts = dict.fromkeys(
            (
                "misses",
                "fills",
                "refused_fills",
                "invalidations",
                "dropped",
                "evictions",
                "expirations",
                "flushes",
            ),
            0,
        )
        self._past_hits = 0
        self._epochs = 0
        self._reset()

    def _reset(self) -> None:
        """Start empty and closed, with a fresh lock."""
        self._lock = Lock()
        self._epoch = 0
        self._fresh_until = 0.0
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._reserved: dict[Hashable, Reservation] = {}
        # A key has one holder nearly always; a set of one would cost 200 bytes more.
        self._index: dict[bytes, _Holder | set[_Holder]] = {}
        self._queue = Sieve()
        self._bytes = 0

    # Reading.

    def get(self, command: Hashable) -> Any:
        """Give the cached reply of a command, or `MISS`.

        A list, dict or set is a copy of its own: the caller may change it.
        """
        entry = self._entries.get(command)
        if entry is None:
            return MISS
        now = self.clock()
        if now >= entry.expires or now >= self._fresh_until:
            return MISS
        entry.hits += 1
        copier = entry.copier
        return entry.value if copier is None else copier(entry.value)

    def reserve(self, command: Hashable, keys: tuple[bytes, ...], epoch: int) -> Reservation | None:
        """Announce that a reply is about to be fetched. Call it before any byte is sent.

        Args:
            command: what `get` will be asked for.
            keys: the raw keys the command reads; none of them may change unnoticed.
            epoch: of the channel (see `open`) on which changes of the keys will be announced.

        Returns:
            The token for `fill` or `abandon`, one of which must follow; None if the reply must
            not be cached: the channel is closed or another, or the same command is being
            fetched already.
        """
        with self._lock:
            self._counts["misses"] += 1
            if epoch != self._epoch or not epoch or command in self._reserved:
                return None
            while len(self._entries) + len(self._reserved) >= self.max_entries:
                if not self._evict():
                    return None
            reservation = Reservation(command, keys)
            self._reserved[command] = reservation
            for key in keys:
                self._link(key, reservation)
            return reservation

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
        with self._lock:
            if self._reserved.get(reservation.command) is not reservation:
                self._counts["refused_fills"] += 1
                return False
            self._drop_reservation(reservation)
            if shape is None:
                return False
            size = shape[0] + _ENTRY_OVERHEAD + _size_of_command(reservation.command)
            if size * _LARGEST_SHARE > self.max_bytes:
                return False
            replaced = self._entries.get(reservation.command)
            if replaced is not None:
                self._drop_entry(replaced)
            while self._bytes + size > self.max_bytes:
                if not self._evict():
                    return False
            life = self.max_ttl if ttl is None else min(ttl, self.max_ttl)
            entry = _Entry(reservation, kept, shape[1], self.clock() + life, size)
            self._queue.add(entry)
            self._entries[entry.command] = entry
            for key in entry.keys:
                self._link(key, entry)
            self._bytes += size
            self._counts["fills"] += 1
            return True

    def abandon(self, reservation: Reservation) -> None:
        """Give a reservation up: its command failed, or its reply must not be stored."""
        with self._lock:
            if self._reserved.get(reservation.command) is reservation:
                self._drop_reservation(reservation)

    # Forgetting.

    def invalidate(self, keys: Iterable[bytes | str] | None, reason: str = "changed") -> None:
        """Drop everything that was, or is being, read from these keys; None drops all.

        Costs what the keys hold, whatever the size of the cache.

        Args:
            keys: raw keys; a `str` stands for its UTF-8 bytes.
            reason: for the callbacks of `on_invalidate`.

        Raises:
            TypeError: a single key instead of an iterable of keys.
        """
        if keys is None:
            self.flush(reason)
            return
        if isinstance(keys, str | bytes):
            raise TypeError("invalidate takes an iterable of keys, not a single key")
        raw = tuple(key.encode() if isinstance(key, str) else key for key in keys)
        with self._lock:
            self._counts["invalidations"] += len(raw)
            for key in raw:
                holders = self._index.get(key)
                if holders is None:
                    continue
                for holder in tuple(holders) if isinstance(holders, set) else (holders,):
                    if isinstance(holder, Reservation):
                        self._drop_reservation(holder)
                    else:
                        self._drop_entry(holder)
                        self._counts["dropped"] += 1
        self._tell(raw, reason)

    def flush(self, reason: str = "flushed") -> None:
        """Drop every entry and every reservation."""
        with self._lock:
            self._flush()
        self._tell(None, reason)

    def _flush(self) -> None:
        self._counts["flushes"] += 1
        self._past_hits += sum(entry.hits for entry in self._entries.values())
        # The old tables are let go whole: no reader waits for a million entries to be freed.
        self._clear()

    def on_invalidate(self, callback: InvalidationCallback) -> None:
        """Call `callback(keys, reason)` after each invalidation; `keys` is None for a flush.

        It is called by whichever thread brought the news, without the cache's lock. An exception
        from it goes to `sys.unraisablehook`: it must not stop the invalidations that follow.
        """
        self._callbacks.append(callback)

    def _tell(self, keys: tuple[bytes, ...] | None, reason: str) -> None:
        for callback in self._callbacks:
            try:
                callback(keys, reason)
            except Exception as error:  # noqa: BLE001 - a stranger's code; see on_invalidate
                sys.unraisablehook(_Unraisable(error, callback))

    # The channel of the invalidations.

    def claim(self, owner: object) -> None:
        """Belong to one client, as long as it lives.

        Raises:
            ValueError: another client has this cache: its entries may be another server's.
        """
        if self._owner() not in (None, owner):
            raise ValueError("this cache belongs to another client; give each one its own")
        self._owner = weakref.ref(owner)

    def open(self, fresh_until: float = float("inf")) -> int:
        """Begin to cache: from now on changes are announced.

        Call it after the server's reply to CLIENT TRACKING, or to the subscription, was read.

        Returns:
            The epoch of this channel, for `reserve`. No epoch is ever given twice.
        """
        with self._lock:
            self._flush()
            self._epochs += 1
            self._epoch = self._epochs
            self._fresh_until = fresh_until
            self.status = "on"
            return self._epoch

    def prove(self, fresh_until: float) -> None:
        """Extend the time until which entries may be served, by the channel's sign of life."""
        self._fresh_until = fresh_until

    def close(self, reason: str) -> None:
        """End the channel: drop everything, and cache nothing until the next `open`."""
        with self._lock:
            self._epoch = 0
            self._fresh_until = 0.0
            self._flush()
            self.status = f"off: {reason}"
        self._tell(None, reason)

    @property
    def epoch(self) -> int:
        """The open channel's epoch, or 0."""
        return self._epoch

    def after_fork(self) -> None:
        """Start anew in a forked child, whatever another thread of the parent was doing."""
        self._reset()
        self.status = "off: forked"

    # Looking.

    @property
    def stats(self) -> CacheStats:
        """What the cache did so far, and what it holds."""
        with self._lock:
            return CacheStats(
                hits=self._past_hits + sum(entry.hits for entry in self._entries.values()),
                entries=len(self._entries),
                reservations=len(self._reserved),
                bytes=self._bytes,
                **self._counts,
            )

    def __len__(self) -> int:
        return len(self._entries)

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

    def _drop_reservation(self, reservation: Reservation) -> None:
        del self._reserved[reservation.command]
        for key in reservation.keys:
            self._unlink(key, reservation)

    def _drop_entry(self, entry: _Entry) -> None:
        del self._entries[entry.command]
        for key in entry.keys:
            self._unlink(key, entry)
        self._queue.remove(entry)
        self._bytes -= entry.size
        self._past_hits += entry.hits

    def _evict(self) -> bool:
        victim = cast("_Entry | None", self._queue.next_victim())
        if victim is None:
            return False
        expired = self.clock() >= victim.expires
        self._counts["expirations" if expired else "evictions"] += 1
        self._drop_entry(victim)
        return True


class _Unraisable:
    """The argument of `sys.unraisablehook`, whose own type can't be made."""

    def __init__(self, error: BaseException, source: object) -> None:
        self.exc_type: type[BaseException] = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback: TracebackType | None = error.__traceback__
        self.err_msg: str | None = "Exception ignored in an on_invalidate callback"
        self.object: object = source


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
