# cython: language_level=3, binding=False, freethreading_compatible=True
"""The grammar in C: the compiled twin of `resp/_parser.py`, which is the readable one.

Same values, types, errors and offsets; `tests/test_parity.py` holds both to it. Two readers share
the work. `plain()` reads an element that is whole, short and as expected, straight from the bytes
fed, and says NULL to all else; it, and what reads runs of one type as it would, is what a parser
spends its time in. `element()` and what is below it read anything: cut by the end of a chunk, long,
odd or wrong. The words of errors, and what is rare, come from the Python functions of
`resp/_lines.py`, so that they exist once.

Every element is read once. Elements of open containers wait on one operand stack (`opened`), and a
container gets its elements when the last has come, all at once: never more memory than they need,
whatever length was declared. (A short array gets those of its first run as they come, if that is
all of it.) Nothing recurses.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove

from ._python cimport *
from ._values cimport *

from codecs import lookup as _lookup

from .._errors import ProtocolError
from .._errors import ReplyError as _ReplyError
from .._limits import MAX_BULK, MAX_DEPTH, MAX_ELEMENTS, REENTERED, SCRATCH, check_options
from .._lines import (
    MAX_LINE,
    check_line,
    check_null,
    parse_big_number,
    parse_boolean,
    parse_double,
    parse_integer,
    parse_length,
    parse_verbatim,
    refusal,
    shown,
)
from .._types import NAMES, NEED_DATA, Attributed, VerbatimBytes, VerbatimStr
from .._types import Push as _Push

cdef extern from "_text.h":
    bint copy_ascii "resp_copy_ascii"(uchar *to, const uchar *source, size_t size) noexcept nogil

cdef extern from "_bytes.h":
    object new_bytes "resp_new_bytes"(object kind, const uchar *data, Py_ssize_t size)
    void add_references "resp_add_references"(PyObject *object, Py_ssize_t count) noexcept

cdef extern from "_double.h":
    const uchar *read_double "resp_read_double"(const uchar *at, double *value) noexcept nogil

cdef extern from "_types.h":
    const uchar TYPES "resp_types"[256]  # what can be said of a type byte:
    cdef enum:
        AGGREGATE "RESP_AGGREGATE"
        RUNS "RESP_RUNS"  # that there is a reader for runs of it

cdef enum:
    CR = 13
    LF = 10

# What a frame of the stack can be: an aggregate's type byte, or one of these.
cdef enum:
    TOP = 0  # where replies stand
    ATTRIBUTED = 1  # attributes are complete, and wait for their value
    ARRAY = 42  # "*"
    MAP = 37  # "%"
    SET = 126  # "~"
    ATTRIBUTE = 124  # "|"
    PUSH = 62  # ">"

# How the end of a frame is found.
cdef enum:
    COUNTED
    STREAMED  # by END
    FULL  # by END, and max_elements have come

# What the next byte belongs to.
cdef enum:
    ELEMENT  # a new element
    LINE  # the line of which `line` holds the beginning
    CHUNK  # the header of a streamed string's next chunk
    PAYLOAD  # the payload, or the CRLF behind it

# What a step of the slow readers came to; an exception is -1.
cdef enum:
    WENT_ON
    DELIVERED  # a value, to `done`
    NOT_TAKEN  # for another function to see to

cdef enum:
    # Every line that `plain()` takes is shorter, but for simple strings, which it measures.
    LONGEST_PLAIN = 32
    INVALIDATION_SIZE = 26  # of INVALIDATION
    SAFE_DIGITS = 640  # that no sys.set_int_max_str_digits() refuses
    MAX_KEY_DEPTH = 128  # as the pure twin, and for the same reason
    # A declared length commits no memory. A payload that the end of a chunk cuts is made in its
    # final size only if that is at most so many times what has come of it, or if it is small. Else
    # it begins smaller, and grows once or twice by the same rule: to double it each time took 1.4
    # times as long, and memory that nobody writes to is but addresses.
    STRIDE = 64
    LITTLE = 1024  # bytes that count as come, even if they have not
    SMALL = 64  # elements for which a list has room from the beginning
    # Strings remembered: so many, in a table without chains, and of at most so many bytes.
    REMEMBERED = 256
    LONGEST_REMEMBERED = 32
    # Keys are looked up until so many were new and more than half; then so many are not. It is
    # fewer for what may be none: strings that are remembered for nothing lie about in the memory
    # that others could have had (1.05 times as slow).
    KEYS_TRIED = 512
    FIELDS_TRIED = 64
    KEYS_SKIPPED = 16 * 1024
    # A list of more elements than this gets the memory where they lie, not a copy.
    ADOPTED = 1024
    # Of the memory for a line's beginning a parser keeps so much for the next.
    KEPT_LINE = 1024

# More than there can be, and less than what would overflow.
cdef int64_t UNLIMITED = PY_SSIZE_T_MAX >> 1

DEFAULT_LIMITS = {
    "max_depth": MAX_DEPTH,
    "max_bulk": MAX_BULK,
    "max_elements": MAX_ELEMENTS,
    "max_line": MAX_LINE,
}

# Encodings, by the names of their codecs, in which ASCII is what it is.
ASCII_TOO = frozenset(("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252"))

cdef PyObject *OK = PyBytes_FromStringAndSize("OK", 2)
cdef PyTypeObject *Push = <PyTypeObject *><PyObject *>_Push
cdef PyTypeObject *ReplyError = <PyTypeObject *><PyObject *>_ReplyError
# "Client-side caching in Redis": the push that names one key, up to the length of the key.
cdef const char *INVALIDATION = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$"
cdef PyObject *INVALIDATE = PyBytes_FromStringAndSize("invalidate", 10)
cdef PyObject *INVALIDATE_TEXT = PyUnicode_DecodeUTF8("invalidate", 10, NULL)
cdef PyObject *NO_ARGUMENTS = PyTuple_New(0)


cdef struct Frame:
    # An open container. Its elements are opened.items[bottom:], keys and values of a map in turn;
    # once ATTRIBUTED, the attributes.
    int64_t remaining  # elements still to come
    int64_t start  # its offset in the stream; once FULL, that of the first byte too many
    int64_t delivered  # ATTRIBUTE, PUSH: bytes delivered when it began
    Py_ssize_t bottom
    # The container, owned and empty; NULL if its kind can't be filled later. Made when it opens,
    # it lies in memory before what is in it, and is freed in that order: 1.04 times as fast.
    PyObject *container
    int frozen  # how many containers deep in a key or a member it is, or 0
    uchar kind
    uchar ending
    bint text  # whether strings in it are decoded
    bint failed  # ATTRIBUTE, PUSH: whether the failure of the scope around it is on `failures`


cdef struct Habit:
    # Whether strings of a kind come again and again.
    Py_ssize_t tried  # since the count began; negative: how many are not to be looked up
    Py_ssize_t misses
    Py_ssize_t most  # so many misses, if they are more than half, and it pauses


cdef PyObject *reply_error(const uchar *text, Py_ssize_t size) except NULL:
    """Return the error of a text.

    By its tp_new alone, which sets what BaseException's __init__, all that ReplyError's calls,
    would set again: 4 times as fast.
    """
    cdef PyObject *error
    cdef PyObject *arguments = PyTuple_New(1)
    if arguments == NULL:
        return NULL
    cdef PyObject *message = PyUnicode_DecodeUTF8(<const char *>text, size, "backslashreplace")
    if message == NULL:
        Py_DECREF(arguments)
        return NULL
    PyTuple_SET_ITEM(arguments, 0, message)
    error = ReplyError.tp_new(ReplyError, arguments, NULL)
    Py_DECREF(arguments)
    return error


cdef bint is_type_byte(uchar byte) noexcept:
    return memchr(<const char *>b"+-:$*_#,(!=%~|>;.", byte, 17) != NULL


cdef inline bint is_aggregate(uchar byte) noexcept:
    return (TYPES[byte] & AGGREGATE) != 0


cdef inline const uchar *find_line_end(const uchar *at, const uchar *end) noexcept:
    """Return where the next CRLF is, or NULL."""
    while True:
        at = <const uchar *>memchr(at, CR, end - at)
        if at == NULL or at[1] == LF:
            return at
        at += 1


cdef extern from *:  # Cython's own, for branches that are nearly never taken
    bint unlikely(bint) noexcept nogil


cdef inline const uchar *read_length(const uchar *at, int64_t *length) noexcept:
    """Read at most 18 digits and CRLF; return what stands behind them, or NULL.

    The NUL behind every bytes object ends the digits, if nothing else does.
    """
    cdef const uchar *first = at
    cdef uint64_t value = 0
    cdef unsigned int digit = <unsigned int>at[0] - c"0"
    while digit <= 9:
        value = value * 10 + digit
        at += 1
        digit = <unsigned int>at[0] - c"0"
    if unlikely(at == first or at - first > 18 or at[0] != CR or at[1] != LF):
        return NULL
    length[0] = <int64_t>value
    return at + 2


cdef inline bint is_null(const uchar *at) noexcept:
    """Return whether the length is that of RESP2's nulls."""
    return at[0] == c"-" and at[1] == c"1" and at[2] == CR and at[3] == LF


