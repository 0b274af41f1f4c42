"""The dedicated invalidation connection of the blocking client.

One thread blocks on a connection of its own, so that an idle process hears of a change within
microseconds and a hit needs no system call. It owns the channel: it opens the cache when the
notifications flow, proves by PING that they still do, and closes the cache, which drops
everything, as soon as they may not.

It also watches the data connections. The server forgets what a tracked connection has read when
that connection ends, even while the target of the redirect lives on (Redis 6.2 to 8.1), and the
end need not reach us: a proxy on the way may hang while its kernel answers TCP's keep-alive. So
each PING comes with a question about each of them. CLIENT TRACKING ON REDIRECT is refused for a
client that is gone; it looks the id up just as the server does when it announces a change, and
whoever may have a cache may send it, which is not so of CLIENT LIST. Sixteen of them cost less
than one CLIENT LIST of sixteen.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cached_property

from ._cache import Cache, Source
from ._connection import Connection
from ._errors import ClientError, ConnectionClosed, TrackingRefused
from ._frozen import NamedTuple
from ._handshake import announced_keys, listen
from ._log import WARNING, log
from ._options import Options
from ._resp import Push, ReplyError, RespError
from ._session import Trace, Word
from ._tracking import (
    FRESHNESS,
    INVALIDATE_CHANNEL,
    PING_INTERVAL,
    PING_TIMEOUT,
    Pause,
    Tracking,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATIENCE = 5.0

# What one read may bring, and what is parsed at once. A thread that reads gives up the interpreter,
# and gets it back after up to 5 ms where another one computes: so a storm is read in few reads, and
# each is parsed in parts, to let others have the interpreter meanwhile.
_EARFUL = 1024 * 1024
_MOUTHFUL = 64 * 1024

_KEYS = frozenset((bytes,))

# Set on Linux and some BSDs only. Elsewhere POLLHUP alone tells of a peer that is gone for good.
_HANGUP = getattr(select, "POLLRDHUP", 0)


class Channel(NamedTuple):
    """Where the data connections redirect to, and the cache's epoch for what they read."""

    epoch: int
    redirect: int
    server: bytes | None  # its run_id, where it would tell


class _Asker(Connection):
    """A connection whose replies are not waited for."""

    def ask(self, commands: Sequence[Sequence[Word]]) -> None:
        """Send commands at once; `drain` will give their replies.

        Raises:
            ConnectionClosed: the peer takes no more bytes.
        """
        unsent = self._write(memoryview(self._session.send_many(commands)))
        until = time.monotonic() + PING_TIMEOUT
        while unsent is not None:  # thousands of data connections are asked about
            if not self._wait(self._writable, until):
                self.close()
                raise ConnectionClosed(f"{self.options.address} takes no more bytes")
            unsent = self._write(unsent)

    @cached_property
    def _writable(self) -> select.poll:
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        return poll


