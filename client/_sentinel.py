"""Where the primary of a service is, or a replica of it: asked of its sentinels, and followed.

A sentinel's word is not enough: it may have missed a failover, and the server that it names may be
a former primary. So what is named has to say itself what it is, or the next sentinel is asked. All
connections of one client lead to one server: whoever first learns that it is another one now, a
new connection or the sentinels' announcement, ends those to the old one.

No I/O: `search` and `follow` are generators of steps, which each front end carries out in a few
lines (`_follower` for the blocking client, `_async_follower` for asyncio), as it does with the
conversations among them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from ._errors import ClientError, ConnectError, ConnectionClosed
from ._handshake import Conversation
from ._options import Options, show_address
from ._resp import ProtocolError, Push, ReplyError, RespError
from ._session import Trace
from ._tracking import PING_INTERVAL, Pause

C = TypeVar("C")

Address: TypeAlias = tuple[str, int]

# What may be wrong with a sentinel, and another one may do better at.
UNUSABLE = (ClientError, RespError, OSError)
# What may be wrong with a server that was named. A HandshakeError is not: the next one would not
# like our credentials any better.
_UNREACHABLE = (ConnectionClosed, ProtocolError, OSError)

# Seconds for reaching all sentinels together, where no `connect_timeout` says how long.
_PATIENCE = 5.0


class Visit(NamedTuple):
    """Connect, and carry a conversation; sent back is its result.

    Attributes:
        options: where to and as whom.
        conversation: makes it from HELLO's map.
        keep: whether the connection is what is being looked for; if not, it is closed.
    """

    options: Options
    conversation: Callable[[dict[str, Any]], Conversation[Any]]
    keep: bool


class Ask(NamedTuple):
    """Carry a conversation on the connection that was kept; sent back is its result."""

    conversation: Conversation[Any]


class Wait(NamedTuple):
    """Wait for a push on the connection that was kept, if there is one; sent back is a list."""

    seconds: float


Search: TypeAlias = Generator[Visit, Any, Address]
"""Ends with where the connection leads that was kept."""


class Named(NamedTuple):
    """What a sentinel names.

    Attributes:
        usable: the servers to try, the best first.
        known: those, and the ones that it takes for down.
    """

    usable: tuple[Address, ...]
    known: frozenset[Address]


class Finder(Generic[C]):
    """What the connections of one client share: the sentinels, and the server that was found.

    Args:
        options: of the client, with its sentinels.
        end: ends a connection that leads to the wrong server.
        trace: of the connections to sentinels.

    Attributes:
        address: where the client's connections lead, or None while that is open.
        moves: how often that has changed.
    """

    def __init__(
        self,
        options: Options,
        end: Callable[[C], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.options = options
        self.trace = trace
        self.address: Address | None = None
        self.moves = 0
        self._end = end
        self._order = [*options.sentinels]
        # All of them together get the time that one server gets.
        self._patience = (options.connect_timeout or _PATIENCE) / max(1, len(self._order))
        self.forget()

    def forget(self) -> None:
        """Forget the connections, which are not ours: a forked child begins so."""
        # Reentrant: the collector may end a client, and with it us, while its thread holds it.
        self._lock = threading.RLock()
        self._connections: WeakKeyDictionary[Any, Address] = WeakKeyDictionary()

    def begin(self) -> None:
        """Begin to follow the service, if that is not done yet. A connection was made."""

    # The connections.

    def add(self, connection: C, address: Address, moves: int) -> bool:
        """Take note of a new connection, and where it leads; False if it is not wanted there.

        Args:
            connection: to be ended when the service is elsewhere.
            address: where it leads.
            moves: as it was when its search began.
        """
        ended: list[C] = []
        with self._lock:
            if address != self.address:
                if moves != self.moves:
                    return False  # found before the move
                ended = self._leave(address)
            self._connections[connection] = address
        self._end_all(ended)
        return True

    def note(self, connection: C, options: Options) -> None:
        """Take note of a connection that is coming up: a move ends it as well.

        A frozen primary accepts it, and would keep it waiting long after the failover.
        """
        with self._lock:
            self._connections[connection] = (options.host, options.port)

    def move(self, address: Address | None) -> None:
        """End all connections that do not lead to `address`; None ends all."""
        with self._lock:
            ended = self._leave(address)
        self._end_all(ended)

    def _leave(self, address: Address | None) -> list[C]:
        self.address = address
        self.moves += 1
        leading = [*self._connections.items()]
        ended = [connection for connection, where in leading if where != address]
        for connection in ended:
            del self._connections[connection]
        return ended

    def _end_all(self, connections: list[C]) -> None:
        if self._end is not None:
            for connection in connections:
                self._end(connection)

    # Finding.

    def search(self, options: Options) -> Search:
        """Find the server, asking one sentinel after the other.

        Args:
            options: of the connection that is to be made.

        Raises:
            ConnectError: no sentinel led to one; the message says what each of them did.
            HandshakeError: one was found, and refuses us.
        """
        failures: list[str] = []
        refuted: set[Address] = set()
        for sentinel in tuple(self._order):
            asked = show_address(*sentinel)
            try:
                named: Named = yield Visit(self._to(sentinel), self._ask, keep=False)
            except UNUSABLE as error:
                failures.append(str(error) if asked in str(error) else f"{asked}: {error}")
                continue
            if not named.usable:
                failures.append(f"{asked} knows of no replica that is up")
            for address in sorted(named.usable, key=self._is_elsewhere):
                if address in refuted:
                    failures.append(f"{asked} names {show_address(*address)} as well")
                    continue
                try:
                    yield Visit(_at(options, address), partial(confirm, options.replica), keep=True)
                except _UNREACHABLE as error:
                    failures.append(f"{asked} names {show_address(*address)}: {error}")
                    refuted.add(address)
                    continue
                self._prefer(sentinel)
                return address
        raise ConnectError(f"found no server to be {options.address}: {'; '.join(failures)}")

    def _is_elsewhere(self, address: Address) -> bool:
        return address != self.address

    def follow(self) -> Generator[Visit | Ask | Wait, Any, None]:
        """Listen to one sentinel, while there is one, and go where the service goes."""
        pause = Pause()
        while True:
            for sentinel in tuple(self._order):
                try:
                    yield Visit(self._to(sentinel), _subscribe, keep=True)
                    pushes: list[Push] = []
                    while True:
                        named = yield Ask(self._ask({}))
                        pause = Pause()
                        yield from self._compare(named, self._has_switched(pushes))
                        # Asked without a word as well: it proves that the sentinel is there, and
                        # one that speaks RESP2 announces nothing.
                        pushes = yield Wait(PING_INTERVAL)
                except UNUSABLE:
                    continue
            yield Wait(pause.next())

    def _has_switched(self, pushes: list[Push]) -> bool:
        """Tell whether the end of a failover was announced: "+switch-master", "service …"."""
        start = f"{self.options.service} ".encode()
        return any(
            push[1:2] == [b"+switch-master"] and bytes(push[-1]).startswith(start)
            for push in pushes
            if push.kind == "message"
        )

    def _compare(self, named: Named, switched: bool) -> Generator[Visit, Any, None]:
        """Move, if a sentinel names another server than the one where we are."""
        here = self.address
        if here is None or here in named.usable:
            return
        if self.options.replica:
            if named.usable or here not in named.known:
                self.move(None)  # the next connection chooses
            return
        there = named.usable[0]
        if not switched:
            # It may be this sentinel that is behind. After a failover there is no doubt: not even
            # if the new primary can't be reached is the old one to be used.
            soon = {"timeout": self._patience, "connect_timeout": self._patience, "metrics": None}
            try:
                yield Visit(_at(self.options, there, **soon), partial(confirm, False), keep=False)
            except UNUSABLE:
                return
        self.move(there)

    def _to(self, sentinel: Address) -> Options:
        """Give the options of a connection to a sentinel."""
        options = self.options
        return _at(
            options,
            sentinel,
            db=0,
            username=options.sentinel_username,
            password=options.sentinel_password,
            credentials=None,
            protocol=None,
            encoding=None,
            metrics=None,
            timeout=self._patience,
            connect_timeout=self._patience,
        )

    def _ask(self, _server: dict[str, Any]) -> Conversation[Named]:
        service = self.options.service
        assert service is not None
        return ask_replicas(service) if self.options.replica else ask_primary(service)

    def _prefer(self, sentinel: Address) -> None:
        with self._lock:
            self._order.remove(sentinel)
            self._order.insert(0, sentinel)


def _at(options: Options, address: Address, **changes: Any) -> Options:
    """Give the options of a connection to an address, which asks no sentinel any more."""
    host, port = address
    return options.replace(
        host=host,
        port=port,
        sentinels=(),
        service=None,
        replica=False,
        sentinel_username=None,
        sentinel_password=None,
        finder=None,
        **changes,
    )


# The conversations.


def ask_primary(service: str) -> Conversation[Named]:
    """Ask a sentinel where the primary is.

    Raises:
        ConnectError: it does not know the service, or answers nonsense.
    """
    (reply,) = yield [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)]
    if reply is None:
        raise ConnectError(f"knows no service {service!r}")
    if isinstance(reply, ReplyError):
        raise ConnectError(f"refuses to tell: {reply}")
    address = _address(*reply) if isinstance(reply, list) and len(reply) == 2 else None
    if address is None:
        raise ConnectError("expected a host and a port, found something else")
    return Named((address,), frozenset([address]))


def ask_replicas(service: str) -> Conversation[Named]:
    """Ask a sentinel where the replicas are.

    Raises:
        ConnectError: it does not know the service, or answers nonsense.
    """
    (reply,) = yield [("SENTINEL", "REPLICAS", service)]
    if isinstance(reply, ReplyError):
        if "No such master" in str(reply):
            raise ConnectError(f"knows no service {service!r}")
        raise ConnectError(f"refuses to tell: {reply}")
    known: dict[Address, tuple[int, float]] = {}
    usable = []
    for each in reply if isinstance(reply, list) else ():
        # A map in RESP3, names and values in turn in RESP2.
        pairs = each.items() if isinstance(each, dict) else zip(each[::2], each[1::2], strict=False)
        told = dict(pairs)
        address = _address(told.get(b"ip"), told.get(b"port"))
        if address is None:
            raise ConnectError("expected the ip and port of each replica, found something else")
        flags = told.get(b"flags", b"").split(b",")
        # One that the sentinel itself has not reached yet, or that lost its primary, may do.
        worries = (b"disconnected" in flags) + (told.get(b"master-link-status") != b"ok")
        known[address] = (worries, random.random())  # noqa: S311 - to spread the clients
        if b"s_down" not in flags and b"o_down" not in flags:
            usable.append(address)
    return Named(tuple(sorted(usable, key=known.__getitem__)), frozenset(known))


def _address(host: Any, port: Any) -> Address | None:
    if isinstance(host, bytes) and isinstance(port, bytes) and host and port.isdigit():
        number = int(port) if len(port) <= 5 else 0
        if 0 < number < 65536:
            return host.decode("utf-8", "backslashreplace"), number
    return None


def confirm(replica: bool, server: dict[str, Any]) -> Conversation[None]:
    """Have a server say itself what it is.

    Args:
        replica: whether it should be one, or else a primary.
        server: HELLO's map, which tells (Redis 6.0 and later); ROLE does as well.

    Raises:
        ConnectError: it is not what it should be.
    """
    role = server.get("role")
    if role is None:
        (reply,) = yield [("ROLE",)]
        if isinstance(reply, ReplyError):
            raise ConnectError(f"it does not tell its role: {reply}")
        role = reply[0] if isinstance(reply, list) and reply else None
        role = role.decode("latin-1") if isinstance(role, bytes) else role
    if role not in (("replica", "slave") if replica else ("master",)):
        raise ConnectError(f"it says that its role is {role!r}")


# What is announced when a primary changes, and when a server is down or back for this sentinel.
# (Redis Sentinel's documentation, "Pub/Sub messages".)
_ANNOUNCEMENTS = ("+switch-master", "+sdown", "-sdown")


def _subscribe(server: dict[str, Any]) -> Conversation[None]:
    if server.get("proto") == 3:  # in RESP2 a subscriber could not ask any more
        (reply,) = yield [("SUBSCRIBE", *_ANNOUNCEMENTS)]
        if isinstance(reply, ReplyError):
            return  # its ACL does not allow it; asking will do
