"""Simulate: `python -m tests.simulation --schedules 100000`; see --help.

    --schedules N     run so many, from --seed on, on all processors
    --seed N          alone: play this one schedule and tell its story
    --choices LIST    play the schedule of these choices and tell its story
    --mutants         plant each bug of `_mutants` and say which schedule finds it

The first failing schedule is made as plain as it gets and told, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import sys
import time
import warnings
from multiprocessing import get_context

from ._choices import Choices
from ._mutants import MUTANTS
from ._schedule import laboratory, play
from ._shrink import shrink

_BATCH = 250  # schedules between two collections of garbage


def first_failing(first: int, count: int) -> int | None:
    """Run schedules one after the other; give the seed of the first that fails, if one does."""
    with laboratory():
        for seed in range(first, first + count):
            if play(Choices(seed))[0] is not None:
                return seed
            if seed % _BATCH == 0:
                gc.collect()
    return None


def _batch(first: int) -> tuple[int | None, int]:
    return first_failing(first, _BATCH), _BATCH


def run_all(first: int, count: int, jobs: int) -> int | None:
    """Run schedules on several processors; print how many a minute; give a failing seed."""
    began = time.perf_counter()
    done = 0
    starts = range(first, first + count, _BATCH)
    with get_context("fork").Pool(jobs) as pool:
        for failing, ran in pool.imap(_batch, starts):
            done += ran
            if failing is not None:
                pool.terminate()
                return failing
    seconds = time.perf_counter() - began
    print(
        f"{done:,} schedules from seed {first}, nothing violated: {seconds:.1f} s on {jobs} "
        f"processors, {done / seconds * 60:,.0f} a minute"
    )
    return None


def tell(choices: Choices) -> bool:
    """Play a schedule and print its story; tell whether it failed."""
    with laboratory():
        violation, story = play(choices, log=True)
    print("\n".join(story))
    print(f"VIOLATED: {violation}" if violation else "nothing violated")
    return violation is not None


def explain(seed: int) -> None:
    """Print a failing schedule, shrunk."""
    choices = Choices(seed)
    with laboratory():
        play(choices)
        made = choices.made
        plain = shrink(made)
    print(f"seed {seed} fails; of its {len(made)} choices these {len(plain)} are enough:")
    tell(Choices(given=plain))
    print(f"again: python -m tests.simulation --choices '{plain}'".replace(", ", ","))
    print(f"whole: python -m tests.simulation --seed {seed}")


def run_mutants(first: int, count: int) -> int:
    """Plant every mutant; print what finds it; give how many were not found."""
    missed = 0
    for name, planted in MUTANTS.items():
        with planted():
            seed = first_failing(first, count)
        missed += seed is None
        found = f"found by schedule {seed}" if seed is not None else f"NOT FOUND in {count:,}"
        print(f"{name:52} {found}", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} mutants found")
    return missed


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--choices", metavar="LIST")
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # what is cut off in the middle may say so
    if options.choices is not None:
        return int(tell(Choices(given=ast.literal_eval(options.choices))))
    if options.mutants:
        return int(run_mutants(options.seed or 0, options.schedules or 20_000) > 0)
    if options.schedules is None and options.seed is not None:
        return int(tell(Choices(options.seed)))
    failing = run_all(options.seed or 0, options.schedules or 10_000, options.jobs)
    if failing is not None:
        explain(failing)
    return int(failing is not None)


if __name__ == "__main__":
    sys.exit(main())