class _Ear(_Asker):
    """The listening connection: its pushes go to the cache, those of one read together."""

    def __init__(self, options: Options, cache: Cache, trace: Trace | None) -> None:
        self._cache = cache
        self._traced = trace is not None
        self._announced: list[bytes] = []
        self._earful = _MOUTHFUL
        super().__init__(options, name="listener", trace=trace)

    def hear(self) -> list[Any]:
        """Hand what has arrived to the cache, and give the replies among it.

        Call it when there is something to read.

        Raises:
            As `drain`.
        """
        try:
            data = b"" if self._traced else self._socket.recv(self._earful)
        except OSError:
            data = b""
        if not data:
            return self.drain(chunks=1)  # which says it if the connection is lost
        # Room for a megabyte costs 18 µs, which one announcement should not have to wait for.
        self._earful = _EARFUL if len(data) >= _MOUTHFUL else _MOUTHFUL
        results: list[Any] = []
        try:
            for start in range(0, len(data), _MOUTHFUL):
                self._take_in(
                    self._session._parser.feed_all(data[start : start + _MOUTHFUL]), results
                )
                self._tell()
                if self._session.failure is not None:
                    raise self._session.failure
        except BaseException:
            self.close()
            raise
        return results

    def _take_in(self, values: list[Any], results: list[Any]) -> None:
        """Do as `Session.receive` does, in a third of the time for what comes by the thousands."""
        session, announced = self._session, self._announced
        for value in values:
            if type(value) is Push:
                if len(value) == 2 and value[0] == b"invalidate" and type(value[1]) is list:
                    announced += value[1]
                else:
                    session._take_push(value, results)
            elif session.protocol == 2 and (message := session._as_push(value)) is not None:
                session._take_push(message, results)
            else:
                session._take_reply(value, results)

    def _tell(self) -> None:
        """Drop what was announced."""
        # In a storm one call for a thousand keys costs half of a thousand calls.
        announced, self._announced = self._announced, []
        if announced:
            self._cache.invalidate(announced if _KEYS.issuperset(map(type, announced)) else None)

    def drain(self, chunks: int | None = None) -> list[Any]:
        results = super().drain(chunks)
        self._tell()
        return results

    def take_push(self, push: Push) -> None:
        if push.kind == "invalidate" or (
            push.kind == "message" and len(push) == 3 and push[1] == INVALIDATE_CHANNEL
        ):
            keys = announced_keys(push)
            if keys is None:
                self._cache.invalidate(None)
            else:
                self._announced += keys


class _Proof:
    """A proof on its way: that all is announced, and that the data connections live.

    Attributes:
        sent: when it was asked for; what was announced before that has been heard once it is here.
        asked: the data connections asked about, each with the source of what it reads.
        answers: what the server said of each, and to the OFF behind them.
        pong: whether the PING was answered.
    """

    __slots__ = ("answers", "asked", "pong", "sent")

    def __init__(self, sent: float, asked: list[tuple[Connection, Source]]) -> None:
        self.sent = sent
        self.asked = asked
        self.answers: list[Any] = []
        self.pong = False

    @property
    def questions(self) -> list[Sequence[Word]]:
        """What to send, if there is anything to ask."""
        if not self.asked:
            return []
        on = (b"CLIENT", b"TRACKING", b"ON", b"REDIRECT")
        return [
            *((*on, connection.id or 0) for connection, _ in self.asked),
            (b"CLIENT", b"TRACKING", b"OFF"),
        ]

    @property
    def wanting(self) -> bool:
        """Whether answers to the questions are still to come."""
        return bool(self.asked) and len(self.answers) <= len(self.asked)


