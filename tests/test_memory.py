"""The compiled codec and memory: none is lost, and its lack breaks nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from readers import resident

import resp
from resp import ProtocolError, ReplyError

try:
    from resp import _speedups as compiled
except ImportError as missing:
    if os.environ.get("RESP_EXTENSION") == "yes":
        raise
    pytest.skip(f"the codec was not compiled: {missing}", allow_module_level=True)

# Every type, short and long, whole and in parts; some as keys, in pushes, undecodable.
REPLIES = [
    b"+OK\r\n",
    b"+a longer line\r\n",
    b"+\xff\r\n",
    b":1234567\r\n",
    b":00000000000000000000000000012\r\n",
    b"$5\r\nhello\r\n",
    b"$4\r\n\xff\xfe\xc3\xa9\r\n",
    b"$70\r\n%b\r\n" % (b"x" * 70),
    b"$?\r\n;3\r\nabc\r\n;1\r\nd\r\n;0\r\n",
    b"$-1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",0.12345678901234567\r\n",
    b",nan\r\n",
    b"(123456789012345678901234567890\r\n",
    b"-ERR no such thing\r\n",
    b"!8\r\nERR a\r\nb\r\n",
    b"=9\r\ntxt:hello\r\n",
    b"=10\r\nmkd:hel\xfflo\r\n",
    b"*3\r\n$1\r\na\r\n:70000\r\n*0\r\n",
    b"*?\r\n:70000\r\n+b\r\n.\r\n",
    b"%2\r\n+a\r\n$3\r\nabc\r\n*1\r\n:9999\r\n%1\r\n+k\r\n~1\r\n+m\r\n",
    b"~3\r\n+a\r\n*1\r\n+b\r\n%1\r\n:1\r\n~1\r\n-ERR\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n",
    b">3\r\n+message\r\n$7\r\nchannel\r\n$2\r\n\xffx\r\n",
    b"|1\r\n+ttl\r\n:3600\r\n+value\r\n",
    b"|1\r\n+\xff\r\n>1\r\n+inner\r\n:1\r\n>1\r\n+news\r\n",
    b"*2\r\n>1\r\n+inner\r\n|1\r\n+a\r\n+b\r\n:5\r\n$5\r\nworld\r\n",
]
BROKEN = [
    b"*2\r\n%1\r\n+key\r\n*1\r\n:x\r\n",
    b"$5\r\nhellooo",
    b"%?\r\n+a\r\n.\r\n",
    b"*1\r\n|1\r\n+a\r\n+b\r\n$3\r\nab",
    b"?",
    b"~?\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
    b"+a\rb\r\n",
    b"=3\r\nab:\r\n",
]
ALL_OPTIONS: list[dict[str, Any]] = [{}, {"encoding": "utf-8", "attributes": True}]


def feed_singly(parser: Any, wire: bytes) -> None:
    for at in range(len(wire)):
        parser.feed_all(wire[at : at + 1])


def read(rounds: int) -> int:
    """Read everything in all ways; return how many replies there were."""
    wire = b"".join(REPLIES)
    count = 0
    for options in ALL_OPTIONS:
        parser = compiled.Parser(**options)
        for turn in range(rounds):
            count += len(parser.feed_all(wire))
            for at in range(0, len(wire), 5 + turn % 50):
                parser.feed(wire[at : at + 5 + turn % 50])
            count += sum(1 for _ in parser)
        for broken in BROKEN * (rounds // 10):
            # One that fails in the middle of containers, and one that is dropped there.
            failing = compiled.Parser(**options, max_elements=4)
            with pytest.raises(ProtocolError):
                feed_singly(failing, broken + b"????")
            assert failing.error is not None
            compiled.Parser(**options).feed_all(wire + broken[:-4])
            count += len(REPLIES)
    for _ in range(rounds):
        compiled.encode_commands([("SET", "k", b"v", 5, 1.5, "\xe9"), ["GET", bytearray(b"k")]])
        with pytest.raises(TypeError):
            compiled.encode_command("SET", b"x" * 2000, None)  # type: ignore[arg-type]
    return count


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_million_replies_leave_nothing() -> None:
    read(300)
    gc.collect()
    before, objects = resident(), len(gc.get_objects())
    count = 0
    while count < 1_000_000:
        count += read(1000)
    gc.collect()
    # A leak of one small object in a thousand replies would be more than this.
    assert len(gc.get_objects()) - objects < 100
    assert resident() - before < 2_000_000


def test_no_block_is_left() -> None:
    read(20)
    gc.collect()
    tracemalloc.start()
    try:
        read(20)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        read(100)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000


def test_shared_objects_keep_their_count() -> None:
    shared = [b"OK", None, True, ReplyError, resp.Push]
    wire = b"+OK\r\n_\r\n#t\r\n-ERR\r\n>1\r\n+OK\r\n" * 1000
    parser = compiled.Parser()
    parser.feed_all(wire)
    before = [sys.getrefcount(each) for each in shared]
    for _ in range(10):
        parser.feed_all(wire)
    gc.collect()
    for each, count in zip(shared, before, strict=True):
        assert abs(sys.getrefcount(each) - count) < 1000


def test_what_is_read_is_let_go() -> None:
    class Chunk(bytes):
        pass

    parser = compiled.Parser()
    chunk = b"$5\r\nhello\r\n*2\r\n$3\r\nabc\r\n$" + b"7" * 2
    for feed in (parser.feed, parser.feed_all):
        parser.__init__()  # type: ignore[misc]
        before = sys.getrefcount(chunk)
        feed(chunk)
        list(parser)
        assert sys.getrefcount(chunk) == before


WITHOUT_MEMORY = """
import sys
import _testcapi
from resp import _speedups as codec

