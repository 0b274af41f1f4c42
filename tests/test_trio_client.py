"""The example for Trio runs as it is, and stays as short as the README says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Wire

EXAMPLE = Path(__file__).parent.parent / "examples" / "trio_client.py"


def load() -> Any:
    spec = spec_from_file_location("trio_client", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs(any_server: client.EmbeddedServer) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, any_server.host, str(any_server.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    assert result.stdout == "total: 45\n"


def test_tasks_share_it_leave_it_and_hear_what_is_pushed(
    any_server: client.EmbeddedServer,
    wire: Callable[..., Wire],
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = load()
    replies: dict[int, Any] = {}

    async def echo(db: Any, number: int) -> None:
        with trio.move_on_after(0 if number % 3 == 0 else 60):
            replies[number] = await db.execute("ECHO", number)

    async def main() -> None:
        async with module.connect(any_server.host, any_server.port) as db:
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(echo, db, number)
            assert replies == {n: b"%d" % n for n in range(300) if n % 3}
            with pytest.raises(client.ReplyError, match="wrong number"):
                await db.execute("GET")
            await db.execute("CLIENT", "TRACKING", "ON")
            await db.execute("GET", "k")
            wire(any_server)("SET", "k", "v")
            with trio.fail_after(10):
                while "invalidate" not in capsys.readouterr().out:
                    await db.execute("PING")

    trio.run(main)


def test_tasks_are_told_of_a_lost_connection(
    any_server: client.EmbeddedServer, wire: Callable[..., Wire]
) -> None:
    async def main() -> None:
        async with load().connect(any_server.host, any_server.port) as db:
            number = await db.execute("CLIENT", "ID")
            wire(any_server)("CLIENT", "KILL", "ID", str(number))
            await db.execute("BLPOP", "nothing", 0)

    with pytest.raises(BaseExceptionGroup) as lost:
        trio.run(main)
    assert lost.value.subgroup((client.ConnectionClosed, trio.BrokenResourceError)) is not None


def test_it_is_sixty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
