"""Every extension point a second time, by an author who likes other tools than the built-in ones.

Items lie in a file of JSON lines, cached bytes in one SQLite file, the job table in a folder of its
own with a diary of what was executed, and ``data:`` addresses can be fetched. As an entry point
(see `tests.alternative_plugins.install`) it is loaded by every process that a test starts.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from paise2nb import (
    Document,
    Fetched,
    PermanentError,
    extractor,
    fetcher,
    hookimpl,
)
from paise2nb.app import App
from paise2nb.jobs.context import Context
from paise2nb.workers.queue import JobHuey, open_job_store
from tests.alternative_plugins.cache import SQLiteCache
from tests.alternative_plugins.store import JSONLinesStore

ROOT = Path(__file__).parents[2]


def install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this module an entry point of this process and of those that it starts."""
    info = directory / "second_seams-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: second-seams\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[paise2]\nsecond = tests.alternative_plugins\n")
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)


def note(app: App, word: str, *facts: Any) -> None:
    """Add a line to the diary, which several processes write."""
    line = json.dumps([word, app.is_worker, *facts]) + "\n"
    with (app.data_dir / "diary.jsonl").open("a") as file:
        file.write(line)


def diary(app: App) -> list[list[Any]]:
    """The lines of the diary: a word, whether a worker wrote it, and facts."""
    return [json.loads(line) for line in (app.data_dir / "diary.jsonl").read_text().splitlines()]


# TaskQueueProvider, ConfigurationProvider ----------------------------------------------------


class DiaryHuey(JobHuey):
    """A queue that writes down each execution."""

    def _run(self, task: Any) -> Any:
        ending = super()._run(task)
        note(self.app, "ran", task.claim.task, ending.outcome)
        return ending


class FolderTaskQueueProvider:
    """The job table in a folder of its own, whatever ``task_queue.sqlite.path`` says."""

    def create(self, app: App) -> JobHuey:
        job_store = open_job_store(app, app.data_dir / "queue" / "jobs.db")
        immediate = app.settings.task_queue.sqlite.immediate and not app.is_worker
        return DiaryHuey(app, job_store, immediate=immediate)


@hookimpl
def task_queue_providers() -> dict[str, FolderTaskQueueProvider]:
    return {"folder": FolderTaskQueueProvider()}


class Defaults:
    """What this author finds sensible."""

    def defaults(self) -> Mapping[str, Any]:
        return {"task_queue.provider": "folder", "history.keep_days": 7}


@hookimpl
def configuration_providers() -> list[Defaults]:
    return [Defaults()]


# DataStorageProvider, CacheProvider ----------------------------------------------------------


@hookimpl
def data_storage_provider(app: App) -> JSONLinesStore:
    return JSONLinesStore(app.data_dir / "items")


@hookimpl
def cache_provider(app: App) -> SQLiteCache:
    return SQLiteCache(app.data_dir / "cache.db")


# ContentSource, ContentFetcher, ContentExtractor ---------------------------------------------


class ReadingList:
    """A source: the addresses in a file of the data directory, one a line."""

    def addresses(self, context: Context, name: str = "reading-list.txt") -> Iterable[str]:
        return (context.data_dir / name).read_text().splitlines()


@hookimpl
def content_sources() -> dict[str, ReadingList]:
    return {"reading-list": ReadingList()}


@fetcher("data")
def fetch_data(context: Context, url: str) -> Fetched:
    """Fetch what an address itself holds (RFC 2397)."""
    head, comma, body = url.partition(",")
    if not comma:
        raise PermanentError(f"a data: address needs a comma: {url[:40]}", "bad_address")
    kind, *parameters = head.removeprefix("data:").split(";")
    data = unquote_to_bytes(body)
    try:
        data = b64decode(data, validate=True) if "base64" in parameters else data
    except ValueError as error:
        raise PermanentError(f"damaged base64: {url[:40]}", "bad_address") from error
    if len(data) > context.settings.fetch.max_bytes:
        raise PermanentError(f"larger than fetch.max_bytes: {url[:40]}", "too_large")
    return Fetched(data, url, kind.lower() or "text/plain")


@extractor("text/x-shopping-list", suffixes=[".shopping"])
def shopping_list(context: Context, data: bytes, source: Any) -> list[Document]:
    """A document for each line."""
    lines = data.decode(errors="replace").split("\n")
    return [
        Document(line, title=line, url=f"{source.url}/{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


# LifecycleAction, ResetAction ----------------------------------------------------------------


class Diarist:
    """Writes down when apps open and close, and what reset forgets."""

    def opened(self, app: App) -> None:
        note(app, "opened", os.getpid())

    def closed(self, app: App) -> None:
        note(app, "closed", os.getpid(), app.store.count())

    def reset(self, app: App, hard: bool) -> None:
        (app.data_dir / "diary.jsonl").unlink()
        note(app, "reset", hard)


@hookimpl
def lifecycle_actions() -> list[Diarist]:
    return [Diarist()]


@hookimpl
def reset_actions() -> list[Diarist]:
    return [Diarist()]
