"""Values to bytes: commands as a client sends them, and any value as a server would answer it.

A command carries strings and numbers, and nothing that a server would have to guess at: bool, None
and containers are refused. No error ever shows an argument's value, which may be a password.
"""

from __future__ import annotations

from itertools import chain

from ._errors import ReplyError
from ._lines import INTEGER_MAX, INTEGER_MIN, MAX_LINE
from ._types import Attributed, Push, Verbatim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Final, TypeAlias

    # What a command can carry; bool, though an int to Python, is refused.
    Argument: TypeAlias = bytes | bytearray | memoryview | str | int | float

# The header of a short argument, with the CRLF that ends what is before it.
HEADERS: Final = [b"\r\n$%d\r\n" % length for length in range(1024)]
STARTS: Final = [b"*%d" % count for count in range(128)]
# And of commands of text alone; they start with the CRLF that ends the command before.
TEXT_HEADERS: Final = {length: f"\r\n${length}\r\n" for length in range(1024)}
TEXT_STARTS: Final = {count: f"\r\n*{count}" for count in range(1, 128)}

# What the names of commands are made of; anything else as first argument is never shown.
NAME_LETTERS: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._|-"
)


def encode_command(*args: Argument) -> bytes:
    """Return one command as a server reads it: an array of bulks, the name first.

    str is sent as UTF-8, int in digits, float in the shortest form that reads back the same.
    Anything else is a TypeError; no argument at all, or text with a lone surrogate, a ValueError.
    """
    parts: list[bytes | bytearray] = []
    _append_command(parts, args, None)
    return b"".join(parts)


def encode_commands(commands: Iterable[Iterable[Argument]]) -> bytes:
    """Return a pipeline: every command as `encode_command` writes it, back to back.

    Errors are the same, and name the command by its index as well.
    """
    parts: list[bytes | bytearray] = []
    # Text and numbers are joined first and encoded once.
    texts: list[str] = []
    headers, append = TEXT_HEADERS, texts.append
    for index, command in enumerate(commands):
        if type(command) is not tuple and not isinstance(command, (tuple, list)):
            command = _arguments(command, index)
        before = len(texts)
        if (start := TEXT_STARTS.get(len(command))) is not None:
            append(start)
            try:
                for argument in command:
                    if type(argument) is str:
                        if not argument.isascii():
                            break
                        append(headers[len(argument)])
                        append(argument)
                    elif type(argument) is int:
                        text = str(argument)
                        append(headers[len(text)])
                        append(text)
                    else:
                        break
                else:
                    continue
            except (KeyError, ValueError):
                pass  # too long
        # One that has more than that, and all before it.
        del texts[before:]
        _append_texts(parts, texts)
        _append_command(parts, command, index)
    _append_texts(parts, texts)
    return b"".join(parts)


def _append_texts(parts: list[bytes | bytearray], texts: list[str]) -> None:
    if texts:
        texts.append("\r\n")
        parts.append("".join(texts)[2:].encode())
        texts.clear()


def _arguments(command: Iterable[Argument], index: int) -> tuple[Argument, ...]:
    """Return the arguments of a command that is neither tuple nor list."""
    # Of a string each letter would be an argument.
    if isinstance(command, (str, bytes, bytearray, memoryview)) or not hasattr(command, "__iter__"):
        kind = type(command).__name__
        raise TypeError(f"command {index} is of type {kind}; expected a sequence of arguments")
    return tuple(command)


def _append_command(
    parts: list[bytes | bytearray], args: Sequence[Argument], command: int | None
) -> None:
    if not args:
        which = "a command" if command is None else f"command {command}"
        raise ValueError(f"{which} has no arguments; expected its name at least")
    begin = len(parts)
    try:
        parts.append(STARTS[len(args)])
    except IndexError:
        parts.append(b"*%d" % len(args))
    for argument in args:
        if type(argument) is bytes:
            data: bytes | bytearray = argument
        elif type(argument) is str and argument.isascii():
            data = argument.encode()
        else:
            data = _argument(args, (len(parts) - begin) >> 1, command)
        try:
            parts.append(HEADERS[len(data)])
        except IndexError:
            parts.append(b"\r\n$%d\r\n" % len(data))
        parts.append(data)
    parts.append(b"\r\n")


