"""The compiled twins beside the pure ones: outcome by outcome the same, whatever the bytes are.

What a call returns or raises, in value, exact type, message and offset, and what `pending` and
`error` say after it: compared over all rows, every cut of each, and streams of hypothesis, through
every way of reading. Only one difference is allowed, in the repr of functions and classes.
"""

from __future__ import annotations

import codecs
import copy
import gc
import inspect
import os
import pickle
import struct
import subprocess
import sys
import threading
import weakref
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import cuts, hostile, options, streams, values3
from vectors import ERRORS, INCOMPLETE, VALUES, Row, exact

import resp
from resp import NEED_DATA, ProtocolError, Push, ReplyError, pure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

try:
    from resp import _speedups as compiled
except ImportError as missing:
    if os.environ.get("RESP_EXTENSION") == "yes":
        raise
    pytest.skip(f"the codec was not compiled: {missing}", allow_module_level=True)

TWINS = pytest.mark.parametrize("codec", [pure, compiled], ids=["python", "cython"])


# What can be observed. Every way of reading takes a parser and a chunk, and notes what it sees.


def observe(act: Callable[[], Any]) -> Any:
    """Return what a call comes to: a value in its exact form, or all that an error says."""
    try:
        return exact(act())
    except (ProtocolError, UnicodeError, TypeError, ValueError, LookupError, RuntimeError) as error:
        return type(error), str(error), getattr(error, "offset", None)


def read_one_by_one(parser: Any, chunk: bytes) -> Iterable[Any]:
    yield observe(lambda: parser.feed(chunk))
    while True:
        seen = observe(parser.parse)
        yield seen, parser.pending
        if seen == exact(NEED_DATA) or seen[0] is ProtocolError:
            return


def read_at_most_one(parser: Any, chunk: bytes) -> Iterable[Any]:
    yield observe(lambda: parser.feed(bytearray(chunk)))
    yield observe(parser.parse)


def iterate(parser: Any, chunk: bytes) -> Iterable[Any]:
    yield observe(lambda: parser.feed(memoryview(chunk)))
    iterator = iter(parser)
    while True:
        seen = observe(lambda: next(iterator, "the end"))
        yield seen, parser.pending
        if seen == exact("the end") or seen[0] is ProtocolError:
            # An iterator that came to its end stays there.
            yield observe(lambda: next(iterator, "the end"))
            return


def feed_all(parser: Any, chunk: bytes) -> Iterable[Any]:
    yield observe(lambda: parser.feed_all(chunk))


def receive(parser: Any, chunk: bytes) -> Iterable[Any]:
    def get_buffer() -> int:
        buffer = parser.get_buffer(len(chunk))
        buffer[: len(chunk)] = chunk
        return len(buffer)

    yield observe(get_buffer)
    yield observe(lambda: parser.buffer_updated(len(chunk)))
    yield observe(lambda: list(parser))


WAYS = [read_one_by_one, read_at_most_one, iterate, feed_all, receive]


def trace(codec: Any, chunks: Iterable[bytes], way: Any, **options: Any) -> list[Any]:
    """Return all that can be seen of a parser while it reads."""
    parser = codec.Parser(**options)
    seen = []
    for chunk in chunks:
        seen.extend(way(parser, chunk))
        seen.append((parser.pending, type(parser.error), str(parser.error)))
    # What was left over, read the other way.
    seen.append(observe(lambda: parser.feed_all(b"")))
    seen.append(parser.pending)
    return seen


def compare(chunks: list[bytes], way: Any, **options: Any) -> None:
    seen = trace(compiled, chunks, way, **options)
    assert (way.__name__, seen) == (way.__name__, trace(pure, chunks, way, **options))


def cut(wire: bytes, *points: int) -> list[bytes]:
    return [wire[a:b] for a, b in pairwise((0, *points, len(wire)))]


ROWS = {**VALUES, **ERRORS, **INCOMPLETE}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
# Options that a row would else not meet.
MORE = [{}, {"encoding": "utf-8", "attributes": True}, {"encoding": "utf-16", "max_line": 20}]


@every_row
def test_rows(row: Row) -> None:
    single = [row.wire[i : i + 1] for i in range(len(row.wire))]
    for way, more in product(WAYS, MORE):
        compare([row.wire], way, **{**more, **row.options})
        if len(single) < 2000 or not more:
            compare(single, way, **{**more, **row.options})


@every_row
def test_every_cut(row: Row) -> None:
    size = len(row.wire)
    points = range(size + 1) if size < 200 else (*range(50), *range(50, size - 50, 997), size - 3)
    for way, point in product((read_one_by_one, feed_all), points):
        compare(cut(row.wire, point), way, **row.options)


