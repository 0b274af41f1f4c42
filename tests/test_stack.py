"""Redis Stack's modules: replies that only they give, maps and doubles at any depth in RESP3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers import find_stack

import client

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stack() -> Iterator[client.EmbeddedServer]:
    found = find_stack()
    if found is None:
        pytest.skip("no Redis Stack: make matrix brings it")
    with found.start() as server:
        yield server


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def db(request: pytest.FixtureRequest, stack: client.EmbeddedServer) -> Iterator[client.Client]:
    with client.connect(
        stack.url, protocol=request.param, cache=True, encoding="utf-8", timeout=30
    ) as made:
        yield made


def test_replies_of_modules_are_read_and_never_cached(db: client.Client) -> None:
    db.execute("JSON.SET", "doc", "$", '{"a": [1, 2.5, null, {"b": true}]}')
    assert db.execute("JSON.GET", "doc", "$.a[1]") == "[2.5]"
    numbers = db.execute("JSON.RESP", "doc", "$.a")
    assert "2.5" in str(numbers)
    db.execute("TS.CREATE", "ts")
    db.execute_many([("TS.ADD", "ts", 1000 + n, n / 2) for n in range(10)])
    samples = db.execute("TS.RANGE", "ts", "-", "+")
    assert len(samples) == 10
    assert float(samples[3][1]) == 1.5
    assert isinstance(samples[3][1], float if db.protocol == 3 else str)
    info = db.execute("TS.INFO", "ts")
    assert isinstance(info, dict if db.protocol == 3 else list)
    db.execute("FT.CREATE", "idx", "ON", "HASH", "PREFIX", 1, "h:", "SCHEMA", "t", "TEXT")
    db.execute("HSET", "h:1", "t", "hello world")
    found = db.execute("FT.SEARCH", "idx", "hello")
    assert "h:1" in str(found)
    assert isinstance(found, dict if db.protocol == 3 else list)
    db.execute("BF.ADD", "bloom", "x")
    assert db.execute("BF.EXISTS", "bloom", "x") in (True, 1)
    # No table says which keys they read, so none of them is kept.
    assert db.cache is not None
    assert len(db.cache) == 0


def test_reads_of_the_core_are_cached_as_everywhere(db: client.Client) -> None:
    with client.connect(f"redis://{db._options.address}") as other:
        other.execute("SET", "k", "v")
        assert db.execute("GET", "k") == "v"
        assert db.cache is not None
        assert "cached" in db.cache.explain("GET", "k")
