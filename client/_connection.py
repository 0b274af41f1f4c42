"""One blocking connection: a socket around a `Session`.

A call writes its commands and reads until their results are complete, both at once where the
kernel's buffers are too small for one after the other. Its time-out is a deadline for the whole
call. Whatever leaves a call half done (time-out, interrupt, nonsense from the peer) closes the
connection: one whose replies can't be matched is never used again.

A connection is used by one thread at a time; `Client` is the thread-safe pool around it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from ._errors import (
    CommandTimeout,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
)
from ._handshake import Conversation, handshake, scrub
from ._log import DEBUG, log
from ._options import Options
from ._resp import Push, ReplyError
from ._session import Session, Trace, Word, without_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any, Self, TypeVar

    from ._metrics import Metrics

    T = TypeVar("T")


# A read that fills the first size is followed by one of the second: a big value then costs fewer
# calls (100 MiB: 0.62 of the CPU of 64 KiB each time), and a small reply no megabyte.
_READ_SIZE = 64 * 1024
_LARGE_READ_SIZE = 1024 * 1024
_LONGEST_POLL = 2**31 - 1  # milliseconds, a C int
# Pushes nobody reads are kept up to here; a peer that goes on pushing loses the connection.
_MAX_UNREAD_PUSHES = 100_000


class Connection:
    """A connection of one's own, for what a pool can't do: subscribe, track, select.

    It connects and shakes hands when it is made.

    Args:
        options: where to and as whom.
        name: what `trace` is told.
        trace: called as `trace(name, "sent" or "received", frame)`; credentials are struck out.
        deadline: of the call that needs it, a time of `time.monotonic()`; None is
            `options.timeout` for each step of the handshake.

    Attributes:
        id: the server's CLIENT ID of this connection, or None where it would not tell.
        server: HELLO's map.
        closed: whether the connection is gone, whoever closed it.
        sent: whether any byte of the last commands has left.
        waits: whether it waits for longer than `options.timeout`, for somebody else's write.
        pushes: what was pushed and not read yet, oldest first.

    Raises:
        ConnectError: no connection, or TLS failed.
        HandshakeError: the server refused the handshake (NoAuthError, WrongPassError).
    """

    def __init__(
        self,
        options: Options,
        *,
        name: str = "connection",
        trace: Trace | None = None,
        deadline: float | None = None,
    ) -> None:
        self._name = name
        self._trace = trace
        if options.sentinels:
            from ._follower import connect_found

            connect_found(self, options, deadline)
        else:
            self.open(options, deadline)

    def open(self, options: Options, deadline: float | None = None) -> None:
        """Connect and shake hands. For its maker alone; what was open before must be closed."""
        self.options = options = options.resolved()
        self.closed = False
        self.sent = self.waits = False
        self._metrics = options.metrics
        self.pushes: deque[Push] = deque()
        self._session = Session(
            on_push=self.take_push,
            encoding=options.encoding,
            errors=options.errors,
            max_bulk=options.max_bulk,
            trace=self._trace,
            name=self._name,
        )
        self._socket = open_socket(options)
        self._want_read: tuple[type[OSError], ...] = (BlockingIOError,)
        self._want_write: tuple[type[OSError], ...] = (BlockingIOError,)
        self._pending: Callable[[], int] | None = None
        self._read_size = _READ_SIZE
        if options.ssl:
            import ssl

            self._want_read = (BlockingIOError, ssl.SSLWantReadError)
            self._want_write = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
            self._pending = self._socket.pending  # type: ignore[attr-defined]
        self._socket.setblocking(False)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._either = select.poll()
        self._either.register(self._socket, select.POLLIN | select.POLLOUT)
        try:
            greeting = self.converse(handshake(options), deadline)
        except BaseException as error:
            self.close()
            if options.ssl and type(error) is ConnectionClosed:
                raise tls_refused(options, error) from error
            raise
        self._check_open()  # nonsense behind the last reply has closed it
        log(DEBUG, "connection", "%s: connected to %s in RESP%d", self._name, options.address,
            greeting.protocol)  # fmt: skip
        if self._metrics is not None:
            self._metrics.on_connect()
        self.greeting = greeting
        self.id = greeting.id
        self.server = greeting.server

    @property
    def protocol(self) -> int:
        """2 or 3: what is spoken now."""
        return self._session.protocol

    def execute(self, *command: Word) -> Any:
        """Send one command and give its reply.

        A SUBSCRIBE or UNSUBSCRIBE of any kind gives the number of subscriptions after it, once
        it is confirmed, in both protocols.

        Raises:
            ReplyError: the server answered with an error.
            CommandTimeout: no complete reply within `options.timeout`.
            ConnectionClosed: the connection was lost, or had been.
        """
        self.drain()
        (reply,) = self.roundtrip(command)
        if isinstance(reply, ReplyError | UnicodeDecodeError):
            raise reply
        return reply

    def execute_many(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send several commands at once and give their replies, errors in place."""
        self.drain()
        return self.roundtrip(*commands)

    def roundtrip(
        self, *commands: Sequence[Word], deadline: float | None = None, wait: float = 0.0
    ) -> list[Any]:
        """Do what `execute_many` does on a connection known to be drained.

        `deadline` is a time of `time.monotonic()`; None is `options.timeout` from now. `wait` is
        how many seconds longer a reply may take that waits for somebody else.
        """
        self.sent = False
        if deadline is None and self.options.timeout is not None:
            deadline = time.monotonic() + self.options.timeout
        if wait and deadline is not None:
            deadline = None if wait == float("inf") else deadline + wait
        if len(commands) == 1:
            data = self._session.send(*commands[0])
        else:
            data = self._session.send_many(commands)
        if self._metrics is not None:
            replies = self._measure(self._metrics, commands, data, deadline)
        else:
            replies = self._exchange(data, len(commands), deadline)
        return without_secrets(commands, replies)

    def request(self, command: Sequence[Word], deadline: float | None) -> Any:
        """Do what `roundtrip` does for one command, the shortest way, and give its reply."""
        if self._metrics is not None:
            return self.roundtrip(command, deadline=deadline)[0]
        self.sent = False
        replies = self._exchange(self._session.send(*command), 1, deadline)
        if type(replies[0]) is ReplyError:
            without_secrets((command,), replies)
        return replies[0]

    def _measure(
        self,
        metrics: Metrics,
        commands: Sequence[Sequence[Word]],
        data: bytes,
        deadline: float | None,
    ) -> list[Any]:
        """Exchange, and have it counted."""
        started, failure = time.perf_counter(), None
        metrics.on_bytes(len(data), 0)
        try:
            replies = self._exchange(data, len(commands), deadline)
        except BaseException as error:
            failure = error
            metrics.on_loss(error)  # `_exchange` has closed it
            raise
        finally:
            metrics.on_roundtrip(commands, time.perf_counter() - started, failure)
        for reply in replies:
            if isinstance(reply, ReplyError):
                metrics.on_error(reply.code)
        return replies

    def start(self, *command: Word) -> None:
        """Send one short command without waiting; `drain` will give its reply."""
        if self._write(self._session.send(*command)) is not None:
            self.close()
            raise ConnectionClosed(f"{self.options.address} takes no more bytes")

    def converse(self, conversation: Conversation[T], deadline: float | None = None) -> T:
        """Carry a conversation on to its end and give its result; `deadline` as of `roundtrip`."""
        try:
            batch = next(conversation)
            while True:
                batch = conversation.send(self.roundtrip(*batch, deadline=deadline))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def read_push(self, timeout: float | None = None) -> Push | None:
        """Give the oldest push not read yet, waiting up to `timeout` seconds for one.

        Returns:
            The push, or None if there was none in time; with 0 only what has arrived.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self.drain()
        while not self.pushes:
            if not self._wait(self._readable, deadline):
                return None
            self.drain()
        return self.pushes.popleft()

    def drain(self, chunks: int | None = None) -> list[Any]:
        """Read what has arrived, without waiting, and give the replies among it.

        Args:
            chunks: stop after so many reads of 64 KiB; None goes on until nothing is left, for
                `options.timeout` at most.

        Done before a command is sent, it finds a connection that was lost while it was idle, and
        a reply that nobody asked for before it can be taken for the command's.

        Raises:
            ConnectionClosed: the connection was lost, or a reply arrived that nobody asked for.
            ProtocolError: what arrived is no RESP.
            CommandTimeout: there was no end of it.
        """
        if not (self.closed or self._pending or self._readable.poll(0)):
            return []  # the usual case, before every command
        results: list[Any] = []
        deadline: float | None = None
        try:
            self._check_open()
            while (self._pending and self._pending()) or self._readable.poll(0):
                if deadline is None:
                    deadline = time.monotonic() + (self.options.timeout or float("inf"))
                elif time.monotonic() > deadline:
                    raise CommandTimeout(f"{self.options.address} did not stop pushing")
                data = self._read()
                if data is None:
                    break
                results += self._session.receive(data)
                if self._session.failure is not None:
                    raise self._session.failure
                self._check_pushes()
                if chunks is not None and (chunks := chunks - 1) <= 0:
                    break
        except BaseException:
            self.close()
            raise
        return results

    def _exchange(self, data: bytes, want: int, deadline: float | None) -> list[Any]:
        results: list[Any] = []
        try:
            if self.closed:
                self._check_open()
            unsent = self._write(data)
            while unsent is not None or len(results) < want:
                poll = self._readable if unsent is None else self._either
                if not self._wait(poll, deadline):
                    raise CommandTimeout(
                        f"{len(results)} of {want} replies from {self.options.address} "
                        f"within {self.options.timeout} s"
                    )
                if unsent is not None:
                    unsent = self._write(unsent)
                # One chunk, then the clock again: a peer that floods does not outrun the deadline.
                chunk = self._read(results)
                if chunk is not None:
                    some = self._session.receive(chunk)
                    if results:
                        results += some
                    else:
                        results = some
                    if self._session.failure is not None:
                        if len(results) < want:
                            raise self._session.failure
                        self.close()  # all is answered, and what follows is nonsense
                    if self.pushes:
                        self._check_pushes()
        except BaseException:
            # The interrupt of a user is no different from an error here: replies are on their way.
            self.close()
            raise
        return results

    def _write(self, unsent: bytes | memoryview) -> memoryview | None:
        """Send what the kernel takes; give the rest, or None if there is none."""
        while unsent:
            try:
                sent = self._socket.send(unsent)
            except self._want_write:
                return memoryview(unsent)
            except OSError:
                # The peer may have said why before it closed; reading will tell, or fail too.
                return None
            self.sent = True
            if sent == len(unsent):
                return None
            unsent = memoryview(unsent)[sent:]
        return None

    def _read(self, results: Sequence[Any] = ()) -> bytes | None:
        """Give what has arrived, or None if nothing has."""
        try:
            data = self._socket.recv(self._read_size)
        except self._want_read:
            return None
        except OSError as error:
            raise ConnectionClosed(
                f"the connection to {self.options.address} was lost: {error.strerror or error}"
            ) from None
        if not data:
            last = results[-1] if results else None
            why = ""
            if isinstance(last, ReplyError):
                why = f", after {scrub(self.options, last)!r}"
            raise ConnectionClosed(f"{self.options.address} closed the connection{why}")
        if self._metrics is not None:
            self._metrics.on_bytes(0, len(data))
        self._read_size = _READ_SIZE if len(data) < _READ_SIZE else _LARGE_READ_SIZE
        return data

    def _wait(self, poll: select.poll, deadline: float | None) -> bool:
        """Wait until the socket is ready; False if the deadline came first."""
        left = None
        if deadline is not None:
            left = (deadline - time.monotonic()) * 1000  # poll rounds up: no busy loop at the end
            if left <= 0:
                return False
            if left > _LONGEST_POLL:
                left = _LONGEST_POLL
        if self._pending is not None and self._pending():
            return True  # TLS has decrypted more than was read: the kernel knows nothing of it
        return bool(poll.poll(left))

    def wait(self, deadline: float | None) -> bool:
        """Wait until something has arrived; False if `deadline` (`time.monotonic()`) came first."""
        return self._wait(self._readable, deadline)

    def take_push(self, push: Push) -> None:
        """Keep a push for `read_push`. A subclass may route it instead; it must not raise."""
        self.pushes.append(push)

    def _check_pushes(self) -> None:
        if len(self.pushes) > _MAX_UNREAD_PUSHES:
            raise ConnectionClosed(
                f"{self.options.address} pushed more than {_MAX_UNREAD_PUSHES} frames that "
                "nobody read"
            )

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionClosed(f"the connection to {self.options.address} is closed")

    def fileno(self) -> int:
        """Give the socket's descriptor, or -1 once it is closed."""
        return self._socket.fileno()

    def notice_silence(self) -> None:
        """Have the kernel end a connection whose peer is silent for 3 s, idle or not.

        For a connection that the server tracks: when it drops its side without a word that
        reaches us, it forgets what to announce.
        """
        if self.options.unix_path is not None:
            return
        notice_silence(self._socket)

    def cut(self) -> None:
        """End the connection under another thread, which finds it lost."""
        try:  # noqa: SIM105 - contextlib is not loaded for this
            # An SSLSocket's own shutdown would have the other thread go on without TLS.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except (OSError, AttributeError):  # there may be no socket yet
            pass

    def close(self) -> None:
        """Close the connection. What was in flight is given up."""
        self.closed = True
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"RESP{self.protocol}"
        return f"<{type(self).__name__} {self._session.name} to {self.options.address}, {state}>"


