"""Fixtures: every server that was found, a private one to mistreat, and somebody else to talk.

A shared server starts when the first test asks for it and is emptied before each test. Where no
server is found, the tests that need one fail: a suite that skipped them would have shown nothing.
The tests that ask for none, such as the codec's, load nothing of package `client`.
"""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack, closing
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest
from readers import OPTIN, SETUPS, Reader
from servers import Binary, Wire, find_servers, find_stack, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from client._embedded import EmbeddedServer

# Machines are noisy, so no example has a deadline. In CI the same examples run every time.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@cache
def _binaries() -> list[Binary | None]:
    # With no server, one parameter that fails: for an empty list pytest would skip.
    return [*find_servers()] or [None]


def _found(binary: Binary | None) -> Binary:
    from client._embedded import NO_SERVER

    if binary is None:
        pytest.fail(NO_SERVER, pytrace=False)
    return binary


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each server found, if it asks for one; all but the first are heavy."""
    if "binary" in metafunc.fixturenames:
        # What depends on the server and on Python both has not been seen yet.
        marks: list[Any] = [(), *[pytest.mark.heavy] * (len(_binaries()) - 1)]
        params = [
            pytest.param(binary, id=binary.name if binary else "no-server", marks=mark)
            for binary, mark in zip(_binaries(), marks, strict=True)
        ]
        metafunc.parametrize("binary", params, indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a report say which server a test talks to, and in which protocol if it names one."""
    fixtures = getattr(item, "fixturenames", ())
    if _LIVE.intersection(fixtures):
        params = getattr(item, "callspec", None)
        given = params.params if params else {}
        binary = find_stack() if "stack" in fixtures else given.get("binary", _binaries()[0])
        named = [n for n in (2, 3) if given.get("protocol") == n or f"resp{n}" in item.name]
        item.user_properties += [
            ("server", binary.name if binary else ""),
            ("protocol", f"RESP{named[0]}" if named else ""),
        ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the live tests be run alone."""
    parser.addoption("--live", action="store_true", help="run only the tests that use a server")


_LIVE = frozenset(("server", "any_server", "private_server", "binary", "tls", "service", "stack"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --live, keep what asks for a server."""
    if config.getoption("--live"):
        kept = [item for item in items if _LIVE.intersection(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


def pytest_collection_finish() -> None:
    """Spare the collections of the tests what lives as long as they do: ten thousand tests."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    """Say what is tested: the working tree, or a package that was built from it."""
    specs = map(find_spec, ("resp", "client"))
    return [f"{spec.name}: {spec.origin}" for spec in specs if spec]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which servers, if any test asked for one."""
    if _binaries.cache_info().currsize:
        names = [f"{binary.name} ({binary.path})" for binary in _binaries() if binary]
        terminalreporter.write_line(f"servers: {', '.join(names) or 'none'}")


@pytest.fixture
def binary(request: pytest.FixtureRequest) -> Binary:
    """Give each server binary that was found, one after the other."""
    return _found(request.param)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield  # set up first, so torn down last: after all servers
    assert leftovers(os.getpid()) == []


@pytest.fixture(scope="session")
def _shared() -> Iterator[Callable[[Binary], EmbeddedServer]]:
    with ExitStack() as stack:
        yield cache(lambda binary: stack.enter_context(binary.start()))


@pytest.fixture
def server(binary: Binary, _shared: Callable[[Binary], EmbeddedServer]) -> EmbeddedServer:
    """Give a running server, empty; the test runs once on each kind."""
    return _emptied(_shared(binary))


@pytest.fixture
def any_server(_shared: Callable[[Binary], EmbeddedServer]) -> EmbeddedServer:
    """Give a running server, empty, to a test that any dialect passes."""
    return _emptied(_shared(_found(_binaries()[0])))


def _emptied(server: EmbeddedServer) -> EmbeddedServer:
    stranger = Wire(server)
    stranger("FLUSHALL")
    stranger("CONFIG", "RESETSTAT")
    stranger.quit()
    return server


class StartServer(Protocol):
    """What `private_server` is: a function that starts one more server for this test."""

    def __call__(self, *, password: str | None = None, args: Sequence[str] = ()) -> EmbeddedServer:
        """Start it; it is stopped when the test ends, if not before."""


@pytest.fixture
def private_server(binary: Binary) -> Iterator[StartServer]:
    """Give a function that starts a server to kill, pause or configure; runs once on each kind."""
    with ExitStack() as stack:

        def start(*, password: str | None = None, args: Sequence[str] = ()) -> EmbeddedServer:
            return stack.enter_context(binary.start(password, args))

        yield start


@pytest.fixture
def wire() -> Iterator[Callable[[EmbeddedServer], Wire]]:
    """Give a function that connects somebody else to a server."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(closing(Wire(server)))


@pytest.fixture(params=[*SETUPS, *OPTIN])
def reader(
    request: pytest.FixtureRequest, server: EmbeddedServer, wire: Callable[[Any], Wire]
) -> Iterator[Reader]:
    """Give a caching client in each set-up, beside somebody else."""
    from client import Tracking, connect

    protocol, tracking = (SETUPS | OPTIN)[request.param]
    with connect(server.url, protocol=protocol, tracking=Tracking(**tracking)) as db:
        assert db.protocol == protocol
        assert db.cache is not None
        assert db.cache.status == "on"
        yield Reader(db, wire(server))


@pytest.fixture
def plain_reader(server: EmbeddedServer, wire: Callable[[Any], Wire]) -> Iterator[Reader]:
    """Give a caching client in the default set-up, beside somebody else."""
    from client import connect

    with connect(server.url, cache=True) as db:
        yield Reader(db, wire(server))
