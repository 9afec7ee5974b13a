"""Items in a file of JSON lines: a journal that every process replays and appends to.

A line is one transaction, so it is stored entirely or not at all: a line without its end was left
by a killed writer and is removed. Nothing is indexed: a search reads every text.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paise2nb.core.clock import iso
from paise2nb.core.errors import NotFound, StorageError
from paise2nb.core.render import HIT_END, HIT_START
from paise2nb.plugins import Document

_UNSTORABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_OPERATOR = re.compile(r'(?<!\S)(site|tag|before|after):("[^"]+"|\S+)')
_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_LISTED = (
    "id", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
    "fetched_at", "stored_at", "visited_at", "site", "words",
)  # fmt: skip

Row = dict[str, Any]


class JSONLinesStore:
    """The items of one directory, for every thread and many processes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.path = directory / "items.jsonl"
        self._lock = threading.RLock()
        self._open: list[int] = []
        self._lock_file = self._opened(directory / "lock")
        self._forget()

    def _opened(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._open.append(os.open(path, flags, 0o600))
        return self._open[-1]

    def _forget(self) -> None:
        self._file = self._opened(self.path)
        self._read = 0  # bytes of it
        self._last = 0  # the highest id so far, never given again
        self._rows: dict[int, Row] = {}
        self._before: dict[int, list[Row]] = {}
        self._ids: dict[str, int] = {}

    # The journal -----------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Replay what other processes have written; from the start if the file was replaced."""
        if os.stat(self.path).st_ino != os.fstat(self._file).st_ino:
            self._open.remove(self._file)
            os.close(self._file)
            self._forget()
        size = os.fstat(self._file).st_size
        if size > self._read:
            *lines, _ = os.pread(self._file, size - self._read, self._read).split(b"\n")
            for line in lines:
                for record in json.loads(line):
                    self._apply(**record)
            self._read += sum(len(line) + 1 for line in lines)

    def _apply(
        self,
        put: Row | None = None,
        keep: bool = False,  # keep what it replaces as a version
        visit: Any = None,
        cleared: int | None = None,
    ) -> None:
        if put is not None:
            if keep:
                self._before.setdefault(put["id"], []).append(self._rows[put["id"]])
            self._rows[put["id"]] = put
            self._ids[put["key"]] = put["id"]
            self._last = max(self._last, put["id"])
        elif visit is not None:
            item_id, at = visit
            self._rows[item_id] = {**self._rows[item_id], "visited_at": at}
        elif cleared is not None:
            self._rows, self._before, self._ids = {}, {}, {}
            self._last = max(self._last, cleared)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _append(self, records: list[Row]) -> None:
        if records:
            try:
                os.ftruncate(self._file, self._read)  # removes a line without its end
                os.write(self._file, (json.dumps(records) + "\n").encode())
                os.fsync(self._file)
            except OSError as error:
                raise StorageError(f"can't write to {self.path}: {error.strerror}") from error
            self._catch_up()

    @contextmanager
    def _current(self) -> Iterator[dict[int, Row]]:
        with self._lock:
            self._catch_up()
            yield self._rows

    # Writing ---------------------------------------------------------------------------------

    def put(self, document: Document, **provenance: Any) -> int:
        return self.put_many([(document, provenance)])[0]

    def put_many(self, entries: Iterable[tuple[Document, Mapping[str, Any]]]) -> list[int]:
        rows = [_row(document, **provenance) for document, provenance in entries]
        with self._locked():
            last, new, records = self._last, dict[str, Row](), []
            for row in rows:
                old = new.get(row["key"]) or self._rows.get(self._ids.get(row["key"], 0))
                if old is None:
                    last += 1
                row["id"] = last if old is None else old["id"]
                keep = False
                if old is not None:
                    if row["fetched_at"] < old["visited_at"]:
                        continue
                    row["tag"] = row["tag"] or old["tag"]
                    keep = row["sha256"] != old["sha256"] and row["text"] != old["text"]
                new[row["key"]] = row
                records.append({"put": row, "keep": keep})
            self._append(records)
            return [row["id"] for row in rows]

    def visited(self, key: str, at: float) -> int | None:
        with self._locked():
            item_id = self._ids.get(key)
            self._append([] if item_id is None else [{"visit": [item_id, at]}])
            return item_id

    def clear(self) -> int:
        with self._locked():
            number = len(self._rows)
            self._append([{"cleared": self._last}])
            return number

    def checkpoint(self) -> None:
        """Rewrite the journal without what was replaced and is not a version."""
        with self._locked():
            records: list[Row] = [{"cleared": self._last}]
            for item_id, row in self._rows.items():
                contents = (*self._before.get(item_id, ()), row)
                records += [{"put": old, "keep": number > 0} for number, old in enumerate(contents)]
            aside = self.path.with_suffix(".aside")
            with aside.open("w") as file:
                file.writelines(json.dumps([record]) + "\n" for record in records)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)

    def close(self) -> None:
        with self._lock:
            while self._open:
                os.close(self._open.pop())

    # Reading ---------------------------------------------------------------------------------

    def get(self, item_id: int) -> Row | None:
        with self._current() as rows:
            if item_id not in rows:
                return None
            row = rows[item_id]
            twins = [r["id"] for r in rows.values() if r["sha256"] == row["sha256"]]
            return {
                **_listed(row),
                "versions": len(self._before.get(item_id, ())) + 1,
                "duplicates": [twin for twin in twins if twin != item_id],
                "metadata": row["metadata"],
                "text": row["text"],
            }

    def _contents(self, item_id: int) -> list[Row]:
        with self._current() as rows:
            return [*self._before.get(item_id, ()), *filter(None, [rows.get(item_id)])]

    def versions(self, item_id: int) -> list[Row]:
        fields = ("title", "sha256", "size")
        return [
            {"version": n, **{k: r[k] for k in fields}, "fetched_at": iso(r["fetched_at"])}
            for n, r in enumerate(self._contents(item_id), 1)
        ]

    def diff(self, item_id: int, a: int = -2, b: int = -1) -> str:
        contents = self._contents(item_id)
        if len(contents) == 1 and (a, b) == (-2, -1):
            return ""
        chosen = [number if number > 0 else len(contents) + 1 + number for number in (a, b)]
        if not all(0 < number <= len(contents) for number in chosen):
            raise NotFound(f"item {item_id} has {len(contents)} versions, not {a} and {b}")
        before, after = (contents[number - 1]["text"].splitlines() for number in chosen)
        names = [f"version {number}" for number in chosen]
        return "\n".join(difflib.unified_diff(before, after, *names, lineterm=""))

    def find(self, key: str) -> int | None:
        with self._current():
            return self._ids.get(key)

    def list(self, *, tag: str | None = None, limit: int | None = None) -> list[Row]:
        with self._current() as rows:
            found = [row for row in rows.values() if tag is None or row["tag"] == tag]
        found.sort(key=lambda row: (row["fetched_at"], row["id"]), reverse=True)
        return [_listed(row) for row in found[:limit]]

    def count(self) -> int:
        with self._current() as rows:
            return len(rows)

    def count_since(self, since: float) -> int:
        with self._current() as rows:
            return sum(row["stored_at"] >= since for row in rows.values())

    def search(self, query: str, limit: int) -> list[Row]:
        chosen: dict[str, list[str]] = {}
        for kind, value in _OPERATOR.findall(query):
            chosen.setdefault(kind, []).append(value.strip('"'))
        terms = []
        for phrase, star, word in _TERM.findall(_OPERATOR.sub(" ", query)):
            words = [re.escape(w) for w in re.findall(r"\w+", phrase or word)]
            if words:
                prefix = star or word.endswith("*")
                ending = "" if prefix else r"\b"
                terms.append(re.compile(r"\b" + r"\W+".join(words) + ending, re.IGNORECASE))
        if not terms and not chosen:
            return []
        hits = []
        with self._current() as rows:
            for row in rows.values():
                found = [
                    (len(t.findall(row["title"] or "")), len(t.findall(row["text"]))) for t in terms
                ]
                if all(map(any, found)) and _fits(row, chosen):
                    score = sum(5.0 * title + text for title, text in found)
                    hits.append((score / (20 + len(row["text"].split())), row))
        hits.sort(key=lambda hit: (hit[0], hit[1]["fetched_at"], hit[1]["id"]), reverse=True)
        return [
            {
                "id": row["id"], "url": row["url"], "title": row["title"],
                "snippet": _snippet(row["text"], terms), "score": score,
            }
            for score, row in hits[:limit]
        ]  # fmt: skip


