"""Rounds: in each, every implementation runs once, in an order of its own.

pytest-benchmark keeps the clock and the statistics; what it does not have is the interleaving.
"""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._peers import Implementation, Run
    from ._workloads import Musts, Packing, Parsing, Variant

# It has no types, and exports by import only.
Stats = import_module("pytest_benchmark.stats").Stats
default_timer = import_module("pytest_benchmark.timers").default_timer


@dataclass
class Row:
    """One workload in one variant, and the rounds of every implementation on it."""

    group: str
    workload: str
    count: int  # replies or commands that a run handles
    must: Musts
    runs: dict[str, Run]
    keep: bool = False
    settle: bool = False  # whether each run has one before it that is not timed
    own_chunks: bool = False  # whether the workload says what a chunk is, not the variant
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def stats(self, name: str) -> Any:
        """Return what pytest-benchmark makes of the rounds of an implementation."""
        stats = Stats()
        for duration in self.seconds[name]:
            stats.update(duration)
        return stats

    def nanoseconds(self, name: str) -> float | None:
        """Return the time of one reply or command, or None where it was not measured."""
        if name not in self.seconds:
            return None
        return float(self.stats(name).min) / self.count * 1e9

    def ratio(self, ours: str, peer: str) -> float | None:
        """Return how many times as fast as a peer we are."""
        mine, theirs = self.nanoseconds(ours), self.nanoseconds(peer)
        return theirs / mine if mine and theirs else None


def once(run: Run, *, keep: bool = False) -> float:
    """Return the seconds of one run; the results that it keeps are freed after the clock stops."""
    kept: list[Any] | None = [] if keep else None
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        began = default_timer()
        run(kept)
        return float(default_timer() - began)
    finally:
        if enabled:
            gc.enable()


def parsing_row(
    workload: Parsing, variant: Variant, implementations: Sequence[Implementation]
) -> Row:
    """Return a row to measure; every implementation was seen to return every reply."""
    chunks, runs = workload.chunks(variant.chunk), {}
    count = len(workload.replies)
    for implementation in implementations:
        run = implementation.parse(workload, chunks, variant.text)
        if run is None:
            continue
        kept: list[Any] = []
        run(kept)
        if len(kept) != count:
            found = f"{len(kept)} of {count} replies of {workload.name}"
            raise AssertionError(f"{implementation.name} returned {found}")
        runs[implementation.name] = run
    must, keep, settle = variant.must(workload), variant.keep, workload.settle
    own_chunks = workload.chunk is not None
    return Row(variant.name, workload.name, count, must, runs, keep, settle, own_chunks)


def packing_row(workload: Packing, implementations: Sequence[Implementation]) -> Row:
    """Return a row to measure; every implementation was seen to pack the same bytes."""
    runs, expected = {}, None
    for implementation in implementations:
        run = implementation.pack(workload)
        if run is None:
            continue
        kept: list[Any] = []
        run(kept)
        expected = expected or kept
        if kept != expected:
            raise AssertionError(f"{implementation.name} packs {workload.name} otherwise")
        runs[implementation.name] = run
    return Row("packing", workload.name, workload.count, workload.must, runs)


def measure(row: Row, rounds: int, *, enough: float = float("inf")) -> None:
    """Add rounds to a row; to none of an implementation that has taken `enough` seconds of them."""
    measured = list(row.runs)
    taken = dict.fromkeys(measured, 0.0)
    chance = random.Random(sum(map(len, row.seconds.values())))
    # What was there before is none of the collector's business: half the time would go into it.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            # Whoever ran before leaves the allocator and the caches in some state: not always one.
            chance.shuffle(measured)
            for name in measured:
                if taken[name] > enough:
                    continue
                if row.settle:
                    once(row.runs[name], keep=row.keep)
                seconds = once(row.runs[name], keep=row.keep)
                row.seconds.setdefault(name, []).append(seconds)
                taken[name] += seconds
    finally:
        gc.unfreeze()
