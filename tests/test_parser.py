"""The parser: every row of the tables, whichever way its bytes come, and what can't be a row."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cuts, hostile, options, streams, values2, values3
from vectors import ERRORS, IMPLEMENTATIONS, INCOMPLETE, VALUES, Row, Undecodable, exact

from resp import NEED_DATA, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# A module with the names of package resp; the compiled twin is one as well.
Codec = Any

with_every_codec = pytest.mark.parametrize(
    "codec", IMPLEMENTATIONS, ids=lambda module: module.implementation
)


# Every way in. Each takes a parser and chunks, and yields what comes out.


def feed_and_parse(parser: Any, chunks: Iterable[bytes]) -> Iterator[Any]:
    for chunk in chunks:
        parser.feed(chunk)
        while True:
            try:
                value = parser.parse()
            except UnicodeDecodeError as error:
                value = error
            if value is NEED_DATA:
                break
            yield value


def feed_then_parse(parser: Any, chunks: Iterable[bytes]) -> Iterator[Any]:
    for chunk in chunks:
        parser.feed(chunk)
    yield from feed_and_parse(parser, [b""])


def feed_and_iterate(parser: Any, chunks: Iterable[bytes]) -> Iterator[Any]:
    for chunk in chunks:
        parser.feed(bytearray(chunk))
        yield from parser


def feed_all(parser: Any, chunks: Iterable[bytes]) -> Iterator[Any]:
    for chunk in chunks:
        yield from parser.feed_all(memoryview(chunk))
    if parser.error:
        parser.feed_all(b"")


def get_buffer(parser: Any, chunks: Iterable[bytes]) -> Iterator[Any]:
    for chunk in chunks:
        parser.get_buffer(len(chunk))[: len(chunk)] = chunk
        parser.buffer_updated(len(chunk))
        yield from parser


WAYS = [feed_and_parse, feed_then_parse, feed_and_iterate, feed_all, get_buffer]


def outcome(parser: Any, chunks: Iterable[bytes], way: Any = feed_all) -> tuple[list[Any], str]:
    """Return the values, in their exact form, and the message of the error, or ""."""
    values: list[Any] = []
    caught = None
    try:
        values.extend(exact(value) for value in way(parser, chunks))
    except ProtocolError as error:
        caught = error
    if caught is None:
        assert parser.error is None
        return values, ""
    message = str(caught)
    assert message.endswith(f" at offset {caught.offset}")
    assert (message, caught.offset) == (str(parser.error), parser.error.offset)
    return values, message


def expected(row: Row, *more: Any) -> tuple[list[Any], str]:
    return [exact(value) for value in [*row.values, *more]], row.error


def cut(wire: bytes, *points: int) -> list[bytes]:
    return [wire[a:b] for a, b in pairwise((0, *points, len(wire)))]


def rows(*tables: dict[str, Row]) -> pytest.MarkDecorator:
    """Run a test with every codec and every row of the tables."""
    named = [(name, row) for table in tables for name, row in table.items()]
    parameters = [
        pytest.param(codec, row, id=f"{codec.implementation}-{name}")
        for codec in IMPLEMENTATIONS
        for name, row in named
    ]
    return pytest.mark.parametrize(("codec", "row"), parameters)


def by_every_way(codec: Codec, row: Row, chunks: list[bytes]) -> dict[Any, Any]:
    return {way.__name__: outcome(codec.Parser(**row.options), chunks, way) for way in WAYS}


@rows(VALUES, ERRORS, INCOMPLETE)
def test_whole(codec: Codec, row: Row) -> None:
    found = by_every_way(codec, row, [row.wire])
    assert found == dict.fromkeys(found, expected(row))


@rows(VALUES, ERRORS, INCOMPLETE)
def test_byte_by_byte(codec: Codec, row: Row) -> None:
    found = by_every_way(codec, row, [row.wire[i : i + 1] for i in range(len(row.wire))])
    assert found == dict.fromkeys(found, expected(row))


@pytest.mark.parametrize("way", [feed_and_parse, feed_all])
@rows(VALUES, ERRORS, INCOMPLETE)
def test_cut_at_every_point(codec: Codec, row: Row, way: Any) -> None:
    size = len(row.wire)
    # Of a long one only its ends and some of its middle.
    points = range(size + 1) if size < 200 else (*range(50), *range(50, size - 50, 997), size - 3)
    for point in points:
        parser = codec.Parser(**row.options)
        assert outcome(parser, cut(row.wire, point), way) == expected(row)


@rows({name: row for name, row in VALUES.items() if row.options.get("max_elements", 2) >= 2})
def test_a_strangers_bytes_behind(codec: Codec, row: Row) -> None:
    stranger = b":7\r\n$4\r\n\r\n\r\n\r\n"
    text = "encoding" in row.options
    behind = [7, b"\r\n\r\n".decode(row.options["encoding"]) if text else b"\r\n\r\n"]
    wire = row.wire + stranger
    for point in (0, len(row.wire) - 1, len(row.wire), len(row.wire) + 1, len(wire) - 1):
        parser = codec.Parser(**row.options)
        assert outcome(parser, cut(wire, point)) == expected(row, *behind)
        assert parser.pending == 0


@rows(ERRORS)
def test_nothing_behind_an_error_changes_it(codec: Codec, row: Row) -> None:
    for behind in (b"\r\n", b"\n", b"x", b":1\r\n" * 1000):
        parser = codec.Parser(**row.options)
        assert outcome(parser, [row.wire + behind]) == expected(row)
        parser = codec.Parser(**row.options)
        assert outcome(parser, [row.wire, behind]) == expected(row)


@rows(ERRORS)
def test_a_spent_parser_says_the_same_again(codec: Codec, row: Row) -> None:
    parser = codec.Parser(**row.options)
    assert outcome(parser, [row.wire]) == expected(row)
    calls: list[Callable[[], object]] = [
        parser.parse,
        lambda: parser.feed(b":1\r\n"),
        lambda: parser.feed_all(b":1\r\n"),
        lambda: list(parser),
        parser.get_buffer,
        lambda: parser.buffer_updated(0),
        parser.parse,
    ]
    for call in calls:
        with pytest.raises(ProtocolError) as caught:
            call()
        assert (str(caught.value), caught.value.offset) == (row.error, row.offset)


@rows(VALUES)
def test_parse_takes_exactly_one_value(codec: Codec, row: Row) -> None:
    if len(row.values) != 1:
        with pytest.raises((ProtocolError, UnicodeDecodeError)):
            codec.parse(row.wire, **row.options)
    elif isinstance(row.values[0], Undecodable):
        with pytest.raises(UnicodeDecodeError):
            codec.parse(row.wire, **row.options)
    else:
        assert exact(codec.parse(row.wire, **row.options)) == exact(row.values[0])


@rows({name: row for name, row in ERRORS.items() if not row.values})
def test_parse_refuses_what_the_parser_refuses(codec: Codec, row: Row) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.parse(row.wire, **row.options)
    assert (str(caught.value), caught.value.offset) == (row.error, row.offset)


@with_every_codec
@pytest.mark.parametrize(
    ("wire", "message", "offset"),
    [
        (b"", "expected a complete value, found only 0 bytes of it, ending at offset 0", 0),
        (b"*2\r\n:1", "expected a complete value, found only 6 bytes of it, ending at offset 6", 6),
        (b":1\r\n:2\r\n", "expected one value, found 4 bytes more at offset 4", 4),
        (b">0\r\n:2\r\n", "expected one value, found 4 bytes more at offset 4", 4),
        (b":1\r\nx", "expected one value, found 1 bytes more at offset 4", 4),
        (b"*1\r\n>0\r\n:1\r\n", "expected one value, found a push inside it at offset 4", 4),
    ],
)
def test_parse_refuses_anything_but_one_value(
    codec: Codec, wire: bytes, message: str, offset: int
) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.parse(wire)
    assert (str(caught.value), caught.value.offset) == (message, offset)


# Any value, any cut.

# Of the bytes of INCOMPLETE those that are part of no value.
PENDING = {row.wire: len(row.wire) for row in INCOMPLETE.values()} | {
    INCOMPLETE["an array"].wire: 8,
    INCOMPLETE["a push in an array"].wire: 8,
}


def pieces(wire: bytes, points: list[float]) -> list[bytes]:
    return cut(wire, *(round(point * len(wire)) for point in points))


@with_every_codec
@given(streams(attributes=False), cuts(), st.sampled_from(WAYS))
def test_any_stream_in_any_cut(codec: Codec, stream: Any, points: list[float], way: Any) -> None:
    found = outcome(codec.Parser(), pieces(stream.wire, points), way)
    assert found == ([exact(value) for value in stream.values], "")


@with_every_codec
@given(streams(attributes=True), cuts(), st.sampled_from(WAYS))
def test_any_stream_with_its_attributes_in_any_cut(
    codec: Codec, stream: Any, points: list[float], way: Any
) -> None:
    found = outcome(codec.Parser(attributes=True), pieces(stream.wire, points), way)
    assert found == ([exact(value) for value in stream.values], "")


@with_every_codec
@given(streams(attributes=True), cuts(), st.sampled_from([row.wire for row in INCOMPLETE.values()]))
def test_pending_is_what_is_behind_the_values(
    codec: Codec, stream: Any, points: list[float], rest: bytes
) -> None:
    parsers = [codec.Parser() for _ in range(3)]
    whole = stream.wire + rest
    chunks = pieces(whole, points)
    outcomes = [outcome(parser, [whole]) for parser in parsers[:1]]
    outcomes += [outcome(parser, chunks, feed_and_parse) for parser in parsers[1:2]]
    outcomes += [outcome(parser, chunks) for parser in parsers[2:]]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert {parser.pending for parser in parsers} == {PENDING[rest]}


@with_every_codec
@settings(max_examples=400)
@given(hostile(), cuts(), options(), st.sampled_from(WAYS))
def test_hostile_bytes_are_refused_the_same_in_any_cut(
    codec: Codec, wire: bytes, points: list[float], given_options: dict[str, Any], way: Any
) -> None:
    whole = outcome(codec.Parser(**given_options), [wire])
    assert outcome(codec.Parser(**given_options), pieces(wire, points), way) == whole
    single = [wire[i : i + 1] for i in range(len(wire))]
    assert outcome(codec.Parser(**given_options), single, way) == whole


@with_every_codec
@given(values3())
def test_what_resp3_says_comes_back(codec: Codec, value: Any) -> None:
    assert exact(codec.parse(codec.encode(value))) == exact(value)


@with_every_codec
@given(values2())
def test_what_resp2_says_comes_back(codec: Codec, value: Any) -> None:
    assert exact(codec.parse(codec.encode(value, protocol=2))) == exact(value)


# What is told besides values.


@with_every_codec
def test_pending_counts_the_bytes_that_are_part_of_no_value(codec: Codec) -> None:
    parser = codec.Parser()
    assert parser.pending == 0
    for byte, pending in zip(
        b"*2\r\n:1\r\n>1\r\n:5\r\n:2\r\n", [*range(1, 16), 8, *range(9, 12), 0], strict=True
    ):
        parser.feed_all(bytes([byte]))
        assert parser.pending == pending
    parser.feed(b":1\r\n:2\r\n+")
    assert parser.pending == 9
    assert [parser.parse(), parser.pending, parser.parse(), parser.pending] == [1, 5, 2, 1]
    assert [parser.parse(), parser.pending] == [NEED_DATA, 1]


@with_every_codec
def test_attributes_and_pushes_are_counted_with_their_values(codec: Codec) -> None:
    parser = codec.Parser()
    parser.feed(b"*1\r\n|1\r\n:1\r\n>2\r\n>0\r\n:5\r\n:6\r\n:2\r\n:3")
    assert parser.parse() == []  # the push in the push
    assert parser.pending == 4 + 4 + 4 + 12 + 4 + 2
    assert parser.parse() == [5, 6]
    assert parser.pending == 4 + 4 + 4 + 4 + 2
    parser.feed(b"\r\n")
    assert [parser.parse(), parser.pending] == [[3], 0]
    parser.feed(b"*1\r\n|0\r\n>0\r\n")
    assert [parser.parse(), parser.pending] == [[], 4]  # its attribute went with it
    parser.feed(b"|1\r\n:1\r\n:1\r\n:2\r\n")
    assert [parser.parse(), parser.pending] == [[2], 0]


@with_every_codec
def test_offsets_count_from_the_first_byte_ever_fed(codec: Codec) -> None:
    parser = codec.Parser()
    for _ in range(1000):
        assert parser.feed_all(b":1\r\n") == [1]
    parser.feed(b":2\r\n")
    assert parser.parse() == 2
    assert parser.feed_all(b"*1\r\n") == []
    with pytest.raises(ProtocolError, match=r"at offset 4008$") as caught:
        parser.feed_all(b"x")
    assert caught.value.offset == 4008


@with_every_codec
def test_values_before_an_error_are_not_lost(codec: Codec) -> None:
    parser = codec.Parser()
    assert parser.feed_all(b"*1\r\n>1\r\n:1\r\n:2\r\n:3\r\n*1\r\nx") == [[1], [2], 3]
    assert parser.error.offset == 24
    with pytest.raises(ProtocolError, match="offset 24"):
        parser.feed_all(b"")
    parser = codec.Parser()
    parser.feed(b":1\r\n?")
    assert [parser.error, parser.parse()] == [None, 1]
    with pytest.raises(ProtocolError):
        parser.parse()
    assert parser.error.offset == 4
    assert parser.pending == 1


@with_every_codec
def test_errors_do_not_pile_up_tracebacks(codec: Codec) -> None:
    parser = codec.Parser()
    with pytest.raises(ProtocolError) as first:
        parser.feed_all(b"x")
    with pytest.raises(ProtocolError) as second:
        parser.parse()
    assert first.value is not second.value
    assert parser.error.__traceback__ is None


@with_every_codec
def test_undecodable_text_is_raised_once_and_carries_no_traceback_when_delivered(
    codec: Codec,
) -> None:
    parser = codec.Parser(encoding="utf-8")
    parser.feed(b"+\xff\r\n+a\r\n")
    with pytest.raises(UnicodeDecodeError):
        parser.parse()
    assert [parser.parse(), parser.parse()] == ["a", NEED_DATA]
    [error] = parser.feed_all(b"+\xff\r\n")
    assert isinstance(error, UnicodeDecodeError)
    assert error.__traceback__ is None


@with_every_codec
def test_a_parser_leaves_no_reference_cycle(codec: Codec) -> None:
    gc.collect()
    gc.disable()
    try:
        parser = codec.Parser()
        assert parser.feed_all(b"*2\r\n:1\r\n") == []
        before = len(gc.get_objects())
        del parser
        assert len(gc.get_objects()) < before
        assert gc.collect() == 0
    finally:
        gc.enable()


@with_every_codec
@pytest.mark.parametrize("wire", [b"*1\r\n*0\r\n", b"%0\r\n", b">1\r\n:1\r\n", b"$5\r\nhello\r\n"])
def test_a_value_handed_out_is_not_held(codec: Codec, wire: bytes) -> None:
    parser = codec.Parser()
    [value] = parser.feed_all(wire[:3]) + parser.feed_all(wire[3:])
    assert sys.getrefcount(value) == 2
    parser.feed(wire)
    value = parser.parse()
    assert parser.parse() is NEED_DATA
    assert sys.getrefcount(value) == 2


# Options.


@with_every_codec
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"encoding": "no-such-codec"}, LookupError),
        ({"encoding": "rot13"}, LookupError),
        ({"encoding": b"utf-8"}, TypeError),
        ({"encoding": "utf-8", "errors": "no-such-handler"}, LookupError),
        ({"errors": "no-such-handler"}, LookupError),
        ({"max_depth": -1}, ValueError),
        ({"max_bulk": "1"}, TypeError),
        ({"max_elements": None}, TypeError),
        ({"max_line": 1.5}, TypeError),
        ({"max_line": True}, TypeError),
        ({"max_lines": 1}, TypeError),
    ],
)
def test_options_that_make_no_sense(codec: Codec, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        codec.Parser(**wrong)
    with pytest.raises(error):
        codec.parse(b":1\r\n", **wrong)


@with_every_codec
def test_options_go_by_name(codec: Codec) -> None:
    with pytest.raises(TypeError):
        codec.Parser("utf-8")


@with_every_codec
@pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
def test_only_bytes_are_fed(codec: Codec, data: Any) -> None:
    parser = codec.Parser()
    with pytest.raises(TypeError):
        parser.feed(data)
    with pytest.raises(TypeError):
        parser.feed_all(data)
    assert parser.feed_all(b":1\r\n") == [1]


@with_every_codec
def test_what_was_fed_may_change_afterwards(codec: Codec) -> None:
    parser = codec.Parser()
    data = bytearray(b"$3\r\nabc\r\n")
    parser.feed(data)
    data[:] = b"x" * len(data)
    assert parser.parse() == b"abc"
    parser.feed(memoryview(b"-$-3-\r-\n-a-b-c-\r-\n-")[1::2])
    assert parser.parse() == b"abc"


@with_every_codec
def test_the_buffer_is_at_least_what_was_asked_for(codec: Codec) -> None:
    parser = codec.Parser()
    for size in (-1, 0, 1, 100_000, 10):
        view = parser.get_buffer(size)
        assert len(view) >= max(size, 1)
        assert not view.readonly
        view[:4] = b":12\r"
        parser.buffer_updated(4)
        assert parser.parse() is NEED_DATA
        view = parser.get_buffer(size)
        view[:1] = b"\n"
        parser.buffer_updated(0)
        parser.buffer_updated(1)
        assert parser.parse() == 12


@with_every_codec
def test_no_more_is_taken_than_the_buffer_has(codec: Codec) -> None:
    parser = codec.Parser()
    with pytest.raises(ValueError, match="found 1"):
        parser.buffer_updated(1)
    size = len(parser.get_buffer(10))
    with pytest.raises(ValueError, match=f"found {size + 1}"):
        parser.buffer_updated(size + 1)
    with pytest.raises(ValueError, match="found -1"):
        parser.buffer_updated(-1)


# What Python alone can get wrong.


@with_every_codec
def test_big_numbers_do_not_depend_on_the_interpreters_limit(codec: Codec) -> None:
    wires = [b"(%b\r\n" % (b"123456789" * 400), b":%b1\r\n" % (b"0" * 5000)]
    expected_values = [codec.parse(wire) for wire in wires]
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        values = [codec.parse(wire) for wire in wires]
    finally:
        sys.set_int_max_str_digits(limit)
    assert values == expected_values == [int(b"123456789" * 400), 1]


@with_every_codec
@pytest.mark.parametrize(
    "head", [b"*1\r\n", b"*?\r\n", b"%1\r\n:1\r\n", b"~1\r\n", b"|1\r\n", b">1\r\n"]
)
def test_nesting_does_not_recurse(codec: Codec, head: bytes) -> None:
    wire = head * 100_000
    with pytest.raises(ProtocolError, match="at most 128 levels"):
        codec.Parser().feed_all(wire)
    parser = codec.Parser(max_depth=10**6)
    if head in (b"~1\r\n", b"|1\r\n"):  # members and keys have a limit of their own
        with pytest.raises(ProtocolError, match="in a key or a member"):
            parser.feed_all(wire)
    else:
        assert parser.feed_all(wire) == []


@with_every_codec
def test_very_deep_values_come_and_go(codec: Codec) -> None:
    depth = 200_000
    parser = codec.Parser(max_depth=depth)
    [value] = parser.feed_all(b"*1\r\n" * (depth - 1) + b"*0\r\n")
    for _ in range(depth - 1):
        [value] = value
    assert value == []


@with_every_codec
def test_an_interrupt_spends_the_parser(codec: Codec) -> None:
    """A parser that lost its place must not go on as if it had not."""

    def interrupt(error: UnicodeError) -> tuple[str, int]:
        raise KeyboardInterrupt

    import codecs

    codecs.register_error("resp-tests-interrupt", interrupt)
    parser = codec.Parser(encoding="utf-8", errors="resp-tests-interrupt")
    assert parser.feed_all(b"+a\r\n") == ["a"]
    with pytest.raises(KeyboardInterrupt):
        parser.feed_all(b"*2\r\n+\xff\r\n")
    for call in (lambda: parser.feed_all(b":1\r\n"), parser.parse, lambda: parser.feed(b"")):
        with pytest.raises(ProtocolError, match="interrupted") as caught:
            call()
        assert caught.value.offset == parser.error.offset == 4


# Linear: counted, or so much of it that anything else would never end.


def steps(work: Callable[[], object]) -> int:
    """Count the lines of Python that the work runs."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(previous)
    return count


