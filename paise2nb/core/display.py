"""Base classes of results: each has a text form and an HTML form; a listing shows a table."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, overload

from paise2nb.core import render
from paise2nb.core.clock import moment
from paise2nb.core.errors import PaiseError, redacted
from paise2nb.core.render import Column

RowT = TypeVar("RowT", covariant=True)


_CACHE_KEY = re.compile("[0-9a-f]{64}")


def arguments(args: Sequence[Any]) -> str:
    """Format the arguments of a job without cache keys, lists and mappings, unless all are such.

    Of a crawl or a folder, which have a list of patterns among their options, only the URL or path.
    """
    if args and "/" in str(args[0]) and any(isinstance(a, list) for a in args[1:]):
        args = args[:1]
    long = [isinstance(a, dict | list) or _CACHE_KEY.fullmatch(str(a)) for a in args]
    shown = [a for a, is_long in zip(args, long, strict=True) if not is_long] or args
    return redacted(
        ", ".join(a if isinstance(a, str) else json.dumps(a, ensure_ascii=False) for a in shown)
    )


class Displayable:
    """An object that is shown as its ``str()``, in HTML as preformatted text."""

    def _repr_html_(self) -> str:
        return render.panel(f"<pre>{render.escape(str(self))}</pre>")

    def __repr__(self) -> str:
        return str(self)


@dataclass(repr=False)
class Message(Displayable):
    """A result that is told in a sentence. Its facts are attributes, too.

    Attributes:
        text: the sentence, or several lines.
        data: the facts, which are JSON or paths.
        exit_status: that of the command.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    exit_status: int = 0

    def __getattr__(self, name: str) -> Any:
        facts = vars(self).get("data", {})
        if name not in facts:
            raise AttributeError(f"there is no attribute {name!r}; known: {', '.join(facts)}")
        return facts[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, for JSON."""
        return {k: str(fact) if isinstance(fact, Path) else fact for k, fact in self.data.items()}

    def __str__(self) -> str:
        return render.plain(self.text)


class Record(Displayable, ABC):
    """An object with annotated attributes that are read from a row.

    Annotations declare each attribute once: editors complete it, and JSON keys are derived from it.
    It is also a mapping: a row of the data frame of its listing, where dates are datetimes. So
    pandas makes a data frame of records, too.

    Attributes:
        fields: the names of the attributes.
        on_demand: those that a list leaves out.
        times: those that are dates.
    """

    fields: ClassVar[tuple[str, ...]]
    on_demand: ClassVar[tuple[str, ...]] = ()
    times: ClassVar[tuple[str, ...]] = ()
    id: int

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__annotations__) or cls.fields
        Mapping.register(cls)
        for name in cls.fields:
            setattr(cls, name, property(methodcaller("_value", name)))

    @abstractmethod
    def _value(self, name: str) -> Any: ...

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the names of the columns of a data frame."""
        return tuple(name for name in cls.fields if name not in cls.on_demand)

    def __getitem__(self, name: str) -> Any:
        if name not in self.fields:
            raise KeyError(name)
        value = self._value(name)
        return moment(value) if name in self.times and value is not None else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


class Listing(Displayable, Sequence[RowT]):
    """A sequence that is shown as a table of its first rows.

    Attributes:
        columns: those of the table.
        keys: the keys of a row, for the data frame of an empty listing.
        times: the keys of dates.
        whole_numbers: the keys of integers, which may be None.
        shown: the number of rows that are shown; None means all.
        empty: what is shown when there are no rows.
    """

    columns: Sequence[str | Column] = ()
    keys: ClassVar[Sequence[str]] = ()
    times: ClassVar[Sequence[str]] = ()
    whole_numbers: ClassVar[Sequence[str]] = ()
    shown: ClassVar[int | None] = render.VIEW_ROWS
    empty: str = "nothing"
    _rows: Sequence[Any]

    def _element(self, row: Any) -> Any:
        """Return the element for one of ``_rows``."""
        return row

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[RowT]:
        return map(self._element, self._rows)

    @overload
    def __getitem__(self, index: int) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self._element(self._rows[index])
        part = copy(self)
        part._rows = self._rows[index]
        return part

    @abstractmethod
    def to_dicts(self) -> list[dict[str, Any]]:
        """Return all rows as dictionaries."""

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the JSON form, which is a list: the same as `to_dicts`."""
        return self.to_dicts()

    def to_frame(self) -> Any:
        """Return a pandas DataFrame. Dates are datetimes in UTC; a day is its midnight.

        Raises:
            PaiseError: pandas is not installed.
        """
        return frame(self.to_dicts(), self.keys, self.times, self.whole_numbers)

    def first(self, number: int) -> list[dict[str, Any]]:
        """Return the first rows without reading the others."""
        return self[:number].to_dicts()

    def _first(self) -> list[dict[str, Any]]:
        return self.first(len(self) if self.shown is None else self.shown)

    def notes(self) -> list[str]:
        """Return lines to show below the table."""
        return []

    def __str__(self) -> str:
        rows = self._first()
        table = render.text_table(rows, self.columns, len(self)) if rows else self.empty
        return "\n".join([table, *map(render.one_line, self.notes())])

    def _repr_html_(self) -> str:
        rows = self._first()
        table = (
            render.html_table(rows, self.columns, len(self)) if rows else render.note(self.empty)
        )
        return render.panel(table, *map(render.note, self.notes()))


class RowList(Listing[dict[str, Any]]):
    """A listing of dictionaries, shown as they are."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows = list(rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return list(self._rows)

    def first(self, number: int) -> list[dict[str, Any]]:
        """Return the first rows, with what only the views show."""
        return list(self._rows[:number])


class Rows(RowList):
    """A listing of plain rows that is always shown whole.

    Args:
        rows: the rows, as JSON has them.
        columns: what the views show of them.
    """

    shown = None

    def __init__(self, rows: list[dict[str, Any]], columns: Sequence[Column]) -> None:
        super().__init__(rows)
        self.columns = columns


def frame(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str] = (),
    times: Sequence[str] = (),
    whole_numbers: Sequence[str] = (),
) -> Any:
    """Return rows as a pandas DataFrame.

    Args:
        rows: the rows.
        keys: the names of the columns, for the case that there are no rows.
        times: the columns to make datetimes in UTC, from ISO 8601 or from seconds since the epoch.
            One beyond the years that pandas can represent becomes NaT.
        whole_numbers: the columns to keep as integers although some values are None.

    Raises:
        PaiseError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise PaiseError("to_frame() needs pandas: pip install 'paise2nb[pandas]'") from None
    made = pd.DataFrame(rows, columns=None if rows else keys)
    for name in times:
        is_number = made[name].dtype.kind == "f"
        form = {"unit": "s"} if is_number else {"format": "ISO8601"}
        made[name] = pd.to_datetime(made[name], utc=True, errors="coerce", **form)
    return made.astype(dict.fromkeys(whole_numbers, "Int64"))
