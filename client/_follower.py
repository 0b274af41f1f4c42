"""The blocking client's way to a server through its sentinels, and the thread that follows it.

Both carry out the steps of `_sentinel`. The thread listens to one sentinel on a connection of its
own; the client starts it with its first connection and stops it when it is closed.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ._connection import Connection
from ._errors import ConnectError, ConnectionClosed
from ._sentinel import UNUSABLE, Ask, Finder, Visit, Wait

if TYPE_CHECKING:
    from ._options import Options
    from ._resp import Push
    from ._session import Trace

# A failover while the connection was made; more in a row are no failovers any more.
_ATTEMPTS = 3


def connect_found(connection: Connection, options: Options, deadline: float | None = None) -> None:
    """Open a connection to the server that the sentinels of its options lead to.

    `deadline` is a time of `time.monotonic()` for each step, or None for `options.timeout`.

    Raises:
        ConnectError: they lead to none.
    """
    finder: Finder[Any] = options.finder or Finder(options)
    for _ in range(_ATTEMPTS):
        moves = finder.moves
        with closing(finder.search(options)) as search:
            outcome: Any = None
            try:
                step = next(search)
                while True:
                    try:
                        if step.keep:
                            finder.note(connection, step.options)
                            outcome = _open(connection, step, deadline)
                        else:
                            outcome = _visit(step, finder.trace)
                    except Exception as error:  # noqa: BLE001 - the search judges it
                        step = search.throw(error)
                    else:
                        step = search.send(outcome)
            except StopIteration as end:
                address = end.value
        if finder.add(connection, address, moves):
            finder.begin()
            return
        connection.close()
    raise ConnectError(f"{options.address} moved {_ATTEMPTS} times while it was connected to")


def _open(connection: Connection, step: Visit, deadline: float | None) -> Any:
    connection.open(step.options, deadline)
    try:
        return connection.converse(step.conversation(connection.server))
    except BaseException:
        connection.close()
        raise


def _visit(step: Visit, trace: Trace | None) -> Any:
    with Connection(step.options, name="sentinel", trace=trace) as visited:
        return visited.converse(step.conversation(visited.server))


class Follower(Finder[Connection]):
    """A `Finder` with a thread that follows the service."""

    def __init__(self, options: Options, trace: Trace | None) -> None:
        super().__init__(options, Connection.cut, trace)

    def forget(self) -> None:
        """Forget connections and thread, which are not ours: a forked child begins so."""
        super().forget()
        self._thread: threading.Thread | None = None
        self._kept: Connection | None = None
        self._stopping = False
        self._stopped = threading.Event()

    def begin(self) -> None:
        """Start the thread, if there is none."""
        with self._lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(
                    target=self._run, name="resp-client sentinel", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._stopped.set()
        kept = self._kept
        if kept is not None:
            kept.cut()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        kept = self._kept
        self.forget()
        if kept is not None:
            kept.close()  # the child's descriptor

    def _run(self) -> None:
        steps = self.follow()
        outcome: Any = None
        try:
            step = next(steps)
            while not self._stopping:
                try:
                    outcome = self._do(step)
                except UNUSABLE as error:
                    self._let_go()
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        finally:
            steps.close()
            self._let_go()

    def _do(self, step: Visit | Ask | Wait) -> Any:
        if isinstance(step, Visit):
            if not step.keep:
                return _visit(step, self.trace)
            self._let_go()
            opened = Connection(step.options, name="sentinel", trace=self.trace)
            self._kept = opened
            return opened.converse(step.conversation(opened.server))
        kept = self._kept
        if isinstance(step, Wait):
            return self._wait(kept, step.seconds)
        if kept is None:
            raise ConnectionClosed("there is no connection to a sentinel")
        return kept.converse(step.conversation)

    def _wait(self, kept: Connection | None, seconds: float) -> list[Push]:
        if kept is None:
            self._stopped.wait(seconds)
            return []
        pushes = []
        push = kept.read_push(seconds)
        while push is not None:
            pushes.append(push)
            push = kept.read_push(0)
        return pushes

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
