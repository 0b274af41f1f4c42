"""The asyncio client's way to a server through its sentinels, and the task that follows it.

Both carry out the steps of `_sentinel`, as `_follower` does for the blocking client. A link can
be opened but once, so the server that is named is tried on another one first.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ._errors import ConnectError, ConnectionClosed
from ._link import Link, open_link
from ._sentinel import UNUSABLE, Ask, Finder, Visit, Wait, confirm

if TYPE_CHECKING:
    from ._handshake import Greeting
    from ._options import Options
    from ._resp import Push
    from ._session import Trace


async def open_found(link: Link, options: Options, loop: asyncio.AbstractEventLoop) -> Greeting:
    """Open a link to the server that the sentinels of its options lead to.

    Raises:
        ConnectError: they lead to none.
    """
    finder: Finder[Any] = options.finder or Finder(options)
    moves = finder.moves
    try:
        with closing(finder.search(options)) as search:
            step = next(search)
            while True:
                try:
                    outcome = await _visit(step, loop, finder)
                except Exception as error:  # noqa: BLE001 - the search judges it
                    step = search.throw(error)
                else:
                    found = step.options
                    try:
                        step = search.send(outcome)
                    except StopIteration as end:
                        address = end.value
                        break
        link.aim(found)
        finder.note(link, found)
        greeting = await open_link(link, found, loop)
        await link.converse(confirm(options.replica, greeting.server))
        if not finder.add(link, address, moves):
            raise ConnectError(f"{options.address} moved while it was connected to")
    except BaseException:
        link.abort(ConnectionClosed("the handshake was given up"))
        raise
    finder.begin()
    return greeting


async def _visit(step: Visit, loop: asyncio.AbstractEventLoop, finder: Finder[Any]) -> Any:
    link = Link(step.options, loop, name="sentinel", trace=finder.trace, raw=True)
    if step.keep:
        finder.note(link, step.options)
    try:
        greeting = await open_link(link, step.options, loop)
        return await link.converse(step.conversation(greeting.server))
    finally:
        await link.close()


class AsyncFollower(Finder[Link]):
    """A `Finder` with a task that follows the service, for as long as its owner is there."""

    def __init__(self, options: Options, trace: Trace | None, owner: object) -> None:
        super().__init__(options, _end, trace)
        self._owner = weakref.ref(owner)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._kept: Link | None = None
        self._pushes: list[Push] = []
        self._news: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Start the task, if there is none."""
        if self._task is None and not self._stopping:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the task and its connection."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        steps = self.follow()
        outcome: Any = None
        try:
            step = next(steps)
            while self._owner() is not None:
                try:
                    outcome = await self._do(step, loop)
                except UNUSABLE as error:
                    await self._let_go()
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        finally:
            steps.close()
            await self._let_go()

    async def _do(self, step: Visit | Ask | Wait, loop: asyncio.AbstractEventLoop) -> Any:
        if isinstance(step, Visit):
            if not step.keep:
                return await _visit(step, loop, self)
            await self._let_go()
            opened = Link(
                step.options, loop, name="sentinel", trace=self.trace, on_push=self._hear,
                on_lost=self._wake, raw=True,
            )  # fmt: skip
            self._kept = opened
            greeting = await open_link(opened, step.options, loop)
            return await opened.converse(step.conversation(greeting.server))
        kept = self._kept
        if isinstance(step, Wait):
            if kept is None:
                await asyncio.sleep(step.seconds)
                return []
            return await self._wait(kept, step.seconds, loop)
        assert kept is not None  # it is asked on the connection that was opened to it
        return await kept.converse(step.conversation)

    async def _wait(
        self, kept: Link, seconds: float, loop: asyncio.AbstractEventLoop
    ) -> list[Push]:
        if not self._pushes and not kept.closed:
            self._news = loop.create_future()
            await asyncio.wait([self._news], timeout=seconds)
            self._news = None
        if kept.closed:
            raise ConnectionClosed("the connection to the sentinel was lost")
        pushes, self._pushes = self._pushes, []
        return pushes

    def _hear(self, push: Push) -> None:
        if push.kind == "message":
            self._pushes.append(push)
            self._wake()

    def _wake(self, *_: object) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        self._pushes = []
        if kept is not None:
            await kept.close()


def _end(link: Link) -> None:
    link.abort(ConnectionClosed("the service is on another server now"))
