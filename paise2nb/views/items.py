"""Stored documents: a single item, its history, lists of items, and search results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from paise2nb.collection.items import ItemStore
from paise2nb.core import render
from paise2nb.core.clock import iso, local_time
from paise2nb.core.display import Listing, Message, Record, RowList
from paise2nb.core.errors import UsageError
from paise2nb.core.render import Column
from paise2nb.plugins import DataStorageProvider

NO_TITLE = "(no title)"
SOURCE_LENGTH = 80  # characters of a URL below a title
_EMPHASIS = str.maketrans({render.HIT_START: "**", render.HIT_END: "**"})


class Item(Record):
    """One stored document. Fields that a list leaves out, such as the text, are read on demand.

    Attributes:
        id: its number.
        url: the URL as it was enqueued.
        title, author, language: as the document declares them, or None.
        date: a day or a UTC moment in ISO 8601, or None.
        mime_type, sha256, size: of the bytes; the size is in bytes.
        tag: the tag of the job that stored it.
        fetched_at, stored_at: when its current content was fetched and stored, in ISO 8601.
        visited_at: when the content was last found unchanged.
        site: the name of the website.
        words: the number of words in the text.
        versions: the number of versions, including the current one.
        duplicates: the ids of other items with the same bytes, at most 100.
        metadata: what the extractor found besides.
        text: the extracted text.
    """

    on_demand = ("versions", "duplicates", "metadata", "text")
    times = ("date", "fetched_at", "stored_at", "visited_at")

    id: int
    url: str
    title: str | None
    author: str | None
    date: str | None
    language: str | None
    mime_type: str
    sha256: str
    size: int
    tag: str | None
    fetched_at: str
    stored_at: str
    visited_at: str
    site: str | None
    words: int | None
    versions: int
    duplicates: list[int]
    metadata: dict[str, Any]
    text: str

    def __init__(self, row: dict[str, Any], items: DataStorageProvider) -> None:
        self._row = row
        self._items = items

    def history(self) -> History:
        """The versions of the item, oldest first; the last one is the current one."""
        return History(self._items.versions(self.id))

    def diff(self, a: int = -2, b: int = -1) -> Message:
        """Compare the texts of two versions. The ``diff`` is empty if nothing has changed.

        Args:
            a, b: the numbers of the earlier and the later version; -1 is the last version.

        Raises:
            NotFound: no such version.
        """
        diff = self._items.diff(self.id, a, b)
        text = "\n".join(map(render.plain, diff.splitlines()))
        text = text or f"the text of item {self.id} has not changed"
        return Message(text, {"id": self.id, "diff": diff})

    def _value(self, name: str) -> Any:
        known = name in self._row and name != "metadata"
        return (self._row if known else self._whole()).get(name)

    def _whole(self) -> dict[str, Any]:
        if "text" not in self._row:
            self._row = self._items.get(self._row["id"]) or self._row
        # The store keeps the facts of the fetch with its time in seconds, for an extraction.
        source = self._row.get("metadata", {}).get("source")
        if not isinstance(source, dict) or not isinstance(source.get("fetched_at"), int | float):
            return self._row
        source = {**source, "fetched_at": iso(source["fetched_at"])}
        return {**self._row, "metadata": {**self._row["metadata"], "source": source}}

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``item ID``."""
        return dict(self._whole())

    def _facts(self) -> str:
        facts = [self.author, self.date, self.language, self.mime_type, self.tag]
        if (self.versions or 1) > 1:
            facts.append(f"{self.versions} versions")
        metadata = self.metadata or {}
        source, left_out = metadata.get("source"), metadata.get("left_out")
        if isinstance(source, dict) and source.get("truncated"):
            facts.append("truncated: the server sent only a part")
        facts += [f"left out: {e}" for e in left_out] if isinstance(left_out, list) else []
        if self.duplicates:
            facts.append(f"the same bytes as item {', '.join(map(str, self.duplicates))}")
        return " · ".join(fact for fact in facts if fact)

    def __str__(self) -> str:
        head = map(render.one_line, (self.title or NO_TITLE, self.url, self._facts()))
        return "\n".join([*filter(None, head), "", render.plain(self.text or "")])

    def _repr_html_(self) -> str:
        paragraphs = (self.text or "").split("\n")
        return render.panel(
            f"<h3>{render.escape(self.title or NO_TITLE)}</h3>",
            f"<div>{render.link(self.url)}</div>",
            render.note(self._facts()),
            *(f"<p>{render.escape(line)}</p>" for line in paragraphs if line.strip()),
        )


