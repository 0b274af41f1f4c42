"""The world of one schedule: a clock that jumps from event to event, and the wires.

Whatever happens is an event at a time; delays are chosen, and with them the order. A wire keeps
the order of its own bytes, as TCP does, and no order with any other wire.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._choices import Choices

# Events of one schedule at most; what needs more goes round in circles. The longest seen has 3,000.
_MAX_EVENTS = 60_000


class Violation(AssertionError):
    """Something that must never happen has happened."""


class World:
    """Time, events and choices.

    Args:
        choices: where every decision comes from.
        log: whether to keep a story of what happened, for a reader.

    Attributes:
        now: seconds since the beginning.
        delays: what a delivery may take, the plain one first.
        jitter: what a thread or a loop may be held up, the plain one first.
        violations: what went wrong where it could not be raised.
    """

    def __init__(self, choices: Choices, log: bool = False) -> None:
        self.choices = choices
        self.now = 100.0  # no clock starts at 0
        self.delays: tuple[float, ...] = (0.0005,)
        self.jitter: tuple[float, ...] = (0.0,)
        self.violations: list[str] = []
        self.story: list[str] | None = [] if log else None
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0
        self._count = 0

    def tell(self, text: str) -> None:
        """Note what happens, if somebody wants to read it."""
        if self.story is not None:
            self.story.append(f"{(self.now - 100) * 1000:10.3f} ms  {text}")

    def clock(self) -> float:
        """Give the time, as the clients' clock."""
        return self.now

    def at(self, when: float, event: Callable[..., object], *args: Any) -> None:
        """Have something happen at a time."""
        self._number += 1
        heappush(self._events, (when, self._number, event, args))

    def soon(self, event: Callable[..., object], *args: Any) -> None:
        """Have something happen as soon as whoever does it gets to it."""
        jitter = self.jitter
        self.at(self.now + jitter[self.choices.pick(len(jitter))], event, *args)

    def run(self, until: float | None = None, check: Callable[[], object] | None = None) -> None:
        """Let things happen until nothing is left to, or until a time."""
        events = self._events
        while events:
            if until is not None and events[0][0] > until:
                break
            when, _, event, args = heappop(events)
            if when > self.now:
                self.now = when
            self._count += 1
            if self._count > _MAX_EVENTS:
                raise Violation(f"no end after {_MAX_EVENTS} events")
            event(*args)
            if check is not None:
                check()
        if until is not None and until > self.now:
            self.now = until


class Wire:
    """One direction of a connection: bytes in order, cut and delayed at will.

    Args:
        world: where it lies.
        deliver: called with each piece, and with b"" for the end.

    Attributes:
        cut: whether nothing arrives any more, not even the end: a black hole.
    """

    __slots__ = ("_deliver", "_last", "_world", "cut", "held")

    def __init__(self, world: World, deliver: Callable[[bytes], object]) -> None:
        self._world = world
        self._deliver = deliver
        self._last = 0.0
        self.cut = False
        self.held = 0.0  # delivers nothing before that time

    def send(self, data: bytes) -> None:
        """Send bytes; b"" is the end."""
        world = self._world
        choices = world.choices
        pieces = [data]
        if len(data) > 1 and choices.chance(0.1):
            at = 1 + choices.pick(len(data) - 1)
            pieces = [data[:at], data[at:]]
        for piece in pieces:
            delay = world.delays[choices.pick(len(world.delays))]
            self._last = max(self._last, self.held, world.now + delay)
            world.at(self._last, self._arrive, piece)

    def _arrive(self, data: bytes) -> None:
        if not self.cut:
            self._deliver(data)
