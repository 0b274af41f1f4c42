"""What a call may have to wait for: the words between a call and the front end that carries it.

A call is a generator, like a conversation. It decides what is sent, looked up, kept and dropped;
what it has to wait for it yields as a step, and is sent the outcome. The blocking client carries
a call in `Client._carry`, the asyncio client in `AsyncClient._carry`; neither knows what the call
is about. A front end that gives a call up closes it, and every way out of it leaves the cache
right.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum

from ._cache import Reservation
from ._frozen import NamedTuple
from ._resp import ReplyError
from ._session import Word
from ._tracking import Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")


class Step(Enum):
    """What a call asks for that is no round trip and no other's fetch."""

    HEAR = "have what was pushed up to now reach the cache; nothing is sent back"
    ARM = "have the server announce what is read next: sent back are the epoch, or 0, and a Source"
    BARRIER = "prove that all that was announced up to now is heard: sent back is whether it is"


class Again(NamedTuple):
    """Wait, and go on if there is time: sent back is whether there is.

    Attributes:
        delay: seconds.
        renew: whether the connection is to be replaced, because another server may be there now.
    """

    delay: float
    renew: bool


HEAR, ARM, BARRIER = Step.HEAR, Step.ARM, Step.BARRIER

Call: TypeAlias = "Generator[list[Sequence[Word]] | Reservation | Step | Again, Any, T]"
"""Yields a batch for one round trip (sent back: the replies, errors in place), a `Reservation`
whose end it waits for (sent back: False if the deadline came first), `Again`, or a `Step`."""

# With one of these codes the server says that it has not begun, so that asking again is no second
# execution: it reads its data set, the slot is on its way, or it is a replica (a former primary).
NOT_BEGUN = frozenset(("LOADING", "TRYAGAIN", "READONLY", "MASTERDOWN"))
_RENEW = frozenset(("READONLY", "MASTERDOWN"))


def ask(batch: list[Sequence[Word]], retries: int) -> Call[list[Any]]:
    """Do a round trip, and again, up to `retries` times, where the server has not begun.

    Args:
        batch: one command and perhaps others before it that only read.
        retries: how often, beyond the first time.
    """
    pause = Pause()
    for _ in range(retries):
        replies = yield batch
        last = replies[-1]
        if not isinstance(last, ReplyError) or last.code not in NOT_BEGUN:
            return replies  # type: ignore[no-any-return]
        if not (yield Again(pause.next(), last.code in _RENEW)):
            return replies  # type: ignore[no-any-return]
    return (yield batch)  # type: ignore[no-any-return]
