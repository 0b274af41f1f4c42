"""The encoder: what a command may carry, and every value in both protocols."""

from __future__ import annotations

import math
from array import array
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import IMPLEMENTATIONS, VALUES, Row, exact

from resp import NEED_DATA, Attributed, Push, ReplyError, Verbatim

Codec = Any

with_every_codec = pytest.mark.parametrize(
    "codec", IMPLEMENTATIONS, ids=lambda module: module.implementation
)


class Number(IntEnum):
    SEVEN = 7


class Text(str):
    __slots__ = ()


class Float(float):
    __slots__ = ()

    def __repr__(self) -> str:
        return "Float"


SECRET = "correct horse battery staple"

ARGUMENTS = {
    "bytes": (b"a\r\n\xff", b"a\r\n\xff"),
    "empty bytes": (b"", b""),
    "long bytes": (b"x" * 5000, b"x" * 5000),
    "bytearray": (bytearray(b"abc"), b"abc"),
    "memoryview": (memoryview(b"abc"), b"abc"),
    "memoryview of every other byte": (memoryview(b"abcde")[::2], b"ace"),
    "memoryview of numbers": (memoryview(array("H", [0x4141, 0x4242])), b"AABB"),
    "str": ("h\xe9 \u20ac \U0001f600", "h\xe9 \u20ac \U0001f600".encode()),
    "long str": ("\xe9" * 5000, "\xe9".encode() * 5000),
    "str subclass": (Text("abc"), b"abc"),
    "verbatim string": (Verbatim(b"abc"), b"abc"),
    "int": (12, b"12"),
    "negative int": (-5, b"-5"),
    "large int": (2**200, str(2**200).encode()),
    "int subclass": (Number.SEVEN, b"7"),
    "float": (0.1, b"0.1"),
    "whole float": (1.0, b"1.0"),
    "large float": (1e300, b"1e+300"),
    "infinite": (math.inf, b"inf"),
    "negative infinite": (-math.inf, b"-inf"),
    "nan": (math.nan, b"nan"),
    "float subclass": (Float(2.5), b"2.5"),
}
REFUSED = {
    "None": (None, "None"),
    "True": (True, "of type bool"),
    "list": ([SECRET], "of type list"),
    "tuple": ((SECRET,), "of type tuple"),
    "dict": ({SECRET: SECRET}, "of type dict"),
    "set": ({SECRET}, "of type set"),
    "Decimal": (Decimal(1), "of type Decimal"),
    "complex": (1j, "of type complex"),
    "object": (object(), "of type object"),
    "NEED_DATA": (NEED_DATA, "of type NeedData"),
}


def table(rows: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows.values(), ids=rows.keys())


# Commands


@with_every_codec
@table(ARGUMENTS)
def test_argument(codec: Codec, row: tuple[Any, bytes]) -> None:
    argument, data = row
    wire = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data)
    assert codec.encode_command("GET", argument) == wire
    assert codec.encode_command(b"GET", argument) == wire
    assert codec.encode_commands([("GET", argument)] * 3) == wire * 3


@with_every_codec
@table(REFUSED)
def test_argument_that_no_command_carries(codec: Codec, row: tuple[Any, str]) -> None:
    argument, kind = row
    takes = "a command carries bytes, bytearray, memoryview, str, int and float"
    with pytest.raises(TypeError) as caught:
        codec.encode_command("SET", SECRET, argument)
    assert str(caught.value) == f"argument 2 of SET is {kind}; {takes}"
    with pytest.raises(TypeError) as caught:
        codec.encode_command(argument)
    assert str(caught.value) == f"argument 0 is {kind}; {takes}"
    with pytest.raises(TypeError) as caught:
        codec.encode_commands([("GET", "a"), ("JSON.SET", SECRET, "$", argument)])
    assert str(caught.value) == f"argument 3 of JSON.SET in command 1 is {kind}; {takes}"


@with_every_codec
def test_only_a_commands_name_is_shown(codec: Codec) -> None:
    for name in (SECRET, SECRET.encode(), "x" * 33, "p\xe4ss", b"\xff", 5):
        with pytest.raises(TypeError, match=r"^argument 1 is None;"):
            codec.encode_command(name, None)
    with pytest.raises(TypeError, match=r"^argument 1 of CLIENT is None;"):
        codec.encode_command(b"client", None)


