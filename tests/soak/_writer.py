"""Somebody else: writes all the time, and has the server lose data in every way that it can."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from servers import Wire, WireError

from ._judge import text_of

if TYPE_CHECKING:
    import random
    import threading

    import client

    from ._judge import Judge

NAMES = [f"k:{number}" for number in range(40)]
HASHES = [f"h:{number}" for number in range(20)]
CHANNEL = "numbers"

_TABLE = "tracking-table-max-keys"
_PATIENCE = 60.0  # seconds for a server that may be paused, on a machine that may be busy


class Writer:
    """One thread's: changes keys one after the other, so that it knows what follows what."""

    def __init__(
        self,
        server: client.EmbeddedServer,
        server_lock: threading.Lock,
        judge: Judge,
        chance: random.Random,
    ) -> None:
        self._server = server
        self._server_lock = server_lock
        self._judge = judge
        self._chance = chance
        self._number = 0
        self._mishap_over = ExitStack()
        self._mishap_ends = self._next_mishap = time.monotonic() + 1
        self._wire = Wire(server, _PATIENCE)
        self.count: Counter[str] = Counter()

    def step(self) -> None:
        """Write something; now and then begin or end a mishap."""
        now = time.monotonic()
        if now >= self._mishap_ends:
            self._mishap_over.close()
        if now >= self._next_mishap:
            self._mishap_over.close()
            mishap = self._chance.choice(
                [self.flush, self.flush, self.overflow, self.overflow, self.evict, self.restart]
            )
            mishap()
            self.count[mishap.__name__] += 1
            self._next_mishap = now + 1 + self._chance.random() * 4
            self._mishap_ends = now + self._chance.random() * 2
        self._number += 1
        self._wire("PUBLISH", CHANNEL, self._number)
        name = self._chance.choice(NAMES + HASHES)
        kind = self._chance.random()
        if kind < 0.08:
            deleted = self._judge.begin(name, None)
            self._wire("DEL", name)
            self._judge.done(name, deleted)
        elif kind < 0.16 and name in NAMES:  # SET ends a time to live, HSET does not
            self._judge.may_go(name)
            self._wire("PEXPIRE", name, self._chance.randrange(20, 200))
        else:
            self._set(name)
        self.count["writes"] += 1

    def _set(self, name: str) -> None:
        value = text_of(name, self._number)
        possible = self._judge.begin(name, value)
        command = ("SET", name, value) if name in NAMES else ("HSET", name, "value", value)
        try:
            self._wire(*command)
        except WireError as error:
            if "OOM" not in str(error):  # it has evicted all that it could
                raise
            self._judge.undone(name, possible)
        else:
            self._judge.done(name, possible)

    def flush(self) -> None:
        with self._judge.loss(total=True):
            self._wire(self._chance.choice(("FLUSHALL", "FLUSHDB")))

    def overflow(self) -> None:
        """Have the tracking table hold but a few keys: it forgets, and says so."""
        self._wire("CONFIG", "SET", _TABLE, self._chance.randrange(1, 20))
        self._mishap_over.callback(lambda: self._wire("CONFIG", "SET", _TABLE, 1_000_000))

    def evict(self) -> None:
        """Be short of memory, so that keys have to go."""
        self._mishap_over.enter_context(self._judge.loss(total=False))
        self._mishap_over.callback(lambda: self._wire("CONFIG", "SET", "maxmemory", 0))
        told = self._wire("INFO", "memory").decode().split()
        [used] = [int(line[12:]) for line in told if line.startswith("used_memory:")]
        self._wire("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        self._wire("CONFIG", "SET", "maxmemory", used + self._chance.randrange(0, 50_000))

    def restart(self) -> None:
        """End the server at once, and start it again, empty."""
        with self._judge.loss(total=True), self._server_lock:
            self._server.restart()
            self._wire.close()
            self._wire = Wire(self._server, _PATIENCE)

    def rest(self) -> dict[str, bytes | None]:
        """End mishaps and wait for what expires; give what the server holds now."""
        self._mishap_over.close()
        while any(self._wire("PTTL", name) >= 0 for name in NAMES + HASHES):
            time.sleep(0.01)
        return {name: self.truth(name) for name in NAMES + HASHES}

    def truth(self, name: str) -> bytes | None:
        """Ask the server what a key holds, as nobody who caches."""
        asked = ("HGET", name, "value") if name in HASHES else ("GET", name)
        value: bytes | None = self._wire(*asked)
        return value

    def close(self) -> None:
        self._wire.close()
