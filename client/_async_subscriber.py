"""The asyncio client's subscriber: an iterator of messages on a connection of its own.

When the connection is lost it is replaced and subscribed again. What was published in between is
lost, as pub/sub has it; `interruptions` counts how often that may have been.
"""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._errors import ConnectionClosed, NoAuthError, WrongPassError
from ._link import STEADY, Link, open_link
from ._options import Options
from ._pubsub import Inbox, Message
from ._resp import Push, ReplyError
from ._session import Trace
from ._tracking import Pause

if TYPE_CHECKING:
    from typing import Self


class AsyncSubscriber:
    """An asynchronous iterator of `Message`s. See `AsyncClient.pubsub`.

    Entered, it is subscribed: what is published from then on will come.

    Attributes:
        interruptions: how often the connection was lost, and messages with it perhaps.
        dropped: how many messages were let go because nobody read them (overflow="drop").
    """

    def __init__(
        self,
        inbox: Inbox,
        options: Options,
        trace: Trace | None,
        check_open: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._options = options
        self._trace = trace
        self._check_open = check_open
        self._link: Link | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._entered = False
        self._closed = False
        self._pauses = Pause()
        self._up_since = 0.0
        self.interruptions = 0
        inbox.on_full = self._pause
        inbox.on_room = self._resume

    @property
    def dropped(self) -> int:
        """How many messages were let go because nobody read them."""
        return self._inbox.dropped

    async def __aenter__(self) -> Self:
        self._check_open()
        if self._entered:
            raise RuntimeError("a subscriber is entered once; make another")
        self._entered = True
        self._loop = asyncio.get_running_loop()
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message = await self.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def get(self, timeout: float | None = None) -> Message | None:
        """Give the next message; None if there is none within `timeout` seconds, or no more.

        Raises:
            UnicodeDecodeError: `encoding` does not fit the message; the next call goes on.
            ReplyError, NoAuthError, WrongPassError: the server would not subscribe us again.
        """
        if not self._entered:
            raise RuntimeError("enter the subscriber first: async with client.pubsub(…)")
        deadline = None if timeout is None else self._loop.time() + timeout
        while not self._inbox.messages:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                return None
            if self._news is not None:
                raise RuntimeError("another task waits for this subscriber's messages")
            self._news = self._loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news
            except TimeoutError:
                return None
            finally:
                self._news = None
        return self._inbox.next()

    async def aclose(self) -> None:
        """Close the connection; what has come can still be read."""
        link, reopening = self._link, self._reopening
        self.stop()
        if reopening is not None:
            await asyncio.wait([reopening])
        if link is not None:
            await link.close()

    def stop(self) -> None:
        """Close the connection without waiting until it is."""
        self._closed = True
        self._wake()
        if self._reopening is not None:
            self._reopening.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.abort(ConnectionClosed("the subscriber is closed"))

    async def _open(self) -> None:
        ref = weakref.ref(self)

        def on_push(push: Push) -> None:
            subscriber = ref()
            if subscriber is not None and subscriber._inbox.take(push):
                subscriber._wake()

        def on_lost(lost: Link, _: Exception) -> None:
            subscriber = ref()
            if subscriber is not None and subscriber._link is lost:
                subscriber._reopen()

        link = Link(
            self._options,
            self._loop,
            name="pubsub",
            trace=self._trace,
            on_push=on_push,
            on_lost=on_lost,
            raw=True,
        )
        await open_link(link, self._options, self._loop)
        try:
            link.notice_silence()
            deadline = self._loop.time() + (self._options.timeout or float("inf"))
            for reply in await link.roundtrip(self._inbox.commands(), deadline):
                if isinstance(reply, ReplyError):
                    raise reply
            if link.closed or self._closed:
                raise ConnectionClosed("the subscriber's connection was lost")
        except BaseException:
            link.abort(ConnectionClosed("the subscription was given up"))
            raise
        self._link = link
        self._up_since = self._loop.time()
        if self._inbox.paused:
            link.pause_reading()

    def _reopen(self) -> None:
        self._link = None
        self.interruptions += 1
        if self._loop.time() - self._up_since < STEADY:
            delay = self._pauses.next()  # it may go on like that
        else:
            self._pauses, delay = Pause(), 0.0
        self._reopening = self._loop.create_task(_reopen(weakref.ref(self), self._pauses, delay))

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _pause(self) -> None:
        if self._link is not None:
            self._link.pause_reading()

    def _resume(self) -> None:
        if self._link is not None:
            self._link.resume_reading()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._options.address}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is None:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        if not self._loop.is_closed():
            error = ConnectionClosed("its subscriber was abandoned")
            self._loop.call_soon_threadsafe(link.abort, error)


async def _reopen(ref: weakref.ref[AsyncSubscriber], pause: Pause, delay: float) -> None:
    await asyncio.sleep(delay)
    while (subscriber := ref()) is not None and not subscriber._closed:
        try:
            await subscriber._open()
            return
        except (ReplyError, NoAuthError, WrongPassError) as error:
            subscriber._failure = error  # asking again would not change the answer
            subscriber._wake()
            return
        except Exception:  # noqa: BLE001, S110 - whatever it was, another connection may do
            pass
        del subscriber
        await asyncio.sleep(pause.next())
