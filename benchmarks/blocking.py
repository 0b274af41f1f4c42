"""Measure the blocking client beside redis-py, valkey-py and a hand-written socket loop.

    python -m benchmarks.blocking

One process, one private server, each contender in turn in every round, the least of the rounds.
The loop is the floor: it sends prepared bytes and receives as many as the answer is known to
have, so it neither encodes nor parses. The peers run as installed, redis-py on hiredis and
valkey-py on libvalkey where those are there.

The process and the server share one core, if the system lets a process choose. Told is the CPU time
of the client, and on an idle machine of several cores that would have in it what it takes to wake
the server's from its sleep: up to 20 µs a call, as it happens, whoever calls.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import client
import resp

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 9
BIG = 100 * 1024 * 1024


class Loop:
    """A socket, written to and read from by hand."""

    def __init__(self, server: client.EmbeddedServer) -> None:
        self._socket = socket.create_connection((server.host, server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, data: bytes, answer: int) -> None:
        """Send, and receive a number of bytes."""
        self._socket.sendall(data)
        while answer > 0:
            answer -= len(self._socket.recv(65536))

    def receive_into(self, data: bytes, answer: int) -> bytearray:
        """Send, and receive a number of bytes into their final place."""
        self._socket.sendall(data)
        place = bytearray(answer)
        view = memoryview(place)
        while view:
            view = view[self._socket.recv_into(view) :]
        return place

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _least(contenders: dict[str, Callable[[], object]], number: int) -> dict[str, float]:
    """Give the least CPU time of each contender's call, in µs."""
    least: dict[str, float] = {}
    for round_number in range(ROUNDS + 1):
        for name, work in contenders.items():
            gc.collect()
            started = time.process_time()
            for _ in range(number):
                work()
            taken = (time.process_time() - started) / number * 1e6
            if round_number:  # the first one warms up
                least[name] = min(least.get(name, taken), taken)
    return least


def _table(title: str, least: dict[str, float], musts: dict[str, float]) -> None:
    """Print a row for each contender; `musts` has what the ratio to it must be."""
    print(f"\n{title}, CPU of a call")
    ours = least["ours"]
    for name, taken in least.items():
        if name == "ours":
            note = ""
        elif name == "socket loop":
            note = f"ours / loop {ours / taken:.2f}"
            note += f" (at most {musts[name]:g})" if name in musts else ""
        else:
            note = f"{taken / ours:.1f} x ours"
            note += f" (at least {musts[name]:g})" if name in musts else ""
        print(f"  {name:<24} {taken:>12.2f} µs   {note}", flush=True)


def _peers(server: client.EmbeddedServer) -> dict[str, Any]:
    peers = {}
    for name, module, kind in (("redis-py", "redis", "Redis"), ("valkey-py", "valkey", "Valkey")):
        try:
            made = getattr(import_module(module), kind)
        except ImportError:
            continue
        peers[name] = made(host=server.host, port=server.port)
    return peers


