"""SCAN and its kin as one conversation: what to ask next, and what came.

The server's promise (Redis and Valkey, "SCAN guarantees"): what is there from the first call to
the last is given at least once; what comes or goes meanwhile perhaps; anything perhaps twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ._errors import UnexpectedReply
from ._options import check_int
from ._session import Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

ScanCommand: TypeAlias = "Literal['SCAN', 'HSCAN', 'SSCAN', 'ZSCAN']"
_COMMANDS = ("SCAN", "HSCAN", "SSCAN", "ZSCAN")


class Scan:
    """One walk: `next_command`, and `take` its reply, until there is no next command.

    Args:
        command: SCAN for the keys of the database, or HSCAN, SSCAN, ZSCAN for the members of a key.
        key: of HSCAN, SSCAN and ZSCAN.
        match: a glob pattern.
        count: about how many elements the server looks at in a call; 10 if not said.
        kind: with SCAN, only keys of this type ("string", "hash", …).
        values: with HSCAN, False for the names of the fields alone (Redis 7.4, Valkey 8.1).

    Raises:
        ValueError, TypeError: the arguments do not go together.
    """

    def __init__(
        self,
        command: ScanCommand,
        key: Word | None,
        match: str | bytes | None,
        count: int | None,
        kind: str | None,
        values: bool,
    ) -> None:
        if command not in _COMMANDS:
            raise ValueError(f"expected one of {', '.join(_COMMANDS)}, not {command!r}")
        if (key is None) != (command == "SCAN"):
            raise ValueError(
                "SCAN takes no key: it walks the database"
                if command == "SCAN"
                else f"{command} needs a key"
            )
        if kind is not None and command != "SCAN":
            raise ValueError("kind is for SCAN: the members of a key have none")
        if not values and command != "HSCAN":
            raise ValueError("values=False is for HSCAN")
        if count is not None:
            check_int("count", count, 1, 2**63 - 1)
        self._head: tuple[Word, ...] = (command,) if key is None else (command, key)
        tail: list[Word] = []
        for name, value in (("MATCH", match), ("COUNT", count), ("TYPE", kind)):
            if value is not None:
                tail += (name, value)
        self._tail = tail if values else [*tail, "NOVALUES"]
        self._pairs = command == "ZSCAN" or (command == "HSCAN" and values)
        self._scores = command == "ZSCAN"
        self._cursor: Any = 0

    def next_command(self) -> tuple[Word, ...] | None:
        """Give the next command to send; None at the end."""
        if self._cursor is None:
            return None
        return (*self._head, self._cursor, *self._tail)

    def take(self, reply: Any) -> Iterable[Any]:
        """Take a reply and give what it brought: keys or members, or pairs of HSCAN and ZSCAN.

        Raises:
            UnexpectedReply: it is no answer of a SCAN.
        """
        if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list)):
            raise UnexpectedReply("expected a cursor and a list in answer to a scan")
        cursor, found = reply
        self._cursor = None if cursor in (b"0", "0", 0) else cursor
        if not self._pairs:
            return list(found)
        if found and isinstance(found[0], list):  # pairs already, as RESP3 may have them
            pairs: Sequence[Any] = [tuple(pair) for pair in found]
        else:
            pairs = [*zip(found[::2], found[1::2], strict=True)]
        return [(member, float(score)) for member, score in pairs] if self._scores else pairs
