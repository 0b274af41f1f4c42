"""Authentication: who we are, asked anew for each connection, and shown to nobody."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from loops import on_loop
from readers import wait_until
from servers import ask

import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client import EmbeddedServer

SECRET = "hunter2"
ROTATED = "correct-horse"


@pytest.fixture
def users(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """Give a server with a user "app" who may do all but FLUSHALL, to keys that start with k."""
    ask(server, "ACL", "SETUSER", "app", "on", f">{SECRET}", "~k*", "&*", "+@all", "-flushall")
    yield server
    ask(server, "ACL", "DELUSER", "app")


@pytest.fixture(params=[2, 3])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def address(server: EmbeddedServer) -> str:
    return f"redis://{server.host}:{server.port}"


def rotate(server: EmbeddedServer, password: str) -> None:
    """Exchange the user's password, and end the connections that used the old one."""
    ask(server, "ACL", "SETUSER", "app", "resetpass", f">{password}")
    # Redis 6.2 has no USER filter that ends what is authenticated already; every version has TYPE.
    for line in ask(server, "CLIENT", "LIST").decode().splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        if fields.get("user") == "app":
            ask(server, "CLIENT", "KILL", "ID", fields["id"])


def test_user_and_password_are_of_the_url_or_of_keywords(
    users: EmbeddedServer, protocol: Any
) -> None:
    url = f"redis://app:{SECRET}@{users.host}:{users.port}"
    with client.connect(url, protocol=protocol) as db:
        assert db.execute("ACL", "WHOAMI") == b"app"
    keywords: dict[str, Any] = {"username": "app", "password": SECRET, "protocol": protocol}
    with client.connect(address(users), **keywords) as db:
        assert db.execute("ACL", "WHOAMI") == b"app"

    @on_loop
    async def go() -> None:
        async with client.connect_async(address(users), **keywords) as db:
            assert await db.execute("ACL", "WHOAMI") == b"app"

    go()


def test_what_the_acl_refuses_is_a_no_permission_error(users: EmbeddedServer) -> None:
    given: dict[str, Any] = {"username": "app", "password": SECRET}
    with client.connect(address(users), **given, cache=True) as db:
        assert db.execute("SET", "k", "1") == b"OK"
        for command in [("FLUSHALL",), ("GET", "other"), ("SET", "other", "x")]:
            with pytest.raises(client.NoPermissionError, match="permission"):
                db.execute(*command)
        assert isinstance(db.execute_many([("GET", "other")])[0], client.NoPermissionError)
        assert db.execute("GET", "k") == b"1"

    @on_loop
    async def go() -> None:
        async with client.connect_async(address(users), **given) as db:
            with pytest.raises(client.NoPermissionError):
                await db.execute("FLUSHALL")

    go()


# A function for credentials.


class Vault:
    """Knows the password, and counts who asks."""

    def __init__(self) -> None:
        self.password = SECRET
        self.asked = 0

    def __call__(self) -> tuple[str | None, str]:
        self.asked += 1
        return "app", self.password

    async def later(self) -> tuple[str | None, str]:
        await asyncio.sleep(0)
        return self()


def test_password_is_rotated_without_a_restart(users: EmbeddedServer, protocol: Any) -> None:
    vault = Vault()
    with client.connect(address(users), credentials=vault, protocol=protocol, cache=True) as db:
        asked = vault.asked
        assert asked >= 2  # for a connection that reads, and one that listens
        db.execute("SET", "k", "1")
        assert db.execute("GET", "k") == b"1"
        vault.password = ROTATED
        rotate(users, ROTATED)
        # A read is repeated where its connection was ended under it.
        assert db.uncached("GET", "k") == b"1"
        assert db.execute("SET", "k", "2") == b"OK"
        assert db.cache is not None
        cache = db.cache
        # The listener notices in its own time that it was ended; until then all looks well.
        wait_until(lambda: vault.asked >= asked + 2 and cache.status == "on")


@pytest.mark.parametrize("form", ["function", "coroutine function"])
def test_password_of_the_asyncio_client_is_rotated_without_a_restart(
    users: EmbeddedServer, form: str
) -> None:
    @on_loop
    async def go() -> None:
        vault = Vault()
        ask_vault: Callable[[], Any] = vault if form == "function" else vault.later
        async with client.connect_async(address(users), credentials=ask_vault, cache=True) as db:
            assert vault.asked == 1
            await db.execute("SET", "k", "1")
            vault.password = ROTATED
            await asyncio.to_thread(rotate, users, ROTATED)
            assert await db.execute("GET", "k") == b"1"
            assert await db.execute("SET", "k", "2") == b"OK"
            assert vault.asked == 2

    go()


