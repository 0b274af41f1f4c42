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
from typing import Any, TypeAlias, TypeVar

from ._cache import Reservation
from ._session import Word

T = TypeVar("T")


class Step(Enum):
    """What a call asks for that is no round trip and no other's fetch."""

    HEAR = "have what was pushed up to now reach the cache; nothing is sent back"
    ARM = "have the server announce what is read next: sent back are the epoch, or 0, and a Source"
    BARRIER = "prove that all that was announced up to now is heard: sent back is whether it is"


HEAR, ARM, BARRIER = Step.HEAR, Step.ARM, Step.BARRIER

Call: TypeAlias = Generator["list[Sequence[Word]] | Reservation | Step", Any, T]
"""Yields a batch for one round trip (sent back: the replies, errors in place), a `Reservation`
whose end it waits for (sent back: False if the deadline came first), or a `Step`."""
