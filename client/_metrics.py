"""Counts and latencies of a client, for whoever exports them.

A `Metrics` given to `connect` is told of every round trip; without one nothing is counted and the
calls cost nothing more. `snapshot` gives what an exporter needs; `client.prometheus` and
`client.opentelemetry` are exporters on those projects' own libraries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from ._commands import find_command
from ._session import Word, role_word

# Upper bounds in seconds, from a loopback's fastest reply to the usual time-out.
BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip

# What exporters show of `CacheStats`: what only grows, and what is held now.
CACHE_COUNTS = (
    "hits", "misses", "fills", "refused_fills", "waits", "invalidations", "evictions",
    "expirations", "flushes", "audits", "stale",
)  # fmt: skip
CACHE_GAUGES = ("entries", "bytes")


class Latency(NamedTuple):
    """How long the round trips of one kind took.

    Attributes:
        buckets: how many took at most `BUCKETS[i]` seconds and more than the one before; the last
            one, how many took longer.
        seconds: their sum.
    """

    buckets: tuple[int, ...]
    seconds: float

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.buckets)


class Snapshot(NamedTuple):
    """What a `Metrics` counted.

    Attributes:
        commands: how often each command was sent, by its name; "other" for one that is not in the
            table of commands, so that the names stay few.
        latencies: of round trips, by the name of the command, or "pipeline" for several.
        failures: round trips without a reply, by the class of the error.
        errors: error replies, by their code.
        bytes_sent, bytes_received: on all connections.
        connects: connections made.
        losses: connections lost, by the class of the error.
    """

    commands: dict[str, int]
    latencies: dict[str, Latency]
    failures: dict[str, int]
    errors: dict[str, int]
    bytes_sent: int
    bytes_received: int
    connects: int
    losses: dict[str, int]


class Metrics:
    """Counts what a client does. One may serve several clients; it is thread-safe.

    Subclass it and override the methods whose names begin with `on_` to be told of each event
    instead; they are called on the way of each call, and must neither wait nor raise.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._commands: dict[str, int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._sent = self._received = self._connects = 0

    def on_roundtrip(
        self, commands: Sequence[Sequence[Word]], seconds: float, failure: BaseException | None
    ) -> None:
        """Take note of commands that were sent together, and of why there is no reply, if so."""
        names = [name_of(command) for command in commands]
        kind = names[0] if len(names) == 1 else "pipeline"
        with self._lock:
            for name in names:
                self._commands[name] = self._commands.get(name, 0) + 1
            if failure is not None:
                _count(self._failures, type(failure).__name__)
                return
            buckets = self._buckets.get(kind)
            if buckets is None:
                buckets = self._buckets[kind] = [0] * (len(BUCKETS) + 1)
            buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def on_error(self, code: str) -> None:
        """Take note of an error reply."""
        with self._lock:
            _count(self._errors, code)

    def on_bytes(self, sent: int, received: int) -> None:
        """Take note of what went over a connection."""
        with self._lock:
            self._sent += sent
            self._received += received

    def on_connect(self) -> None:
        """Take note of a connection that was made."""
        with self._lock:
            self._connects += 1

    def on_loss(self, error: BaseException) -> None:
        """Take note of a connection that was lost."""
        with self._lock:
            _count(self._losses, type(error).__name__)

    def snapshot(self) -> Snapshot:
        """Give what was counted so far."""
        with self._lock:
            return Snapshot(
                dict(self._commands),
                {
                    kind: Latency(tuple(buckets), self._seconds[kind])
                    for kind, buckets in self._buckets.items()
                },
                dict(self._failures),
                dict(self._errors),
                self._sent,
                self._received,
                self._connects,
                dict(self._losses),
            )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def name_of(command: Sequence[Word]) -> str:
    """Give the name under which a command is counted."""
    words = [role_word(word).encode("latin-1", "replace") for word in command[:2]]
    found = find_command(words)
    return found.name.lower() if found is not None else "other"
