"""The implementations, each driven the fastest way that its public interface has.

One that can't be imported is not in `load()`'s list, and the table says that it is absent. Every
function takes chunks and a sink: a list that keeps the results, or None to drop them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import resp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._workloads import Packing, Parsing

Chunks: TypeAlias = "Sequence[bytes]"
Sink: TypeAlias = "list[Any] | None"
Run: TypeAlias = "Callable[[Sink], object]"

# In the order of the table and of the pictures.
NAMES = (
    "resp compiled",
    "resp compiled, one at a time",
    "resp pure",
    "resp pure, one at a time",
    "hiredis",
    "libvalkey",
    "redis-py",
    "coredis",
)


@dataclass(frozen=True)
class Implementation:
    """A peer: what returns a run over chunks, and a run over commands; None where there is none."""

    name: str
    version: str
    parse: Callable[[Parsing, Chunks, bool], Run | None]
    pack: Callable[[Packing], Run | None]


def load() -> list[Implementation]:
    """Return what can be imported."""
    found = []
    for loader in (_compiled, _pure, _hiredis, _libvalkey, _redis_py, _coredis):
        try:
            found += loader()
        except ImportError:
            continue
    return found


def _compiled() -> list[Implementation]:
    if resp.implementation == "python":
        raise ImportError("the compiled twin is not there")
    return _ours("resp compiled", resp)


def _pure() -> list[Implementation]:
    return _ours("resp pure", resp.pure)


def _ours(name: str, codec: Any) -> list[Implementation]:
    need_data = codec.NEED_DATA

    def parse_all(_: Parsing, chunks: Chunks, text: bool) -> Run:
        encoding = "utf-8" if text else None

        def run(kept: Sink) -> None:
            feed_all = codec.Parser(encoding=encoding).feed_all
            if kept is None:
                for chunk in chunks:
                    feed_all(chunk)
            else:
                for chunk in chunks:
                    kept += feed_all(chunk)

        return run

    def parse_one(_: Parsing, chunks: Chunks, text: bool) -> Run:
        encoding = "utf-8" if text else None

        def run(kept: Sink) -> None:
            parser = codec.Parser(encoding=encoding)
            feed, parse = parser.feed, parser.parse
            if kept is None:
                for chunk in chunks:
                    feed(chunk)
                    while parse() is not need_data:
                        pass
            else:
                append = kept.append
                for chunk in chunks:
                    feed(chunk)
                    while (value := parse()) is not need_data:
                        append(value)

        return run

    def pack(workload: Packing) -> Run:
        encode_command, encode_commands = codec.encode_command, codec.encode_commands
        commands, (repeats, calls) = workload.commands, workload.repeated()

        def run(kept: Sink) -> None:
            packed: Any = None
            if workload.pipeline:
                for _ in repeats:
                    packed = encode_commands(commands)
            else:
                for command in calls:
                    packed = encode_command(*command)
            if kept is not None:
                kept.append(packed)

        return run

    release = version("resp-client")
    return [
        Implementation(name, release, parse_all, pack),
        Implementation(f"{name}, one at a time", release, parse_one, lambda _: None),
    ]


def _hiredis() -> list[Implementation]:
    return _reader("hiredis", import_module("hiredis"))


def _libvalkey() -> list[Implementation]:
    return _reader("libvalkey", import_module("libvalkey"))


def _reader(name: str, module: Any) -> list[Implementation]:
    nothing = object()

    def parse(_: Parsing, chunks: Chunks, text: bool) -> Run:
        options = {"encoding": "utf-8"} if text else {}

        def run(kept: Sink) -> None:
            reader = module.Reader(notEnoughData=nothing, **options)
            feed, gets = reader.feed, reader.gets
            if kept is None:
                for chunk in chunks:
                    feed(chunk)
                    while gets() is not nothing:
                        pass
            else:
                append = kept.append
                for chunk in chunks:
                    feed(chunk)
                    while (value := gets()) is not nothing:
                        append(value)

        return run

    def pack(workload: Packing) -> Run:
        pack_command, commands = module.pack_command, workload.commands
        repeats, calls = workload.repeated()

        def run(kept: Sink) -> None:
            packed: Any = None
            if workload.pipeline:
                for _ in repeats:
                    packed = b"".join([pack_command(command) for command in commands])
            else:
                for command in calls:
                    packed = pack_command(command)
            if kept is not None:
                kept.append(packed)

        return run

    return [Implementation(name, version(name), parse, pack)]


class _Socket:
    """A socket that hands out chunks."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = iter(chunks)

    def recv(self, _: int) -> bytes:
        return next(self.chunks)


