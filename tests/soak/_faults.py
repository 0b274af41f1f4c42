"""What happens to the links and to the server's process: at random, several at a time, undone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from servers import ask

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from proxy import Link, Proxy

    import client


class Faults:
    """Breaks what is between the clients and the server, and the server's time.

    `longest` is how many seconds a fault lasts at most. `server_lock` is held by whoever has the
    server's process in hand.
    """

    def __init__(
        self,
        proxy: Proxy,
        server: client.EmbeddedServer,
        server_lock: threading.Lock,
        chance: random.Random,
        longest: float,
    ) -> None:
        self._proxy = proxy
        self._server = server
        self._server_lock = server_lock
        self._chance = chance
        self._longest = longest
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self.count: Counter[str] = Counter()
        # What is undone quickly is done often; what stops everything, seldom.
        self._kinds: list[Callable[[], None]] = [
            *[self.kill] * 4, *[self.cut] * 3, *[self.freeze] * 3, *[self.delay] * 3,
            *[self.desert] * 2, self.kill_all, self.refuse, self.pause,
        ]  # fmt: skip

    def step(self) -> None:
        """Do one, and undo those whose time is up."""
        now = time.monotonic()
        due = [each for each in self._undo if each[0] <= now]
        self._undo = [each for each in self._undo if each[0] > now]
        for _, undo in due:
            undo()
        fault = self._chance.choice(self._kinds)
        fault()
        self.count[fault.__name__] += 1
        self._proxy.reap()

    def heal(self) -> None:
        """Undo everything."""
        for _, undo in self._undo:
            undo()
        self._undo = []
        self._proxy.reap()

    def _later(self, undo: Callable[[], None]) -> None:
        seconds = self._chance.random() ** 2 * self._longest
        self._undo.append((time.monotonic() + seconds, undo))

    def _link(self) -> list[Link]:
        links = tuple(self._proxy.links)
        return [self._chance.choice(links)] if links else []

    def kill(self) -> None:
        for link in self._link():
            self._kill(link)

    def kill_all(self) -> None:
        for link in tuple(self._proxy.links):
            self._kill(link)

    def _kill(self, link: Link) -> None:
        with contextlib.suppress(OSError):  # it has been closed meanwhile, or the server restarts
            host, port = link.sockets[1].getsockname()
            ask(self._server, "CLIENT", "KILL", "TYPE", "normal", "ADDR", f"{host}:{port}")
            ask(self._server, "CLIENT", "KILL", "TYPE", "pubsub", "ADDR", f"{host}:{port}")

    def cut(self) -> None:
        for link in self._link():
            link.cut()

    def freeze(self) -> None:
        for link in self._link():
            link.freeze()
            self._later(link.thaw)

    def desert(self) -> None:
        for link in self._link():
            with contextlib.suppress(OSError):
                link.desert()
            self._later(link.thaw)

    def delay(self) -> None:
        for link in self._link():
            way = self._chance.choice((link.up, link.down))
            way.delay = self._chance.random() * 0.1
            self._later(partial(setattr, way, "delay", 0.0))

    def refuse(self) -> None:
        self._proxy.refusing = True
        self._later(partial(setattr, self._proxy, "refusing", False))

    def pause(self) -> None:
        """Stop the server's clock, SIGSTOP; nothing else happens meanwhile."""
        with self._server_lock:
            self._server.pause()
            try:
                time.sleep(self._chance.random() ** 2 * self._longest)
            finally:
                self._server.resume()
