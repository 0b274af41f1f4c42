"""What a client's calls do, whoever waits for them: the half that both front ends share.

Each call is a generator of steps (see `_steps`). Here is decided which commands a shared
connection may carry, what is read through the cache, and what must be dropped from it, and when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence

from ._cache import Cache
from ._commands import (
    blocks_for,
    cacheable_keys,
    find_command,
    is_read_only,
    is_script,
    may_block,
    why_not_cacheable,
    written_keys,
)
from ._errors import CommandRefused
from ._memoize import Computation, running
from ._options import Options, check_seconds
from ._read import Read
from ._reply_errors import class_errors, classed
from ._resp import ReplyError, encode_command, parse
from ._session import Role, Word, role, unusual, without_secrets
from ._steps import BARRIER, Call, ask
from ._tracking import Tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CACHING_NO = (b"CLIENT", b"CACHING", b"NO")


def read_options(
    url: str, cache: Cache | bool | None, tracking: Tracking | None, **given: Any
) -> tuple[Options, Cache | None]:
    """Judge what `connect` and `connect_async` were given, before anything is sent.

    Raises:
        ValueError, TypeError: an option makes no sense.
    """
    timeouts = {name: given.pop(name) for name in ("timeout", "connect_timeout")}
    given = {name: value for name, value in given.items() if value is not None}
    options = Options.from_url(url, **timeouts, **given)
    if cache is True or (cache is None and tracking is not None):
        cache = Cache()
    elif cache is False or cache is None:
        if tracking is not None:
            raise ValueError("tracking keeps a cache right, and cache=False refuses one")
        cache = None
    elif not isinstance(cache, Cache):
        raise TypeError(f"cache takes a Cache, a bool or None, not {type(cache).__name__}")
    return options, cache


class Calls:
    """The calls of one client.

    Args:
        options: of its connections.
        cache: its cache, or None.
        tracking: how the server keeps the cache right.
        hear: whether pushes are read only when a call asks for it (`Step.HEAR`).

    Attributes:
        cache: the cache, or None.
    """

    def __init__(
        self, options: Options, cache: Cache | None, tracking: Tracking, *, hear: bool
    ) -> None:
        self._options = options
        self._tracking = tracking
        self._hear = hear
        self.cache = cache
        if options.protocol is not None and cache is not None:
            tracking.check_protocol(options.protocol)
        if cache is not None:
            cache.claim(self, self._why_not_cached)
        # What the hit path looks at: reads of `execute` go through the cache unless opted in, and
        # hits are served right there unless something has to be done first.
        self._auto: Cache | None = None if tracking.optin else cache
        self._careful = hear or (cache is not None and cache.audit > 0)
        self._direct = not self._careful
        self._computing = 0
        self._counting = threading.Lock()

    def _call(
        self,
        command: Sequence[Word],
        cache: Cache | None,
        ttl: float | None = None,
        max_stale: float | None = None,
        tried: int = 0,
    ) -> Call[Any]:
        """Do one command, as a read through `cache` if it is one that may be cached."""
        retries = self._options.retries - tried
        if self.cache is None:
            return (yield from ask([command], retries))[0]
        words = to_words(command)
        if cache is not None:
            keys = cacheable_keys(words)
            if keys:
                read = Read(cache, self._tracking, self._hear, ttl, max_stale, retries)
                if len(words) > 1 and words[0].upper() == b"MGET":
                    return (yield from read.each(command[1:], keys))
                return (yield from read.one(command, keys))
        return (yield from self._mutate([command], [words]))[0]

    def _call_uncached(self, command: Sequence[Word]) -> Call[Any]:
        """Do one command past the cache; in OPTOUT mode its keys are not tracked either."""
        if self.cache is not None and self._tracking.optout:
            self._spoil("it read past the cache")
            if cacheable_keys(to_words(command)) is not None:
                return (yield [_CACHING_NO, command])[1]
        return (yield from self._call(command, None))

    def _call_many(self, batch: list[tuple[Word, ...]]) -> Call[list[Any]]:
        """Do several commands in one round trip."""
        return class_errors((yield from self._mutate(batch, batch))) if batch else []

    def _call_transaction(self, batch: list[tuple[Word, ...]]) -> Call[list[Any] | None]:
        """Do several commands between MULTI and EXEC; None if a watched key had changed."""
        if not batch:
            return []
        replies = yield from self._mutate([(b"MULTI",), *batch, (b"EXEC",)], batch)
        if isinstance(replies[0], ReplyError):
            refused = classed(replies[0])
            refused.add_note("MULTI was refused, so the commands ran one by one")
            raise refused
        outcome = classed(replies[-1])
        if isinstance(outcome, UnicodeDecodeError):
            raise outcome
        if isinstance(outcome, ReplyError):
            for number, reply in enumerate(replies[1:-1], 1):
                if isinstance(reply, ReplyError):
                    outcome.add_note(f"command {number} of {len(batch)}: {reply}")
            raise outcome
        return None if outcome is None else class_errors(without_secrets(batch, list(outcome)))

    def _call_script(
        self, source: bytes, digest: str, keys: Sequence[Word], args: Sequence[Word], read: bool
    ) -> Call[Any]:
        """Run a script by its digest, or by its source where the server does not know it."""
        end = "_RO" if read else ""
        tail = (len(keys), *keys, *args)
        reply = yield from self._call((f"EVALSHA{end}", digest, *tail), None)
        if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
            reply = yield from self._call((f"EVAL{end}", source, *tail), None)
        return reply

    def _mutate(
        self, batch: Sequence[Sequence[Word]], counted: Iterable[Sequence[Word]]
    ) -> Call[list[Any]]:
        """Send a batch and keep the cache from showing what was there before it.

        What is written is dropped when the write is sent, and again when its reply is here: a
        read that started in between may have seen the old value. It is dropped as well if the
        outcome is not known.
        """
        cache = self.cache
        # Of several commands some have run.
        retries = self._options.retries if len(batch) == 1 else 0
        if cache is None:
            return (yield from ask([*batch], retries))
        self._spoil("it sent commands that are not cached")
        keys = self._touched(counted)
        if keys == ():
            replies = yield from ask([*batch], retries)
            yield from self._hear_scripts(counted)
            return replies
        cache.invalidate(keys, "own write")
        try:
            replies = yield from ask([*batch], retries)
        finally:
            cache.invalidate(keys, "own write")
        yield from self._hear_scripts(counted)
        return replies

    def _hear_scripts(self, commands: Iterable[Sequence[Word]]) -> Call[None]:
        """Have the keys dropped that scripts wrote and did not declare, before they return."""
        if not any(is_script(to_words(command)) for command in commands):
            return
        assert self.cache is not None
        # Inline too: what is pushed behind the reply may arrive after it.
        if self._tracking.noloop or not (yield BARRIER):
            self.cache.flush("own write")

    def _touched(self, commands: Iterable[Sequence[Word]]) -> tuple[bytes, ...] | None:
        """Give the keys that commands may write; None if it could be any."""
        touched: list[bytes] = []
        for command in commands:
            keys = written_keys(to_words(command))
            if keys is None:
                return None
            touched += keys
        return tuple(touched)

    def _check_cacheable(
        self, command: Sequence[Word], ttl: float | None, max_stale: float | None
    ) -> None:
        """Refuse what `cached` can't do, before anything is sent."""
        check_seconds("ttl", ttl)
        if max_stale != 0:
            check_seconds("max_stale", max_stale)
        words = to_words(command)
        if cacheable_keys(words) is None:
            raise CommandRefused(why_not_cacheable(words) or "its reply is never cached")

    def _check_allowed(self, batch: Iterable[Sequence[Word]]) -> None:
        """Refuse what would change the state of a connection that others use."""
        for command in unusual(batch):
            command_role = role(command)
            if command_role is not Role.PLAIN:
                name = b" ".join(to_words(command[:2] if _is_client(command) else command[:1]))
                raise CommandRefused(
                    f"{name.decode('latin-1').upper()} {command_role.value}; this client shares "
                    f"its connections: {_INSTEAD.get(command_role, 'use a Connection')}"
                )

    def _wait_of(self, words: Sequence[bytes]) -> float:
        """Give how many seconds a command of its own may wait for somebody else."""
        if not may_block(words):
            return 0.0
        name = words[0].upper()
        if name in _AFTER_ITS_OWN:
            raise CommandRefused(
                f"{name.decode('latin-1')} waits for what its own connection wrote; this client "
                "shares its connections: use a Connection"
            )
        return blocks_for(words)

    def _why_not_cached(self, command: tuple[Any, ...]) -> str | None:
        words = to_words(command)
        keys = cacheable_keys(words)
        if keys is None:
            return why_not_cacheable(words)
        if not self._tracking.covers(keys):
            return "a key is not under the prefixes that are tracked"
        return None

    # What is computed from reads.

    def _spoil(self, reason: str) -> None:
        if self._computing and self.cache is not None:
            for computation in running(self.cache):
                computation.spoil(reason)

    def _need_cache(self) -> Cache:
        if self.cache is None:
            raise ValueError("this client has no cache: connect(…, cache=True)")
        return self.cache

    def _count_computing(self, change: int) -> None:
        # While anything is computed, every hit is recorded, and so none is served directly.
        with self._counting:
            self._computing += change
            self._direct = not (self._careful or self._computing)

    def _begin(self, computation: Computation) -> Generator[Any, Any, None]:
        """Look for what is to be computed, or reserve its place."""
        self._count_computing(1)
        try:
            yield from computation.begin(self._hear)
        except BaseException:
            self._count_computing(-1)
            raise

    def _end(self, computation: Computation, failed: bool) -> None:
        """Keep what was computed, unless it failed or may not be kept."""
        try:
            computation.end(failed)
        finally:
            self._count_computing(-1)


