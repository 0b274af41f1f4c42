"""What was measured, as one table, as JSON, and held against what must be.

A cell is the ratio of hiredis' time to an implementation's: above 1 is faster than hiredis. What
it must reach stands in brackets behind it, with a mark where it is below.
"""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any, NamedTuple

from ._peers import NAMES
from ._workloads import (
    COMPILED_FLOOR,
    LINEAR,
    PURE_FLOOR,
    PURE_MEAN,
    PURE_MEAN_ROWS,
    TEXT,
    VARIANTS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._measure import Row
    from ._peers import Implementation
    from ._workloads import Side

COMPILED, COMPILED_ONE, PURE, PURE_ONE, HIREDIS, LIBVALKEY, REDIS_PY, _ = NAMES

# Which of ours against which peer a must is about.
SIDES: dict[Side, tuple[str, str]] = {
    "compiled": (COMPILED, HIREDIS),
    "compiled one": (COMPILED_ONE, HIREDIS),
    "compiled libvalkey": (COMPILED, LIBVALKEY),
    "pure": (PURE, REDIS_PY),
    "pure hiredis": (PURE, HIREDIS),
}
FLOORS = {
    (COMPILED, HIREDIS): COMPILED_FLOOR,
    (COMPILED, LIBVALKEY): COMPILED_FLOOR,
    (COMPILED_ONE, HIREDIS): COMPILED_FLOOR,
    (COMPILED_ONE, LIBVALKEY): COMPILED_FLOOR,
    (PURE, REDIS_PY): PURE_FLOOR,
}
# redis-py's packer leaves a large value where it is, in a list of parts: that is not packing it.
PACKING_FLOORS = {pair: floor for pair, floor in FLOORS.items() if REDIS_PY not in pair}
LOOPS = {"iterations": 1}  # a round is one run
OURS = (COMPILED, COMPILED_ONE, PURE)


# What is reached where the must is not. The table marks it as missed; the quick form holds it to
# this, so that it does not get worse. Why it is not more:
# - the pure codec's musts beside hiredis were set where hiredis is 10 times as fast as redis-py's
#   parser; here it is 15 times as fast, and Python as slow to both of ours;
# - nested lists: to make and free as many with the C API alone is no faster;
# - bulks of 100 KiB: see the workload.
REACHED = {
    ("integers", PURE, HIREDIS): 0.33,
    ("bulks of 10 B", PURE, HIREDIS): 0.6,
    ("bulks of 0-40 B", PURE, HIREDIS): 0.54,
    ("small replies, mixed", PURE, HIREDIS): 0.25,
    ("arrays of 10, 20 % null", PURE, HIREDIS): 0.15,
    ("maps of 10 pairs", PURE, HIREDIS): 0.65,
    ("bulks of 100 KiB", PURE, REDIS_PY): 2.8,
    ("64 levels of nesting", COMPILED, HIREDIS): 0.95,
}


class Check(NamedTuple):
    """A ratio that was promised; `found` is None where one of the two is absent.

    `reached` is what it is known to be where that is less than it must be.
    """

    where: str
    what: str
    found: float | None
    must: float
    reached: float | None = None

    def misses(self) -> bool:
        """Whether it is known to be below what it must be."""
        return self.found is not None and self.found < self.must

    def fails(self, share: float) -> bool:
        """Whether it is known to be below this share of what it must be, or is known to be."""
        return self.found is not None and self.found < share * (self.reached or self.must)

    def __str__(self) -> str:
        found = "absent" if self.found is None else f"{self.found:.2f}"
        return f"{self.where}: {self.what} is {found}, must be {self.must:g}"


def checks(row: Row) -> Iterator[Check]:
    """Yield what a row must show."""
    musts = {SIDES[side]: must for side, must in row.must.items()}
    floors = FLOORS if row.group != "packing" else PACKING_FLOORS
    for (ours, peer), must in {**floors, **musts}.items():
        if ours in row.runs or (ours, peer) in musts:
            where = f"{row.workload} ({row.group})"
            reached = REACHED.get((row.workload, ours, peer))
            yield Check(where, f"{ours} to {peer}", row.ratio(ours, peer), must, reached)


def checks_across(rows: Sequence[Row]) -> Iterator[Check]:
    """Yield what rows must show beside each other: linear time, and str near bytes."""
    found = {(row.group, row.workload): row for row in rows}
    usual, kept, text, _, small, whole = (variant.name for variant in VARIANTS)
    for (group, workload), row in found.items():
        base = found.get(({small: usual, whole: kept, text: usual}.get(group, ""), workload))
        if base is None:
            continue
        if group == text:
            yield _within(row, base, PURE, TEXT)
        else:
            for name in OURS:
                yield _within(row, base, name, LINEAR)


def checks_overall(rows: Sequence[Row]) -> Iterator[Check]:
    """Yield what all rows together must show: the pure codec's mean over the usual variant."""
    usual = [row for row in rows if row.group == VARIANTS[0].name and not row.own_chunks]
    for peer, must in PURE_MEAN.items():
        ours, theirs = SIDES[peer]
        ratios = [row.ratio(ours, theirs) for row in usual if row.must.get("pure")]
        known = [ratio for ratio in ratios if ratio is not None]
        # Of some rows it says nothing: --only, or a peer that is absent.
        if len(known) == PURE_MEAN_ROWS:
            what = f"{ours} to {theirs}"
            yield Check(f"geometric mean of {len(known)}", what, geometric_mean(known), must)


def _within(row: Row, base: Row, name: str, factor: float) -> Check:
    here, there = row.nanoseconds(name), base.nanoseconds(name)
    ratio = there / here if here and there else None
    where = f"{row.workload} ({row.group})"
    return Check(where, f"{name} to itself ({base.group})", ratio, 1 / factor)


def table(rows: Sequence[Row], implementations: Sequence[Implementation]) -> str:
    """Return the table, a section for each variant."""
    present = {implementation.name for implementation in implementations}
    heads = ("compiled", "one by one", "pure", "one by one", *NAMES[5:], "pure/redis-py")
    lines: list[str] = []
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"{group:<28}{'hiredis':>12}" + "".join(f"{head:>14}" for head in heads)]
        for row in rows:
            if row.group == group:
                lines.append(_line(row, present))
    absent = [name for name in NAMES if name not in present]
    if absent:
        lines += ["", f"absent, not importable here: {', '.join(absent)}"]
    return "\n".join(lines).strip("\n")


