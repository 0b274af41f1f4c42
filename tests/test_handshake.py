"""The handshake as a conversation: what is asked, and what each answer leads to."""

from __future__ import annotations

from typing import Any

import pytest

from client import (
    Greeting,
    HandshakeError,
    NoAuthError,
    Options,
    ReplyError,
    Tracking,
    TrackingRefused,
    WrongPassError,
    handshake,
    listen,
    track,
)

HELLO = {b"server": b"valkey", b"version": b"8.1.1", b"proto": 3, b"id": 7, b"modules": []}
INFO = b"# Server\r\nrun_id:abc\r\n"
UNKNOWN = ReplyError("ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, ")
NOPERM = ReplyError("NOPERM this user has no permissions to run the 'hello' command")


def play(conversation: Any, *replies: list[Any]) -> tuple[list[Any], Any]:
    """Answer a conversation's batches and give what it asked and what it came to."""
    asked = [next(conversation)]
    for number, reply in enumerate(replies, 1):
        try:
            asked.append(conversation.send(reply))
        except StopIteration as end:
            assert number == len(replies)
            return asked, end.value
    raise AssertionError(f"asked for more: {asked[-1]}")


def options(**keywords: Any) -> Options:
    return Options.from_url("redis://localhost", **keywords)


def test_hello_carries_credentials_and_name_in_one_round_trip() -> None:
    asked, greeting = play(
        handshake(options(username="me", password="pw", client_name="app")), [HELLO]
    )
    assert asked == [[("HELLO", 3, "AUTH", "me", "pw", "SETNAME", "app")]]
    assert greeting == Greeting(
        3, 7, {"server": "valkey", "version": "8.1.1", "proto": 3, "id": 7, "modules": []}
    )


def test_password_alone_is_the_default_users() -> None:
    asked, _ = play(handshake(options(password="pw")), [HELLO])
    assert asked == [[("HELLO", 3, "AUTH", "default", "pw")]]


def test_resp2_asked_for_is_asked_of_hello() -> None:
    answer = [b"server", b"redis", b"proto", 2, b"id", 9]
    asked, greeting = play(handshake(options(protocol=2)), [answer])
    assert asked == [[("HELLO", 2)]]
    assert (greeting.protocol, greeting.id) == (2, 9)


@pytest.mark.parametrize("refusal", [UNKNOWN, NOPERM, ReplyError("NOPROTO sorry this protocol")])
def test_without_hello_the_classic_commands_do(refusal: ReplyError) -> None:
    asked, greeting = play(
        handshake(options(username="me", password="pw", client_name="app", db=2)),
        [refusal],
        [b"OK", b"OK", 5],
        [b"OK"],
    )
    assert asked[1:] == [
        [("AUTH", "me", "pw"), ("CLIENT", "SETNAME", "app"), ("CLIENT", "ID")],
        [("SELECT", 2)],
    ]
    assert greeting == Greeting(2, 5, {"proto": 2})


def test_classic_password_has_no_user() -> None:
    asked, _ = play(handshake(options(password="pw")), [UNKNOWN], [b"OK", 5])
    assert asked[1] == [("AUTH", "pw"), ("CLIENT", "ID")]


def test_id_is_none_where_the_server_would_not_tell() -> None:
    _, greeting = play(handshake(options()), [UNKNOWN], [ReplyError("ERR unknown command")])
    assert greeting.id is None


def fails(error: type[Exception], conversation: Any, *replies: list[Any]) -> str:
    with pytest.raises(error) as caught:
        play(conversation, *replies)
    return str(caught.value)


def test_missing_and_wrong_passwords_have_their_own_errors() -> None:
    noauth = ReplyError("NOAUTH HELLO must be called with the client already authenticated")
    wrongpass = ReplyError("WRONGPASS invalid username-password pair or user is disabled.")
    fails(NoAuthError, handshake(options()), [noauth])
    fails(WrongPassError, handshake(options(password="x")), [wrongpass])
    fails(NoAuthError, handshake(options()), [UNKNOWN], [ReplyError("NOAUTH required")])
    fails(WrongPassError, handshake(options(password="x")), [UNKNOWN], [wrongpass, 1])
    # Redis 5.
    fails(
        WrongPassError,
        handshake(options(password="x")),
        [UNKNOWN],
        [ReplyError("ERR invalid password"), ReplyError("NOAUTH required")],
    )


