"""The fast walk: what looks like its usual case and is none, and work that never outgrows bytes.

Steps of Python, as `test_parser` counts them, do not show what one call into C does: here the bytes
that are split and the tokens that are looked up are counted.
"""

from __future__ import annotations

from typing import Any

import pytest

from resp import _window, pure

BULK = b"$1\r\na\r\n"
ROW = b"*3\r\n" + BULK * 3
THREE = [b"a", b"a", b"a"]


@pytest.mark.parametrize(
    ("wire", "values", "pending"),
    [
        (b"*1\r\n$1\r\nx\r\n$0\r\n", [[b"x"]], 4),
        (b"*1\r\n$1\r\nx\r\n$0\r\n\r\n", [[b"x"], b""], 0),
        (b"*2\r\n$1\r\nx\r\n$0\r\n", [], 15),
        (b"*2\r\n$1\r\nx\r\n:1\r\n:2\r\n", [[b"x", 1], 2], 0),
        (b"$0\r\n", [], 4),
        (b"$0\r\n\r\n\r", [b""], 1),
        (b"$2\r\n\r\n\r\n", [b"\r\n"], 0),
        (b"$999\r\n%b\r\n" % (b"\r\n" * 499 + b"x"), [b"\r\n" * 499 + b"x"], 0),
        (b"$1000\r\n%b\r\n" % (b"\r\n" * 500) * 3, [b"\r\n" * 500] * 3, 0),
        (b"$1000\r\n%b\r\n$01001\r\n" % (b"x" * 1000), [b"x" * 1000], 8),
        (b"*1\r\n$1001\r\n%b\r\n" % (b"x" * 1001), [[b"x" * 1001]], 0),
        (b"=2000\r\ntxt:", [], 11),
        (b":1\r\n" * 30 + b":12345\r\n" * 30, [1] * 30 + [12345] * 30, 0),
        (b"*40\r\n" + b":12345\r\n" * 39 + b":00007\r\n", [[12345] * 39 + [7]], 0),
        (b":12345\r\n" * 30 + b":1,:2\r\n", [12345] * 30, 7),
        (b":12345\r\n" * 30 + b":\r\n", [12345] * 30, 3),
        (
            b"$3\r\nabc\r\n" * 30 + b"$2000\r\n%b\r\n" % (b"x" * 2000),
            [b"abc"] * 30 + [b"x" * 2000],
            0,
        ),
        (b"%2\r\n*0\r\n:1\r\n*1\r\n$1\r\na\r\n:2\r\n", [{(): 1, (b"a",): 2}], 0),
        (b"*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n:2\r\n", [[[1, []], [2]]], 0),
        (
            b"*2\r\n%2\r\n:1\r\n:2\r\n*1\r\n:3\r\n,1.5\r\n~1\r\n:4\r\n",
            [[{1: 2, (3,): 1.5}, {4}]],
            0,
        ),
        (b"*25\r\n" + b":1234\r\n" * 24 + b"*1\r\n_\r\n", [[1234] * 24 + [[None]]], 0),
        (b"*24\r\n" + b":1234\r\n" * 23 + b"*1\r\n_\r\n", [[1234] * 23 + [[None]]], 0),
        (b"*1\r\n" * 3 + b"*2\r\n:1\r\n", [], 20),
        (
            b"$1000\r\n%b\r\n" % (b"x" * 1000) * 2 + b"$1000\r\n" + b"y" * 1002,
            [b"x" * 1000] * 2,
            1009,
        ),
        (b"*1\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", [[b"invalidate", [b"a"]]], 4),
        # Runs of integers.
        (b":-5\r\n:0\r\n:-0\r\n:77\r\n+x\r\n", [-5, 0, 0, 77, b"x"], 0),
        (b":1\r\n:2\r\n:007\r\n:+4\r\n:5\r\n", [1, 2, 7, 4, 5], 0),
        (b":1\r\n:9223372036854775807\r\n:-9223372036854775808\r\n", [1, 2**63 - 1, -(2**63)], 0),
        (b":1\r\n:99999999999999999\r\n:-9999999999999999\r\n", [1, 10**17 - 1, 1 - 10**16], 0),
        (b":1\r\n:2\r\n:3\r", [1, 2], 3),
        (b":1\r\n:2\r\n:", [1, 2], 1),
        (b"*2\r\n:1\r\n:2\r\n:3\r\n", [[1, 2], 3], 0),
        (b"*3\r\n:1\r\n:2\r\n", [], 12),
        (b"~2\r\n:1\r\n:2\r\n:3\r\n:3\r\n", [{1, 2}, 3, 3], 0),
        (b":1\r\n" * 500 + b"$1\r\nx\r\n" + b":2\r\n" * 500, [1] * 500 + [b"x"] + [2] * 500, 0),
        (b"*600\r\n" + b":12\r\n" * 601, [[12] * 600, 12], 0),
        # Tables of bulks.
        (ROW * 30 + b"*3\r\n_\r\n" + BULK * 2 + ROW, [THREE] * 30 + [[None, b"a", b"a"], THREE], 0),
        (ROW * 9 + b"*4\r\n" + BULK * 4 + ROW, [THREE] * 9 + [[b"a"] * 4, THREE], 0),
        (ROW * 9 + b"*3\r\n$2\r\n\r\n\r\n" + BULK * 2, [THREE] * 9 + [[b"\r\n", b"a", b"a"]], 0),
        (ROW * 9 + b"*3\r\n" + BULK * 2, [THREE] * 9, 18),
        (ROW * 9 + b"*3\r\n" + BULK * 2 + b"$1\r\nab\r\n", [THREE] * 9, 26),
        (b"*20\r\n" + ROW * 22, [[THREE] * 20, THREE, THREE], 0),
        (
            b"%2\r\n$1\r\nk\r\n$1\r\n1\r\n$1\r\nl\r\n$1\r\n2\r\n" * 30 + ROW,
            [{b"k": b"1", b"l": b"2"}] * 30 + [THREE],
            0,
        ),
        (b"~3\r\n$1\r\nx\r\n$1\r\ny\r\n$1\r\nx\r\n" * 30, [{b"x", b"y"}] * 30, 0),
        (b"%12\r\n" + (BULK + ROW) * 12 + ROW, [{b"a": THREE}, THREE], 0),
    ],
)
@pytest.mark.parametrize("before", [b"", b"+OK\r\n"])
def test_what_looks_usual(wire: bytes, values: list[Any], pending: int, before: bytes) -> None:
    parser = pure.Parser()
    assert parser.feed_all(before + wire) == [b"OK"] * bool(before) + values
    assert parser.pending == pending


