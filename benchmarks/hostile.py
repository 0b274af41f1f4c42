"""Hostile servers beside each other: `python -m benchmarks.hostile` prints the table of the docs.

Each cell is a process of its own that asks one client for a key at a server whose answer is
broken, and then for another at the same server, which from its second connection on behaves. Told
are the error and after how long it came (the time-out is 1 s), what the process grew by, and what
the second command got. A cell that has not ended after 20 s is killed, and so is one that grows
beyond 2 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TIMEOUT = 1.0
PATIENCE = 20.0
MEMORY = 2 * 1024**3

CASES: dict[str, tuple[bytes, bytes]] = {
    "bulk of 100 GB announced": (b"$99999999999\r\n", b""),
    "array of a thousand million announced": (b"*1000000000\r\n", b""),
    "array of length -5": (b"*-5\r\n", b""),
    "100,000 nested arrays": (b"*1\r\n" * 100_000, b""),
    "line without end": (b"+", b"x" * 65536),
    "wrong type byte": (b"?what\r\n", b""),
    "`:abc`": (b":abc\r\n", b""),
    "bulk without its CRLF": (b"$3\r\nabcXY", b""),
    "surplus reply": (b"$5\r\nfirst\r\n$7\r\nsurplus\r\n", b""),
    "push with a number for keys": (b">2\r\n+invalidate\r\n:5\r\n$5\r\nfirst\r\n", b""),
    "empty push": (b">0\r\n$5\r\nfirst\r\n", b""),
    "silence": (b"", b""),
    "one byte every half second": (b"", b"drip"),
}


# The server.


def serve(listening: socket.socket, case: str) -> None:
    """Accept connections; the first that asks for `k` gets the case, all others an answer."""
    spent = threading.Event()
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        arguments = (connection, case, spent)
        threading.Thread(target=_answer, args=arguments, daemon=True).start()


def _answer(connection: socket.socket, case: str, spent: threading.Event) -> None:
    head, more = CASES[case]
    with suppress(OSError), connection:
        rest = b""
        while data := connection.recv(65536):
            rest += data
            while (taken := _command(rest)) is not None:
                words, rest = taken
                name = words[0].upper()
                if name == b"HELLO":
                    connection.sendall(
                        b"%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n"
                        b"$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n"
                    )
                elif name != b"GET":
                    connection.sendall(b"+OK\r\n")
                elif spent.is_set():
                    connection.sendall(b"$4\r\ngood\r\n")
                else:
                    spent.set()
                    connection.sendall(head)
                    while more == b"drip":
                        connection.sendall(b"$1000\r\n"[:1])
                        time.sleep(0.5)
                        head, more = b"", b"dripping"
                    if more == b"dripping":
                        for byte in b"1000\r\n" + b"x" * 1000:
                            connection.sendall(bytes((byte,)))
                            time.sleep(0.5)
                    while more:
                        connection.sendall(more)


def _command(data: bytes) -> tuple[list[bytes], bytes] | None:
    """Take one command off the front, if it is complete."""
    lines = data.split(b"\r\n")
    if len(lines) < 2 or not lines[0]:
        return None
    count = int(lines[0][1:])
    if len(lines) < 2 + 2 * count:
        return None
    words = lines[2 : 2 + 2 * count : 2]
    return words, b"\r\n".join(lines[1 + 2 * count :])


# The clients: each gives a function that asks for a key, and one that leaves.


def resp_client(port: int) -> Any:
    """Our blocking client."""
    import client

    return client.connect(f"redis://127.0.0.1:{port}", timeout=TIMEOUT).execute


def redis_py(port: int) -> Any:
    """Connect redis-py, with hiredis if that is there."""
    import redis

    return redis.Redis(port=port, socket_timeout=TIMEOUT, protocol=3).execute_command


def resp_client_async(port: int) -> Any:
    """Our asyncio client."""
    import client

    async def connect() -> Callable[..., Awaitable[Any]]:
        db = await client.connect_async(f"redis://127.0.0.1:{port}", timeout=TIMEOUT)
        return db.execute

    return connect()


def redis_py_async(port: int) -> Any:
    """Connect redis.asyncio."""
    import redis.asyncio

    async def connect() -> Callable[..., Awaitable[Any]]:
        return redis.asyncio.Redis(port=port, socket_timeout=TIMEOUT, protocol=3).execute_command

    return connect()


def coredis(port: int) -> Any:
    """Connect coredis."""
    package = import_module("coredis")  # brought by another extra than what checks this

    async def connect() -> Callable[..., Awaitable[Any]]:
        db: Any = package.Redis(port=port, stream_timeout=TIMEOUT)
        # Its task group wants to be entered and left by one task: this process just ends.
        await _entered.enter_async_context(db)

        async def execute(*command: str) -> Any:
            return await db.get(command[1])

        return execute

    return connect()


_entered = AsyncExitStack()
CLIENTS = {
    "resp-client": resp_client,
    "redis-py": redis_py,
    "resp-client, asyncio": resp_client_async,
    "redis.asyncio": redis_py_async,
    "coredis": coredis,
}


def _name(value: object) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else repr(value)[:24]


def ask(client_name: str, case: str) -> None:
    """Ask twice, in this process, and print what came of it as JSON."""
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listening, case), daemon=True).start()
    made = CLIENTS[client_name](listening.getsockname()[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result: dict[str, Any] = {}

    def note(step: str, began: float, outcome: object) -> None:
        result[step] = [_name(outcome), round(time.perf_counter() - began, 2)]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        result["grown"] = grown // 1024
        print(json.dumps(result), flush=True)

    def twice() -> None:
        for step in ("first", "second"):
            began = time.perf_counter()
            outcome: object
            try:
                outcome = made("GET", "k")
            except Exception as error:  # noqa: BLE001 - told
                outcome = error
            note(step, began, outcome)

    async def twice_async() -> None:
        execute = await made
        for step in ("first", "second"):
            began = time.perf_counter()
            outcome: object
            try:
                outcome = await execute("GET", "k")
            except Exception as error:  # noqa: BLE001 - told
                outcome = error
            note(step, began, outcome)
        sys.stdout.flush()
        os._exit(0)  # what a client does with its connections in the end is not asked here

    if asyncio.iscoroutine(made):
        asyncio.run(twice_async())
    else:
        twice()


def cell(client_name: str, case: str) -> str:
    """Run one cell in a process of its own and say what came of it."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--cell", client_name, case]
    ended = "ended"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        output = done.stdout
        if done.returncode < 0:
            ended = f"killed by signal {-done.returncode}"
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode() if expired.stdout else ""
        ended = f"hangs for {PATIENCE:.0f} s"
    lines = output.split("\n")[:-1]
    if not lines:
        return ended if ended != "ended" else "did not connect"
    result = json.loads(lines[-1])
    first, second = result["first"], result.get("second")
    grown = f", +{result['grown']} MB" if result["grown"] > 20 else ""
    then = f"then {second[0]}" if second else f"then {ended}"
    return f"{first[0]} after {first[1]:.1f} s{grown}; {then}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=2, metavar=("CLIENT", "CASE"))
    options = parser.parse_args()
    if options.cell:
        ask(*options.cell)
        return
    print(f"| the answer | {' | '.join(CLIENTS)} |")
    print(f"|---{'|---' * len(CLIENTS)}|")
    for case in CASES:
        print(f"| {case} | {' | '.join(cell(name, case) for name in CLIENTS)} |", flush=True)


if __name__ == "__main__":
    main()