class History(RowList):
    """The versions of an item, oldest first."""

    columns = (
        Column("version", right=True),
        Column("fetched_at", title="fetched", text=local_time, html=render.moment),
        render.number("size"),
        Column("title", wide=True),
        Column("sha256", text=lambda digest: digest[:12]),
    )
    times = ("fetched_at",)


class Items(Listing[Item]):
    """Stored documents."""

    columns = (
        Column("id", right=True),
        Column("title", wide=True),
        render.url("url", "URL"),
        Column("date", text=lambda date: date[:10]),
        Column("tag"),
    )
    keys, times = Item.keys(), Item.times
    empty = "no items"

    def __init__(self, rows: Sequence[dict[str, Any]], items: DataStorageProvider) -> None:
        self._rows = rows
        self._items = items

    @classmethod
    def of(cls, items: DataStorageProvider, ids: Sequence[int]) -> Self:
        """Return those of some items that exist, in that order."""
        if isinstance(items, ItemStore):
            return cls(items.some(ids), items)
        return cls(list(filter(None, map(items.get, ids))), items)  # all that a plugin's offers

    def _element(self, row: dict[str, Any]) -> Item:
        return Item(row, self._items)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``items --json``: without the texts."""
        return [{k: v for k, v in row.items() if k != "text"} for row in self._rows]

    def to_frame(self, text: bool = False) -> Any:
        """Return a pandas DataFrame; with the extracted texts if ``text`` is true.

        Raises:
            PaiseError: pandas is not installed.
        """
        made = super().to_frame()
        if text:
            made["text"] = [item.text for item in self]
        return made


class SearchResult(Record):
    """One item that a search found. ``result["url"]`` is the same as ``result.url``.

    Attributes:
        id, url, title: of the item.
        snippet: the passage that matches, with the matching words in ``**``.
        score: higher for better matches.
    """

    id: int
    url: str
    title: str | None
    snippet: str
    score: float

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def _value(self, name: str) -> Any:
        value = self._row[name]
        return value.translate(_EMPHASIS) if name == "snippet" else value

    def to_dict(self) -> dict[str, Any]:
        """An entry of ``search --json``."""
        return {name: self._value(name) for name in self.fields}

    def __str__(self) -> str:
        return (
            f"{self.id:>4}  {render.one_line(self.title or NO_TITLE, 100)}\n"
            f"      {render.snippet_text(self._row['snippet'])}\n"
            f"      {render.one_line(self.url)}"
        )

    def _repr_html_(self) -> str:
        return render.panel(self.block())

    def block(self) -> str:
        """Return the title, the snippet and the source as HTML, for `render.panel`."""
        title = render.link(self.url, self.title or NO_TITLE)
        source = render.note(f"{render.short(self.url, SOURCE_LENGTH)} · item {self.id}")
        snippet = render.snippet_html(self._row["snippet"])
        return f'<div class="hit">{title}<div>{snippet}</div>{source}</div>'


class SearchResults(Listing[SearchResult]):
    """The items that a search found, best first."""

    keys = SearchResult.fields

    def __init__(self, query: str, rows: Sequence[dict[str, Any]]) -> None:
        self.query = query
        self.empty = f"no item contains {render.one_line(query, 80)!r}"
        self._rows = rows

    @classmethod
    def of(cls, items: DataStorageProvider, query: str, limit: int) -> Self:
        """Search the items. Raises UsageError if the query is no text."""
        if not isinstance(query, str):
            raise UsageError(f"query is {query!r}; give words")
        return cls(query, items.search(query, limit))

    def _element(self, row: dict[str, Any]) -> SearchResult:
        return SearchResult(row)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``search --json``."""
        return [result.to_dict() for result in self]

    def __str__(self) -> str:
        results = self[: render.VIEW_ROWS]
        blocks = [*map(str, results), *render.more(len(results), len(self))]
        return "\n".join(blocks) or self.empty

    def _repr_html_(self) -> str:
        results = self[: render.VIEW_ROWS]
        notes = render.more(len(results), len(self)) if self else [self.empty]
        return render.panel(*(result.block() for result in results), *map(render.note, notes))
