"""What a subscriber keeps: what it subscribed to, and the messages nobody has read yet.

No I/O: a front end sends the commands, hands the pushes over, and waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ._frozen import NamedTuple
from ._options import check_int
from ._resp import Push

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

Overflow: TypeAlias = "Literal['pause', 'drop']"


class Message(NamedTuple):
    """What was published.

    Attributes:
        channel: where, `bytes`, or `str` with `encoding`.
        data: the payload, likewise.
        pattern: the pattern that matched the channel, or None.
        sharded: whether it came through a sharded channel.
    """

    channel: Any
    data: Any
    pattern: Any = None
    sharded: bool = False


_SUBSCRIBE = {"channel": "SUBSCRIBE", "pattern": "PSUBSCRIBE", "shard": "SSUBSCRIBE"}
_KINDS = {"message": 3, "smessage": 3, "pmessage": 4}


class Inbox:
    """The subscriptions and the unread messages of one subscriber.

    Args:
        names: patterns where they hold one of `*?[`, channels else.
        channels, patterns, shards: what is to be subscribed to.
        max_pending: messages that are kept.
        overflow: "pause" asks to read no further, "drop" lets the oldest go.
        encoding, errors: how channels and payloads become `str`; None leaves them `bytes`.

    Attributes:
        messages: unread, oldest first; a `UnicodeDecodeError` in the place of what `encoding`
            does not fit.
        dropped: how many were let go unread.
        on_full, on_room: called when reading should pause and may go on.

    Raises:
        ValueError, TypeError: nothing to subscribe to, or an option makes no sense.
    """

    def __init__(
        self,
        names: Iterable[str | bytes],
        channels: Iterable[str | bytes],
        patterns: Iterable[str | bytes],
        shards: Iterable[str | bytes],
        max_pending: int,
        overflow: Overflow,
        encoding: str | None,
        errors: str,
    ) -> None:
        check_int("max_pending", max_pending, 1, 2**31 - 1)
        if overflow not in ("pause", "drop"):
            raise ValueError(f'overflow is "pause" or "drop", not {overflow!r}')
        self._wanted: dict[str, dict[bytes, None]] = {"channel": {}, "pattern": {}, "shard": {}}
        for kind, given in (("channel", channels), ("pattern", patterns), ("shard", shards)):
            self._wanted[kind] |= dict.fromkeys(_raw(given))
        for name in _raw(tuple(names)):
            kind = "pattern" if any(mark in name for mark in b"*?[") else "channel"
            self._wanted[kind][name] = None
        if not any(self._wanted.values()):
            raise ValueError("there is nothing to subscribe to")
        self._max_pending = max_pending
        self._overflow = overflow
        self._encoding = encoding
        self._errors = errors
        self._paused = False
        self.messages: deque[Message | UnicodeDecodeError] = deque()
        self.dropped = 0
        self.on_full: Callable[[], object] = lambda: None
        self.on_room: Callable[[], object] = lambda: None

    def commands(self) -> list[tuple[str | bytes, ...]]:
        """Give the commands that subscribe to all that is wanted."""
        return [(_SUBSCRIBE[kind], *names) for kind, names in self._wanted.items() if names]

    def take(self, push: Push) -> bool:
        """Take what was pushed; True if it was a message."""
        if _KINDS.get(push.kind) != len(push):
            return False
        try:
            *pattern, channel, data = map(self._decode, push[1:])
        except UnicodeDecodeError as error:
            self._add(error)
            return True
        sharded = push.kind == "smessage"
        self._add(Message(channel, data, pattern[0] if pattern else None, sharded))
        return True

    def _add(self, message: Message | UnicodeDecodeError) -> None:
        self.messages.append(message)
        if len(self.messages) >= self._max_pending:
            if self._overflow == "pause":
                if not self._paused:
                    self._paused = True
                    self.on_full()
            elif len(self.messages) > self._max_pending:
                self.messages.popleft()
                self.dropped += 1

    def next(self) -> Message:
        """Give the oldest message.

        Raises:
            UnicodeDecodeError: `encoding` does not fit it; the next call goes on behind it.
        """
        message = self.messages.popleft()
        if self._paused and len(self.messages) <= self._max_pending // 2:
            self._paused = False
            self.on_room()
        if isinstance(message, UnicodeDecodeError):
            raise message
        return message

    @property
    def paused(self) -> bool:
        """Whether reading should pause."""
        return self._paused

    def _decode(self, word: Any) -> Any:
        if self._encoding is not None and isinstance(word, bytes):
            return word.decode(self._encoding, self._errors)
        return word


def _raw(names: Iterable[str | bytes]) -> Sequence[bytes]:
    if isinstance(names, str | bytes):
        raise TypeError("expected a sequence of channels, not a single one")
    raw = []
    for name in names:
        if not isinstance(name, str | bytes):
            raise TypeError(f"a channel is a str or bytes, not {type(name).__name__}")
        raw.append(name.encode() if isinstance(name, str) else name)
    return raw
