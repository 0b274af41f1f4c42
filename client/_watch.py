"""Optimistic locking: WATCH, look, and change all or nothing, as often as others come in between.

Nothing is sent for the change until the block ends; then MULTI, the queued commands and EXEC leave
in one piece. So there is never an open MULTI to discard: a block that fails sends UNWATCH.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._errors import WatchError
from ._options import check_int
from ._session import Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Attempt:
    """What the attempts of both front ends have in common.

    Attributes:
        replies: of the queued commands, errors in place, once the block has ended; None before.
    """

    def __init__(self, keys: tuple[Word, ...], last: bool) -> None:
        self._keys = keys
        self._last = last
        self._queued: list[tuple[Word, ...]] = []
        self.replies: list[Any] | None = None
        self.lost = False

    def queue(self, *command: Word) -> None:
        """Have a command sent between MULTI and EXEC when the block ends."""
        if not command:
            raise ValueError("a command needs at least its name")
        self._queued.append(command)

    def _settle(self, replies: list[Any] | None) -> None:
        """Take EXEC's replies, None if a key had changed.

        Raises:
            WatchError: it was the last attempt.
        """
        self.replies = replies
        if replies is None:
            self.lost = True
            if self._last:
                raise WatchError("a watched key changed at every attempt; nothing was executed")


def check_watch(keys: Sequence[Word], attempts: int) -> None:
    """Refuse a WATCH of nothing, and no attempt at all."""
    if not keys:
        raise ValueError("WATCH needs a key at least")
    check_int("attempts", attempts, 1, 1_000_000)
