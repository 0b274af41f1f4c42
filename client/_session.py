"""One connection's state, without a socket: what to send, whose reply this is, what was pushed.

A session turns commands into bytes and the server's bytes into results, one result per command,
in order. Whatever the server pushes (RESP3 `>` frames, RESP2 messages of a subscriber) goes to
`on_push` in stream order and is never mistaken for a reply. What can't be matched any more is
an error for good: the owner of the session closes the connection.

It does no I/O, so that a blocking socket, an event loop and a simulation can all drive it:
write what `send` returns, pass what arrives to `receive`, count the results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from ._errors import CommandRefused, UnexpectedReply
from ._resp import Parser, Push, ReplyError, encode_command, encode_commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Word: TypeAlias = bytes | bytearray | memoryview | str | int | float
"""What an argument of a command may be; a `bool` or None is refused by the encoder."""

Trace: TypeAlias = "Callable[[str, str, object], None]"
"""Called with a connection's name, a direction ("sent" or "received") and a decoded frame."""


class Role(Enum):
    """What a command does to the matching of replies, or to the state of its connection."""

    PLAIN = "one reply, nothing else"
    SUBSCRIBE = "confirmed once per channel; in RESP3 by pushes, and without a reply"
    HELLO = "may change the protocol"
    RESET = "back to RESP2, unsubscribed, untracked, database 0"
    UNMATCHABLE = "answers without end, or not at all"
    STATE = "changes the state of its connection"


_ROLES = {
    **dict.fromkeys(
        ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"),
        Role.SUBSCRIBE,
    ),
    "HELLO": Role.HELLO,
    "RESET": Role.RESET,
    **dict.fromkeys(("MONITOR", "SYNC", "PSYNC"), Role.UNMATCHABLE),
    **dict.fromkeys(("AUTH", "SELECT", "QUIT"), Role.STATE),
    **dict.fromkeys(("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"), Role.STATE),
    **dict.fromkeys(("ASKING", "READONLY", "READWRITE"), Role.STATE),
}
_SUBCOMMAND_ROLES = {
    "CLIENT REPLY": Role.UNMATCHABLE,
    "SCRIPT DEBUG": Role.UNMATCHABLE,  # the debugger answers in the place of what follows
    **dict.fromkeys(("CLIENT TRACKING", "CLIENT CACHING", "CLIENT SETNAME"), Role.STATE),
    **dict.fromkeys(("CLIENT NO-EVICT", "CLIENT NO-TOUCH", "CLIENT CAPA"), Role.STATE),
    "CLIENT IMPORT-SOURCE": Role.STATE,
}

# A spelling's role is looked up once. The bound is against a caller who sends endless spellings.
_MEMO_SIZE = 1024
_memo: dict[object, Role] = {}
# The spellings among them that are PLAIN whatever follows: one look, for nearly every command.
ordinary: set[object] = set()


_HASHED = frozenset((str, bytes))


def unusual(commands: Iterable[Sequence[Word]]) -> list[Sequence[Word]]:
    """Give those commands whose role takes more than one look to tell."""
    return [
        command
        for command in commands
        if not command or type(command[0]) not in _HASHED or command[0] not in ordinary
    ]


def role(command: Sequence[Word]) -> Role:
    """Tell what a command does to its connection, by its name in any spelling."""
    name = command[0] if command else b""
    if isinstance(name, bytearray | memoryview):
        name = bytes(name)
    found = _memo.get(name)
    if found is None:
        found = _ROLES.get(_upper(name), Role.PLAIN)
        if len(_memo) < _MEMO_SIZE:
            _memo[name] = found
            if found is Role.PLAIN and len(name) != 6:  # type: ignore[arg-type]
                ordinary.add(name)
    if found is Role.PLAIN and len(command) > 1 and len(name) == 6:  # type: ignore[arg-type]
        return _SUBCOMMAND_ROLES.get(f"{_upper(name)} {_upper(command[1])}", Role.PLAIN)
    return found


def role_word(word: object) -> str:
    """Give a command's name, or a container's subcommand, as the server compares it."""
    return _upper(word)


