"""Values and streams for hypothesis: all that a parser can return, and wires that bring them.

The streams are written by a small writer of their own, not by `encode`: a second reading of the
specification, so that parser and encoder cannot be wrong together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from resp import Attributed, Push, ReplyError, Verbatim

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
STRINGS = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"$3\r\nabc\r\n", b"x" * 1500])
ERROR_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FORMATS = st.text(st.characters(max_codepoint=255), min_size=3, max_size=3)

SCALARS2 = (
    st.none()
    | INT64
    | STRINGS
    | ERROR_TEXTS.map(lambda text: ReplyError(text.replace("\r", "").replace("\n", "")))
)
SCALARS3 = (
    st.none()
    | st.booleans()
    | st.integers()
    | FLOATS
    | STRINGS
    | ERROR_TEXTS.map(ReplyError)
    | st.builds(Verbatim, STRINGS, FORMATS)
)


def values2() -> st.SearchStrategy[Any]:
    """Return what RESP2 can say: its values come back as they went."""
    return st.recursive(SCALARS2, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


def frozen() -> st.SearchStrategy[Any]:
    """Return what a parser makes of keys and members."""
    return st.recursive(
        SCALARS3,
        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
        max_leaves=5,
    )


def values3() -> st.SearchStrategy[Any]:
    """Return what RESP3 can say, attributes and pushes excepted."""
    return st.recursive(
        SCALARS3,
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(frozen(), inner, max_size=4)
            | st.sets(frozen(), max_size=4)
        ),
        max_leaves=20,
    )


class Node(NamedTuple):
    """An element of a stream: its type byte, what it holds, whether streamed; for the writer."""

    mark: str
    content: Any
    streamed: bool = False


SCALAR_NODES = st.one_of(
    st.sampled_from(["_\r\n", "$-1\r\n", "*-1\r\n"]).map(lambda wire: Node("_", wire)),
    st.booleans().map(lambda value: Node("#", value)),
    INT64.map(lambda value: Node(":", value)),
    st.integers().map(lambda value: Node("(", value)),
    FLOATS.map(lambda value: Node(",", value)),
    st.binary(max_size=6).map(lambda data: Node("+", data.replace(b"\r", b"").replace(b"\n", b""))),
    STRINGS.map(lambda data: Node("$", data)),
    st.lists(st.binary(min_size=1, max_size=6), max_size=3).map(lambda data: Node("$?", data)),
    st.text("abc \xe9", max_size=6).map(lambda text: Node("-", text)),
    st.text("abc\r\n\xe9", max_size=6).map(lambda text: Node("!", text)),
    st.tuples(FORMATS, STRINGS).map(lambda both: Node("=", both)),
)


BULKS = st.lists(STRINGS.map(lambda data: Node("$", data)), min_size=5, max_size=30)


def _aggregates(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    # A few of anything, or many bulks: parsers may take a run of them at once.
    elements = st.lists(inner, max_size=3) | st.builds(
        list.__add__, BULKS, st.lists(inner, max_size=1)
    )
    pairs = st.lists(st.tuples(inner, inner), max_size=2)
    streamed = st.booleans()
    return st.one_of(
        st.builds(Node, st.just("*"), elements, streamed),
        st.builds(Node, st.just("~"), elements, streamed),
        st.builds(Node, st.just("%"), pairs, streamed),
        st.builds(Node, st.just("|"), st.tuples(pairs, inner)),
        # An element, and the push that comes before it.
        st.builds(Node, st.just(">"), st.tuples(elements, inner)),
    )


NODES = st.recursive(SCALAR_NODES, _aggregates, max_leaves=12)


class Stream(NamedTuple):
    """Bytes, and the values that a parser delivers for them."""

    wire: bytes
    values: list[Any]


class _Writer:
    """Writes nodes, and says what they are in Python; recursively, as the examples are small."""

    def __init__(self, attributes: bool) -> None:
        self.attributes = attributes
        self.wire = b""
        self.delivered: list[Any] = []

    def element(self, node: Node, hashed: bool, around: tuple[Any, ...] = ()) -> Any:
        """Write an element, with its attributes `around` it, innermost first; return its value."""
        match node.mark, node.content:
            case "|", (pairs, inner):
                attributes = self.pairs(b"|%d\r\n" % len(pairs), pairs, hashed, False)
                return self.element(inner, hashed, (attributes, *around))
            case ">", (elements, following):
                push = Push(self.elements(b">%d\r\n" % len(elements), elements, False, False))
                self.delivered.append(self.wrapped(push, around))
                return self.element(following, hashed)
            case "*", elements:
                head = b"*?\r\n" if node.streamed else b"*%d\r\n" % len(elements)
                array = self.elements(head, elements, hashed, node.streamed)
                return self.wrapped(tuple(array) if hashed else array, around)
            case "~", elements:
                head = b"~?\r\n" if node.streamed else b"~%d\r\n" % len(elements)
                members = self.elements(head, elements, True, node.streamed)
                return self.wrapped(frozenset(members) if hashed else set(members), around)
            case "%", pairs:
                head = b"%?\r\n" if node.streamed else b"%%%d\r\n" % len(pairs)
                return self.wrapped(self.pairs(head, pairs, hashed, node.streamed), around)
            case _:
                return self.wrapped(self.scalar(node.mark, node.content), around)

    def wrapped(self, value: Any, around: tuple[Any, ...]) -> Any:
        for attributes in around if self.attributes else ():
            value = Attributed(value, attributes)
        return value

    def elements(self, head: bytes, nodes: list[Node], hashed: bool, streamed: bool) -> list[Any]:
        self.wire += head
        values = [self.element(node, hashed) for node in nodes]
        self.wire += b".\r\n" * streamed
        return values

    def pairs(self, head: bytes, pairs: Any, hashed: bool, streamed: bool) -> Any:
        self.wire += head
        written: dict[Any, Any] = {}
        for key, value in pairs:
            key = self.element(key, True)
            written[key] = self.element(value, hashed)
        self.wire += b".\r\n" * streamed
        return tuple(written.items()) if hashed else written

    def scalar(self, mark: str, content: Any) -> Any:
        match mark:
            case "_":
                self.wire += content.encode()
                return None
            case "#":
                self.wire += b"#t\r\n" if content else b"#f\r\n"
            case ":" | "(" | ",":
                self.wire += f"{mark}{content!r}\r\n".encode()
            case "+":
                self.wire += b"+%b\r\n" % content
            case "$":
                self.wire += b"$%d\r\n%b\r\n" % (len(content), content)
            case "$?":
                chunks = b"".join(b";%d\r\n%b\r\n" % (len(chunk), chunk) for chunk in content)
                self.wire += b"$?\r\n%b;0\r\n" % chunks
                return b"".join(content)
            case "-":
                self.wire += f"-{content}\r\n".encode()
                return ReplyError(content)
            case "!":
                data = content.encode()
                self.wire += b"!%d\r\n%b\r\n" % (len(data), data)
                return ReplyError(content)
            case _:
                name, data = content
                self.wire += b"=%d\r\n%b:" % (len(data) + 4, name.encode("latin-1"))
                self.wire += data + b"\r\n"
                return Verbatim(data, name)
        return content


def streams(attributes: bool) -> st.SearchStrategy[Stream]:
    """Return streams of replies, with attributes and pushes between any two elements."""

    def write(nodes: list[Node]) -> Stream:
        writer = _Writer(attributes)
        for node in nodes:
            writer.delivered.append(writer.element(node, False))
        return Stream(writer.wire, writer.delivered)

    return (st.lists(NODES, min_size=1, max_size=3) | BULKS).map(write)


def cuts() -> st.SearchStrategy[list[float]]:
    """Return where to cut: at these parts of the whole."""
    return st.lists(st.floats(0, 1), max_size=4).map(sorted)


def hostile() -> st.SearchStrategy[bytes]:
    """Return bytes that look like RESP for a while."""
    heads = st.sampled_from([b"%c%b\r\n" % (mark, size) for mark in b"$*%~|>=!;" for size in SIZES])
    lines = st.sampled_from(LINES)
    return st.lists(heads | lines | st.binary(max_size=2), max_size=12).map(b"".join)


SIZES = [b"0", b"1", b"2", b"3", b"5", b"-1", b"?", b"007", b"99999999999999999999"]
LINES = [
    *(b"%c%b\r\n" % (mark, text) for mark in b"+-:(,#_" for text in (b"", b"1", b"t", b"-2.5e1")),
    *(b".\r\n", b"\r\n", b"\r", b"\n", b"abc\r\n", b"txt:a\r\n", b"+\xff\r\n", b"$1\r\n\xff\r\n"),
    *(b"$5\r\nhello\r\n", b";3\r\nabc\r\n", b"$12\r\n+OK\r\n:1\r\n*2\r\n\r\n", b":99999999999\r\n"),
]


def options() -> st.SearchStrategy[dict[str, Any]]:
    """Return options of a parser, with limits that examples reach."""
    small = st.sampled_from([0, 1, 2, 3, 5, 8, 20, 100, 2000])
    limits = dict.fromkeys(("max_depth", "max_bulk", "max_elements", "max_line"), small)
    flags = {"attributes": st.booleans(), "raw_pushes": st.booleans()}
    return st.fixed_dictionaries(
        {}, optional={**limits, **flags, "encoding": st.sampled_from(["utf-8", "ascii"])}
    )
