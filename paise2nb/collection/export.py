"""Writing items to files: JSON lines, CSV, Parquet, or a folder of Markdown.

A file is complete or absent. An existing one is replaced only with ``force``.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from paise2nb.core.display import Message
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.files import replacement
from paise2nb.core.render import amount, counted
from paise2nb.plugins import DataStorageProvider

_FIELD_NAMES = (
    "id url title author date language mime_type sha256 size tag fetched_at stored_at visited_at"
    " final_url site words text"
)
FIELDS = _FIELD_NAMES.split()
NUMBERS = ("id", "size", "words")
BATCH_ROWS = 500
NAME_LENGTH = 60  # characters of a title in the name of a file
MODE = 0o666  # like any file that the user creates: the umask decides

Rows = Iterator[dict[str, Any]]


def export(
    items: Sequence[Mapping[str, Any]],
    store: DataStorageProvider,
    path: Path,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Message:
    """Write items with their texts.

    Args:
        items: Rows with the ``id`` of each item to write, in this order.
        store: Holds the texts, which are read one at a time.
        path: A file ``.jsonl``, ``.csv`` or ``.parquet``. A folder, or a path without a suffix,
            gets a Markdown file for each item.
        force: Overwrite the file, or the files of the same name in the folder.
        on_progress: Called with (done, total).

    Returns:
        The ``path``, and the number of ``items``.

    Raises:
        UsageError: The suffix is another one.
        PaiseError: The path exists and ``force`` is not given, the path can't be written, or
            pyarrow is missing.
    """
    write = _writer(path, force)
    written = 0

    def rows() -> Rows:
        nonlocal written
        for item in counted(items, on_progress):
            row = store.get(item["id"])
            if row is not None:
                written += 1
                source = row.get("metadata", {}).get("source", {})
                yield {name: row.get(name, source.get(name)) for name in FIELDS}

    try:
        if write is None:
            path.mkdir(parents=True, exist_ok=True)
            for row in rows():
                with replacement(path / file_name(row), mode=MODE) as partial:
                    partial.write_text(markdown(row), "utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacement(path, mode=MODE) as partial:
                write(partial, rows())
    except OSError as error:
        raise PaiseError(f"can't write to {path}: {error.strerror}") from error
    text = f"{amount(written, 'item')} written to {path}"
    return Message(text, {"path": path, "items": written})


def _writer(path: Path, force: bool) -> Callable[[Path, Rows], None] | None:
    """What writes to a path, None for a folder of Markdown. Raises like `export`."""
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
    write = None if path.is_dir() else writers.get(path.suffix.lower())
    if path.suffix and write is None and not path.is_dir():
        known = ", ".join(writers)
        raise UsageError(f"can't export to {path.suffix}; use {known}, or a folder for Markdown")
    exists = any(path.iterdir()) if path.is_dir() else path.exists()
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file; name a folder for Markdown")
    if exists and not force:
        raise PaiseError(f"{path} exists; add --force to overwrite it")
    return write


def _write_jsonl(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Rows) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise PaiseError(".parquet needs pyarrow: pip install 'paise2nb[parquet]'") from None
    schema = pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in FIELDS])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def file_name(row: Mapping[str, Any]) -> str:
    """A file name of id and title: ``00012-a-jar-that-must-be-fed.md``."""
    words = re.sub(r"[^\w]+", "-", str(row.get("title") or "untitled").lower()).strip("-")
    return f"{row['id']:05d}-{words[:NAME_LENGTH].rstrip('-') or 'untitled'}.md"


def markdown(row: Mapping[str, Any]) -> str:
    """An item as Markdown, with its fields as YAML in front."""
    # Every JSON value is a YAML value (YAML 1.2, section 1.3).
    known = {name: row[name] for name in FIELDS if name != "text" and row.get(name) is not None}
    head = "".join(f"{k}: {json.dumps(value, ensure_ascii=False)}\n" for k, value in known.items())
    return f"---\n{head}---\n\n{str(row.get('text') or '').strip()}\n"
