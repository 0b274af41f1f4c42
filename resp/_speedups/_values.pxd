"""Values on their way: an operand stack of references, and what becomes of what lies on top.

The elements of open containers wait on one, complete values on another. A container gets its
elements at once when the last has come, so it never has more room than it needs.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy

from ._python cimport *

cdef extern from "_list.h":
    PyObject *adopt_list "resp_adopt_list"(
        PyObject **items, Py_ssize_t size, Py_ssize_t room
    ) noexcept
    PyObject *new_list "resp_new_list"(Py_ssize_t room) noexcept
    PyObject **room_of_list "resp_room_of_list"(PyObject *list) noexcept
    void fill_room_of_list "resp_fill_room_of_list"(PyObject *list, Py_ssize_t count) noexcept
    int fill_list "resp_fill_list"(PyObject *list, PyObject **items, Py_ssize_t size) noexcept


cdef struct Values:
    # References that are owned, without an owner that the collector could see: it takes them for
    # ones from outside, and leaves what lies here alone. It need not see them, as what this module
    # makes is reachable from nowhere else, so no cycle can pass through it. (One can through what
    # a codec makes, a subclass of str or the context of an error; until the reply is complete it is
    # not collected, and that is all.)
    PyObject **items
    Py_ssize_t count
    Py_ssize_t room


cdef enum:
    LEAST_ROOM = 64


cdef inline bint grow(Values *values, Py_ssize_t wanted) noexcept:
    """Double the room, at least; return whether there was memory for it."""
    cdef Py_ssize_t room = max(2 * values.room, LEAST_ROOM, wanted)
    cdef void *items = PyMem_Realloc(values.items, room * sizeof(PyObject *))
    if items == NULL:
        return False
    values.items = <PyObject **>items
    values.room = room
    return True


cdef inline int put(Values *values, PyObject *value) except -1:
    """Add a value; its reference is taken over, also if that fails."""
    if values.count == values.room and not grow(values, 0):
        Py_DECREF(value)
        raise MemoryError
    check(value != NULL and values.count < values.room)
    values.items[values.count] = value
    values.count += 1
    return 0


cdef inline void drop(Values *values, Py_ssize_t bottom) noexcept:
    """Drop the values from `bottom` on."""
    while values.count > bottom:
        values.count -= 1
        Py_DECREF(values.items[values.count])


cdef inline void release(Values *values) noexcept:
    """Drop the values and their room."""
    drop(values, 0)
    PyMem_Free(values.items)
    values.items = NULL
    values.room = 0


cdef inline object owned(PyObject *value):
    """Return the object of a new reference."""
    result = <object>value
    Py_DECREF(value)
    return result


cdef inline PyObject *checked(PyObject *value) except NULL:
    """Raise the exception that came with a NULL."""
    return value


# Each of these makes a container of the values from `bottom` on, and takes them off. If it fails,
# they stay.

cdef inline PyObject *list_of(Values *values, Py_ssize_t bottom) noexcept:
    cdef Py_ssize_t count = values.count - bottom
    check(count >= 0)
    cdef PyObject *value = PyList_New(count)
    if value != NULL and count:
        memcpy(PySequence_Fast_ITEMS(value), values.items + bottom, count * sizeof(PyObject *))
        values.count = bottom
    return value


cdef inline PyObject *list_of_all(Values *values) noexcept:
    """Return a list of all values, in the memory where they lie: half the work if they are many.

    NULL, with an exception set, if that fails.
    """
    cdef PyObject *value
    if values.count <= LEAST_ROOM:
        return list_of(values, 0)
    value = adopt_list(values.items, values.count, values.room)
    if value != NULL:
        values.items = NULL
        values.count = values.room = 0
    return value


cdef inline PyObject *tuple_of(Values *values, Py_ssize_t bottom) except NULL:
    cdef Py_ssize_t count = values.count - bottom
    check(count >= 0)
    cdef PyObject *value = PyTuple_New(count)
    if value != NULL and count:
        memcpy(PySequence_Fast_ITEMS(value), values.items + bottom, count * sizeof(PyObject *))
        values.count = bottom
    return value


cdef inline PyObject *frozen_dict_of(Values *values, Py_ssize_t bottom) except NULL:
    cdef PyObject *frozen
    cdef PyObject *items = NULL
    cdef PyObject *value = PyDict_New()
    if value == NULL:
        return NULL
    if set_pairs(value, values, bottom) == 0:
        items = PyDict_Items(value)
    Py_DECREF(value)
    if items == NULL:
        return NULL
    frozen = PyList_AsTuple(items)
    Py_DECREF(items)
    if frozen != NULL:
        drop(values, bottom)
    return frozen


cdef inline PyObject *frozen_set_of(Values *values, Py_ssize_t bottom) except NULL:
    # The C API adds to a frozenset, as long as nobody else knows it.
    cdef PyObject *value = PyFrozenSet_New(NULL)
    if value != NULL:
        if add_members(value, values, bottom) < 0:
            Py_DECREF(value)
            return NULL
        drop(values, bottom)
    return value


cdef inline int set_pairs(PyObject *target, Values *values, Py_ssize_t bottom) noexcept:
    """Fill a dict; return -1, with an exception set, if that fails."""
    cdef Py_ssize_t at
    check(bottom <= values.count and (values.count - bottom) % 2 == 0)
    for at in range(bottom, values.count, 2):
        if PyDict_SetItem(target, values.items[at], values.items[at + 1]) < 0:
            return -1
    return 0


cdef inline int add_members(PyObject *target, Values *values, Py_ssize_t bottom) noexcept:
    """Fill a set; return -1, with an exception set, if that fails."""
    cdef Py_ssize_t at
    for at in range(bottom, values.count):
        if PySet_Add(target, values.items[at]) < 0:
            return -1
    return 0
