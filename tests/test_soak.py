"""The soak in its short form, and what it has to notice; `make soak MINUTES=10` is the long one.

A soak that finds nothing has shown nothing until it was seen to find something: so bugs are
planted, one of each kind that it looks for.
"""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from servers import Binary
from soak import _soak
from soak._judge import Judge, Wrong, text_of
from soak._soak import Figures, check_memory, soak

import client

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = float(os.environ.get("SOAK_SECONDS", "2"))


@pytest.fixture
def first(any_server: client.EmbeddedServer) -> Binary:
    return Binary(any_server.name, any_server.binary, any_server.version)


@pytest.mark.timeout(3 * SECONDS + 300)
def test_nothing_is_wrong_whatever_happens(first: Binary) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    for figures in soak([first], SECONDS, seed):
        assert all(figures)


def test_unheard_announcement_is_found(first: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    invalidate = client.Cache.invalidate

    def deaf(cache: client.Cache, keys: Iterable[bytes] | None, reason: str = "changed") -> None:
        if keys is None or reason != "changed":
            invalidate(cache, keys, reason)

    monkeypatch.setattr(client.Cache, "invalidate", deaf)
    with pytest.raises(Wrong, match=r"before it was asked for|never was|holds|reads"):
        soak([first], 20, seed=1)


def test_anothers_reply_is_found(first: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    execute_many = client.Client.execute_many

    def swapped(db: client.Client, commands: Any) -> list[Any]:
        return execute_many(db, commands)[::-1]

    monkeypatch.setattr(client.Client, "execute_many", swapped)
    with pytest.raises(Wrong, match="asked for"):
        soak([first], 20, seed=1)


def test_descriptor_left_open_is_found(first: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    close = client.Client.close

    def forgetful(db: client.Client) -> None:
        left.append(os.pipe())
        close(db)

    monkeypatch.setattr(client.Client, "close", forgetful)
    monkeypatch.setattr(_soak, "LEAVES", 0.2)
    try:
        with pytest.raises(Wrong, match="left over"):
            soak([first], 0.1, seed=1)
    finally:
        for ends in left:
            for end in ends:
                os.close(end)


def test_growing_memory_is_found() -> None:
    flat = [Figures(50_000 + 100 * (number % 3), 200_000, 20, 10, 50) for number in range(12)]
    check_memory(flat)
    with pytest.raises(Wrong, match="rss"):
        check_memory([each._replace(rss=50_000 + 5_000 * n) for n, each in enumerate(flat)])
    with pytest.raises(Wrong, match="blocks"):
        check_memory([each._replace(blocks=200_000 + 5_000 * n) for n, each in enumerate(flat)])


def test_judge_knows_what_a_key_may_have_held() -> None:
    judge, now = Judge(), threading.TIMEOUT_MAX  # asked for at the end of time: all is over
    judge.check("k", None, now, 0)  # nobody has written it
    first, second = text_of("k", 1), text_of("k", 2)
    writing = judge.begin("k", first)
    judge.check("k", None, now, 0)  # it may not have come yet
    judge.check("k", first, now, 0)
    judge.done("k", writing)
    judge.check("k", first, now, 0)
    with pytest.raises(Wrong, match="before it was asked for"):
        judge.check("k", None, now, 0)
    judge.check("k", None, writing.acknowledged + 1, 2)  # but a hit may be so old
    with pytest.raises(Wrong, match="before it was asked for"):
        judge.check("k", None, writing.acknowledged + 1, 0.5)
    with pytest.raises(Wrong, match="never was"):
        judge.check("k", second, now, 0)
    with pytest.raises(Wrong, match="asked for k"):
        judge.check("k", text_of("other", 1), now, 0)


def test_judge_lets_what_is_written_during_a_flush_stay_or_go() -> None:
    judge, now = Judge(), threading.TIMEOUT_MAX
    old, new = text_of("k", 1), text_of("k", 2)
    judge.done("k", judge.begin("k", old))
    with judge.loss(total=True):
        judge.check("k", old, now, 0)
        judge.check("k", None, now, 0)
        judge.done("k", judge.begin("k", new))
    judge.check("k", new, now, 0)
    judge.check("k", None, now, 0)
    with pytest.raises(Wrong):
        judge.check("k", old, now, 0)
    judge.done("k", judge.begin("k", new))
    with pytest.raises(Wrong):
        judge.check("k", None, now, 0)
