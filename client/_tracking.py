"""CLIENT TRACKING in the server's own words, and what the server would refuse or silently mute.

Every rule is checked here, before a byte is sent: servers up to 2024 answer an overlap of
prefixes with *two* replies, which would put the connection out of step, and answer OK to
set-ups that will never deliver anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ._frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

INVALIDATE_CHANNEL = b"__redis__:invalidate"

# A link that goes dead without a word, the listener's or a data connection's, is noticed
# PING_INTERVAL + PING_TIMEOUT seconds after the last proof of life at the latest, and no entry is
# served beyond that.
PING_INTERVAL = 1.0
PING_TIMEOUT = 1.5
FRESHNESS = PING_INTERVAL + PING_TIMEOUT

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0


class Pause:
    """How long to wait before the next attempt, in seconds: ever longer, with jitter.

    Args:
        attempts: how many there are; None for no end of them.
    """

    __slots__ = ("_attempts", "_delay")

    def __init__(self, attempts: int | None = None) -> None:
        self._attempts = attempts
        self._delay = _FIRST_DELAY

    def left(self) -> bool:
        """Count an attempt; False if all were made."""
        if self._attempts is None:
            return True
        self._attempts -= 1
        return self._attempts >= 0

    def next(self) -> float:
        """Give the pause before the next attempt."""
        import random  # takes longer to import than a pause is needed by most

        delay, self._delay = self._delay, min(self._delay * 2, _LONGEST_DELAY)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


class Tracking(Frozen):
    """How the server is asked to keep this client's cache right.

    Attributes:
        bcast: be told of every changed key (under the prefixes), read here before or not.
        prefixes: with `bcast`, the prefixes to be told of; none means all keys. A key outside
            them is never cached.
        optin: only `Client.cached` is tracked and cached (CLIENT CACHING YES).
        optout: `Client.uncached` is not tracked (CLIENT CACHING NO).
        noloop: the server does not announce this connection's own writes. For a connection of
            one's own: in default mode such a write also ends the key's registration without a
            word (Redis 6.0 to 8.1), and so does all that expires, is evicted or falls out of the
            server's table while a command of ours runs. So `Client` asks for it with `bcast`
            only; it drops the keys of its own writes itself in any case.
        listener: "dedicated", a second connection for the notifications; "inline", pushes on the
            data connection (RESP3); None, the front end's default.
    """

    __slots__ = ("bcast", "prefixes", "optin", "optout", "noloop", "listener")  # noqa: RUF023

    bcast: bool
    prefixes: tuple[bytes, ...]
    optin: bool
    optout: bool
    noloop: bool
    listener: Literal["inline", "dedicated"] | None

    def __init__(
        self,
        bcast: bool = False,
        prefixes: Iterable[str | bytes] = (),
        optin: bool = False,
        optout: bool = False,
        noloop: bool = False,
        listener: Literal["inline", "dedicated"] | None = None,
    ) -> None:
        """Take the options and refuse what the server refuses or mutes.

        Raises:
            ValueError: the combination makes no sense; the message says why.
            TypeError: `prefixes` is a single string, or holds something else than strings.
        """
        for name, value in {
            "bcast": bcast,
            "optin": optin,
            "optout": optout,
            "noloop": noloop,
        }.items():
            if not isinstance(value, bool):
                raise TypeError(f"{name} takes a bool, not {type(value).__name__}")
            self._set(name, value)
        self._set("prefixes", _check_prefixes(prefixes))
        if listener not in (None, "inline", "dedicated"):
            raise ValueError(f'listener is "inline", "dedicated" or None, not {listener!r}')
        self._set("listener", listener)
        if self.prefixes and not bcast:
            raise ValueError("prefixes need bcast=True: the server takes PREFIX only with BCAST")
        if bcast and (optin or optout):
            raise ValueError(
                "bcast excludes optin and optout: broadcasting tells of every key, read or not"
            )
        if optin and optout:
            raise ValueError("optin and optout exclude each other")

    def check_protocol(self, protocol: int) -> None:
        """Refuse what this protocol can't carry.

        Raises:
            ValueError: inline in RESP2. The server would answer OK and deliver nothing.
        """
        if protocol == 2 and self.listener == "inline":
            raise ValueError(
                "inline tracking needs RESP3: in RESP2 the server answers OK and never sends an "
                'invalidation; use listener="dedicated"'
            )

    def command(self, redirect: int | None = None) -> tuple[bytes | int, ...]:
        """Give the CLIENT TRACKING ON command, redirected to a client id if one is given."""
        words: list[bytes | int] = [b"CLIENT", b"TRACKING", b"ON"]
        if redirect is not None:
            words += (b"REDIRECT", redirect)
        for prefix in self.prefixes:
            words += (b"PREFIX", prefix)
        for name in ("bcast", "optin", "optout", "noloop"):
            if getattr(self, name):
                words.append(name.upper().encode())
        return tuple(words)

    def sound(self) -> Tracking:
        """Give what a client asks the server for: NOLOOP in broadcast mode only.

        In default mode NOLOOP silences all that happens while a command of ours runs: keys that
        expire, are evicted or fall out of the server's table too (tracking.c; seen on Redis 7.0
        and Valkey 8.1). Without it own writes are announced, and dropped twice.
        """
        if not self.noloop or self.bcast:
            return self
        return Tracking(optin=self.optin, optout=self.optout, listener=self.listener)

    @property
    def on_listener(self) -> bool:
        """Whether the dedicated connection tracks for all, and the data connections need not.

        BCAST on k connections means k copies of each message, so one has it. With NOLOOP the
        writer has to be the tracking connection, or nothing would be left out.
        """
        return self.bcast and not self.noloop

    def covers(self, keys: Iterable[bytes]) -> bool:
        """Tell whether a change of any of these keys would be announced."""
        return not self.prefixes or all(key.startswith(self.prefixes) for key in keys)


def _check_prefixes(prefixes: Iterable[str | bytes]) -> tuple[bytes, ...]:
    if isinstance(prefixes, str | bytes):
        raise TypeError("prefixes takes a sequence of prefixes, not a single one")
    raw = []
    for prefix in prefixes:
        if not isinstance(prefix, str | bytes):
            raise TypeError(f"a prefix is a str or bytes, not {type(prefix).__name__}")
        raw.append(prefix.encode() if isinstance(prefix, str) else bytes(prefix))
    # In sorted order a prefix stands right before the first that it begins, if there is one.
    ordered = sorted(raw)
    for shorter, longer in pairwise(ordered):
        if longer.startswith(shorter):
            raise ValueError(
                f"prefixes overlap: {shorter!r} and {longer!r}; the server refuses them, and "
                "servers up to 2024 then answer twice"
            )
    return tuple(raw)
