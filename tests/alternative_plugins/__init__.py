"""A second implementation of every extension point, so that tests can run without built-in parts.

Items are stored in a file of JSON lines, cached bytes in one SQLite file, and jobs in a job store
in a separate folder with a diary of executions; ``data:`` URLs can be fetched. As an entry point
(see `install`) it is loaded by every process that a test starts.
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
from paise2nb.jobs.parts import Parts
from paise2nb.plugins.protocols import AppInfo
from paise2nb.workers.queue import JobHuey, open_job_store
from tests.alternative_plugins.cache import SQLiteCache
from tests.alternative_plugins.store import JSONLinesStore

ROOT = Path(__file__).parents[2]


def install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this package an entry point for this process and for those that it starts."""
    info = directory / "alternative_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alternative-plugins\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[paise2]\nalternative = tests.alternative_plugins\n")
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)


def write_diary(app: AppInfo, event: str, *details: Any) -> None:
    """Add a line to the diary, which several processes write."""
    line = json.dumps([event, app.is_worker, *details]) + "\n"
    with (app.data_dir / "diary.jsonl").open("a") as file:
        file.write(line)


def read_diary(app: AppInfo) -> list[list[Any]]:
    """The lines of the diary: an event, whether a worker wrote it, and details."""
    return [json.loads(line) for line in (app.data_dir / "diary.jsonl").read_text().splitlines()]


# TaskQueueProvider, ConfigurationProvider ----------------------------------------------------


class FolderTaskQueueProvider:
    """Keeps the job store in a separate folder, and ignores ``task_queue.sqlite.path``."""

    def create(self, app: Parts) -> JobHuey:
        job_store = open_job_store(app, app.data_dir / "queue" / "jobs.db")
        immediate = app.settings.task_queue.sqlite.immediate and not app.is_worker
        huey = JobHuey(app, job_store, immediate=immediate)

        @huey.post_execute()
        def record(task: Any, value: Any, error: BaseException | None) -> None:
            write_diary(app, "ran", task.name, "failed" if error else "completed")

        return huey


@hookimpl
def task_queue_providers() -> dict[str, FolderTaskQueueProvider]:
    return {"folder": FolderTaskQueueProvider()}


class Defaults:
    """Defaults of settings."""

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
    """A source: the URLs in a file of the data directory, one in each line."""

    def addresses(self, context: Context, name: str = "reading-list.txt") -> Iterable[str]:
        return (context.data_dir / name).read_text().splitlines()


@hookimpl
def content_sources() -> dict[str, ReadingList]:
    return {"reading-list": ReadingList()}


@fetcher("data")
def fetch_data(context: Context, url: str) -> Fetched:
    """Return the data that the URL contains (RFC 2397)."""
    head, comma, body = url.partition(",")
    if not comma:
        raise PermanentError(f"a data: URL needs a comma: {url[:40]}", "bad_address")
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
    """Make a document of each line."""
    lines = data.decode(errors="replace").split("\n")
    return [
        Document(line, title=line, url=f"{source.url}/{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


# LifecycleAction, ResetAction ----------------------------------------------------------------


class Diarist:
    """Records when apps open, close and are reset."""

    def opened(self, app: App) -> None:
        write_diary(app, "opened", os.getpid())

    def closed(self, app: App) -> None:
        write_diary(app, "closed", os.getpid(), app.store.count())

    def reset(self, app: App, hard: bool) -> None:
        (app.data_dir / "diary.jsonl").unlink()
        write_diary(app, "reset", hard)


@hookimpl
def lifecycle_actions() -> list[Diarist]:
    return [Diarist()]


@hookimpl
def reset_actions() -> list[Diarist]:
    return [Diarist()]
