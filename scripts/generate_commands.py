"""Ask live servers what commands they have and write `client/_command_table.py` from their answers.

    python scripts/generate_commands.py SERVER [SERVER ...]
    python scripts/generate_commands.py --check SERVER [SERVER ...]

A SERVER is the path of a server's binary (started privately, stopped again) or the URL of a
running one (`redis://[user:password@]host:port`, `unix:///path`). The newest comes first: what it
says of a command stands, older ones add the commands it no longer has and widen what they disagree
on. `--check` writes nothing and fails if the table on disk is not what the servers say.

The answers of `COMMAND` become rows of text such as `b"BITOP": "write -4 OW:2 RO:3..-1"`; the
table's own docstring has the grammar. Standard library and `resp` only.
"""

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import resp

TABLE: Final = Path(__file__).resolve().parent.parent / "client" / "_command_table.py"

# The flags that decide something in the client, in the order in which they are written.
FLAGS: Final = ("container", "readonly", "write", "blocking")

# Redis 6.2 lists the first words of an HTTP request as commands, to hang up on web browsers.
NOT_COMMANDS: Final = {"HOST:", "POST"}

# What COMMAND can't say, or says too narrowly. Each was read in the server's own getkeys function.
SPECS: Final[Mapping[str, tuple[str, ...]]] = {
    # "unknown" to COMMAND, as STORE may stand anywhere after the key (db.c, sortGetKeys).
    "SORT": ("RO:1", "OW:STORE@2"),
    # The keys of BY and GET derive from the sorted values; the client does not cache those forms.
    "SORT_RO": ("RO:1",),
    # "incomplete" to COMMAND, which looks for KEYS from the end, where a password or a key may
    # have that name; the server itself looks from the sixth argument on (db.c, migrateGetKeys).
    "MIGRATE": ("RW:3", "RW:KEYS@6..-1"),
    # Flagged RO because the entries stay; the consumer group, a part of the key, does not.
    "XREADGROUP": ("RW:STREAMS@4..half",),
}


class Row(NamedTuple):
    """One command: its flags, its arity as COMMAND counts it, and where its keys are."""

    flags: tuple[str, ...]
    arity: int
    specs: tuple[str, ...]

    def __str__(self) -> str:
        """Write the row as the table has it."""
        return " ".join((*self.flags, str(self.arity), *self.specs))


class Answer(NamedTuple):
    """What one server said: its name and version, and a row for every command and subcommand."""

    server: str
    rows: dict[str, Row]