def mutated() -> st.SearchStrategy[bytes]:
    """Return streams in which a few bytes are others, are missing or are too many."""
    others = st.sampled_from(b"+-:$*%~|>=!;.,#_(\r\n019?\xff")
    edit = st.tuples(st.floats(0, 1), st.integers(0, 3), others)

    def apply(wire: bytes, edits: list[tuple[float, int, int]]) -> bytes:
        data = bytearray(wire)
        for where, removed, byte in edits:
            at = int(where * len(data))
            data[at : at + removed] = bytes([byte])
        return bytes(data)

    wires = streams(attributes=True).map(lambda stream: stream.wire)
    return st.builds(apply, wires, st.lists(edit, min_size=1, max_size=3))


WHOLE = streams(attributes=True).map(lambda stream: stream.wire)
WIRES = WHOLE | mutated() | hostile() | st.binary()


@given(WIRES, cuts(), st.sampled_from(WAYS), options())
@example(b"*00000000000000000002\r\n:1\r\n:2\r\n", [], feed_all, {})
@example(b"$?\r\n\r\n", [], feed_all, {})
def test_any_bytes(wire: bytes, where: list[float], way: Any, options: dict[str, Any]) -> None:
    compare(cut(wire, *(int(part * len(wire)) for part in where)), way, **options)


@given(WIRES, st.sampled_from(["utf-8", "ascii", "latin-1", "utf-16", "cp037"]), st.booleans())
def test_any_encoding(wire: bytes, encoding: str, replace: bool) -> None:
    errors = "backslashreplace" if replace else "strict"
    compare([wire], read_one_by_one, encoding=encoding, errors=errors)


@given(st.floats())
@example(5e-324)
@example(2.2250738585072011e-308)
@example(1.7976931348623157e308)
@example(9007199254740993.0)
def test_doubles(number: float) -> None:
    for text in (repr(number), f"{number:.17g}", f"{number:.19g}", f"{number:.3f}", f"{number:E}"):
        compare([b",%b\r\n" % text.encode()], feed_all)


DIGITS = st.text("0123456789", max_size=22)


@given(st.sampled_from(["", "-", "+"]), DIGITS, DIGITS, st.integers(-400, 400))
@example("", "9007199254740993", "0", 0)  # half way between two doubles
@example("", "9007199254740995", "0", 0)
@example("-", "18014398509481985", "0", 5)
def test_decimals(sign: str, whole: str, fraction: str, exponent: int) -> None:
    for text in (f"{whole}.{fraction}e{exponent}", f"{whole}e{exponent:+}", f"{whole}.{fraction}"):
        compare([f",{sign}{text}\r\n".encode()], feed_all)


def test_random_doubles() -> None:
    """17 digits are what every double needs, and no table may be wrong for."""
    from random import Random

    random = Random(3)
    parser = compiled.Parser()
    for _ in range(20_000):
        number = struct.unpack("d", random.randbytes(8))[0]
        text = repr(number)
        assert repr(parser.feed_all(b",%b\r\n" % text.encode())[0]) == text


@given(st.lists(hostile() | st.binary(max_size=30), max_size=2).map(b"".join))
def test_parse(wire: bytes) -> None:
    assert observe(lambda: compiled.parse(wire)) == observe(lambda: pure.parse(wire))


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "nonsense"},
        {"encoding": "rot13"},
        {"encoding": b"utf-8"},
        {"encoding": "utf-8\0"},
        {"errors": "nonsense"},
        {"errors": None},
        {"max_depth": -1},
        {"max_bulk": True},
        {"max_elements": 1.0},
        {"max_line": None},
    ],
    ids=str,
)
def test_options_are_refused_alike(wrong: dict[str, Any]) -> None:
    assert observe(lambda: compiled.Parser(**wrong)) == observe(lambda: pure.Parser(**wrong))


def test_limits_beyond_c() -> None:
    wires = [
        b"*99999999999999999999\r\n",
        b"%99999999999999999999\r\n:1\r\n",
        b"$9223372036854775808\r\n",
        b"*2\r\n$1\r\na\r\n+b\r\n",
        b"*?\r\n:1\r\n.\r\n",
    ]
    for limit in (2**61, 2**62, 2**63, 10**30):
        limits = dict.fromkeys(("max_depth", "max_bulk", "max_elements", "max_line"), limit)
        for wire in wires:
            compare([wire, b":1\r\n"], read_one_by_one, **limits)


@pytest.mark.parametrize(
    "data", ["text", 5, None, [1], memoryview(b"abcd")[::2]], ids=lambda value: type(value).__name__
)
def test_what_is_fed(data: Any) -> None:
    for name in ("feed", "feed_all"):
        ways = [observe(lambda: getattr(codec.Parser(), name)(data)) for codec in (pure, compiled)]  # noqa: B023
        assert ways[0] == ways[1]