@pytest.mark.parametrize(
    ("wire", "offset"),
    [
        (b":1\r\n:--2\r\n:3\r\n", 4),
        (b":1\r\n:-\r\n:3\r\n", 4),
        (b":1\r\n:2-3\r\n:3\r\n", 4),
        (b":1\r\n:\r\n:3\r\n", 4),
        (b":1\r\n:2\r5\n:3\r\n:4\r\n", 6),
        (b":1\r\n:9223372036854775808\r\n:2\r\n", 4),
        (b":1\r\n:2,3\r\n:4\r\n", 4),
        (b":1\r\n:2\r\n\r\n:3\r\n", 8),
    ],
)
def test_what_looks_like_integers_is_refused(wire: bytes, offset: int) -> None:
    for before in (b"", b"+OK\r\n", b":5\r\n" * 300):
        parser = pure.Parser()
        parser.feed_all(before + wire)
        assert parser.error is not None
        assert parser.error.offset == len(before) + offset


def test_limits_hold_for_what_is_not_read_by_the_grammar() -> None:
    parser = pure.Parser(max_bulk=1500)
    assert parser.feed_all(b"$1200\r\n%b\r\n" % (b"x" * 1200) * 2) == [b"x" * 1200] * 2
    wire = b"$1200\r\n%b\r\n" % (b"x" * 1200) + b"$1501\r\n%b\r\n" % (b"x" * 1501)
    assert parser.feed_all(wire) == [b"x" * 1200]
    assert str(parser.error) == ("expected a bulk of at most 1500 bytes, found 1501 at offset 3627")
    parser = pure.Parser(max_depth=1)
    wire = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"
    with pytest.raises(pure.ProtocolError, match="at most 1 levels of nesting"):
        parser.feed_all(wire)


def test_large_text_that_cannot_be_decoded_leaves_its_neighbours_as_they_are() -> None:
    wire = b"".join(b"$1000\r\n%b\r\n" % (byte * 1000) for byte in (b"a", b"b", b"\xff", b"c"))
    for wrapped in (wire, b"*4\r\n" + wire):
        first, *others, last = pure.Parser(encoding="utf-8").feed_all(
            b"+x\r\n" + wrapped + b":1\r\n"
        )
        assert (first, last) == ("x", 1)
        assert [type(value) for value in others].count(UnicodeDecodeError) == 1
        assert [value[0] for value in others if isinstance(value, str)] == ["a", "b", "c"][
            : len(others) - 1
        ]


