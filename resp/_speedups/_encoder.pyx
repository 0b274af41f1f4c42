# cython: language_level=3, binding=False, freethreading_compatible=True
"""Commands to bytes in C: the compiled twin of `resp/_encoder.py`, which is the readable one.

What is usual, bytes and str and int of 64 bits and float, is written as it comes. A command with
anything else in it is left to the pure twin as a whole, so that both mean the same, and refuse the
same in the same words.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* Whether another thread may change a list while it is read. */
    #ifndef RESP_FREE_THREADED
    #ifdef Py_GIL_DISABLED
    #define RESP_FREE_THREADED 1
    #else
    #define RESP_FREE_THREADED 0
    #endif
    #endif
    """
    bint FREE_THREADED "RESP_FREE_THREADED"

cdef extern from "Python.h":
    ctypedef struct PyObject
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL
    object PyCFunction_NewEx(PyMethodDef *, PyObject *, object)
    int Py_DTSF_ADD_DOT_0
    void Py_DECREF(PyObject *) noexcept
    void Py_XDECREF(PyObject *) noexcept
    void PyErr_Clear() noexcept
    bint PyBytes_CheckExact(PyObject *) noexcept
    char *PyBytes_AS_STRING(PyObject *) noexcept
    Py_ssize_t PyBytes_GET_SIZE(PyObject *) noexcept
    PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    bint PyUnicode_CheckExact(PyObject *) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(PyObject *) noexcept
    void *PyUnicode_DATA(PyObject *) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *) noexcept
    PyObject *PyUnicode_AsUTF8String(PyObject *) noexcept
    bint PyLong_CheckExact(PyObject *) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject *, int *) noexcept
    bint PyFloat_CheckExact(PyObject *) noexcept
    double PyFloat_AS_DOUBLE(PyObject *) noexcept
    char *PyOS_double_to_string(double, char, int, int, int *) except NULL
    void PyMem_Free(void *) noexcept
    bint PyList_CheckExact(PyObject *) noexcept
    bint PyTuple_CheckExact(PyObject *) noexcept
    Py_ssize_t Py_SIZE(PyObject *) noexcept
    PyObject **PySequence_Fast_ITEMS(PyObject *) noexcept
    tuple PyTuple_New(Py_ssize_t)

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.string cimport strlen

cdef enum:
    # The usual command is written here, and copied once it has its size.
    AT_HAND = 1024
    # Around an argument: $, at most 20 digits, CRLF, CRLF; or an integer and all that.
    AROUND = 64


cdef struct Writer:
    char *at
    char *end
    char *start
    PyObject *result  # where it is, once it is more than what is at hand
    char at_hand[AT_HAND]


cdef inline void begin(Writer *writer) noexcept:
    writer.start = writer.at = writer.at_hand
    writer.end = writer.at + AT_HAND
    writer.result = NULL


cdef inline int reserve(Writer *writer, Py_ssize_t size) except -1:
    """Make sure that so many bytes can be written."""
    if writer.end - writer.at < size:
        grow(writer, size)
    return 0


cdef int grow(Writer *writer, Py_ssize_t size) except -1:
    cdef Py_ssize_t used = writer.at - writer.start
    cdef Py_ssize_t room = max(used + size, 2 * used)
    if writer.result == NULL:
        writer.result = PyBytes_FromStringAndSize(NULL, room)
        memcpy(PyBytes_AS_STRING(writer.result), writer.start, used)
    else:
        _PyBytes_Resize(&writer.result, room)
    writer.start = PyBytes_AS_STRING(writer.result)
    writer.at = writer.start + used
    writer.end = writer.start + room
    return 0


cdef inline bytes written(Writer *writer):
    """Return what was written."""
    cdef Py_ssize_t used = writer.at - writer.start
    if writer.result == NULL:
        writer.result = PyBytes_FromStringAndSize(writer.start, used)
    elif writer.at != writer.end:
        _PyBytes_Resize(&writer.result, used)
    return <bytes>writer.result  # counted up here, and down by finish()


cdef inline void finish(Writer *writer) noexcept:
    Py_XDECREF(writer.result)


