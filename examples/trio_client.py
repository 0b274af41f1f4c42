"""A client for Trio in 60 lines: `client.Session` does the protocol, Trio does the waiting.

Each command takes the next place in the line of replies. A cancelled task keeps its place, and its
reply is dropped there. What the server pushes goes to `on_push`.
"""

import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import client


class TrioClient:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream, self._writing = stream, trio.Lock()
        self._session = client.Session(on_push=print)
        self._line: deque[trio.MemorySendChannel[Any]] = deque()

    async def execute(self, *command: str | bytes | float) -> Any:
        place, answer = trio.open_memory_channel[Any](1)
        async with self._writing:  # bytes and places in the same order
            data = self._session.send(*command)
            self._line.append(place)
            with trio.CancelScope(shield=True):  # half a command would put us out of step
                await self._stream.send_all(data)
        reply = await answer.receive()
        if isinstance(reply, client.ReplyError):
            raise reply
        return reply

    async def read(self) -> None:
        async for data in self._stream:
            for reply in self._session.receive(data):
                self._line.popleft().send_nowait(reply)
        raise client.ConnectionClosed("the server closed the connection")


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncIterator[TrioClient]:
    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        db = TrioClient(stream)
        nursery.start_soon(db.read)
        await db.execute("HELLO", 3)
        yield db
        nursery.cancel_scope.cancel()


async def main(host: str, port: int) -> None:
    async with connect(host, port) as db:
        replies = [await db.execute("INCRBY", "total", number) for number in range(10)]
        print("total:", replies[-1])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
