"""The conversations that bring a connection up: who we are, in which protocol, what is tracked.

A conversation is a generator. It yields a batch of commands for one round trip and is sent the
list of their replies, errors included; what it returns is its result. It never waits and never
touches a socket, so the blocking and the asyncio front end each drive it in a few lines.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ._errors import ConnectError, HandshakeError, NoAuthError, TrackingRefused, WrongPassError
from ._frozen import NamedTuple
from ._options import Options
from ._resp import ReplyError
from ._session import Word, unquoted
from ._tracking import INVALIDATE_CHANNEL, Tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")

Batch: TypeAlias = "list[tuple[Word, ...]]"
Conversation: TypeAlias = "Generator[Batch, list[Any], T]"


class Greeting(NamedTuple):
    """What the handshake learned.

    Attributes:
        protocol: 2 or 3, what both sides speak from now on.
        id: the connection's CLIENT ID, or None where the server would not tell.
        server: HELLO's map, with `str` keys; {"proto": 2} where HELLO is unknown.
    """

    protocol: int
    id: int | None
    server: dict[str, Any]


# A refusal with one of these codes is about us or about now, not about the command HELLO:
# asking again in RESP2 would get the same answer. (Redis 6.0 to 7.4, Valkey 8.1.)
_FINAL = frozenset(("NOAUTH", "WRONGPASS", "LOADING", "MASTERDOWN", "BUSY", "DENIED"))


def handshake(options: Options) -> Conversation[Greeting]:
    """Introduce ourselves: HELLO with AUTH and SETNAME, or AUTH, SETNAME and CLIENT ID; SELECT.

    HELLO exists since Redis 6.0. Older servers, proxies and users without the permission refuse
    it; then RESP2 without it will do, unless `options.protocol` is 3.

    Raises:
        NoAuthError, WrongPassError: the credentials are missing or wrong.
        HandshakeError: another refusal. Neither message shows the credentials, even where the
            server's own error repeats them (Redis before 7.0 quotes an unknown command's
            arguments).
    """
    hello: list[Word] = ["HELLO", options.protocol or 3]
    if options.password is not None:
        hello += ["AUTH", options.username or "default", options.password]
    if options.client_name is not None:
        hello += ["SETNAME", options.client_name]
    (reply,) = yield [tuple(hello)]
    if isinstance(reply, ReplyError):
        if reply.code in _FINAL:
            raise _refusal(options, "HELLO", reply)
        if reply.message.startswith("max number of clients"):
            # Said instead of an answer, before the connection is closed (Redis 6.2 to 8.1).
            raise ConnectError(f"{options.address} takes no more connections: {reply}")
        if options.protocol == 3:
            raise HandshakeError(
                f"protocol=3 was asked for and the server refuses HELLO 3: {scrub(options, reply)}"
            )
        greeting = yield from _classic_handshake(options)
    else:
        greeting = _read_hello(options, reply)
    if options.db:
        (reply,) = yield [("SELECT", options.db)]
        if isinstance(reply, ReplyError):
            raise _refusal(options, "SELECT", reply)
    return greeting


def _classic_handshake(options: Options) -> Conversation[Greeting]:
    batch: Batch = []
    if options.password is not None:
        user = () if options.username is None else (options.username,)
        batch.append(("AUTH", *user, options.password))
    if options.client_name is not None:
        batch.append(("CLIENT", "SETNAME", options.client_name))
    # Asked for its number, and for the NOAUTH that a server in want of a password answers.
    batch.append(("CLIENT", "ID"))
    replies = yield batch
    for command, reply in zip(batch[:-1], replies[:-1], strict=True):
        if isinstance(reply, ReplyError):
            raise _refusal(options, str(command[0]), reply)
    client_id = replies[-1]
    if isinstance(client_id, ReplyError):
        if client_id.code in _FINAL:
            raise _refusal(options, "CLIENT ID", client_id)
        client_id = None
    elif type(client_id) is not int:
        raise HandshakeError(f"expected CLIENT ID's number, found {type(client_id).__name__}")
    return Greeting(2, client_id, {"proto": 2})


def _read_hello(options: Options, reply: Any) -> Greeting:
    if isinstance(reply, list) and len(reply) % 2 == 0:
        pairs = [*zip(reply[::2], reply[1::2], strict=True)]
    elif isinstance(reply, dict):
        pairs = [*reply.items()]
    else:
        raise HandshakeError(f"expected a map in answer to HELLO, found {type(reply).__name__}")
    server = {_text(key): _text(value) for key, value in pairs if isinstance(key, bytes | str)}
    spoken = (options.protocol,) if options.protocol else (2, 3)
    if [type(server.get(name)) for name in ("proto", "id")] != [int, int] or (
        server["proto"] not in spoken
    ):
        raise HandshakeError("HELLO's map holds no valid proto and id")
    return Greeting(server["proto"], server["id"], server)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _refusal(options: Options, step: str, reply: ReplyError) -> HandshakeError:
    text = scrub(options, reply)
    if reply.code == "NOAUTH":
        return NoAuthError(text)
    # Redis 5 says ERR to a wrong password, Redis 6 and later WRONGPASS.
    if reply.code == "WRONGPASS" or (step == "AUTH" and "invalid password" in text):
        return WrongPassError(text)
    return HandshakeError(f"the server refuses {step}: {text}")


def scrub(options: Options, error: ReplyError) -> str:
    """Give a server's error without the credentials that it may repeat."""
    text = str(unquoted(error))
    return text.replace(options.password, "***") if options.password else text