cdef bint read_digits(const uchar *at, Py_ssize_t size, int64_t *length) noexcept:
    """Read a length of at most 18 digits; return whether it is one."""
    cdef int64_t value = 0
    cdef Py_ssize_t index
    for index in range(size):
        if index == 18 or <unsigned int>at[index] - c"0" > 9:
            return False
        value = value * 10 + (at[index] - c"0")
    length[0] = value
    return size > 0


cdef inline PyObject *ascii_text(const uchar *data, Py_ssize_t size) noexcept:
    """Return the str of ASCII; NULL, without an exception, if it is none or memory ran out."""
    cdef PyObject *value
    if size == 1:
        # Python has one object for each, and none must be made.
        return PyUnicode_FromOrdinal(data[0]) if data[0] < 128 else NULL
    value = PyUnicode_New(size, 127)
    if value == NULL:
        PyErr_Clear()
    elif not copy_ascii(<uchar *>PyUnicode_DATA(value), data, size):
        Py_DECREF(value)
        return NULL
    return value


cdef inline bint is_looked_up(Habit *keys) noexcept:
    return keys.tried >= 0 and keys.misses < keys.most


cdef inline void note(Habit *keys, Py_ssize_t count) noexcept:
    """Note that so many were read: where most are new, looking costs a fifth; so then it pauses."""
    keys.tried += count
    if unlikely(keys.misses >= keys.most):
        keys.tried = -KEYS_SKIPPED if keys.tried < 2 * keys.misses else 0
        keys.misses = 0


cdef PyObject *recall(
    Parser self, const uchar *data, Py_ssize_t size, bint text, Habit *keys
) noexcept:
    """Return what `plain_string()` would, the same object as last time if it is remembered.

    That saves making it, and hashing it, which a dict would ask of a new one.
    """
    cdef uint32_t first = 0, last = 0
    if size >= 4:
        memcpy(&first, data, 4)
        memcpy(&last, data + size - 4, 4)
    elif size:
        first = data[0]
        last = data[size - 1] | <uint32_t>data[size >> 1] << 8
    first = (first * <uint32_t>0x9E3779B1) ^ (last * <uint32_t>0x85EBCA77) ^ <uint32_t>size
    first *= <uint32_t>0xC2B2AE3D
    cdef PyObject **place = self.remembered + (first >> 24)
    check(size <= LONGEST_REMEMBERED)
    cdef PyObject *value = place[0]
    if value != NULL:
        if text:
            if (
                PyUnicode_CheckExact(value) and PyUnicode_GET_LENGTH(value) == size
                and memcmp(PyUnicode_DATA(value), data, size) == 0
            ):
                Py_INCREF(value)
                return value
        elif (
            PyBytes_CheckExact(value) and PyBytes_GET_SIZE(value) == size
            and memcmp(PyBytes_AS_STRING(value), data, size) == 0
        ):
            Py_INCREF(value)
            return value
    if keys != NULL:
        keys.misses += 1
    value = plain_string(self, data, size, text)
    if value != NULL:
        Py_XDECREF(place[0])
        Py_INCREF(value)
        place[0] = value
    return value


cdef inline PyObject *plain_string(
    Parser self, const uchar *data, Py_ssize_t size, bint text
) noexcept:
    """Return bytes, or ASCII as str; NULL, without an exception, for what else there is."""
    cdef PyObject *value
    if text:
        return ascii_text(data, size) if self.ascii_too else NULL
    value = PyBytes_FromStringAndSize(<const char *>data, size)
    if value == NULL:
        PyErr_Clear()
    return value


cdef PyObject *plain_big_number(Parser self, const uchar **cursor) noexcept:
    cdef const uchar *start = cursor[0]
    cdef const uchar *at = start + 1
    cdef const uchar *digits
    cdef char[SAFE_DIGITS + 2] number
    cdef PyObject *value
    if at[0] == c"-" or at[0] == c"+":
        at += 1
    digits = at
    while <unsigned int>at[0] - c"0" <= 9:
        at += 1
    if (
        at == digits or at - digits > SAFE_DIGITS or at - start - 1 > self.max_line
        or at[0] != CR or at[1] != LF
    ):
        return NULL
    memcpy(number, start + 1, at - start - 1)
    number[at - start - 1] = 0
    value = PyLong_FromString(number, NULL, 10)
    if value == NULL:
        PyErr_Clear()
    else:
        cursor[0] = at + 2
    return value


cdef inline PyObject *plain(
    Parser self, const uchar **cursor, const uchar *end, bint text, bint key
) noexcept:
    """Read the element at the cursor, if it is no container, whole, short and as expected.

    Return it, the cursor behind it; or NULL, the cursor unmoved and no exception set: for
    `element()` to see to, whatever the reason. No Python code runs in here.
    """
    cdef const uchar *start = cursor[0]
    cdef const uchar *at = start + 1
    cdef int64_t size = 0
    cdef double real = 0
    cdef PyObject *value = NULL
    cdef uchar byte = start[0]  # NUL at the end

    if byte == c"$":
        at = read_length(at, &size)
        if at == NULL:
            if is_null(start + 1):
                cursor[0] = start + 5
                Py_INCREF(Py_None)
                return Py_None
            return NULL
        if end - at < size + 2 or at[size] != CR or at[size + 1] != LF or size > self.max_bulk:
            return NULL
        if key:
            note(&self.keys, 1)
        if key and size <= LONGEST_REMEMBERED and is_looked_up(&self.keys):
            value = recall(self, at, size, text, &self.keys)
        else:
            value = plain_string(self, at, size, text)
        if value != NULL:
            cursor[0] = at + size + 2
        return value

    if byte == c"+":
        if (
            not text and at[0] == c"O" and at[1] == c"K" and at[2] == CR and at[3] == LF
        ):
            cursor[0] = at + 4
            Py_INCREF(OK)
            return OK
        while at[0] >= c" ":
            at += 1
        size = at - start - 1
        if at[0] != CR or at[1] != LF or size > self.max_line:
            return NULL
        if size <= LONGEST_REMEMBERED:
            value = recall(self, start + 1, size, text, NULL)
        else:
            value = plain_string(self, start + 1, size, text)
        if value != NULL:
            cursor[0] = at + 2
        return value

    if byte == c":":
        if at[0] == c"-" or at[0] == c"+":
            at += 1
        at = read_length(at, &size)
        if at == NULL:
            return NULL
        value = PyLong_FromLongLong(-size if start[1] == c"-" else size)
        if value == NULL:
            PyErr_Clear()
        else:
            cursor[0] = at
        return value

    if byte == c",":
        at = read_double(at, &real)
        if at == NULL or at[0] != CR or at[1] != LF:
            return NULL
        value = PyFloat_FromDouble(real)
        if value == NULL:
            PyErr_Clear()
        else:
            cursor[0] = at + 2
        return value

    if byte == c"(":
        return plain_big_number(self, cursor)

    if byte == c"#":
        if at[0] == c"t":
            value = Py_True
        elif at[0] == c"f":
            value = Py_False
        else:
            return NULL
        at += 1
    elif byte == c"_":
        value = Py_None
    elif byte == c"*" and at[0] == c"-" and at[1] == c"1":
        value = Py_None
        at += 2
    else:
        return NULL
    if at[0] != CR or at[1] != LF:
        return NULL
    cursor[0] = at + 2
    Py_INCREF(value)
    return value


# Runs of one type are what most bytes of most replies are. Each of these reads one, of at most so
# many elements, as `plain()` would, but without the way around by it; it returns how many there
# were, the cursor behind them.

cdef Py_ssize_t read_bulks(
    Parser self, const uchar **cursor, const uchar *end, bint text, Habit *keys, int turn,
    PyObject **items, int64_t most
) noexcept:
    """Read bulks. If there are `keys` to look up, every other is one: the first if `turn` is 0."""
    cdef const uchar *at = cursor[0]
    cdef const uchar *data
    cdef int64_t count = 0, size = 0
    cdef PyObject *value
    while count < most and at[0] == c"$":
        data = read_length(at + 1, &size)
        if unlikely(data == NULL):
            if not is_null(at + 1):
                break
            at += 5
            value = Py_None
            Py_INCREF(value)
        else:
            if unlikely(
                end - data < size + 2 or data[size] != CR or data[size + 1] != LF
                or size > self.max_bulk
            ):
                break
            if keys != NULL and turn == 0 and size <= LONGEST_REMEMBERED and (
                keys.misses < keys.most
            ):
                value = recall(self, data, size, text, keys)
            else:
                value = plain_string(self, data, size, text)
            if unlikely(value == NULL):
                break
            at = data + size + 2
        turn ^= 1
        items[count] = value
        count += 1
    cursor[0] = at
    return count


