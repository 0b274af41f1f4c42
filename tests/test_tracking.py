"""CLIENT TRACKING's options: what they say on the wire, and what is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import Tracking, announced_keys
from resp import Push

COMMANDS: list[tuple[dict[str, Any], bytes]] = [
    ({}, b"CLIENT TRACKING ON"),
    ({"optin": True}, b"CLIENT TRACKING ON OPTIN"),
    ({"optout": True, "noloop": True}, b"CLIENT TRACKING ON OPTOUT NOLOOP"),
    ({"bcast": True}, b"CLIENT TRACKING ON BCAST"),
    (
        {"bcast": True, "prefixes": ["a:", b"b:"], "noloop": True},
        b"CLIENT TRACKING ON PREFIX a: PREFIX b: BCAST NOLOOP",
    ),
]


@pytest.mark.parametrize(("options", "words"), COMMANDS)
def test_options_on_the_wire(options: dict[str, Any], words: bytes) -> None:
    assert Tracking(**options).command() == tuple(words.split())


def test_redirect_on_the_wire() -> None:
    assert Tracking().command(7) == (b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", 7)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prefixes": ["a"]}, "PREFIX only with BCAST"),
        ({"bcast": True, "optin": True}, "bcast excludes optin"),
        ({"bcast": True, "optout": True}, "bcast excludes optin and optout"),
        ({"optin": True, "optout": True}, "exclude each other"),
        ({"bcast": True, "prefixes": ["a", "b", "ab"]}, "overlap: b'a' and b'ab'"),
        ({"bcast": True, "prefixes": ["a", "a"]}, "overlap"),
        ({"bcast": True, "prefixes": ["", "a"]}, "overlap"),
        ({"listener": "both"}, 'listener is "inline"'),
    ],
)
def test_rule_04_what_the_server_refuses_is_refused_here(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Tracking(**options)


@pytest.mark.parametrize("options", [{"bcast": 1}, {"prefixes": "a"}, {"prefixes": [1]}])
def test_wrong_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Tracking(**options)


def test_rule_02_inline_in_resp2_is_refused_because_the_server_would_be_mute() -> None:
    with pytest.raises(ValueError, match="never sends"):
        Tracking(listener="inline").check_protocol(2)
    Tracking(listener="inline").check_protocol(3)
    Tracking(listener="dedicated").check_protocol(2)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=5))
def test_rule_05_prefixes_are_refused_exactly_if_two_overlap(prefixes: list[bytes]) -> None:
    overlap = any(
        one.startswith(other)
        for i, one in enumerate(prefixes)
        for j, other in enumerate(prefixes)
        if i != j
    )
    try:
        Tracking(bcast=True, prefixes=prefixes)
    except ValueError:
        assert overlap
    else:
        assert not overlap


def test_prefixes_cover_only_what_lies_under_them() -> None:
    tracking = Tracking(bcast=True, prefixes=["a:", "b:"])
    assert tracking.covers([b"a:1", b"b:2"])
    assert not tracking.covers([b"a:1", b"c:2"])
    assert Tracking(bcast=True).covers([b"anything"])


@pytest.mark.parametrize(
    ("push", "keys"),
    [
        ([b"invalidate", [b"k"]], (b"k",)),
        ([b"invalidate", [b"\xff", b"k"]], (b"\xff", b"k")),
        ([b"invalidate", []], ()),
        ([b"invalidate", None], None),
        ([b"message", b"__redis__:invalidate", [b"k"]], (b"k",)),
        ([b"message", b"__redis__:invalidate", None], None),
        # What can't be read is a flush.
        ([b"invalidate"], None),
        ([b"invalidate", 3], None),
        ([b"invalidate", b"k"], None),
        ([b"invalidate", [b"k", 3]], None),
    ],
)
def test_rule_29_announcement_names_keys_or_all(
    push: list[Any], keys: tuple[bytes, ...] | None
) -> None:
    assert announced_keys(Push(push)) == keys
