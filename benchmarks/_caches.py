"""The cached clients, each driven as its documents say, and what is measured of each.

    python -m benchmarks._caches NAME HOST PORT MEASURE

runs one in a process of its own, because some bring threads along and one a runtime, and prints
one line of JSON. Every cache has room for all that is read here.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import client

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
ROOM = 10**6  # entries
STORM = 2_000  # keys; redis-py's next read takes a minute after 10,000, which is its default size
ENTRIES = 20_000  # for the memory of one
LONGEST_WAIT = 1.0  # s until a value counts as stale for good
PAUSE = 50e-6  # s between two looks of who waits for a new value

HIT = "hit, GET [µs]"
WHOLE = "hit, HGETALL of 100 [µs]"
PLAIN = "GET past the cache [µs]"
MEDIAN = "foreign write to new value, median [µs]"
MOST = "foreign write to new value, 99 % [µs]"
AFTER = f"read after {STORM:,} changes [ms]"
MEMORY = "memory of an entry [bytes]"
CALLS = "system calls a hit"

# What each measure gives.
ROWS = {
    "speed": (HIT, WHOLE, PLAIN),
    "freshness": (MEDIAN, MOST),
    "storm": (AFTER,),
    "memory": (MEMORY,),
    "calls": (CALLS,),
}


class Peer:
    """A client whose reads go through its cache; `hit`, `hash` and `plain` read "k" and "h"."""

    package = ""

    def __init__(self, host: str, port: int) -> None:
        self.read, self.hash, self.plain = self.open(host, port)

    def open(
        self, host: str, port: int
    ) -> tuple[Callable[[str], Any], Callable[[], Any], Callable[[], Any]]:
        """Give a cached GET, a cached HGETALL of "h", and a GET of "k" that is never cached."""
        raise NotImplementedError

    def seconds(self, call: Callable[[], Any], number: int) -> float:
        """Give the seconds that a call takes, the least of several rounds of so many."""
        least = float("inf")
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(number):
                call()
            least = min(least, (time.perf_counter() - started) / number)
        return least

    def hit(self) -> Any:
        """Read "k" through the cache."""
        return self.read("k")


class Ours(Peer):
    """This package."""

    package = "resp-client"

    def open(self, host: str, port: int) -> Any:
        url = f"redis://{host}:{port}"
        db = client.connect(url, cache=client.Cache(max_entries=ROOM, max_bytes=2**30))
        execute = db.execute
        self.hit = lambda: execute("GET", "k")  # type: ignore[method-assign]
        return (
            lambda key: execute("GET", key),
            lambda: execute("HGETALL", "h"),
            lambda: db.uncached("GET", "k"),
        )


class RedisPy(Peer):
    """redis-py with CacheConfig, in RESP3."""

    package = "redis"

    def open(self, host: str, port: int) -> Any:
        redis = import_module("redis")
        config = import_module("redis.cache").CacheConfig(max_size=ROOM)
        # It caches only where the server calls itself redis; Valkey does the same thing.
        proxy = import_module("redis.connection").CacheProxyConnection
        proxy.DEFAULT_SERVER_NAME = _name(host, port)
        cached = redis.Redis(host=host, port=port, protocol=3, cache_config=config)
        bare = redis.Redis(host=host, port=port, protocol=3)
        return cached.get, lambda: cached.hgetall("h"), lambda: bare.get("k")


class ValkeyPy(Peer):
    """valkey-py with cache_enabled, in RESP3."""

    package = "valkey"

    def open(self, host: str, port: int) -> Any:
        valkey = import_module("valkey")
        # Its parser over libvalkey takes no invalidations, so the one of its own.
        parser = import_module("valkey._parsers")._RESP3Parser
        options = {"cache_enabled": True, "cache_max_size": ROOM, "parser_class": parser}
        pool = valkey.ConnectionPool(host=host, port=port, protocol=3, **options)
        cached = valkey.Valkey(connection_pool=pool)
        bare = valkey.Valkey(host=host, port=port, protocol=3)
        return cached.get, lambda: cached.hgetall("h"), lambda: bare.get("k")


class Coredis(Peer):
    """coredis with its LRUCache: asyncio, so each call is awaited in one running loop."""

    package = "coredis"

    def open(self, host: str, port: int) -> Any:
        coredis, caches = import_module("coredis"), import_module("coredis.patterns.cache")
        self._loop = asyncio.new_event_loop()
        run = self._loop.run_until_complete
        cached = coredis.Redis(host=host, port=port, cache=caches.LRUCache(max_keys=ROOM))
        bare = coredis.Redis(host=host, port=port)
        run(cached.__aenter__())
        run(bare.__aenter__())

        def whole() -> Any:
            return run(cached.hgetall("h"))

        def plain() -> Any:
            return run(bare.get("k"))

        self._calls: dict[Any, Callable[[], Any]] = {
            self.hit: lambda: cached.get("k"),
            whole: lambda: cached.hgetall("h"),
            plain: lambda: bare.get("k"),
        }
        return lambda key: run(cached.get(key)), whole, plain

    def seconds(self, call: Callable[[], Any], number: int) -> float:
        awaited = self._calls[call]

        async def repeat() -> float:
            started = time.perf_counter()
            for _ in range(number):
                await awaited()
            return (time.perf_counter() - started) / number

        return min(self._loop.run_until_complete(repeat()) for _ in range(ROUNDS))


class GlideSync(Peer):
    """valkey-glide-sync with a server-assisted ClientSideCache."""

    package = "valkey-glide-sync"

    def open(self, host: str, port: int) -> Any:
        glide = import_module("glide_sync")
        address = [glide.NodeAddress(host, port)]
        cache = glide.ClientSideCache.create(
            max_cache_kb=2**20, entry_ttl_ms=600_000, server_assisted=True
        )
        configuration = glide.GlideClientConfiguration
        cached = glide.GlideClient.create(configuration(address, client_side_cache=cache))
        bare = glide.GlideClient.create(configuration(address))
        return cached.get, lambda: cached.hgetall("h"), lambda: bare.get("k")


PEERS: dict[str, type[Peer]] = {
    "resp-client": Ours,
    "redis-py": RedisPy,
    "valkey-py": ValkeyPy,
    "coredis": Coredis,
    "glide-sync": GlideSync,
}


def _name(host: str, port: int) -> str:
    with client.Connection(client.Options(host=host, port=port)) as connection:
        return str(connection.server.get("server", "redis"))


def speed(peer: Peer, other: client.Connection) -> dict[str, Any]:
    """Measure hits and, as their yardstick, the same read past the cache."""
    for call in (peer.hit, peer.hash, peer.plain):
        call()
    other.close()  # nobody writes
    number = 50_000 if isinstance(peer, Ours) else 2_000
    return {
        HIT: peer.seconds(peer.hit, number) * 1e6,
        WHOLE: peer.seconds(peer.hash, number) * 1e6,
        PLAIN: peer.seconds(peer.plain, 2_000) * 1e6,
    }


def freshness(peer: Peer, other: client.Connection, number: int = 200) -> dict[str, Any]:
    """Measure from a foreign write's start to the first read that shows it."""
    times = []
    for count in range(number):
        value = b"%d" % count
        peer.read("fresh")
        started = time.perf_counter()
        other.execute("SET", "fresh", value)
        while peer.read("fresh") not in (value, value.decode()):
            if time.perf_counter() - started > LONGEST_WAIT:
                return {MEDIAN: "never", MOST: "never"}
            time.sleep(PAUSE)
        times.append((time.perf_counter() - started) * 1e6)
    return {
        MEDIAN: statistics.median(times),
        MOST: statistics.quantiles(times, n=100)[98],
    }