cdef Py_ssize_t read_integers(const uchar **cursor, PyObject **items, int64_t most) noexcept:
    cdef const uchar *at = cursor[0]
    cdef const uchar *behind
    cdef int64_t count = 0, number = 0
    cdef PyObject *value
    while count < most and at[0] == c":":
        behind = read_length(at + 1 + (at[1] == c"-" or at[1] == c"+"), &number)
        if behind == NULL:
            break
        value = PyLong_FromLongLong(-number if at[1] == c"-" else number)
        if value == NULL:
            PyErr_Clear()
            break
        items[count] = value
        count += 1
        at = behind
    cursor[0] = at
    return count


cdef Py_ssize_t read_oks(
    const uchar **cursor, const uchar *end, PyObject **items, int64_t most
) noexcept:
    cdef const uchar *at = cursor[0]
    cdef Py_ssize_t count = 0
    while count < most and end - at >= 5 and memcmp(at, b"+OK\r\n", 5) == 0:
        items[count] = OK
        count += 1
        at += 5
    add_references(OK, count)
    cursor[0] = at
    return count


cdef inline bint begins_run(uchar byte, uchar before) noexcept:
    """Return whether to look for a run: behind an element of the same type, or behind none."""
    return (TYPES[byte] & RUNS) != 0 and (byte == before or before == 0)


cdef inline Py_ssize_t read_run(
    Parser self, const uchar **cursor, const uchar *end, bint text, Habit *keys, int turn,
    PyObject **items, int64_t most
) noexcept:
    """Read a run of whatever type stands here, if there is one."""
    cdef Py_ssize_t count
    cdef uchar byte = cursor[0][0]
    if byte == c"$":
        if keys == NULL:
            return read_bulks(self, cursor, end, text, NULL, 0, items, most)
        count = read_bulks(
            self, cursor, end, text, keys if is_looked_up(keys) else NULL, turn, items, most
        )
        note(keys, (count + 1) >> 1)
        return count
    if byte == c":":
        return read_integers(cursor, items, most)
    if byte == c"+" and not text:
        return read_oks(cursor, end, items, most)
    return 0


cdef inline Py_ssize_t take_run(
    Parser self, const uchar **cursor, const uchar *end, Frame *frame, Values *values
) except -1:
    """Read a run into the open frame, of as many as there is room for; return how many."""
    if values.count == values.room and not grow(values, 0):
        raise MemoryError
    # TOP has no end.
    cdef int64_t most = values.room - values.count
    if frame.kind != TOP and frame.remaining < most:
        most = frame.remaining
    cdef Habit *keys = NULL
    if frame.kind == MAP:
        keys = &self.keys
    elif frame.kind == ARRAY and self.depth > 1:
        keys = &self.fields
    cdef Py_ssize_t count = read_run(
        self, cursor, end, frame.text, keys, (values.count - frame.bottom) & 1,
        values.items + values.count, most,
    )
    values.count += count
    return count