def place_of_call(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Hashable, ...]:
    """Give what a memoized call is cached under: the function and its arguments."""
    named = (_NAMED, *sorted(kwargs.items())) if kwargs else ()
    return (function, *args, *named)


_NAMED = object()  # between positional and named arguments

# Sent alone, these get whichever connection is free.
_AFTER_ITS_OWN = frozenset((b"WAIT", b"WAITAOF"))
_INSTEAD = {
    Role.SUBSCRIBE: "use pubsub(), or a Connection",
    Role.STATE: "use connect's options, transaction() or a Connection",
}


def to_words(command: Sequence[Word]) -> Sequence[bytes]:
    """Give a command's arguments as the server will see them."""
    try:
        words = [word.encode() if type(word) is str else word for word in command]
        if all(type(word) is bytes for word in words):
            return words  # type: ignore[return-value]
    except UnicodeEncodeError:
        pass  # the encoder's own error names the argument
    return parse(encode_command(*command))  # type: ignore[no-any-return]


def to_batch(commands: Iterable[Sequence[Word]]) -> list[tuple[Word, ...]]:
    """Give the commands of a pipeline as tuples.

    Raises:
        TypeError: a command that is a single string.
    """
    batch = list(commands)
    if set(map(type, batch)) == {tuple}:
        return batch  # type: ignore[return-value]
    for number, command in enumerate(batch):
        if isinstance(command, str | bytes | bytearray | memoryview):
            raise TypeError(
                f"command {number} is a single {type(command).__name__}; a command is a sequence "
                'of arguments, such as ("GET", "key")'
            )
        batch[number] = tuple(command)
    return batch  # type: ignore[return-value]


