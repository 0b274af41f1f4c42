"""A TCP proxy in front of a real server, to do to a link what networks do: delay, freeze, cut.

A frozen link is a black hole to the program, as behind a proxy that hangs; the kernel at its end
still answers TCP's keep-alive. A deaf one answers nothing at all, as behind a router that is gone.

What one direction of one connection carries is never reordered: TCP does not. Different
connections are, and so are the two directions, by delaying one and not the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
import time
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Self

    import client


class Way:
    """One direction of a link: `delay` seconds for what arrives; while `held` nothing goes on."""

    def __init__(self) -> None:
        self.delay = 0.0
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def wait(self) -> bool:
        """Wait until what has arrived may go on; tell whether it was held."""
        held = not self._open.is_set()
        self._open.wait()
        if self.delay:
            time.sleep(self.delay)
        return held


class Link:
    """One proxied connection: `up` to the server, `down` to the client."""

    def __init__(self, client_side: socket.socket, server_side: socket.socket) -> None:
        self.up, self.down = Way(), Way()
        self.sockets = (client_side, server_side)
        self.threads = [
            threading.Thread(target=self._pump, args=(client_side, server_side, self.up)),
            threading.Thread(target=self._pump, args=(server_side, client_side, self.down)),
        ]

    def start(self) -> None:
        """Let it carry; who finds it among the links can hold it before that."""
        for thread in self.threads:
            thread.start()

    @property
    def over(self) -> bool:
        """Whether it has carried, and will no more."""
        return all(thread.ident and not thread.is_alive() for thread in self.threads)

    def _pump(self, source: socket.socket, drain: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if way.wait():
                    with contextlib.suppress(BlockingIOError):
                        data += source.recv(65536, socket.MSG_DONTWAIT)  # in one with the first
                drain.sendall(data)
        way.wait()  # a frozen link does not tell of its end either
        for sock in (source, drain):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Become a black hole: nothing passes, nothing is closed."""
        self.up.hold()
        self.down.hold()

    def deafen(self) -> None:
        """Become a black hole to the client's kernel too: nothing is acknowledged any more.

        A socket filter that accepts nothing drops each segment before TCP sees it (Linux).
        """
        self.freeze()
        attach = getattr(socket, "SO_ATTACH_FILTER", 26)  # asm-generic/socket.h
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET 0
        program = struct.pack("HxxxxxxP", 1, ctypes.addressof(nothing))
        try:
            self.sockets[0].setsockopt(socket.SOL_SOCKET, attach, program)
        except OSError as error:
            pytest.skip(f"no socket filters here: {error}")

    def desert(self) -> None:
        """Let the server lose the client, and the client hear nothing of it."""
        self.freeze()
        self.sockets[1].shutdown(socket.SHUT_RDWR)

    def thaw(self) -> None:
        self.up.release()
        self.down.release()

    def cut(self) -> None:
        """End the connection on both sides."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.thaw()


class Proxy:
    """Listens on a free port; `links` are its connections in the order in which they came.

    `refusing` closes new ones at once.
    """

    def __init__(self, server: client.EmbeddedServer) -> None:
        self._target = (server.host, server.port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.links: list[Link] = []
        self.refusing = False
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                client_side, _ = self._listening.accept()
            except OSError:
                return
            if self.refusing:
                client_side.close()
                continue
            try:
                server_side = socket.create_connection(self._next_target())
            except OSError:  # it is being restarted
                client_side.close()
                continue
            for sock in (client_side, server_side):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client_side, server_side)
            self.links.append(link)
            link.start()

    def _next_target(self) -> tuple[str, int]:
        return self._target

    def reap(self) -> None:
        """Forget the links that are over, so that their descriptors are closed."""
        for link in [each for each in self.links if each.over]:
            self.links.remove(link)
            for sock in link.sockets:
                sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(10)
        for link in self.links:
            link.up.delay = link.down.delay = 0.0
            link.cut()
            for thread in link.threads:
                thread.join(10)
            for sock in link.sockets:
                sock.close()


class Balancer(Proxy):
    """One address for several servers, each connection to the next one."""

    def __init__(self, servers: list[client.EmbeddedServer]) -> None:
        self._targets = cycle((server.host, server.port) for server in servers)
        super().__init__(servers[0])

    def _next_target(self) -> tuple[str, int]:
        return next(self._targets)