class Connection:
    """The few commands that this script asks, one at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(unquote(parts.path))
        elif parts.scheme in {"redis", "valkey"}:
            address = (parts.hostname or "localhost", parts.port or 6379)
            self._socket = socket.create_connection(address)
        else:
            raise ValueError(f"expected a redis:// or unix:// URL, found {parts.scheme}://")
        self._socket.settimeout(10)
        self._parser = resp.Parser()
        if parts.password is not None:
            user = [unquote(parts.username)] if parts.username else []
            self.ask("AUTH", *user, unquote(parts.password))

    def ask(self, *command: str) -> Any:
        """Send one command and give its reply; an error reply is raised."""
        self._socket.sendall(resp.encode_command(*command))
        while (reply := self._parser.parse()) is resp.NEED_DATA:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._parser.feed(data)
        if isinstance(reply, resp.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextlib.contextmanager
def started(binary: str) -> Iterator[str]:
    """Start a private server on a unix socket, yield its URL, and stop it."""
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        path = Path(folder, "s")
        arguments = [
            binary,
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--dir",
            folder,
        ]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{binary} did not start")
                time.sleep(0.01)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait()


def ask(server: str) -> Answer:
    """Give what a server (the URL of one, or the path of a binary) says of its commands."""
    with contextlib.ExitStack() as stack:
        url = server if "://" in server else stack.enter_context(started(server))
        connection = Connection(url)
        stack.callback(connection.close)
        fields = dict(
            line.split(":", 1)
            for line in connection.ask("INFO", "server").decode().split("\r\n")
            if ":" in line
        )
        name = fields.get("server_name", "redis")
        version = fields.get(f"{name}_version", fields["redis_version"])
        return Answer(f"{name.capitalize()} {version}", read(connection.ask("COMMAND")))


def read(command_reply: Iterable[Sequence[Any]]) -> dict[str, Row]:
    """Turn the reply of COMMAND into rows, subcommands beside their containers."""
    rows: dict[str, Row] = {}
    for entry in command_reply:
        # name, arity, flags, first, last, step, categories; from 7.0 tips, key specs, subcommands.
        name = entry[0].decode().upper().replace("|", " ")
        subcommands = entry[9] if len(entry) > 9 else []
        if name in NOT_COMMANDS:
            continue
        flags = {flag.decode() for flag in entry[2]} | ({"container"} if subcommands else set())
        if name in SPECS:
            specs = SPECS[name]
        elif len(entry) > 8:
            specs = tuple(filter(None, map(describe_spec, entry[8])))
        else:
            specs = describe_legacy(*entry[3:6], write="write" in flags)
        rows[name] = Row(tuple(flag for flag in FLAGS if flag in flags), entry[1], specs)
        rows.update(read(subcommands))
    return rows


def describe_spec(reply: Sequence[Any]) -> str | None:
    """Write one key specification of COMMAND (7.0 and later) as text; None for what is no key."""
    spec = as_mapping(reply)
    flags = {flag.decode() for flag in spec["flags"]}
    if "not_key" in flags:  # the channel of SPUBLISH, sent for its hash slot
        return None
    (access,) = flags & {"RO", "RW", "OW", "RM"}
    begin, found = as_mapping(spec["begin_search"]), as_mapping(spec["find_keys"])
    begin_at, find_by = as_mapping(begin["spec"]), as_mapping(found["spec"])
    if begin["type"] == b"index":
        first = begin_at["index"]
        where = str(first)
    elif begin["type"] == b"keyword" and begin_at["startfrom"] > 0:
        first = 0
        where = f"{begin_at['keyword'].decode()}@{begin_at['startfrom']}"
    else:
        raise ValueError(f"no way to say where keys begin as {begin}: add a row to SPECS")

    step = f"/{find_by['keystep']}" if find_by["keystep"] != 1 else ""
    if found["type"] == b"keynum" and (find_by["keynumidx"], find_by["firstkey"]) == (0, 1):
        return f"{access}:{where}#{step}"
    if found["type"] == b"range" and find_by["limit"] in {0, 2}:
        last = find_by["lastkey"]
        if find_by["limit"] == 2 and last == -1:
            where += "..half"
        elif last != 0:
            where += f"..{last if last < 0 else first + last}"
        return f"{access}:{where}{step}"
    raise ValueError(f"no way to say which keys {found} finds: add a row to SPECS")


def describe_legacy(first: int, last: int, step: int, *, write: bool) -> tuple[str, ...]:
    """Write the first key, last key and step of a server before 7.0 as one key specification."""
    if first == 0:
        return ()
    where = str(first) if first == last else f"{first}..{last}"
    return (f"{'RW' if write else 'RO'}:{where}{f'/{step}' if step > 1 else ''}",)


def as_mapping(pairs: Sequence[Any] | Mapping[bytes, Any] | None) -> dict[str, Any]:
    """Give a map of the reply as a dict with str keys, in RESP2 (a flat array) and RESP3."""
    if isinstance(pairs, Mapping):
        return {key.decode(): value for key, value in pairs.items()}
    pairs = pairs or []
    return {key.decode(): value for key, value in zip(pairs[::2], pairs[1::2], strict=True)}


def merge(newer: Mapping[str, Row], older: Mapping[str, Row]) -> dict[str, Row]:
    """Add an older server's rows to a newer one's, doubtful cases on the careful side."""
    rows = dict(newer)
    for name, old in older.items():
        new = rows.setdefault(name, old)
        if "container" in new.flags and "container" not in old.flags:
            continue  # before 7.0 a container was one command with the flags of all
        either, both = {*new.flags, *old.flags}, {*new.flags} & {*old.flags}
        kept = {"readonly"} & both | either - {"readonly"}
        arity = new.arity if new.arity == old.arity else -min(abs(new.arity), abs(old.arity))
        rows[name] = Row(tuple(flag for flag in FLAGS if flag in kept), arity, new.specs)
    return rows


def render(rows: Mapping[str, Row], servers: Sequence[str]) -> str:
    """Write the module's text; the same rows and servers give the same text."""
    names = "".join(f'    "{name}",\n' for name in servers)
    lines = "".join(f'    b"{name}": "{row}",\n' for name, row in sorted(rows.items()))
    return HEADER.format(servers=names, rows=lines)


HEADER: Final = '''\
"""The commands of the servers, as their own COMMAND tells them. Generated; do not edit.

`python scripts/generate_commands.py` makes it, by asking the servers below.

A row is a command's flags, its arity (the name counts; below zero: at least so many), and a word
for each place that holds keys. A word is the access (RO, RW, OW: overwrites, RM: removes) and the
place: `1` an index; `1..2` a range, `1..-1` one that ends at the last argument; `/2` every second
one; `2#` an index that holds the number of the keys behind it; `STORE@6` the argument after that
word, looked for from index 6 on; `STREAMS@1..half` the first half of what follows the word.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# The newest first: what it says of a command stands.
SERVERS: Final = (
{servers})

COMMANDS: Final[dict[bytes, str]] = {{
{rows}}}
'''


def main() -> int:
    """Ask, merge, and write or compare; the exit code is 1 if the comparison fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare with the table on disk")
    parser.add_argument("servers", nargs="+", metavar="SERVER", help="a binary or a URL")
    arguments = parser.parse_args()
    rows: dict[str, Row] = {}
    answers = [ask(server) for server in arguments.servers]
    for answer in answers:
        rows = merge(rows, answer.rows)
    text = render(rows, [answer.server for answer in answers])
    if arguments.check:
        return int(TABLE.read_text() != text)
    TABLE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
