"""Makes a failing schedule plainer: fewer choices, and smaller ones, that still fail.

Every list of numbers is a schedule and zero is the plain choice (`_choices`), so pieces are taken
out and numbers made zero as long as something is violated. What is violated may change on the
way: whatever is left is a schedule that must not fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._choices import Choices
from ._schedule import play

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def fails(given: Sequence[int]) -> bool:
    """Tell whether the schedule of these choices violates something."""
    return play(Choices(given=given))[0] is not None


def shrink(
    given: Sequence[int],
    budget: int = 2000,
    failing: Callable[[Sequence[int]], bool] = fails,
) -> list[int]:
    """Give a plainer schedule that fails as well.

    Args:
        given: the choices of a failing schedule.
        budget: schedules to try at most.
        failing: tells whether a schedule fails.
    """
    best = _trimmed(given)

    def better(candidate: list[int]) -> bool:
        nonlocal best, budget
        candidate = _trimmed(candidate)
        if candidate == best or budget <= 0:
            return False
        budget -= 1
        if not failing(candidate):
            return False
        best = candidate
        return True

    size = max(1, len(best) // 2)
    while size and budget > 0:
        at = 0
        while at < len(best) and budget > 0:
            rest = best[at + size :]
            plain = any(best[at : at + size]) and better([*best[:at], *[0] * size, *rest])
            if plain or not better([*best[:at], *rest]):
                at += size
        size //= 2
    for at in range(len(best)):
        if at < len(best) and best[at] > 1:
            better([*best[:at], 1, *best[at + 1 :]])
    return best


def _trimmed(given: Sequence[int]) -> list[int]:
    """Leave out the zeros at the end: a list that has run out goes on with them."""
    end = len(given)
    while end and given[end - 1] == 0:
        end -= 1
    return list(given[:end])
