"""Ten thousand tasks, random cancellations, random kills: every reply belongs to its request.

    SOAK_SECONDS=60 pytest tests/test_asyncio_soak.py -s

Each value carries the number of what asked for it. What may not happen: a reply to somebody else's
request, a write that ran twice, a hit older than what was acknowledged before it was asked for, a
task that never ends, and anything left over.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from readers import open_things, resident
from servers import Wire

import client

SECONDS = float(os.environ.get("SOAK_SECONDS", "2"))
TASKS = 10_000 if SECONDS >= 30 else 2_000  # in the suite it should not be what takes longest
KEYS = 500


class Soak:
    """What the tasks share."""

    def __init__(self, clients: list[client.AsyncClient], other: Wire) -> None:
        self.clients = clients
        self.other = other
        self.stopping = False
        self.count: Counter[str] = Counter()
        self.versions = [0] * KEYS

    async def worker(self, number: int) -> None:
        """Ask for one thing after the other until it is over; survive being cancelled."""
        db = self.clients[number % len(self.clients)]
        attempts = successes = 0
        asks = [self.echo, self.pipeline, self.read, self.fresh_read]
        while not self.stopping:
            try:
                if number % 1_000 == 0:
                    await self.pop(db, number)
                elif random.random() < 0.2:
                    attempts += 1
                    reply = await db.execute("INCR", f"w:{number}")
                    assert successes < reply <= attempts, "a write ran twice, or was another's"
                    successes = reply
                else:
                    await random.choice(asks)(db, number)
                self.count["replies"] += 1
                await asyncio.sleep(random.random() * 2)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                self.count["cancelled"] += 1
            except (client.ConnectionClosed, client.PoolTimeout) as error:
                self.count[type(error).__name__] += 1

    async def echo(self, db: client.AsyncClient, number: int) -> None:
        asked = b"%d:%d" % (number, random.getrandbits(32))
        assert await db.execute("ECHO", asked) == asked

    async def pipeline(self, db: client.AsyncClient, number: int) -> None:
        asked = [b"%d:%d" % (number, place) for place in range(5)]
        assert await db.execute_many([("ECHO", each) for each in asked]) == asked

    async def read(self, db: client.AsyncClient, number: int) -> None:
        key = random.randrange(KEYS)
        value = await db.execute("GET", f"r:{key}")
        assert value.startswith(b"%d:" % key)

    async def fresh_read(self, db: client.AsyncClient, number: int) -> None:
        key = random.randrange(KEYS)
        known = self.versions[key]
        value = await db.cached("GET", f"r:{key}", max_stale=0)
        name, version = value.split(b":")
        assert int(name) == key
        assert int(version) >= known, "a hit was older than what was there when it was asked for"

    async def pop(self, db: client.AsyncClient, number: int) -> None:
        await db.execute("DEL", f"l:{number}")
        pop = asyncio.ensure_future(db.execute("BLPOP", f"l:{number}", 0.5))
        try:
            await asyncio.sleep(random.random() * 0.05)
            await db.execute("RPUSH", f"l:{number}", number)
            assert await pop in ([b"l:%d" % number, b"%d" % number], None)
        finally:
            pop.cancel()
            await asyncio.gather(pop, return_exceptions=True)

    async def change(self) -> None:
        while not self.stopping:
            key = random.randrange(KEYS)
            self.other("SET", f"r:{key}", f"{key}:{self.versions[key] + 1}")
            self.versions[key] += 1
            await asyncio.sleep(0.005)

    async def cancel(self, workers: list[asyncio.Task[None]]) -> None:
        while not self.stopping:
            for worker in random.sample(workers, 50):
                worker.cancel()
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        while not self.stopping:
            await asyncio.sleep(random.random() * min(3.0, SECONDS / 2))
            lines = self.other("CLIENT", "LIST").decode().splitlines()
            ids = [int(line.split()[0].partition("=")[2]) for line in lines]
            victims = [number for number in ids if number != self.me]
            random.shuffle(victims)
            for victim in random.choice([victims, victims[:1]]):
                self.count["kills"] += self.other("CLIENT", "KILL", "ID", str(victim))

    async def listen(self, db: client.AsyncClient) -> None:
        last = -1
        while not self.stopping:
            messages = db.pubsub("numbers")
            try:
                await messages.__aenter__()
            except client.ConnectionClosed:  # killed before it had begun
                continue
            while not self.stopping:
                if (message := await messages.get(0.1)) is not None:
                    assert int(message.data) > last, "a message came twice, or out of order"
                    last = int(message.data)
                    self.count["messages"] += 1
            self.count["interruptions"] += messages.interruptions
            await messages.aclose()

    async def publish(self) -> None:
        number = 0
        while not self.stopping:
            self.other("PUBLISH", "numbers", number)
            number += 1
            await asyncio.sleep(0.01)

    async def run(self) -> list[int]:
        """Go on for `SECONDS`; give the resident memory along the way."""
        self.me = self.other("CLIENT", "ID")
        for key in range(KEYS):
            self.other("SET", f"r:{key}", f"{key}:0")
        memory = []
        workers = [asyncio.create_task(self.worker(number)) for number in range(TASKS)]
        others = [
            asyncio.create_task(each)
            for each in (
                self.change(),
                self.cancel(workers),
                self.kill(),
                self.publish(),
                self.listen(self.clients[0]),
            )
        ]
        try:
            for _ in range(20):
                await asyncio.sleep(SECONDS / 20)
                memory.append(resident() // 1024)
                for task in (*workers, *others):
                    if task.done():
                        task.result()  # an assertion failed
        finally:
            self.stopping = True
        async with asyncio.timeout(30):  # nobody is stuck
            await asyncio.gather(*workers, *others)
        return memory


async def _soak(server: client.EmbeddedServer, counted: Counter[str]) -> None:
    with closing(Wire(server)) as other:
        clients = [
            await client.connect_async(server.url, cache=True),
            await client.connect_async(
                server.url, tracking=client.Tracking(listener="dedicated"), cache=True
            ),
        ]
        soak = Soak(clients, other)
        memory = await soak.run()
        for db in clients:
            async with asyncio.timeout(30):
                assert await db.execute("PING") == b"PONG"
                while db._link is None or db._link.flights:
                    await asyncio.sleep(0.01)
            assert db.cache is not None
            assert db.cache.stats.reservations == 0
            soak.count["hits"] += db.cache.stats.hits
            await db.aclose()
        counted.update(soak.count, least_kib=min(memory[5:]), last_kib=memory[-1])


@pytest.mark.timeout(SECONDS + 120)
def test_nobody_gets_anothers_reply_and_nothing_is_left(
    any_server: client.EmbeddedServer, pytestconfig: pytest.Config
) -> None:
    counted: Counter[str] = Counter()
    complaints: list[Any] = []
    before = open_things()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(_soak(any_server, counted))
        assert asyncio.all_tasks(loop) == set()
    gc.collect()
    futures = [each for each in gc.get_objects() if isinstance(each, asyncio.Future)]
    if pytestconfig.get_verbosity() > 0 or SECONDS > 10:
        print(f"\n{SECONDS:g} s:", dict(counted), f"{time.process_time():.0f} s CPU")
    assert complaints == []
    assert futures == []
    assert open_things() == before
    assert counted["replies"] > TASKS / 10
    assert counted["hits"] > 0
    assert counted["kills"] > 0
    assert counted["cancelled"] > 0
    if SECONDS >= 30:  # a short run is all beginning
        # Measured over 60 s: it goes up and down by 8 MiB or so.
        assert counted["last_kib"] < counted["least_kib"] + 32 * 1024
