"""Each promise of the documents names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMISES = (ROOT / "docs" / "promises.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PROMISES)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_promise_has_its_test(file: str, test: str) -> None:
    source = (ROOT / "tests" / file).read_text()
    assert not test or re.search(rf"^(async )?(def )?{test}\b", source, re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    rows = [row for row in PROMISES.splitlines() if row.startswith("| ") and "tests |" not in row]
    promises = [row for row in rows if "::" in row or "test_" in row]
    assert len(promises) >= 25
    assert len(NAMED) >= 40


def test_number_of_planted_bugs_is_right() -> None:
    from simulation._mutants import MUTANTS

    assert len(MUTANTS) == 38
    assert "thirty-eight bugs" in PROMISES.replace("\n", " ")