def _redis_py() -> list[Implementation]:
    parsers, connections = import_module("redis._parsers"), import_module("redis.connection")
    encoders = import_module("redis._parsers.encoders")
    encoder = encoders.Encoder("utf-8", "strict", decode_responses=True)

    class Connection:
        socket_timeout = None
        encoder = None

        def __init__(self, chunks: Chunks) -> None:
            self._sock = _Socket(chunks)

    Connection.encoder = encoder

    def parse_with(kind: Any, options: dict[str, bool]) -> Callable[..., Run]:
        def parse(workload: Parsing, chunks: Chunks, text: bool) -> Run:
            arguments = {"disable_decoding": not text, **options}
            size, count = max(map(len, chunks)), len(workload.replies)

            def run(kept: Sink) -> None:
                parser = kind(size)
                parser.on_connect(Connection(chunks))
                if options:
                    parser.set_pubsub_push_handler(_same)
                    parser.set_invalidation_push_handler(_same)
                read_response = parser.read_response
                if kept is None:
                    for _ in range(count):
                        read_response(**arguments)
                else:
                    append = kept.append
                    for _ in range(count):
                        append(read_response(**arguments))

            return run

        return parse

    resp2 = parse_with(parsers._RESP2Parser, {})
    resp3 = parse_with(parsers._RESP3Parser, {"push_request": True})

    def parse(workload: Parsing, chunks: Chunks, text: bool) -> Run:
        from ._measure import once

        runs = [resp2(workload, chunks, text)] if workload.resp2 else []
        runs += [resp3(workload, chunks, text)] if workload.resp3 else []
        if len(runs) == 1:
            return runs[0]
        return min(runs, key=lambda run: min(once(run) for _ in range(2)))

    def pack(workload: Packing) -> Run:
        encode = encoders.Encoder("utf-8", "strict", decode_responses=False).encode
        packer = connections.PythonRespSerializer(6000, encode)
        connection = connections.Connection(command_packer=packer)
        pack_command, pack_commands = connection.pack_command, connection.pack_commands
        commands, (repeats, calls) = workload.commands, workload.repeated()

        def run(kept: Sink) -> None:
            packed: Any = None
            if workload.pipeline:
                for _ in repeats:
                    packed = pack_commands(commands)
            else:
                for command in calls:
                    packed = pack_command(*command)
            if kept is not None:
                kept.append(b"".join(packed))

        return run

    return [Implementation("redis-py", version("redis"), parse, pack)]


def _same(response: Any) -> Any:
    return response


def _coredis() -> list[Implementation]:
    parsers, packers = import_module("coredis.parser"), import_module("coredis._packer")
    nothing = parsers.NOT_ENOUGH_DATA

    def parse(_: Parsing, chunks: Chunks, text: bool) -> Run:
        def run(kept: Sink) -> None:
            parser = parsers.Parser()
            feed, parse = parser.feed, parser.parse
            if kept is None:
                for chunk in chunks:
                    feed(chunk)
                    while parse(text, "utf-8") is not nothing:
                        pass
            else:
                append = kept.append
                for chunk in chunks:
                    feed(chunk)
                    while (value := parse(text, "utf-8")) is not nothing:
                        append(value[1])

        return run

    def pack(workload: Packing) -> Run:
        packer = packers.Packer("utf-8")
        # It wants the name of a command in bytes, and a pipeline in a list.
        commands = [
            (name.encode() if isinstance(name, str) else name, *args)
            for name, *args in workload.commands
        ]
        repeats, calls = workload.repeated(tuple(commands))

        def run(kept: Sink) -> None:
            packed: Any = None
            if workload.pipeline:
                for _ in repeats:
                    packed = packer.pack_commands(commands)
            else:
                for command in calls:
                    packed = packer.pack_command(*command)
            if kept is not None:
                kept.append(b"".join(packed))

        return run

    return [Implementation("coredis", version("coredis"), parse, pack)]
