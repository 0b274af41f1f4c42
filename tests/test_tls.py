"""TLS: verified by default, in front of real servers that speak it, for both clients."""

from __future__ import annotations

import asyncio
import datetime
import re
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from loops import on_loop
from readers import wait_until
from servers import TlsServer, Wire, ask, find_servers

import client

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTE = 1024 * 1024


class Papers:
    """Certificates in files: of an authority, and what it issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.ca = self._write("ca", self.authority.cert_pem.bytes())
        now = datetime.datetime.now(datetime.UTC)
        yesterday, before = (now - datetime.timedelta(days=days) for days in (1, 10))
        self.good = self._issue("good", "localhost", "127.0.0.1", "::1")
        self.of_another_host = self._issue("other", "example.org")
        self.expired = self._issue("expired", "localhost", not_before=before, not_after=yesterday)
        # An authority's own certificate is signed by itself.
        self.self_signed = (
            self._write("self", self.stranger.cert_pem.bytes()),
            self._write("self-key", self.stranger.private_key_pem.bytes()),
        )
        self.of_a_stranger = self._save("stranger", self.stranger.issue_cert("localhost"))
        self.ours = self._issue("ours", "client@example.org")

    def _issue(self, name: str, *identities: str, **more: Any) -> tuple[str, str]:
        return self._save(name, self.authority.issue_cert(*identities, **more))

    def _save(self, name: str, leaf: trustme.LeafCert) -> tuple[str, str]:
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(name, chain), self._write(f"{name}-key", leaf.private_key_pem.bytes())

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(content)
        return str(path)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def shared_tls(papers: Papers) -> Iterator[TlsServer]:
    with ExitStack() as stack:
        for binary in find_servers():
            server = TlsServer.start(binary, stack, papers.good, papers.ca)
            if server is not None:
                yield server
                return
        pytest.skip("no server here is built with TLS; Debian's redis-server is")


@pytest.fixture
def tls(shared_tls: TlsServer, papers: Papers) -> TlsServer:
    """Give a server that speaks TLS with the good certificate, and wants none of us."""
    shared_tls.show(papers.good)
    shared_tls.demand("no")
    return shared_tls


def refused(said: str, url: str, **keywords: Any) -> None:
    """Check that the blocking and the asyncio client refuse, or are refused, with an error."""
    with pytest.raises(client.ConnectError, match=re.escape(said)) as caught:
        client.connect(url, **keywords)
    assert url.partition("://")[2] in str(caught.value)

    @on_loop
    async def go() -> None:
        with pytest.raises(client.ConnectError, match=re.escape(said)) as caught:
            await client.connect_async(url, **keywords)
        assert url.partition("://")[2] in str(caught.value)

    go()


def test_every_kind_of_call_works_over_tls_for_both_clients(
    tls: TlsServer, papers: Papers, protocol: Any
) -> None:
    with client.connect(tls.url, ssl_ca_certs=papers.ca, protocol=protocol) as db:
        assert db.execute("SET", "k", "v") == b"OK"
        assert db.execute_many([("GET", "k"), ("NONSENSE",)])[0] == b"v"
        assert db.transaction([("INCR", "n"), ("INCR", "n")])[1] - 1 > 0

    @on_loop
    async def go() -> None:
        async with client.connect_async(tls.url, ssl_ca_certs=papers.ca, protocol=protocol) as db:
            assert await asyncio.gather(*(db.execute("GET", "k") for _ in range(5))) == [b"v"] * 5

    go()


@pytest.fixture(params=[2, 3])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_sentinels_and_where_they_lead_are_reached_over_tls(tls: TlsServer, papers: Papers) -> None:
    with ExitStack() as stack:
        as_sentinel = ["--sentinel", "--tls-replication", "yes"]
        sentinel = TlsServer.start(tls.binary, stack, papers.good, papers.ca, as_sentinel)
        assert sentinel is not None
        ask(sentinel.server, "SENTINEL", "MONITOR", "mymaster", "127.0.0.1", tls.port, 1)
        url = f"sentinels://{sentinel.address}/mymaster"
        with client.connect(url, ssl_ca_certs=papers.ca, cache=True) as db:
            db.execute("SET", "k", "v")
            assert [db.execute("GET", "k") for _ in range(2)] == [b"v"] * 2

        @on_loop
        async def go() -> None:
            async with client.connect_async(url, ssl_ca_certs=papers.ca) as db:
                assert await db.execute("GET", "k") == b"v"

        go()
        # Neither is believed without the right certificate: not the sentinel, not the primary.
        reason = f"{sentinel.address}: .*certificate verify failed"
        with pytest.raises(client.ConnectError, match=reason):
            client.connect(url)
        tls.show(papers.of_another_host)
        with pytest.raises(
            client.ConnectError, match=f"127.0.0.1:{tls.port}: .*IP address mismatch"
        ):
            client.connect(url, ssl_ca_certs=papers.ca)


def test_20_megabytes_go_over_tls_both_ways(tls: TlsServer, papers: Papers) -> None:
    value = bytes(range(256)) * (20 * MEGABYTE // 256)
    with client.connect(tls.url, ssl_ca_certs=papers.ca) as db:
        # In one pipeline, so that both sides have to read while they write.
        assert db.execute_many([("SET", "k", value), ("GET", "k")] * 2) == [b"OK", value] * 2

    @on_loop
    async def go() -> None:
        async with client.connect_async(tls.url, ssl_ca_certs=papers.ca) as db:
            assert await db.execute_many([("SET", "k", value), ("GET", "k")]) == [b"OK", value]

    go()
    ask(tls.server, "DEL", "k")


@pytest.mark.parametrize("listener", ["dedicated", "inline"])
def test_cache_is_kept_right_over_tls(tls: TlsServer, papers: Papers, listener: Any) -> None:
    other = Wire(tls.server)
    other("SET", "k", "1")
    tracking = client.Tracking(listener=listener)
    with client.connect(tls.url, ssl_ca_certs=papers.ca, tracking=tracking) as db:
        assert [db.execute("GET", "k") for _ in range(2)] == [b"1"] * 2
        assert db.cache is not None
        assert db.cache.stats.hits == 1
        other("SET", "k", "2")
        wait_until(lambda: db.execute("GET", "k") == b"2")

    @on_loop
    async def go() -> None:
        async with client.connect_async(tls.url, ssl_ca_certs=papers.ca, tracking=tracking) as db:
            assert [await db.execute("GET", "k") for _ in range(2)] == [b"2"] * 2
            assert db.cache is not None
            assert db.cache.stats.hits == 1
            other("SET", "k", "3")
            async with asyncio.timeout(10):
                while await db.execute("GET", "k") != b"3":
                    await asyncio.sleep(0.001)

    go()
    other.close()


def test_invalidation_behind_a_reply_in_one_record_is_read(tls: TlsServer, papers: Papers) -> None:
    """What TLS has decrypted and nobody has read, no poll of the kernel tells of."""
    tracking = client.Tracking(listener="inline")
    with client.connect(tls.url, ssl_ca_certs=papers.ca, tracking=tracking) as db:
        keys = [f"k{number}" for number in range(500)]
        for key in keys:
            db.execute("GET", key)
        assert db.cache is not None
        ask(tls.server, "MSET", *(word for key in keys for word in (key, "new")))
        wait_until(lambda: db.execute("GET", keys[-1]) == b"new")
        assert {db.execute("GET", key) for key in keys} == {b"new"}


def test_close_from_another_thread_ends_a_wait_over_tls(tls: TlsServer, papers: Papers) -> None:
    import threading

    failures: list[BaseException] = []
    db = client.connect(tls.url, ssl_ca_certs=papers.ca)

    def wait() -> None:
        try:
            db.execute("BLPOP", "nothing", 0)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    other = Wire(tls.server)
    wait_until(lambda: b"cmd=blpop" in other("CLIENT", "LIST"))
    db.close()
    thread.join(10)
    other.close()
    assert not thread.is_alive()
    # Not ProtocolError: what is left to read is nothing, and no ciphertext.
    assert [type(error) for error in failures] == [client.ConnectionClosed]


# Who is not trusted.


def test_certificate_of_another_host_is_refused(tls: TlsServer, papers: Papers) -> None:
    tls.show(papers.of_another_host)
    said = "Hostname mismatch, certificate is not valid for 'localhost'"
    refused(said, tls.url, ssl_ca_certs=papers.ca)
    # The name may be said apart, and is sent to the server too (SNI).
    with client.connect(tls.url, ssl_ca_certs=papers.ca, ssl_server_hostname="example.org") as db:
        assert db.execute("PING") == b"PONG"


def test_expired_certificate_is_refused(tls: TlsServer, papers: Papers) -> None:
    tls.show(papers.expired)
    refused("certificate has expired", tls.url, ssl_ca_certs=papers.ca)


def test_self_signed_certificate_is_refused(tls: TlsServer, papers: Papers) -> None:
    tls.show(papers.self_signed)
    refused("self-signed certificate", tls.url, ssl_ca_certs=papers.ca)


def test_unknown_authority_is_refused(tls: TlsServer, papers: Papers) -> None:
    tls.show(papers.of_a_stranger)
    refused("unable to get local issuer certificate", tls.url, ssl_ca_certs=papers.ca)
    # By default the system's authorities are trusted, and they do not know ours.
    tls.show(papers.good)
    refused("certificate verify failed", tls.url)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_missing_client_certificate_is_said(
    tls: TlsServer, papers: Papers, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 our handshake is over before the server has judged us."""
    tls.demand("yes")
    context = ssl.create_default_context(cafile=papers.ca)
    context.minimum_version = context.maximum_version = version
    for _ in range(5):  # whether the alert comes before or after our HELLO
        refused("want a client certificate", tls.url, ssl=context)


