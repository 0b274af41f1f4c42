"""Run a target on input after input, in a child process, until time or executions are used up.

The child leaves each input in shared memory before it runs it. So an input that kills the child,
with a segmentation fault of compiled code or by never coming back, is not lost with it.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import random
import signal
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ._inputs import make
from ._lines import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._inputs import Corpus
    from ._lines import Line

T = TypeVar("T")

HANGS = 10.0  # seconds for one input; the slowest take some milliseconds
MINIMISING = 20.0  # seconds for making a failing input smaller
TRACING = 0.1  # of the time goes into inputs that are looked at
LONGEST_TRACED = 1024  # bytes; traced, some take as long as a thousand others
ROOM = 1 << 20  # bytes of shared memory, far above the longest input


class Finding(NamedTuple):
    """An input for which a target fails, made as small as time allowed."""

    data: bytes
    error: str


class Run(NamedTuple):
    """What came of fuzzing one target: how often it ran, what it came to, and what failed."""

    executions: int
    seconds: float
    finding: Finding | None
    traced: int = 0
    lines: frozenset[Line] = frozenset()


class Explored(NamedTuple):
    """What a child tells of its inputs: the failing one, and where the traced ones came to."""

    finding: Finding | None
    traced: int
    lines: set[Line]


def fuzz(
    target: Callable[[bytes], None],
    *,
    corpus: Corpus | None = None,
    pure: Callable[[bytes], None] | None = None,
    seed: int = 0,
    seconds: float | None = None,
    executions: int | None = None,
) -> Run:
    """Run a target until it fails, or for so many seconds or executions.

    Its inputs are made of the corpus, or are choices where there is none. `pure` is the target on
    the pure twins, if that is another: a sample of the inputs runs there as well, traced. The same
    seed makes the same inputs.
    """
    if seconds is None and executions is None:
        raise ValueError("expected seconds, executions or both")
    began = time.monotonic()
    deadline = began + seconds if seconds is not None else None
    inputs = _inputs(seed, corpus)
    count, explored = _explore(target, pure or target, inputs, deadline, executions)
    took = time.monotonic() - began
    failing = explored.finding
    if failing is not None:
        if pure is not None and check(target, failing.data) is None:
            target = pure  # it was the traced one that failed
        failing = minimise(target, failing)
    return Run(count, took, failing, explored.traced, frozenset(explored.lines))


def _inputs(seed: int, corpus: Corpus | None) -> Iterator[bytes]:
    generator = random.Random(seed)
    if corpus is not None:
        yield from corpus.started()
    while True:
        yield make(generator, corpus)


def _explore(
    target: Callable[[bytes], None],
    pure: Callable[[bytes], None],
    inputs: Iterator[bytes],
    deadline: float | None,
    executions: int | None,
) -> tuple[int, Explored]:
    """Run the inputs in a child; return how many it ran, and what it found."""

    def loop(shared: mmap.mmap) -> Explored:
        count = traced = 0
        tracing = 0.0  # seconds
        lines: set[Line] = set()
        began = time.monotonic()
        for data in inputs:
            now = time.monotonic()
            if count == executions or (deadline is not None and now > deadline):
                break
            _leave(shared, count, data)
            error = _failure(target, data)
            count += 1
            if error is None and tracing <= TRACING * (now - began) and len(data) <= LONGEST_TRACED:
                now = time.monotonic()
                error = _failure(lambda data: run_traced(pure, data, lines), data)
                tracing += time.monotonic() - now
                traced += 1
            if error is not None:
                return Explored(Finding(data, error), traced, lines)
        _leave(shared, count, b"")
        return Explored(None, traced, lines)

    with mmap.mmap(-1, ROOM) as shared:
        explored = _in_child(shared, loop)
        count, data = _left(shared)
        if isinstance(explored, int):
            explored = Explored(Finding(data, _died(explored)), 0, set())
        return count + (explored.finding is not None), explored


def minimise(target: Callable[[bytes], None], finding: Finding) -> Finding:
    """Return the finding with as little input as still fails in the same way."""
    deadline = time.monotonic() + MINIMISING
    kind = _kind(finding.error)
    smallest = finding

    def fails(data: bytes) -> bool:
        nonlocal smallest
        error = check(target, data)
        if error is None or _kind(error) != kind:
            return False
        smallest = Finding(data, error)
        return True

    # First less: pieces of half the input down to single bytes. Small pieces are tried everywhere,
    # for a line has to go as a whole.
    size = max(1, len(finding.data) // 2)
    while time.monotonic() < deadline:
        before = len(smallest.data)
        position = 0
        while position < len(smallest.data) and time.monotonic() < deadline:
            data = smallest.data
            if not fails(data[:position] + data[position + size :]):
                position += size if size > 16 else 1
        if size > 1:
            size = size // 2 if size > 16 else size - 1
        elif len(smallest.data) == before:
            break
    for position in range(len(smallest.data)):
        for plain in (b"\x00", b"0", b"a"):
            if smallest.data[position : position + 1] <= plain or time.monotonic() > deadline:
                break
            data = smallest.data
            if fails(data[:position] + plain + data[position + 1 :]):
                break
    return smallest


def check(target: Callable[[bytes], None], data: bytes) -> str | None:
    """Run one input in a child; return what fails, or None."""
    with mmap.mmap(-1, ROOM) as shared:
        answer = _in_child(shared, lambda _: _outcome(target, data))
    if isinstance(answer, int):
        return _died(answer)
    return answer.error if answer is not None else None


def _outcome(target: Callable[[bytes], None], data: bytes) -> Finding | None:
    error = _failure(target, data)
    return None if error is None else Finding(data, error)


def _failure(target: Callable[[bytes], None], data: bytes) -> str | None:
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        target(data)
    except Exception as error:  # noqa: BLE001  # a target fails by raising, whatever it raises
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _in_child(shared: mmap.mmap, work: Callable[[mmap.mmap], T]) -> T | int:
    """Fork; return what `work` returns in the child, or the signal that ended it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.disable()  # a crash is reported once, not at every step of minimising
            os.close(reader)
            answer = pickle.dumps(work(shared))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            status = 0
        except KeyboardInterrupt:
            pass
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if status:
        raise RuntimeError("the child of the fuzzer failed; see above")
    result: T = pickle.loads(answer)
    return result


def _leave(shared: mmap.mmap, count: int, data: bytes) -> None:
    shared[:12] = count.to_bytes(8) + len(data).to_bytes(4)
    shared[12 : 12 + len(data)] = data


def _left(shared: mmap.mmap) -> tuple[int, bytes]:
    size = int.from_bytes(shared[8:12])
    return int.from_bytes(shared[:8]), shared[12 : 12 + size]


def _died(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name}: no end after {HANGS:.0f} s" if name == "SIGALRM" else f"{name}: it crashed"


def _kind(error: str) -> str:
    return error.partition(":")[0]
