"""Threads, sockets and polls for the blocking client, without any of them.

Each thread is a greenlet. It runs until it waits: for a lock, for bytes, for a time. Taking a lock
may also let another run first, as a preemption would. Descriptors are numbers that are used again
at once, lowest first, as the kernel does.
"""

from __future__ import annotations

import errno
import select as real_select
from collections import deque
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from greenlet import GreenletExit, getcurrent, greenlet

import client._cache
import client._calls
import client._connection
import client._listener
import client._pool
import client._sync
import client._tracker
from client import ConnectError

from ._world import Violation, Wire, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._server import Peer, Server

# Seconds in which the kernel gives up on a silent peer where it was asked to.
KEEPALIVE = 3.0


class Machine:
    """Where blocking clients run: their threads, their sockets, the network to the server.

    Attributes:
        machine: the one that the fakes belong to now.
    """

    current: Machine

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.hub = getcurrent()
        self.threads: list[Thread] = []
        self.sockets: dict[int, FakeSocket] = {}
        self.unreachable_until: dict[str, float] = {}
        self.over = False
        self.preemption = 0.0
        Machine.current = self

    # Greenlets.

    def spawn(self, owner: str, target: Callable[[], object], name: str) -> Thread:
        """Start a thread of a process."""
        thread = Thread(target=target, name=name)
        thread.owner = owner
        thread.start()
        return thread

    def wait(self, until: float | None = None) -> bool:
        """Have the running thread wait to be woken; False if the time came first."""
        thread = Thread.running()
        thread.turn += 1
        turn = thread.turn
        thread.waiting = True
        thread.woken = False
        if until is not None:
            self.world.at(max(until, self.world.now), self._resume, thread, turn)
        self.hub.switch()
        if thread.interrupt is not None:
            interrupt, thread.interrupt = thread.interrupt, None
            raise interrupt
        return thread.woken

    def wake(self, thread: Thread) -> None:
        """Have a waiting thread go on."""
        if thread.waiting and not thread.woken:
            thread.woken = True
            self.world.soon(self._resume, thread, thread.turn)

    def _resume(self, thread: Thread, turn: int) -> None:
        if thread.turn == turn and thread.waiting and not thread.dead:
            thread.waiting = False
            thread.greenlet.switch()

    def pause(self) -> None:
        """Let others run first."""
        thread = Thread.running()
        thread.waiting = True
        thread.woken = False
        thread.turn += 1
        self.wake(thread)
        self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Have the running thread do nothing for so long."""
        until = self.world.now + seconds
        while self.world.now < until:
            self.wait(until)

    def abandon(self) -> None:
        """Forget all threads: the schedule is over."""
        self.over = True
        for thread in self.threads:
            if thread.greenlet and not thread.greenlet.dead:
                thread.dead = True
                thread.greenlet.throw(GreenletExit)

    # Sockets.

    def descriptor(self) -> int:
        number = 3
        while number in self.sockets:
            number += 1
        return number

    def connect(self, options: Any) -> FakeSocket:
        """Do what `open_socket` does."""
        self.sleep(self.world.delays[self.world.choices.pick(len(self.world.delays))])
        if self.world.now < self.unreachable_until.get(Thread.running().owner, 0.0):
            raise ConnectError(f"can't connect to {options.address}: no route")
        return FakeSocket(self, Thread.running().owner)


class Thread:
    """A `threading.Thread`."""

    _current: dict[int, Thread] = {}  # noqa: RUF012 - of the one machine there is

    def __init__(
        self,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "thread",
        daemon: bool = False,
    ) -> None:
        self._target = target
        self._args = args
        self.name = name
        self.machine = Machine.current
        self.owner = getattr(getcurrent(), "owner", "")
        self.turn = 0
        self.waiting = self.woken = self.dead = self.finished = False
        self.interrupt: BaseException | None = None
        self.joining: list[Thread] = []
        self.greenlet: Any = None

    def start(self) -> None:
        self.greenlet = greenlet(self._run, self.machine.hub)
        self.greenlet.thread = self
        self.greenlet.owner = self.owner
        self.machine.threads.append(self)
        self.waiting = True
        self.machine.wake(self)

    def _run(self) -> None:
        machine = self.machine
        try:
            self._target(*self._args)
        except GreenletExit:
            return
        except BaseException as error:  # noqa: BLE001 - told
            if not machine.over:
                machine.world.violations.append(f"thread {self.name} died: {error!r}")
        self.finished = True
        for thread in self.joining:
            machine.wake(thread)

    def join(self, timeout: float | None = None) -> None:
        while not self.finished and not self.dead:
            self.joining.append(Thread.running())
            self.machine.wait()

    def is_alive(self) -> bool:
        return not self.finished

    @staticmethod
    def running() -> Thread:
        thread = getattr(getcurrent(), "thread", None)
        if not isinstance(thread, Thread):
            raise Violation("something blocks outside any thread")
        if Machine.current.over:
            raise GreenletExit
        return thread


class Lock:
    """A `threading.Lock`, at which others may get ahead."""

    __slots__ = ("_waiters", "held")

    def __init__(self) -> None:
        self.held = False
        self._waiters: deque[Thread] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        machine = Machine.current
        if machine.preemption and machine.world.choices.chance(machine.preemption):
            thread = getattr(getcurrent(), "thread", None)
            if thread is not None and not machine.over:
                machine.pause()
        if not self.held:
            self.held = True
            return True
        if not blocking:
            return False
        until = None if timeout < 0 else machine.world.now + timeout
        thread = Thread.running()
        if self._waiters is None:
            self._waiters = deque()
        try:
            while self.held:
                if until is not None and machine.world.now >= until:
                    return False
                if thread not in self._waiters:  # somebody may have been faster
                    self._waiters.append(thread)
                machine.wait(until)
        finally:
            if thread in self._waiters:
                self._waiters.remove(thread)
        self.held = True
        return True

    def release(self) -> None:
        self.held = False
        if self._waiters:
            Machine.current.wake(self._waiters.popleft())

    def locked(self) -> bool:
        return self.held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Condition:
    """A `threading.Condition`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: deque[Thread] = deque()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        machine = Machine.current
        thread = Thread.running()
        self._waiters.append(thread)
        self._lock.release()
        try:
            return machine.wait(None if timeout is None else machine.world.now + timeout)
        finally:
            if thread in self._waiters:
                self._waiters.remove(thread)
            if not machine.over:
                self._lock.acquire()

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._waiters))):
            Machine.current.wake(self._waiters.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class FakeSocket:
    """A connected socket."""

    family = 2

    def __init__(self, machine: Machine, owner: str, pair: bool = False) -> None:
        self.machine = machine
        self.owner = owner
        self.inbox: deque[bytes] = deque()
        self.ended = False
        self.failed = False
        self.closed = False
        self.inherited = False  # of the parent process: to be left alone
        self.watched = False
        self.pollers: dict[Thread, None] = {}
        self.number = machine.descriptor()
        machine.sockets[self.number] = self
        self.peer: Peer | None = None
        self.other: FakeSocket | None = None
        if not pair:
            self.back = Wire(machine.world, self.arrive)
            self.peer = machine.server.accept(owner, self.back)
            self.out = Wire(machine.world, self.peer.arrive)

    # What the wire does.

    def arrive(self, data: bytes) -> None:
        if self.closed:
            return
        if data:
            self.inbox.append(data)
        else:
            self.ended = True
        self._changed()

    def fail(self) -> None:
        """End with an error: the kernel gave the peer up."""
        if not self.closed:
            self.failed = self.ended = True
            self._changed()

    def black_hole(self) -> None:
        """Deliver nothing any more, either way."""
        self.back.cut = self.out.cut = True
        if self.watched:
            self.machine.world.at(self.machine.world.now + KEEPALIVE, self.fail)

    def _changed(self) -> None:
        for thread in tuple(self.pollers):
            self.machine.wake(thread)

    # What the client does.

    def setblocking(self, flag: bool) -> None:
        pass

    def settimeout(self, timeout: float | None) -> None:
        pass

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def send(self, data: bytes | memoryview) -> int:
        self._check("written")
        if self.other is not None:
            self.other.arrive(bytes(data))
            return len(data)
        if self.ended:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        data = bytes(data)
        if len(data) > 1 and self.machine.world.choices.chance(0.05):
            data = data[: 1 + self.machine.world.choices.pick(len(data) - 1)]
        self.out.send(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        self._check("read")
        if self.inbox:
            data = self.inbox.popleft()
            if len(data) > size:
                self.inbox.appendleft(data[size:])
            return data[:size]
        if self.failed:
            raise ConnectionResetError(errno.ETIMEDOUT, "Connection timed out")
        if self.ended:
            return b""
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def _check(self, done: str) -> None:
        if self.machine.over:
            raise GreenletExit
        if self.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if self.inherited:
            raise Violation(f"a socket of the parent process is {done} in the child")

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.machine.sockets.get(self.number) is self:
            del self.machine.sockets[self.number]
        if not self.inherited and self.peer is not None:
            self.out.send(b"")  # the parent's copy of an inherited one stays open
        self._changed()

    def state(self) -> int:
        """Give the events that `poll` would report."""
        events = real_select.POLLOUT
        if self.inbox or self.ended:
            events |= real_select.POLLIN
        if self.ended:
            events |= real_select.POLLRDHUP
        return events


class Poll:
    """A `select.poll`."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, events: int) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if number < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({number})")
        self._wanted[number] = events

    def _ready(self) -> list[tuple[int, int]]:
        found = []
        sockets = Machine.current.sockets
        for number, wanted in self._wanted.items():
            sock = sockets.get(number)
            events = real_select.POLLNVAL if sock is None else sock.state() & wanted
            if events:
                found.append((number, events))
        return found

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        machine = Machine.current
        if machine.over:
            raise GreenletExit
        found = self._ready()
        if found or timeout == 0:
            return found
        thread = Thread.running()
        until = None if timeout is None or timeout < 0 else machine.world.now + timeout / 1000
        sockets = [machine.sockets[n] for n in self._wanted if n in machine.sockets]
        for sock in sockets:
            sock.pollers[thread] = None
        try:
            while not found and (until is None or machine.world.now < until):
                machine.wait(until)
                found = self._ready()
        finally:
            for sock in sockets:
                sock.pollers.pop(thread, None)
        return found


def _socketpair() -> tuple[FakeSocket, FakeSocket]:
    machine = Machine.current
    owner = getattr(getcurrent(), "owner", "")
    one = FakeSocket(machine, owner, pair=True)
    other = FakeSocket(machine, owner, pair=True)
    one.other, other.other = other, one
    return one, other


def _open_socket(options: Any) -> FakeSocket:
    return Machine.current.connect(options)


def _notice_silence(sock: FakeSocket) -> None:
    sock.watched = True
    if sock.back.cut:
        sock.machine.world.at(sock.machine.world.now + KEEPALIVE, sock.fail)


_threading = SimpleNamespace(
    Thread=Thread,
    Lock=Lock,
    Condition=Condition,
    current_thread=Thread.running,
    get_ident=lambda: id(getcurrent()),
)
_time = SimpleNamespace(
    monotonic=lambda: Machine.current.world.now,
    sleep=lambda seconds: Machine.current.sleep(seconds),  # noqa: PLW0108 - current changes
)
_select = SimpleNamespace(
    poll=Poll,
    POLLIN=real_select.POLLIN,
    POLLOUT=real_select.POLLOUT,
    POLLRDHUP=real_select.POLLRDHUP,
)


@contextmanager
def no_threads() -> Iterator[None]:
    """Have the blocking client stand on the fakes, wherever it would use the real thing."""
    fakes: list[tuple[Any, str, Any]] = [
        (client._connection, "select", _select),
        (client._connection, "time", _time),
        (client._connection, "open_socket", _open_socket),
        (client._connection, "notice_silence", _notice_silence),
        (client._listener, "select", _select),
        (client._listener, "socket", SimpleNamespace(socketpair=_socketpair)),
        (client._listener, "threading", _threading),
        (client._listener, "time", _time),
        (client._pool, "threading", _threading),
        (client._pool, "time", _time),
        (client._sync, "threading", _threading),
        (client._sync, "time", _time),
        (client._tracker, "time", _time),
        (client._calls, "threading", _threading),
        (client._cache, "Lock", Lock),
    ]
    patches = [patch.object(module, name, fake) for module, name, fake in fakes]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()
