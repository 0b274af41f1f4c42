"""The session: one result a command, in order; pushes beside them; nonsense is the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import (
    CommandRefused,
    ProtocolError,
    Push,
    ReplyError,
    Session,
    UnexpectedReply,
    _session,
)
from client._session import redact


class Heard(Session):
    """A session that keeps its pushes."""

    __slots__ = ("pushes",)

    def __init__(self, protocol: int = 2, **options: Any) -> None:
        self.pushes: list[Push] = []
        super().__init__(on_push=self.pushes.append, **options)
        self.protocol = protocol


def test_results_come_in_the_order_of_the_commands() -> None:
    session = Heard()
    assert session.send("GET", "k") == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    assert session.send_many([("PING",), ("INCR", "n")]).count(b"*") == 2
    assert session.owed == 3
    assert session.receive(b"$1\r\nv\r\n+PO") == [b"v"]
    assert session.owed == 2
    assert session.receive(b"NG\r\n:1\r\n") == [b"PONG", 1]
    assert session.owed == 0


def test_what_a_command_does_is_known_beyond_what_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_session, "_MEMO_SIZE", 0)
    for _ in range(2):
        assert _session.role((b"nobodyKnowsThis",)) is _session.Role.PLAIN
        assert _session.role((b"mUlTi",)) is not _session.Role.PLAIN


def test_error_is_a_result() -> None:
    session = Heard()
    session.send("GET", "k")
    assert session.receive(b"-WRONGTYPE no\r\n") == [ReplyError("WRONGTYPE no")]


def test_reply_nobody_asked_for_is_an_error() -> None:
    session = Heard()
    session.send("PING")
    with pytest.raises(UnexpectedReply, match="no further reply"):
        session.receive(b"+PONG\r\n+PONG\r\n")


def test_push_is_no_reply() -> None:
    session = Heard(3)
    session.send("GET", "k")
    assert session.receive(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n") == []
    assert session.receive(b"$1\r\nv\r\n>2\r\n+x\r\n:1\r\n") == [b"v"]
    assert [push.kind for push in session.pushes] == ["invalidate", "x"]
    assert session.owed == 0


def test_push_inside_a_reply_is_no_element_of_it() -> None:
    # Redis 6.2.5 sends them in the middle of MGET's array.
    session = Heard(3)
    session.send("MGET", "a", "b")
    wire = b"*2\r\n$1\r\n1\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n$1\r\n2\r\n"
    assert session.receive(wire) == [[b"1", b"2"]]
    assert session.pushes == [Push([b"invalidate", [b"a"]])]


def test_pushes_stay_bytes_whatever_the_encoding() -> None:
    session = Heard(3, encoding="utf-8")
    session.send("GET", "k")
    wire = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n\xff\r\n$1\r\nv\r\n"
    assert session.receive(wire) == ["v"]
    assert session.pushes == [Push([b"invalidate", [b"\xff"]])]


def test_reply_that_does_not_decode_is_a_result_in_its_place() -> None:
    session = Heard(3, encoding="utf-8")
    session.send_many([("GET", "a"), ("GET", "b")])
    bad, good = session.receive(b"$1\r\n\xff\r\n$1\r\nv\r\n")
    assert isinstance(bad, UnicodeDecodeError)
    assert good == "v"


def test_nonsense_is_an_error_after_what_was_complete() -> None:
    session = Heard()
    session.send_many([("PING",), ("PING",)])
    assert session.failure is None
    assert session.receive(b"+PONG\r\n?\r\n") == [b"PONG"]
    assert isinstance(session.failure, ProtocolError)
    with pytest.raises(ProtocolError):
        session.receive(b"+PONG\r\n")


def test_subscribe_in_resp3_is_confirmed_by_pushes_and_owes_no_reply() -> None:
    session = Heard(3)
    session.send("SUBSCRIBE", "a", "b")
    session.send("PING")
    assert session.receive(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n") == []
    assert session.receive(b">3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n+PONG\r\n") == [2, b"PONG"]
    assert session.subscriptions == {"subscribe": {b"a", b"b"}}
    session.receive(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
    assert session.pushes[-1] == [b"message", b"a", b"hi"]


def test_subscribe_can_be_refused() -> None:
    session = Heard(3)
    session.send("SUBSCRIBE", "a")
    assert session.receive(b"-NOPERM no\r\n") == [ReplyError("NOPERM no")]
    assert session.subscriptions == {}


@pytest.mark.parametrize("mark", [b"*", b">"])
def test_unsubscribe_of_all_is_confirmed_once_a_channel(mark: bytes) -> None:
    session = Heard(3 if mark == b">" else 2)
    session.send("SUBSCRIBE", "a", "b")
    session.send("UNSUBSCRIBE")
    session.send("UNSUBSCRIBE")
    frames = [
        (b"subscribe", b"$1\r\na\r\n", 1),
        (b"subscribe", b"$1\r\nb\r\n", 2),
        (b"unsubscribe", b"$1\r\na\r\n", 1),
        (b"unsubscribe", b"$1\r\nb\r\n", 0),
        (b"unsubscribe", b"$-1\r\n", 0),  # none is left: one confirmation all the same
    ]
    wire = b"".join(
        mark + b"3\r\n$%d\r\n%b\r\n%b:%d\r\n" % (len(kind), kind, channel, left)
        for kind, channel, left in frames
    )
    results = []
    for byte in wire:
        results += session.receive(bytes([byte]))
    assert results == [2, 0, 0]
    assert (session.owed, session.subscriptions) == (0, {})
    assert len(session.pushes) == 5


def test_resp2_message_is_a_push_and_its_namesake_reply_is_not() -> None:
    session = Heard(2)
    session.send("LRANGE", "l", 0, -1)
    session.send("SUBSCRIBE", "c")
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n$1\r\nk\r\n"
    confirmation = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    assert session.receive(message) == [[b"message", b"c", [b"k"]]]
    assert session.receive(confirmation + message) == [1]
    session.send("PING")
    assert session.receive(message + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n") == [[b"pong", b""]]
    assert session.pushes[1:] == [[b"message", b"c", [b"k"]]] * 2


@pytest.mark.parametrize(
    ("reply", "protocol"),
    [
        (b"%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n", 3),
        (b"*4\r\n+server\r\n+redis\r\n+proto\r\n:2\r\n", 2),
        (b"-NOPROTO unsupported\r\n", 2),
    ],
)
def test_hello_changes_the_protocol_if_it_succeeds(reply: bytes, protocol: int) -> None:
    session = Heard(2)
    session.send("hello", 3)
    session.receive(reply)
    assert session.protocol == protocol


def test_reset_forgets_protocol_and_subscriptions() -> None:
    session = Heard(3)
    session.send("SUBSCRIBE", "a")
    session.receive(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
    session.send(b"Reset")
    assert session.receive(b"+RESET\r\n") == [b"RESET"]
    assert (session.protocol, session.subscriptions) == (2, {})


@pytest.mark.parametrize(
    "command",
    [("MONITOR",), (b"psync", "?", -1), ("CLIENT", "REPLY", "OFF"), (b"client", b"reply")],
)
def test_commands_that_break_the_matching_are_refused(command: tuple[Any, ...]) -> None:
    session = Heard()
    with pytest.raises(CommandRefused, match="could not be matched"):
        session.send(*command)
    with pytest.raises(CommandRefused):
        session.send_many([("PING",), command])
    assert session.owed == 0


def test_command_that_can_not_be_sent_owes_nothing() -> None:
    session = Heard()
    with pytest.raises(TypeError):
        session.send("SET", "k", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        session.send_many([("PING",), ("SET", "k", True)])
    assert session.owed == 0


def test_trace_shows_frames_and_no_credentials() -> None:
    frames: list[tuple[str, str, object]] = []
    session = Heard(2, trace=lambda *frame: frames.append(frame), name="me")
    session.send("HELLO", 3, "AUTH", "user", "hunter2", "SETNAME", "me")
    session.receive(b"%1\r\n+proto\r\n:3\r\n")
    assert frames == [
        ("me", "sent", ["HELLO", 3, "AUTH", "***", "***", "SETNAME", "me"]),
        ("me", "received", {b"proto": 3}),
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("AUTH", "hunter2"),
        ("auth", "me", "hunter2"),
        (b"HELLO", 3, b"auth", b"me", b"hunter2"),
        ("ACL", "SETUSER", "me", ">hunter2"),
        ("CONFIG", "SET", "requirepass", "hunter2"),
        ("MIGRATE", "h", 1, "", 0, 9, "AUTH", "hunter2"),
    ],
)
def test_redacted_command_shows_no_password(command: tuple[Any, ...]) -> None:
    assert "hunter2" not in repr(redact(command))
    assert len(redact(command)) == len(command)


def test_reply_is_told_from_a_confirmation_whatever_it_begins_with() -> None:
    session = Heard(2)
    session.send_many([("XRANGE", "s", "-", "+"), ("SUBSCRIBE", "c")])
    assert session.receive(b"*1\r\n*1\r\n+x\r\n") == [[[b"x"]]]


def test_undecodable_message_is_not_a_pings_reply() -> None:
    session = Heard(2, encoding="utf-8")
    session.send("SUBSCRIBE", "c")
    session.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    session.send("PING")
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n\xff\r\n"
    assert session.receive(message + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n") == [["pong", ""]]
    assert session.pushes[-1].kind == "undecodable"


def test_confirmation_nobody_asked_for_is_not_counted() -> None:
    session = Heard(3)
    for channel in (b":1500000000\r\n", b"$1\r\nx\r\n", b",1.5\r\n"):
        session.receive(b">3\r\n+subscribe\r\n" + channel + b":1\r\n")
    assert session.subscriptions == {}


def test_trace_shows_no_secret_of_a_reply() -> None:
    frames: list[Any] = []
    session = Heard(3, trace=lambda *frame: frames.append(frame))
    session.send_many([("CONFIG", "GET", "requirepass"), ("AUTH", "hunter2"), ("GET", "k")])
    session.receive(b"*2\r\n+requirepass\r\n+hunter2\r\n")
    session.receive(b"-ERR unknown command `AUTH`, with args beginning with: `hunter2`\r\n+v\r\n")
    assert "hunter2" not in repr(frames)
    assert frames[-1][2] == b"v"


@given(st.binary(max_size=60), st.integers(0, 3), st.booleans(), st.sampled_from([2, 3]))
def test_arbitrary_bytes_are_results_or_a_typed_error(
    data: bytes, commands: int, subscribe: bool, protocol: int
) -> None:
    session = Heard(protocol)
    for _ in range(commands):
        session.send("SUBSCRIBE", "c") if subscribe else session.send("PING")
    try:
        results = session.receive(data)
    except (ProtocolError, UnexpectedReply):
        return
    assert len(results) + session.owed == commands