def chunked(wire: bytes, size: int) -> list[bytes]:
    return [wire[i : i + size] for i in range(0, len(wire), size)]


LONG = {
    "array of bulks": (b"*%d\r\n", b"$3\r\nabc\r\n", b""),
    "array of nulls": (b"*%d\r\n", b"_\r\n", b""),
    "set of integers": (b"~%d\r\n", b":1234567\r\n", b""),
    "streamed array": (b"*?\r\n", b"+a\r\n", b".\r\n"),
    "streamed string": (b"$?\r\n", b";3\r\nabc\r\n", b";0\r\n"),
    "pipeline": (b"+OK\r\n", b"$3\r\nabc\r\n", b""),
    "pushes in an array": (b"*1\r\n", b">1\r\n:1\r\n", b":1\r\n"),
    "attributes": (b"", b"|1\r\n:1\r\n:1\r\n", b":1\r\n"),
    "bulk of line ends": (b"*1\r\n", b"$8\r\n\r\n\r\n\r\n\r\n\r\n", b":1\r\n"),
}


@with_every_codec
@pytest.mark.parametrize("chunk", [7, 4096, 10**9])
@pytest.mark.parametrize("kind", LONG)
def test_twice_the_elements_are_twice_the_steps(codec: Codec, kind: str, chunk: int) -> None:
    head, element, tail = LONG[kind]
    counts = []
    for size in (1000, 2000):
        wire = (head % size if b"%d" in head else head) + element * size + tail
        chunks = chunked(wire, chunk)
        parser = codec.Parser(max_depth=10**6)
        counts.append(steps(lambda: list(feed_all(parser, chunks))))  # noqa: B023
    assert counts[1] <= 2.1 * counts[0] + 100