def test_password_that_is_not_rotated_in_time_is_a_wrong_one(users: EmbeddedServer) -> None:
    vault = Vault()
    with client.connect(address(users), credentials=vault) as db:
        rotate(users, ROTATED)
        with pytest.raises(client.WrongPassError):
            db.execute("GET", "k")
        vault.password = ROTATED
        assert db.execute("GET", "k") is None


def test_password_alone_is_the_default_users(any_server: EmbeddedServer) -> None:
    ask(any_server, "CONFIG", "SET", "requirepass", SECRET)
    try:
        with client.connect(address(any_server), credentials=lambda: (None, SECRET)) as db:
            assert db.execute("ACL", "WHOAMI") == b"default"
            with pytest.raises(client.NoAuthError):
                client.connect(address(any_server))
            db.execute("CONFIG", "SET", "requirepass", "")
    finally:
        with client.connect(address(any_server), password=SECRET) as db:
            db.execute("CONFIG", "SET", "requirepass", "")


class VaultError(Exception):
    pass


def sealed() -> tuple[str | None, str]:
    raise VaultError("the vault is sealed")


def test_error_of_the_function_reaches_whoever_asked(users: EmbeddedServer) -> None:
    with pytest.raises(VaultError):
        client.connect(address(users), credentials=sealed)

    @on_loop
    async def go() -> None:
        with pytest.raises(VaultError):
            await client.connect_async(address(users), credentials=sealed)

    go()


@pytest.mark.parametrize(
    "given", [None, "app", ("app",), ("app", None), ("app", b"bytes"), ["app", SECRET], (1, SECRET)]
)
def test_function_that_returns_nonsense_is_an_error_that_does_not_show_it(
    any_server: EmbeddedServer, given: Any
) -> None:
    with pytest.raises(TypeError, match="expected a tuple") as caught:
        client.connect(address(any_server), credentials=lambda: given)
    assert SECRET not in "".join(traceback.format_exception(caught.value))

    @on_loop
    async def go() -> None:
        with pytest.raises(TypeError, match="expected a tuple"):
            await client.connect_async(address(any_server), credentials=lambda: given)

    go()


def test_coroutine_function_is_none_for_the_blocking_client(any_server: EmbeddedServer) -> None:
    with pytest.raises(TypeError, match="connect_async"):
        client.connect(address(any_server), credentials=Vault().later)  # type: ignore[arg-type]


def test_credentials_that_contradict_each_other_are_refused() -> None:
    for keywords in ({"password": SECRET}, {"username": "app", "password": SECRET}):
        with pytest.raises(ValueError, match="exclude each other") as caught:
            client.connect("redis://127.0.0.1:1", credentials=Vault(), **keywords)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)
    with pytest.raises(TypeError, match="function"):
        client.connect("redis://127.0.0.1:1", credentials=("app", SECRET))  # type: ignore[arg-type]


# Shown to nobody.


def test_no_credential_is_in_an_error_a_repr_a_trace_or_a_log(
    users: EmbeddedServer, protocol: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []

    def trace(*frame: object) -> None:
        shown.append(frame)

    vault = Vault()
    given: dict[str, Any] = {"protocol": protocol, "trace": trace, "cache": True}
    with client.connect(address(users), credentials=vault, **given) as db:
        db.execute("GET", "k")
        shown += [db, db._options, db._pool, db.cache, vault.asked]
        rotate(users, ROTATED)
        with pytest.raises(client.WrongPassError) as caught:
            db.uncached("GET", "k")
        shown += traceback.format_exception(caught.value)

    @on_loop
    async def go() -> None:
        vault.password = ROTATED
        async with client.connect_async(address(users), credentials=vault.later, **given) as db:
            await db.execute("GET", "k")
            shown.extend([db, db._options, db._link])
        with pytest.raises(client.WrongPassError) as caught:
            await client.connect_async(address(users), username="app", password=SECRET, trace=trace)
        shown.extend(traceback.format_exception(caught.value))

    go()
    text = repr(shown) + caplog.text
    assert "sent" in text
    assert SECRET not in text.replace(f"SECRET = {SECRET!r}", "")
    assert ROTATED not in text
