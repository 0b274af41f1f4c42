"""What Python had no word for: pushes, verbatim strings, attributed values, errors, NEED_DATA."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from resp import (
    NEED_DATA,
    Attributed,
    ProtocolError,
    Push,
    ReplyError,
    RespError,
    Verbatim,
)

COPIES = [
    *(
        lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(6)
    ),
    copy.copy,
    copy.deepcopy,
]
with_every_copy = pytest.mark.parametrize("copied", COPIES)


# Errors


def test_errors_are_one_tree() -> None:
    assert issubclass(RespError, Exception)
    assert issubclass(ProtocolError, RespError)
    assert issubclass(ReplyError, RespError)
    assert not issubclass(ProtocolError, ReplyError)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("WRONGTYPE Operation against a key", "WRONGTYPE", "Operation against a key"),
        ("ERR  two spaces", "ERR", " two spaces"),
        ("LOADING", "LOADING", ""),
        ("LOADING ", "LOADING", ""),
        ("", "", ""),
    ],
)
def test_a_reply_error_is_its_code_and_its_message(text: str, code: str, message: str) -> None:
    error = ReplyError(text)
    assert (error.code, error.message, str(error)) == (code, message, text)
    assert repr(error) == f"ReplyError({text!r})"


def test_reply_errors_are_equal_by_class_and_text() -> None:
    class NoAuthError(ReplyError):
        pass

    assert ReplyError("NOAUTH x") == ReplyError("NOAUTH x")
    assert ReplyError("NOAUTH x") != ReplyError("NOAUTH y")
    assert ReplyError("NOAUTH x") != NoAuthError("NOAUTH x")
    assert ReplyError("NOAUTH x") != "NOAUTH x"
    assert len({ReplyError("a"), ReplyError("a"), NoAuthError("a")}) == 2


@with_every_copy
def test_errors_are_copied_whole(copied: Any) -> None:
    error = copied(ReplyError("ERR no"))
    assert (type(error), error) == (ReplyError, ReplyError("ERR no"))
    error = copied(ProtocolError("expected x", 7))
    assert (type(error), str(error), error.offset) == (ProtocolError, "expected x", 7)


# Pushes


@pytest.mark.parametrize(
    ("elements", "kind"),
    [
        ([b"invalidate", [b"key"]], "invalidate"),
        (["message", "channel", "text"], "message"),
        ([Verbatim(b"message")], "message"),
        ([b"\xff"], "\\xff"),
        ([1], ""),
        ([None], ""),
        ([[b"message"]], ""),
        ([], ""),
    ],
)
def test_a_push_is_of_a_kind(elements: list[Any], kind: str) -> None:
    push = Push(elements)
    assert push.kind == kind
    assert push == elements
    assert isinstance(push, list)
    assert repr(push) == f"Push({elements!r})"


@with_every_copy
def test_a_push_is_copied_as_one(copied: Any) -> None:
    push = copied(Push([b"message", 1]))
    assert type(push) is Push
    assert push == [b"message", 1]


# Verbatim strings


@pytest.mark.parametrize("text", [b"Some string", "Some string", b"", ""])
def test_a_verbatim_string_is_its_text(text: str | bytes) -> None:
    verbatim: Any = Verbatim(text, "mkd")
    assert isinstance(verbatim, Verbatim)
    assert isinstance(verbatim, type(text))
    assert verbatim == text
    assert text == verbatim
    assert hash(verbatim) == hash(text)
    assert {text: 1}[verbatim] == 1
    assert verbatim.format == "mkd"
    assert repr(verbatim) == f"Verbatim({text!r}, format='mkd')"
    assert type(verbatim[:]) is type(text)


def test_a_verbatim_string_is_plain_text_unless_said() -> None:
    assert Verbatim(b"").format == "txt"


@pytest.mark.parametrize("name", ["", "tx", "text", "tx\u0142"])
def test_a_format_is_three_bytes(name: str) -> None:
    with pytest.raises(ValueError, match="format of three bytes"):
        Verbatim(b"text", name)


@pytest.mark.parametrize("text", [None, 5, ["a"]])
def test_verbatim_strings_are_of_text(text: Any) -> None:
    with pytest.raises(TypeError):
        Verbatim(text)


@with_every_copy
@pytest.mark.parametrize("text", [b"abc", "abc"])
def test_a_verbatim_string_keeps_its_format_when_copied(copied: Any, text: str | bytes) -> None:
    before = Verbatim(text, "mkd")
    after = copied(before)
    assert (type(after), after, after.format) == (type(before), text, "mkd")


# Attributed values


def test_an_attributed_value_comes_apart() -> None:
    attributed = Attributed([1], {b"ttl": 5})
    value, attributes = attributed
    assert (value, attributes) == ([1], {b"ttl": 5})
    assert (attributed.value, attributed.attributes) == ([1], {b"ttl": 5})
    match attributed:
        case Attributed([1], {b"ttl": ttl}):
            assert ttl == 5
        case _:
            pytest.fail("no match")
    assert repr(attributed) == "Attributed([1], {b'ttl': 5})"


def test_attributed_values_are_equal_by_both_sides_and_to_nothing_else() -> None:
    assert Attributed(1, {}) == Attributed(1, {})
    assert Attributed(1, {}) != Attributed(2, {})
    assert Attributed(1, {}) != Attributed(1, {1: 1})
    assert Attributed(1, {}) != (1, {})
    assert Attributed(1, {}) != 1


def test_an_attributed_value_is_a_key_where_both_sides_are() -> None:
    assert {Attributed(1, ()): 5}[Attributed(1, ())] == 5
    assert len({Attributed(1, ()), (1, ())}) == 2
    with pytest.raises(TypeError):
        hash(Attributed(1, {}))


@with_every_copy
def test_an_attributed_value_is_copied_whole(copied: Any) -> None:
    assert copied(Attributed([1], {2: [3]})) == Attributed([1], {2: [3]})


# NEED_DATA


@with_every_copy
def test_there_is_one_need_data(copied: Any) -> None:
    assert copied(NEED_DATA) is NEED_DATA
    assert repr(NEED_DATA) == "NEED_DATA"
    assert NEED_DATA is not None