wire = bytes.fromhex(sys.argv[1])
outcomes = set()
for options in ({}, {"encoding": "utf-8", "attributes": True}):
    expected = list(map(repr, codec.Parser(**options).feed_all(wire)))
    for chunk in (len(wire), 7):
        parts = [wire[at : at + chunk] for at in range(0, len(wire), chunk)]
        for fail in range(1500):
            parser = codec.Parser(**options)
            values = []
            try:
                # The allocation after so many fails, and that one only.
                _testcapi.set_nomemory(fail, fail + 1)
                for part in parts:
                    values.append(parser.feed_all(part))
                _testcapi.remove_mem_hooks()
            except Exception as error:
                _testcapi.remove_mem_hooks()
                outcomes.add(type(error).__name__)
                parser.error
                parser.pending
            else:
                outcomes.add("done")
            try:
                values.append(parser.feed_all(b""))
                values.append(parser.feed_all(b""))
            except codec.ProtocolError:
                outcomes.add("spent")
            # No reply is lost in silence.
            seen = [repr(value) for some in values for value in some]
            assert seen == expected[: len(seen)], (options, chunk, fail)
            del parser
    # A new beginning that fails half-way: with the old options or the new ones, nothing between.
    for fail in range(60):
        parser = codec.Parser(encoding="".join(["latin", "-", "1"]))
        try:
            _testcapi.set_nomemory(fail, fail + 1)
            parser.__init__(encoding="".join(["koi8", "-", "r"]))
            _testcapi.remove_mem_hooks()
        except MemoryError:
            _testcapi.remove_mem_hooks()
        [reply, push] = parser.feed_all(b"+\\xe4\\r\\n>1\\r\\n+\\xe4\\r\\n")
        assert reply in ("\\xe4", "\\u0414") and push == [reply], (fail, reply, push)
    for fail in range(60):
        try:
            _testcapi.set_nomemory(fail, fail + 1)
            codec.encode_commands([("SET", "k", 5, 1.5, "\\xe9", b"x" * 3000), ["GET", "k"]])
            codec.encode_command("SET", "k", b"x" * 3000)
            _testcapi.remove_mem_hooks()
        except MemoryError:
            _testcapi.remove_mem_hooks()
print(*sorted(outcomes))
"""


def test_the_lack_of_memory_breaks_nothing() -> None:
    pytest.importorskip("_testcapi", reason="needs CPython's own test module")
    if any("refnanny" in name for name in sys.modules):
        pytest.skip("RESP_DEBUG: Cython's count of references needs memory of its own")
    wire = b"".join(REPLIES)
    environment = {**os.environ, "PYTHONPATH": str(Path(resp.__file__).parent.parent)}
    command = [sys.executable, "-c", WITHOUT_MEMORY, wire.hex()]
    # Not from here, where Python would find the sources before what is installed.
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MemoryError", "done", "spent"]
