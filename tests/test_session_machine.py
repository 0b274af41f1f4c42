"""The session as a state machine: commands and bytes in any order, each reply to its command.

The other side is a server of a few lines that answers in order and pushes when it likes. What it
said is cut anywhere. What the machine asks: results are the replies, in order, and nothing else;
pushes are all heard, in order; what is owed is always known.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import resp
from client import UnexpectedReply
from client._session import Session
from resp import Push

VALUES = st.one_of(
    st.binary(max_size=8),
    st.integers(-5, 5),
    st.none(),
    st.lists(st.binary(max_size=3), max_size=3),
    # What looks like a message, and is none.
    st.just([b"message", b"news", b"x"]),
    st.just([b"subscribe", b"news", 1]),
    st.just([b"invalidate", [b"k"]]),
)
CHANNELS = st.sampled_from([b"news", b"alerts", b"\xff"])


class SessionMachine(RuleBasedStateMachine):
    """A connection in RESP3 or RESP2, plain or subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()

    @precondition(lambda self: self.dead)
    @rule()
    def connect(self) -> None:
        self.heard: list[Any] = []
        self.talk = Session(on_push=lambda push: self.heard.append(("push", list(push))))
        self.expected: list[Any] = []
        self.wire = b""
        self.sent = 0
        self.answered = 0
        self.protocol = 2
        self.channels: list[bytes] = []
        self.dead = False

    alive = precondition(lambda self: not self.dead)

    def write(self, value: Any) -> None:
        self.wire += resp.encode(value, protocol=self.protocol)

    @alive
    @rule(value=VALUES, error=st.booleans())
    def ask(self, value: Any, error: bool) -> None:
        if self.protocol == 2 and self.channels:
            value = b"PONG" if not error else value
            if isinstance(value, list):
                value = b"PONG"  # a subscriber of RESP2 gets no arrays but messages
        self.talk.send("GET", "k")
        self.sent += 1
        self.write(resp.ReplyError("ERR no") if error else value)
        self.expected.append(("reply", resp.ReplyError("ERR no") if error else value))

    @alive
    @rule(version=st.sampled_from([2, 3]))
    def hello(self, version: int) -> None:
        if self.channels and self.protocol == 2:
            return
        self.talk.send("HELLO", version)
        self.sent += 1
        self.protocol = version
        reply = {b"proto": version, b"id": 7}
        self.write(reply)
        flat = [part for pair in reply.items() for part in pair]
        self.expected.append(("reply", reply if version == 3 else flat))
        self.arrive_all()  # the protocol changes when the answer is read

    @alive
    @rule(channels=st.lists(CHANNELS, min_size=1, max_size=3))
    def subscribe(self, channels: list[bytes]) -> None:
        self.talk.send("SUBSCRIBE", *channels)
        self.sent += 1
        for channel in channels:
            if channel not in self.channels:
                self.channels.append(channel)
            self._confirm(b"subscribe", channel)
        self.expected.append(("reply", len(self.channels)))
        self.arrive_all()

    @alive
    @rule()
    def unsubscribe_all(self) -> None:
        self.talk.send("UNSUBSCRIBE")
        self.sent += 1
        leaving, self.channels = self.channels, []
        for number, channel in enumerate(leaving):
            self._confirm(b"unsubscribe", channel, len(leaving) - number - 1)
        if not leaving:
            self._confirm(b"unsubscribe", None, 0)
        self.expected.append(("reply", 0))
        self.arrive_all()

    def _confirm(self, kind: bytes, channel: bytes | None, count: int | None = None) -> None:
        frame = [kind, channel, len(self.channels) if count is None else count]
        self.write(Push(frame) if self.protocol == 3 else frame)
        self.expected.append(("push", frame))

    @alive
    @rule(channel=CHANNELS, data=st.binary(max_size=5))
    def publish(self, channel: bytes, data: bytes) -> None:
        if channel in self.channels:
            frame = [b"message", channel, data]
            self.write(Push(frame) if self.protocol == 3 else frame)
            self.expected.append(("push", frame))

    @alive
    @rule(keys=st.none() | st.lists(st.binary(max_size=3), max_size=2))
    def invalidate(self, keys: list[bytes] | None) -> None:
        if self.protocol == 3:
            self.write(Push([b"invalidate", keys]))
            self.expected.append(("push", [b"invalidate", keys]))

    @alive
    @rule(size=st.integers(1, 30))
    def arrive(self, size: int) -> None:
        data, self.wire = self.wire[:size], self.wire[size:]
        self._take(data)

    def arrive_all(self) -> None:
        while self.wire:
            self.arrive(7)

    def _take(self, data: bytes) -> None:
        # The results of one piece are given after its pushes, so each order is judged by itself.
        results = self.talk.receive(data)
        self.answered += len(results)
        self.heard += [("reply", result) for result in results]

    @alive
    @rule()
    def surplus(self) -> None:
        self.arrive_all()
        if self.protocol == 2 and self.channels:
            return
        with pytest.raises(UnexpectedReply):
            self.talk.receive(b"+surplus\r\n")
        self.dead = True

    @invariant()
    def owed_is_known(self) -> None:
        if not self.dead:
            assert self.talk.owed == self.sent - self.answered

    @invariant()
    def each_reply_is_its_commands(self) -> None:
        for kind in ("reply", "push"):
            heard = [what for which, what in self.heard if which == kind]
            expected = [what for which, what in self.expected if which == kind]
            assert [_plain(what) for what in heard] == [
                _plain(what) for what in expected[: len(heard)]
            ]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, resp.ReplyError) else value


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
