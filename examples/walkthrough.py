"""Server-assisted client-side caching, act by act, on a real server.

Every line marked `>` or `<` is a frame that crossed a socket, decoded; `~` marks what the server
sent without being asked. Each act ends by checking that it saw what it says, so that the
walk-through is a test as well: it exits with 1 if an act did not.

    make demo                                            # on a private server of its own
    python examples/walkthrough.py --url redis://…       # on yours, under keys that it removes
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import client
import resp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 5.0  # seconds to wait for what must come
WIDEST = 150  # characters of a frame that are shown


class Stage:
    """Prints what happens, and remembers what should have happened and did not."""

    somebody: client.Connection  # somebody else, who changes keys under the readers' feet

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.failures = 0
        self._printing = threading.Lock()  # the listening thread prints as well

    def say(self, text: str = "") -> None:
        with self._printing:
            print(text, flush=True)

    def act(self, number: int, title: str) -> None:
        self.say(f"\n{number}. {title}\n{'-' * (len(title) + 3)}")

    def frame(self, who: str, direction: str, frame: object) -> None:
        pushed = isinstance(frame, resp.Push) or (
            isinstance(frame, list) and frame[:1] == [b"message"]
        )
        mark = ">" if direction == "sent" else "<~" if pushed else "<"
        text = " ".join(map(readable, frame)) if direction == "sent" else readable(frame)  # type: ignore[call-overload]
        self.say(f"  {who:>8} {mark:<2} {text if len(text) < WIDEST else text[:WIDEST] + '…'}")

    def expect(self, seen: bool, sentence: str) -> None:
        self.failures += not seen
        self.say(f"  {'seen' if seen else 'NOT SEEN'}: {sentence}")

    def key(self, name: str) -> str:
        return self.prefix + name

    @contextlib.contextmanager
    def connection(self, name: str, protocol: Any = 3) -> Iterator[client.Connection]:
        options = client.Options.from_url(self.url, protocol=protocol)
        with client.Connection(options, name=name, trace=self.frame) as connection:
            yield connection


def readable(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace") or '""'
    if isinstance(value, resp.Push):
        return f"push [{', '.join(map(readable, value))}]"
    if isinstance(value, list):
        return f"[{', '.join(map(readable, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{readable(k)}: {readable(v)}" for k, v in value.items()) + "}"
    return "null" if value is None else str(value)


class Reader:
    """A cache before a connection, by hand: what `client.connect(cache=True)` does for you.

    `route` is called before a hit is served, to bring the cache what the server has announced.
    """

    def __init__(self, stage: Stage, connection: client.Connection) -> None:
        self.stage = stage
        self.connection = connection
        self.cache = client.Cache()
        self.epoch = self.cache.open()  # tracking is on: from now on changes are announced

    def hear(self, push: client.Push | None) -> tuple[bytes, ...] | None:
        """Take an announcement to the cache, and show what that does to it."""
        if push is None:
            return ()
        keys = client.announced_keys(push)
        before = self.holding()
        self.cache.invalidate(keys)
        self.stage.say(f"           the cache held {before}, now {self.holding()}")
        return keys

    def read(self, *command: str, permit: str | None = None, keep: bool = True) -> Any:
        """Serve a read from the cache, or fetch it and keep it if it still may be kept."""
        started = time.perf_counter_ns()
        value = self.cache.get(command)
        if value is not client.MISS:
            self.stage.say(f"           hit: {readable(value)}, {elapsed(started)}, no frame")
            return value
        reservation = (
            self.cache.reserve(command, (command[1].encode(),), self.epoch) if keep else None
        )
        commands: list[tuple[str, ...]] = [command]
        if permit:
            commands.insert(0, ("CLIENT", "CACHING", permit))
        value = self.connection.execute_many(commands)[-1]
        took = elapsed(started)
        kept = reservation is not None and self.cache.fill(reservation, value)
        self.stage.say(
            f"           fetched in {took}, {'kept' if kept else 'not kept'}; "
            f"the cache holds {self.holding()}"
        )
        return value

    def holding(self) -> str:
        return held_by(self.cache)


def held_by(cache: client.Cache) -> str:
    return ", ".join(" ".join(map(str, command)) for command in cache) or "nothing"  # type: ignore[call-overload]


def elapsed(started: int) -> str:
    return f"{(time.perf_counter_ns() - started) / 1000:.1f} µs"


def nothing_more(connection: client.Connection) -> bool:
    """Tell whether nothing was pushed: what was, stands before the PONG in the stream."""
    connection.execute("PING")
    return not connection.pushes


def pushed(connection: client.Connection) -> client.Push | None:
    return connection.read_push(PATIENCE)


def two_connections(stage: Stage) -> None:
    stage.act(1, "Two connections, RESP2: B reads, A hears")
    key = stage.key("cat_one:key_one")
    somebody = stage.somebody
    with stage.connection("A", protocol=2) as a, stage.connection("B", protocol=2) as b:
        ident = a.execute("CLIENT", "ID")
        a.execute("SUBSCRIBE", "__redis__:invalidate")
        a.pushes.clear()  # the confirmation
        b.execute("CLIENT", "TRACKING", "ON", "REDIRECT", ident)
        somebody.execute("SET", key, "Iamb")
        reader = Reader(stage, b)
        reader.read("GET", key)
        hit = reader.read("GET", key)
        stage.expect(hit == b"Iamb", "the second read came from the cache")
        somebody.execute("SET", key, "Anapest")
        keys = reader.hear(pushed(a))
        stage.expect(keys == (key.encode(),), "A heard that the key had changed")
        stage.expect(reader.read("GET", key) == b"Anapest", "B read the new value")


def one_connection(stage: Stage) -> None:
    stage.act(2, "One connection, RESP3: data and pushes together")
    key = stage.key("cat_one:key_three")
    somebody = stage.somebody
    with stage.connection("C") as c:
        stage.expect(c.server.get("proto") == 3, "HELLO 3 was answered with a map")
        c.execute("CLIENT", "TRACKING", "ON")
        reader = Reader(stage, c)
        somebody.execute("SET", key, "Dactyl")
        reader.read("GET", key)
        reader.read("GET", key)
        somebody.execute("SET", key, "Spondee")
        keys = reader.hear(pushed(c))
        stage.expect(keys == (key.encode(),), "the push came on the connection that read the key")
        stage.expect(reader.read("GET", key) == b"Spondee", "the new value was read")


def idle_reader(stage: Stage) -> None:
    stage.act(3, "The idle reader: told while it does nothing")
    key = stage.key("cat_one:key_one")
    heard = threading.Event()
    somebody = stage.somebody
    somebody.execute("SET", key, "Iamb")
    with client.connect(stage.url, cache=True, trace=stage.frame) as db:
        assert db.cache is not None
        db.execute("GET", key)
        held = ("GET", key) in db.cache
        arrived = 0

        def notice(keys: tuple[bytes, ...] | None, _: str) -> None:
            nonlocal arrived
            if keys is None or key.encode() in keys:
                arrived = time.perf_counter_ns()
                heard.set()

        db.cache.on_invalidate(notice)
        stage.say(f"           the cache holds {held_by(db.cache)}; we do nothing from here on")
        sent = time.perf_counter_ns()
        somebody.execute("SET", key, "Anapest")
        told = heard.wait(PATIENCE)
        stage.say(f"           the cache holds {held_by(db.cache)}")
        stage.expect(
            held and told and not len(db.cache),
            f"the value was gone {(arrived - sent) / 1000:.0f} µs after the foreign SET began; "
            "redis-cli would show the push after its next command",
        )


def broadcast(stage: Stage) -> None:
    stage.act(4, "Broadcast: told of keys that were never read")
    one, two = stage.key("cat_one:"), stage.key("cat_two:")
    somebody = stage.somebody
    for prefixes in ((one,), (one, two)):
        tracking = client.Tracking(bcast=True, prefixes=prefixes)
        with stage.connection("D") as d:
            d.execute(*tracking.command())
            reader = Reader(stage, d)
            reader.read("GET", one + "key_one")
            for prefix in prefixes:
                somebody.execute("SET", prefix + "never_read", "Trochee")
                keys = reader.hear(pushed(d))
                stage.expect(keys == ((prefix + "never_read").encode(),), f"told of {prefix}*")
            somebody.execute("SET", stage.key("elsewhere"), "Pyrrhic")
            stage.expect(nothing_more(d), "and of no key under another prefix")


def opt_in(stage: Stage) -> None:
    stage.act(5, "OPTIN: only what is asked for is tracked")
    one, two = stage.key("cat_one:key_one"), stage.key("cat_one:key_two")
    somebody = stage.somebody
    with stage.connection("E") as e:
        e.execute(*client.Tracking(optin=True).command())
        reader = Reader(stage, e)
        reader.read("GET", one, keep=False)
        reader.read("GET", two, permit="YES")
        somebody.execute("SET", one, "Amphibrach")
        stage.expect(nothing_more(e), "nobody told of key_one, which was read plainly")
        somebody.execute("SET", two, "Anapest")
        keys = reader.hear(pushed(e))
        stage.expect(keys == (two.encode(),), "told of key_two, read after CLIENT CACHING YES")


def opt_out(stage: Stage) -> None:
    stage.act(6, "OPTOUT: all is tracked but what is excepted")
    one, two = stage.key("cat_one:key_one"), stage.key("cat_one:key_two")
    somebody = stage.somebody
    with stage.connection("F") as f:
        f.execute(*client.Tracking(optout=True).command())
        reader = Reader(stage, f)
        reader.read("GET", one, permit="NO", keep=False)
        reader.read("GET", two)
        somebody.execute("SET", one, "Iamb")
        stage.expect(nothing_more(f), "nobody told of key_one, read after CLIENT CACHING NO")
        somebody.execute("SET", two, "Trochee")
        keys = reader.hear(pushed(f))
        stage.expect(keys == (two.encode(),), "told of key_two, which was read plainly")


def no_loop(stage: Stage) -> None:
    stage.act(7, "NOLOOP: one's own writes are not announced")
    key = stage.key("cat_one:key_one")
    tracking = client.Tracking(bcast=True, prefixes=[stage.key("cat_one:")], noloop=True)
    somebody = stage.somebody
    with stage.connection("G") as g:
        g.execute(*tracking.command())
        reader = Reader(stage, g)
        reader.read("GET", key)
        reader.cache.invalidate([key])  # nobody else will: we know what we write ourselves
        g.execute("SET", key, "Dactyl")
        stage.expect(nothing_more(g), "the own SET was silent")
        reader.read("GET", key)
        somebody.execute("SET", key, "Spondee")
        keys = reader.hear(pushed(g))
        stage.expect(keys == (key.encode(),), "another client's was not")


def three_layers(stage: Stage, private: bool) -> None:
    stage.act(8, "Three layers: the application, the cache, the server")
    key = stage.key("cat_one:poem")
    sent: list[object] = []

    def frame(who: str, direction: str, value: object) -> None:
        if (who, direction) == ("data", "sent"):
            sent.append(value)
        stage.frame(who, direction, value)

    somebody = stage.somebody
    with (
        client.Connection(client.Options.from_url(stage.url)) as auditor,
        client.connect(stage.url, cache=True, encoding="utf-8", trace=frame) as db,
    ):
        cache = db.cache
        assert cache is not None

        def poem() -> str:  # the application knows nothing of caching
            fields = db.execute("HGETALL", key)
            return f"{fields['metre']} by {fields['poet']}"

        def call(expected: str) -> tuple[int, int]:
            frames, calls = len(sent), commands_executed(auditor, "hgetall")
            started = time.perf_counter_ns()
            result = poem()
            stage.say(f"           poem() -> {result!r} in {elapsed(started)}")
            stage.say(f"           the cache holds {held_by(cache)}")
            stage.expect(result == expected, f"the application got {expected!r}")
            executed = commands_executed(auditor, "hgetall") - calls
            stage.say(f"           INFO commandstats: the server executed {executed} HGETALL")
            return len(sent) - frames, executed

        somebody.execute("HSET", key, "metre", "Iamb", "poet", "Marlowe")
        first = call("Iamb by Marlowe")
        second = call("Iamb by Marlowe")
        gone = wait_for_drop(cache, lambda: somebody.execute("HSET", key, "metre", "Anapest"))
        stage.expect(gone, "the foreign HSET emptied the cache")
        third = call("Anapest by Marlowe")
        stage.expect(
            second[0] == 0 and min(first[0], third[0]) > 0,
            "the second call sent no frame, the others did",
        )
        if private:
            stage.expect(
                (first[1], second[1], third[1]) == (1, 0, 1),
                "INFO commandstats counts one HGETALL for the miss, none for the hit, one for "
                "the fresh value",
            )
        stats = cache.stats
        stage.expect((stats.hits, stats.fills) == (1, 2), "the cache counts one hit and two fills")


def commands_executed(connection: client.Connection, command: str) -> int:
    """Ask the server itself how often it has executed a command."""
    lines = connection.execute("INFO", "commandstats")
    for line in bytes(lines).decode().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.partition("=")[2].partition(",")[0])
    return 0


def wait_for_drop(cache: client.Cache, change: Callable[[], object]) -> bool:
    dropped = threading.Event()
    cache.on_invalidate(lambda _keys, _reason: dropped.set())
    change()
    return dropped.wait(PATIENCE) and not len(cache)


def remove(stage: Stage) -> None:
    names = [f"cat_one:{name}" for name in ("key_one", "key_two", "key_three", "poem")]
    names += ["cat_one:never_read", "cat_two:never_read", "elsewhere"]
    stage.somebody.execute("DEL", *map(stage.key, names))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--url", help="a server of yours, instead of a private one")
    url = parser.parse_args().url
    with contextlib.ExitStack() as stack:
        if url is None:
            server = stack.enter_context(client.embedded(password=secrets.token_hex(8)))
            stage = Stage(server.url, "")
            stage.say(
                f"A private {server.name} {'.'.join(map(str, server.version))}, with a password."
            )
        else:
            stage = Stage(url, f"resp-client-walkthrough:{secrets.token_hex(4)}:")
            stage.say(f"Your server, under keys that begin with {stage.prefix}")
        stage.say(f"The codec is resp, {resp.implementation}.")
        stage.somebody = stack.enter_context(stage.connection("somebody"))
        try:
            for act in (two_connections, one_connection, idle_reader, broadcast):
                act(stage)
            for act in (opt_in, opt_out, no_loop):
                act(stage)
            three_layers(stage, private=url is None)
        finally:
            remove(stage)
        stage.say()
        stage.say(f"{stage.failures} things were not seen." if stage.failures else "All acts seen.")
    return 1 if stage.failures else 0


if __name__ == "__main__":
    sys.exit(main())
