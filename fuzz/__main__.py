"""Fuzz codec and client: `python -m fuzz --seconds 60 --seed 7 --target any_cut`; see --help.

Every target runs for its share of the time. A finding is printed as a Python literal, with the
command that runs it again, and the exit status is 1. A target that compares the twins is left out,
and said to be, where the compiled one can't be imported; asked for by name, it fails.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shlex
import sys
import tempfile
from importlib import import_module
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets (60)")
    parser.add_argument("--executions", type=int, help="of each target, instead of seconds")
    parser.add_argument("--seed", type=int, help="of the inputs; one is chosen and printed")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this (repeatable)")
    parser.add_argument("--input", metavar="LITERAL", help="run a target on one bytes literal")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage (libFuzzer)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**32)

    if options.atheris:
        try:
            atheris = import_module("atheris")
        except ImportError:
            parser.error("atheris is not installed; pip install 'resp-client[fuzz]' brings it")
        with atheris.instrument_imports(include=["resp", "client"]):
            import client  # noqa: F401
            import resp.pure

    import resp
    from fuzz._targets import COMPILED, PARITY, PURE_TARGETS, TARGETS

    for name in options.target or ():
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    names = [name for name in options.target or TARGETS if COMPILED or name not in PARITY]
    print(f"resp: {resp.implementation}, seed {options.seed}", flush=True)

    if options.input is not None:
        data = ast.literal_eval(options.input)
        if not isinstance(data, bytes) or len(names) != 1:
            parser.error("--input needs a bytes literal and one --target")
        for target in TARGETS[names[0]], PURE_TARGETS[names[0]]:
            target(data)
        print(f"{names[0]}: ok")
        return 0

    failed = False
    lines: set[tuple[str, int]] = set()
    for name in options.target or TARGETS:
        if name not in names:
            print(f"{name}: absent, the compiled twin is not importable", flush=True)
            failed = failed or options.target is not None
        elif options.atheris:
            failed = _atheris(name, options.seconds / len(names), options.seed) or failed
        else:
            failed = _standard(name, options, len(names), lines) or failed
    if lines:
        from fuzz._lines import summary

        print("lines of their functions that those that were traced came to:")
        print(summary(lines))
    return int(failed)


def _standard(
    name: str, options: argparse.Namespace, share: int, lines: set[tuple[str, int]]
) -> bool:
    """Run one target with our own runner, add the lines reached; return whether it failed."""
    from fuzz._runner import fuzz
    from fuzz._targets import CORPORA, PURE_TARGETS, TARGETS

    seconds = options.seconds / share if options.executions is None else None
    run = fuzz(
        TARGETS[name],
        corpus=CORPORA.get(name),
        pure=PURE_TARGETS[name],
        seed=options.seed,
        seconds=seconds,
        executions=options.executions,
    )
    lines |= run.lines
    print(
        f"{name}: {run.executions:,} executions in {run.seconds:.1f} s, "
        f"{len(run.lines):,} lines in the {run.traced:,} that were traced, "
        f"{'ok' if run.finding is None else 'FAILED'}",
        flush=True,
    )
    if run.finding is not None:
        _show(name, run.finding.data, run.finding.error)
    return run.finding is not None


def _atheris(name: str, seconds: float, seed: int) -> bool:
    """Run one target under atheris, in a child: its `Fuzz()` never returns."""
    from fuzz._targets import CORPORA, PURE_TARGETS

    target = PURE_TARGETS[name]  # nothing is seen of what is compiled, and so nothing guides
    atheris = import_module("atheris")
    with tempfile.TemporaryDirectory() as folder:
        found, said = Path(folder, "found"), Path(folder, "said")
        corpus, dictionary = Path(folder, "corpus"), Path(folder, "dictionary")
        for directory in found, corpus:
            directory.mkdir()
        arguments = [
            "fuzz",
            f"-max_total_time={max(1, round(seconds))}",
            f"-seed={seed % 2**32 or 1}",
            "-timeout=20",
            "-max_len=4096",
            "-print_final_stats=1",
            f"-artifact_prefix={found}{os.sep}",
        ]
        if (given := CORPORA.get(name)) is not None:
            for number, data in enumerate(given.started()):
                corpus.joinpath(f"{number}").write_bytes(data)
            words = ("".join(f"\\x{byte:02x}" for byte in token) for token in given.tokens)
            dictionary.write_text("".join(f'"{word}"\n' for word in words))
            arguments.append(f"-dict={dictionary}")

        def watched(data: bytes) -> None:
            try:
                target(data)
            except Exception:  # noqa: BLE001  # a target fails by raising, whatever it raises
                found.joinpath("failing").write_bytes(data)
                os._exit(1)

        child = os.fork()
        if not child:
            try:
                with said.open("wb") as file:
                    os.dup2(file.fileno(), 2)
                atheris.Setup([*arguments, str(corpus)], watched)
                atheris.Fuzz()
            finally:  # a crash leaves its input there by libFuzzer's own hand
                os._exit(0)
        _, status = os.waitpid(child, 0)
        failing = [*found.iterdir()]
        failed = bool(status or failing)
        log = said.read_text(errors="replace")
        print(f"{name}: {_last_words(log)}, {'FAILED' if failed else 'ok'}", flush=True)
        if failed and not failing:
            print(log[-2000:])
        for path in failing:
            _minimised(name, path.read_bytes())
    return failed


def _last_words(log: str) -> str:
    """Say what libFuzzer told last: its executions, and the branches and edges that it counts."""
    told = re.findall(r"^#(\d+)\s.* cov: (\d+) ft: (\d+) corp: (\d+)", log, re.MULTILINE)
    if not told:
        return "libFuzzer told nothing"
    executions, edges, features, kept = map(int, told[-1])
    return (
        f"{executions:,} executions under atheris, {edges:,} edges and {features:,} features "
        f"covered, {kept:,} inputs kept for it"
    )


def _minimised(name: str, data: bytes) -> None:
    from fuzz._runner import Finding, check, minimise
    from fuzz._targets import PURE_TARGETS

    error = check(PURE_TARGETS[name], data) or "it does not fail again"
    _show(name, *minimise(PURE_TARGETS[name], Finding(data, error)))


def _show(name: str, data: bytes, error: str) -> None:
    print(f"  input  {data!r}")
    print(f"  error  {error if len(error) < 2000 else error[:2000] + ' ...'}")
    print(f"  again  python -m fuzz --target {name} --input {shlex.quote(repr(data))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
