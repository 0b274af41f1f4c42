"""Values that do not change once they are made: what a frozen dataclass is, at none of its cost.

Importing `dataclasses` loads `inspect` and a dozen other modules, and makes each class by compiling
its text: together a third of the CPU time of `import client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


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
