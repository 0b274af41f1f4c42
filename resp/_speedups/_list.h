/* Lists that are made before their elements, and filled all at once. */
#ifndef RESP_LIST_H
#define RESP_LIST_H

#include <Python.h>
#include <string.h>

/* With a look at the fields of a list, as list_resize() has it: ob_item is from PyMem, and
 * allocated says how many fit. Otherwise by way of a second list. */
#ifndef RESP_LIST_FIELDS
#if PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#define RESP_LIST_FIELDS 1
#else
#define RESP_LIST_FIELDS 0
#endif
#endif

/* Return a list that takes over memory from PyMem, with room for more than the `count` references
 * that lie there; or NULL, and it has taken nothing. */
static inline PyObject *resp_adopt_list(PyObject **items, Py_ssize_t count, Py_ssize_t room)
{
#if RESP_LIST_FIELDS
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    if (room - count > count / 8) {
        PyObject **smaller = PyMem_Realloc(items, (size_t)count * sizeof *items);
        if (smaller != NULL) {
            items = smaller;
            room = count;
        }
    }
    ((PyListObject *)list)->ob_item = items;
    ((PyListObject *)list)->allocated = room;
    Py_SET_SIZE((PyVarObject *)list, count);
#else
    PyObject *list = PyList_New(count);
    if (list == NULL)
        return NULL;
    for (Py_ssize_t at = 0; at < count; at++)
        PyList_SET_ITEM(list, at, items[at]);
    PyMem_Free(items);
    (void)room;
#endif
    return list;
}

/* Return an empty list with room for so many elements. */
static inline PyObject *resp_new_list(Py_ssize_t room)
{
#if RESP_LIST_FIELDS
    PyListObject *list = (PyListObject *)PyList_New(0);
    if (list != NULL && room) {
        list->ob_item = PyMem_Malloc((size_t)room * sizeof(PyObject *));
        if (list->ob_item == NULL) {
            Py_DECREF(list);
            return PyErr_NoMemory();
        }
        list->allocated = room;
    }
    return (PyObject *)list;
#else
    (void)room;
    return PyList_New(0);
#endif
}

/* Return where the elements of a list belong that resp_new_list() has just made, for as many as it
 * has room for; or NULL. */
static inline PyObject **resp_room_of_list(PyObject *list)
{
#if RESP_LIST_FIELDS
    return ((PyListObject *)list)->ob_item;
#else
    (void)list;
    return NULL;
#endif
}

/* Say that so many references were put there; no Python code may have run since it was made. */
static inline void resp_fill_room_of_list(PyObject *list, Py_ssize_t count)
{
    Py_SET_SIZE((PyVarObject *)list, count);
}

/* As below, by way of a second list. */
static int resp_fill_other_list(PyObject *list, PyObject *const *items, Py_ssize_t count)
{
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

/* Fill an empty list; the references are taken over, unless it fails and returns -1. */
static inline int resp_fill_list(PyObject *list, PyObject *const *items, Py_ssize_t count)
{
#if RESP_LIST_FIELDS
    PyListObject *target = (PyListObject *)list;
    if (target->ob_item == NULL && count) {
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
    return resp_fill_other_list(list, items, count);
}

#endif
