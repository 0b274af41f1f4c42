"""The options: what a URL and keywords say, and what is refused before anything is sent."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import client
from client import Options

SECRET = "hunter2"

URLS: dict[str, dict[str, Any]] = {
    "redis://localhost": {"host": "localhost", "port": 6379, "db": 0, "password": None},
    "redis://example.org:7000/3": {"host": "example.org", "port": 7000, "db": 3},
    "redis://:hunter2@h": {"username": None, "password": SECRET},
    "redis://me:hunter2@h": {"username": "me", "password": SECRET},
    "redis://me:@h": {"username": "me", "password": ""},
    "redis://m%40e:p%2Fw%3A%20%25@h": {"username": "m@e", "password": "p/w: %"},
    "redis://[::1]:6380/1": {"host": "::1", "port": 6380, "db": 1},
    "rediss://h": {"ssl": True},
    "unix:///run/redis.sock": {"unix_path": "/run/redis.sock", "db": 0},
    "unix://me:hunter2@/run/r%20s?db=2": {"unix_path": "/run/r s", "db": 2, "password": SECRET},
    "redis://h?db=4&protocol=2&encoding=utf-8&client_name=me": {
        "db": 4,
        "protocol": 2,
        "encoding": "utf-8",
        "client_name": "me",
    },
    "sentinel://h1,h2:7000,[::1]:7001/mymaster": {
        "sentinels": (("h1", 26379), ("h2", 7000), ("::1", 7001)),
        "service": "mymaster",
        "db": 0,
        "ssl": None,
    },
    "sentinels://me:hunter2@h/my%2Fmaster/3?timeout=2": {
        "sentinels": (("h", 26379),),
        "service": "my/master",
        "db": 3,
        "ssl": True,
        "username": "me",
        "password": SECRET,
        "timeout": 2.0,
    },
    "sentinel://:a,hunter2@h1,h2/m": {
        "sentinels": (("h1", 26379), ("h2", 26379)),
        "password": "a,hunter2",
    },
    "redis://h?timeout=1.5&connect_timeout=2": {"timeout": 1.5, "connect_timeout": 2.0},
}


@pytest.mark.parametrize("url", URLS)
def test_url_is_read(url: str) -> None:
    options = Options.from_url(url)
    assert {name: getattr(options, name) for name in URLS[url]} == URLS[url]


BAD_URLS = {
    "http://h": "another scheme",
    "localhost:6379": "another scheme",
    "redis://me@h": "needs a password",
    "redis://h:0": "port takes 1 to 65535",
    "redis://h:65536": "can't be read",
    "redis://h:x": "can't be read",
    "redis://h/x": "must be a number",
    "redis://h/-1": "must be a number",
    "redis://h/1_0": "must be a number",
    "redis://h?nonsense=1": "may set",
    "redis://h?protocol=4": "protocol is 2, 3 or None",
    "redis://h?timeout=0": "positive",
    "redis://h?timeout=nan": "must be a number",
    "redis://[::1": "can't be read",
    "unix://": "absolute path",
    "unix://host/path": "absolute path",
    "redis://:hun/ter2@h": "percent-encoded",
    "redis://:hun?ter2@h": "percent-encoded",
    "redis://:hun#ter2@h": "percent-encoded",
    "redis://:hun:ter2@h:1:2": "can't be read",
    "redis://:hunter2%FF@h": "in UTF-8",
    "sentinel://h": "names no service",
    "sentinel://h/": "names no service",
    "sentinel://h/m/1/2": "names no service, or more",
    "sentinel://h/m/x": "must be a number",
    "sentinel://h,/m": "can't be read",
    "sentinel:///m": "can't be read",
    "sentinel://h:x/m": "can't be read",
    "sentinel://h:0/m": "port takes 1 to 65535",
    "sentinel://h:65536/m": "can't be read",
    "sentinel://me@h/m": "needs a password",
    "sentinel://:hun/ter2@h/m": "can't be read",
    "sentinel://:hun?ter2@h/m": "can't be read",
    "sentinel://:hun#ter2@h/m": "can't be read",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(ValueError, match=BAD_URLS[url]):
        Options.from_url(url)


URL_FORMS = ["redis://u:%s@h/%s", "redis://:%s@h:%s", "sentinel://:%s@h,h2%s/m", "%s%s"]


@given(st.text(max_size=8), st.sampled_from(URL_FORMS))
def test_no_url_shows_its_password_in_an_error(noise: str, form: str) -> None:
    url = form % (SECRET + noise, noise)
    try:
        shown = repr(Options.from_url(url))
    except ValueError as error:
        shown = f"{error} {error.__cause__!r} {error.__context__!r}"
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"port": "6379"}, TypeError),
        ({"host": b"h"}, TypeError),
        ({"host": ""}, ValueError),
        ({"db": True}, TypeError),
        ({"db": -1}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"protocol": 4}, ValueError),
        ({"protocol": 3.0}, ValueError),
        ({"client_name": "two words"}, ValueError),
        ({"client_name": ""}, ValueError),
        ({"username": "me"}, ValueError),
        ({"password": b"bytes"}, TypeError),
        ({"encoding": "no-such-encoding"}, LookupError),
        ({"ssl": True, "unix_path": "/s"}, ValueError),
        ({"unknown": 1}, TypeError),
        ({"finder": None}, TypeError),
        ({"replica": True}, ValueError),
        ({"replica": "yes"}, TypeError),
        ({"service": "m"}, ValueError),
        ({"sentinel_password": "x"}, ValueError),
        ({"sentinels": [("h", 1)]}, ValueError),  # of which service?
        ({"sentinels": ["h:1"], "service": "m"}, TypeError),
        ({"sentinels": [("h", "1")], "service": "m"}, TypeError),
        ({"sentinels": [("", 1)], "service": "m"}, ValueError),
        ({"sentinels": [("h", 0)], "service": "m"}, ValueError),
        ({"sentinels": [("h", 1)], "service": "m", "unix_path": "/s"}, ValueError),
        ({"sentinels": [("h", 1)], "service": "m", "sentinel_username": "u"}, ValueError),
    ],
)
def test_option_that_makes_no_sense_is_refused(
    keywords: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Options.from_url("redis://localhost", **keywords)


def test_url_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a URL is a str, not bytes"):
        Options.from_url(b"redis://h")  # type: ignore[arg-type]


def test_options_are_values() -> None:
    options = Options.from_url("redis://h:1")
    with pytest.raises(AttributeError, match="does not change"):
        options.port = 2
    with pytest.raises(AttributeError, match="does not change"):
        del options.port
    assert options == Options(host="h", port=1)
    assert hash(options) == hash(Options(host="h", port=1))
    assert options != options.replace(port=2)
    assert options != "redis://h:1"
    assert pickle.loads(pickle.dumps(options)) == options


def test_keyword_wins_over_url() -> None:
    options = Options.from_url("redis://u:p@h:1/2", db=3, password="q", protocol=None)
    assert (options.db, options.password, options.host) == (3, "q", "h")


def test_none_as_a_timeout_waits_for_ever() -> None:
    assert Options.from_url("redis://h?timeout=3", timeout=None).timeout is None


def test_tls_url_can_not_be_told_to_do_without() -> None:
    with pytest.raises(ValueError, match="ssl=False"):
        Options.from_url("rediss://h", ssl=False)


def test_sentinels_may_be_given_by_keywords() -> None:
    options = Options(sentinels=(("h", 1),), service="m", replica=True)
    assert options.address == "a replica of 'm'"
    assert options.replace(replica=False).address == "the primary of 'm'"


def test_options_do_not_show_the_password() -> None:
    sentinels = Options.from_url("sentinel://h/m", sentinel_password=SECRET)
    assert SECRET not in repr(sentinels)
    assert SECRET not in repr(Options.from_url(f"redis://me:{SECRET}@h"))


def test_nothing_is_sent_for_a_bad_combination() -> None:
    # Port 1 refuses connections: the error is about the options, so none was tried.
    with pytest.raises(ValueError, match="RESP3"):
        client.connect(
            "redis://127.0.0.1:1", protocol=2, tracking=client.Tracking(listener="inline")
        )
    with pytest.raises(ValueError, match="one connection"):
        client.connect(
            "redis://127.0.0.1:1", tracking=client.Tracking(listener="inline"), max_connections=2
        )
    with pytest.raises(ValueError, match="cache=False"):
        client.connect("redis://127.0.0.1:1", tracking=client.Tracking(), cache=False)
    with pytest.raises(TypeError, match="cache takes a Cache, a bool or None, not str"):
        client.connect("redis://127.0.0.1:1", cache="yes")  # type: ignore[arg-type]
