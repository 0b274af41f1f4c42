"""Lua scripts, sent by their SHA1, and by their source where the server does not know it yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ._session import Word
from ._steps import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

_Carry: TypeAlias = "Callable[[Call[Any]], Any]"


class Script:
    """A script of one client: call it with its keys and arguments.

        take = db.script("return redis.call('DECRBY', KEYS[1], ARGV[1])")
        take(["stock"], [3])

    The keys are what the script may touch (the server's rule for scripts); a caching client drops
    them, and what else the script writes, before the call returns.

    Attributes:
        sha: the SHA1 of the source, in hex, as SCRIPT LOAD gives it.
    """

    __slots__ = ("_call", "_carry", "_read_only", "_source", "sha")

    def __init__(
        self,
        source: str | bytes,
        read_only: bool,
        call: Callable[[bytes, str, Sequence[Word], Sequence[Word], bool], Call[Any]],
        carry: _Carry,
    ) -> None:
        from hashlib import sha1

        if not isinstance(source, str | bytes):
            raise TypeError(f"a script is a str or bytes, not {type(source).__name__}")
        self._source = source.encode() if isinstance(source, str) else source
        self.sha = sha1(self._source, usedforsecurity=False).hexdigest()
        self._read_only = read_only
        self._call = call
        self._carry = carry

    def __call__(self, keys: Sequence[Word] = (), args: Sequence[Word] = ()) -> Any:
        """Run the script and give its reply; of an asyncio client, something to await.

        Raises:
            TypeError: keys or args are a single string.
            As `execute`.
        """
        for name, given in (("keys", keys), ("args", args)):
            if isinstance(given, str | bytes | bytearray | memoryview):
                raise TypeError(f"{name} takes a sequence, not a single {type(given).__name__}")
        return self._carry(
            self._call(self._source, self.sha, tuple(keys), tuple(args), self._read_only)
        )
