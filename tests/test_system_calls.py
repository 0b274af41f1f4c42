"""A hit makes no system call: counted with strace, between two marks that a child leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import client

if TYPE_CHECKING:
    from conftest import StartServer

CHILD = """
import os, sys, threading, time
from client import connect

with connect(sys.argv[1], cache=True) as db:
    db.execute("HSET", "h", *[word for n in range(100) for word in (f"f{n}", "v")])
    db.execute("MSET", "a", "1", "b", "2")
    time.sleep(0.1)  # the announcements of these writes
    reads = [
        lambda: db.execute("GET", "a"),
        lambda: db.cached("GET", "a"),
        lambda: db.execute("HGETALL", "h"),
        lambda: db.execute("MGET", "a", "b"),
    ]
    for read in reads:
        read(), read()
    hits = db.cache.stats.hits
    for read in reads:
        os.getppid()  # the mark: nothing else here calls it
        for _ in range(10_000):
            read()
    os.getppid()
    assert db.cache.stats.hits - hits == 50_000, db.cache.stats  # MGET's count twice
    print(threading.get_native_id())
"""


@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage.py runs in the child, and calls")
def test_hit_makes_no_system_call(private_server: StartServer, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    server, log = private_server(), tmp_path / "strace"
    allowed = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"strace may not trace here: {allowed.stderr.decode()[:100]}")
    root = Path(client.__file__).parent.parent
    child = subprocess.run(
        [strace, "-f", "-o", log, sys.executable, "-c", CHILD, server.url],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    # Of the thread that reads: the listener's PING may come in between.
    mine = re.compile(rf"{child.stdout.strip()} +(\w+)\(")
    calls = [found[1] for line in log.read_text().splitlines() if (found := mine.match(line))]
    marks = [index for index, call in enumerate(calls) if call == "getppid"]
    assert len(marks) == 5
    between = Counter(calls[marks[0] : marks[-1]])
    del between["getppid"]
    # Where the kernel's clock can't be read without a call, that is the machine's.
    del between["clock_gettime"]
    # Where the listener's PING fell due meanwhile, the interpreter changed hands.
    assert between.pop("futex", 0) < 20
    assert between == {}