def _line(row: Row, present: set[str]) -> str:
    held = {(check.what): check for check in checks(row)}
    names = (*NAMES[:4], *NAMES[5:])
    cells = [_cell(row, name, HIREDIS, held, present) for name in names]
    cells.append(_cell(row, PURE, REDIS_PY, held, present))
    time = row.nanoseconds(HIREDIS)
    shown = "absent" if time is None else f"{time:,.0f} ns"
    return f"{row.workload:<28}{shown:>12}" + "".join(f"{cell:>14}" for cell in cells)


def _cell(row: Row, ours: str, peer: str, held: dict[str, Check], present: set[str]) -> str:
    ratio = row.ratio(ours, peer)
    if ratio is None:
        return "absent" if not {ours, peer} <= present else "-"
    check = held.get(f"{ours} to {peer}")
    text = f"{ratio:.2f}"
    if check is None:
        return text
    return f"{text}{'!' if check.misses() else ''} ({check.must:g})"


def as_json(
    rows: Sequence[Row], implementations: Sequence[Implementation], command: Sequence[str]
) -> str:
    """Return the figures in pytest-benchmark's format, with versions, machine and command."""
    benchmarks = []
    for row in rows:
        for name in row.seconds:
            stats = row.stats(name).as_dict()
            extra: dict[str, Any] = {"count": row.count, "ns_each": row.nanoseconds(name)}
            extra |= {
                "to_hiredis": row.ratio(name, HIREDIS),
                "to_redis_py": row.ratio(name, REDIS_PY),
            }
            test = f"{row.workload} - {name}"
            benchmarks.append(
                {
                    "group": f"{row.group}: {row.workload}",
                    "name": test,
                    "fullname": f"{row.group}: {test}",
                    "params": {
                        "variant": row.group,
                        "workload": row.workload,
                        "implementation": name,
                    },
                    "param": None,
                    "extra_info": extra,
                    "options": {"disable_gc": True, "timer": "thread_time"},
                    "stats": {**{key: _short(value) for key, value in stats.items()}, **LOOPS},
                }
            )
    found = {
        "machine_info": machine(),
        "commit_info": {},
        "benchmarks": benchmarks,
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("pytest-benchmark"),
        "versions": {each.name: each.version for each in implementations},
        "absent": [name for name in NAMES if name not in {each.name for each in implementations}],
        "command": " ".join(command),
    }
    lines = [json.dumps(benchmark) for benchmark in found.pop("benchmarks")]
    head = json.dumps(found, indent=1).removesuffix("\n}")
    return f'{head},\n "benchmarks": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def _short(value: Any) -> Any:
    """Return a figure with as many digits as a clock can give it."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def machine() -> dict[str, str]:
    """Return what the figures depend on, and nothing that names the machine or its owner."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu(),
        "python_implementation": platform.python_implementation(),
        "python_version": platform.python_version(),
        "python_compiler": platform.python_compiler(),
    }


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