@with_every_codec
def test_an_array_of_a_million_elements(codec: Codec) -> None:
    parser = codec.Parser()
    chunks = chunked(b"*1000000\r\n" + b"$1\r\na\r\n" * 1_000_000, 4096)
    values = [value for chunk in chunks for value in parser.feed_all(chunk)]
    assert values == [[b"a"] * 1_000_000]


@with_every_codec
def test_a_bulks_bytes_are_copied_once(codec: Codec) -> None:
    size = 64 * 1024 * 1024
    chunks = chunked(b"$%d\r\n" % size + b"x" * size + b"\r\n", 16384)
    parser = codec.Parser()
    tracemalloc.start()
    try:
        for chunk in chunks[:-1]:
            parser.feed(chunk)
            assert parser.parse() is NEED_DATA
        gathered, _ = tracemalloc.get_traced_memory()
        parser.feed(chunks[-1])
        value = parser.parse()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(value) == size
    # Either what was fed is kept as it is and joined at the end, or copied as it comes.
    assert peak < 1.05 * size
    assert gathered < 0.01 * size or codec.implementation != "python"


@with_every_codec
def test_a_bulk_in_tiny_chunks_costs_little_more_than_its_bytes(codec: Codec) -> None:
    size = 500_000
    parser = codec.Parser()
    parser.feed(b"$%d\r\n" % size)
    tracemalloc.start()
    try:
        for _ in range(size - 1):
            parser.feed_all(b"x")
        gathered, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gathered < 2 * size
    assert parser.feed_all(b"x\r\n") == [b"x" * size]