# The encoder.

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text()
VIEWS = st.binary().map(lambda data: memoryview(data)[::2])
ARGUMENTS: Any = SCALARS | st.binary().map(bytearray) | VIEWS | st.lists(st.none())
SURROGATES = st.text(st.characters(categories=["Cs", "L"]))


@given(st.lists(ARGUMENTS | SURROGATES, max_size=6))
@example([-(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 10**5000])
@example(["SET", "x" * 2000, b"y" * 3000, "\xe9" * 3000])
def test_commands(args: list[Any]) -> None:
    assert observe(lambda: compiled.encode_command(*args)) == observe(
        lambda: pure.encode_command(*args)
    )


COMMANDS = st.lists(ARGUMENTS, max_size=4)


PIPELINES = st.lists(COMMANDS | COMMANDS.map(tuple) | st.binary() | st.none(), max_size=5)


@given(PIPELINES)
def test_pipelines(commands: list[Any]) -> None:
    for make in (list, tuple, iter):
        assert observe(lambda: compiled.encode_commands(make(commands))) == observe(  # noqa: B023
            lambda: pure.encode_commands(make(commands))  # noqa: B023
        )


def test_a_long_pipeline() -> None:
    commands = [("SET", f"key:{i}", b"v" * (i % 700), i, i / 7) for i in range(2000)]
    assert compiled.encode_commands(commands) == pure.encode_commands(commands)


@given(values3())
def test_values_come_back(value: Any) -> None:
    wire = compiled.encode(value)
    assert exact(compiled.parse(wire)) == exact(pure.parse(wire))


# What is around them.

METHODS = ["feed", "parse", "feed_all", "get_buffer", "buffer_updated", "__iter__"]


def test_docstrings_are_the_same() -> None:
    for name in [*METHODS, "pending", "error"]:
        ours, theirs = getattr(compiled.Parser, name), getattr(pure.Parser, name)
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    for name in ("Parser", "parse", "encode_command", "encode_commands", "encode"):
        assert inspect.getdoc(getattr(compiled, name)) == inspect.getdoc(getattr(pure, name))


def test_names_are_the_same() -> None:
    assert compiled.__all__ == pure.__all__
    for name in ("NEED_DATA", "Attributed", "ProtocolError", "Push", "ReplyError", "Verbatim"):
        assert getattr(compiled, name) is getattr(pure, name)
    public = {name for name in dir(compiled.Parser) if not name.startswith("_")}
    assert public == {name for name in dir(pure.Parser) if not name.startswith("_")}


@TWINS
def test_a_parser_is_nothing_to_copy(codec: Any) -> None:
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            act(codec.Parser())
    with pytest.raises(TypeError):
        weakref.ref(codec.Parser())
    with pytest.raises(AttributeError):
        codec.Parser().anything = 1
    with pytest.raises(TypeError):
        codec.Parser("utf-8")


@TWINS
def test_arguments_have_names(codec: Any) -> None:
    parser = codec.Parser()
    parser.feed(data=b"+a\r\n")
    assert parser.feed_all(data=b"+b\r\n") == [b"a", b"b"]
    parser.get_buffer(sizehint=5)[:4] = b"+c\r\n"
    parser.buffer_updated(nbytes=4)
    assert parser.parse() == b"c"
    assert codec.parse(data=b"+d\r\n") == b"d"
    assert codec.encode_commands(commands=[["PING"]]) == b"*1\r\n$4\r\nPING\r\n"


@TWINS
def test_a_subclass(codec: Any) -> None:
    class Logged(codec.Parser):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.log: list[bytes] = []

        def feed(self, data: bytes) -> None:
            self.log.append(bytes(data))
            super().feed(data)

    parser = Logged(encoding="utf-8")
    weakref.ref(parser)
    parser.feed(b"*1\r\n")
    assert list(parser) == []
    parser.get_buffer()[:4] = b"$1\r\n"
    parser.buffer_updated(4)
    assert parser.parse() is NEED_DATA
    parser.feed(b"x\r\n")
    assert parser.parse() == ["x"]
    assert parser.log == [b"*1\r\n", b"$1\r\n", b"x\r\n"]


@TWINS
def test_a_new_beginning(codec: Any) -> None:
    parser = codec.Parser(encoding="utf-8")
    parser.feed_all(b"*3\r\n>1\r\n%1\r\n+key\r\n$5\r\nab")
    parser.__init__()
    assert (parser.pending, parser.parse()) == (0, NEED_DATA)
    assert parser.feed_all(b"+OK\r\n") == [b"OK"]
    with pytest.raises(ProtocolError):
        parser.feed_all(b"*2\r\n:1\r\n?")
    parser.__init__()
    assert parser.feed_all(b"+OK\r\n") == [b"OK"]


@TWINS
def test_a_call_from_within(codec: Any) -> None:
    """What a parser calls must not call it back: the inner call is refused, in clear words."""
    caught: list[RuntimeError] = []

    def handler(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        for act in (parser.parse, lambda: next(iterator), lambda: parser.feed_all(b"")):
            with pytest.raises(RuntimeError, match="reading already") as info:
                act()
            caught.append(info.value)
        assert parser.error is None
        parser.feed(b"+behind\r\n")
        assert parser.pending > 0
        return "?", error.end

    codecs.register_error("resp-test-handler", handler)
    parser = codec.Parser(encoding="ascii", errors="resp-test-handler")
    iterator = iter(parser)
    parser.feed(b"*2\r\n$2\r\n\xffa\r\n+x\r\n")
    assert parser.parse() == ["?a", "x"]
    assert parser.parse() == "behind"
    assert len(caught) == 3


@TWINS
@pytest.mark.parametrize("kind", [KeyError, ValueError])
def test_a_call_that_fails_within(codec: Any, kind: type[Exception]) -> None:
    """The place in the stream is lost; what was complete before is not."""

    def handler(error: UnicodeError) -> tuple[str, int]:
        raise kind("mine")

    codecs.register_error("resp-test-failure", handler)
    parser = codec.Parser(encoding="ascii", errors="resp-test-failure")
    with pytest.raises(kind, match="mine"):
        parser.feed_all(b"+a\r\n+b\r\n*2\r\n+c\r\n+\xff\r\n+d\r\n")
    assert parser.parse() == "a"
    assert parser.parse() == "b"
    with pytest.raises(ProtocolError, match="that the parser was interrupted"):
        parser.parse()
    assert parser.error is not None


@TWINS
def test_a_finaliser_that_reads(codec: Any) -> None:
    """The collector may run in the middle of a reply, and finalisers in it."""
    parser = codec.Parser()

    class Finalised:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                seen.append(len(parser.feed_all(b"")))
            except RuntimeError:
                seen.append(-1)

    seen: list[int] = []
    wire = b"*3\r\n*1\r\n:1\r\n%1\r\n+a\r\n*0\r\n~1\r\n:5\r\n" * 3
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        values = []
        for _ in range(300):
            Finalised()
            values += parser.feed_all(wire)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert seen
    assert values.count([[1], {b"a": []}, {5}]) == len(values)


@TWINS
def test_threads_share_a_parser(codec: Any) -> None:
    """They are told so, or take turns: nothing else may come of it."""
    if codec is pure and sys.gettrace() is not None:
        pytest.skip("a trace function lets another thread in where Python itself would not")
    parser = codec.Parser(encoding="ascii", errors="backslashreplace")
    wire = b"*3\r\n$3\r\nabc\r\n$2\r\na\xff\r\n%1\r\n+k\r\n-ERR no\r\n"
    one = ["abc", "a\\xff", {"k": ReplyError("ERR no")}]
    counts: list[int] = []
    stop = threading.Event()

    def read() -> None:
        count = 0
        while not stop.is_set():
            try:
                values = parser.feed_all(wire * 5)
            except RuntimeError:
                stop.wait(0.001)
                continue
            assert all(value == one for value in values)
            count += len(values)
        counts.append(count)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=read) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        stop.wait(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert len(counts) == len(threads)
    assert sum(counts) > 0


def test_pushes_are_shared() -> None:
    for codec in (pure, compiled):
        (push,) = codec.Parser().feed_all(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n")
        assert type(push) is Push
        assert (push, push.kind) == ([b"invalidate", [b"key"]], "invalidate")
        push.append(1)
        push[1].append(b"another")
        assert push == [b"invalidate", [b"key", b"another"], 1]
        push.clear()


@pytest.mark.parametrize(("value", "expected"), [("1", "python"), ("0", "cython"), ("", "cython")])
def test_the_environment_chooses(value: str, expected: str) -> None:
    program = (
        "import resp as r; print(r.implementation, r.pure.implementation, r.Parser.__module__)"
    )
    root = Path(resp.__file__).parent.parent
    environment = {**os.environ, "RESP_PURE_PYTHON": value, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program]
    # Not from here, where Python would find the sources before what is installed.
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd="/"
    )
    module = {"python": "resp._parser", "cython": "resp._speedups._parser"}[expected]
    assert done.stdout.split() == [expected, "python", module]
