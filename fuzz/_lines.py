"""Which lines of codec and client inputs run, looked at with what every Python has.

A trace function costs some twenty times what the code itself does, so only a sample of the inputs
runs under it. And it sees Python alone: of the codec, those are the pure twins.
"""

from __future__ import annotations

import os
import sys
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

import client
import resp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Line = tuple[str, int]  # file and number

ROOMS = tuple(f"{package.__path__[0]}{os.sep}" for package in (resp, client))


def run_traced(target: Callable[[bytes], None], data: bytes, lines: set[Line]) -> None:
    """Run a target on an input, adding the lines of codec and client that it comes to."""

    def enter(frame: Any, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        return step(frame, event, argument)

    def step(frame: Any, _event: str, _argument: object) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(before)


def summary(lines: set[Line]) -> str:
    """Say in a line for each module that was entered how many of its functions' lines were."""
    shares = []
    for file in sorted({file for file, _ in lines}):
        there = set(_lines_of(compile(Path(file).read_bytes(), file, "exec")))
        reached = len(there & {number for name, number in lines if name == file})
        path = Path(file)
        shares.append(f"  {path.parent.name}/{path.name} {reached} of {len(there)}")
    return "\n".join(shares)


def _lines_of(code: CodeType) -> Iterator[int]:
    """Yield the lines of all functions; those of modules and classes run when they are imported."""
    if code.co_flags & CO_OPTIMIZED:
        yield from (number for *_, number in code.co_lines() if number)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines_of(constant)
