"""Knows what each key may have held, and when: what falls into that time is right.

A value's time begins before its write is sent, and ends when the next write is acknowledged.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds for which a value that is over is remembered: longer than any call takes.
_MEMORY = 30.0


class Wrong(AssertionError):
    """A reply that should not be."""


class Possible:
    """A value that a key may hold: None for no key. Times are of `time.monotonic()`."""

    __slots__ = ("acknowledged", "since", "until", "value")

    def __init__(self, value: bytes | None) -> None:
        self.value = value
        self.since = time.monotonic()
        self.acknowledged = inf
        self.until = inf


def text_of(key: str, number: int) -> bytes:
    """Give the value that says what it must match."""
    return b"%s=%d" % (key.encode(), number)


class Judge:
    """Is told of every write before it is sent and after its reply; judges every read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, list[Possible]] = {}
        self._losing = 0
        self._lost = 0.0  # when the last loss was over
        self.judged = 0

    def begin(self, key: str, value: bytes | None) -> Possible:
        """Call it before a write is sent: from now on the key may hold this."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = [Possible(None)]
                known[0].since = 0.0
            possible = Possible(value)
            known.append(possible)
            return possible

    def done(self, key: str, possible: Possible) -> None:
        """Call it after its reply: from now on the key holds nothing else."""
        with self._lock:
            now = possible.acknowledged = time.monotonic()
            # What takes keys away may have come behind the write.
            spared = self._losing or self._lost >= possible.since
            for other in self._known[key]:
                if other is not possible and not (spared and other.value is None):
                    other.until = min(other.until, now)
            known = self._known[key]
            self._known[key] = [each for each in known if each.until > now - _MEMORY]

    def forget(self, key: str) -> None:
        """Say nothing of a key any more."""
        with self._lock:
            self._known.pop(key, None)

    def undone(self, key: str, possible: Possible) -> None:
        """Call it instead if the server has refused the write."""
        with self._lock:
            self._known[key].remove(possible)

    def may_go(self, key: str) -> None:
        """Call it before a key is given a time to live."""
        self.begin(key, None)

    @contextmanager
    def loss(self, *, total: bool) -> Iterator[None]:
        """Any key may go in here; if `total`, all that was there before are gone at the end."""
        with self._lock:
            began = time.monotonic()
            self._losing += 1
            for known in self._known.values():
                known.append(Possible(None))
        try:
            yield
        except BaseException:
            total = False  # it may not have happened
            raise
        finally:
            with self._lock:
                now = self._lost = time.monotonic()
                self._losing -= 1
                for known in self._known.values():
                    for each in known:
                        if total and each.value is not None and each.acknowledged < began:
                            each.until = min(each.until, now)

    def check(self, key: str, value: Any, asked: float, bound: float) -> None:
        """Judge what a read gave that was asked for at a time, and may be so many seconds old.

        Raises:
            Wrong: it belongs to another key, was never there, or was over too long before.
        """
        self.judged += 1
        if value is not None and not value.startswith(b"%s=" % key.encode()):
            raise Wrong(f"asked for {key}, got {value!r}")
        with self._lock:
            known = self._known.get(key, ())
            ends = [each.until for each in known if each.value == value]
        if not ends:
            if value is None and not known:
                return  # nobody has written it yet
            raise Wrong(f"{key} never was {value!r}, or over {_MEMORY:g} s ago")
        if max(ends) < asked - bound:
            raise Wrong(
                f"{key} was {value!r} until {asked - max(ends):.3f} s before it was asked for; "
                f"{bound:g} s are allowed"
            )
