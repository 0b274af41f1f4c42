"""The process between a private server and the program that asked for it: what it made, it removes.

Run as a script, never imported: `python -I -S _supervisor.py PARENT TEMP BINARY [ARGUMENT ...]`.
It makes the private directory and starts the server in it, and it outlives its parent only by the
time it takes to end the one and remove the other. A parent's own exit handlers could not do that:
SIGKILL and `os._exit` run none.

It prints the directory's path, then answers each command on stdin with the server's process id,
or 0 where none runs: `start` starts it with the directory's `server.conf`, a number sends it that
signal (0 only looks). `quit` and the end of stdin end everything.
"""

import os
import select
import signal
import sys

LOOK_EVERY = 0.2  # seconds between two looks at who the parent is
PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent() -> None:
    """Have the kernel kill this process with its parent, where it can: not even SIGKILL escapes."""
    if sys.platform == "linux":
        try:
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (ImportError, OSError, AttributeError):
            pass  # a Python without ctypes, a C library without prctl: one guard less


def start(command: list[str]) -> int:
    """Start the server in the current directory, its output in `server.log`; return its id."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for stream, source in (0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log):
            os.dup2(source, stream)
        die_with_parent()
        if os.getppid() == supervisor:
            os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def send(pid: int, number: int) -> int:
    """Send the server a signal, or none for 0; return its id, or 0 once it has ended."""
    if pid:
        os.kill(pid, number)  # not reaped yet, so the id is still its own
        if os.waitpid(pid, 0 if number == signal.SIGKILL else os.WNOHANG)[0]:
            return 0
    return pid


def supervise(parent: int, server: list[str]) -> None:
    """Carry out the parent's commands until it says `quit` or is gone; then end the server."""
    pid = 0
    try:
        # Children that the parent forked hold copies of the pipe's other end, so the end of stdin
        # may never come. A new parent can't be missed.
        while os.getppid() == parent:
            if not select.select([0], [], [], LOOK_EVERY)[0]:
                pid = send(pid, 0)  # leave no zombie
                continue
            commands = os.read(0, 4096).split()  # far below PIPE_BUF: never half a command
            if not commands or b"quit" in commands:
                break
            for command in commands:
                if command == b"start":
                    pid = send(pid, 0) or start(server)
                else:
                    pid = send(pid, int(command))
                os.write(1, b"%d\n" % pid)
    finally:
        # SIGKILL: nothing is ever saved, so a server has nothing to do before its end, and a
        # paused one would not hear of anything milder.
        send(pid, signal.SIGKILL)


def remove(directory: str) -> None:
    """Remove a directory and all that is in it, without the 10 ms that importing `shutil` costs."""
    for folder, folders, files in os.walk(directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            os.rmdir(os.path.join(folder, name))
    os.rmdir(directory)


def main(parent: str, temp: str, binary: str, *arguments: str) -> None:
    """Own a private directory and the server in it for as long as the parent wants them."""
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda *_: sys.exit())
    os.umask(0o077)
    directory = os.path.join(temp, f"resp-client-{parent}-{os.urandom(4).hex()}")
    os.mkdir(directory)
    try:
        os.chdir(directory)
        os.write(1, os.fsencode(directory) + b"\n")
        supervise(int(parent), [binary, os.path.join(directory, "server.conf"), *arguments])
    finally:
        remove(directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
