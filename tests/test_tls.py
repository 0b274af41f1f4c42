"""TLS: verified by default, with a certificate of the suite's own before a real server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

import client

if TYPE_CHECKING:
    from collections.abc import Iterator


class TlsProxy:
    """Takes TLS off what arrives, hands it to the server, and back."""

    def __init__(self, context: ssl.SSLContext, target: tuple[str, int]) -> None:
        self._context = context
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self._sockets.append(plain)
            try:
                tls = self._context.wrap_socket(plain, server_side=True)
            except OSError:  # the client did not trust us
                plain.close()
                continue
            server = socket.create_connection(self._target)
            self._sockets += [tls, server]
            self._spawn(self._pump, tls, server)
            self._spawn(self._pump, server, tls)

    def _pump(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                drain.sendall(data)
        for sock in (source, drain):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def proxy(authority: trustme.CA, server: client.EmbeddedServer) -> Iterator[TlsProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    proxy = TlsProxy(context, (server.host, server.port))
    yield proxy
    proxy.close()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_commands_big_values_and_invalidations_over_tls(
    authority: trustme.CA, proxy: TlsProxy
) -> None:
    url = f"rediss://localhost:{proxy.port}"
    with client.connect(url, ssl=trusting(authority), cache=True) as db:
        value = bytes(range(256)) * 10_000
        replies = db.execute_many([("SET", "k", value), ("GET", "k")] * 5)
        assert replies == [b"OK", value] * 5
        assert db.execute("GET", "small") is None
        assert db.execute("GET", "small") is None
        assert db.cache is not None
        assert db.cache.stats.hits == 1


def test_unknown_authority_is_refused(proxy: TlsProxy) -> None:
    with pytest.raises(client.ConnectError, match="certificate verify failed"):
        client.connect(f"rediss://localhost:{proxy.port}")


def test_wrong_host_is_refused(authority: trustme.CA, proxy: TlsProxy) -> None:
    with pytest.raises(client.ConnectError, match=r"127\.0\.0\.1"):
        client.connect(f"rediss://127.0.0.1:{proxy.port}", ssl=trusting(authority))


def test_server_without_tls_is_refused(server: client.EmbeddedServer) -> None:
    with pytest.raises(client.ConnectError):
        client.connect(f"rediss://{server.host}:{server.port}", connect_timeout=2)
