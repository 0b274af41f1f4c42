"""The part of Python's C API that the parser is made of, with raw references.

Cython's own would be counted up and down for every step that an element takes. What returns a
PyObject * returns a new reference, or NULL with an exception set: for the caller to look at.
"""

from libc.stdint cimport uint32_t

ctypedef unsigned char uchar

cdef extern from "<assert.h>":
    void check "assert"(bint) noexcept  # compiled in by RESP_DEBUG=1

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    ctypedef struct PyObject
    ctypedef struct PyTypeObject:
        PyObject *(*tp_new)(PyTypeObject *, PyObject *, PyObject *) noexcept
    PyTypeObject PyBytes_Type
    PyTypeObject PyUnicode_Type
    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    void Py_INCREF(PyObject *) noexcept
    void Py_DECREF(PyObject *) noexcept
    void Py_XDECREF(PyObject *) noexcept
    void Py_CLEAR(PyObject *) noexcept
    void PyErr_Clear() noexcept
    bint PyExceptionInstance_Check(PyObject *) noexcept
    PyObject *PyLong_FromLongLong(long long) noexcept
    PyObject *PyLong_FromString(const char *, char **, int) noexcept
    PyObject *PyFloat_FromDouble(double) noexcept
    PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t) noexcept
    char *PyBytes_AS_STRING(PyObject *) noexcept
    Py_ssize_t PyBytes_GET_SIZE(PyObject *) noexcept
    bint PyBytes_CheckExact(PyObject *) noexcept
    int _PyBytes_Resize(PyObject **, Py_ssize_t) noexcept
    PyObject *PyUnicode_FromOrdinal(int) noexcept
    PyObject *PyUnicode_New(Py_ssize_t, uint32_t) noexcept
    void *PyUnicode_DATA(PyObject *) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *) noexcept
    bint PyUnicode_CheckExact(PyObject *) noexcept
    int PyUnicode_Resize(PyObject **, Py_ssize_t) noexcept
    const char *PyUnicode_AsUTF8(object) except NULL
    object PyUnicode_Decode(const char *, Py_ssize_t, const char *, const char *)
    object PyUnicode_DecodeLatin1(const char *, Py_ssize_t, const char *)
    PyObject *PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *) noexcept
    PyObject *PyList_New(Py_ssize_t) noexcept
    void PyList_SET_ITEM(PyObject *, Py_ssize_t, PyObject *) noexcept
    int PyList_SetSlice(PyObject *, Py_ssize_t, Py_ssize_t, PyObject *) noexcept
    PyObject *PyTuple_New(Py_ssize_t) noexcept
    void PyTuple_SET_ITEM(PyObject *, Py_ssize_t, PyObject *) noexcept
    PyObject **PySequence_Fast_ITEMS(PyObject *) noexcept
    PyObject *PyList_AsTuple(PyObject *) noexcept
    PyObject *PyDict_New() noexcept
    int PyDict_SetItem(PyObject *, PyObject *, PyObject *) noexcept
    PyObject *PyDict_Items(PyObject *) noexcept
    PyObject *PySet_New(PyObject *) noexcept
    PyObject *PyFrozenSet_New(PyObject *) noexcept
    int PySet_Add(PyObject *, PyObject *) noexcept
