"""Stored documents: one whole, its history, a list of them, and what a search found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from paise2nb.core import render
from paise2nb.core.display import Displayable, Listing, RowList
from paise2nb.core.render import Column

if TYPE_CHECKING:
    from paise2nb.plugins import DataStorageProvider


class Item(Displayable):
    """One stored document. What a list leaves out, such as the text, is read when asked for."""

    def __init__(self, row: dict[str, Any], store: DataStorageProvider) -> None:
        self._row = row
        self._store = store

    def history(self) -> History:
        """What it has held, oldest first; the last one is what it holds now."""
        return History(self._store.versions(self.id))

    def diff(self, a: int = -2, b: int = -1) -> Diff:
        """What changed in its text.

        Args:
            a, b: the earlier and the later version; a negative one counts from the last, -1.

        Raises:
            NotFound: no such version.
        """
        return Diff(self.id, self._store.diff(self.id, a, b))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by those who copy or show any object
            raise AttributeError(name)
        row = self._row if name in self._row else self._whole()
        if name not in row:
            raise AttributeError(f"an item has no {name!r}; it has {', '.join(row)}")
        return row[name]

    def _whole(self) -> dict[str, Any]:
        if "text" not in self._row:
            self._row = self._store.get(self._row["id"]) or self._row
        return self._row

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``item ID``."""
        return dict(self._whole())

    def _facts(self) -> str:
        row = self._whole()
        facts = [row.get(key) for key in ("author", "date", "language", "mime_type", "tag")]
        if row.get("versions", 1) > 1:
            facts.append(f"{row['versions']} versions")
        if row.get("duplicates"):
            facts.append(f"the same bytes as item {', '.join(map(str, row['duplicates']))}")
        return " · ".join(str(fact) for fact in facts if fact)

    def __str__(self) -> str:
        row = self._whole()
        head = [
            render.one_line(row.get("title") or "(no title)"),
            render.one_line(row["url"]),
            render.one_line(self._facts()),
        ]
        return "\n".join([*filter(None, head), "", render.plain(row.get("text") or "")])

    def _repr_html_(self) -> str:
        row = self._whole()
        paragraphs = (row.get("text") or "").split("\n")
        return render.panel(
            f"<h3>{render.escape(row.get('title') or '(no title)')}</h3>",
            f"<div>{render.link(row['url'])}</div>",
            render.note(self._facts()),
            *(f"<p>{render.escape(line)}</p>" for line in paragraphs if line.strip()),
        )


class Diff(Displayable):
    """What changed in the text of an item between two versions."""

    def __init__(self, item_id: int, text: str) -> None:
        self.item_id = item_id
        self.text = text

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``item ID --diff``; an empty ``diff`` where nothing has changed."""
        return {"id": self.item_id, "diff": self.text}

    def __str__(self) -> str:
        lines = [render.plain(line) for line in self.text.splitlines()]
        return "\n".join(lines) or f"the text of item {self.item_id} has not changed"


class History(RowList):
    """What an item has held: its versions, oldest first."""

    columns = (
        Column("version", right=True),
        Column("fetched_at"),
        Column("size", right=True),
        Column("title", wide=True),
        Column("sha256", text=lambda digest: digest[:12]),
    )


class Items(Listing[Item]):
    """Stored documents."""

    columns = (
        Column("id", right=True),
        Column("title", wide=True),
        Column("url", title="address", wide=True, html=render.link),
        Column("date"),
        Column("tag"),
    )
    empty = "no items"

    def __init__(self, rows: Sequence[dict[str, Any]], store: DataStorageProvider) -> None:
        self._rows = list(rows)
        self._store = store

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Items: ...

    def __getitem__(self, index: int | slice) -> Item | Items:
        if isinstance(index, slice):
            return Items(self._rows[index], self._store)
        return Item(self._rows[index], self._store)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``items --json``: without the texts."""
        return [{k: v for k, v in row.items() if k != "text"} for row in self._rows]


class SearchResults(RowList):
    """What a search found, best first."""

    columns = (
        Column("id", right=True),
        Column("title", wide=True),
        Column("snippet", wide=True, text=render.snippet_text, html=render.snippet_html),
        Column("url", title="address", wide=True, html=render.link),
    )

    def __init__(self, query: str, rows: Sequence[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.query = query

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``search --json``; a hit in a snippet stands in ``**``."""
        marks = str.maketrans({render.HIT_START: "**", render.HIT_END: "**"})
        return [{**row, "snippet": row["snippet"].translate(marks)} for row in self._rows]

    def __str__(self) -> str:
        if not self._rows:
            return f"no item holds {render.one_line(self.query, 80)!r}"
        blocks = []
        for row in self._rows[: render.VIEW_ROWS]:
            title = render.one_line(row["title"] or "(no title)", 100)
            blocks.append(
                f"{row['id']:>4}  {title}\n      {render.snippet_text(row['snippet'])}\n"
                f"      {render.one_line(row['url'])}"
            )
        if len(self._rows) > render.VIEW_ROWS:
            blocks.append(f"… {len(self._rows) - render.VIEW_ROWS:,} more")
        return "\n".join(blocks)

    def _repr_html_(self) -> str:
        if not self._rows:
            return render.panel(render.note(str(self)))
        return render.html_table(self._rows, self.columns)
