"""Objects whose annotated attributes are read from a row.

Annotations declare each attribute once: editors complete it, and JSON keys are derived from it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from paise2nb.core.display import Displayable


class Record(Displayable):
    """Base class: every annotated attribute of a subclass reads ``_value`` with its name."""

    fields: ClassVar[tuple[str, ...]]
    id: int

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__annotations__) or cls.fields
        for name in cls.fields:
            setattr(cls, name, _field(name))

    def _value(self, name: str) -> Any:
        raise NotImplementedError


def _field(name: str) -> property:
    return property(lambda self: self._value(name))