def test_client_certificate_is_shown(tls: TlsServer, papers: Papers, tmp_path: Path) -> None:
    tls.demand("yes")
    chain, key = papers.ours
    with client.connect(
        tls.url, ssl_ca_certs=papers.ca, ssl_certfile=chain, ssl_keyfile=key, cache=True
    ) as db:
        assert db.execute("PING") == b"PONG"
        assert db.cache is not None
        assert db.cache.status == "on"  # the listener's connection shows it too
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(Path(path).read_bytes() for path in papers.ours))

    @on_loop
    async def go() -> None:
        async with client.connect_async(
            tls.url, ssl_ca_certs=papers.ca, ssl_certfile=str(both)
        ) as db:
            assert await db.execute("PING") == b"PONG"

    go()


def test_context_of_ones_own_is_used_as_it_is(tls: TlsServer, papers: Papers) -> None:
    context = ssl.create_default_context()
    papers.authority.configure_trust(context)
    with client.connect(tls.url, ssl=context) as db:
        assert db.execute("PING") == b"PONG"
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    tls.show(papers.expired)
    with client.connect(tls.url, ssl=careless, ssl_server_hostname="sni.example.org") as db:
        assert db.execute("PING") == b"PONG"


def test_name_that_is_asked_for_reaches_the_server(papers: Papers) -> None:
    """SNI: no Redis tells what it was asked for, so this peer is Python's."""
    import socket
    import threading

    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*papers.good)
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(4):
            plain, _ = listening.accept()
            # Whether the client trusts us or not, the name has come.
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                tls.recv(1000)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"rediss://localhost:{listening.getsockname()[1]}"
    refused("closed", url, ssl_ca_certs=papers.ca)
    refused("mismatch", url, ssl_ca_certs=papers.ca, ssl_server_hostname="redis.example.org")
    thread.join(10)
    listening.close()
    assert asked == ["localhost"] * 2 + ["redis.example.org"] * 2


