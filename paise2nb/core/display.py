"""What every result has: a text and an HTML form, and for listings those of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from paise2nb.core import render
from paise2nb.core.errors import PaiseError, redacted
from paise2nb.core.render import Column

T = TypeVar("T")


def arguments(args: Sequence[Any]) -> str:
    """What a person calls the input: the arguments but cache keys and facts for follow-ups."""
    shown = [a for a in args if not isinstance(a, dict | list) and not _is_key(a)] or args
    return redacted(
        ", ".join(a if isinstance(a, str) else json.dumps(a, ensure_ascii=False) for a in shown)
    )


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


class Displayable:
    """Something with a text and an HTML form."""

    def _repr_html_(self) -> str:
        return render.panel(f"<pre>{render.escape(str(self))}</pre>")

    def __repr__(self) -> str:
        return str(self)


class Listing(Displayable, Sequence[T]):
    """A sequence of rows: complete, with a view of the first ones."""

    columns: ClassVar[Sequence[str | Column]] = ()
    empty: ClassVar[str] = "nothing"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every row as a dictionary."""
        raise NotImplementedError

    def to_dict(self) -> list[dict[str, Any]]:
        """The same: the JSON form of a listing is a list."""
        return self.to_dicts()

    def to_frame(self) -> Any:
        """A pandas DataFrame, one line a row. Raises PaiseError without pandas."""
        return frame(self.to_dicts())

    def first(self, number: int) -> list[dict[str, Any]]:
        """The first rows, without reading the others."""
        return self.to_dicts()[:number]

    def __str__(self) -> str:
        rows = self.first(render.VIEW_ROWS)
        return render.text_table(rows, self.columns, of=len(self)) if rows else self.empty

    def _repr_html_(self) -> str:
        rows = self.first(render.VIEW_ROWS)
        if not rows:
            return render.panel(render.note(self.empty))
        return render.html_table(rows, self.columns, of=len(self))


class RowList(Listing[dict[str, Any]]):
    """A listing of rows that are shown as they are."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows."""
        return self._rows


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame."""
    try:
        import pandas as pd
    except ImportError:
        raise PaiseError("to_frame() needs pandas: pip install 'paise2nb[pandas]'") from None
    return pd.DataFrame(list(rows))
