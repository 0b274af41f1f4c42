"""The targets hold for a fixed set of inputs, and the runner finds a bug where there is one.

A fuzzer that finds nothing has shown nothing until it was seen to find something: so bugs are
planted, one of each kind that it looks for.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import resp

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # behind the installed packages: what is tested stays what it was

from fuzz import _runner as runner  # noqa: E402
from fuzz._inputs import REPLIES, Corpus  # noqa: E402
from fuzz._lines import summary  # noqa: E402
from fuzz._runner import fuzz  # noqa: E402
from fuzz._targets import (  # noqa: E402
    COMPILED,
    CORPORA,
    PARITY,
    TARGETS,
    any_cut,
    commands,
    encoder_twins,
    round_trip,
    twins,
)

EXECUTIONS = 1500


def planted(**names: Any) -> Any:
    """Return the codec with something replaced."""
    return SimpleNamespace(**{**{name: getattr(resp, name) for name in resp.__all__}, **names})


def run(target: Callable[[bytes], None], *, stream: bool, executions: int = 50_000) -> runner.Run:
    corpus = REPLIES if stream else None
    return fuzz(target, corpus=corpus, seed=7, seconds=60, executions=executions)


@pytest.mark.parametrize("name", TARGETS)
def test_target_holds(name: str) -> None:
    if name in PARITY and COMPILED is None:
        pytest.skip("the compiled twin is not importable")
    found = fuzz(TARGETS[name], corpus=CORPORA.get(name), seed=7, executions=EXECUTIONS)
    assert found.finding is None
    assert found.executions == EXECUTIONS


@pytest.mark.parametrize("name", sorted(PARITY))
def test_parity_holds_of_an_implementation_with_itself(name: str) -> None:
    target = {"twins": twins, "encoder_twins": encoder_twins}[name]
    found = run(
        partial(target, first=resp.pure, second=resp), stream=name == "twins", executions=500
    )
    assert found.finding is None


class LosesAtCut(resp.Parser):
    """Forget a chunk that is a lone LF."""

    def feed(self, data: Any) -> None:
        if data != b"\n":
            super().feed(data)


class Lenient(resp.Parser):
    """Take what int() takes."""

    def feed(self, data: Any) -> None:
        super().feed(bytes(data).replace(b"_", b"0") if b":1_" in data else data)


def test_value_lost_at_a_cut_is_found_and_made_small() -> None:
    finding = run(partial(any_cut, codec=planted(Parser=LosesAtCut)), stream=True).finding
    assert finding is not None
    assert finding.error.startswith("AssertionError: ")
    assert len(finding.data) <= 5  # two bytes of header, and the shortest line


@pytest.mark.heavy
def test_difference_of_twins_is_found() -> None:
    target = partial(twins, first=resp.pure, second=planted(Parser=Lenient))
    finding = run(target, stream=True).finding
    assert finding is not None
    assert b":1_" in finding.data


def test_value_changed_by_encoding_is_found() -> None:
    def encode(value: Any, *, protocol: int = 3) -> bytes:
        return resp.encode(value, protocol=protocol).replace(b"#t", b":1")

    finding = run(partial(round_trip, codec=planted(encode=encode)), stream=False).finding
    assert finding is not None
    assert "RESP3" in finding.error


@pytest.mark.heavy
def test_difference_of_encoders_is_found() -> None:
    def encode_command(*args: Any) -> bytes:
        return resp.encode_command(*(1 if arg is True else arg for arg in args))

    lenient = planted(encode_command=encode_command)
    assert run(partial(commands, codec=lenient), stream=False).finding is not None
    target = partial(encoder_twins, first=resp.pure, second=lenient)
    assert run(target, stream=False).finding is not None


def test_input_that_kills_the_process_is_found() -> None:
    def crash(data: bytes) -> None:
        if b"|" in data:
            os.kill(os.getpid(), signal.SIGSEGV)

    found = run(crash, stream=True)
    assert found.finding == (b"|", "SIGSEGV: it crashed")


def test_input_that_does_not_come_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(data: bytes) -> None:
        if b"|" in data:
            time.sleep(60)

    monkeypatch.setattr(runner, "HANGS", 0.1)
    finding = run(hang, stream=True).finding
    assert finding is not None
    assert finding.data == b"|"
    assert finding.error.startswith("SIGALRM: no end")


def test_what_fails_on_the_pure_twin_alone_is_found() -> None:
    def broken(data: bytes) -> None:
        assert b"|" not in data

    finding = fuzz(lambda _: None, corpus=REPLIES, pure=broken, seed=7, seconds=60).finding
    assert finding is not None
    assert (finding.data, finding.error[:16]) == (b"|", "AssertionError: ")


def test_lines_that_the_inputs_come_to_are_told() -> None:
    def target(_: bytes) -> None:
        resp.pure.parse(b":1\r\n")

    found = fuzz(target, seed=7, executions=1)
    assert found.traced == 1
    files = {Path(file) for file, _ in found.lines}
    assert {file.parent.name for file in files} == {"resp"}
    told = re.findall(r"resp/(\w+)\.py (\d+) of (\d+)", summary(set(found.lines)))
    assert [f"{name}.py" for name, *_ in told] == sorted(file.name for file in files)
    assert all(0 < int(reached) <= int(there) for _, reached, there in told)


def test_same_seed_makes_the_same_inputs() -> None:
    def refuse(_: bytes) -> None:
        raise ValueError

    first, again = (run(refuse, stream=False) for _ in range(2))
    assert first.executions == again.executions == 1
    inputs = [runner._inputs(seed, Corpus((b"+OK\r\n",), (b"\n",))) for seed in (1, 1, 2)]
    one, same, other = ([next(each) for _ in range(50)] for each in inputs)
    assert one == same != other


def command_line(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_command_line_names_seed_executions_and_absent_twins() -> None:
    environment = {**os.environ, "RESP_PURE_PYTHON": "1"}
    status, output = command_line("--executions", "20", "--seed", "3", environment=environment)
    assert status == 0, output
    assert "seed 3" in output
    assert "any_cut: 20 executions" in output
    assert re.search(r"[1-9]\d* lines in the [1-9]\d* that were traced", output)
    assert re.search(r"resp/_parser.py [1-9]\d* of \d+", output)
    assert "twins: absent" in output


def test_command_line_fails_for_an_absent_target_asked_for() -> None:
    environment = {**os.environ, "RESP_PURE_PYTHON": "1"}
    arguments = ("--executions", "20", "--target", "twins")
    status, output = command_line(*arguments, environment=environment)
    assert (status, "twins: absent" in output) == (1, True), output


def test_command_line_runs_one_literal() -> None:
    status, output = command_line("--target", "any_cut", "--input", r"b'\0\0+OK\r\n'")
    assert (status, output.splitlines()[-1]) == (0, "any_cut: ok"), output
