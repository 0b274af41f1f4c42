"""The blocking client's subscriber: an iterator of messages on a connection of its own.

Whoever asks for a message reads the connection; nobody else does, unless a thread was started with
`listen`. A connection that is lost is replaced and subscribed again by whoever asks next; what was
published in between is lost, as pub/sub has it, and `interruptions` counts how often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ._connection import Connection
from ._errors import ClientError, ConnectionClosed
from ._options import Options
from ._pubsub import Inbox, Message
from ._resp import ProtocolError, Push
from ._session import Trace
from ._tracking import Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# After so many seconds of silence the server is asked for a sign of life.
_SILENCE = 5.0


class _Subscription(Connection):
    """The connection: what is published goes to the inbox."""

    def __init__(self, options: Options, inbox: Inbox, trace: Trace | None) -> None:
        self._inbox = inbox
        super().__init__(options, name="pubsub", trace=trace)

    def take_push(self, push: Push) -> None:
        self._inbox.take(push)


class Subscriber:
    """An iterator of `Message`s. See `Client.pubsub`.

    Entered, it is subscribed: what is published from then on will come. One thread at a time may
    ask for messages; `close` may be called from any.

    Attributes:
        interruptions: how often the connection was lost, and messages with it perhaps.
        dropped: how many messages were let go because nobody read them (overflow="drop").
    """

    def __init__(self, inbox: Inbox, options: Options, trace: Trace | None) -> None:
        self._inbox = inbox
        self._options = options.replace(encoding=None)  # the inbox decodes
        self._trace = trace
        self._connection: _Subscription | None = None
        self._entered = False
        self._closed = False
        self._reading = threading.Lock()
        self._thread: threading.Thread | None = None
        self.interruptions = 0

    @property
    def dropped(self) -> int:
        """How many messages were let go because nobody read them."""
        return self._inbox.dropped

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a subscriber is entered once; make another")
        self._entered = True
        self._open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        message = self.get()
        if message is None:
            raise StopIteration
        return message

    def get(self, timeout: float | None = None) -> Message | None:
        """Give the next message; None if there is none within `timeout` seconds, or no more.

        Raises:
            UnicodeDecodeError: `encoding` does not fit the message; the next call goes on.
            ReplyError, HandshakeError: the server would not subscribe us again.
            RuntimeError: another thread is asking.
        """
        if not self._entered:
            raise RuntimeError("enter the subscriber first: with client.pubsub(…)")
        if not self._reading.acquire(blocking=False):
            raise RuntimeError("another thread waits for this subscriber's messages")
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not self._inbox.messages:
                if self._closed or not self._read(deadline):
                    return None
            return self._inbox.next()
        finally:
            self._reading.release()

    get_message = get  # redis-py's name for it

    def listen(self, callback: Callable[[Message], object]) -> threading.Thread:
        """Call back with each message, from a thread of its own, until `close`.

        An exception of the callback goes to `threading.excepthook` and ends the thread.
        """
        if self._thread is not None:
            raise RuntimeError("a thread listens already")

        def run() -> None:
            for message in self:
                callback(message)

        thread = threading.Thread(target=run, name="resp-client subscriber", daemon=True)
        self._thread = thread
        thread.start()
        return thread

    def close(self) -> None:
        """Close the connection, from any thread; what has come can still be read."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            connection.cut()  # wakes whoever waits
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._reading.acquire(blocking=False):
            self._reading.release()
            if connection is not None:
                connection.close()

    def _read(self, deadline: float | None) -> bool:
        """Read what has come, or wait for it; False if the deadline came first."""
        try:
            if self._connection is None:
                self._reopen(deadline)
            connection = self._connection
            if connection is None:
                return False
            silent = time.monotonic() + _SILENCE
            if connection.wait(silent if deadline is None else min(deadline, silent)):
                connection.drain(chunks=1)
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            connection.roundtrip((b"PING",))
        except (ConnectionClosed, ProtocolError):
            self._lose()
        return not self._closed

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self.interruptions += not self._closed

    def _reopen(self, deadline: float | None) -> None:
        pause = Pause()
        while not self._closed:
            try:
                self._open()
                return
            except ClientError as error:
                if not isinstance(error, ConnectionClosed):
                    raise  # asking again would not change the answer
            delay = pause.next()
            if deadline is not None and time.monotonic() + delay >= deadline:
                return
            time.sleep(delay)

    def _open(self) -> None:
        connection = _Subscription(self._options, self._inbox, self._trace)
        try:
            connection.notice_silence()
            for command in self._inbox.commands():
                connection.execute(*command)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if self._closed:
            self._lose()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()