def _argument(args: Sequence[Argument], index: int, command: int | None) -> bytes | bytearray:
    """Return the bytes of an argument, or say which one can't be sent and why."""
    argument = args[index]
    if isinstance(argument, str):
        surrogate = -1
        try:
            return str.encode(argument)
        except UnicodeEncodeError as error:
            surrogate = error.start
        # Raised out here, so that not even the context holds the text.
        where = _place(args, index, command)
        raise ValueError(
            f"{where} has a lone surrogate at index {surrogate}; UTF-8 cannot carry it"
        )
    if isinstance(argument, (bytes, bytearray)):
        return argument
    if isinstance(argument, memoryview):
        return argument.tobytes()
    if isinstance(argument, int) and not isinstance(argument, bool):
        try:
            return b"%d" % argument
        except ValueError:
            where = _place(args, index, command)
            limit = "more digits than sys.get_int_max_str_digits() allows"
            raise ValueError(f"{where} has {limit}") from None
    if isinstance(argument, float):
        return float.__repr__(argument).encode()
    where = _place(args, index, command)
    kind = "None" if argument is None else f"of type {type(argument).__name__}"
    raise TypeError(
        f"{where} is {kind}; a command carries bytes, bytearray, memoryview, str, int and float"
    )


def _place(args: Sequence[Argument], index: int, command: int | None) -> str:
    """Return "argument 2 of SET", as long as the first argument looks like a command's name."""
    where = f"argument {index}"
    name = args[0]
    if isinstance(name, (bytes, bytearray)):
        name = name.decode("latin-1")
    if index and isinstance(name, str) and len(name) <= 32 and NAME_LETTERS.issuperset(name):
        where = f"{where} of {name.upper()}"
    return where if command is None else f"{where} in command {command}"


def encode(value: Any, *, protocol: int = 3) -> bytes:
    """Return a value as a server sends it, in RESP3 or in RESP2.

    Takes all that `Parser` returns, and what is like it: str (as UTF-8), bytearray, memoryview,
    tuple, frozenset, subclasses. In RESP2, which has fewer types, a value goes as servers send
    it there: a double, a big number and a verbatim string as a bulk, a bool as 1 or 0, a map as
    the array of its keys and values, a set and a push as an array, and attributes not at all.

    `parse(encode(value))` is the value again, wherever the protocol can say it. Any other type is
    a TypeError that says where it is; a container inside itself, a push inside one (in RESP3), or
    text with a lone surrogate, is a ValueError.
    """
    if protocol not in (2, 3):
        raise ValueError(f"protocol must be 2 or 3, and is {protocol!r}")
    parts: list[bytes] = []
    # The open containers: each with its elements still to come and the number of those begun.
    stack: list[tuple[object, Iterator[Any], list[int]]] = []
    inside: set[int] = set()
    elements: Iterator[Any] = iter((value,))
    begun = [0]
    container: object = None
    while True:
        for element in elements:
            begun[0] += 1
            try:
                header, children = (_resp3 if protocol == 3 else _resp2)(element)
            except TypeError as error:
                raise TypeError(f"{error}{_path(stack, begun)}") from None
            except ValueError as error:
                raise ValueError(f"{error}{_path(stack, begun)}") from None
            if (
                protocol == 3
                and isinstance(element, Push)
                and not _alone(element, stack, container)
            ):
                where = _path(stack, begun)
                raise ValueError(f"a push stands by itself, in no container{where}")
            parts.append(header)
            if children is not None:
                if id(element) in inside:
                    where = _path(stack, begun)
                    raise ValueError(f"cannot encode a container inside itself{where}")
                inside.add(id(element))
                stack.append((container, elements, begun))
                container, elements, begun = element, iter(children), [0]
                break
        else:
            if not stack:
                return b"".join(parts)
            inside.discard(id(container))
            container, elements, begun = stack.pop()