cdef inline char *put_digits(char *to, uint64_t number) noexcept:
    """Write a number; return what is behind it."""
    cdef char digits[20]
    cdef int at = 20
    if number < 10:
        to[0] = <char>(c"0" + number)
        return to + 1
    if number < 100:
        to[0] = <char>(c"0" + number // 10)
        to[1] = <char>(c"0" + number % 10)
        return to + 2
    while True:
        at -= 1
        digits[at] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            break
    memcpy(to, digits + at, 20 - at)
    return to + 20 - at


cdef inline char *put_line(char *to, char mark, uint64_t number) noexcept:
    """Write a type byte, a number and CRLF; return what is behind it."""
    to[0] = mark
    to = put_digits(to + 1, number)
    to[0] = c"\r"
    to[1] = c"\n"
    return to + 2


cdef inline int put_bulk(Writer *writer, const char *data, Py_ssize_t size) except -1:
    reserve(writer, size + AROUND)
    cdef char *to = put_line(writer.at, c"$", size)
    memcpy(to, data, size)
    to += size
    to[0] = c"\r"
    to[1] = c"\n"
    writer.at = to + 2
    return 0


cdef bint put_command(Writer *writer, PyObject **arguments, Py_ssize_t count) except -1:
    """Write a command; or return False, with nothing written, if that is beyond this module.

    No Python code runs in here, so nobody takes the arguments away.
    """
    cdef Py_ssize_t before = writer.at - writer.start
    cdef Py_ssize_t index
    cdef PyObject *argument
    if count == 0:
        return False
    reserve(writer, AROUND)
    writer.at = put_line(writer.at, c"*", count)
    for index in range(count):
        argument = arguments[index]
        if PyUnicode_CheckExact(argument) and PyUnicode_IS_COMPACT_ASCII(argument):
            put_bulk(
                writer, <const char *>PyUnicode_DATA(argument), PyUnicode_GET_LENGTH(argument)
            )
        elif PyBytes_CheckExact(argument):
            put_bulk(writer, PyBytes_AS_STRING(argument), PyBytes_GET_SIZE(argument))
        elif not put_other(writer, argument):
            writer.at = writer.start + before
            return False
    return True


cdef bint put_other(Writer *writer, PyObject *argument) except -1:
    """Write an int, a float or text that is not ASCII, or return False."""
    cdef long long number
    cdef int overflow = 0
    cdef char digits[24]
    cdef char *text
    cdef PyObject *encoded
    if PyLong_CheckExact(argument):
        number = PyLong_AsLongLongAndOverflow(argument, &overflow)
        if overflow:
            return False
        if number < 0:
            digits[0] = c"-"
            text = put_digits(digits + 1, <uint64_t>0 - <uint64_t>number)
        else:
            text = put_digits(digits, number)
        put_bulk(writer, digits, text - digits)
        return True
    if PyFloat_CheckExact(argument):
        text = PyOS_double_to_string(
            PyFloat_AS_DOUBLE(argument), c"r", 0, Py_DTSF_ADD_DOT_0, NULL
        )
        try:
            put_bulk(writer, text, strlen(text))
        finally:
            PyMem_Free(text)
        return True
    if PyUnicode_CheckExact(argument):
        # PyUnicode_AsUTF8 would leave its copy with the argument for good.
        # If it can't it makes an exception, and on Python 3.11 that may run any finaliser, which
        # may empty the list that the argument is in.
        Py_INCREF(<object>argument)
        encoded = PyUnicode_AsUTF8String(argument)
        Py_DECREF(argument)
        if encoded == NULL:
            PyErr_Clear()
            return False
        try:
            put_bulk(writer, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        finally:
            Py_DECREF(encoded)
        return True
    return False


cdef object encode_one(PyObject *module, PyObject **arguments, Py_ssize_t count):
    cdef Writer writer
    cdef Py_ssize_t index
    begin(&writer)
    try:
        if put_command(&writer, arguments, count):
            return written(&writer)
    finally:
        finish(&writer)
    cdef tuple args = PyTuple_New(count)
    for index in range(count):
        argument = <object>arguments[index]
        Py_INCREF(argument)
        PyTuple_SET_ITEM(args, index, argument)
    from .._encoder import _append_command
    parts = []
    _append_command(parts, args, None)
    return b"".join(parts)


# `def encode_command(*args)` would be given a tuple: 35 of 100 ns.
cdef PyMethodDef method
method.ml_name = "encode_command"
method.ml_meth = <PyCFunction><void *>encode_one
method.ml_flags = METH_FASTCALL
method.ml_doc = b"""encode_command(*args)
--

Return one command as a server reads it: an array of bulks, the name first.

    str is sent as UTF-8, int in digits, float in the shortest form that reads back the same.
    Anything else is a TypeError; no argument at all, or text with a lone surrogate, a ValueError.
    """
encode_command = PyCFunction_NewEx(&method, NULL, __name__)


def encode_commands(commands):
    """Return a pipeline: every command as `encode_command` writes it, back to back.

    Errors are the same, and name the command by its index as well.
    """
    cdef Writer writer
    cdef Py_ssize_t index = 0
    cdef PyObject *args
    begin(&writer)
    try:
        for command in commands:
            if FREE_THREADED and type(command) is list:
                command = tuple(command)
            args = <PyObject *>command
            if not (
                (PyTuple_CheckExact(args) or PyList_CheckExact(args))
                and put_command(&writer, PySequence_Fast_ITEMS(args), Py_SIZE(args))
            ):
                put_unusual(&writer, command, index)
            index += 1
        return written(&writer)
    finally:
        finish(&writer)


cdef int put_unusual(Writer *writer, command, Py_ssize_t index) except -1:
    """Write a command that only the pure twin understands, or refuses."""
    # Not before it is wanted: its tables take half a millisecond of every program's start.
    from .._encoder import _append_command, _arguments
    if not isinstance(command, (tuple, list)):
        command = _arguments(command, index)
    parts = []
    _append_command(parts, command, index)
    data = b"".join(parts)
    cdef Py_ssize_t size = len(data)
    reserve(writer, size)
    memcpy(writer.at, PyBytes_AS_STRING(<PyObject *>data), size)
    writer.at += size
    return 0