@with_every_codec
def test_a_declared_length_allocates_nothing(codec: Codec) -> None:
    tracemalloc.start()
    try:
        parsers = [codec.Parser() for _ in range(10)]
        for parser in parsers:
            assert parser.feed_all(b"*4294967295\r\n%2147483647\r\n:1\r\n$536870912\r\nabc") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@with_every_codec
def test_a_long_line_is_not_read_again(codec: Codec) -> None:
    # Read again with every chunk, these would be 2 TB.
    size = 16 * 1024 * 1024
    parser = codec.Parser(max_line=size)
    parser.feed(b"+")
    for chunk in chunked(b"x" * size, 64):
        parser.feed(chunk)
        assert parser.parse() is NEED_DATA
    assert parser.feed_all(b"\r\n") == [b"x" * size]


@with_every_codec
def test_what_is_read_is_not_moved(codec: Codec) -> None:
    # Moved with every reply, these would be 2 TB.
    size = 500_000
    parser = codec.Parser()
    parser.feed(b"$10\r\n0123456789\r\n" * size)
    assert sum(1 for _ in parser) == size


@with_every_codec
def test_much_may_be_fed_before_it_is_parsed(codec: Codec) -> None:
    parser = codec.Parser()
    for chunk in chunked(b"$10\r\n0123456789\r\n" * 100_000, 5):
        parser.feed(chunk)
    assert sum(1 for _ in parser) == 100_000
