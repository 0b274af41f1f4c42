"""What a command is: whether it only reads, whether its reply may be cached, where its keys are.

The rule: in doubt, a reply is not cacheable and a write may have changed any key. Where keys are is
the servers' own knowledge, in the generated `_command_table`. What no server says is whether a
reply is a function of the values of its keys alone, and whether every change of it is announced to
those who track them; the reads for which that fails are in `_REFUSED`, each with its reason.

A command is its argument vector in bytes, the name first, in any case. Nothing here raises on a
malformed one, as the server will answer it with an error: it is a read that can't be cached, or a
write that may have changed any key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ._command_table import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Read-only commands that name keys and still can't be cached. The reason is the predicate of a
# sentence that begins with the command's name; a container stands for all its subcommands.
_REFUSED: Final = (
    ("TTL PTTL HTTL HPTTL", "counts down, with no change of its key"),
    ("EXPIRETIME PEXPIRETIME", "tells of an expiry, and expiry is announced late or never"),
    ("HEXPIRETIME HPEXPIRETIME", "tells of an expiry, and expiry is announced late or never"),
    ("HRANDFIELD SRANDMEMBER ZRANDMEMBER", "picks at random"),
    ("HSCAN SSCAN ZSCAN", "is one step of an iteration, which has to go on from the live value"),
    ("XINFO XPENDING", "shows consumer groups, and no change of a group is announced"),
    ("DUMP", "shows encodings and consumer groups, whose changes are not announced"),
    ("MEMORY OBJECT", "shows how the value is stored, and no change of that is announced"),
    ("TOUCH", "is sent for its effect on the server's eviction, which a cached reply has not"),
    ("PFCOUNT", "may rewrite its key, to remember the count"),
    (
        "EVAL EVALSHA FCALL EVAL_RO EVALSHA_RO FCALL_RO",
        "may read keys it did not declare, by code that may change",
    ),
    ("STRALGO", "does not say in COMMAND where its keys are; from Redis 7.0 on it is LCS"),
)

# What may change any key although its flags and arguments don't say so. The other such commands,
# FLUSHALL or SWAPDB, are known by the write flag without a key.
_CHANGES_ANYTHING: Final = frozenset(
    b"DEBUG,FAILOVER,REPLICAOF,SLAVEOF,MODULE LOAD,MODULE LOADEX,MODULE UNLOAD,"
    b"CLUSTER DELSLOTS,CLUSTER DELSLOTSRANGE,CLUSTER FAILOVER,CLUSTER FLUSHSLOTS,"
    b"CLUSTER MIGRATESLOTS,CLUSTER REPLICATE,CLUSTER RESET,CLUSTER SETSLOT,CLUSTER SYNCSLOTS,"
    # RESET changes no key but turns tracking off: what was read before it is kept fresh no more.
    b"RESET".split(b",")
)

_SCRIPTS: Final = frozenset(("EVAL", "EVALSHA", "FCALL", "EVAL_RO", "EVALSHA_RO", "FCALL_RO"))


def cacheable_keys(command: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """Give the keys that a cacheable read names, as on the wire and in order.

    None if the reply must not be cached; `why_not_cacheable` has the reason. The reply may be kept
    until one of the keys is invalidated, on a connection that tracks them. One thing no server
    announces in time: a key, or a field of a hash (Valkey 9, Redis 7.4), that has expired. So
    whoever caches must cap the life of an entry as well.
    """
    found = find_command(command)
    if found is not None and found.reads_one and found.shortest <= len(command) <= found.longest:
        return (command[1],)
    verdict = _judge(command, found)
    return verdict if isinstance(verdict, tuple) else None


def why_not_cacheable(command: Sequence[bytes]) -> str | None:
    """Say in a sentence why a command's reply is never cached; None if it may be."""
    found = find_command(command)
    verdict = _judge(command, found)
    if isinstance(verdict, tuple):
        return None
    if found is not None:
        return f"{found.name} {verdict}"
    # Only the words of a name: in an unknown command any argument may be a password.
    contained = bool(command) and _find_spelling(command[0]) is not None
    name = b" ".join(command[: 1 + contained])[:40]
    return f"{name.decode('ascii', 'backslashreplace')!r} {verdict}"


