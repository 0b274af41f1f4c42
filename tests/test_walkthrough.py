"""The walk-through runs on every server, cleans up after itself, and can fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer
    from servers import Wire

PROGRAM = Path(__file__).parent.parent / "examples" / "walkthrough.py"
ACTS = 8


def walk(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_walkthrough_starts_its_own_server_and_sees_all_acts() -> None:
    result = walk()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "NOT SEEN" not in result.stdout
    for number in range(1, ACTS + 1):
        assert f"\n{number}. " in result.stdout
    assert "INFO commandstats counts one HGETALL" in result.stdout
    assert "AUTH *** ***" in result.stdout


def test_walkthrough_on_a_server_of_ones_own_leaves_its_keys_alone(
    private_server: StartServer, wire: Callable[[Any], Wire]
) -> None:
    server = private_server(password="hunter2")
    other = wire(server)
    other("SET", "cat_one:key_one", "mine")
    result = walk("--url", server.url)
    assert result.returncode == 0, result.stdout + result.stderr
    assert other("KEYS", "*") == [b"cat_one:key_one"]
    assert other("GET", "cat_one:key_one") == b"mine"
    assert "hunter2" not in result.stdout + result.stderr


def test_walkthrough_fails_if_an_act_is_not_seen(
    any_server: client.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("walkthrough", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # As if announcements were read wrongly.
    monkeypatch.setattr(client, "announced_keys", lambda push: (b"another",))
    monkeypatch.setattr(sys, "argv", ["walkthrough", "--url", any_server.url])
    assert module.main() == 1