def test_auth_errors_are_replies_too() -> None:
    with pytest.raises(ReplyError) as caught:
        play(handshake(options()), [ReplyError("NOAUTH Authentication required.")])
    assert caught.value.code == "NOAUTH"
    assert isinstance(caught.value, HandshakeError)


def test_resp3_insisted_on_is_not_given_up() -> None:
    assert "protocol=3" in fails(HandshakeError, handshake(options(protocol=3)), [UNKNOWN])


@pytest.mark.parametrize("code", ["LOADING", "BUSY", "MASTERDOWN"])
def test_server_that_is_not_ready_is_not_asked_again(code: str) -> None:
    text = fails(HandshakeError, handshake(options()), [ReplyError(f"{code} not now")])
    assert text == f"the server refuses HELLO: {code} not now"


def test_database_out_of_range_is_an_error() -> None:
    text = fails(
        HandshakeError,
        handshake(options(db=99)),
        [HELLO],
        [ReplyError("ERR DB index is out of range")],
    )
    assert text == "the server refuses SELECT: ERR DB index is out of range"


@pytest.mark.parametrize(
    "nonsense",
    [
        [b"OK"],
        [None],
        [{b"proto": 3}],
        [{b"proto": 9, b"id": 1}],
        [{b"proto": 3.0, b"id": 1}],
        [{b"proto": 3, b"id": True}],
        [[[b"list"], b"as key"]],
    ],
)
def test_hello_answered_with_nonsense_is_an_error(nonsense: list[Any]) -> None:
    fails(HandshakeError, handshake(options()), nonsense)


def test_resp2_in_answer_to_a_demand_for_resp3_is_an_error() -> None:
    fails(HandshakeError, handshake(options(protocol=3)), [{b"proto": 2, b"id": 1}])


@pytest.mark.parametrize("nonsense", [[1], True, b"OK", None])
def test_client_id_is_a_number(nonsense: Any) -> None:
    fails(HandshakeError, handshake(options()), [UNKNOWN], [nonsense])


def test_no_error_shows_the_password_that_the_server_quotes() -> None:
    secret = "correct-horse-battery-staple-" * 5
    # Redis 6.2 quotes the arguments it does not understand, cut at 128 bytes.
    quoting = ReplyError(
        f"ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `{secret[:90]}"
    )
    text = fails(HandshakeError, handshake(options(password=secret, protocol=3)), [quoting])
    assert "correct" not in text
    echo = ReplyError(f"ERR bad {secret}")
    text = fails(HandshakeError, handshake(options(password=secret)), [UNKNOWN], [echo, 1])
    assert "correct" not in text
    assert "***" in text


def test_tracking_refused_says_so() -> None:
    assert play(track(Tracking(optin=True)), [b"OK"])[0] == [
        [(b"CLIENT", b"TRACKING", b"ON", b"OPTIN")]
    ]
    refusal = ReplyError("NOPERM User has no permissions to run the 'client|tracking' command")
    assert "NOPERM" in fails(TrackingRefused, track(Tracking()), [refusal])


def test_listener_in_resp3_has_nothing_to_subscribe() -> None:
    asked, server = play(listen(Tracking(), Greeting(3, 7, {})), [INFO])
    assert asked == [[(b"INFO", b"server")]]
    assert server == b"abc"


def test_server_that_does_not_tell_who_it_is_has_no_name() -> None:
    refusal = ReplyError("NOPERM no")
    assert play(listen(Tracking(), Greeting(3, 7, {})), [refusal])[1] is None
    assert play(track(Tracking(), 7), [b"OK", INFO.decode()])[1] == b"abc"


def test_listener_in_resp2_subscribes() -> None:
    asked, _ = play(listen(Tracking(), Greeting(2, 7, {})), [INFO], [1])
    assert asked[1:] == [[("SUBSCRIBE", b"__redis__:invalidate")]]


def test_broadcasting_listener_in_resp2_redirects_to_itself_before_it_subscribes() -> None:
    tracking = Tracking(bcast=True, prefixes=["a:"])
    asked, _ = play(listen(tracking, Greeting(2, 7, {})), [INFO], [b"OK", INFO], [1])
    assert asked[1:] == [
        [
            (b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", 7, b"PREFIX", b"a:", b"BCAST"),
            (b"INFO", b"server"),
        ],
        [("SUBSCRIBE", b"__redis__:invalidate")],
    ]


def test_listener_without_an_id_can_not_be_redirected_to() -> None:
    with pytest.raises(TrackingRefused, match="CLIENT ID"):
        next(listen(Tracking(), Greeting(2, None, {})))
