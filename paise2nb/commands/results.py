"""Results that no lower layer has a class for: a sentence, and a table of plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paise2nb.core import render
from paise2nb.core.display import Displayable, RowList
from paise2nb.core.render import Column


@dataclass(repr=False)
class Message(Displayable):
    """A result that is one sentence, with its facts as data for JSON."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, for JSON."""
        return self.data

    def __str__(self) -> str:
        return render.plain(self.text)


class Rows(RowList):
    """A listing of plain rows that is always shown whole.

    Args:
        rows: the rows, as JSON has them.
        columns: what the views show of them.
    """

    def __init__(self, rows: list[dict[str, Any]], columns: Sequence[Column]) -> None:
        super().__init__(rows)
        self._shown = columns

    def __str__(self) -> str:
        return render.text_table(self._rows, self._shown, limit=None)

    def _repr_html_(self) -> str:
        return render.html_table(self._rows, self._shown, limit=None)
