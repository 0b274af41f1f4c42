"""An event loop for the asyncio client: a turn is an event of the world.

It keeps what asyncio promises (callbacks in the order of `call_soon`, none in the turn that asked
for it) and chooses the rest: when a turn comes, when bytes do, when a timer fires.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import client._link

from ._threads import KEEPALIVE
from ._world import Wire, World

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context

    from ._server import Peer, Server


class Loop(asyncio.AbstractEventLoop):
    """The loop of one process.

    Attributes:
        transports: what was connected.
    """

    def __init__(self, world: World, server: Server, owner: str) -> None:
        self.world = world
        self.server = server
        self.owner = owner
        self.transports: list[Transport] = []
        self.unreachable_until = 0.0
        self._ready: list[asyncio.Handle] = []
        self._armed = False

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, **options)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        if not self._armed:
            self._armed = True
            self.world.soon(self._turn)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.at(when, self._fire, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _fire(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._ready.append(handle)
            if not self._armed:
                self._armed = True
                self.world.soon(self._turn)

    def run(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something inside the loop."""
        asyncio._set_running_loop(self)
        try:
            callback(*args)
        finally:
            asyncio._set_running_loop(None)

    def _turn(self) -> None:
        self._armed = False
        ready, self._ready = self._ready, []
        asyncio._set_running_loop(self)
        try:
            for handle in ready:
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)
        if self._ready and not self._armed:
            self._armed = True
            self.world.soon(self._turn)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.world.violations.append(f"the loop of {self.owner}: {context}")

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], Any], host: str, port: int, **options: Any
    ) -> tuple[Any, Any]:
        delays = self.world.delays
        await asyncio.sleep(delays[self.world.choices.pick(len(delays))])
        if self.world.now < self.unreachable_until:
            raise ConnectionRefusedError(111, "no route")
        protocol = factory()
        transport = Transport(self, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class Transport(asyncio.Transport):
    """A connection of a loop."""

    family = 2

    def __init__(self, loop: Loop, protocol: Any) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        self.closed = False
        self.watched = False
        self.arriving = 0
        self.back = Wire(loop.world, self._arrive)
        self.peer: Peer = loop.server.accept(loop.owner, self.back)
        self.out = Wire(loop.world, self.peer.arrive)
        loop.transports.append(self)

    def _arrive(self, data: bytes) -> None:
        # A turn of its own, as a selector would make it.
        self.arriving += 1
        self.loop.call_soon(self._deliver, data)

    def arrive(self, data: bytes) -> None:
        """Have bytes read at once, ahead of all that the loop has to do."""
        self.arriving += 1
        self.loop.run(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        self.arriving -= 1
        if self.closed:
            return
        if data:
            self.protocol.data_received(data)
        else:
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.out.send(b"")
            self.loop.call_soon(self.protocol.connection_lost, error)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.out.send(bytes(data))

    def abort(self) -> None:
        self._lose(None)

    def close(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, *option: int) -> None:
        pass  # whatever it is, the kernel has no part in this world

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def black_hole(self) -> None:
        """Deliver nothing any more, either way."""
        self.back.cut = self.out.cut = True
        if self.watched:
            self._give_up_later()

    def _give_up_later(self) -> None:
        error = TimeoutError(110, "Connection timed out")
        self.loop.world.at(self.loop.world.now + KEEPALIVE, self._fail, error)

    def _fail(self, error: Exception) -> None:
        self.loop.call_soon(self._lose, error)


def _notice_silence(transport: Transport) -> None:
    transport.watched = True
    if transport.back.cut:
        transport._give_up_later()


@contextmanager
def no_loop() -> Iterator[None]:
    """Have the asyncio client ask the fake transport, not the kernel, to notice silence."""
    with patch.object(client._link, "notice_silence", _notice_silence):
        yield
