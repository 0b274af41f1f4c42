"""Measure the cache: hits, misses, how soon a change is heard of, storms, memory, eviction.

    python -m benchmarks.cache

First the peers, each in a process of its own on one private server, as `_caches` drives them; then
our own figures, each beside its yardstick of the same run: a hit beside `functools.lru_cache`, a
copy beside `dict(d)`, the announcement beside a bare socket that listens. What is printed is also
written to docs/benchmarks/cache.txt.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import client
import resp

from ._caches import CALLS, PEERS, ROWS
from ._report import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 7
PATIENCE = 120  # s for one measure of a peer
OUTPUT = Path(__file__).parent.parent / "docs" / "benchmarks" / "cache.txt"

_said: list[str] = []


def _say(line: str = "") -> None:
    print(line, flush=True)
    _said.append(line)


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
    _say(f"  {what:<52} {value:>10.3f} {unit:<6} {note}".rstrip())


def _hits(db: client.Client) -> None:
    _say("A hit, and what it is measured by")
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
    with client.Connection(client.Options.from_url(server.url)) as other:
        other.execute("SET", "k", "v")
        other.execute("HSET", "h", *(word for n in range(100) for word in (f"f{n}", f"v{n}")))
    columns = {name: _measure_peer(name, server) for name in PEERS}
    versions = {name: found.pop("version", "absent") for name, found in columns.items()}
    _say("Cached clients, each in its own process on the same server")
    _say(f"  {'':<44}" + "".join(f"{name:>13}" for name in columns))
    _say(f"  {'version':<44}" + "".join(f"{versions[name]:>13}" for name in columns))
    for row in (row for rows in ROWS.values() for row in rows):
        cells = (columns[name].get(row, "") for name in columns)
        _say(f"  {row:<44}" + "".join(f"{_cell(value):>13}" for value in cells))


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _measure_peer(name: str, server: client.EmbeddedServer) -> dict[str, Any]:
    """Give the figures of one client; where it failed, how, in place of the figure."""
    found: dict[str, Any] = {}
    for measure, rows in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "strace")
            command = [sys.executable, "-m", "benchmarks._caches", name]
            command += [server.host, str(server.port), measure]
            if measure == "calls":
                strace = shutil.which("strace")
                if strace is None:
                    found[CALLS] = "no strace"
                    continue
                command = [strace, "-f", "-o", str(log), *command]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=PATIENCE
                )
            except subprocess.TimeoutExpired:
                found |= dict.fromkeys(rows, f"> {PATIENCE} s")
                continue
            if done.returncode:
                error = (done.stderr.strip().splitlines() or ["?"])[-1].partition(":")[0]
                if "ModuleNotFound" in error or "PackageNotFound" in error:
                    return {}
                found |= dict.fromkeys(rows, error.rpartition(".")[2][:12])
                continue
            figures = json.loads(done.stdout)
            if measure == "calls":
                figures[CALLS] = _count_calls(log.read_text()) / figures.pop("hits")
            found.update(figures)
    return found


def _count_calls(log: str) -> int:
    """Count the system calls of all threads between the two marks."""
    started = re.compile(r"\d+ +(\w+)\(")
    calls = [match[1] for line in log.splitlines() if (match := started.match(line))]
    first, last = (index for index, call in enumerate(calls) if call == "getppid")
    return last - first - 1


def _announcements(server: client.EmbeddedServer, db: client.Client) -> None:
    _say("From a foreign write's start to the news of it, idle reader")
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


# Somebody else, who changes all keys at once when told to.
WRITER = """
import socket, sys
host, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
words = [w for n in range(number) for w in (b"storm:%d" % n, b"y")]
command = [b"*%d\\r\\n$4\\r\\nMSET\\r\\n" % (len(words) + 1)]
command += [b"$%d\\r\\n%b\\r\\n" % (len(word), word) for word in words]
sock = socket.create_connection((host, port))
print("ready", flush=True)
sys.stdin.readline()
sock.sendall(b"".join(command))
sock.recv(100)
"""


def _storm(host: str, port: int, number: int = 50_000) -> dict[str, float]:
    """Give keys per second, without and with a thread that hits, and what those hits took."""
    best: dict[str, float] = {}
    for turn in range(2 * ROUNDS):
        rate, slow = _one_storm(host, port, number, hits=bool(turn % 2))
        what = "beside hits" if turn % 2 else "alone"
        best[what] = max(best.get(what, 0.0), rate)
        if turn % 2:
            best["slow"] = min(best.get("slow", float("inf")), slow)
    return best


def _one_storm(host: str, port: int, number: int, hits: bool) -> tuple[float, float]:
    cache = client.Cache(max_entries=2 * number, max_bytes=2**30)
    names = [f"storm:{n}" for n in range(number)]
    url = f"redis://{host}:{port}"
    with client.connect(url, cache=cache, timeout=60) as db:
        db.execute_many([("SET", name, "x") for name in names])
        while len(cache) <= number:  # own writes are announced too, and late
            for start in range(0, number, 1000):
                db.execute("MGET", *names[start : start + 1000])
            db.execute("GET", "k")
        held = len(cache)
        command = [sys.executable, "-c", WRITER, host, str(port), str(number)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdout.readline()
            times, stop = [0.0, 0.0], threading.Event()

            def read() -> None:
                clock = time.perf_counter
                while not stop.is_set():
                    began = clock()
                    db.execute("GET", "k")
                    times.append(clock() - began)

            reader = threading.Thread(target=read)
            if hits:
                reader.start()
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            while len(cache) >= held:
                time.sleep(0.001)
            started = time.perf_counter()
            while len(cache) > held - number:
                time.sleep(0.001)
            rate = number / (time.perf_counter() - started)
            stop.set()
            if hits:
                reader.join()
    return rate, statistics.quantiles(times, n=100)[98]


def _storms(server: client.EmbeddedServer) -> None:
    _say(
        "A storm: 50000 keys that we hold are changed at once; keys a second from the first dropped"
    )
    for implementation, pure, least in (("compiled", "", 300), ("pure", "1", 100)):
        if implementation == "compiled" and resp.implementation != "cython":
            continue
        command = [sys.executable, "-m", "benchmarks.cache", "--storm", server.host]
        environment = {**os.environ, "RESP_PURE_PYTHON": pure}
        done = subprocess.run(
            [*command, str(server.port)], env=environment, stdout=subprocess.PIPE, check=True
        )
        best = json.loads(done.stdout)
        _show(f"{implementation}, nothing else going on", best["alone"] / 1e3, "k/s")
        note = f"(at least {least})"
        _show(f"{implementation}, beside a thread of hits", best["beside hits"] / 1e3, "k/s", note)
        _show(f"{implementation}, those hits, 99th percentile", best["slow"] * 1e3, "ms")


def _memory(number: int = 100_000) -> None:
    _say(f"Memory and invalidation at {number} small entries")
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
    _say("Eviction: the share of hits at 1000 entries, of 200,000 reads")
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
    yield lambda: _peers(server)
    cache = client.Cache(max_entries=200_000, max_bytes=2**30)
    with client.connect(server.url, cache=cache) as db:
        yield lambda: _hits(db)
        yield lambda: _announcements(server, db)
    yield lambda: _storms(server)
    yield _memory
    yield _eviction


def main() -> None:
    """Print all figures, and write them down."""
    parser = argparse.ArgumentParser(description="Measure the cache beside its peers.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the file to write")
    parser.add_argument("--storm", nargs=2, metavar=("HOST", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.storm:
        host, port = arguments.storm
        print(json.dumps(_storm(host, int(port))))
        return
    with client.embedded() as server:
        about = machine()
        _say(
            f"{datetime.now(UTC):%Y-%m-%d}, python -m benchmarks.cache, "
            f"{about['python_implementation']} {about['python_version']}, {about['system']} "
            f"{about['machine']}, {about['cpu']}"
        )
        number = ".".join(map(str, server.version))
        _say(f"{server.name} {number}, codec {resp.implementation}")
        for section in _sections(server):
            _say()
            section()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(_said) + "\n")


if __name__ == "__main__":
    main()