def storm(peer: Peer, other: client.Connection) -> dict[str, Any]:
    """Measure the first read after all keys that are held have changed."""
    names = [f"storm:{number}" for number in range(STORM)]
    other.execute_many([("SET", name, "x") for name in names])
    for name in [*names, "k"]:
        peer.read(name)
    other.execute("MSET", *(word for name in names for word in (name, "y")))
    time.sleep(0.3)  # all is announced; who listens has heard it
    started = time.perf_counter()
    peer.read("k")
    return {AFTER: (time.perf_counter() - started) * 1e3}


def memory(peer: Peer, other: client.Connection) -> dict[str, Any]:
    """Measure the resident memory of an entry, key and value of 10 bytes included."""
    names = [f"m:{number:08}" for number in range(ENTRIES)]
    other.execute_many([("SET", name, name) for name in names])
    peer.read(names[0])
    before = _resident()
    for name in names:
        peer.read(name)
    return {MEMORY: (_resident() - before) / ENTRIES}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def calls(peer: Peer, other: client.Connection) -> dict[str, Any]:
    """Make hits between two marks, for strace to count what they ask of the kernel."""
    other.close()
    for _ in range(3):
        peer.hit()
    number = 10_000 if isinstance(peer, Ours) else 1_000
    if isinstance(peer, Coredis):
        peer.seconds(peer.hit, 10)
        os.getppid()
        peer.seconds(peer.hit, number // ROUNDS)
    else:
        os.getppid()
        for _ in range(number):
            peer.hit()
    os.getppid()
    return {"hits": number}


MEASURES = {each.__name__: each for each in (speed, freshness, storm, memory, calls)}


def main() -> None:
    """Measure what the arguments say."""
    name, host, port, measure = sys.argv[1:]
    with client.Connection(client.Options(host=host, port=int(port), timeout=30)) as other:
        found = MEASURES[measure](PEERS[name](host, int(port)), other)
    found["version"] = version(PEERS[name].package)
    print(json.dumps(found), flush=True)
    os._exit(0)  # no time is spent on taking things down


if __name__ == "__main__":
    main()
