"""A read on its way through the cache: hit, wait for another's fetch, or fetch.

The order of the steps is what keeps the cache right: a computation depends on the keys before
anything is looked at; the connection is armed before the place is reserved; the place is reserved
before a byte is sent; and every way out ends the reservation.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ._cache import MISS, Cache, Entry, Reservation
from ._memoize import running
from ._resp import ReplyError, encode_command
from ._session import Word
from ._steps import ARM, BARRIER, HEAR, Call, ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._tracking import Tracking

_CACHING_YES = (b"CLIENT", b"CACHING", b"YES")

# No float: -0.0 == 0.0, and they are two keys.
_PLAIN = frozenset((str, bytes, int))

_NULL = object()
"""The place of MGET's null for a key is (_NULL, key): no command's."""


def place_of(command: Sequence[Word]) -> Hashable:
    """Give what a read is cached under: its arguments, or its wire form for unusual ones."""
    return tuple(command) if _PLAIN.issuperset(map(type, command)) else encode_command(*command)


class Read:
    """A read on its way through the cache. Its calls are carried by a front end.

    Args:
        cache: where to look, and to keep what comes.
        tracking: which keys are covered, and whether the server wants to be told of each read.
        hear: whether pushes are read only when a call asks for it, as on a blocking connection
            that carries data and pushes.
        ttl, max_stale: see `Client.cached`.
        retries: how often to ask again a server that has not begun.
    """

    __slots__ = ("_cache", "_computations", "_hear", "_max_stale", "_retries", "_tracking", "_ttl")

    def __init__(
        self,
        cache: Cache,
        tracking: Tracking,
        hear: bool,
        ttl: float | None,
        max_stale: float | None,
        retries: int,
    ) -> None:
        self._retries = retries
        self._cache = cache
        self._tracking = tracking
        self._hear = hear
        self._ttl = ttl
        self._max_stale = max_stale
        # The functions being computed that will depend on what is read.
        self._computations = running(cache)

    def one(self, command: Sequence[Word], keys: tuple[bytes, ...]) -> Call[Any]:
        """Give the reply of a command that reads these keys, an error as a value."""
        cache = self._cache
        if not self._tracking.covers(keys):
            self._spoil("it read a key that is not tracked")
            return (yield from ask([command], self._retries))[0]
        for computation in self._computations:
            computation.read(keys)  # before anything is looked at
        place = place_of(command)
        if self._hear:
            yield HEAR  # before that a hit would prove nothing
        entry = yield from self._hit(place)
        if entry is None and not self._computations:
            # Another may be fetching the same: one of us is enough.
            while (flight := cache.flight(place)) is not None:
                if not (yield flight):
                    break
                entry = yield from self._hit(place)
                if entry is not None:
                    break
        if entry is not None:
            return (yield from self._serve(entry, command))
        (reply,) = yield from self._fetch(command, [(place, keys)])
        return reply

    def each(self, names: Sequence[Word], keys: tuple[bytes, ...]) -> Call[Any]:
        """Give MGET's reply, from the entries of GET where there are any.

        A null is kept apart: MGET has one for a key of another type too, where GET has an error.
        """
        for computation in self._computations:
            computation.read(keys)
        if self._hear:
            yield HEAR
        values: list[Any] = [MISS] * len(names)
        missing: dict[bytes, list[int]] = {}
        for index, (name, key) in enumerate(zip(names, keys, strict=True)):
            name = name if type(name) in (str, bytes) else key
            entry = yield from self._hit(("GET", name))
            if entry is None:
                entry = yield from self._hit((_NULL, name))
            if entry is not None:
                for computation in self._computations:
                    computation.found(entry)
                values[index] = entry.read()
            else:
                missing.setdefault(key, []).append(index)
        if not missing:
            return values
        wanted = []
        for key, (first, *_) in missing.items():
            name = names[first]
            name = name if type(name) in (str, bytes) else key
            tracked = self._tracking.covers((key,))
            wanted.append((("GET", name), (key,) if tracked else ()))
            if not tracked:
                self._spoil("it read a key that is not tracked")
        reply = yield from self._fetch((b"MGET", *missing), wanted)
        if isinstance(reply, Exception):
            return reply
        for places, value in zip(missing.values(), reply, strict=True):
            for index in places:
                values[index] = value
        return values

    def _spoil(self, reason: str) -> None:
        for computation in self._computations:
            computation.spoil(reason)

    def _hit(self, place: Hashable) -> Call[Entry | None]:
        """Find an entry that is fresh enough, asking for a proof of it where it may not be."""
        cache = self._cache
        entry = cache.find(place)
        if entry is None or self._max_stale is None:
            return entry
        if cache.clock() - cache.proven <= self._max_stale and self._max_stale > 0:
            return entry
        if not (yield BARRIER):
            return None
        # As fresh as this call: one proof serves all that it reads.
        self._max_stale = None
        return cache.find(place)

    def _serve(self, entry: Entry, command: Sequence[Word]) -> Call[Any]:
        for computation in self._computations:
            computation.found(entry)
        value = entry.read()
        if self._cache.audit and _sampled(self._cache.audit):
            yield from self._audit(entry, command, value)
        return value

    def _audit(self, entry: Entry, command: Sequence[Word], served: Any) -> Call[None]:
        """Compare a hit with the server's value, and count it if nothing explains a difference.

        A change that was under way explains it: its announcement precedes the proof, and then the
        entry is gone.
        """
        cache = self._cache
        cache.count("audits")
        (actual,) = yield [command]
        if actual == served or isinstance(actual, Exception):
            return
        if (yield BARRIER) and cache.find(entry.command) is entry:
            cache.count("stale")
            cache.invalidate(entry.keys, "stale")
            if cache.on_stale is not None:
                cache.on_stale(entry.command, served, actual)

    def _fetch(
        self, command: Sequence[Word], wanted: Sequence[tuple[Hashable, tuple[bytes, ...]]]
    ) -> Call[Any]:
        """Read from the server, and keep what came if nothing was said against it meanwhile.

        Args:
            command: the read.
            wanted: for each value to be kept its place and its keys; none where untracked.

        Returns:
            The reply in a list of one, or for several values wanted the list of them, or an error.
        """
        cache = self._cache
        epoch, source = yield ARM
        several = command[0] == b"MGET"
        reservations: list[Reservation | None] = []
        try:
            for place, keys in wanted:
                wants = bool(keys and epoch)
                reservations.append(cache.reserve(place, keys, epoch, source) if wants else None)
            permit = self._tracking.optin and any(reservations)
            asked = [key for _, keys in wanted for key in keys]
            if not cache.server_ttl or not (any(reservations) or self._computations):
                asked = []
            batch: list[Sequence[Word]] = [(b"PTTL", key) for key in asked]
            if permit:  # after PTTL: it covers the next command only
                batch.append(_CACHING_YES)
            batch.append(command)
            started = cache.clock()
            replies = yield from ask(batch, self._retries)
            reply = replies[-1]
            values = reply if several and isinstance(reply, list) else [reply]
            tracked = epoch and not (permit and isinstance(replies[-2], ReplyError))
            if not tracked or (self._tracking.optin and not all(reservations)):
                self._spoil("it read a key that is not tracked")
            pttls = iter(replies[: len(asked)])
            for (_, keys), reservation, value in zip(wanted, reservations, values, strict=False):
                left = [next(pttls) for _ in keys] if asked else []
                if reservation is None or not tracked:
                    continue
                if several and value is None:
                    # GET may have an error where MGET has a null.
                    null = (_NULL, reservation.command[1])  # type: ignore[index]
                    if not cache.rename(reservation, null):
                        continue
                cache.fill(reservation, value, _shortest(self._ttl, left, cache.clock() - started))
            if self._computations:
                # Also what is not kept, as it ended on its way here, ends what is made of it.
                now = cache.clock()
                life = _shortest(self._ttl, replies[: len(asked)], now - started)
                ends = now + (cache.max_ttl if life is None else min(life, cache.max_ttl))
                for computation in self._computations:
                    computation.fetched(source, ends)
            return reply if several else values
        finally:
            for reservation in reservations:
                if reservation is not None:
                    cache.abandon(reservation)  # does nothing after a fill


def _sampled(share: float) -> bool:
    import random  # takes longer to import than those deserve who audit nothing

    return random.random() < share  # noqa: S311 - a sample, no secret


def _shortest(ttl: float | None, pttls: Sequence[Any], elapsed: float) -> float | None:
    """Give the life left to a value by its keys' PTTL replies, from when they were asked."""
    # -1: does not expire; -2: is not there, and its appearance will be announced.
    left = [ms / 1000 - elapsed for ms in pttls if isinstance(ms, int) and ms >= 0]
    return min([*left, ttl] if ttl is not None else left) if left else ttl