def test_depth_is_counted_for_what_opens_and_closes_in_one_go() -> None:
    wire = b"*1\r\n" * 3 + b"*0\r\n"
    for wires in (wire, wire.replace(b"*0", b"*1\r\n:1"), b"*1\r\n" * 3 + b"%1\r\n:1\r\n:2\r\n"):
        assert len(pure.Parser(max_depth=4).feed_all(wires + wires)) == 2
        with pytest.raises(pure.ProtocolError, match=r"at most 3 levels .* at offset 12$"):
            pure.Parser(max_depth=3).feed_all(wires)


class Counted(dict[Any, Any]):
    """A table that counts how often it is asked."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked += 1
        return dict.get(self, key, default)

    def __getitem__(self, key: Any) -> Any:
        self.asked += 1
        return dict.__getitem__(self, key)


class CountedList(list[Any]):
    """A table by number that counts how often it is asked."""

    asked = 0

    def __getitem__(self, key: Any) -> Any:
        self.asked += 1
        return list.__getitem__(self, key)


HOSTILE = {
    "bulks and an integer": (BULK * 13 + b":1234\r\n") * 500,
    "growing runs": b"".join(BULK * 4**n + b"*0\r\n" for n in range(6)) * 3,
    "arrays with a null near the end": (b"*100\r\n" + BULK * 98 + b"_\r\n" + BULK) * 60,
    "arrays with a null at the beginning": (b"*100\r\n_\r\n" + BULK * 99) * 60,
    "arrays that look like bulks at both ends": (b"*9\r\n" + BULK * 4 + b"_\r\n" + BULK * 4) * 700,
    "arrays in arrays": (b"*100\r\n" * 60 + BULK * 100 + (b"*0\r\n" * 99) * 59) * 2,
    "few in few": (b"*3\r\n:1\r\n" * 60 + b":2\r\n" * 61) * 60,
    "arrays of 24 with a null at the end": (b"*24\r\n" + BULK * 23 + b"_\r\n") * 250,
    "line ends in bulks": (b"$900\r\n" + b"\r\n" * 450 + b"\r\n") * 300,
    "line ends in one of many bulks": (BULK * 20 + b"$40\r\n" + b"\r\n" * 20 + b"\r\n") * 600,
    "what looks like a bulk, in bulks": (b"$14\r\n" + BULK * 2 + b"\r\n") * 2000,
    "large among small": (BULK + b"$5000\r\n" + b"x" * 5000 + b"\r\n") * 60,
    "numbers and others in turn": (b":12345\r\n" * 20 + b"+OK\r\n" * 20) * 300,
    "numbers that are none of the walk's": (b":12345\r\n" * 15 + b":+12345\r\n") * 1000,
    "attributes": (BULK * 12 + b"|1\r\n:1\r\n:2\r\n") * 500,
    "maps of arrays as keys": (b"%1\r\n*1\r\n" + BULK * 2) * 1000,
    "tables that end early": (ROW * 5 + b"*3\r\n" + BULK * 2 + b"_\r\n") * 700,
    "tables that grow": b"".join(ROW * 4**n + b"*3\r\n_\r\n" + BULK * 2 for n in range(5)) * 5,
    "a few numbers before others": (b":1\r\n:2\r\n" + BULK) * 3000,
    "half a bulk": b"$999\r\n" + b"\r\n" * 300,
}


@pytest.mark.parametrize("chunk", [4096, 10**9])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_byte_is_looked_at_more_than_a_few_times(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = _window.Tables(text=False)
    tables.meanings = Counted(tables.meanings)
    tables.headers = Counted(tables.headers)
    tables.scalars = Counted(tables.scalars)
    tables.listed = CountedList(tables.listed)
    monkeypatch.setitem(_window._tables, False, tables)
    split, make_window = 0, _window.Window._split

    def counted_split(window: Any, *arguments: Any) -> None:
        nonlocal split
        make_window(window, *arguments)
        split += sum(map(len, window._tokens[: window._count])) + 2 * window._count

    monkeypatch.setattr(_window.Window, "_split", counted_split)
    wire = HOSTILE[name]
    parser = pure.Parser()
    for start in range(0, len(wire), chunk):
        parser.feed_all(wire[start : start + chunk])
    assert parser.error is None
    # A run that is given up is at most 4 times as long as what was taken before it.
    counted = (tables.meanings, tables.headers, tables.scalars, tables.listed)
    asked = sum(table.asked for table in counted)
    assert asked <= 4 * wire.count(b"\r\n") + 1000
    assert split <= 2 * len(wire) + 1000