_FITS: Mapping[str, Callable[[Row, str, str], bool]] = {
    "site": lambda row, _, v: (
        re.search(rf"://([^/]*\.)?{re.escape(v)}[:/]", row["key"] + "/") is not None
    ),
    "tag": lambda row, _, v: row["tag"] == v,
    "before": lambda _, day, v: day < v,
    "after": lambda _, day, v: day >= v,
}


def _fits(row: Row, chosen: Mapping[str, list[str]]) -> bool:
    day = (row["date"] or iso(row["fetched_at"]))[:10]
    return all(
        (any if kind in ("site", "tag") else all)(_FITS[kind](row, day, v) for v in values)
        for kind, values in chosen.items()
    )


def _snippet(text: str, terms: list[re.Pattern[str]]) -> str:
    first = min((m.start() for t in terms if (m := t.search(text))), default=0)
    shown = text[max(0, first - 60) : first + 140]
    for term in terms:
        shown = term.sub(lambda m: f"{HIT_START}{m[0]}{HIT_END}", shown)
    return shown


def _line(text: str | None) -> str | None:
    return " ".join(_UNSTORABLE.sub(" ", text or "").split()) or None


def _row(
    document: Document, *, url: str, key: str, mime_type: str, sha256: str, size: int,
    tag: str | None, fetched_at: float, job_id: int | None = None,
) -> Row:  # fmt: skip
    text = _UNSTORABLE.sub("", document.text)
    return {
        "key": key, "url": _UNSTORABLE.sub("", url), "mime_type": mime_type, "sha256": sha256,
        "size": size, "tag": tag, "fetched_at": fetched_at, "visited_at": fetched_at,
        "stored_at": time.time(), "job_id": job_id, "text": text, "words": len(text.split()),
        "title": _line(document.title), "author": _line(document.author),
        "date": _line(document.date), "language": _line(document.language),
        "site": document.metadata.get("site"), "metadata": document.metadata,
    }  # fmt: skip


def _listed(row: Row) -> Row:
    times = {name: iso(row[name]) for name in ("fetched_at", "stored_at", "visited_at")}
    return {name: times.get(name, row[name]) for name in _LISTED}