@with_every_codec
def test_text_with_a_lone_surrogate(codec: Codec) -> None:
    message = "has a lone surrogate at index 28; UTF-8 cannot carry it"
    with pytest.raises(ValueError, match="surrogate") as caught:
        codec.encode_command("AUTH", "user", SECRET + "\udc80")
    assert str(caught.value) == f"argument 2 of AUTH {message}"
    with pytest.raises(ValueError, match="surrogate") as caught:
        codec.encode_commands([["GET", "a"], ["AUTH", SECRET + "\udc80"]])
    assert str(caught.value) == f"argument 1 of AUTH in command 1 {message}"
    # An error's context is printed and reported as well.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="argument 0 has a lone surrogate at index 0"):
        codec.encode_command("\udc80")


@with_every_codec
def test_number_of_too_many_digits(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"^argument 2 of SET has more digits than"):
        codec.encode_command("SET", "key", 10**5000)


@with_every_codec
def test_no_command(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"^a command has no arguments"):
        codec.encode_command()
    with pytest.raises(ValueError, match=r"^command 1 has no arguments"):
        codec.encode_commands([["PING"], []])


@with_every_codec
@pytest.mark.parametrize("command", ["PING", b"PING", bytearray(b"PING"), memoryview(b"PING")])
def test_a_string_is_no_command_of_its_letters(codec: Codec, command: Any) -> None:
    kind = type(command).__name__
    with pytest.raises(TypeError, match=f"^command 1 is of type {kind}; expected a sequence"):
        codec.encode_commands([["PING"], command])


@with_every_codec
def test_what_is_no_sequence_is_no_command(codec: Codec) -> None:
    for command in (None, 5):
        with pytest.raises(TypeError, match=r"^command 0 is of type .*; expected a sequence"):
            codec.encode_commands([command])


@with_every_codec
def test_pipeline(codec: Codec) -> None:
    commands = [("SET", b"k", 1), ["GET", "k"], (part for part in ("PING",))]
    wire = codec.encode_commands(iter(commands))
    assert wire == (
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n"
    )
    assert codec.encode_commands([]) == b""


@with_every_codec
@given(
    st.lists(
        st.lists(
            st.binary()
            | st.text(st.characters(exclude_categories=["Cs"]))
            | st.integers()
            | st.floats(allow_nan=False),
            min_size=1,
        ),
        max_size=4,
    )
)
def test_a_server_reads_what_was_sent(codec: Codec, commands: list[list[Any]]) -> None:
    sent = [
        [
            argument
            if isinstance(argument, bytes)
            else (argument if isinstance(argument, str) else repr(argument)).encode()
            for argument in command
        ]
        for command in commands
    ]
    assert codec.Parser().feed_all(codec.encode_commands(commands)) == sent
    for command, arguments in zip(commands, sent, strict=True):
        assert codec.parse(codec.encode_command(*command)) == arguments


# Values

