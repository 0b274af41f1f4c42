"""Run a test's coroutine on a loop of its own, and hear of everything that it complains of."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest
from readers import OPTIN, PATIENCE, PROMPT, SETUPS
from scripted import HELLO_3, Peer

import client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from servers import Wire

# As of the blocking client, whose default is a listening connection, and the asyncio client's own.
AIO_SETUPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (None, {}),
    **{
        name: (protocol, {"listener": "dedicated"} | tracking)
        for name, (protocol, tracking) in (SETUPS | OPTIN).items()
    },
}


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in debug mode; fail it for tasks left behind and for errors nobody looked at."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        complaints: list[dict[str, Any]] = []
        with asyncio.Runner(debug=True) as runner:
            loop = runner.get_loop()
            loop.slow_callback_duration = 60.0  # strangers of the suite block on purpose
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            runner.run(test(*args, **kwargs))
            gc.collect()
            runner.run(_left_behind())
        gc.collect()
        assert complaints == []

    return run


def let_go(things: list[Any]) -> list[str]:
    """Empty a list of what is open though its loop has ended; return the warnings."""
    with pytest.warns(ResourceWarning) as warned:  # noqa: PT031
        things.clear()
        gc.collect()
    said = [str(each.message) for each in warned]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asyncio's own, of the transports
        warned.clear()
        gc.collect()
    return said


async def _left_behind() -> None:
    deadline = time.monotonic() + PATIENCE
    while len(asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline, asyncio.all_tasks()
        await asyncio.sleep(0.01)


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Let the loop turn until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.001)


def greet(peer: Peer) -> None:
    """Answer HELLO, for a client that may leave while it connects once more."""
    if peer.command() is not None:
        peer.send(HELLO_3)


async def turns(count: int = 3) -> None:
    """Let the loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


def at_once(awaitable: Awaitable[Any]) -> Any:
    """Drive an awaitable by hand and give its result; it may not suspend."""
    steps = awaitable.__await__()
    try:
        step = next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError(f"it suspended, waiting for {step!r}")


class AioReader:
    """A caching asyncio client beside somebody else, and what a test asks of both."""

    def __init__(self, db: client.AsyncClient, other: Wire) -> None:
        assert db.cache is not None
        self.db = db
        self.other = other
        self.cache = db.cache

    async def read(self, *command: Any) -> Any:
        return await self.db.cached(*command)

    @property
    def hits(self) -> int:
        return self.cache.stats.hits

    async def hit(self, *command: Any) -> Any:
        """Read until it comes from the cache: the announcement of an earlier write may be late."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before = self.hits
            value = await self.read(*command)
            if self.hits == before + 1:
                return value
            assert time.monotonic() < deadline, f"{command} never was a hit; {self.cache.stats}"
            await asyncio.sleep(0)

    async def sees(self, expected: Any, *command: Any) -> None:
        """Read until the expected value comes: the announcement is under way."""
        deadline = time.monotonic() + PROMPT
        while (value := await self.read(*command)) != expected:
            assert time.monotonic() < deadline, f"still {value!r}, not {expected!r}: stale"
            await asyncio.sleep(0.001)
