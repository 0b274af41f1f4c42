"""The choices that make a schedule: drawn from a seed and recorded, or played back.

Zero is the plain choice everywhere: no delay, no fault, the first in line. A list that has run out
goes on with zeros, so every list of numbers is a schedule, and a shorter or smaller one a plainer
schedule: that is all that `_shrink` needs to know.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Choices:
    """Numbers from a seed, or those of a list.

    Attributes:
        made: what was chosen so far.
    """

    __slots__ = ("_given", "_random", "made")

    def __init__(self, seed: int = 0, given: Sequence[int] | None = None) -> None:
        self._random = Random(seed).random
        self._given = given
        self.made: list[int] = []

    def pick(self, count: int) -> int:
        """Give a number from 0 to count - 1."""
        if self._given is None:
            chosen = int(self._random() * count)
        else:
            at = len(self.made)
            chosen = self._given[at] % count if at < len(self._given) else 0
        self.made.append(chosen)
        return chosen

    def chance(self, probability: float) -> bool:
        """Say yes with this probability."""
        if self._given is None:
            chosen = int(self._random() < probability)
        else:
            at = len(self.made)
            # What can't be cannot be played back either: a list may have slipped by one.
            chosen = int(at < len(self._given) and self._given[at] % 2 == 1 and probability > 0)
        self.made.append(chosen)
        return chosen == 1

    def of(self, options: Sequence[T]) -> T:
        """Give one of several; the first is the plain one."""
        return options[self.pick(len(options))]
