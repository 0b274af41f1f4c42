"""The pool of the blocking client's data connections.

Taking one is a pop from a deque and a look at whether anything has arrived; a lock is only taken
to open one, to wait for one, or to tell those who wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from ._cache import Source
from ._connection import Connection
from ._errors import ConnectionClosed, PoolTimeout
from ._handshake import announced_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._cache import Cache
    from ._options import Options
    from ._resp import Push
    from ._session import Trace
    from ._tracker import Tracker


# A connection that sat idle for so many seconds is asked for a sign of life before it is used: a
# firewall may have forgotten it.
_CHECK_AFTER = 30.0
_CHECK_PATIENCE = 1.0


class DataConnection(Connection):
    """A pooled connection.

    Attributes:
        epoch: of the channel on which changes of what it reads are announced; 0 before that.
        source: of what it reads, ended with it.
        idle_since, old_at: by `time.monotonic()`, when it was last given back, and when it is
            replaced although nothing is wrong with it.
    """

    def __init__(
        self,
        options: Options,
        cache: Cache | None,
        trace: Trace | None,
        deadline: float | None = None,
    ) -> None:
        self.epoch = 0
        self.source = Source()
        self.idle_since = time.monotonic()
        self.old_at = self.idle_since + (options.max_age or float("inf"))
        self._cache = cache
        super().__init__(options, name="data", trace=trace, deadline=deadline)

    def take_push(self, push: Push) -> None:
        if self._cache is None:
            return
        if push.kind == "invalidate":
            self._cache.invalidate(announced_keys(push))
        elif push.kind == "tracking-redir-broken":
            # The target of our redirect is gone: what this connection reads goes unannounced.
            self.epoch = 0
            self._cache.end(self.source)
            self.source = Source()


class Pool:
    """At most `max_connections` connections, opened when they are needed.

    Args:
        options: of the connections.
        max_connections: the bound.
        tracker: told of every connection that ends; None without a cache.
        cache: where inline pushes go.
        trace: of the connections.
    """

    def __init__(
        self,
        options: Options,
        max_connections: int,
        tracker: Tracker | None,
        cache: Cache | None,
        trace: Trace | None,
    ) -> None:
        self._options = options
        self._max_connections = max_connections
        self._tracker = tracker
        self._cache = cache
        self._trace = trace
        self._closed = False
        self._unchecked = min(_CHECK_AFTER, options.max_idle or _CHECK_AFTER)
        self._prepare()

    def _prepare(self) -> None:
        self._idle: deque[DataConnection] = deque()
        self._all: set[DataConnection] = set()
        self._opening = 0
        self._waiting = 0
        self._changed = threading.Condition()

    def deadline(self) -> float | None:
        """Give the time of `time.monotonic()` by which a call that begins now must end."""
        timeout = self._options.timeout
        return None if timeout is None else time.monotonic() + timeout

    def take(self, deadline: float | None = None) -> DataConnection:
        """Give a connection that is drained and ours alone until `give_back`."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                fresh = self._open_or_wait(deadline or self.deadline())
                if fresh is not None:
                    return fresh
                continue
            try:
                connection.drain()
                if time.monotonic() - connection.idle_since > self._unchecked:
                    self._check(connection, deadline)
            except BaseException as error:
                self.give_back(connection)
                if isinstance(error, Exception):
                    continue  # whatever it is, it was before our command
                raise
            return connection

    def _check(self, connection: DataConnection, deadline: float | None) -> None:
        """Find out whether a connection that sat idle may be used.

        Raises:
            ConnectionClosed: it is too old, or the peer has gone without a word.
        """
        idle = time.monotonic() - connection.idle_since
        if self._options.max_idle is not None and idle > self._options.max_idle:
            connection.close()
            raise ConnectionClosed("idle for too long")
        soon = time.monotonic() + _CHECK_PATIENCE
        connection.roundtrip((b"PING",), deadline=min(soon, deadline or soon))

    def _open_or_wait(self, deadline: float | None) -> DataConnection | None:
        """Open another connection, or wait for one to be idle and give None."""
        with self._changed:
            self._waiting += 1
            try:
                while len(self._all) + self._opening >= self._max_connections:
                    self._check_open()
                    if self._idle:
                        return None
                    left = None if deadline is None else deadline - time.monotonic()
                    if (left is not None and left <= 0) or not self._changed.wait(left):
                        raise PoolTimeout(
                            f"all {self._max_connections} connections were busy for "
                            f"{self._options.timeout} s"
                        )
                self._check_open()
                self._opening += 1
            finally:
                self._waiting -= 1
        connection = None
        try:
            connection = DataConnection(self._options, self._cache, self._trace, deadline)
            self._all.add(connection)
            return connection
        except BaseException:
            if connection is not None:
                self._discard(connection)
            raise
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify()

    def give_back(self, connection: DataConnection) -> None:
        """Let others have a connection; one that was closed is let go."""
        connection.idle_since = now = time.monotonic()
        if connection.closed or self._closed or now > connection.old_at:
            self._discard(connection)
        else:
            self._idle.append(connection)
            if self._closed:  # closed between the look and the append
                self._close_idle()
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _discard(self, connection: DataConnection) -> None:
        if self._tracker is not None:
            self._tracker.lost(connection)
        connection.close()
        with self._changed:
            self._all.discard(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionClosed("this client is closed")

    def _close_idle(self) -> None:
        while True:
            try:
                self._discard(self._idle.pop())
            except IndexError:
                return

    def close(self) -> None:
        """Close the idle connections; one in use is closed when it is given back.

        One that waits for somebody else's write is cut off: that may never come.
        """
        self._closed = True
        self._close_idle()
        for connection in tuple(self._all):
            if connection.waits:
                connection.cut()
        with self._changed:
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Leave the parent's sockets to the parent."""
        for connection in tuple(self._all):
            connection.close()  # closes the child's descriptor; the parent's goes on
        self._prepare()
