"""Attributes that are declared and typed on a class, but read from the row behind an object.

A class lists its fields once, so editors complete them and JSON keys can be derived from them.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, Self, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)


class HasRow(Protocol):
    """An object whose fields are read from a row."""

    def _value(self, name: str) -> Any: ...


class RowField(Generic[T_co]):
    """A read-only attribute; its value is whatever the object's ``_value`` returns for its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: HasRow, owner: type) -> T_co: ...

    def __get__(self, instance: HasRow | None, owner: type) -> Any:
        return self if instance is None else instance._value(self._name)

    def __set__(self, instance: HasRow, value: Any) -> None:
        raise AttributeError(f"{type(instance).__name__}.{self._name} can't be set")


def field_names(owner: type) -> tuple[str, ...]:
    """The names of the `RowField` attributes of a class, in the order of their declaration."""
    return tuple(name for name, value in vars(owner).items() if isinstance(value, RowField))
