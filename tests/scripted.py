"""A scripted server, for what a real one will not do: answer nonsense, drip, go silent.

Each connection is handed to the script in a thread of its own; an exception there fails the test
when the server is closed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import resp

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

HELLO_3 = b"%3\r\n+server\r\n+script\r\n+proto\r\n:3\r\n+id\r\n:7\r\n"


class Peer:
    """One accepted connection: read commands, send bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._parser = resp.Parser()

    def command(self) -> list[bytes] | None:
        """Give the next command, or None at the end."""
        while (value := self._parser.parse()) is resp.NEED_DATA:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return None
            if not data:
                return None
            self._parser.feed(data)
        return value  # type: ignore[no-any-return]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def greet(self) -> None:
        """Answer HELLO 3."""
        command = self.command()
        assert command is not None
        assert command[:2] == [b"HELLO", b"3"]
        self.send(HELLO_3)


class ScriptedServer:
    """Listens on a free port of this machine and plays `script` to each connection."""

    def __init__(self, script: Callable[[Peer], Any]) -> None:
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.errors: list[BaseException] = []
        self.accepted = 0
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}"
        self._spawn(self._accept)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return  # closed
            self.accepted += 1
            self._sockets.append(sock)
            self._spawn(self._play, sock)

    def _play(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._script(Peer(sock))
            except (ConnectionError, TimeoutError):
                pass  # the client went away, as it may
            except BaseException as error:  # noqa: BLE001 - raised again in __exit__
                self.errors.append(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # it ended by itself
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        if self.errors:
            raise self.errors[0]
