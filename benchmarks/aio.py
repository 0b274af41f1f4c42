"""Measure the asyncio client beside redis.asyncio, coredis and a bare asyncio protocol.

    python -m benchmarks.aio [--uvloop]

One process, one private server, each contender in turn in every round, the least of the rounds.
The bare protocol is the floor: it writes prepared bytes and cuts what comes by the length that the
answers are known to have, so it neither encodes nor parses. For many tasks it is batched by hand:
what they write in one turn leaves in one write, and each has a future. redis.asyncio and coredis
run as installed, redis.asyncio on hiredis where that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any

import client
import resp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Many short rounds: on a busy machine some of them are left in peace.
ROUNDS = 30
VALUE = b"v" * 10
GET = resp.encode_command("GET", "k")
ANSWER = b"$10\r\n" + VALUE + b"\r\n"


class Bare(asyncio.Protocol):
    """Writes what it is given, and waits for a number of bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with nothing asked."""
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[None] | None = None
        self._missing = 0
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Cut the answers, or count their bytes."""
        if self._waiting:
            data, size = self._rest + data, len(ANSWER)
            for start in range(0, len(data) - size + 1, size):
                self._waiting.popleft().set_result(data[start + 5 : start + size - 2])
            self._rest = data[len(data) - len(data) % size :]
            return
        self._missing -= len(data)
        if self._missing == 0 and self._answered is not None:
            self._answered.set_result(None)

    async def exchange(self, data: bytes, answer: int) -> None:
        """Write, and wait for a number of bytes."""
        self._missing = answer
        self._answered = self._loop.create_future()
        self._transport.write(data)
        await self._answered

    async def get(self) -> bytes:
        """Write a GET together with those of other tasks, and give its value."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(GET)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(future)
        return await future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def _least(contenders: dict[str, Any], count: int) -> dict[str, tuple[float, float]]:
    """Give the least CPU and wall time of each contender, in µs per command."""
    least: dict[str, tuple[float, float]] = {}
    for round_number in range(ROUNDS + 1):
        for name, work in contenders.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            await work()
            cpu = (time.process_time() - cpu) / count * 1e6
            wall = (time.perf_counter() - wall) / count * 1e6
            if round_number:  # the first one warms up
                before = least.get(name, (cpu, wall))
                least[name] = (min(before[0], cpu), min(before[1], wall))
    return least


def _table(title: str, least: dict[str, tuple[float, float]], yardsticks: dict[str, float]) -> None:
    """Print a row for each contender; `yardsticks` maps a peer to what our ratio to it must be."""
    print(f"\n{title}")
    ours = least["ours"]
    for name, (cpu, wall) in least.items():
        note = ""
        if name in yardsticks:
            note = f"must: {yardsticks[name]:g}"
        ratio = cpu / ours[0] if name != "bare" or yardsticks.get("bare", 0) < 1 else ours[0] / cpu
        kind = "ours / bare" if name == "bare" and yardsticks.get("bare", 0) >= 1 else "x ours"
        print(f"  {name:<28} {cpu:>9.2f} µs CPU {wall:>9.2f} µs   {ratio:>6.2f} {kind:<12} {note}")


async def _measure(server: client.EmbeddedServer) -> None:
    loop = asyncio.get_running_loop()
    db = await client.connect_async(server.url)
    await db.execute("SET", "k", VALUE)
    _, bare = await loop.create_connection(Bare, server.host, server.port)
    peers: dict[str, Any] = {}
    closers: list[Any] = [db.aclose]
    try:
        redis = import_module("redis.asyncio")
    except ImportError:
        pass
    else:
        # Beyond its default of 100 connections it refuses, where others wait.
        pool = redis.BlockingConnectionPool(host=server.host, port=server.port, protocol=3)
        peers["redis.asyncio"] = redis.Redis(connection_pool=pool)
        closers.append(peers["redis.asyncio"].aclose)
    try:
        coredis = import_module("coredis")
    except ImportError:
        pass
    else:
        peers["coredis"] = coredis.Redis(host=server.host, port=server.port)

    async def run() -> None:
        sequential = 300

        def one_by_one(get: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
            async def work() -> None:
                for _ in range(sequential):
                    await get()

            return work

        contenders: dict[str, Any] = {
            "bare": one_by_one(lambda: bare.exchange(GET, len(ANSWER))),
            "ours": one_by_one(lambda: db.execute("GET", "k")),
        }
        for name, peer in peers.items():
            contenders[name] = one_by_one(lambda peer=peer: peer.get("k"))  # type: ignore[misc]
        _table(
            "One task, GET after GET",
            await _least(contenders, sequential),
            {"bare": 1.4, "redis.asyncio": 1.0},
        )

        tasks, each = 100, 10
        total = tasks * each

        def together(get: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
            async def task() -> None:
                for _ in range(each):
                    await get()

            async def work() -> None:
                await asyncio.gather(*(task() for _ in range(tasks)))

            return work

        contenders = {"bare": together(bare.get), "ours": together(lambda: db.execute("GET", "k"))}
        for name, peer in peers.items():
            contenders[name] = together(lambda peer=peer: peer.get("k"))  # type: ignore[misc]
        _table(
            "100 tasks on one client (bare: batched by hand)",
            await _least(contenders, total),
            {"bare": 0.5, "redis.asyncio": 6.0},
        )

        pipelines, length = 10, 100
        commands = [("GET", "k")] * length

        async def ours() -> None:
            for _ in range(pipelines):
                await db.execute_many(commands)

        def piped(peer: Any, name: str) -> Callable[[], Awaitable[object]]:
            async def work() -> None:
                for _ in range(pipelines):
                    if name == "coredis":
                        async with peer.pipeline(transaction=False) as pipe:
                            for _ in range(length):
                                pipe.get("k")
                    else:
                        pipe = peer.pipeline(transaction=False)
                        for _ in range(length):
                            pipe.get("k")
                        await pipe.execute()

            return work

        async def bare_pipeline() -> None:
            for _ in range(pipelines):
                await bare.exchange(GET * length, len(ANSWER) * length)

        contenders = {"bare": bare_pipeline, "ours": ours}
        for name, peer in peers.items():
            contenders[name] = piped(peer, name)
        _table(
            "A pipeline of 100 (execute_many)",
            await _least(contenders, pipelines * length),
            {"redis.asyncio": 8.0},
        )
        await _latencies(db, peers)

    if "coredis" in peers and hasattr(peers["coredis"], "__aenter__"):
        async with peers["coredis"]:
            await run()
    else:
        await run()
    for close in closers:
        await close()
    bare.close()


async def _latencies(db: client.AsyncClient, peers: dict[str, Any]) -> None:
    print("\nLatency of GET under 1,000 tasks, µs (median, 99th percentile)")
    contenders: dict[str, Any] = {"ours": lambda: db.execute("GET", "k")}
    for name, peer in peers.items():
        contenders[name] = lambda peer=peer: peer.get("k")
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(3):
        for name, get in contenders.items():
            taken: list[float] = []

            async def task(get: Any = get, taken: list[float] = taken) -> None:
                for _ in range(5):
                    started = time.perf_counter()
                    await get()
                    taken.append(time.perf_counter() - started)

            await asyncio.gather(*(task() for _ in range(1_000)))
            cuts = statistics.quantiles(taken, n=100)
            seen[name].append((cuts[49] * 1e6, cuts[98] * 1e6))
    for name, rounds in seen.items():
        median, late = (min(column) for column in zip(*rounds, strict=True))
        print(f"  {name:<28} {median:>9.0f} {late:>9.0f}")


async def _hits(server: client.EmbeddedServer) -> None:
    async def nothing(*_: object) -> bytes:
        return VALUE

    async with client.connect_async(server.url, cache=True) as db:
        await db.execute("GET", "k")
        count = 50_000

        async def hits() -> None:
            for _ in range(count):
                await db.execute("GET", "k")

        async def floor() -> None:
            for _ in range(count):
                await nothing("GET", "k")

        least = await _least({"an awaited no-op": floor, "a hit": hits}, count)
    over = least["a hit"][0] - least["an awaited no-op"][0]
    print("\nA cached GET")
    for name, (cpu, _) in least.items():
        print(f"  {name:<28} {cpu:>9.2f} µs")
    print(f"  a hit costs {over:.2f} µs over the no-op (at most 1)")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aio", description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    arguments = parser.parse_args()
    factory = import_module("uvloop").new_event_loop if arguments.uvloop else None
    with client.embedded() as server:
        print(f"codec: {resp.implementation}, server: {server.name} {server.version}")
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_measure(server))
            runner.run(_hits(server))


if __name__ == "__main__":
    main()
