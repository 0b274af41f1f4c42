"""What runs in the middle of a parser: error handlers, codecs, finalisers, the collector, signals.

All of it may call the parser back, look at what it is making, or raise. A call back is refused or
served, a reply is delivered once or not at all, and nothing of it may end the process.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from vectors import IMPLEMENTATIONS

import resp
from resp import ProtocolError, Push

ROOT = Path(resp.__file__).parent.parent

with_every_codec = pytest.mark.parametrize(
    "codec", IMPLEMENTATIONS, ids=lambda module: module.implementation
)


def handle(name: str, handler: Any) -> str:
    """Register an error handler; return its name."""
    codecs.register_error(name, handler)
    return name


@with_every_codec
def test_a_finaliser_reads_while_the_list_of_replies_is_made(codec: Any) -> None:
    """Until Python 3.12 any new list may run the collector, also the one feed_all() returns."""

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                inside.extend(parser.feed_all(b""))
            except RuntimeError:
                refused.append(True)

    parser = codec.Parser()
    inside: list[bytes] = []
    refused: list[bool] = []
    threshold = gc.get_threshold()
    held: list[Any] = []
    try:
        for count in (1, 10, 200, 2000):
            # Lists that were freed would be used again, without the collector.
            held.append([[] for _ in range(200)])
            gc.set_threshold(0)
            Cycle()
            gc.set_threshold(1)
            values = parser.feed_all(b"$3\r\nabc\r\n" * count)
            gc.set_threshold(0)
            assert values + inside == [b"abc"] * count
            inside.clear()
    finally:
        gc.set_threshold(*threshold)
    assert parser.feed_all(b"+OK\r\n") == [b"OK"]


class Text(str):
    """What a codec may return in place of str; it calls back when it is dropped."""

    parsers: list[Any] = []  # noqa: RUF012  # one, while a test runs

    def __del__(self) -> None:
        for parser in self.parsers:
            with contextlib.suppress(RuntimeError, ProtocolError):
                parser.feed_all(b"*2\r\n:1\r\n")


def codec_of_text(name: str) -> codecs.CodecInfo | None:
    if name != "resp_test_text":
        return None

    def decode(data: Any, errors: str = "strict") -> tuple[str, int]:
        return Text(bytes(data).decode()), len(data)

    return codecs.CodecInfo(codecs.utf_8_encode, decode, name=name)


@with_every_codec
def test_what_a_new_beginning_drops_calls_back(codec: Any) -> None:
    codecs.register(codec_of_text)
    parser = codec.Parser(encoding="resp_test_text")
    Text.parsers.append(parser)
    try:
        for wire in (
            b"*9\r\n+ab\r\n+cd\r\n%1\r\n+ef\r\n*3\r\n+gh\r\n",
            b"%1\r\n+ab\r\n",
            b"*2\r\n?",
        ):
            with contextlib.suppress(ProtocolError):
                parser.feed_all(wire)
            parser.__init__(encoding="resp_test_text")
            # Perhaps what was called back left an open array; it is a parser all the same.
            for data in (b":2\r\n", b":3\r\n", b"*1\r\n+ab\r\n"):
                parser.feed_all(data)
    finally:
        Text.parsers.clear()
        codecs.unregister(codec_of_text)
    parser.__init__()
    assert parser.pending == 0
    assert parser.feed_all(b"*2\r\n:2\r\n:3\r\n") == [[2, 3]]


class Caller:
    """An object in a reply that never was in it; it calls back when it is dropped."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser

    def __del__(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.parser.feed_all(b":1\r\n:2\r\n:3\r\n")


def found_since(before: set[int]) -> list[Any]:
    """Return the containers that the collector knows now, and did not then."""
    kinds = (list, dict, set, Push)
    return [each for each in gc.get_objects() if type(each) in kinds and id(each) not in before]


@with_every_codec
def test_an_open_container_is_found_and_changed(codec: Any) -> None:
    """gc.get_objects() shows what is being made; whoever writes to it must not break more."""
    for head in (b"*3\r\n", b"%2\r\n:0\r\n", b"~3\r\n", b">3\r\n", b"*100\r\n"):
        parser = codec.Parser()
        before = {id(each) for each in gc.get_objects()}
        parser.feed_all(head)
        for found in found_since(before):
            if not found and type(found) is not dict:
                (found.add if type(found) is set else found.append)(Caller(parser))
        found = None
        parser.__init__()
        parser.feed_all(b"+OK\r\n")
        parser.__init__()
        assert parser.feed_all(b"+OK\r\n") == [b"OK"]


def test_an_element_too_many_is_put_right() -> None:
    for codec in IMPLEMENTATIONS:
        if codec is resp.pure:
            continue  # its frames have lists of elements, not the reply's
        for head in (b"*3\r\n", b"*100\r\n", b">3\r\n"):
            count = int(head[1:])
            parser = codec.Parser()
            before = {id(each) for each in gc.get_objects()}
            parser.feed_all(head)
            for found in found_since(before):
                if not found and type(found) in (list, Push):
                    found.extend(b"stranger" for _ in range(5))
            [value] = parser.feed_all(b":5\r\n" * count)
            assert value == [5] * count


@with_every_codec
def test_what_is_being_made_can_be_looked_at(codec: Any) -> None:
    """Half-made replies may be found empty, never with a place where nothing is."""
    shown: list[int] = []

    def look(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        shown.append(sum(len(repr(each)) for each in found_since(before)))
        return "?", error.end

    parser = codec.Parser(encoding="utf-8", errors=handle("resp-tests-look", look), attributes=True)
    open_ones = b"*40\r\n:1\r\n*2\r\n%2\r\n:1\r\n:2\r\n+a\r\n~3\r\n:1\r\n|1\r\n+k\r\n*2\r\n+a\r\n"
    before: set[int] = {id(each) for each in gc.get_objects()}
    parser.feed_all(open_ones + b"+\xff\r\n>2\r\n+\xff\r\n+\xfe\r\n")
    assert len(shown) == 3


@with_every_codec
def test_an_interrupt_while_the_error_is_made_spends_the_parser(
    codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the objects that make the refusal it hits, the bad line is not passed by."""
    original = ProtocolError.__init__
    for at in range(1, 4):
        made = 0

        def init(self: ProtocolError, message: str, offset: int) -> None:
            nonlocal made
            made += 1
            if made == at:  # noqa: B023
                raise KeyboardInterrupt
            original(self, message, offset)

        parser = codec.Parser()
        with monkeypatch.context() as patch:
            patch.setattr(ProtocolError, "__init__", init)
            with pytest.raises((KeyboardInterrupt, ProtocolError)):
                parser.feed_all(b"*2\r\n:1\r\n:x\r\n")
        with pytest.raises(ProtocolError):
            parser.feed_all(b":2\r\n+next\r\n")
        assert parser.error is not None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.skipif(sys.gettrace() is not None, reason="it would raise in coverage.py's own lock")
@with_every_codec
def test_signals_that_raise_anywhere(codec: Any) -> None:
    """A reply is delivered whole and in its place, or the parser says that it lost its place."""

    class Stop(BaseException):
        pass

    def stop(number: int, frame: object) -> None:
        if armed:
            armed.clear()
            raise Stop

    # Integers that are long go by way of Python code, where a signal is seen.
    unit = b"*3\r\n:%d\r\n:000000000000000000000%d\r\n$3\r\n\xffab\r\n"
    wire = b"".join(unit % (at, at) for at in range(30))
    armed: list[bool] = []
    spent = 0
    previous = signal.signal(signal.SIGALRM, stop)
    try:
        for turn in range(400):
            parser = codec.Parser(encoding="utf-8", errors="backslashreplace")
            values: list[Any] = []
            armed.append(True)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00001 + turn % 40 * 0.00002)
                for at in range(0, len(wire), 37):
                    values += parser.feed_all(wire[at : at + 37])
                armed.clear()
            except Stop:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            armed.clear()
            assert values == [[at, at, "\\xffab"] for at in range(len(values))]
            try:
                parser.feed_all(b"")
            except ProtocolError as error:
                assert "interrupted" in str(error)  # noqa: PT017
                spent += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert spent < 400


@with_every_codec
def test_threads_share_an_iterator(codec: Any) -> None:
    """Every value goes to one of them, and each comes to an end, or is told that it is shared."""
    if codec.implementation == "python" and sys.gettrace() is not None:
        pytest.skip("CPython 3.11 crashes where threads share a generator that is traced")
    parser = codec.Parser()
    taken: list[list[bytes]] = []

    def take(iterator: Any) -> None:
        mine = []
        try:
            for value in iterator:
                mine.append(value)  # noqa: PERF402
        except (RuntimeError, ValueError):
            pass
        taken.append(mine)

    for _ in range(20):
        parser.feed(b"$3\r\nabc\r\n" * 500)
        iterator = iter(parser)
        threads = [threading.Thread(target=take, args=(iterator,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    left = list(parser)
    assert sum(map(len, taken)) + len(left) == 20 * 500


@with_every_codec
def test_a_buffer_that_is_kept_stays_memory(codec: Any) -> None:
    """Written to too late, it changes nothing; the parser has another by then."""
    parser = codec.Parser()
    old = parser.get_buffer(10)
    new = parser.get_buffer(10 * len(old))
    new[:5] = b"+new\r"
    old[:] = b"x" * len(old)
    parser.buffer_updated(5)
    again = parser.get_buffer()
    again[:1] = b"\n"
    parser.buffer_updated(1)
    again[:] = b"y" * len(again)
    assert parser.parse() == b"new"
    parser.__init__()
    again[:] = b"z" * len(again)
    with pytest.raises(ValueError, match="expected 0 to 0 bytes"):
        parser.buffer_updated(1)
    del parser
    old[0], again[-1] = 1, 2


@with_every_codec
def test_feed_calls_back_through_the_buffer_it_is_given(codec: Any) -> None:
    """What offers its memory is asked for it, from Python 3.12 on by a method in Python."""

    class Chunk:
        def __buffer__(self, flags: int) -> memoryview:
            parser.feed(b"+before\r\n")
            return memoryview(b"+after\r\n")

    parser = codec.Parser()
    if sys.version_info < (3, 12):
        with pytest.raises(TypeError):
            parser.feed(Chunk())
        return
    parser.feed(Chunk())
    assert list(parser) == [b"before", b"after"]


@with_every_codec
def test_a_subclass_sees_all_that_is_fed(codec: Any) -> None:
    """feed() may be overridden and then takes every byte; nothing else goes by way of parse()."""

    class Counted(codec.Parser):  # type: ignore[misc]
        fed = parsed = 0

        def feed(self, data: bytes) -> None:
            self.fed += len(data)
            super().feed(data)

        def parse(self) -> Any:
            self.parsed += 1
            return super().parse()

    parser = Counted()
    wires = [b"+OK\r\n", b":5\r\n", b"$3\r\nabc\r\n", b"*1\r\n$1\r\na\r\n", b"+a\r\n" * 10]
    for wire in wires:
        parser.feed_all(wire)
    assert parser.fed == len(b"".join(wires))
    parser.feed(b"+a\r\n+b\r\n")
    assert list(parser) == [b"a", b"b"]
    assert parser.parsed == 0


SUBINTERPRETER = """
    import sys
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    sys.path.insert(0, sys.argv[1])
    import resp
    inside = '''if True:
        import sys
        sys.path.insert(0, %r)
        import resp
        assert resp.Parser().feed_all(b"*2 +OK :1 ".replace(b" ", bytes((13, 10)))) == [[b"OK", 1]]
        assert resp.encode_command("GET", "k").endswith(b"k" + bytes((13, 10)))
    ''' % sys.argv[1]
    for _ in range(3):
        interpreter = interpreters.create()
        run = getattr(interpreters, "run_string", None) or interpreters.exec
        failure = run(interpreter, inside)
        assert failure is None, failure
        interpreters.destroy(interpreter)
    print(resp.implementation, resp.parse(b":7" + bytes((13, 10))))
"""


def test_a_subinterpreter_has_a_codec_too() -> None:
    """The compiled one is for the main interpreter; another gets the pure one."""
    program = textwrap.dedent(SUBINTERPRETER)
    command = [sys.executable, "-c", program, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [resp.implementation, "7"]