def track(tracking: Tracking, redirect: int | None = None) -> Conversation[bytes | None]:
    """Turn tracking on, for this connection or for the one whose id is `redirect`.

    Returns:
        With `redirect`, which server this is, as `listen` does: ids are small numbers, and another
        server behind the same address has a client of that id as well.

    Raises:
        TrackingRefused: the server or its ACL does not allow it.
    """
    reply, *rest = yield [tracking.command(redirect), *([_IDENTITY] if redirect else [])]
    if isinstance(reply, ReplyError):
        raise TrackingRefused(
            f"the server refuses CLIENT TRACKING: {reply}", for_now=reply.code in _FOR_NOW
        )
    return _identity(rest[0]) if rest else None


# With these codes a server refuses for now what it allows at another time.
_FOR_NOW = frozenset(("BUSY", "LOADING", "MASTERDOWN", "OOM", "TRYAGAIN"))

_IDENTITY = (b"INFO", b"server")


def identify() -> Conversation[bytes | None]:
    """Ask which server this is: its run_id, or None where it would not tell."""
    (info,) = yield [_IDENTITY]
    return _identity(info)


def _identity(info: Any) -> bytes | None:
    """Read a server's run_id from INFO; None if it would not tell."""
    text = info.encode() if isinstance(info, str) else info
    if isinstance(text, bytes):
        for line in text.splitlines():
            if line.startswith(b"run_id:"):
                return bytes(line[7:])
    return None


def listen(tracking: Tracking, greeting: Greeting) -> Conversation[bytes | None]:
    """Make a connection the one that hears of invalidations.

    In RESP3 they come as pushes to whoever is the target; in RESP2 only to a subscriber of
    `__redis__:invalidate`. A subscriber in RESP2 may send no CLIENT command, so what there is to
    track on this connection is turned on first, redirected to itself in RESP2.

    Returns:
        Which server this is (its run_id), or None where it would not tell.

    Raises:
        TrackingRefused: as `track`, or the subscription is refused, or the id is unknown.
    """
    if greeting.id is None:
        raise TrackingRefused("the server does not tell CLIENT ID, which REDIRECT needs")
    (info,) = yield [_IDENTITY]
    if tracking.on_listener:
        yield from track(tracking, greeting.id if greeting.protocol == 2 else None)
    if greeting.protocol == 2:
        (reply,) = yield [("SUBSCRIBE", INVALIDATE_CHANNEL)]
        if isinstance(reply, ReplyError):
            raise TrackingRefused(
                f"the server refuses SUBSCRIBE: {reply}", for_now=reply.code in _FOR_NOW
            )
    return _identity(info)


def announced_keys(push: Sequence[Any]) -> tuple[bytes, ...] | None:
    """Read an invalidation: the raw keys, or None for all of them.

    Takes the RESP3 push `[invalidate, keys]` and the RESP2 message
    `[message, __redis__:invalidate, keys]`. The null of a flush comes in either dialect's
    spelling (tracking.c, Redis 6.2 to 8). What can't be read is taken for a flush: dropping too
    much is slow, dropping too little is wrong.
    """
    keys = push[-1] if len(push) > 1 else None
    if isinstance(keys, list) and all(isinstance(key, bytes) for key in keys):
        return tuple(keys)
    return None
