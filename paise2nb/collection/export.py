"""Items written to files: JSON lines, CSV, Parquet, or a folder of Markdown.

What is written is complete or absent: it is written aside and renamed. Nothing that exists is
replaced unless the user says so.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.core.display import Displayable
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.render import amount, plain
from paise2nb.views.items import Items

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.plugins import DataStorageProvider

KEYS = (
    "id", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
    "fetched_at", "stored_at", "visited_at", "final_url", "site", "words", "text",
)  # fmt: skip
NUMBERS = ("id", "size", "words")
BATCH_ROWS = 500
NAME_LENGTH = 60

Rows = Iterator[dict[str, Any]]
Writer = Callable[[Path, Rows], int]


@dataclass(repr=False)
class Exported(Displayable):
    """What an export wrote: where, and how many items."""

    path: Path
    items: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"path": str(self.path), "items": self.items}

    def __str__(self) -> str:
        return f"{amount(self.items, 'item')} written to {plain(self.path)}"


def export(
    items: Items,
    app: App,
    path: Path,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write items with their texts.

    Args:
        items: the ones to write, in this order.
        app: its store holds the texts, which are read one at a time.
        path: ``.jsonl``, ``.csv`` or ``.parquet``; a folder, or no ending: Markdown in a folder.
        force: overwrite; in a folder, the files of the same name.
        on_progress: called with (done, total).

    Raises:
        UsageError: the ending is another one.
        PaiseError: the path exists and ``force`` is not given, or it can't be written; Parquet's
            library is missing.
    """
    writers: dict[str, Writer] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    write = None if path.is_dir() else writers.get(path.suffix.lower())
    if path.suffix and write is None and not path.is_dir():
        known = ", ".join(writers)
        raise UsageError(f"can't export to {path.suffix}; use {known}, or a folder for Markdown")
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file; name a folder for Markdown")
    if taken and not force:
        raise PaiseError(f"{path} exists; add --force to overwrite it")
    rows = _rows(app.store, items, on_progress)
    try:
        if write is None:
            path.mkdir(parents=True, exist_ok=True)
            written = _folder(path, rows)
        else:
            written = _written(path, write, rows)
    except OSError as error:
        raise PaiseError(f"can't write to {path}: {error.strerror}") from error
    return Exported(path, written)


def _rows(
    store: DataStorageProvider, items: Items, on_progress: Callable[[int, int], None] | None
) -> Rows:
    total = len(items)
    for number, item in enumerate(items.to_dicts(), 1):
        row = store.get(item["id"])
        if row is not None:
            source = row.get("metadata", {}).get("source", {})
            yield {key: row.get(key, source.get(key)) for key in KEYS}
        if on_progress is not None:
            on_progress(number, total)


def _aside(path: Path) -> Path:
    """A new file beside the one that it will replace: a rename works within one filesystem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    # mkstemp makes it the user's alone; an export is as open as any file that the user writes.
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(descriptor, 0o666 & ~mask)
    os.close(descriptor)
    return Path(name)


def _written(path: Path, write: Writer, rows: Rows) -> int:
    """Write a whole file aside, then give it its name."""
    aside = _aside(path)
    try:
        number = write(aside, rows)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return number


def _jsonl(path: Path, rows: Rows) -> int:
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return number


def _csv(path: Path, rows: Rows) -> int:
    number = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, KEYS)
        writer.writeheader()
        for number, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            writer.writerow(row)
    return number


def _parquet(path: Path, rows: Rows) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise PaiseError(".parquet needs pyarrow: pip install 'paise2nb[parquet]'") from None
    schema = pa.schema([(key, pa.int64() if key in NUMBERS else pa.string()) for key in KEYS])
    number = 0
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            number += len(batch)
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return number


def _page(path: Path, rows: Rows) -> int:
    return path.write_text(markdown(next(rows)), "utf-8")


def _folder(path: Path, rows: Rows) -> int:
    number = 0
    for number, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
        _written(path / file_name(row), _page, iter([row]))
    return number


def file_name(row: Mapping[str, Any]) -> str:
    """A file name that says id and title: ``00012-a-jar-that-must-be-fed.md``."""
    words = re.sub(r"[^\w]+", "-", str(row.get("title") or "untitled").lower()).strip("-")
    return f"{row['id']:05d}-{words[:NAME_LENGTH].rstrip('-') or 'untitled'}.md"


def markdown(row: Mapping[str, Any]) -> str:
    """An item as Markdown, what is known about it in front as YAML."""
    # Every JSON value is a YAML value (YAML 1.2, section 1.3).
    known = {key: row[key] for key in KEYS if key != "text" and row.get(key) is not None}
    head = "".join(f"{k}: {json.dumps(value, ensure_ascii=False)}\n" for k, value in known.items())
    return f"---\n{head}---\n\n{str(row.get('text') or '').strip()}\n"