def _upper(word: object) -> str:
    if isinstance(word, bytes | bytearray | memoryview):
        word = bytes(word).decode("latin-1")
    # Servers compare subcommands as C strings, which end at a NUL (Redis 6.2, Valkey 8.1).
    return word.upper().partition("\0")[0] if isinstance(word, str) else str(word)


_MESSAGES = frozenset(("message", "pmessage", "smessage"))
_CONFIRMATIONS = frozenset(name.lower() for name, r in _ROLES.items() if r is Role.SUBSCRIBE)


class _Awaited:
    """A command in flight whose reply needs more than being handed over."""

    __slots__ = ("confirmations", "index", "kind", "role")

    def __init__(self, index: int, command_role: Role, command: Sequence[Word]) -> None:
        self.index = index
        self.role = command_role
        self.kind = _upper(command[0]).lower()
        # Without arguments UNSUBSCRIBE names what is subscribed when the server reads it: the
        # number is known once this command is the oldest in flight.
        self.confirmations: int | None = len(command) - 1 or None


class Session:
    """The protocol state of one connection.

    Args:
        on_push: called with each `Push`, in stream order, between the results it stands between.
            It must not raise.
        encoding, errors: as of `resp.Parser`. Pushes of RESP3 stay bytes all the same, because
            an invalidation names raw keys.
        max_bulk: the longest bulk reply accepted, in bytes.
        trace: told of every frame, decoded, with credentials struck out; `name` says whose.

    Attributes:
        failure: what the server's bytes broke behind the results that `receive` gave last, or
            None; nothing more will be understood.
    """

    __slots__ = (
        "_awaited",
        "_parser",
        "_received",
        "_secrets",
        "_sent",
        "_trace",
        "failure",
        "name",
        "on_push",
        "protocol",
        "subscriptions",
    )

    def __init__(
        self,
        *,
        on_push: Callable[[Push], None],
        encoding: str | None = None,
        errors: str = "strict",
        max_bulk: int = 512 * 1024 * 1024,
        trace: Trace | None = None,
        name: str = "connection",
    ) -> None:
        self._parser = Parser(encoding=encoding, errors=errors, max_bulk=max_bulk, raw_pushes=True)
        self._sent = 0
        self._received = 0
        self._awaited: deque[_Awaited] = deque()
        self._trace = trace
        self._secrets: deque[int] = deque()  # with a trace: which replies may quote a secret
        self.failure: Exception | None = None
        self.name = name
        self.on_push = on_push
        self.protocol = 2
        self.subscriptions: dict[str, set[bytes]] = {}

    @property
    def owed(self) -> int:
        """How many results the server still owes."""
        return self._sent - self._received

    def send(self, *command: Word) -> bytes:
        """Give the bytes of one command, whose result `receive` will return in its turn.

        Raises:
            TypeError, ValueError: an argument that a command can't carry; nothing is owed then.
            CommandRefused: a command whose replies can't be matched (MONITOR, CLIENT REPLY).
        """
        data = encode_command(*command)
        if self._trace is None and type(command[0]) in _HASHED and command[0] in ordinary:
            self._sent += 1
        else:
            self._account(command)
        return data

    def send_many(self, commands: Sequence[Sequence[Word]]) -> bytes:
        """Give the bytes of several commands, as `send` for each. All are refused or none."""
        data = encode_commands(commands)
        special = unusual(commands)
        if not special and self._trace is None:
            self._sent += len(commands)
            return data
        for command in special:
            if role(command) is Role.UNMATCHABLE:
                _refuse(command)
        for command in commands:
            self._account(command)
        return data

    def _account(self, command: Sequence[Word]) -> None:
        command_role = role(command)
        if command_role is not Role.PLAIN and command_role is not Role.STATE:
            if command_role is Role.UNMATCHABLE:
                _refuse(command)
            self._awaited.append(_Awaited(self._sent, command_role, command))
        self._sent += 1
        if self._trace is not None:
            shown = redact(command)
            self._trace(self.name, "sent", shown)
            if "***" in shown:
                self._secrets.append(self._sent - 1)

    def receive(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Take bytes from the server and give the results they complete, oldest first.

        A `ReplyError` is a result like any other, and so is the `UnicodeDecodeError` of a reply
        that `encoding` does not fit. The result of a SUBSCRIBE or UNSUBSCRIBE is the number of
        channels and patterns subscribed after it, once its last confirmation is here.

        Raises:
            ProtocolError: the bytes are no RESP. What was complete before them has been
                returned by an earlier call, or by this one, and then `failure` is set.
            UnexpectedReply: more replies than commands.
        """
        values = self._parser.feed_all(data)
        self.failure = self._parser.error
        if not (self._awaited or self.subscriptions or self._trace):
            for value in values:
                if type(value) is Push:
                    break
            else:  # the usual case: nothing but replies
                self._received += len(values)
                if self._received > self._sent:
                    raise self._unexpected(values[-1])
                return values
        results: list[Any] = []
        for value in values:
            if type(value) is Push:
                self._take_push(value, results)
            elif self.protocol == 2 and (message := self._as_push(value)) is not None:
                self._take_push(message, results)
            else:
                self._take_reply(value, results)
        return results

    def _take_reply(self, value: Any, results: list[Any]) -> None:
        if self._received == self._sent:
            raise self._unexpected(value)
        awaited = self._oldest()
        if awaited is not None:
            refused = isinstance(value, ReplyError)
            if awaited.role is Role.SUBSCRIBE and not refused:
                raise self._unexpected(value)
            self._awaited.popleft()
            if awaited.role is Role.HELLO and not refused:
                self.protocol = _protocol_of(value, self.protocol)
            elif awaited.role is Role.RESET and not refused:
                self.protocol = 2
                self.subscriptions.clear()
        if self._trace is not None:
            secret = bool(self._secrets) and self._secrets[0] == self._received
            if secret:
                self._secrets.popleft()
            self._trace(self.name, "received", _struck_out(value, secret))
        self._received += 1
        results.append(value)

    def _take_push(self, push: Push, results: list[Any]) -> None:
        if self._trace is not None:
            self._trace(self.name, "received", push if self.protocol == 3 else list(push))
        kind = push.kind
        if kind in _CONFIRMATIONS and len(push) == 3:
            self._note_subscription(kind, push)
            awaited = self._oldest()
            if awaited is not None and awaited.kind == kind:
                awaited.confirmations -= 1  # type: ignore[operator]
                if awaited.confirmations == 0:
                    self._awaited.popleft()
                    self._received += 1
                    results.append(push[2])
        self.on_push(push)

    def _oldest(self) -> _Awaited | None:
        """Give the special command that is the oldest in flight, if it is a special one."""
        if not self._awaited or self._awaited[0].index != self._received:
            return None
        awaited = self._awaited[0]
        if awaited.role is Role.SUBSCRIBE and awaited.confirmations is None:
            # One confirmation a channel; one that names none if there was none.
            subscribed = self.subscriptions.get(_family(awaited.kind), ())
            awaited.confirmations = len(subscribed) or 1
        return awaited

    def _as_push(self, value: Any) -> Push | None:
        """Tell a RESP2 message or confirmation, an array like any other, from a reply."""
        if self.subscriptions and isinstance(value, UnicodeDecodeError):
            return Push([b"undecodable", value])  # a message; a subscriber gets hardly else
        if type(value) is not list or not value:
            return None
        head = value[0]
        kind = head.decode("latin-1") if isinstance(head, bytes) else head
        if not isinstance(kind, str):
            return None
        awaited = self._oldest()
        if kind in _CONFIRMATIONS and awaited is not None and awaited.role is Role.SUBSCRIBE:
            return Push(value)
        if self.subscriptions and kind in _MESSAGES | _CONFIRMATIONS:
            return Push(value)
        return None

    def _note_subscription(self, kind: str, push: Push) -> None:
        # Counted before the set changes: an argument-less UNSUBSCRIBE confirms each one of it.
        awaited = self._oldest()
        channel = push[1].encode() if isinstance(push[1], str) else push[1]
        if not isinstance(channel, bytes):
            return
        family = _family(kind)
        if "un" in kind:
            self.subscriptions.get(family, set()).discard(channel)
            if not self.subscriptions.get(family):
                self.subscriptions.pop(family, None)
        elif awaited is not None and awaited.kind == kind:  # what nobody asked for is not counted
            self.subscriptions.setdefault(family, set()).add(channel)

    def _unexpected(self, value: object) -> UnexpectedReply:
        return UnexpectedReply(
            f"expected no further reply, found one of type {type(value).__name__}"
            if self._received >= self._sent
            else f"expected the confirmation of a subscription, found {type(value).__name__}"
        )


def _family(kind: str) -> str:
    """Give the subscribing word of a confirmation: `punsubscribe` belongs to `psubscribe`."""
    return kind.replace("unsub", "sub")


def _protocol_of(hello: object, current: int) -> int:
    """Read the protocol that HELLO's reply announces: a map in RESP3, a flat array in RESP2."""
    if isinstance(hello, list):
        pairs = zip(hello[::2], hello[1::2], strict=False)
        hello = {key: value for key, value in pairs if isinstance(key, str | bytes)}
    if isinstance(hello, dict):
        proto = hello.get(b"proto", hello.get("proto"))
        if type(proto) is int and proto in (2, 3):
            return proto
    return current


def _refuse(command: Sequence[Word]) -> None:
    words = " ".join(_upper(word) for word in command[:2] if _upper(command[0]) == "CLIENT")
    raise CommandRefused(
        f"{words or _upper(command[0])} is refused: the server's answers to what follows it "
        "could not be matched with commands any more"
    )


def redact(command: Iterable[Word]) -> list[Word]:
    """Give the command for a log, its credentials struck out."""
    words = list(command)
    names = [_upper(word) for word in words]
    first = len(words)  # from here on all is struck out
    if names[:1] in (["AUTH"], ["MIGRATE"]):
        first = 1
    elif names[:2] in (["ACL", "SETUSER"], ["CONFIG", "SET"], ["CONFIG", "GET"]):
        first = 2
    elif names[:1] == ["HELLO"] and "AUTH" in names[2:]:
        first = names.index("AUTH", 2) + 1
        return [*words[:first], "***", "***", *words[first + 2 :]]
    return [*words[:first], *["***"] * len(words[first:])]


def unquoted(error: ReplyError) -> ReplyError:
    """Give a server's error without what it quotes of its command.

    Redis quotes the arguments of a command that it does not know, cut at 128 bytes, and the rule
    of an ACL SETUSER that it does not like; a search for the whole secret would not find them.
    """
    text = str(error)
    quotes = [at for mark in "`'\"" if (at := text.find(mark)) >= 0]
    return ReplyError(text[: min(quotes)].rstrip(", ") if quotes else text)


def without_secrets(commands: Sequence[Sequence[Word]], replies: list[Any]) -> list[Any]:
    """Give the replies of commands, without what errors quote of those that carry a secret."""
    if ReplyError not in map(type, replies):
        return replies
    for index, reply in enumerate(replies):
        if isinstance(reply, ReplyError) and "***" in redact(commands[index]):
            replies[index] = unquoted(reply)
    return replies


def _struck_out(reply: object, secret: bool) -> object:
    """Give a reply for a log: no error with what it quotes, nothing told about a secret."""
    if isinstance(reply, ReplyError):
        return unquoted(reply)
    if secret:
        return reply if reply in (b"OK", "OK") or _is_hello(reply) else "***"
    if type(reply) is list and any(isinstance(member, ReplyError) for member in reply):
        return [_struck_out(member, secret=False) for member in reply]  # of EXEC
    return reply


def _is_hello(reply: object) -> bool:
    # HELLO's own answer names nothing secret, and is what one wants to see.
    return isinstance(reply, dict | list) and any(key in (b"proto", "proto") for key in reply)
