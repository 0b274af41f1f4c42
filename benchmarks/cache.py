"""Measure the cache: hits, misses, how soon a change is heard of, storms, memory, eviction.

    python -m benchmarks.cache

One process, one private server, every figure beside its yardstick of the same run: a hit beside
`functools.lru_cache`, a copy beside `dict(d)`, the announcement beside a bare socket that listens.
The peers are driven as their documents say: redis-py with `CacheConfig()` in RESP3, coredis with
its `LRUCache`; where one is not installed its rows are missing.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import statistics
import sys
import threading
import time
import tracemalloc
from collections import OrderedDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import client
import resp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 7


def _best(function: Callable[[], object], number: int, rounds: int = ROUNDS) -> float:
    """Give the least time of a call in µs, over several rounds of many."""
    least = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(number):
            function()
        least = min(least, (time.perf_counter() - started) / number)
    return least * 1e6


def _show(what: str, value: float, unit: str, note: str = "") -> None:
    print(f"  {what:<52} {value:>10.3f} {unit:<6} {note}", flush=True)


def _hits(db: client.Client) -> None:
    print("A hit, and what it is measured by")
    fields = [word for n in range(100) for word in (f"field{n}", f"value{n}")]
    db.execute("SET", "k", "v")
    db.execute("HSET", "h", *fields)
    db.execute("RPUSH", "l", *range(1000))
    time.sleep(0.1)  # the announcements of these writes
    cached = functools.lru_cache(maxsize=None)(lambda *_: b"v")
    whole = db.execute("HGETALL", "h")
    items = db.execute("LRANGE", "l", 0, -1)
    db.execute("GET", "k")
    lru = _best(lambda: cached("GET", "k"), 100_000)
    hit = _best(lambda: db.execute("GET", "k"), 100_000)
    _show("functools.lru_cache", lru, "µs")
    _show("execute GET", hit, "µs", f"{hit / lru:.1f} x lru_cache (at most 6)")
    _show("cached GET", _best(lambda: db.cached("GET", "k"), 100_000), "µs")
    copy = _best(lambda: dict(whole), 10_000)
    full = _best(lambda: db.execute("HGETALL", "h"), 10_000)
    _show("dict(d) of 100 fields", copy, "µs")
    _show("execute HGETALL of 100 fields", full, "µs", f"at most {2 * copy + 6 * lru:.3f}")
    _show("list(l) of 1000", _best(lambda: list(items), 10_000), "µs")
    _show("execute LRANGE of 1000", _best(lambda: db.execute("LRANGE", "l", 0, -1), 10_000), "µs")
    _show("a miss: uncached GET", _best(lambda: db.uncached("GET", "k"), 2_000), "µs")
    _show("4 threads' hits, of one thread's", _threads_ratio(db), "x", "(at least 0.85)")


def _threads_ratio(db: client.Client, number: int = 100_000) -> float:
    def run(threads: int) -> float:
        def work() -> None:
            for _ in range(number // threads):
                db.execute("GET", "k")

        team = [threading.Thread(target=work) for _ in range(threads)]
        started = time.perf_counter()
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        return time.perf_counter() - started

    return min(run(1) for _ in range(ROUNDS)) / min(run(4) for _ in range(ROUNDS))


def _peers(server: client.EmbeddedServer) -> None:
    print("The peers' hits, GET, on the same server")
    try:
        import redis
        from redis.cache import CacheConfig
        from redis.connection import CacheProxyConnection
    except ImportError:
        pass
    else:
        # It caches only where the server calls itself redis; Valkey does the same thing.
        setattr(CacheProxyConnection, "DEFAULT_SERVER_NAME", server.name)  # noqa: B010
        peer = redis.Redis(
            host=server.host, port=server.port, protocol=3, cache_config=CacheConfig()
        )
        peer.get("k")
        _show("redis-py, cached", _best(lambda: peer.get("k"), 5_000), "µs")
        bare = redis.Redis(host=server.host, port=server.port, protocol=3)
        _show("redis-py, no cache", _best(lambda: bare.get("k"), 2_000), "µs")
        peer.close()
        bare.close()
    try:
        coredis, caches = import_module("coredis"), import_module("coredis.patterns.cache")
    except ImportError:
        pass
    else:
        asyncio.run(_coredis(coredis.Redis, caches.LRUCache, server))


async def _coredis(redis_class: Any, cache: Any, server: client.EmbeddedServer) -> None:
    async with redis_class(host=server.host, port=server.port, cache=cache()) as peer:
        await peer.get("k")
        least = float("inf")
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(2_000):
                await peer.get("k")
            least = min(least, (time.perf_counter() - started) / 2_000)
        _show("coredis, cached", least * 1e6, "µs")


def _announcements(server: client.EmbeddedServer, db: client.Client) -> None:
    print("From a foreign write's start to the news of it, idle reader")
    assert db.cache is not None
    options = client.Options.from_url(server.url)
    with client.Connection(options) as writer, client.Connection(options) as raw:
        raw.execute("CLIENT", "TRACKING", "ON")

        def listen(heard: list[float]) -> None:
            if raw.read_push(5) is not None:
                heard.append(time.perf_counter())

        bare, ours = [], []
        for _ in range(500):
            heard: list[float] = []
            raw.execute("GET", "raw")
            thread = threading.Thread(target=listen, args=(heard,))
            thread.start()
            time.sleep(0.001)
            started = time.perf_counter()
            writer.execute("SET", "raw", "x")
            thread.join()
            bare.append((heard[0] - started) * 1e6)
        told = threading.Event()
        at = [0.0]

        def notice(*_: object) -> None:
            at[0] = time.perf_counter()
            told.set()

        db.cache.on_invalidate(notice)
        for _ in range(500):
            db.execute("GET", "ours")
            told.clear()
            time.sleep(0.001)
            started = time.perf_counter()
            writer.execute("SET", "ours", "x")
            told.wait(5)
            ours.append((at[0] - started) * 1e6)
        db.cache._callbacks.clear()
    for name, times in (("a thread on a bare socket", bare), ("the cache", ours)):
        _show(f"{name}, median", statistics.median(times), "µs")
        _show(f"{name}, 99th percentile", statistics.quantiles(times, n=100)[98], "µs")


def _storm(db: client.Client, server: client.EmbeddedServer, number: int = 50_000) -> None:
    print(f"A storm: {number} keys that we hold are changed")
    assert db.cache is not None
    cache = db.cache
    names = [f"storm:{n}" for n in range(number)]
    options = client.Options.from_url(server.url, timeout=60)
    with client.Connection(options) as writer:
        writer.execute_many([("SET", name, "x") for name in names])
        for start in range(0, number, 1000):
            db.execute("MGET", *names[start : start + 1000])
        db.execute("GET", "k")
        held = len(cache)
        times: list[float] = []
        stop = threading.Event()

        def read() -> None:
            clock = time.perf_counter
            while not stop.is_set():
                started = clock()
                db.execute("GET", "k")
                times.append(clock() - started)

        reader = threading.Thread(target=read)
        reader.start()
        started = time.perf_counter()
        writer.execute("MSET", *(word for name in names for word in (name, "y")))
        while len(cache) > held - number and time.perf_counter() - started < 60:
            time.sleep(0.001)
        took = time.perf_counter() - started
        stop.set()
        reader.join()
    _show("keys a second, the write included", number / took / 1000, "k/s", f"of {held} held")
    _show("hits meanwhile, 99th percentile", statistics.quantiles(times, n=100)[98] * 1000, "ms")


def _memory(number: int = 100_000) -> None:
    print(f"Memory and invalidation at {number} small entries")
    rows = [(("GET", f"key:{n}"), b"key:%d" % n, b"value:%d" % n) for n in range(number)]
    cache = client.Cache(max_entries=10**7, max_bytes=2**40)
    tracemalloc.start()
    _fill(cache, rows)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    _show("beyond key and value, an entry", taken / number, "bytes", "(at most 300)")
    for size in (1_000, number, 10 * number):
        rows = [(("GET", f"key:{n}"), b"key:%d" % n, b"v") for n in range(size)]
        cache = client.Cache(max_entries=10**7, max_bytes=2**40)
        _fill(cache, rows)
        gc.collect()
        some = [key for _, key, _ in random.sample(rows, 1_000)]
        started = time.perf_counter()
        for key in some:
            cache.invalidate((key,))
        _show(f"an invalidation among {size}", (time.perf_counter() - started) * 1e3, "µs")


def _fill(cache: client.Cache, rows: list[tuple[Any, bytes, bytes]]) -> None:
    epoch = cache.open()
    for command, key, value in rows:
        reservation = cache.reserve(command, (key,), epoch)
        assert reservation is not None
        cache.fill(reservation, value)


def _eviction() -> None:
    print("Eviction: the share of hits at 1000 entries, of 200,000 reads")
    chance = random.Random(1)
    weights = [1 / rank for rank in range(1, 20_001)]
    zipf = chance.choices(range(20_000), weights, k=200_000)
    scans = iter(range(10**6, 10**7))
    polluted = [
        name
        for index, key in enumerate(zipf)
        for name in ([key] if index % 2 else [key, next(scans)])
    ]
    for name, trace in (("Zipf", zipf), ("Zipf with scans", polluted)):
        _show(f"{name}: SIEVE", 100 * _sieve(trace), "%")
        _show(f"{name}: LRU", 100 * _lru(trace), "%")


def _sieve(trace: list[int], size: int = 1000) -> float:
    cache = client.Cache(max_entries=size, max_bytes=2**40)
    epoch, found = cache.open(), 0
    for name in trace:
        if cache.get(name) is not client.MISS:
            found += 1
            continue
        reservation = cache.reserve(name, (b"%d" % name,), epoch)
        assert reservation is not None
        cache.fill(reservation, b"")
    return found / len(trace)


def _lru(trace: list[int], size: int = 1000) -> float:
    held: OrderedDict[int, None] = OrderedDict()
    found = 0
    for name in trace:
        if name in held:
            held.move_to_end(name)
            found += 1
        else:
            held[name] = None
            if len(held) > size:
                held.popitem(last=False)
    return found / len(trace)


def _sections(server: client.EmbeddedServer) -> Iterator[Callable[[], None]]:
    cache = client.Cache(max_entries=200_000, max_bytes=2**30)
    with client.connect(server.url, cache=cache) as db:
        yield lambda: _hits(db)
        yield lambda: _peers(server)
        yield lambda: _announcements(server, db)
        yield lambda: _storm(db, server)
    yield _memory
    yield _eviction


def main() -> None:
    """Print all figures."""
    with client.embedded() as server:
        print(f"Python {sys.version.split()[0]}, {server.name} {server.version}, codec ", end="")
        print(resp.implementation)
        for section in _sections(server):
            section()
            print()


if __name__ == "__main__":
    main()