def _alone(
    push: object, stack: list[tuple[object, Iterator[Any], list[int]]], container: object
) -> bool:
    """Tell whether a push is all there is, but for attributes around it.

    A server may send one between two elements, but it would not be one of them.
    """
    for around in (container, *(outer for outer, _, _ in reversed(stack))):
        if around is not None and not (isinstance(around, Attributed) and around.value is push):
            return False
        push = around
    return True


def _path(stack: list[tuple[object, Iterator[Any], list[int]]], begun: list[int]) -> str:
    """Return where the element in hand is: its index in each container, a map's pairs as two."""
    counts = [count for _, _, [count] in stack[1:]]
    if stack:
        counts.append(begun[0])
    return "".join([" at ", *(f"[{count - 1}]" for count in counts)]) if counts else ""


def _resp3(value: object) -> tuple[bytes, Iterable[Any] | None]:
    """Return the bytes of a value up to its first element, and its elements, if it has any."""
    if value is None:
        return b"_\r\n", None
    if isinstance(value, bool):
        return (b"#t\r\n" if value else b"#f\r\n"), None
    if isinstance(value, int):
        mark = b":" if INTEGER_MIN <= value <= INTEGER_MAX else b"("
        return b"%b%d\r\n" % (mark, value), None
    if isinstance(value, float):
        return b",%b\r\n" % float.__repr__(value).encode(), None
    if isinstance(value, Verbatim):
        payload = value.format.encode("latin-1") + b":" + _string(value)
        return b"=%d\r\n%b\r\n" % (len(payload), payload), None
    if isinstance(value, ReplyError):
        text = _error_text(value)
        if b"\r" in text or b"\n" in text or len(text) > MAX_LINE:
            return b"!%d\r\n%b\r\n" % (len(text), text), None
        return b"-%b\r\n" % text, None
    if isinstance(value, Push):
        return b">%d\r\n" % len(value), value
    if isinstance(value, (list, tuple)):
        return b"*%d\r\n" % len(value), value
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value), chain.from_iterable(value.items())
    if isinstance(value, (set, frozenset)):
        return b"~%d\r\n" % len(value), value
    if isinstance(value, Attributed):
        # In a key or a member they are frozen: a tuple of pairs.
        attributes = dict(value.attributes)
        children = chain(chain.from_iterable(attributes.items()), (value.value,))
        return b"|%d\r\n" % len(attributes), children
    text = _string(value)
    return b"$%d\r\n%b\r\n" % (len(text), text), None


def _resp2(value: object) -> tuple[bytes, Iterable[Any] | None]:
    """Return what `_resp3` does, in the types that RESP2 has."""
    if value is None:
        return b"$-1\r\n", None
    if isinstance(value, bool):
        return (b":1\r\n" if value else b":0\r\n"), None
    if isinstance(value, int):
        if INTEGER_MIN <= value <= INTEGER_MAX:
            return b":%d\r\n" % value, None
        value = b"%d" % value
    elif isinstance(value, float):
        value = float.__repr__(value)
    elif isinstance(value, ReplyError):
        # As servers do (afterErrorReply): a line can't carry CR or LF.
        text = _error_text(value).replace(b"\r", b" ").replace(b"\n", b" ")
        return b"-%b\r\n" % text, None
    elif isinstance(value, dict):
        return b"*%d\r\n" % (2 * len(value)), chain.from_iterable(value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        return b"*%d\r\n" % len(value), value
    elif isinstance(value, Attributed):
        return b"", (value.value,)
    text = _string(value)
    return b"$%d\r\n%b\r\n" % (len(text), text), None


def _string(value: object) -> bytes:
    """Return the bytes of a string; refuse what is none."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise TypeError(f"cannot encode a value of type {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        surrogate = error.start
    raise ValueError(f"cannot encode text with a lone surrogate, its character {surrogate}")


def _error_text(error: ReplyError) -> bytes:
    return str(error).encode("utf-8", "backslashreplace")
