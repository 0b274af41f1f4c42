"""The wire, row by row: these bytes are these values; those are refused, there and in these words.

Every test of the parser runs over these tables, for every implementation: whole, cut at every
point, byte by byte, through every way in, and with a stranger's bytes behind.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import resp.pure
from resp import Attributed, Push, ReplyError, Verbatim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# Every implementation there is; the compiled one, if it was built, goes through the same tests.
IMPLEMENTATIONS: list[ModuleType] = [resp.pure]
try:
    import resp._speedups

    IMPLEMENTATIONS.append(resp._speedups)
except ImportError:
    # tests/test_parity.py reports it, and fails where the extension is required.
    pass


class Row(NamedTuple):
    """A stream, the values in it, and the message that ends it, if one does."""

    wire: bytes
    values: list[Any]
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    error: str = ""

    @property
    def offset(self) -> int:
        """Where the error is: every message ends with it."""
        return int(self.error.rpartition(" at offset ")[2])


class Undecodable(NamedTuple):
    """Stands for the UnicodeDecodeError of these bytes."""

    data: bytes


TEXT = {"encoding": "utf-8"}
KEEP = {"attributes": True}
INF = math.inf
NAN = math.nan

VALUES = {
    # RESP2, "Simple strings", "Bulk strings"
    "simple string": Row(b"+OK\r\n", [b"OK"]),
    "empty simple string": Row(b"+\r\n", [b""]),
    "simple string of any bytes": Row(b"+\x00\xff $5\r\n", [b"\x00\xff $5"]),
    "bulk": Row(b"$5\r\nhello\r\n", [b"hello"]),
    "empty bulk": Row(b"$0\r\n\r\n", [b""]),
    "bulk of line ends": Row(b"$6\r\n\r\n\r\n\r\n\r\n", [b"\r\n\r\n\r\n"]),
    "bulk that looks like replies": Row(b"$9\r\n+OK\r\n:1\r\n\r\n", [b"+OK\r\n:1\r\n"]),
    "bulk of 1000": Row(b"$1000\r\n" + b"x" * 1000 + b"\r\n", [b"x" * 1000]),
    "length with leading zeros": Row(b"$0005\r\nhello\r\n", [b"hello"]),
    "null bulk": Row(b"$-1\r\n", [None]),
    # RESP2, "Integers": an optional sign and digits
    "integer": Row(b":1000\r\n", [1000]),
    "integer zero": Row(b":0\r\n", [0]),
    "negative integer": Row(b":-7\r\n", [-7]),
    "integer with plus": Row(b":+5\r\n", [5]),
    "minus zero": Row(b":-0\r\n", [0]),
    "integer with leading zeros": Row(b":" + b"0" * 5000 + b"12\r\n", [12]),
    "largest integer": Row(b":9223372036854775807\r\n", [2**63 - 1]),
    "smallest integer": Row(b":-9223372036854775808\r\n", [-(2**63)]),
    # RESP2, "Simple errors"
    "error": Row(b"-ERR unknown command\r\n", [ReplyError("ERR unknown command")]),
    "error of one word": Row(b"-LOADING\r\n", [ReplyError("LOADING")]),
    "empty error": Row(b"-\r\n", [ReplyError("")]),
    "error that is not text": Row(b"-ERR \xff\xc3\xa9\r\n", [ReplyError("ERR \\xff\xe9")]),
    "error that is not text, decoded": Row(b"-ERR \xff\r\n", [ReplyError("ERR \\xff")], TEXT),
    # RESP2, "Arrays"
    "empty array": Row(b"*0\r\n", [[]]),
    "null array": Row(b"*-1\r\n", [None]),
    "array": Row(b"*3\r\n:1\r\n$1\r\na\r\n+b\r\n", [[1, b"a", b"b"]]),
    "array of nulls": Row(b"*3\r\n$-1\r\n*-1\r\n_\r\n", [[None, None, None]]),
    "array of arrays": Row(b"*2\r\n*2\r\n:1\r\n:2\r\n*1\r\n*0\r\n", [[[1, 2], [[]]]]),
    "error in an array": Row(b"*2\r\n-ERR no\r\n:1\r\n", [[ReplyError("ERR no"), 1]]),
    "as deep as allowed": Row(b"*1\r\n" * 3 + b":1\r\n", [[[[1]]]], {"max_depth": 3}),
    "array of many bulks": Row(b"*50\r\n" + b"$2\r\nab\r\n" * 50, [[b"ab"] * 50]),
    "many bulks": Row(b"$2\r\nab\r\n" * 50, [b"ab"] * 50),
    "many bulks, and what looks like one": Row(
        b"*9\r\n" + b"$2\r\nab\r\n" * 7 + b"$8\r\n$2\r\ncd\r\n\r\n$0\r\n\r\n",
        [[b"ab"] * 7 + [b"$2\r\ncd\r\n", b""]],
    ),
    "many bulks, and something else": Row(
        b"*9\r\n" + b"$2\r\nab\r\n" * 7 + b":1\r\n$2\r\ncd\r\n", [[b"ab"] * 7 + [1, b"cd"]]
    ),
    "many bulks of all lengths": Row(
        b"*30\r\n" + b"".join(b"$%d\r\n%b\r\n" % (37 * i, b"x" * 37 * i) for i in range(30)),
        [[b"x" * 37 * i for i in range(30)]],
    ),
    # RESP3, "Null", "Booleans", "Doubles", "Big numbers"
    "null": Row(b"_\r\n", [None]),
    "true": Row(b"#t\r\n", [True]),
    "false": Row(b"#f\r\n", [False]),
    "double": Row(b",1.25\r\n", [1.25]),
    "double without a fraction": Row(b",10\r\n", [10.0]),
    "negative double": Row(b",-0.5\r\n", [-0.5]),
    "double with plus": Row(b",+1.5\r\n", [1.5]),
    "double minus zero": Row(b",-0\r\n", [-0.0]),
    "double with exponent": Row(b",1.5e300\r\n,1E-7\r\n,1e+2\r\n", [1.5e300, 1e-7, 100.0]),
    "double of 17 digits": Row(b",0.10000000000000001\r\n", [0.1]),
    "double that rounds to zero": Row(b",1e-999\r\n", [0.0]),
    "infinity": Row(b",inf\r\n,-inf\r\n,+inf\r\n", [INF, -INF, INF]),
    "infinity of libc": Row(b",INF\r\n,-infinity\r\n", [INF, -INF]),
    "nan": Row(b",nan\r\n", [NAN]),
    "nan of libc": Row(b",-nan\r\n,NaN\r\n,-nan(ind)\r\n,nan(snan)\r\n", [NAN, NAN, NAN, NAN]),
    "big number": Row(
        b"(3492890328409238509324850943850943825024385\r\n",
        [3492890328409238509324850943850943825024385],
    ),
    "small big number": Row(b"(-1\r\n(+2\r\n(0\r\n", [-1, 2, 0]),
    "big number of 4300 digits": Row(b"(-" + b"9" * 4300 + b"\r\n", [1 - 10**4300]),
    # RESP3, "Bulk errors", "Verbatim strings"
    "bulk error": Row(b"!21\r\nSYNTAX invalid syntax\r\n", [ReplyError("SYNTAX invalid syntax")]),
    "bulk error with line ends": Row(b"!5\r\nE\r\n\xff!\r\n", [ReplyError("E\r\n\\xff!")]),
    "empty bulk error": Row(b"!0\r\n\r\n", [ReplyError("")]),
    "verbatim string": Row(b"=15\r\ntxt:Some string\r\n", [Verbatim(b"Some string", "txt")]),
    "empty verbatim string": Row(b"=4\r\nmkd:\r\n", [Verbatim(b"", "mkd")]),
    "verbatim string, decoded": Row(b"=6\r\ntxt:\xc3\xa9\r\n", [Verbatim("\xe9", "txt")], TEXT),
    "verbatim string of an odd format": Row(b"=5\r\n\xff::::\r\n", [Verbatim(b":", "\xff::")]),
    # RESP3, "Maps", "Sets"
    "map": Row(b"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n", [{b"a": 1, b"b": 2}]),
    "empty map": Row(b"%0\r\n", [{}]),
    "map of maps": Row(b"%1\r\n+a\r\n%1\r\n+b\r\n*1\r\n:1\r\n", [{b"a": {b"b": [1]}}]),
    "repeated key": Row(b"%2\r\n+a\r\n:1\r\n+a\r\n:2\r\n", [{b"a": 2}]),
    "list as key": Row(b"%1\r\n*2\r\n:1\r\n*1\r\n:2\r\n*1\r\n:3\r\n", [{(1, (2,)): [3]}]),
    "empty list as key": Row(b"%1\r\n*0\r\n*0\r\n", [{(): []}]),
    "set as key": Row(b"%1\r\n~1\r\n:1\r\n~1\r\n:2\r\n", [{frozenset({1}): {2}}]),
    "map as key": Row(b"%1\r\n%1\r\n:1\r\n*1\r\n:2\r\n%0\r\n", [{((1, (2,)),): {}}]),
    "error as key": Row(b"%1\r\n-ERR\r\n:1\r\n", [{ReplyError("ERR"): 1}]),
    "null, bool and double as keys": Row(
        b"%3\r\n_\r\n:1\r\n#t\r\n:2\r\n,0.5\r\n:3\r\n", [{None: 1, True: 2, 0.5: 3}]
    ),
    "set": Row(b"~3\r\n+a\r\n:1\r\n+a\r\n", [{b"a", 1}]),
    "empty set": Row(b"~0\r\n", [set()]),
    "sets in a set": Row(b"~2\r\n~1\r\n~0\r\n*1\r\n%0\r\n", [{frozenset({frozenset()}), ((),)}]),
    # Python's equality decides, as for any set: 1 == True == 1.0.
    "equal members of a set": Row(b"~3\r\n:1\r\n#t\r\n,1\r\n", [{1}]),
    "list with a set in a map": Row(b"%1\r\n:1\r\n*1\r\n~1\r\n*0\r\n", [{1: [{()}]}]),
    # RESP3, "Streamed strings", "Streamed aggregated data types"
    "streamed string": Row(b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n", [b"Hello"]),
    "empty streamed string": Row(b"$?\r\n;0\r\n", [b""]),
    "streamed string of line ends": Row(b"$?\r\n;2\r\n\r\n\r\n;2\r\n;0\r\n;0\r\n", [b"\r\n;0"]),
    "streamed string, decoded": Row(b"$?\r\n;1\r\n\xc3\r\n;1\r\n\xa9\r\n;0\r\n", ["\xe9"], TEXT),
    "streamed array": Row(b"*?\r\n:1\r\n:2\r\n.\r\n", [[1, 2]]),
    "empty streamed array": Row(b"*?\r\n.\r\n", [[]]),
    "streamed map": Row(b"%?\r\n+a\r\n:1\r\n+b\r\n*?\r\n.\r\n.\r\n", [{b"a": 1, b"b": []}]),
    "streamed set": Row(b"~?\r\n:1\r\n*?\r\n:2\r\n.\r\n.\r\n", [{1, (2,)}]),
    "streamed in a counted": Row(b"*2\r\n*?\r\n.\r\n$?\r\n;1\r\na\r\n;0\r\n", [[[], b"a"]]),
    "streamed to the limit": Row(b"*?\r\n:1\r\n:2\r\n.\r\n", [[1, 2]], {"max_elements": 2}),
    "streamed with no element allowed": Row(b"*?\r\n.\r\n", [[]], {"max_elements": 0}),
    # RESP3, "Attribute type"
    "attribute skipped": Row(b"|1\r\n+ttl\r\n:3600\r\n+OK\r\n", [b"OK"]),
    "attribute kept": Row(
        b"|1\r\n+ttl\r\n:3600\r\n+OK\r\n", [Attributed(b"OK", {b"ttl": 3600})], KEEP
    ),
    "empty attribute": Row(b"|0\r\n:1\r\n", [1]),
    "empty attribute kept": Row(b"|0\r\n:1\r\n", [Attributed(1, {})], KEEP),
    "attribute in an array": Row(b"*2\r\n:1\r\n|1\r\n+a\r\n*0\r\n:2\r\n", [[1, 2]]),
    "attribute in an array kept": Row(
        b"*2\r\n:1\r\n|1\r\n+a\r\n*0\r\n:2\r\n", [[1, Attributed(2, {b"a": []})]], KEEP
    ),
    "attributes around key and value": Row(
        b"%1\r\n|1\r\n*0\r\n*0\r\n+k\r\n|0\r\n+v\r\n", [{b"k": b"v"}]
    ),
    "attributes around key and value kept": Row(
        b"%1\r\n|1\r\n*0\r\n*0\r\n*0\r\n|1\r\n:1\r\n*0\r\n*0\r\n",
        [{Attributed((), (((), ()),)): Attributed([], {1: []})}],
        KEEP,
    ),
    "attribute of a member": Row(b"~1\r\n|1\r\n:1\r\n:2\r\n*1\r\n:3\r\n", [{(3,)}]),
    "attribute of a member kept": Row(
        b"~1\r\n|1\r\n:1\r\n:2\r\n*1\r\n:3\r\n", [{Attributed((3,), ((1, 2),))}], KEEP
    ),
    "attribute of an array": Row(
        b"|1\r\n:1\r\n:2\r\n*1\r\n:3\r\n", [Attributed([3], {1: 2})], KEEP
    ),
    "attributes of attributes": Row(b"|1\r\n:1\r\n|1\r\n:2\r\n:3\r\n:4\r\n:5\r\n", [5]),
    "attributes of attributes kept": Row(
        b"|1\r\n:1\r\n|1\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
        [Attributed(5, {1: Attributed(4, {2: 3})})],
        KEEP,
    ),
    "two attributes": Row(b"|1\r\n:1\r\n:2\r\n|1\r\n:3\r\n:4\r\n:5\r\n", [5]),
    "two attributes kept": Row(
        b"|1\r\n:1\r\n:2\r\n|1\r\n:3\r\n:4\r\n:5\r\n",
        [Attributed(Attributed(5, {3: 4}), {1: 2})],
        KEEP,
    ),
    "attribute in a stream": Row(b"*?\r\n|0\r\n:1\r\n.\r\n", [[Attributed(1, {})]], KEEP),
    "attribute and its value at the depth allowed": Row(
        b"|1\r\n:1\r\n:2\r\n*0\r\n", [[]], {"max_depth": 2}
    ),
    # RESP3, "Push type"
    "push": Row(b">2\r\n+message\r\n:1\r\n", [Push([b"message", 1])]),
    "empty push": Row(b">0\r\n", [Push()]),
    "push before a reply": Row(b">1\r\n+a\r\n:1\r\n", [Push([b"a"]), 1]),
    "push in an array": Row(b"*2\r\n:1\r\n>1\r\n+a\r\n:2\r\n", [Push([b"a"]), [1, 2]]),
    "push before the first element": Row(b"*1\r\n>1\r\n+a\r\n:1\r\n", [Push([b"a"]), [1]]),
    "push between key and value": Row(
        b"%1\r\n>1\r\n+a\r\n+k\r\n>1\r\n+b\r\n+v\r\n", [Push([b"a"]), Push([b"b"]), {b"k": b"v"}]
    ),
    "push in a set": Row(b"~1\r\n>1\r\n*0\r\n*0\r\n", [Push([[]]), {()}]),
    "push in a key": Row(b"%1\r\n*1\r\n>1\r\n~0\r\n:1\r\n:2\r\n", [Push([set()]), {(1,): 2}]),
    "push among many bulks": Row(
        b"*9\r\n" + b"$1\r\na\r\n" * 7 + b">5\r\n" + b"$1\r\nb\r\n" * 7,
        [Push([b"b"] * 5), [b"a"] * 7 + [b"b"] * 2],
    ),
    "push in a stream": Row(b"*?\r\n>1\r\n+a\r\n:1\r\n>0\r\n.\r\n", [Push([b"a"]), Push(), [1]]),
    "push in a full stream": Row(
        b"*?\r\n:1\r\n>1\r\n:2\r\n.\r\n", [Push([2]), [1]], {"max_elements": 1}
    ),
    "push in a push": Row(b">2\r\n+a\r\n>1\r\n+b\r\n:1\r\n", [Push([b"b"]), Push([b"a", 1])]),
    "push in an attribute": Row(b"|1\r\n:1\r\n>1\r\n+a\r\n:2\r\n:3\r\n", [Push([b"a"]), 3]),
    "push in an attribute kept": Row(
        b"|1\r\n:1\r\n>1\r\n+a\r\n:2\r\n:3\r\n", [Push([b"a"]), Attributed(3, {1: 2})], KEEP
    ),
    "attribute of a push": Row(b"|1\r\n:1\r\n:2\r\n>1\r\n+a\r\n:3\r\n", [Push([b"a"]), 3]),
    "attribute of a push kept": Row(
        b"|1\r\n:1\r\n:2\r\n>1\r\n+a\r\n:3\r\n", [Attributed(Push([b"a"]), {1: 2}), 3], KEEP
    ),
    "attributes of a push in an array kept": Row(
        b"*1\r\n|0\r\n|1\r\n:1\r\n:2\r\n>1\r\n+a\r\n:3\r\n",
        [Attributed(Attributed(Push([b"a"]), {1: 2}), {}), [3]],
        KEEP,
    ),
    # They are read before it is known that no key, no member follows.
    "attributes of a push before a key come frozen": Row(
        b"%1\r\n|1\r\n:1\r\n*1\r\n:2\r\n>1\r\n*1\r\n+a\r\n:3\r\n:4\r\n",
        [Attributed(Push([[b"a"]]), ((1, (2,)),)), {3: 4}],
        KEEP,
    ),
    "attributes of a push before a member come frozen": Row(
        b"~1\r\n|1\r\n+a\r\n%0\r\n>1\r\n+b\r\n:3\r\n",
        [Attributed(Push([b"b"]), ((b"a", ()),)), {3}],
        KEEP,
    ),
    "attributes of a push before a value": Row(
        b"%1\r\n:3\r\n|1\r\n:1\r\n*1\r\n:2\r\n>1\r\n+a\r\n:4\r\n",
        [Attributed(Push([b"a"]), {1: [2]}), {3: 4}],
        KEEP,
    ),
    "invalidation": Row(
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nfoo\r\n", [Push([b"invalidate", [b"foo"]])]
    ),
    "invalidation of everything": Row(
        b">2\r\n$10\r\ninvalidate\r\n_\r\n", [Push([b"invalidate", None])]
    ),
    "invalidation of everything, in RESP2's words": Row(
        b">2\r\n$10\r\ninvalidate\r\n$-1\r\n", [Push([b"invalidate", None])]
    ),
    # encoding=, errors=, raw_pushes=
    "decoded": Row(b"*2\r\n+\xc3\xa9\r\n$2\r\n\xc3\xa9\r\n", [["\xe9", "\xe9"]], TEXT),
    "decoded keys": Row(b"%1\r\n+a\r\n$1\r\nb\r\n", [{"a": "b"}], TEXT),
    "decoded otherwise": Row(b"+\xe9\r\n", ["\xe9"], {"encoding": "latin-1"}),
    "decoded with replacements": Row(b"+a\xff\r\n", ["a\ufffd"], TEXT | {"errors": "replace"}),
    "decoded in UTF-16": Row(
        b"$4\r\na\x00b\x00\r\n+OK\r\n", ["ab", "\u4b4f"], {"encoding": "utf-16-le"}
    ),
    "undecodable": Row(b"+a\r\n+\xff\r\n+b\r\n", ["a", Undecodable(b"\xff"), "b"], TEXT),
    "many decoded": Row(b"*9\r\n" + b"$2\r\n\xc3\xa9\r\n" * 9, [["\xe9"] * 9], TEXT),
    "undecodable among many": Row(
        b"$2\r\nab\r\n" * 7 + b"$1\r\n\xff\r\n$1\r\nc\r\n",
        ["ab"] * 7 + [Undecodable(b"\xff"), "c"],
        TEXT,
    ),
    "undecodable among many in an array": Row(
        b"*9\r\n" + b"$2\r\nab\r\n" * 7 + b"$1\r\n\xff\r\n$1\r\nc\r\n:1\r\n",
        [Undecodable(b"\xff"), 1],
        TEXT,
    ),
    "undecodable in an array": Row(
        b"*3\r\n+a\r\n$2\r\n\xff\xfe\r\n$1\r\n\xfd\r\n:1\r\n", [Undecodable(b"\xff\xfe"), 1], TEXT
    ),
    "undecodable verbatim string": Row(
        b"*1\r\n=5\r\ntxt:\xff\r\n:1\r\n", [Undecodable(b"\xff"), 1], TEXT
    ),
    "undecodable key": Row(b"%1\r\n*1\r\n+\xff\r\n:1\r\n:1\r\n", [Undecodable(b"\xff"), 1], TEXT),
    "undecodable push": Row(
        b"*2\r\n:1\r\n>1\r\n+\xff\r\n+b\r\n", [Undecodable(b"\xff"), [1, "b"]], TEXT
    ),
    "push in an undecodable reply": Row(
        b"*2\r\n+\xff\r\n>1\r\n+a\r\n+b\r\n:1\r\n", [Push(["a"]), Undecodable(b"\xff"), 1], TEXT
    ),
    "undecodable in a skipped attribute": Row(b"|1\r\n+\xff\r\n+\xfe\r\n+a\r\n", ["a"], TEXT),
    "undecodable in a kept attribute": Row(
        b"*1\r\n|1\r\n+a\r\n+\xff\r\n+\xfe\r\n:1\r\n", [Undecodable(b"\xff"), 1], TEXT | KEEP
    ),
    "undecodable attribute of a push": Row(
        b"*1\r\n|1\r\n+a\r\n+\xff\r\n>1\r\n+b\r\n+c\r\n", [Undecodable(b"\xff"), ["c"]], TEXT | KEEP
    ),
    "push in a skipped attribute is decoded": Row(
        b"|1\r\n+\xff\r\n>1\r\n+a\r\n+\xfe\r\n+b\r\n", [Push(["a"]), "b"], TEXT
    ),
    "raw push": Row(
        b"*2\r\n+a\r\n>2\r\n+\xff\r\n*1\r\n$1\r\nk\r\n+b\r\n",
        [Push([b"\xff", [b"k"]]), ["a", "b"]],
        TEXT | {"raw_pushes": True},
    ),
}


def refused(
    wire: bytes,
    expected: str,
    found: str,
    offset: int,
    *,
    before: Sequence[Any] = (),
    **options: Any,
) -> Row:
    """Make the row of an error: what was expected, what was found, where."""
    return Row(
        wire, list(before), options, f"expected {expected}, found {found} at offset {offset}"
    )


TYPE = "a type byte"
LINE = "no lone CR or LF in a line"

ERRORS = {
    # Type bytes
    "unknown type byte": refused(b"x", TYPE, 'b"x"', 0),
    "inline command": refused(b"PING\r\n", TYPE, 'b"P"', 0),
    "empty line": refused(b"\r\n", TYPE, r'b"\r"', 0),
    "line feed": refused(b"+OK\r\n\n", TYPE, r'b"\n"', 5, before=[b"OK"]),
    "unknown element": refused(b"*2\r\n:1\r\n\x00", TYPE, r'b"\x00"', 8),
    "values before an error": refused(b":1\r\n*1\r\n:2\r\n@", TYPE, 'b"@"', 12, before=[1, [2]]),
    "push before an error": refused(
        b"*2\r\n>1\r\n+a\r\n:1\r\n?", TYPE, 'b"?"', 16, before=[Push([b"a"])]
    ),
    # Lines
    "lone LF": refused(b"+a\nb\r\n", LINE, r'b"\n"', 2),
    "lone CR": refused(b"+a\rb\r\n", LINE, r'b"\r"', 2),
    "CR CR LF": refused(b"+a\r\r\n", LINE, r'b"\r"', 2),
    "lone LF at the end": refused(b"*1\r\n:1\n", LINE, r'b"\n"', 6),
    "lone CR in a length": refused(b"$1\r2", LINE, r'b"\r"', 2),
    "lone LF in an error": refused(b"-a\nb\r\n", LINE, r'b"\n"', 2),
    "line too long": refused(
        b"+abcd\r\n", "a line of at most 3 bytes", "a longer one", 0, max_line=3
    ),
    "line too long without an end": refused(
        b":1\r\n+abcd", "a line of at most 3 bytes", "a longer one", 4, before=[1], max_line=3
    ),
    "line too long before its lone LF": refused(
        b"+abcd\n", "a line of at most 3 bytes", "a longer one", 0, max_line=3
    ),
    "lone LF before the line is too long": refused(b"+abc\nd\r\n", LINE, r'b"\n"', 4, max_line=3),
    "line too long for a remembered one": refused(
        b":12\r\n", "a line of at most 1 bytes", "a longer one", 0, max_line=1
    ),
    "integer too long a line": refused(
        b":123456789\r\n", "a line of at most 8 bytes", "a longer one", 0, max_line=8
    ),
    "length too long a line": refused(
        b"$00\r\n", "a line of at most 1 bytes", "a longer one", 0, max_line=1
    ),
    "line over 64 KiB": refused(
        b"+" + b"x" * 65537, "a line of at most 65536 bytes", "a longer one", 0
    ),
    # Integers
    "integer with underscore": refused(b":1_0\r\n", "an integer", 'b"1_0"', 0),
    "integer with space": refused(b": 1\r\n", "an integer", 'b" 1"', 0),
    "integer with trailing space": refused(b":1 \r\n", "an integer", 'b"1 "', 0),
    "no integer": refused(b":\r\n", "an integer", 'b""', 0),
    "sign without integer": refused(b":-\r\n", "an integer", 'b"-"', 0),
    "two signs": refused(b":+-1\r\n", "an integer", 'b"+-1"', 0),
    "integer with point": refused(b":1.0\r\n", "an integer", 'b"1.0"', 0),
    "superscript two": refused(b":\xb2\r\n", "an integer", r'b"\xb2"', 0),
    "integer too large": refused(
        b":9223372036854775808\r\n", "an integer of 64 bits", 'b"9223372036854775808"', 0
    ),
    "integer too small": refused(
        b":-9223372036854775809\r\n", "an integer of 64 bits", 'b"-9223372036854775809"', 0
    ),
    "integer of 5000 digits": refused(
        b":" + b"1" * 5000 + b"\r\n",
        "an integer of 64 bits",
        'b"' + "1" * 40 + '"... (5000 bytes)',
        0,
    ),
    # Lengths
    "bulk length with plus": refused(b"$+5\r\n", "a length for this bulk", 'b"+5"', 0),
    "bulk length below -1": refused(b"$-2\r\n", "a length for this bulk", 'b"-2"', 0),
    "bulk length minus zero": refused(b"$-0\r\n", "a length for this bulk", 'b"-0"', 0),
    "bulk without length": refused(b"$\r\n", "a length for this bulk", 'b""', 0),
    "bulk length with space": refused(b"$ 5\r\n", "a length for this bulk", 'b" 5"', 0),
    "bulk length of letters": refused(b"$abc\r\n", "a length for this bulk", 'b"abc"', 0),
    "bulk length of 21 digits": refused(
        b"$" + b"0" * 21 + b"\r\n", "a length for this bulk", 'b"000000000000000000000"', 0
    ),
    "bulk too long": refused(b"$6\r\n", "a bulk of at most 5 bytes", "6", 0, max_bulk=5),
    "bulk over 512 MiB": refused(
        b"$536870913\r\n", "a bulk of at most 536870912 bytes", "536870913", 0
    ),
    "verbatim string too long": refused(
        b"=6\r\n", "a verbatim string of at most 5 bytes", "6", 0, max_bulk=5
    ),
    "bulk error too long": refused(
        b"!6\r\n", "a bulk error of at most 5 bytes", "6", 0, max_bulk=5
    ),
    "array length below -1": refused(b"*-2\r\n", "a length for this array", 'b"-2"', 0),
    "array length with plus": refused(b"*+1\r\n", "a length for this array", 'b"+1"', 0),
    # Only `$` and `*` have a null of their own, from RESP2.
    "null map": refused(b"%-1\r\n", "a length for this map", 'b"-1"', 0),
    "null set": refused(b"~-1\r\n", "a length for this set", 'b"-1"', 0),
    "null push": refused(b">-1\r\n", "a length for this push", 'b"-1"', 0),
    "null attribute": refused(b"|-1\r\n", "a length for this attribute", 'b"-1"', 0),
    "null verbatim string": refused(b"=-1\r\n", "a length for this verbatim string", 'b"-1"', 0),
    "null bulk error": refused(b"!-1\r\n", "a length for this bulk error", 'b"-1"', 0),
    "array too long": refused(b"*3\r\n", "at most 2 elements in one array", "3", 0, max_elements=2),
    "array over 2**32 - 1": refused(
        b"*4294967296\r\n", "at most 4294967295 elements in one array", "4294967296", 0
    ),
    "map too long": refused(b"%2\r\n", "at most 3 elements in one map", "4", 0, max_elements=3),
    "set too long": refused(
        b":1\r\n~3\r\n", "at most 2 elements in one set", "3", 4, before=[1], max_elements=2
    ),
    "push too long": refused(b">3\r\n", "at most 2 elements in one push", "3", 0, max_elements=2),
    # What follows a bulk
    "bulk without trailer": refused(b"$5\r\nhelloXY", "CRLF after bulk of 5 bytes", 'b"XY"', 9),
    "bulk without trailer among many": refused(
        b"*20\r\n" + b"$1\r\na\r\n" * 15 + b"$1\r\nab\r\n" * 5,
        "CRLF after bulk of 1 bytes",
        r'b"b\r"',
        115,
    ),
    "streamed array too long by many bulks": refused(
        b"*?\r\n" + b"$1\r\na\r\n" * 30,
        "at most 20 elements in one array",
        "one more",
        144,
        max_elements=20,
    ),
    "bulk longer than said": refused(
        b":1\r\n$2\r\nabc\r\n", "CRLF after bulk of 2 bytes", r'b"c\r"', 10, before=[1]
    ),
    "bulk shorter than said": refused(
        b"$3\r\nab\r\n+OK\r\n", "CRLF after bulk of 3 bytes", r'b"\n+"', 7
    ),
    "bulk with half a trailer": refused(b"$1\r\na\rb", "CRLF after bulk of 1 bytes", r'b"\rb"', 5),
    "large bulk without trailer": refused(
        b"$2000\r\n" + b"x" * 2002, "CRLF after bulk of 2000 bytes", 'b"xx"', 2007
    ),
    "bulk error without trailer": refused(
        b"!1\r\naXY", "CRLF after bulk error of 1 bytes", 'b"XY"', 5
    ),
    "verbatim string without trailer": refused(
        b"=4\r\ntxt:XY", "CRLF after verbatim string of 4 bytes", 'b"XY"', 8
    ),
    "chunk without trailer": refused(b"$?\r\n;1\r\naXY", "CRLF after chunk of 1 bytes", 'b"XY"', 9),
    # Null, booleans, doubles, big numbers, verbatim strings
    "null with content": refused(b"_0\r\n", "CRLF after a null's type byte", 'b"0"', 0),
    "boolean of two letters": refused(b"#tt\r\n", "a boolean, t or f", 'b"tt"', 0),
    "boolean in capitals": refused(b"#T\r\n", "a boolean, t or f", 'b"T"', 0),
    "no boolean": refused(b"#\r\n", "a boolean, t or f", 'b""', 0),
    "double without digits": refused(b",\r\n", "a double", 'b""', 0),
    "double with underscore": refused(b",1_0.5\r\n", "a double", 'b"1_0.5"', 0),
    "double with space": refused(b", 1.5\r\n", "a double", 'b" 1.5"', 0),
    "double without an integral": refused(b",.5\r\n", "a double", 'b".5"', 0),
    "double without a fraction behind its point": refused(b",5.\r\n", "a double", 'b"5."', 0),
    "double without an exponent behind its e": refused(b",5e\r\n", "a double", 'b"5e"', 0),
    "double with a fractional exponent": refused(b",5e1.5\r\n", "a double", 'b"5e1.5"', 0),
    "double with a comma": refused(b",1,5\r\n", "a double", 'b"1,5"', 0),
    "hexadecimal double": refused(b",0x1p3\r\n", "a double", 'b"0x1p3"', 0),
    "double beyond the doubles": refused(b",1e999\r\n", "a finite double", 'b"1e999"', 0),
    "two signs of a double": refused(b",--1\r\n", "a double", 'b"--1"', 0),
    "infinite spelled wrong": refused(b",infinit\r\n", "a double", 'b"infinit"', 0),
    "big number with underscore": refused(b"(1_0\r\n", "a big number", 'b"1_0"', 0),
    "no big number": refused(b"(\r\n", "a big number", 'b""', 0),
    "big number of 4301 digits": refused(
        b"(-" + b"9" * 4301 + b"\r\n", "a big number of at most 4300 digits", "4301 digits", 0
    ),
    "verbatim string without format": refused(
        b"=3\r\ntxt\r\n", "three bytes of format and a colon", 'b"txt"', 0
    ),
    "verbatim string without colon": refused(
        b"=8\r\ntextabcd\r\n", "three bytes of format and a colon", 'b"text"', 0
    ),
    # Nesting
    "too deep": refused(b"*1\r\n" * 4, "at most 3 levels of nesting", "one more", 12, max_depth=3),
    "any depth at all": refused(
        b":1\r\n*0\r\n", "at most 0 levels of nesting", "one more", 4, before=[1], max_depth=0
    ),
    "deeper than 128": refused(b"*1\r\n" * 129, "at most 128 levels of nesting", "one more", 512),
    "too deep in all types": refused(
        b"*1\r\n%1\r\n~1\r\n*?\r\n", "at most 3 levels of nesting", "one more", 12, max_depth=3
    ),
    "push too deep": refused(
        b"*1\r\n>1\r\n", "at most 1 levels of nesting", "one more", 4, max_depth=1
    ),
    "attribute too deep": refused(
        b"*1\r\n|0\r\n", "at most 1 levels of nesting", "one more", 4, max_depth=1
    ),
    "attributed value too deep": refused(
        b"|0\r\n*0\r\n", "at most 1 levels of nesting", "one more", 4, max_depth=1
    ),
    "key too deep": refused(
        b"~1\r\n" * 130,
        "at most 128 levels of nesting in a key or a member",
        "one more",
        516,
        max_depth=1000,
    ),
    # Streams
    "end outside a stream": refused(b".\r\n", "an element", 'the end of a stream b"."', 0),
    "end in a counted array": refused(b"*1\r\n.\r\n", "an element", 'the end of a stream b"."', 4),
    "end in an array in a stream": refused(
        b"*?\r\n*1\r\n.\r\n", "an element", 'the end of a stream b"."', 8
    ),
    "end in a push in a stream": refused(
        b"*?\r\n>1\r\n.\r\n", "an element", 'the end of a stream b"."', 8
    ),
    "end behind an attribute": refused(
        b"*?\r\n|0\r\n.\r\n", "an element", 'the end of a stream b"."', 8
    ),
    "end with content": refused(b"*?\r\n.0\r\n", "CRLF after the end of a stream", 'b"0"', 4),
    "chunk outside a stream": refused(b";1\r\na\r\n", "an element", 'the chunk b";1"', 0),
    "key without value in a stream": refused(
        b"%?\r\n+a\r\n.\r\n", "a value for the last key of the map", "its end", 8
    ),
    "streamed push": refused(b">?\r\n", "a length for this push", 'b"?"', 0),
    "streamed attribute": refused(b"|?\r\n", "a length for this attribute", 'b"?"', 0),
    "streamed verbatim string": refused(b"=?\r\n", "a length for this verbatim string", 'b"?"', 0),
    "push between chunks": refused(
        b"$?\r\n;1\r\na\r\n>1\r\n", "a chunk of the streamed string", 'b">"', 11
    ),
    "bulk for a chunk": refused(b"$?\r\n$1\r\n", "a chunk of the streamed string", 'b"$"', 4),
    "empty line for a chunk": refused(b"$?\r\n\r\n", TYPE, r'b"\r"', 4),
    "lone LF for a whole chunk": refused(b"$?\r\n\n", TYPE, r'b"\n"', 4),
    "unknown type byte for a chunk": refused(b"$?\r\nx", TYPE, 'b"x"', 4),
    "chunk of no length": refused(b"$?\r\n;\r\n", "a length for this chunk", 'b""', 4),
    "chunk of negative length": refused(b"$?\r\n;-1\r\n", "a length for this chunk", 'b"-1"', 4),
    "lone LF for a chunk": refused(b"$?\r\n;1\n", LINE, r'b"\n"', 6),
    "streamed string too long": refused(
        b"$?\r\n;2\r\nab\r\n;4\r\n", "a bulk of at most 5 bytes", "6 or more", 12, max_bulk=5
    ),
    "streamed array too long": refused(
        b"*?\r\n:1\r\n:2\r\n:3\r\n",
        "at most 2 elements in one array",
        "one more",
        12,
        max_elements=2,
    ),
    "streamed array too long by an array": refused(
        b"*?\r\n:1\r\n*1\r\n:2\r\n",
        "at most 1 elements in one array",
        "one more",
        8,
        max_elements=1,
    ),
    "streamed array where none is allowed": refused(
        b"*?\r\n:1\r\n", "at most 0 elements in one array", "one more", 4, max_elements=0
    ),
}

# What is no error and no value yet.
INCOMPLETE = {
    "nothing": Row(b"", []),
    "a type byte": Row(b"+", []),
    "a line": Row(b"+OK", []),
    "a line and half its end": Row(b"+OK\r", []),
    "a line of 64 KiB and half its end": Row(b"+" + b"x" * 65536 + b"\r", []),
    "a length": Row(b"$5\r\n", []),
    "a bulk without its end": Row(b"$5\r\nhello", []),
    "a bulk and half its end": Row(b"$5\r\nhello\r", []),
    "half a trailer that is wrong": Row(b"$5\r\nhelloX", []),
    "an array": Row(b":1\r\n*2\r\n:1\r\n", [1]),
    "a map": Row(b"%1\r\n+a\r\n", []),
    "a streamed string": Row(b"$?\r\n;1\r\na\r\n", []),
    "a streamed array": Row(b"*?\r\n:1\r\n", []),
    "an attribute": Row(b"|1\r\n:1\r\n:2\r\n", []),
    "a push in an array": Row(b"*2\r\n:1\r\n>1\r\n+a\r\n", [Push([b"a"])]),
    # A declared length allocates nothing, so this is no error but a long wait.
    "an array of 2**32 - 1": Row(b"*4294967295\r\n", []),
    "a bulk of 512 MiB": Row(b"$536870912\r\n", []),
}


def exact(value: Any) -> Any:
    """Return what two values must share to be the same in type as well: 1 is not True or 1.0.

    nan is nan, -0.0 is not 0.0, and an undecodable string is known by its bytes.
    """
    name = type(value).__name__
    match value:
        case Verbatim():
            text: Any = value
            return name, text[:], value.format
        case float():
            return name, repr(value)
        case UnicodeDecodeError():
            return "Undecodable", bytes(value.object)
        case Undecodable():
            return "Undecodable", value.data
        case ReplyError():
            return name, str(value)
        case Attributed():
            return name, exact(value.value), exact(value.attributes)
        case list() | tuple():
            return name, [exact(element) for element in value]
        case dict():
            return name, [(exact(key), exact(element)) for key, element in value.items()]
        case set() | frozenset():
            return name, sorted((exact(member) for member in value), key=repr)
        case _:
            return name, value