cdef class Parser:
    """Bytes in, values out.

    `feed()` takes a chunk and `parse()` returns the next value, or `NEED_DATA`; iteration gives
    what is complete; `feed_all()` does both in one call. With a buffered protocol or `recv_into`,
    `get_buffer()` and `buffer_updated()` take the place of `feed()`.

    - `encoding`, `errors`: decode strings to str. A reply or push with text that can't be decoded
      becomes the UnicodeDecodeError as a whole, and the stream stays in step. Without an encoding
      strings are bytes. The text of errors is always str (UTF-8 with backslashreplace).
    - `attributes`: keep them, as `Attributed`; else they are read and dropped.
    - `raw_pushes`: strings in pushes stay bytes whatever the encoding says: invalidations name
      raw keys.
    - `max_depth`: containers inside each other, a push and what it interrupts included; an
      attributed value is one level inside its attributes.
    - `max_bulk`: bytes of one string, streamed ones in total.
    - `max_elements`: of one container; a map of n pairs has 2n.
    - `max_line`: bytes between a type byte and CRLF.

    An unknown encoding or error handler is a LookupError, a negative limit a ValueError.

    A push is delivered as soon as it is complete, before the reply that it interrupts. A push
    within a push, or within an attribute, likewise comes first and by itself. Attributes belong to
    what immediately follows, even to a push; two in a row stand one around the other.

    After a `ProtocolError` the parser is spent: every call that would read raises the same again.
    """

    # The chunk being read, from `data` to `end`, and what of it comes next. Kept as it was fed and
    # read in place: only a line or a payload that its end cuts is copied out of it.
    cdef bytes chunk
    cdef const uchar *data
    cdef const uchar *position
    cdef const uchar *end
    cdef list queue  # chunks fed before this one was read, and which of them is next
    cdef Py_ssize_t queued
    cdef int64_t base  # the offset of `data` in the stream
    cdef int64_t fed  # bytes ever fed

    cdef int waiting
    cdef int64_t start  # of the element that is read, if it is not plain
    cdef uchar *line  # the beginning of a line whose end has not come
    cdef Py_ssize_t line_size
    cdef Py_ssize_t line_room
    cdef int64_t line_start

    # The payload that is waited for: `filled` of its `size` bytes have come, into an object that
    # has room for `room`; then `trailing` bytes of CRLF, the first of them `trailer`.
    cdef PyObject *payload
    cdef uchar payload_kind  # the type byte of the element
    cdef bint payload_text  # whether `payload` is a str, as long as all in it is ASCII
    cdef Py_ssize_t size
    cdef Py_ssize_t filled
    cdef Py_ssize_t room
    cdef int trailing
    cdef uchar trailer
    cdef list streamed  # the chunks of a streamed string, while one is read
    cdef object streamed_size

    cdef Frame *stack
    cdef Py_ssize_t depth  # of the innermost open container; stack[0] is TOP
    cdef Py_ssize_t stack_room
    cdef Values opened  # the elements of open containers
    cdef Values done  # complete values
    cdef int64_t delivered  # offset where the open reply began, plus the size of pushes inside it

    cdef int64_t interrupted  # where the first push began that stood inside a reply, or -1

    # Text that can't be decoded fails the reply or the push that it is in. `failure` is that of
    # the innermost scope: the reply, or an attribute, or a push. Those of the scopes around it, if
    # there are any, wait in `failures`.
    cdef object failure
    cdef list failures

    cdef bint busy  # whether a call is reading: what it calls (a codec's error handler, a
    # finaliser) and other threads must not
    cdef bint spent
    cdef object spent_by  # the ProtocolError; None if something else ended it in mid-element

    cdef object encoding
    cdef object errors
    cdef const char *encoding_name
    cdef const char *errors_name
    cdef bint ascii_too  # whether the encoding takes ASCII for what it is
    cdef bint attributes
    cdef bint raw_pushes
    cdef bint narrow  # whether max_line may refuse what `plain()` takes
    cdef int64_t max_depth
    cdef int64_t max_bulk
    cdef int64_t max_elements
    cdef int64_t max_line
    cdef dict limits  # the same, as they were given

    cdef PyObject **remembered  # short strings seen, by a hash of their content
    cdef Habit keys  # of maps, and the kinds of pushes
    # Every other element of an array in an array: the fields of a stream's entry, and whatever
    # else RESP2 has for a map. Not those of a reply: what is in a list or a set was rarely seen.
    cdef Habit fields
    cdef object scratch

    def __cinit__(self):
        self.remembered = <PyObject **>PyMem_Calloc(REMEMBERED, sizeof(PyObject *))
        self.stack_room = 16
        self.stack = <Frame *>PyMem_Malloc(self.stack_room * sizeof(Frame))
        if self.remembered == NULL or self.stack == NULL:
            raise MemoryError
        # A subclass may not call __init__: what it gets is a parser all the same.
        self.begin([], [], False)
        self.set_limits(DEFAULT_LIMITS)

    def __init__(
        self,
        *,
        encoding=None,
        errors="strict",
        attributes=False,
        raw_pushes=False,
        max_depth=MAX_DEPTH,
        max_bulk=MAX_BULK,
        max_elements=MAX_ELEMENTS,
        max_line=MAX_LINE,
    ):
        limits = {
            "max_depth": max_depth,
            "max_bulk": max_bulk,
            "max_elements": max_elements,
            "max_line": max_line,
        }
        check_options(encoding, errors, limits)
        with cython.critical_section(self):
            self.set_up(encoding, errors, attributes, raw_pushes, limits)

    @cython.final
    cdef int set_up(self, encoding, errors, bint attributes, bint raw_pushes, limits) except -1:
        if self.busy:
            raise RuntimeError(REENTERED)
        # All that can fail comes first: a parser has its old options or the new ones, no mixture.
        cdef const char *encoding_name = NULL
        cdef const char *errors_name = PyUnicode_AsUTF8(errors)
        cdef bint ascii_too = False
        cdef list queue = [], failures = []
        # A codec's name, and what is dropped, may be anybody's code.
        self.busy = True
        try:
            if encoding is not None:
                encoding_name = PyUnicode_AsUTF8(encoding)
                ascii_too = _lookup(encoding).name in ASCII_TOO
            self.set_limits(limits)
            self.encoding, self.encoding_name = encoding, encoding_name
            self.errors, self.errors_name = errors, errors_name
            self.ascii_too = ascii_too
            self.attributes = attributes
            self.raw_pushes = raw_pushes
            self.begin(queue, failures, encoding is not None)
        finally:
            self.busy = False
        return 0

    def __dealloc__(self):
        cdef Py_ssize_t at
        self.drop_stack()
        release(&self.done)
        Py_XDECREF(self.payload)
        if self.remembered != NULL:
            for at in range(REMEMBERED):
                Py_XDECREF(self.remembered[at])
        PyMem_Free(self.remembered)
        PyMem_Free(self.stack)
        PyMem_Free(self.line)

    @cython.final
    cdef int set_limits(self, dict limits) except -1:
        cdef int64_t max_depth = min(limits["max_depth"], UNLIMITED)
        cdef int64_t max_bulk = min(limits["max_bulk"], UNLIMITED)
        cdef int64_t max_elements = min(limits["max_elements"], UNLIMITED)
        cdef int64_t max_line = min(limits["max_line"], UNLIMITED)
        self.limits = limits
        self.max_depth, self.max_bulk = max_depth, max_bulk
        self.max_elements, self.max_line = max_elements, max_line
        self.narrow = self.max_line < LONGEST_PLAIN
        return 0

    @cython.final
    cdef void begin(self, list queue, list failures, bint text) noexcept:
        """Begin a new stream, with two lists that are empty, and strings as text or as bytes."""
        self.drop_chunk()
        self.queue = queue
        self.queued = 0
        self.base = self.fed = self.delivered = self.start = 0
        self.interrupted = -1
        self.waiting = ELEMENT
        self.line_size = 0
        Py_CLEAR(self.payload)
        self.streamed = None
        self.drop_stack()
        self.stack[0].kind = TOP
        self.stack[0].ending = COUNTED
        self.stack[0].remaining = 1
        self.stack[0].bottom = self.stack[0].frozen = 0
        self.stack[0].text = text
        self.stack[0].failed = False
        release(&self.done)
        self.failure = None
        self.failures = failures
        self.spent = False
        self.spent_by = None
        self.scratch = b""
        cdef Py_ssize_t at
        for at in range(REMEMBERED):
            Py_CLEAR(self.remembered[at])
        self.keys.tried = self.keys.misses = self.fields.tried = self.fields.misses = 0
        self.keys.most, self.fields.most = KEYS_TRIED, FIELDS_TRIED

    cpdef feed(self, data):
        """Take the next bytes of the stream; `parse()` then has what they complete."""
        with cython.critical_section(self):
            if self.spent:
                raise self.same_error()
        # Of what is not bytes this may be anybody's code.
        cdef bytes chunk = <bytes>data if type(data) is bytes else memoryview(data).tobytes()
        with cython.critical_section(self):
            if chunk:
                if self.position == self.end and not self.busy and self.queued == len(self.queue):
                    self.use(chunk)
                else:
                    self.queue.append(chunk)
                self.fed += len(chunk)

    @cython.critical_section
    def parse(self):
        """Return the next complete value, or `NEED_DATA`.

        Raises `ProtocolError` where the bytes are not RESP, after everything before them was
        returned, and UnicodeDecodeError, once, in place of a value that can't be decoded.
        """
        cdef PyObject *value = self.next_plain()
        if value != NULL:
            return owned(value)
        value = self.next_other()
        if value == NULL:
            return NEED_DATA
        result = owned(value)
        if PyExceptionInstance_Check(value) and isinstance(result, UnicodeError):
            raise result
        return result

    def __iter__(self):
        """Yield what is complete, as `feed_all()` returns it, until bytes run out."""
        return Replies.__new__(Replies, self)

    @cython.critical_section
    def feed_all(self, data):
        """Take the next bytes and return all values they complete, pushes included, in order.

        A value that can't be decoded stands in the list as its UnicodeDecodeError. Values before a
        `ProtocolError` are returned, and the next call raises it (`error` has it at once); without
        any, it is raised.
        """
        cdef PyObject *value = NULL
        cdef PyObject *values
        cdef const uchar *start
        cdef const uchar *at
        cdef Py_ssize_t size
        if self.busy:
            raise RuntimeError(REENTERED)
        if type(data) is bytes and type(self) is Parser and self.is_idle():
            start = at = <const uchar *>PyBytes_AS_STRING(<PyObject *>data)
            size = PyBytes_GET_SIZE(<PyObject *>data)
            value = plain(self, &at, start + size, self.stack[0].text, False)
            if value != NULL and at - start == size:
                # One short reply, the usual case of a client: 1.4 times as fast without the rest.
                self.fed += size
                self.base += size
                self.busy = True  # on Python 3.11 the collector may run, and any finaliser
                values = PyList_New(1)
                self.busy = False
                if values != NULL:
                    PyList_SET_ITEM(values, 0, value)
                else:
                    Py_DECREF(value)
                return self.list_or_end(values)
        self.feed(data)
        if value != NULL:
            if self.done.room or grow(&self.done, 0):
                self.position += at - start
                put(&self.done, value)
            else:
                Py_DECREF(value)  # read() will read it again, and raise what is to be raised
        try:
            self.advance(False)
        except ProtocolError:
            if self.done.count == 0:
                raise
        return self.take_done()

    @cython.critical_section
    def get_buffer(self, sizehint=-1):
        """Return memory for the next bytes of the stream, `sizehint` or more of it.

        Write to its beginning, then call `buffer_updated()`. With it, this is the pair that
        asyncio.BufferedProtocol asks for.
        """
        if self.spent:
            raise self.same_error()
        if not self.scratch or len(self.scratch) < sizehint:
            self.scratch = bytearray(max(sizehint, SCRATCH))
        return memoryview(self.scratch)

    @cython.critical_section
    def buffer_updated(self, nbytes):
        """Take the first `nbytes` of what `get_buffer()` returned last."""
        size = len(self.scratch)
        if not 0 <= nbytes <= size:
            raise ValueError(f"expected 0 to {size} bytes, the size of the buffer, found {nbytes}")
        self.feed(memoryview(self.scratch)[:nbytes])

    @property
    def pending(self):
        """How many of the bytes fed are not part of a value that is complete.

        That is all behind the last complete reply, but for pushes that came in between. Attributes
        belong to the value that they stand before.
        """
        with cython.critical_section(self):
            if self.depth or self.spent:
                return self.fed - self.delivered
            return self.fed - (self.here() if self.waiting == ELEMENT else self.start)

    @property
    def error(self):
        """The error that spent this parser, or None."""
        with cython.critical_section(self):
            if self.spent and self.spent_by is None:
                self.spent_by = self.lost()
            return self.spent_by

    def __reduce__(self):
        raise TypeError("a parser cannot be copied or pickled: it stands in a stream")

    # -- Around the grammar: whole values

    @cython.final
    cdef inline PyObject *next_plain(self) noexcept:
        """Return the next value, if `plain()` does."""
        # No guard is needed: no Python code runs in plain().
        if (
            self.depth or self.waiting or self.narrow or self.busy or self.spent or self.done.count
            or is_aggregate(self.position[0])
        ):
            return NULL
        return plain(self, &self.position, self.end, self.stack[0].text, False)

    @cython.final
    cdef PyObject *next_other(self) except? NULL:
        """Return the next value; NULL, without an exception, if bytes ran out."""
        cdef PyObject *value
        if self.position == self.end and not (
            self.busy or self.spent or self.done.count or self.queue
        ):
            # Nothing to read, as every second time where a chunk is a reply.
            if self.chunk is not None:
                self.drop_chunk()
            return NULL
        if self.done.count == 0 and self.advance(True) != DELIVERED:
            return NULL
        # There are more if feed_all() was interrupted.
        value = self.done.items[0]
        self.done.count -= 1
        if self.done.count:
            memmove(self.done.items, self.done.items + 1, self.done.count * sizeof(PyObject *))
        return value

    @cython.final
    cdef object take_done(self):
        """Return the complete values as a list."""
        # On Python 3.11 to make one may run the collector, and that any finaliser.
        self.busy = True
        cdef PyObject *values = list_of_all(&self.done)
        self.busy = False
        return self.list_or_end(values)

    @cython.final
    cdef object list_or_end(self, PyObject *values):
        """Return the list; if there was no memory for it, the values are lost."""
        if values == NULL:
            try:
                checked(values)
            except MemoryError:
                self.end_with(None)
                raise
        return owned(values)

    @cython.final
    cdef int advance(self, bint single) except -1:
        """Read on, to the next value or to the end of what was fed."""
        if self.spent:
            raise self.same_error()
        if self.busy:
            raise RuntimeError(REENTERED)
        cdef int step
        self.busy = True
        try:
            step = self.read(single)
        except BaseException as error:
            # Also an interrupt, or the lack of memory, in the middle of an element; or here.
            try:
                self.end_with(None)
                if not isinstance(error, ProtocolError):
                    raise
                self.spent_by = ProtocolError(str(error), error.offset)
                raise self.same_error() from None
            finally:
                self.busy = False
        self.busy = False
        return step

    @cython.final
    cdef int end_with(self, error) except -1:
        """Remember what spent the parser, and let go of what it can't use any more."""
        if not self.depth:
            self.delivered = self.start
        self.spent = True
        self.spent_by = error
        self.queue = []
        self.drop_chunk()
        self.drop_stack()
        Py_CLEAR(self.payload)
        return 0

    @cython.final
    cdef object same_error(self):
        """Return the error to raise: a new one each time, or tracebacks would pile up on it."""
        if self.spent_by is None:
            self.spent_by = self.lost()
        return ProtocolError(str(self.spent_by), self.spent_by.offset)

    @cython.final
    cdef object lost(self):
        """Return the error of a parser that was interrupted: its place in the stream is lost."""
        return refusal("to go on", "that the parser was interrupted", self.delivered)

    # -- The bytes

    @cython.final
    cdef inline bint is_idle(self) noexcept:
        """Return whether the next bytes fed begin a new reply, and may be read without a guard."""
        return self.chunk is None and not (
            self.depth or self.waiting or self.narrow or self.spent or self.done.count or self.queue
        )

    @cython.final
    cdef inline int64_t here(self) noexcept:
        """Return the offset in the stream of what comes next."""
        return self.base + (self.position - self.data)

    @cython.final
    cdef inline void use(self, bytes chunk) noexcept:
        """Read this chunk next."""
        self.base += self.end - self.data
        self.chunk = chunk
        self.data = self.position = <const uchar *>PyBytes_AS_STRING(<PyObject *>chunk)
        self.end = self.data + PyBytes_GET_SIZE(<PyObject *>chunk)

    @cython.final
    cdef void drop_chunk(self) noexcept:
        """Let go of what is read: the next chunk may be long in coming."""
        self.base += self.end - self.data
        self.chunk = None
        self.data = self.position = self.end = <const uchar *>b""

    @cython.final
    cdef bint next_chunk(self) except -1:
        """Turn to the next chunk; return whether there is one."""
        if self.queued == len(self.queue):
            if self.chunk is not None:
                self.drop_chunk()
            return False
        self.use(<bytes>self.queue[self.queued])
        self.queue[self.queued] = None
        self.queued += 1
        if self.queued == len(self.queue):
            self.queue.clear()
            self.queued = 0
        return True

    # -- The grammar

    @cython.final
    cdef int read(self, bint single) except -1:
        """Read elements until bytes run out (WENT_ON); if `single`, until a value is DELIVERED."""
        cdef const uchar *at
        cdef const uchar *behind
        cdef const uchar *end
        cdef Frame *frame
        cdef PyObject *value
        cdef int64_t count = 0
        cdef int step
        cdef uchar before  # the type of the element before, if there was one
        while True:
            check(self.busy and self.data <= self.position and self.position <= self.end)
            check(self.end[0] == 0 and self.depth < self.stack_room)
            if self.waiting == ELEMENT and not self.narrow:
                at, end = self.position, self.end
                before = 0
                while at[0] == ARRAY:
                    behind = read_length(at + 1, &count)
                    if behind == NULL:
                        break
                    step = self.open_array(behind, count)
                    if step == NOT_TAKEN:
                        break
                    if step == DELIVERED and single:
                        return DELIVERED
                    at = self.position
                if is_aggregate(at[0]):
                    behind = read_length(at + 1, &count)
                    if behind != NULL:
                        if count == 2 and at[0] == PUSH and self.take_invalidation(at):
                            if single:
                                return DELIVERED
                            continue
                        self.start = self.here()
                        self.position = behind
                        if self.open(at[0], count, False) == DELIVERED and single:
                            return DELIVERED
                        continue
                elif self.depth == 0:
                    while True:
                        if self.done.count == self.done.room:
                            self.grow_done(at)
                        if begins_run(at[0], before) and not single:
                            before = at[0]
                            count = take_run(self, &at, end, self.stack, &self.done)
                            if before == c"$" == at[0] and self.done.count < self.done.room:
                                break  # plain() would say the same
                            if count:
                                continue
                        before = at[0]
                        value = plain(self, &at, end, self.stack[0].text, False)
                        if value == NULL:
                            break
                        put(&self.done, value)
                        if single:
                            self.position = at
                            return DELIVERED
                    self.position = at
                    if is_aggregate(at[0]):
                        continue
                else:
                    frame = self.stack + self.depth
                    while not is_aggregate(at[0]):
                        if begins_run(at[0], before) and (
                            frame.kind == ARRAY or frame.kind == MAP or frame.kind == SET
                        ):
                            before = at[0]
                            count = take_run(self, &at, end, frame, &self.opened)
                            if count:
                                frame.remaining -= count
                                if frame.remaining == 0:
                                    break
                            if before == c"$" == at[0] and self.opened.count < self.opened.room:
                                break  # plain() would say the same
                            if count:
                                continue
                        before = at[0]
                        value = plain(self, &at, end, frame.text, self.is_key(frame))
                        if value == NULL:
                            break
                        put(&self.opened, value)
                        frame.remaining -= 1
                        if frame.remaining == 0:
                            break
                    self.position = at
                    if frame.remaining == 0:
                        if self.close() == DELIVERED and single:
                            return DELIVERED
                        continue
                    if is_aggregate(at[0]):
                        continue
                if at[0] == c"$" or at[0] == c"=":
                    behind = read_length(at + 1, &count)
                    if behind != NULL and count <= self.max_bulk:
                        # A bulk that the end of the chunk cuts, as it does one in most chunks, or
                        # that is not ASCII; or a verbatim string.
                        self.start = self.here()
                        self.position = behind
                        if self.await_payload(at[0], count) == DELIVERED and single:
                            return DELIVERED
                        continue
            if self.position == self.end and not self.next_chunk():
                return WENT_ON
            if self.element() == DELIVERED and single:
                return DELIVERED

    @cython.final
    cdef int grow_done(self, const uchar *at) except -1:
        """Make room for all values of the chunk, if those to come are as long as those before."""
        cdef Py_ssize_t read = at - self.data
        cdef Py_ssize_t rest = self.end - at
        cdef Py_ssize_t wanted = 0
        if read and self.done.count:
            wanted = <Py_ssize_t>(1.1 * rest * self.done.count / read)
        # Three bytes is the shortest.
        if not grow(&self.done, self.done.count + min(wanted, rest // 3)):
            raise MemoryError
        return 0

    @cython.final
    cdef int take_invalidation(self, const uchar *at) except -1:
        """Deliver the push that says that one key changed, if it is that; return whether.

        The push a client with a cache lives by: 1.3 times as fast without the stack.
        """
        cdef const uchar *end = self.end
        cdef const uchar *data
        cdef int64_t size = 0
        cdef PyObject *push
        cdef PyObject *keys
        cdef PyObject *key
        cdef PyObject *items[2]
        cdef bint text = self.encoding is not None and not self.raw_pushes
        if (
            end - at < INVALIDATION_SIZE or memcmp(at, INVALIDATION, INVALIDATION_SIZE) != 0
            or text and not self.ascii_too
            or self.stack[self.depth].kind == ATTRIBUTED
            or self.depth + 2 > self.max_depth or self.max_elements < 2 or self.max_bulk < 10
        ):
            return False
        data = read_length(at + INVALIDATION_SIZE, &size)
        if (
            data == NULL or end - data < size + 2 or data[size] != CR or data[size + 1] != LF
            or size > self.max_bulk
        ):
            return False
        key = plain_string(self, data, size, text)
        if key == NULL:
            return False
        push = Push.tp_new(Push, NO_ARGUMENTS, NULL)
        keys = PyList_New(1)
        if push == NULL or keys == NULL:
            Py_XDECREF(push)
            Py_XDECREF(keys)
            Py_DECREF(key)
            return -1
        PyList_SET_ITEM(keys, 0, key)
        items[0] = INVALIDATE_TEXT if text else INVALIDATE
        items[1] = keys
        Py_INCREF(items[0])
        if fill_list(push, items, 2) < 0:
            Py_DECREF(push)
            Py_DECREF(items[0])
            Py_DECREF(keys)
            return -1
        put(&self.done, push)
        self.position = data + size + 2
        if self.depth:
            self.delivered += self.position - at
            if self.interrupted < 0:
                self.interrupted = self.base + (at - self.data)
        return True

    @cython.final
    cdef inline bint is_key(self, Frame *frame) noexcept:
        """Return whether what comes next is a key, or the kind of a push: likely seen before."""
        if frame.kind == MAP:
            return not (self.opened.count - frame.bottom) & 1
        return frame.kind == PUSH and self.opened.count == frame.bottom

    @cython.final
    cdef int element(self) except -1:
        """Read on in whatever element this is; there is a byte at least."""
        if self.waiting == PAYLOAD:
            return self.fill_payload()
        cdef const uchar *start = self.position
        cdef const uchar *end = self.end
        cdef const uchar *cr
        cdef int64_t offset
        if self.waiting != LINE:
            offset = self.here()
            if self.waiting == ELEMENT:
                self.start = offset
            cr = find_line_end(start, end)
            if cr != NULL:
                self.position = cr + 2
                return self.whole_line(start, cr - start, offset)
            self.line_start = offset
            self.line_size = 0
        else:
            offset = self.line_start
            if self.line[self.line_size - 1] == CR and start[0] == LF:
                self.position = start + 1
                self.line_size -= 1
                return self.spilled_line()
            cr = find_line_end(start, end)
            if cr != NULL:
                self.spill(start, cr - start)
                self.position = cr + 2
                return self.spilled_line()
        self.spill(start, end - start)
        self.position = end
        self.waiting = LINE
        self.check_spilled(end - start)
        return WENT_ON

    @cython.final
    cdef int spill(self, const uchar *data, Py_ssize_t size) except -1:
        """Keep bytes of a line whose end has not come."""
        cdef Py_ssize_t room
        cdef void *line
        if self.line_size + size > self.line_room:
            room = max(2 * self.line_room, self.line_size + size, 64)
            line = PyMem_Realloc(self.line, room)
            if line == NULL:
                raise MemoryError
            self.line = <uchar *>line
            self.line_room = room
        memcpy(self.line + self.line_size, data, size)
        self.line_size += size
        return 0

    @cython.final
    cdef int check_spilled(self, Py_ssize_t added) except -1:
        """Refuse a line that no more bytes can mend; only what was added need be searched."""
        cdef Py_ssize_t size = self.line_size - (self.line[self.line_size - 1] == CR)
        # A CR that is not the last byte is caught with the byte behind it.
        cdef Py_ssize_t first = max(self.line_size - added - 1, 0)
        if (
            size - 1 > self.max_line
            or not is_type_byte(self.line[0])
            or memchr(self.line + first, CR, size - first) != NULL
            or memchr(self.line + first, LF, size - first) != NULL
        ):
            line = self.line[: self.line_size]
            check_line(line, self.line_start, self.limits["max_line"], complete=False)
        return 0

    @cython.final
    cdef int spilled_line(self) except -1:
        """Take the line that is kept, now that it is whole."""
        self.waiting = ELEMENT
        cdef uchar *line = self.line
        cdef Py_ssize_t size = self.line_size
        self.line_size = 0
        cdef int step = self.whole_line(line, size, self.line_start)
        if self.line_room > KEPT_LINE:
            PyMem_Free(self.line)
            self.line = NULL
            self.line_room = 0
        return step

    @cython.final
    cdef int whole_line(self, const uchar *line, Py_ssize_t size, int64_t offset) except -1:
        """Take a whole line, without its CRLF; the position is behind it."""
        cdef uchar byte = line[0]
        if (
            size == 0 or size - 1 > self.max_line or not is_type_byte(byte)
            or memchr(line, CR, size) != NULL or memchr(line, LF, size) != NULL
        ):
            shown_line = line[:size] if size else b"\r"
            check_line(shown_line, offset, self.limits["max_line"], complete=True)
        if self.streamed is not None:
            return self.chunk_line(line[:size], offset)

        cdef Frame *frame = self.stack + self.depth
        cdef int64_t count = 0
        if byte == c"+":
            return self.complete(self.string(line + 1, size - 1, frame.text))
        if byte == c"-":
            return self.complete(reply_error(line + 1, size - 1))
        cdef bytes content
        if byte == c"$" or byte == c"!" or byte == c"=":
            if read_digits(line + 1, size - 1, &count) and count <= self.max_bulk:
                return self.await_payload(byte, count)
            content = line[1:size]
            if byte == c"$":
                if content == b"-1":
                    return self.complete_object(None)
                if content == b"?":
                    self.streamed = []
                    self.streamed_size = 0
                    self.waiting = CHUNK
                    return WENT_ON
            length = parse_length(content, offset, NAMES[byte])
            if length > self.limits["max_bulk"]:
                expected = f"a {NAMES[byte]} of at most {self.limits['max_bulk']} bytes"
                raise refusal(expected, str(length), offset)
            return self.await_payload(byte, min(length, UNLIMITED))
        content = line[1:size]
        if byte in (ARRAY, MAP, SET, ATTRIBUTE, PUSH):
            if byte == ARRAY and content == b"-1":
                return self.complete_object(None)
            if content == b"?" and byte in (ARRAY, MAP, SET):
                return self.open(byte, self.max_elements, True)
            if not read_digits(line + 1, size - 1, &count):
                # No length at all, or one that is beyond C's integers.
                length = parse_length(content, offset, NAMES[byte])
                elements = 2 * length if byte == MAP or byte == ATTRIBUTE else length
                if elements > self.limits["max_elements"]:
                    raise self.too_many_elements(byte, elements, offset)
                count = min(length, UNLIMITED // 2)
            return self.open(byte, count, False)
        if byte == c".":
            if frame.ending == COUNTED:
                raise refusal("an element", f"the {NAMES[byte]} {shown(line[:size])}", offset)
            # RESP3, "Streamed aggregated data types": . ends what began with ?.
            if content:
                raise refusal("CRLF after the end of a stream", shown(content), offset)
            if frame.kind == MAP and (self.opened.count - frame.bottom) & 1:
                raise refusal("a value for the last key of the map", "its end", offset)
            frame.remaining = 0
            frame.ending = COUNTED
            return self.close()
        if byte == c":":
            return self.complete_object(parse_integer(content, offset))
        if byte == c",":
            return self.complete_object(parse_double(content, offset))
        if byte == c"(":
            return self.complete_object(parse_big_number(content, offset))
        if byte == c"#":
            return self.complete_object(parse_boolean(content, offset))
        if byte == c"_":
            check_null(content, offset)
            return self.complete_object(None)
        raise refusal("an element", f"the {NAMES[byte]} {shown(line[:size])}", offset)

    @cython.final
    cdef int chunk_line(self, bytes line, int64_t offset) except -1:
        """Take the header of a streamed string's chunk.

        RESP3, "Streamed strings": `;` and a length before every chunk, and ;0 ends the string.
        Nothing else, not even a push, may stand between two chunks.
        """
        if line[0] != c";":
            raise refusal("a chunk of the streamed string", shown(line[:1]), offset)
        length = parse_length(line[1:], offset, NAMES[line[0]])
        self.streamed_size += length
        if self.streamed_size > self.limits["max_bulk"]:
            expected = f"a bulk of at most {self.limits['max_bulk']} bytes"
            raise refusal(expected, f"{self.streamed_size} or more", offset)
        if length:
            return self.await_payload(c";", min(length, UNLIMITED))
        whole = b"".join(self.streamed)
        self.streamed = None
        self.waiting = ELEMENT
        return self.complete(
            self.string(
                <const uchar *>PyBytes_AS_STRING(<PyObject *>whole), len(whole),
                self.stack[self.depth].text,
            )
        )

    @cython.final
    cdef int await_payload(self, uchar kind, Py_ssize_t size) except -1:
        """Take a payload of so many bytes, or begin to fill it."""
        cdef const uchar *data = self.position
        cdef bint text = self.stack[self.depth].text
        if (
            kind != c";" and self.end - data >= size + 2
            and data[size] == CR and data[size + 1] == LF
        ):
            self.position = data + size + 2
            return self.take_payload(kind, data, size, text)
        cdef Py_ssize_t room = max(self.end - data, LITTLE)
        # Little more than what has come, at first, as that is to be moved.
        room = size if size // STRIDE <= room else max(STRIDE * LITTLE, 4 * room)
        self.payload_text = kind == c"$" and text and self.ascii_too
        if self.payload_text:
            self.payload = PyUnicode_New(room, 127)
        else:
            self.payload = PyBytes_FromStringAndSize(NULL, room)
        if self.payload == NULL:
            raise MemoryError
        self.payload_kind = kind
        self.size = size
        self.room = room
        self.filled = 0
        self.trailing = 0
        self.waiting = PAYLOAD
        return WENT_ON

    @cython.final
    cdef int fill_payload(self) except -1:
        """Copy into the payload what has come of it; each byte is copied once."""
        cdef Py_ssize_t available = self.end - self.position
        cdef Py_ssize_t size = min(available, self.size - self.filled)
        cdef uchar *to
        if size:
            if self.filled + size > self.room:
                self.grow_payload(size)
            if self.payload_text:
                to = <uchar *>PyUnicode_DATA(self.payload) + self.filled
                if not copy_ascii(to, self.position, size):
                    self.give_up_ascii()
            if not self.payload_text:
                memcpy(PyBytes_AS_STRING(self.payload) + self.filled, self.position, size)
            check(self.filled + size <= self.room and self.room <= self.size)
            self.filled += size
            self.position += size
            available -= size
        if self.filled < self.size or available == 0:
            return WENT_ON
        cdef uchar[2] found
        if self.trailing:
            found[0] = self.trailer
            found[1] = self.position[0]
            self.position += 1
        else:
            found[0] = self.trailer = self.position[0]
            if available == 1:
                self.trailing = 1
                self.position += 1
                return WENT_ON
            found[1] = self.position[1]
            self.position += 2
        if found[0] != CR or found[1] != LF:
            expected = f"CRLF after {NAMES[self.payload_kind]} of {self.size} bytes"
            raise refusal(expected, shown(bytes([found[0], found[1]])), self.here() - 2)
        return self.whole_payload()

    @cython.final
    cdef int grow_payload(self, Py_ssize_t size) except -1:
        """Make room for so many bytes more: for all, or for many times what has come."""
        cdef Py_ssize_t room = self.filled + size
        room = self.size if self.size // STRIDE <= room else STRIDE * room
        if self.payload_text:
            if PyUnicode_Resize(&self.payload, room) < 0:
                raise MemoryError
        elif _PyBytes_Resize(&self.payload, room) < 0:
            raise MemoryError  # and the payload is gone
        self.room = room
        return 0

    @cython.final
    cdef int give_up_ascii(self) except -1:
        """Go on with bytes: not all of the payload is ASCII."""
        cdef PyObject *raw = PyBytes_FromStringAndSize(NULL, self.room)
        if raw == NULL:
            raise MemoryError
        memcpy(PyBytes_AS_STRING(raw), PyUnicode_DATA(self.payload), self.filled)
        Py_DECREF(self.payload)
        self.payload = raw
        self.payload_text = False
        return 0

    @cython.final
    cdef int whole_payload(self) except -1:
        """Take the payload that was gathered, whose CRLF was there."""
        cdef PyObject *payload = self.payload
        cdef uchar kind = self.payload_kind
        cdef bint text = self.stack[self.depth].text
        self.payload = NULL
        self.waiting = ELEMENT
        if kind == c"$" and (self.payload_text or not text):
            return self.complete(payload)
        raw = <bytes>owned(payload)
        if kind == c";":
            self.streamed.append(raw)
            self.waiting = CHUNK
            return WENT_ON
        return self.take_payload(kind, <const uchar *>PyBytes_AS_STRING(payload), len(raw), text)

    @cython.final
    cdef int take_payload(
        self, uchar kind, const uchar *data, Py_ssize_t size, bint text
    ) except -1:
        """Take the payload of a bulk, a bulk error or a verbatim string."""
        if kind == c"$":
            return self.complete(self.string(data, size, text))
        if kind == c"!":
            return self.complete(reply_error(data, size))
        # RESP3, "Verbatim string": three bytes of format, a colon, and the text.
        if size < 4 or data[3] != c":":
            parse_verbatim(data[:size], self.start)
        verbatim = self.verbatim(data + 4, size - 4, text)
        if memcmp(data, b"txt", 3) != 0:
            verbatim.format = PyUnicode_DecodeLatin1(<const char *>data, 3, NULL)
        return self.complete_object(verbatim)

    @cython.final
    cdef object verbatim(self, const uchar *data, Py_ssize_t size, bint text):
        """Return what Verbatim() makes of the text; 5 times as fast by way of C."""
        if text:
            decoded = owned(self.string(data, size, text))
            if isinstance(decoded, str):
                arguments = (decoded,)
                return owned(checked(
                    PyUnicode_Type.tp_new(
                        <PyTypeObject *>VerbatimStr, <PyObject *>arguments, NULL
                    )
                ))
        return new_bytes(VerbatimBytes, data, size)

    @cython.final
    cdef PyObject *string(self, const uchar *data, Py_ssize_t size, bint text) except NULL:
        """Return a string's bytes, or text; if it can't be decoded its bytes, and note it."""
        cdef PyObject *value = NULL
        if text and self.ascii_too:
            value = ascii_text(data, size)
            if value != NULL:
                return value
        if text:
            try:
                decoded = self.decode(<const char *>data, size)
                value = <PyObject *>decoded
                Py_INCREF(value)
                return value
            except BaseException as error:
                # `except UnicodeError` also takes one for which, once made, there was no memory.
                if not isinstance(error, UnicodeError):
                    raise
                if self.failure is None:
                    self.failure = error.with_traceback(None)
        return PyBytes_FromStringAndSize(<const char *>data, size)

    @cython.final
    cdef object decode(self, const char *data, Py_ssize_t size):
        # No codec is asked about no bytes, as str(b"", encoding).
        return PyUnicode_Decode(data, size, self.encoding_name, self.errors_name) if size else ""

    @cython.final
    cdef int complete_object(self, value) except -1:
        Py_INCREF(<PyObject *>value)
        return self.complete(<PyObject *>value)

    @cython.final
    cdef int complete(self, PyObject *value) except -1:
        """Take an element that is complete, and its reference."""
        cdef Frame *frame = self.stack + self.depth
        if self.depth == 0:
            return self.deliver(value)
        put(&self.opened, value)
        frame.remaining -= 1
        return self.close() if frame.remaining == 0 else WENT_ON

    @cython.final
    cdef int deliver(self, PyObject *value) except -1:
        """Take a reply that is complete: the value, or what failed in it."""
        if self.failure is not None:
            Py_DECREF(value)
            failure, self.failure = self.failure, None
            value = <PyObject *>failure
            Py_INCREF(value)
        put(&self.done, value)
        return DELIVERED

    @cython.final
    cdef int open(self, uchar kind, int64_t count, bint streamed) except -1:
        """Open a container of so many elements, or pairs; its header began at `start`."""
        cdef Frame *frame = self.stack + self.depth
        cdef PyObject *container = NULL
        cdef bint text = frame.text
        cdef int frozen = 0
        if (kind == MAP or kind == ATTRIBUTE) and not streamed:
            count *= 2
        # A key or a member must be hashable, and so must all that is in it.
        if kind != PUSH and (
            frame.frozen
            or frame.kind == SET
            or (
                (frame.kind == MAP or frame.kind == ATTRIBUTE)
                and not (self.opened.count - frame.bottom) & 1
            )
        ):
            frozen = frame.frozen + 1
        if count > self.max_elements or self.depth >= self.max_depth or frozen > MAX_KEY_DEPTH:
            raise self.refused(kind, count)

        if self.depth + 1 == self.stack_room:
            self.grow_stack()
        if self.depth == 0:
            self.delivered = self.start
        if not frozen:
            if kind == ARRAY:
                container = new_list(count if count <= SMALL else 0)
            elif kind == SET:
                container = PySet_New(NULL)
            elif kind == PUSH:
                container = Push.tp_new(Push, NO_ARGUMENTS, NULL)
            else:
                container = PyDict_New()
            if container == NULL:
                return -1
        self.depth += 1
        frame = self.stack + self.depth
        frame.container = container
        frame.remaining = count
        frame.start = self.start
        frame.bottom = self.opened.count
        frame.frozen = frozen
        frame.kind = kind
        frame.ending = STREAMED if streamed else COUNTED
        frame.text = text
        if kind == PUSH or kind == ATTRIBUTE:
            frame.delivered = self.delivered
            frame.failed = self.failure is not None
            if frame.failed:
                self.failures.append(self.failure)
                self.failure = None
            if kind == PUSH:
                frame.text = self.encoding is not None and not self.raw_pushes
            else:
                frame.text = text and self.attributes
        return self.close() if count == 0 else WENT_ON

    @cython.final
    cdef object refused(self, uchar kind, int64_t count):
        """Return the error of a container that is beyond a limit."""
        if count > self.max_elements:
            return self.too_many_elements(kind, count, self.start)
        if self.depth >= self.max_depth:
            expected = f"at most {self.limits['max_depth']} levels of nesting"
        else:
            expected = f"at most {MAX_KEY_DEPTH} levels of nesting in a key or a member"
        return refusal(expected, "one more", self.start)

    @cython.final
    cdef void drop_stack(self) noexcept:
        """Drop the open containers, and what was to be in them."""
        cdef PyObject *container
        while self.depth:
            container = self.stack[self.depth].container
            self.depth -= 1
            Py_XDECREF(container)
        release(&self.opened)

    @cython.final
    cdef inline int open_array(self, const uchar *behind, int64_t count) except -1:
        """Do what `open()` does for the array at the position, if little can be said against it.

        In here, where most of its questions don't arise, nesting is read 1.1 times as fast.
        """
        cdef Frame *around = self.stack + self.depth
        cdef Frame *frame = around + 1
        if (
            (around.kind != TOP and around.kind != ARRAY) or around.frozen
            or count == 0 or count > self.max_elements
            or self.depth >= self.max_depth or self.depth + 1 == self.stack_room
        ):
            return NOT_TAKEN
        frame.container = new_list(count if count <= SMALL else 0)
        if frame.container == NULL:
            return -1
        if self.depth == 0:
            self.delivered = self.here()
        self.position = behind
        self.depth += 1
        frame.remaining = count
        frame.bottom = self.opened.count
        frame.frozen = 0
        frame.kind = ARRAY
        frame.ending = COUNTED
        frame.text = around.text
        if count <= SMALL and (behind[0] == c"$" or behind[0] == c":"):
            return self.fill_array()
        return WENT_ON

    @cython.final
    cdef int fill_array(self) except -1:
        """Read the run that the array just opened begins with straight into it.

        Most arrays have but one type of element, and are whole.
        """
        cdef Frame *frame = self.stack + self.depth
        cdef PyObject *container = frame.container
        cdef PyObject **items = room_of_list(container)
        cdef Py_ssize_t count
        if items == NULL:
            return WENT_ON
        count = read_run(
            self, &self.position, self.end, frame.text, &self.fields if self.depth > 1 else NULL, 0,
            items, frame.remaining,
        )
        if count == frame.remaining:
            fill_room_of_list(container, count)
            self.depth -= 1
            return self.complete(container)
        if count:
            if self.opened.room - self.opened.count < count and not grow(
                &self.opened, self.opened.count + count
            ):
                fill_room_of_list(container, count)
                raise MemoryError
            memcpy(self.opened.items + self.opened.count, items, count * sizeof(PyObject *))
            self.opened.count += count
            frame.remaining -= count
        return WENT_ON

    @cython.final
    cdef int grow_stack(self) except -1:
        cdef Py_ssize_t room = 2 * self.stack_room
        cdef void *stack = PyMem_Realloc(self.stack, room * sizeof(Frame))
        if stack == NULL:
            raise MemoryError
        self.stack = <Frame *>stack
        self.stack_room = room
        return 0

    @cython.final
    cdef int close(self) except -1:
        """Close what is complete: the innermost container, and those that it completes."""
        cdef Frame *frame = self.stack + self.depth
        cdef PyObject *value
        while True:
            check(self.depth > 0 and frame.remaining == 0)
            check(frame.bottom <= self.opened.count)
            if frame.ending != COUNTED:
                if frame.ending == FULL:
                    raise self.too_many_elements(frame.kind, None, frame.start)
                # All that may come have come: an end must follow, no element.
                frame.ending = FULL
                frame.remaining = 1
                frame.start = self.here()
                return WENT_ON
            value = frame.container
            if frame.kind == ARRAY:
                if frame.frozen:
                    value = tuple_of(&self.opened, frame.bottom)
                elif frame.bottom == 0 and self.opened.count > ADOPTED:
                    # Nothing else lies there; the empty list is not needed.
                    value = checked(list_of_all(&self.opened))
                    Py_CLEAR(frame.container)
                else:
                    self.fill_list(frame)
            elif frame.kind == MAP or frame.kind == ATTRIBUTE:
                if frame.frozen:
                    value = frozen_dict_of(&self.opened, frame.bottom)
                else:
                    if set_pairs(value, &self.opened, frame.bottom) < 0:
                        return -1
                    drop(&self.opened, frame.bottom)
                if frame.kind == ATTRIBUTE:
                    # RESP3, "Attribute type": they belong to what immediately follows.
                    frame.container = NULL
                    put(&self.opened, value)
                    frame.kind = ATTRIBUTED
                    frame.remaining = 1
                    frame.text = self.stack[self.depth - 1].text
                    return WENT_ON
            elif frame.kind == SET:
                if frame.frozen:
                    value = frozen_set_of(&self.opened, frame.bottom)
                else:
                    if add_members(value, &self.opened, frame.bottom) < 0:
                        return -1
                    drop(&self.opened, frame.bottom)
            elif frame.kind == PUSH:
                return self.close_push()
            else:  # ATTRIBUTED
                value = self.attributed(frame.bottom)
                self.leave_scope(frame)
            self.depth -= 1
            if self.depth == 0:
                return self.deliver(value)
            put(&self.opened, value)
            frame = self.stack + self.depth
            frame.remaining -= 1
            if frame.remaining:
                return WENT_ON

    @cython.final
    cdef inline int fill_list(self, Frame *frame) except -1:
        """Give a list, or a push, its elements."""
        cdef Py_ssize_t count = self.opened.count - frame.bottom
        if fill_list(frame.container, self.opened.items + frame.bottom, count) < 0:
            return -1
        self.opened.count = frame.bottom
        return 0

    @cython.final
    cdef PyObject *attributed(self, Py_ssize_t bottom) except NULL:
        """Return the value on top of the operand stack with the attributes below it, or without."""
        value = owned(self.opened.items[bottom + 1])
        attributes = owned(self.opened.items[bottom])
        check(self.opened.count == bottom + 2)
        self.opened.count = bottom
        if self.attributes:
            value = Attributed(value, attributes)
        Py_INCREF(<PyObject *>value)
        return <PyObject *>value

    @cython.final
    cdef int leave_scope(self, Frame *frame) except -1:
        """Go back to the scope around an attribute or a push: its failure, if any, was first."""
        if frame.failed:
            self.failure = self.failures.pop()
        return 0

    @cython.final
    cdef int close_push(self) except -1:
        """Deliver a push, and the attributes it stands behind, before what it interrupts."""
        cdef Frame *frame = self.stack + self.depth
        cdef int64_t behind = self.here()
        cdef PyObject *value = frame.container
        self.fill_list(frame)
        cdef int64_t began = frame.start
        failed = self.failure
        self.failure = None
        while True:
            self.leave_scope(frame)
            self.delivered = frame.delivered + behind - began
            self.depth -= 1
            frame -= 1
            if frame.kind != ATTRIBUTED:
                break
            # RESP3, "Attribute type": they belong to what immediately follows.
            put(&self.opened, value)
            value = self.attributed(frame.bottom)
            began = frame.start
            if self.failure is not None:
                failed, self.failure = self.failure, None
        if self.depth and self.interrupted < 0:
            self.interrupted = began
        if failed is not None:
            Py_DECREF(value)
            value = <PyObject *>failed
            Py_INCREF(value)
        put(&self.done, value)
        return DELIVERED

    @cython.final
    cdef object too_many_elements(self, uchar kind, count, int64_t offset):
        expected = f"at most {self.limits['max_elements']} elements in one {NAMES[kind]}"
        return refusal(expected, "one more" if count is None else str(count), offset)


@cython.final
cdef class Replies:
    """The iterator of a parser."""

    cdef Parser parser

    def __cinit__(self, Parser parser):
        self.parser = parser

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *value
        cdef Parser parser
        with cython.critical_section(self):
            parser = self.parser
        if parser is None:
            raise StopIteration
        try:
            with cython.critical_section(parser):
                value = parser.next_plain()
                if value == NULL:
                    value = parser.next_other()
        except BaseException:
            self.stop()
            raise
        if value == NULL:
            self.stop()
            raise StopIteration
        return owned(value)

    @cython.final
    cdef void stop(self) noexcept:
        """Let go of the parser: an iterator that came to its end stays there."""
        with cython.critical_section(self):
            self.parser = None


def parse(data, **options):
    """Return the one value that the bytes are, no more and no less; a push is one too.

    Takes the options of `Parser`. Too few bytes, any behind the value, or a push inside it are a
    `ProtocolError`; text that can't be decoded is a UnicodeDecodeError.
    """
    cdef Parser parser = Parser(**options)
    parser.feed(data)
    value = parser.parse()
    if value is NEED_DATA:
        raise refusal("a complete value", f"only {parser.fed} bytes of it, ending", parser.fed)
    if parser.interrupted >= 0:
        raise refusal("one value", "a push inside it", parser.interrupted)
    rest = parser.pending
    if rest:
        raise refusal("one value", f"{rest} bytes more", parser.fed - rest)
    return value
