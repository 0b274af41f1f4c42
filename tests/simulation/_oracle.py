"""The judge: every reply must be one that its keys could give, at a time that is allowed.

The server model keeps each version of each key. A read that began at `t0` and ended at `t1` may
show what its keys held at any moment from `t0` less the staleness bound to `t1`, and nothing that
is older than a write of the same client that had returned before `t0`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import resp

from ._server import NEVER, READS, Refused, Server, Value, Version, evaluate, shown
from ._world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Sequence

# The clock is a float, and a millisecond of PTTL is cut off.
_GRAIN = 0.0011
_NOTHING = Version(None, 0.0, "", ())


class Oracle:
    """Judges the replies of one client.

    Args:
        world, server: what happened.
        owner: the client.
        bound: seconds that a hit may be behind.
        overtime: seconds that a value may be served beyond the expiry of its key.
        mapped: whether replies come as RESP3 has them, sets and maps.
    """

    def __init__(
        self,
        world: World,
        server: Server,
        owner: str,
        bound: float,
        overtime: float,
        mapped: bool,
    ) -> None:
        self._world = world
        self._server = server
        self._owner = owner
        self.bound = bound
        self.overtime = overtime
        self.mapped = mapped
        self._floor: dict[bytes, int] = {}

    def versions(self, key: bytes) -> list[Version]:
        return self._server.history.get(key) or [_NOTHING]

    def floors(self) -> dict[bytes, int]:
        """Give what a read that begins now must not fall behind."""
        return dict(self._floor)

    def wrote(self, command: Sequence[Any], began: float) -> None:
        """Note that a write of ours has returned: from now on it is seen."""
        words = tuple(resp.parse(resp.encode_command(*command)))
        for key, versions in self._server.history.items():
            mine = [
                index
                for index, version in enumerate(versions)
                if version.command == words
                and version.writer == self._owner
                and version.born >= began
            ]
            if mine:
                self._floor[key] = max(self._floor.get(key, 0), min(mine))

    def read(
        self,
        command: Sequence[Any],
        reply: Any,
        began: float,
        floors: dict[bytes, int],
        bound: float | None = None,
    ) -> None:
        """Judge a reply.

        Raises:
            Violation: no order of events explains it.
        """
        words = [bytes(word) for word in resp.parse(resp.encode_command(*command))]
        bound = self.bound if bound is None else bound
        name = words[0].upper()
        if name == b"MGET":
            if not isinstance(reply, list) or len(reply) != len(words) - 1:
                raise Violation(f"{self._owner}: {shown(words)} gave {reply!r}")
            for key, value in zip(words[1:], reply, strict=True):
                self._judge([b"MGET", key], [value], began, floors, bound)
        else:
            self._judge(words, reply, began, floors, bound)

    def _judge(
        self,
        words: list[bytes],
        reply: Any,
        began: float,
        floors: dict[bytes, int],
        bound: float,
    ) -> None:
        keys = READS[words[0].upper()](words)
        since = began - bound - _GRAIN
        possible: list[list[tuple[float, float, Value]]] = []
        for key in keys:
            versions = self.versions(key)
            floor = floors.get(key, 0)
            held = []
            for index in range(len(versions) - 1, floor - 1, -1):
                version = versions[index]
                end = versions[index + 1].born if index + 1 < len(versions) else NEVER
                end = min(end, version.expires + self.overtime)
                if end >= since:
                    held.append((version.born, end, version.value))
                elif index + 1 < len(versions) and versions[index + 1].born < since:
                    break
            possible.append(held)
        found = []
        # A reply is of one moment: try each at which one of the keys changed.
        moments = sorted({max(since, born) for held in possible for born, _, _ in held})
        for moment in moments:
            for state in _states(keys, possible, moment):
                try:
                    expected = evaluate(words, state.get)
                except Refused:
                    continue
                if self._same(words, expected, reply):
                    return
                found.append(expected)
        raise Violation(
            f"{self._owner}: {shown(words)} gave {reply!r} at {self._at(self._world.now)}, "
            f"asked at {self._at(began)}; what it could be: {found!r}; the keys: "
            + "; ".join(
                f"{shown((key,))} "
                + ", ".join(
                    f"{version.value!r} by {version.writer or 'nobody'} at {self._at(version.born)}"
                    for version in self.versions(key)[-4:]
                )
                for key in keys
            )
            + (f"; own writes returned: {floors}" if floors else "")
        )

    @staticmethod
    def _at(time: float) -> str:
        return f"{(time - 100) * 1000:.3f} ms"

    def _same(self, words: Sequence[bytes], expected: Any, reply: Any) -> bool:
        if not self.mapped:
            if isinstance(expected, dict):
                expected = [part for pair in expected.items() for part in pair]
            elif isinstance(expected, set) and isinstance(reply, list):
                return len(reply) == len(expected) and set(reply) == expected
        return type(expected) is type(reply) and bool(expected == reply)

    def now(self, words: Sequence[bytes], value: Any) -> bool:
        """Tell whether a value is what the server would reply now."""
        if words[0].upper() not in READS:
            return True
        return self._same(words, self.truth(words), value)

    def truth(self, words: Sequence[bytes]) -> Any:
        """Give what the server would reply now."""

        def get(key: bytes) -> Value:
            version = self.versions(key)[-1]
            expired = version.expires + self.overtime <= self._world.now
            return None if expired else version.value

        try:
            return evaluate(words, get)
        except Refused as refusal:
            return refusal


def _states(
    keys: Sequence[bytes], possible: list[list[tuple[float, float, Value]]], moment: float
) -> list[dict[bytes, Value]]:
    """Give what the keys may have held together at a moment: several where times are equal."""
    states: list[dict[bytes, Value]] = [{}]
    for key, held in zip(keys, possible, strict=True):
        values = [value for born, end, value in held if born <= moment <= end]
        states = [{**state, key: value} for state in states for value in values]
    return states
