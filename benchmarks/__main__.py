"""Measure the codec beside its peers: `python -m benchmarks`; see --help.

Without --quick all workloads are measured in all variants, and the figures and pictures are
written to docs/benchmarks. With --quick only what has a must is measured, nothing is written, and
the exit status is 1 if a cell is below 0.8 of its must, or of what is known to be reached where
that is less (`_report.REACHED`), so that noise does not fail it: one that is below was measured
several times, later ones with what else was below, and all rounds count.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from ._measure import Row, measure, packing_row, parsing_row
from ._peers import NAMES, Implementation, load
from ._report import (
    HIREDIS,
    REDIS_PY,
    as_json,
    checks,
    checks_across,
    checks_overall,
    machine,
    table,
)
from ._workloads import VARIANTS, packing, parsing, sized

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._report import Check

SHARE = 0.8  # of a must, below which the quick form fails
AGAIN = 3  # times that the quick form measures a failing row again, before it believes it
ENOUGH = 0.15  # seconds of one cell, after which the quick form goes on to the next
LONGEST = 15  # seconds for all that is measured again: what is slow, not disturbed, is many rows
NOT_QUICK = ("resp pure, one at a time", "coredis")


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="what has a must, in seconds")
    parser.add_argument("--rounds", type=int, help="of each cell (7; quick 5)")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="workloads with it in their name"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="docs/benchmarks")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 7)

    implementations = load()
    print(_versions(implementations), flush=True)
    if options.quick:
        return _quick(options.only, rounds, implementations)

    rows = []
    for row in _rows(options.only, implementations):
        if sys.stderr.isatty():
            print(f"  {row.group}: {row.workload}\x1b[K", end="\r", file=sys.stderr, flush=True)
        measure(row, rounds)
        row.runs = dict.fromkeys(row.runs, _spent)  # lets go of the bytes
        rows.append(row)
    if sys.stderr.isatty():
        print("\x1b[K", end="", file=sys.stderr)
    text = table(rows, implementations)
    print(f"{text}\n")
    below = [check for row in rows for check in checks(row) if check.misses()]
    below += [check for check in checks_across(rows) if check.misses()]
    below += [check for check in checks_overall(rows) if check.misses()]
    for check in below:
        print(f"below: {check}")
    print(f"{len(below)} figures below what they must be")
    if options.output or not options.only:
        folder = options.output or Path("docs/benchmarks")
        _write(folder, text, rows, implementations)
        print(f"written: {folder}")
    return 0


def _rows(only: str, implementations: Sequence[Implementation]) -> Iterator[Row]:
    """Make the rows one at a time: all their bytes together are some hundred megabytes."""
    for variant in VARIANTS:
        for workload in parsing():
            if only in workload.name and sized(workload, variant):
                yield parsing_row(workload, variant, implementations)
    for command in packing():
        if only in command.name:
            yield packing_row(command, implementations)


def _quick(only: str, rounds: int, implementations: Sequence[Implementation]) -> int:
    """Measure what has a must; return 1 if it is missed by far, or if it can't be known."""
    chosen = [each for each in implementations if each.name not in NOT_QUICK]
    rows = []
    for row in _quick_rows(only, chosen):
        measure(row, rounds, enough=ENOUGH)
        if not _missed(row):
            row.runs = dict.fromkeys(row.runs, _spent)
        rows.append(row)
    # A disturbance lasts, and the one round that a peer had without it stands: a row that is
    # measured again at once would meet the same.
    again = [row for row in rows if _missed(row)]
    end = monotonic() + LONGEST
    for turn in range(1, AGAIN + 1):
        if any(map(_missed, again)):
            sleep(turn)
        for row in again:
            if _missed(row) and monotonic() < end:
                before = "; ".join(map(str, _missed(row)))
                measure(row, rounds, enough=ENOUGH)
                after = "; ".join(map(str, _missed(row))) or "it holds"
                print(f"measured again ({turn} of {AGAIN}): {before}; now: {after}", flush=True)
    failing = [check for row in rows for check in _missed(row)]
    failing += [check for check in checks_overall(rows) if check.fails(SHARE)]
    print(table(rows, implementations))
    for check in failing:
        print(f"FAILED: {check}; this is below {SHARE:g} of it")
    present = {each.name for each in implementations}
    unknown = [peer for peer in (HIREDIS, REDIS_PY) if peer not in present]
    if unknown:
        print(f"FAILED: nothing is known without {' and '.join(unknown)}")
    held = sum(check.found is not None for row in rows for check in checks(row))
    held += sum(check.found is not None for check in checks_overall(rows))
    print(f"{held - len(failing)} figures hold, {len(failing)} do not")
    return int(bool(failing or unknown or not held))


def _missed(row: Row) -> list[Check]:
    return [check for check in checks(row) if check.fails(SHARE)]


def _quick_rows(only: str, implementations: Sequence[Implementation]) -> Iterator[Row]:
    for variant in VARIANTS:
        for workload in parsing():
            if variant.must(workload) and sized(workload, variant) and only in workload.name:
                yield parsing_row(workload, variant, implementations)
    for command in packing():
        if only in command.name:
            yield packing_row(command, implementations)


def _spent(_: object) -> None:
    raise AssertionError("the bytes of this row are gone")


def _versions(implementations: Sequence[Implementation]) -> str:
    shown = [f"{each.name} {each.version}" for each in implementations if "one at" not in each.name]
    absent = [name for name in NAMES if name not in {each.name for each in implementations}]
    about = machine()
    python = f"{about['python_implementation']} {about['python_version']}"
    lines = [f"{python}, {about['system']} {about['machine']}, {about['cpu']}", ", ".join(shown)]
    return "\n".join(lines + ([f"absent: {', '.join(absent)}"] if absent else []))


def _write(
    folder: Path, text: str, rows: Sequence[Row], implementations: Sequence[Implementation]
) -> None:
    from ._picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    command = ["python", "-m", "benchmarks", *sys.argv[1:]]
    head = f"{datetime.now(UTC):%Y-%m-%d}, {_versions(implementations)}"
    folder.joinpath("results.json").write_text(as_json(rows, implementations, command))
    folder.joinpath("table.txt").write_text(f"{head}\n\n{text}\n")
    caption = head.replace("\n", "  \u00b7  ", 1)
    usual = VARIANTS[0].name
    parsed = [row for row in rows if row.group == usual]
    packed = [row for row in rows if row.group == "packing"]
    if parsed:
        title = f"Parsing: speed as a multiple of hiredis ({usual}; longer is better)"
        draw(folder / "parsing.svg", title, caption, parsed)
    if packed:
        title = "Packing: speed as a multiple of hiredis (longer is better)"
        draw(folder / "packing.svg", title, caption, packed)


if __name__ == "__main__":
    sys.exit(main())