def notice_silence(sock: socket.socket) -> None:
    """Have the kernel end a TCP connection whose peer is silent for 3 s, idle or not."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 1),  # s
        ("TCP_KEEPINTVL", 1),  # s
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 2500),  # ms; Linux
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def open_socket(options: Options) -> socket.socket:
    """Connect a socket, TLS included.

    Raises:
        ConnectTimeout: no answer within `options.connect_timeout`.
        ConnectError: the address can't be reached, or TLS was refused.
    """
    try:
        if options.unix_path is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(options.connect_timeout)
                sock.connect(options.unix_path)
            except BaseException:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((options.host, options.port), options.connect_timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if options.ssl:
                return tls_context(options).wrap_socket(
                    sock, server_hostname=server_hostname(options)
                )
            return sock
        except BaseException:
            sock.close()
            raise
    except TimeoutError:
        raise ConnectTimeout(
            f"{options.address} did not accept a connection within {options.connect_timeout} s"
        ) from None
    except OSError as error:
        raise not_connected(options, error) from error


def not_connected(options: Options, error: OSError) -> ConnectError:
    """Give what is raised where no connection came about, TLS included."""
    why = error.strerror or str(error)
    if type(error) is OSError or isinstance(error, ConnectionError):
        # asyncio puts "Connect call failed" and an address in the place of the system's words.
        why = os.strerror(error.errno) if error.errno else str(error)
    ended = isinstance(error, ConnectionResetError | BrokenPipeError)
    if options.ssl and (ended or "ALERT" in (getattr(error, "reason", None) or "")):
        why += _HINT
    return ConnectError(f"can't connect to {options.address}: {why}")


_HINT = " (as servers do that want a client certificate, or another one: ssl_certfile)"


def tls_refused(options: Options, error: BaseException) -> ConnectError:
    """Give what it means that a server ends the connection before it has answered anything.

    In TLS 1.3 it judges our certificate when we believe that all is done (RFC 8446, 4.4.2.4).
    """
    return ConnectError(f"can't connect to {options.address}: {error}{_HINT}")


def server_hostname(options: Options) -> str:
    """Give the name that the server's certificate must hold."""
    return options.ssl_server_hostname or options.host


def tls_context(options: Options) -> ssl.SSLContext:
    """Give the context that the options ask for: their own, or one that verifies."""
    import ssl

    context = options.ssl
    if not isinstance(context, ssl.SSLContext):
        context = ssl.create_default_context()  # verifies the chain and the name
    return context
