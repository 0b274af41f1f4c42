/* Lists that are made before their elements, and filled all at once. */
#ifndef RESP_LIST_H
#define RESP_LIST_H

#include <Python.h>
#include <string.h>

/* With a look at the fields of a list, as list_resize() has it: ob_item is from PyMem, and
 * allocated says how many fit. Otherwise by way of a second list. */
#if PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#define RESP_LIST_FIELDS 1
#else
#define RESP_LIST_FIELDS 0
#endif

/* Return an empty list with room for so many elements. */
static inline PyObject *resp_new_list(Py_ssize_t room)
{
#if RESP_LIST_FIELDS
    PyObject *list = PyList_New(room);
    if (list != NULL)
        Py_SET_SIZE((PyVarObject *)list, 0);
    return list;
#else
    (void)room;
    return PyList_New(0);
#endif
}

/* Fill an empty list; the references are taken over, unless it fails and returns -1. */
static inline int resp_fill_list(PyObject *list, PyObject *const *items, Py_ssize_t count)
{
    if (count == 0)
        return 0;
#if RESP_LIST_FIELDS
    PyListObject *target = (PyListObject *)list;
    if (target->ob_item == NULL) {
        target->ob_item = PyMem_New(PyObject *, (size_t)count);
        if (target->ob_item == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        target->allocated = count;
    }
    /* Else somebody found it among gc.get_objects(), and changed it. */
    if (Py_SIZE(target) == 0 && target->allocated >= count) {
        if (count <= 4)
            for (Py_ssize_t at = 0; at < count; at++)
                target->ob_item[at] = items[at];
        else
            memcpy(target->ob_item, items, (size_t)count * sizeof *items);
        Py_SET_SIZE(target, count);
        return 0;
    }
#endif
    PyObject *source = PyList_New(count);
    if (source == NULL)
        return -1;
    for (Py_ssize_t at = 0; at < count; at++) {
        Py_INCREF(items[at]);
        PyList_SET_ITEM(source, at, items[at]);
    }
    const int failed = PyList_SetSlice(list, 0, PY_SSIZE_T_MAX, source);
    Py_DECREF(source);
    if (!failed)
        for (Py_ssize_t at = 0; at < count; at++)
            Py_DECREF(items[at]);
    return failed;
}

#endif