class Listener:
    """The listening thread and its connection, which it replaces when it is lost.

    Args:
        options: of the data connections; replies are read as bytes here, whatever they say.
        tracking: what is listened for.
        cache: the cache to keep right.
        trace: told of the frames on the connection, under the name "listener".

    Attributes:
        channel: the open channel, or None while there is none.
    """

    def __init__(
        self, options: Options, tracking: Tracking, cache: Cache, trace: Trace | None = None
    ) -> None:
        # Finite, or `stop` could wait for ever for a server that does not answer.
        patience = min(options.timeout or _PATIENCE, _PATIENCE)
        self._options = options.replace(encoding=None, timeout=patience, connect_timeout=patience)
        self._tracking = tracking
        self._cache = cache
        self._trace = trace
        self._prepare()

    def _prepare(self) -> None:
        self.channel: Channel | None = None
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[Connection, Source]] = {}
        self._thread: threading.Thread | None = None
        self._connection: _Ear | None = None
        # Who asks about the data connections: in RESP2 a subscriber may not send CLIENT.
        self._asker: _Asker | None = None
        self._starting = self._stopping = False
        self._proven = threading.Condition()
        self._unanswered: deque[_Proof] = deque()
        # Proofs are numbered: how many were asked for, how many came, the one that is waited for.
        self._sent = self._answered = self._wanted = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def start(self) -> None:
        """Open the channel and start the thread; does nothing if it runs.

        A server that can't be reached now is tried again by the thread.

        Raises:
            TrackingRefused: the server will not have it, or the system no further thread; none is
                started.
        """
        with self._lock:
            if self._thread is not None or self._stopping or self._starting:
                return
            self._starting = True
        # Without the lock: what is told to callbacks may bring a read of theirs back to here.
        try:
            try:
                self._open()
            except TrackingRefused:
                raise
            except (ClientError, RespError, OSError) as error:
                self._cache.close(f"no invalidation connection: {error}")
            thread = threading.Thread(target=self._run, name="resp-client listener", daemon=True)
            refusal = "stopped"
            with self._lock:
                if not self._stopping:
                    try:
                        thread.start()
                    except RuntimeError as error:
                        refusal = f"no thread to listen with: {error}"
                    else:
                        self._thread = thread
            if self._thread is None:
                self._close(refusal)
                raise TrackingRefused(refusal)
        finally:
            self._starting = False

    def stop(self, reason: str, event: str = "reconnect") -> None:
        """End the thread and its connection, and close the cache."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._close(reason, event)
        self._wake_read.close()
        self._wake_write.close()

    def after_fork(self) -> None:
        """Forget, in a forked child, the thread that did not come along and its connection."""
        self._hang_up()
        self._wake_read.close()
        self._wake_write.close()
        self._prepare()

    def _hang_up(self) -> None:
        for connection in (self._connection, self._asker):
            if connection is not None:
                connection.close()
        self._connection = self._asker = None

    def barrier(self, deadline: float | None) -> bool:
        """Wait until all that was announced before this call has reached the cache.

        What was read on a connection that the server has lost by then is dropped as well. Costs
        one round trip, shared by all who ask before it begins.

        Args:
            deadline: a time of `time.monotonic()`, or None to wait for ever.

        Returns:
            False if the channel was lost or the deadline came first, or if it is the listening
            thread that asks, in a callback: it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._proven:
            channel = self.channel
            wanted = self._wanted = self._sent + 1
            self._wake()
            while channel is not None and self.channel is channel:
                if self._answered >= wanted:
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._proven.wait(left)
        return False

    def watch(self, connection: Connection, source: Source) -> None:
        """Have a tracked data connection's end noticed while it is idle, and its source ended."""
        with self._lock:
            before = self._watched.get(connection.fileno())
            self._watched[connection.fileno()] = (connection, source)
        if before is not None and before[0] is not connection:
            self._cache.end(before[1])  # its descriptor is another's: it was closed unheard
        self._wake()

    def unwatch(self, connection: Connection) -> None:
        """Let a data connection go that is about to be closed."""
        with self._lock:
            self._watched = {fd: w for fd, w in self._watched.items() if w[0] is not connection}
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"!")
        except BlockingIOError:
            pass  # it has been woken often enough
        except OSError:
            pass  # stopped meanwhile

    def _open(self) -> None:
        started = self._cache.clock()
        connection = self._connection = _Ear(self._options, self._cache, self._trace)
        try:
            server = connection.converse(listen(self._tracking, connection.greeting))
            self._asker = connection
            if connection.protocol == 2 and not self._tracking.on_listener:
                self._asker = _Asker(self._options, name="asker", trace=self._trace)
        except BaseException:
            self._hang_up()
            raise
        assert connection.id is not None  # or listen would have refused
        self._unanswered.clear()
        self._answered = self._sent
        self.channel = Channel(self._cache.open(FRESHNESS, started), connection.id, server)

    def _close(self, reason: str, event: str = "reconnect") -> None:
        # In this order: a reader that still sees the channel finds the cache closed to its epoch.
        self.channel = None
        self._cache.close(reason, event)
        self._hang_up()
        with self._lock:
            self._watched.clear()  # what they have read is dropped, and they will be armed anew
        with self._proven:
            self._proven.notify_all()  # there is nothing to wait for

    def _run(self) -> None:
        pause = Pause()
        while not self._stopping:
            opened = time.monotonic()
            try:
                if self._connection is None:
                    self._open()
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it was, another channel may do
                if self._stopping:
                    return
                log(WARNING, "listener", "invalidation connection lost: %s", error)
                self._close(f"invalidation connection lost: {error}")
                if time.monotonic() - opened > PING_INTERVAL:
                    pause = Pause()  # it did live; a server that ends each at once is spared
                self._pause(pause.next())
            except BaseException:
                self._close("the listening thread failed")
                raise

    def _pause(self, seconds: float) -> None:
        """Wait, but not for longer than until `stop`."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        until = self._cache.clock() + seconds
        while not self._stopping and (left := until - self._cache.clock()) > 0:
            if poll.poll(int(left * 1000) + 1):
                self._swallow_wakes()

    def _swallow_wakes(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _listen(self) -> None:
        """Hear and prove until the channel is lost, which is an exception, or `stop`."""
        connection, asker = self._connection, self._asker
        assert connection is not None
        assert asker is not None
        clock, unanswered = self._cache.clock, self._unanswered
        poll, watched = self._poll_set(connection, asker)
        last = clock() - PING_INTERVAL
        while not self._stopping:
            due = last + PING_INTERVAL
            if unanswered:
                due = min(due, unanswered[0].sent + PING_TIMEOUT)
            for fd, _ in poll.poll(max(0, int((due - clock()) * 1000) + 1)):
                if fd == connection.fileno():
                    # Everything that stood before a PONG has reached the cache by now.
                    self._take(connection, connection.hear())
                elif fd == asker.fileno():
                    self._take(asker, asker.drain(chunks=1))
                elif fd == self._wake_read.fileno():
                    self._swallow_wakes()
                    poll, watched = self._poll_set(connection, asker)
                    break
                elif fd in watched:
                    self._lost(fd, watched[fd])
                    poll, watched = self._poll_set(connection, asker)
                    break
            now = clock()
            if unanswered and now >= unanswered[0].sent + PING_TIMEOUT:
                raise ConnectionClosed(f"no PONG within {PING_TIMEOUT} s")
            if now >= last + PING_INTERVAL or self._wanted > self._sent:
                # Counted before it is sent: who asks from now on asks for the next one.
                self._sent += 1
                last = clock()
                self._ask(connection, asker, last)

    def _ask(self, connection: _Asker, asker: _Asker, now: float) -> None:
        with self._lock:
            proof = _Proof(now, list(self._watched.values()))
        self._unanswered.append(proof)
        if asker is connection:
            connection.ask([*proof.questions, ("PING",)])
            return
        if proof.questions:
            asker.ask(proof.questions)
        connection.ask([("PING",)])

    def _take(self, connection: _Asker, results: list[Any]) -> None:
        """Take what a connection answered: to the oldest questions first, and PONG behind them."""
        unanswered = self._unanswered
        for result in results:
            for proof in unanswered:
                if connection is self._asker and proof.wanting:
                    proof.answers.append(result)
                    break
                if connection is self._connection and not proof.pong:
                    proof.pong = True
                    break
        while unanswered and unanswered[0].pong and not unanswered[0].wanting:
            proof = unanswered.popleft()
            # One answer more than there are connections: that to OFF.
            for watched, answer in zip(proof.asked, proof.answers, strict=False):
                if isinstance(answer, ReplyError):
                    self._lost(watched[0].fileno(), watched)
            self._cache.prove(proof.sent)
            with self._proven:
                self._answered += 1
                self._proven.notify_all()

    def _poll_set(
        self, connection: _Asker, asker: _Asker
    ) -> tuple[select.poll, dict[int, tuple[Connection, Source]]]:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(asker, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        with self._lock:
            watched = dict(self._watched)
        for fd in [fd for fd in watched if fd >= 0]:
            # Only its end is of interest: its replies belong to whoever uses it.
            poll.register(fd, _HANGUP)
        return poll, watched

    def _lost(self, fd: int, watched: tuple[Connection, Source]) -> None:
        with self._lock:
            if self._watched.get(fd) != watched:
                return  # let go meanwhile, by who ends its source
            del self._watched[fd]
        # Whoever uses the connection now may still find a reply in it; it is theirs to close.
        self._cache.end(watched[1])
