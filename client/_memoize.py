"""Derived values: what a function computed from reads, kept until one of those keys changes.

A computation reserves its place before it begins, like the fetch of a reply, and lets the
reservation depend on every key *before* that key is looked at. So a change between the first read
and the end of the function removes the reservation, and the result is handed out but not kept.
"""

from __future__ import annotations

from contextvars import ContextVar

from ._cache import ALWAYS, MISS, Cache, Entry, Reservation, Source
from ._steps import HEAR, Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

# Of this thread or task, the outermost first: an inner one's reads are the outer one's too.
_running: ContextVar[tuple[Computation, ...]] = ContextVar("resp_client_computations", default=())


class _All(Source):
    """Alive while all of several sources are."""

    __slots__ = ("_sources",)

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self._sources = sources

    @property
    def alive(self) -> bool:  # type: ignore[override]
        return all(source.alive for source in self._sources)


class Computation:
    """One run of a function, or the hit that made it needless.

    A context manager; of an asyncio client an asynchronous one.

        with db.computing("report", 7) as computation:
            if computation.value is client.MISS:
                computation.value = make_report(db, 7)
        return computation.value

    Attributes:
        value: the cached result, or `MISS`; set it to have it kept when the block ends well.
        spoiled: why it can't be kept, or None.
    """

    __slots__ = (
        "_cache", "_hit", "_place", "_reservation", "_seen", "_sources", "_token", "_ttl",
        "spoiled", "value",
    )  # fmt: skip

    def __init__(self, cache: Cache, place: Hashable, ttl: float | None) -> None:
        self._cache = cache
        self._place = place
        self._ttl = ttl
        self._reservation: Reservation | None = None
        self._seen: set[bytes] = set()
        self._sources: set[Source] = set()
        self._hit = False
        self.value: Any = MISS
        self.spoiled: str | None = None

    def begin(self, hear: bool) -> Call[None]:
        """Find the value, or reserve its place; `hear` as of `Calls`."""
        cache, running = self._cache, _running.get()
        if hear:
            yield HEAR
        entry = cache.find(self._place)
        if entry is None and not running:
            # One that runs itself waits for no other: they could wait for each other for ever.
            while entry is None and (flight := cache.flight(self._place)) is not None:
                in_time = yield flight
                entry = cache.find(self._place)
                if not in_time:
                    break
        if entry is not None:
            self._hit = True
            for outer in running:
                outer.read(entry.keys)
                outer.found(entry)
            # What was invalidated before the outer ones depended on it is no hit any more.
            if not running or cache.find(self._place) is entry:
                self.value = entry.read()
                return
            self._hit = False
        self._reservation = cache.reserve(self._place, (), cache.epoch)
        self._token = _running.set((*running, self))

    def end(self, failed: bool) -> None:
        """Keep the value, unless the computation failed or may not be kept."""
        if self._hit:
            return
        _running.reset(self._token)
        reservation = self._reservation
        if reservation is None:
            return
        if failed or self.value is MISS or self.spoiled is not None:
            self._cache.abandon(reservation)
            return
        reservation.source = _All(tuple(self._sources)) if self._sources else ALWAYS
        self._cache.fill(reservation, self.value, self._ttl)

    def read(self, keys: tuple[bytes, ...]) -> None:
        """Depend on these keys; called before they are looked at."""
        fresh = tuple(key for key in keys if key not in self._seen)
        if fresh:
            self._seen.update(fresh)
            if self._reservation is not None:
                self._cache.extend(self._reservation, fresh)

    def found(self, entry: Entry) -> None:
        """Live no longer than an entry that was used, and depend on where it was read."""
        self.fetched(entry.source, entry.expires)

    def fetched(self, source: Source, expires: float) -> None:
        """Depend on the connection that has just read, and on when that must be read anew."""
        self._sources.add(source)
        if self._reservation is not None:
            self._cache.extend(self._reservation, (), expires)

    def spoil(self, reason: str) -> None:
        """Give up keeping the result: it depends on what nobody will announce."""
        self.spoiled = self.spoiled or reason


def running(cache: Cache) -> tuple[Computation, ...]:
    """Give this thread's or task's computations that are kept in `cache`."""
    return tuple(computation for computation in _running.get() if computation._cache is cache)