ENCODED: dict[str, tuple[Any, bytes, bytes]] = {
    # value, in RESP3, in RESP2
    "None": (None, b"_\r\n", b"$-1\r\n"),
    "True": (True, b"#t\r\n", b":1\r\n"),
    "False": (False, b"#f\r\n", b":0\r\n"),
    "int": (-5, b":-5\r\n", b":-5\r\n"),
    "largest integer": (2**63 - 1, b":9223372036854775807\r\n", b":9223372036854775807\r\n"),
    "big number": (2**63, b"(9223372036854775808\r\n", b"$19\r\n9223372036854775808\r\n"),
    "IntEnum": (Number.SEVEN, b":7\r\n", b":7\r\n"),
    "float": (0.1, b",0.1\r\n", b"$3\r\n0.1\r\n"),
    "infinite": (-math.inf, b",-inf\r\n", b"$4\r\n-inf\r\n"),
    "nan": (math.nan, b",nan\r\n", b"$3\r\nnan\r\n"),
    "bytes": (b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
    "bytearray": (bytearray(b"a"), b"$1\r\na\r\n", b"$1\r\na\r\n"),
    "memoryview": (memoryview(b"abc")[::2], b"$2\r\nac\r\n", b"$2\r\nac\r\n"),
    "str": ("\xe9", b"$2\r\n\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
    "verbatim": (Verbatim(b"a", "mkd"), b"=5\r\nmkd:a\r\n", b"$1\r\na\r\n"),
    "verbatim str": (Verbatim("\xe9"), b"=6\r\ntxt:\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
    "error": (ReplyError("ERR no"), b"-ERR no\r\n", b"-ERR no\r\n"),
    "error of two lines": (ReplyError("E\r\nF"), b"!4\r\nE\r\nF\r\n", b"-E  F\r\n"),
    "list": ([1, [None]], b"*2\r\n:1\r\n*1\r\n_\r\n", b"*2\r\n:1\r\n*1\r\n$-1\r\n"),
    "tuple": ((1, ()), b"*2\r\n:1\r\n*0\r\n", b"*2\r\n:1\r\n*0\r\n"),
    "dict": (
        {b"a": {1: 2}},
        b"%1\r\n$1\r\na\r\n%1\r\n:1\r\n:2\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n",
    ),
    "set": ({1}, b"~1\r\n:1\r\n", b"*1\r\n:1\r\n"),
    "frozenset": (frozenset({(1,)}), b"~1\r\n*1\r\n:1\r\n", b"*1\r\n*1\r\n:1\r\n"),
    "push": (Push([b"a", 1]), b">2\r\n$1\r\na\r\n:1\r\n", b"*2\r\n$1\r\na\r\n:1\r\n"),
    "attributed": (
        Attributed([1], {b"a": 2}),
        b"|1\r\n$1\r\na\r\n:2\r\n*1\r\n:1\r\n",
        b"*1\r\n:1\r\n",
    ),
    "attributed, frozen": (
        {Attributed((), ((1, 2),))},
        b"~1\r\n|1\r\n:1\r\n:2\r\n*0\r\n",
        b"*1\r\n*0\r\n",
    ),
    "attributed push": (Attributed(Push(), {}), b"|0\r\n>0\r\n", b"*0\r\n"),
}


@with_every_codec
@table(ENCODED)
def test_value(codec: Codec, row: tuple[Any, bytes, bytes]) -> None:
    value, resp3, resp2 = row
    assert codec.encode(value) == resp3
    assert codec.encode(value, protocol=3) == resp3
    assert codec.encode(value, protocol=2) == resp2


@with_every_codec
@table({name: row for name, row in VALUES.items() if len(row.values) == 1})
def test_every_value_of_the_tables_comes_back(codec: Codec, row: Row) -> None:
    [value] = row.values
    if "ndecodable" not in type(value).__name__:
        kept = {"attributes": True, "encoding": row.options.get("encoding") and "utf-8"}
        again = codec.parse(codec.encode(value), **kept)
        assert exact(again) == exact(value)


@with_every_codec
def test_long_errors_go_as_bulks(codec: Codec) -> None:
    error = ReplyError("E" * 70_000)
    assert codec.parse(codec.encode(error)) == error


@with_every_codec
@pytest.mark.parametrize("value", [object(), NEED_DATA, 1j, ValueError("x"), Decimal(1), range(3)])
@pytest.mark.parametrize("protocol", [2, 3])
def test_what_no_reply_can_be(codec: Codec, value: Any, protocol: int) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError) as caught:
        codec.encode(value, protocol=protocol)
    assert str(caught.value) == f"cannot encode a value of type {kind}"
    with pytest.raises(TypeError) as caught:
        codec.encode([1, {2: [3, value]}], protocol=protocol)
    assert str(caught.value) == f"cannot encode a value of type {kind} at [1][1][1]"


@with_every_codec
def test_surrogates_and_digits_that_no_reply_can_have(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"a lone surrogate, its character 1 at \[0\]$"):
        codec.encode(["a\udc80"])
    with pytest.raises(ValueError, match=r"digits.* at \[0\]$"):
        codec.encode([10**5000])


@with_every_codec
def test_a_push_is_no_element(codec: Codec) -> None:
    for value in (
        [1, Push([1])],
        {1: Push()},
        Push([Push()]),
        [Attributed(Push(), {})],
        Attributed(1, {1: Push()}),
    ):
        with pytest.raises(ValueError, match="a push stands by itself"):
            codec.encode(value)
        codec.encode(value, protocol=2)


@with_every_codec
def test_a_container_in_itself(codec: Codec) -> None:
    value: list[Any] = [1]
    value.append({1: value})
    with pytest.raises(ValueError, match=r"inside itself at \[1\]\[1\]$"):
        codec.encode(value)
    shared: list[Any] = []
    assert codec.encode([shared, shared]) == b"*2\r\n*0\r\n*0\r\n"


@with_every_codec
def test_depth_does_not_recurse(codec: Codec) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert codec.encode(value) == b"*1\r\n" * 100_000 + b"*0\r\n"
    while value:
        [value] = value


@with_every_codec
@pytest.mark.parametrize("protocol", [0, 1, 4, "3", None])
def test_there_are_two_protocols(codec: Codec, protocol: Any) -> None:
    with pytest.raises(ValueError, match=r"^protocol must be 2 or 3"):
        codec.encode(1, protocol=protocol)