def written_keys(command: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """Give the keys that a command may change, as on the wire.

    Empty if it changes none, None if it may change any key. Keys that are only read, such as the
    sources of ZUNIONSTORE, are not among them. Of a script these are the keys that it declares, and
    `is_script` tells that there may be more. A key may change in another db too (MOVE, COPY), and
    after MULTI it changes with EXEC.
    """
    found = find_command(command)
    if found is None or found.changes_anything:
        return None
    if found.changes_nothing:
        return ()
    if not found.shortest <= len(command) <= found.longest:
        return None
    if found.writes_one:
        return (command[1],)
    keys: tuple[bytes, ...] = ()
    for spec in found.keys:
        some = spec.find(command)
        if some is None:
            return None
        if spec.writes:
            keys += tuple(some)
    # MIGRATE: the one key is left empty where KEYS follow.
    if found.name == "MIGRATE" and len(keys) > 1 and not keys[0]:
        return keys[1:]
    return keys


def is_read_only(command: Sequence[bytes]) -> bool:
    """Tell whether the server flags the command readonly, so that it may be sent twice."""
    found = find_command(command)
    return found is not None and found.read_only


def is_script(command: Sequence[bytes]) -> bool:
    """Tell whether the command runs a script, which may touch keys that it did not declare."""
    found = find_command(command)
    return found is not None and found.name in _SCRIPTS


def may_block(command: Sequence[bytes]) -> bool:
    """Tell whether the reply may keep its caller waiting for somebody else's write."""
    found = find_command(command)
    if found is None or "blocking" not in found.flags:
        return False
    if found.name in {"XREAD", "XREADGROUP"}:
        return bool(_find_word(command, b"BLOCK", 1, before=b"STREAMS"))
    return True


def blocks_for(command: Sequence[bytes]) -> float:
    """Give the seconds that a command which `may_block` may take by its own time-out.

    Infinite for the 0 that means for ever; 0.0 for what can't be read, which the server refuses.
    """
    found = find_command(command)
    name = found.name if found is not None else ""
    unit = 1.0
    if name in {"XREAD", "XREADGROUP"}:
        at, unit = _find_word(command, b"BLOCK", 1, before=b"STREAMS") + 1, 1000.0
    elif name in {"WAIT", "WAITAOF"}:
        at, unit = len(command) - 1, 1000.0
    else:
        at = 1 if name in {"BLMPOP", "BZMPOP"} else len(command) - 1
    try:
        seconds = float(command[at]) / unit
    except (ValueError, IndexError):
        return 0.0
    if not seconds >= 0:  # below zero, or "nan"
        return 0.0
    return seconds or float("inf")


class KeySpec:
    """One place where a command holds keys; the docstring of `_command_table` has the notation."""

    __slots__ = ("counted", "first", "last", "step", "until", "word", "writes")

    def __init__(self, text: str) -> None:
        access, _, place = text.partition(":")
        place, _, step = place.partition("/")
        word, _, place = place.rpartition("@")
        first, _, until = place.partition("..")
        self.writes = access != "RO"
        self.word = word.encode()
        self.counted = first.endswith("#")
        self.first = int(first.removesuffix("#"))
        self.until = until
        self.last = self.first if until in {"", "half"} else int(until)
        self.step = int(step or 1)

    def find(self, command: Sequence[bytes]) -> Sequence[bytes] | None:
        """Give the keys in this place, () if it is an option that is not used.

        None if the arguments can't be: fewer than the place needs, or a count that is none.
        """
        if self.word:
            return self._find_after_word(command)
        size, first, last = len(command), self.first, self.last
        if self.counted:
            if first >= size:
                return None
            count = _parse_count(command[first])
            first += 1
            last = first + count * self.step - 1
            if count == 0:
                return ()
        elif last < 0:
            last += size
        if not self.first <= first <= last < size:
            return None
        return command[first : last + 1 : self.step]

    def _find_after_word(self, command: Sequence[bytes]) -> Sequence[bytes] | None:
        if not self.until:
            # Of two STOREs the last is obeyed, but 7.0 and 8.1 report GEORADIUS's first. Take both.
            return tuple(
                command[index + 1]
                for index in range(self.first, len(command) - 1)
                if _is_word(command[index], self.word)
            )
        start = _find_word(command, self.word, self.first)
        if not start:
            return None if self.until == "half" else ()
        keys = command[start + 1 :]
        if self.until == "half":
            half, odd = divmod(len(keys), 2)
            return None if odd or not half else keys[:half]
        return keys or None


class Command:
    """What the table knows of one command or subcommand, and what follows from it."""

    __slots__ = (
        "arity",
        "changes_anything",
        "changes_nothing",
        "container",
        "flags",
        "keys",
        "longest",
        "name",
        "read_only",
        "reads_one",
        "refusal",
        "shortest",
        "writes_one",
    )

    def __init__(self, name: bytes, row: str) -> None:
        words = row.split()
        self.name: Final = name.decode()
        self.flags: Final = frozenset(word for word in words if word.islower())
        specs = [word for word in words if ":" in word]
        self.keys: Final = tuple(map(KeySpec, specs))
        self.arity: Final = int(words[len(words) - len(specs) - 1])
        self.shortest: Final = abs(self.arity)
        self.longest: Final = self.arity if self.arity > 0 else sys.maxsize
        self.container: Final = "container" in self.flags
        self.read_only: Final = "readonly" in self.flags

        self.refusal: Final = self._find_refusal()
        self.reads_one: Final = (
            self.refusal is None and specs == ["RO:1"] and self.name not in _REFUSED_FORMS
        )

        keyless_write = "write" in self.flags and not specs
        self.changes_anything: Final = name in _CHANGES_ANYTHING or (
            # The functions are no part of any key.
            keyless_write and not self.name.startswith("FUNCTION ")
        )
        self.changes_nothing: Final = not self.changes_anything and not any(
            spec.writes for spec in self.keys
        )
        self.writes_one: Final = len(specs) == 1 and specs[0] in {"RW:1", "OW:1", "RM:1"}

    def __repr__(self) -> str:
        return f"<Command {self.name}: {COMMANDS[self.name.encode()]}>"

    def _find_refusal(self) -> str | None:
        """Give the reason for which no form of this command is cacheable."""
        container = self.name.partition(" ")[0]
        for names, reason in _REFUSED:
            if container in names.split():
                return reason
        if "write" in self.flags:
            return "is a write, so the server does not track its keys"
        if not self.read_only:
            return "is not flagged as a read"
        if not self.keys:
            return "names no key by which its reply could be invalidated"
        return None


def _judge(command: Sequence[bytes], found: Command | None) -> tuple[bytes, ...] | str:
    """Give the keys of a cacheable read, or the reason why it is none."""
    if found is None:
        return "is not in the table of commands"
    if found.refusal is not None:
        return found.refusal
    if not found.shortest <= len(command) <= found.longest:
        return "has the wrong number of arguments"
    keys: tuple[bytes, ...] = ()
    for spec in found.keys:
        some = spec.find(command)
        if not some:
            return "does not say which keys it reads"
        keys += tuple(some)
    refuse = _REFUSED_FORMS.get(found.name)
    return (refuse and refuse(command)) or keys


def _refuse_sort(command: Sequence[bytes]) -> str | None:
    if any(_is_word(word, b"BY") or _is_word(word, b"GET") for word in command[2:]):
        return "with BY or GET reads keys that it does not name"
    return None


def _refuse_xread(command: Sequence[bytes]) -> str | None:
    if _find_word(command, b"BLOCK", 1, before=b"STREAMS"):
        return "with BLOCK waits for what is not yet there"
    start = _find_word(command, b"STREAMS", 1) + 1
    for stream_id in command[start + (len(command) - start) // 2 :]:
        if not stream_id.replace(b"-", b"", 1).isdigit():
            return "with an id such as $ or + asks for what is new at the time of the call"
    return None


# Reads of which only some forms are refused: SORT_RO of one key and XREAD from an id are sound.
_REFUSED_FORMS: Final[dict[str, Callable[[Sequence[bytes]], str | None]]] = {
    "SORT_RO": _refuse_sort,
    "XREAD": _refuse_xread,
}

_records: Final[dict[bytes, Command]] = {}
_spelled: Final[dict[bytes, Command]] = {}

# Room for a few spellings of every command; a name of n letters has 2 to the power of n.
_MAX_SPELLINGS: Final = 1024


def find_command(command: Sequence[bytes]) -> Command | None:
    """Give the record of a command or of a container's subcommand; None if it is not known."""
    if not command:
        return None
    found = _spelled.get(command[0]) or _find_spelling(command[0])
    if found is None or not found.container:
        return found
    if len(command) > 1:
        return _find_record(f"{found.name} ".encode() + command[1].upper())
    return found if found.shortest == 1 else None  # COMMAND does something of its own


def _find_spelling(name: bytes) -> Command | None:
    if b" " in name:  # the table has one between container and subcommand
        return None
    found = _find_record(name.upper())
    if found is not None:
        if len(_spelled) >= _MAX_SPELLINGS:
            _spelled.clear()
        _spelled[name] = found
    return found


def _find_record(name: bytes) -> Command | None:
    found = _records.get(name)
    if found is None and name in COMMANDS:
        found = _records[name] = Command(name, COMMANDS[name])
    return found


def _find_word(command: Sequence[bytes], word: bytes, start: int, before: bytes = b"") -> int:
    """Give the index of a word in any case, 0 if it is not there (or not before another)."""
    for index in range(start, len(command)):
        if _is_word(command[index], word):
            return index
        if before and _is_word(command[index], before):
            break
    return 0


def _is_word(argument: bytes, word: bytes) -> bool:
    # The length first: an argument may be a value of megabytes.
    return len(argument) == len(word) and argument.upper() == word


def _parse_count(argument: bytes) -> int:
    """Give a number of keys as the server reads it (string2ll); -1 for what it would refuse."""
    if not argument.isdigit() or len(argument) > 10 or (argument[0] == 48 and len(argument) > 1):
        return -1
    return int(argument)
