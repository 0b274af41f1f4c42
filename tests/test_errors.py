"""The server's errors as classes: one for each code, equal by what they say, and picklable."""

from __future__ import annotations

import copy
import pickle

import pytest

import client
from client import ReplyError
from client._reply_errors import BY_CODE, class_errors, classed


@pytest.mark.parametrize("code", BY_CODE)
def test_code_has_a_class_that_is_exported(code: str) -> None:
    error = classed(ReplyError(f"{code} what the server says"))
    kind = BY_CODE[code]
    assert type(error) is kind
    assert getattr(client, kind.__name__) is kind
    assert kind.__name__ in client.__all__
    assert (error.code, error.message) == (code, "what the server says")
    assert isinstance(error, ReplyError)
    assert kind.__doc__
    assert code in kind.__doc__


@pytest.mark.parametrize("code", [*BY_CODE, "ERR", "NEWCODE"])
def test_error_survives_pickling_and_copying(code: str) -> None:
    error = classed(ReplyError(f"{code} text with 'quotes' and ünïcode"))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), again.code, again.message) == (str(error), code, error.message)
        assert again == error
        assert hash(again) == hash(error)


def test_errors_are_equal_if_they_say_the_same() -> None:
    assert classed(ReplyError("MOVED 1 h:2")) == classed(ReplyError("MOVED 1 h:2"))
    assert classed(ReplyError("MOVED 1 h:2")) != classed(ReplyError("MOVED 1 h:3"))


def test_unknown_code_stays_a_reply_error() -> None:
    for text in ("ERR unknown", "NEWCODE x", "", "lower case"):
        error = ReplyError(text)
        assert classed(error) is error


def test_what_is_no_error_or_classed_already_stays_as_it_is() -> None:
    moved = classed(ReplyError("MOVED 1 h:2"))
    assert classed(moved) is moved
    for value in (b"MOVED 1 h:2", None, 7, [ReplyError("MOVED 1 h:2")]):
        assert classed(value) is value


def test_errors_of_a_pipeline_are_classed_in_place() -> None:
    replies = [b"OK", ReplyError("WRONGTYPE no"), None]
    assert class_errors(replies) is replies
    assert type(replies[1]) is client.WrongTypeError


def test_errors_of_the_client_say_what_builtin_they_are() -> None:
    kind: type[Exception]
    for kind, builtin in [
        (client.ConnectionClosed, ConnectionError),
        (client.ConnectError, ConnectionError),
        (client.ConnectTimeout, TimeoutError),
        (client.CommandTimeout, TimeoutError),
        (client.PoolTimeout, TimeoutError),
        (client.CommandRefused, ValueError),
    ]:
        assert issubclass(kind, builtin)
        assert issubclass(kind, client.ClientError)
    for kind in (client.NoAuthError, client.WrongPassError):
        assert issubclass(kind, client.HandshakeError)
        assert issubclass(kind, ReplyError)


@pytest.mark.parametrize(
    "error",
    [
        client.ConnectError("can't connect"),
        client.CommandTimeout("no reply"),
        client.PoolTimeout("all were busy"),
        client.NoAuthError("NOAUTH who are you"),
        client.HandshakeError("refused"),
    ],
)
def test_errors_of_the_client_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
