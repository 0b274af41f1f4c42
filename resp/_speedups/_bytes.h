/* Instances of a subclass of bytes, which the C API can make only by way of a tuple and a copy. */
#ifndef RESP_BYTES_H
#define RESP_BYTES_H

#include <Python.h>
#include <string.h>

/* As bytes_subtype_new() in CPython's bytesobject.c: of the class's size, and not hashed yet. */
static inline PyObject *resp_new_bytes(PyObject *kind, const unsigned char *data, Py_ssize_t size)
{
    PyTypeObject *type = (PyTypeObject *)kind;
#if PY_VERSION_HEX < 0x030F0000 && !defined(PYPY_VERSION)
    PyObject *value = type->tp_alloc(type, size);
    if (value == NULL)
        return NULL;
    _Py_COMP_DIAG_PUSH
    _Py_COMP_DIAG_IGNORE_DEPR_DECLS
    ((PyBytesObject *)value)->ob_shash = -1;
    _Py_COMP_DIAG_POP
    memcpy(PyBytes_AS_STRING(value), data, (size_t)size);
    return value;
#else
    PyObject *arguments = Py_BuildValue("(y#)", (const char *)data, size);
    PyObject *value = arguments ? PyBytes_Type.tp_new(type, arguments, NULL) : NULL;
    Py_XDECREF(arguments);
    return value;
#endif
}

/* Count so many references to an object more. */
static inline void resp_add_references(PyObject *object, Py_ssize_t count)
{
#if !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION) && PY_VERSION_HEX < 0x030F0000
    Py_SET_REFCNT(object, Py_REFCNT(object) + count);
#else
    for (; count > 0; count--)
        Py_INCREF(object);
#endif
}

#endif
