"""The inbox of a subscriber: what it asks for, what it keeps, and when reading should pause."""

from __future__ import annotations

from typing import Any

import pytest

from client._pubsub import Inbox, Message
from client._resp import Push


def inbox(*names: Any, **options: Any) -> Inbox:
    defaults: dict[str, Any] = {
        "channels": (),
        "patterns": (),
        "shards": (),
        "max_pending": 10,
        "overflow": "pause",
        "encoding": None,
        "errors": "strict",
    }
    return Inbox(names, **(defaults | options))


def message(number: int) -> Push:
    return Push([b"message", b"c", b"%d" % number])


def test_names_with_a_wildcard_are_patterns() -> None:
    commands = inbox("news.*", "alerts", b"a?c", "[ab]", channels=["what*"]).commands()
    assert commands == [
        ("SUBSCRIBE", b"what*", b"alerts"),
        ("PSUBSCRIBE", b"news.*", b"a?c", b"[ab]"),
    ]
    assert inbox(patterns=["p"], shards=["s", "s"]).commands() == [
        ("PSUBSCRIBE", b"p"),
        ("SSUBSCRIBE", b"s"),
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "nothing to subscribe to"),
        ({"channels": "c"}, TypeError, "not a single one"),
        ({"channels": [1]}, TypeError, "not int"),
        ({"channels": ["c"], "max_pending": 0}, ValueError, "max_pending"),
        ({"channels": ["c"], "overflow": "block"}, ValueError, "overflow"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        inbox(**options)


def test_every_kind_of_message_and_nothing_else() -> None:
    box = inbox("c")
    taken = [
        box.take(Push(parts))
        for parts in (
            [b"subscribe", b"c", 1],
            [b"message", b"c", b"a"],
            [b"pmessage", b"c*", b"c", b"b"],
            [b"smessage", b"c", b"c"],
            [b"message", b"c"],
            [b"message"],
            [b"invalidate", [b"k"]],
            [],
        )
    ]
    assert taken == [False, True, True, True, False, False, False, False]
    assert list(box.messages) == [
        Message(b"c", b"a"),
        Message(b"c", b"b", b"c*"),
        Message(b"c", b"c", sharded=True),
    ]


def test_text_and_what_is_none() -> None:
    box = inbox("c", encoding="utf-8")
    for payload in (b"\xc3\xa9", b"\xff", b"a"):
        box.take(Push([b"message", b"c", payload]))
    assert box.next() == Message("c", "é")
    with pytest.raises(UnicodeDecodeError):
        box.next()
    assert box.next() == Message("c", "a")


def test_pause_asks_once_and_goes_on_when_half_is_read() -> None:
    box = inbox("c", max_pending=4)
    asked: list[str] = []
    box.on_full = lambda: asked.append("full")
    box.on_room = lambda: asked.append("room")
    for number in range(6):  # what one read brought more
        box.take(message(number))
    assert asked == ["full"]
    assert box.paused
    assert [box.next().data for _ in range(3)] == [b"0", b"1", b"2"]
    assert asked == ["full"]
    box.next()
    assert asked == ["full", "room"]
    assert not box.paused
    assert len(box.messages) == 2
    assert box.dropped == 0


def test_drop_keeps_the_newest_and_counts() -> None:
    box = inbox("c", max_pending=3, overflow="drop")
    for number in range(10):
        box.take(message(number))
    assert [box.next().data for _ in range(3)] == [b"7", b"8", b"9"]
    assert box.dropped == 7
