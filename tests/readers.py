"""A caching client beside somebody else, in every set-up that keeps a cache right."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from servers import Wire

    import client

PATIENCE = 10.0
# Less than the bound that the PINGs keep: what is seen by then was announced, not timed out.
PROMPT = 2.0

# Every set-up in which the server can keep a cache right: protocol and tracking.
SETUPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "resp3-dedicated": (3, {}),
    "resp3-dedicated-optout": (3, {"optout": True}),
    "resp3-dedicated-noloop": (3, {"noloop": True}),
    "resp3-dedicated-bcast": (3, {"bcast": True}),
    "resp3-dedicated-bcast-prefixes": (3, {"bcast": True, "prefixes": ["k:", "n:"]}),
    "resp3-dedicated-bcast-noloop": (3, {"bcast": True, "noloop": True}),
    "resp3-inline": (3, {"listener": "inline"}),
    "resp3-inline-noloop": (3, {"listener": "inline", "noloop": True}),
    "resp3-inline-bcast": (3, {"listener": "inline", "bcast": True}),
    "resp3-inline-bcast-noloop": (3, {"listener": "inline", "bcast": True, "noloop": True}),
    "resp2-dedicated": (2, {}),
    "resp2-dedicated-optout": (2, {"optout": True}),
    "resp2-dedicated-bcast": (2, {"bcast": True}),
    "resp2-dedicated-bcast-prefixes": (2, {"bcast": True, "prefixes": ["k:", "n:"]}),
    "resp2-dedicated-bcast-noloop": (2, {"bcast": True, "noloop": True}),
}
# In these `cached` is what asks for caching.
OPTIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "resp3-dedicated-optin": (3, {"optin": True}),
    "resp3-inline-optin": (3, {"optin": True, "listener": "inline"}),
    "resp2-dedicated-optin": (2, {"optin": True}),
}


class Reader:
    """A caching client beside somebody else, and what a test asks of both."""

    def __init__(self, db: client.Client, other: Wire) -> None:
        self.db = db
        self.other = other
        assert db.cache is not None
        assert db._tracker is not None
        self.cache = db.cache
        self.tracker = db._tracker
        self.inline = db._tracker.inline

    def read(self, *command: Any) -> Any:
        return self.db.cached(*command)

    @property
    def hits(self) -> int:
        return self.cache.stats.hits

    def hit(self, *command: Any) -> Any:
        """Read until it comes from the cache: the announcement of an earlier write may be late."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before = self.hits
            value = self.read(*command)
            if self.hits == before + 1:
                return value
            assert time.monotonic() < deadline, f"{command} never was a hit; {self.cache.stats}"

    def sees(self, expected: Any, *command: Any) -> None:
        """Read until the expected value comes: the announcement is under way."""
        deadline = time.monotonic() + PROMPT
        while (value := self.read(*command)) != expected:
            assert time.monotonic() < deadline, f"still {value!r}, not {expected!r}: stale"
            time.sleep(0.001)


def open_things() -> tuple[int, int]:
    """Count the threads and the descriptors of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """Give the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], object], patience: float = 1.5 * PATIENCE) -> None:
    """Wait until something is so; fail if it does not come."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


class Gate:
    """Holds the round trips of threads that are named "leader"; counts all of a command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.sent = 0
        from client import Connection

        original = Connection.roundtrip

        def roundtrip(self_: Connection, *commands: Any, **options: Any) -> list[Any]:
            self.sent += any(command[0] == name for command in commands)
            if threading.current_thread().name == "leader":
                self.entered.set()
                self.leave.wait(PATIENCE)
            return original(self_, *commands, **options)

        monkeypatch.setattr(Connection, "roundtrip", roundtrip)


def in_thread(target: Callable[..., Any], *args: Any, name: str = "follower") -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name=name)
    thread.start()
    return thread