def _is_client(command: Sequence[Word]) -> bool:
    return len(command) > 1 and bytes(to_words(command[:1])[0]).upper() == b"CLIENT"


def raise_error(reply: Any) -> Any:
    """Give a reply that is none of the errors that a call raises."""
    if isinstance(reply, Exception):
        raise classed(reply)
    return reply


# What changes nothing, although the server does not flag it readonly; MULTI and EXEC as far as
# what stands between them does not.
_HARMLESS = frozenset((b"PING", b"ECHO", b"TIME", b"MULTI", b"EXEC"))


def may_repeat(command: Sequence[Word]) -> bool:
    """Tell whether a command may be sent again that may have run."""
    words = to_words(command)
    if is_read_only(words) or words[0].upper() in _HARMLESS:
        return True
    return len(words) == 3 and [word.upper() for word in words[:2]] == [b"CLIENT", b"CACHING"]


# Spellings of commands that have one reply, change no state of the connection and never wait.
_plain: set[Word] = set()
_MAX_PLAIN = 1024


def is_plain(command: Sequence[Word]) -> bool:
    """Tell what has one reply, leaves its connection as it was, and waits for nobody."""
    try:
        if command[0] in _plain:
            return True
    except (IndexError, TypeError):
        return False
    name = command[0]
    if not isinstance(name, str | bytes) or role(command) is not Role.PLAIN:
        return False
    word = to_words((name,))[0]
    found = find_command((word,))
    if word.upper() in (b"CLIENT", b"SCRIPT"):
        return False
    if found is not None and (found.container or "blocking" in found.flags):
        return False
    if len(_plain) < _MAX_PLAIN:
        _plain.add(name)
    return True