def _commands(server: client.EmbeddedServer) -> None:
    loop, db, peers = Loop(server), client.connect(server.url), _peers(server)
    get, answer = resp.encode_command("GET", "k"), len(b"$10\r\nvvvvvvvvvv\r\n")
    db.execute("SET", "k", b"v" * 10)
    db.execute("HSET", "h", *(word for n in range(100) for word in (f"field{n}", f"value{n}")))
    keys = [f"key{n}" for n in range(100)]
    db.execute_many([("SET", key, "value") for key in keys])

    contenders: dict[str, Callable[[], object]] = {
        "socket loop": lambda: loop.exchange(get, answer),
        "ours": lambda: db.execute("GET", "k"),
    }
    for name, peer in peers.items():
        contenders[name] = lambda peer=peer: peer.get("k")  # type: ignore[misc]
    _table("GET", _least(contenders, 2_000), {"socket loop": 1.8})

    def pipeline(peer: Any, length: int, write: bool) -> Callable[[], object]:
        def work() -> object:
            pipe = peer.pipeline(transaction=False)
            for number in range(length):
                pipe.set(f"key{number}", "value") if write else pipe.get("k")
            return pipe.execute()

        return work

    contenders = {
        "socket loop": lambda: loop.exchange(get * 100, answer * 100),
        "ours": lambda: db.execute_many([("GET", "k") for _ in range(100)]),
    }
    contenders |= {name: pipeline(peer, 100, False) for name, peer in peers.items()}
    _table("A pipeline of 100 GETs", _least(contenders, 100), {"redis-py": 6})

    contenders = {
        "ours": lambda: db.execute_many([("SET", f"key{n}", "value") for n in range(1_000)])
    }
    contenders |= {name: pipeline(peer, 1_000, True) for name, peer in peers.items()}
    _table("1,000 SETs", _least(contenders, 20), {"redis-py": 10})

    contenders = {"ours": lambda: db.execute("MGET", *keys)}
    contenders |= {name: lambda peer=peer: peer.mget(keys) for name, peer in peers.items()}  # type: ignore[misc]
    _table("MGET of 100", _least(contenders, 300), {"redis-py": 3})

    contenders = {"ours": lambda: db.execute("HGETALL", "h")}
    contenders |= {name: lambda peer=peer: peer.hgetall("h") for name, peer in peers.items()}  # type: ignore[misc]
    _table("HGETALL of 100 fields", _least(contenders, 300), {"redis-py": 3})
    db.close()
    loop.close()
    for peer in peers.values():
        peer.close()


# A process of its own for each: what one has allocated would flatter the next.
_BIG = """
import sys, time
from benchmarks.blocking import BIG, big_reader
def memory(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))
read = big_reader(sys.argv[1], sys.argv[2])
read("small")
before, cpu = memory("VmRSS"), time.process_time()
value = read("big")
cpu = time.process_time() - cpu
peak = memory("VmHWM")
assert len(value) == BIG
del value
times = [cpu]
for _ in range(4):
    cpu = time.process_time()
    value = read("big")
    times.append(time.process_time() - cpu)
    del value
print((peak - before) / BIG, (memory("VmRSS") - before) / BIG, min(times) * 1e3)
"""


def big_reader(name: str, url: str) -> Callable[[str], Any]:
    """Give a function that reads a key as the named contender does."""
    options = client.Options.from_url(url)
    if name == "recv_into":
        server = type("Server", (), {"host": options.host, "port": options.port})
        loop = Loop(server)  # type: ignore[arg-type]

        def read(key: str) -> Any:
            size = {"small": 10, "big": BIG}[key]
            data = resp.encode_command("GET", key)
            head = len(b"$%d\r\n" % size)
            if key == "small":
                return loop.exchange(data, head + size + 2)
            loop._socket.sendall(data)
            loop._socket.recv(head, socket.MSG_WAITALL)
            value = loop.receive_into(b"", size)
            loop._socket.recv(2, socket.MSG_WAITALL)
            return value

        return read
    if name == "ours":
        db = client.connect(url)
        return lambda key: db.execute("GET", key)
    module = import_module(name.partition("-")[0])
    peer = module.from_url(url)
    return peer.get  # type: ignore[no-any-return]


def _big(server: client.EmbeddedServer) -> None:
    with client.connect(server.url, timeout=60) as db:
        db.execute("SET", "small", b"v" * 10)
        db.execute("SET", "big", bytes(BIG))
    print("\nA value of 100 MiB: memory at the peak and afterwards, in its size; CPU")
    floor = 0.0
    for name in ("recv_into", "ours", *_peers(server)):
        run = subprocess.run(
            [sys.executable, "-c", _BIG, name, server.url],
            check=True,
            capture_output=True,
            text=True,
        )
        peak, left, cpu = map(float, run.stdout.split())
        floor = floor or cpu
        note = f"{cpu / floor:.2f} x recv_into" + (" (at most 1.2)" if name == "ours" else "")
        print(f"  {name:<24} {peak:>6.2f} {left:>6.2f} {cpu:>9.1f} ms   {note}", flush=True)


def main() -> None:
    """Measure, and print."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with client.embedded() as server:
        print(f"codec: {resp.implementation}, server: {server.name} {server.version}")
        _commands(server)
        _big(server)


if __name__ == "__main__":
    main()