def test_server_without_tls_is_refused(tls: TlsServer) -> None:
    plain = f"rediss://{tls.server.host}:{tls.server.port}"
    with pytest.raises(client.ConnectError):
        client.connect(plain, connect_timeout=0.5)

    @on_loop
    async def go() -> None:
        with pytest.raises(client.ConnectError):
            await client.connect_async(plain, connect_timeout=0.5)

    go()


def test_connection_without_tls_to_a_server_with_it_is_an_error(tls: TlsServer) -> None:
    with pytest.raises(client.ConnectionClosed):
        client.connect(tls.url.replace("rediss", "redis"), timeout=2)


# Files that can't be used: found out before anything is sent.


def test_bad_tls_files_are_one_error_each_before_anything_is_sent(
    papers: Papers, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    chain, key = papers.ours
    bad: list[tuple[dict[str, Any], str]] = [
        ({"ssl_ca_certs": str(tmp_path / "missing")}, "ssl_ca_certs can't be used: No such file"),
        ({"ssl_ca_certs": str(nonsense)}, "ssl_ca_certs can't be used"),
        ({"ssl_certfile": str(tmp_path / "missing")}, "ssl_certfile or ssl_keyfile can't be used"),
        ({"ssl_certfile": str(nonsense)}, "ssl_certfile or ssl_keyfile can't be used"),
        ({"ssl_certfile": chain}, "ssl_certfile or ssl_keyfile can't be used"),  # where is the key?
        (
            {"ssl_certfile": chain, "ssl_keyfile": papers.good[1]},
            "ssl_certfile or ssl_keyfile can't be used: KEY_VALUES_MISMATCH",
        ),
        ({"ssl_keyfile": key}, "ssl_keyfile needs ssl_certfile"),
        ({"ssl_ca_certs": papers.ca, "ssl": ssl.create_default_context()}, "exclude each other"),
    ]
    for keywords, said in bad:
        for connect in (client.connect, client.connect_async):
            # Port 1 refuses connections: the error is about the file, so none was tried.
            with pytest.raises(ValueError, match=said):
                connect("rediss://127.0.0.1:1", **keywords)
    with pytest.raises(ValueError, match="ssl_ca_certs needs TLS"):
        client.connect("redis://127.0.0.1:1", ssl_ca_certs=papers.ca)


def test_key_with_a_passphrase_is_refused_and_asks_nobody(papers: Papers, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(papers.stranger.private_key_pem.bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    with pytest.raises(ValueError, match="passphrase"):
        client.connect(
            "rediss://127.0.0.1:1", ssl_certfile=papers.self_signed[0], ssl_keyfile=str(locked)
        )
