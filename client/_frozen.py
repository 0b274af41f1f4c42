"""Values that do not change once they are made: frozen dataclasses and named tuples, cheaply.

Importing `dataclasses` loads `inspect` and a dozen other modules, and makes each class by compiling
its text; importing `typing` loads `re` and more. Together they would double what `import client`
costs, so annotations are for checkers alone: nothing that it loads needs `typing` at run time.
"""

from __future__ import annotations

__all__ = ["Frozen", "NamedTuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple, Self
else:
    from collections import namedtuple

    class _Named(type):
        """Make of a class with annotated fields what `typing` would: a tuple with names."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for attribute in body.keys() - {"__module__", "__qualname__", *fields}:
                setattr(made, attribute, body[attribute])
            return made

    class NamedTuple(metaclass=_Named):
        """The base: a subclass annotates its fields, and assigns their defaults."""


class Frozen:
    """The base: a subclass names its fields in `__slots__` and its constructor takes them by name.

    Two are equal if all fields are but those of `_uncounted`; `_hidden` are not shown by `repr`.
    """

    __slots__ = ()
    _hidden: frozenset[str] = frozenset()
    _uncounted: frozenset[str] = frozenset()

    def _set(self, name: str, value: object) -> None:
        """Set a field; for the constructor alone."""
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} does not change: its field {name!r} is set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} does not change: its field {name!r} is set")

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """Give the names of the fields, in order."""
        return tuple(cls.__slots__)

    def replace(self, **changes: Any) -> Self:
        """Give the same with some fields changed."""
        return type(self)(**{name: getattr(self, name) for name in self.fields()} | changes)

    def _counting(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.fields() if name not in self._uncounted)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._counting() == other._counting()

    def __hash__(self) -> int:
        return hash(self._counting())

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in self.fields() if name not in self._hidden
        )
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), {name: getattr(self, name) for name in self.fields()})


def _remake(kind: type[Frozen], fields: dict[str, Any]) -> Frozen:
    return kind(**fields)
