/* Instances of a subclass of bytes, and many references at once. */
#ifndef RESP_BYTES_H
#define RESP_BYTES_H

#include <Python.h>
#include <string.h>

/* With a look at the fields of an object; otherwise as the C API has it. */
#ifndef RESP_BYTES_FIELDS
#if PY_VERSION_HEX < 0x030F0000 && !defined(PYPY_VERSION)
#define RESP_BYTES_FIELDS 1
#else
#define RESP_BYTES_FIELDS 0
#endif
#endif

/* As the C API makes an instance of a subclass only by way of a tuple and a copy: as
 * bytes_subtype_new() in CPython's bytesobject.c: of the class's size, and not hashed yet. */
static inline PyObject *resp_new_bytes(PyObject *kind, const unsigned char *data, Py_ssize_t size)
{
    PyTypeObject *type = (PyTypeObject *)kind;
#if RESP_BYTES_FIELDS
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
#if RESP_BYTES_FIELDS && !defined(Py_GIL_DISABLED)
    Py_SET_REFCNT(object, Py_REFCNT(object) + count);
#else
    for (; count > 0; count--)
        Py_INCREF(object);
#endif
}

#endif
