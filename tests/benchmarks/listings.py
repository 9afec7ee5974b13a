"""The speed of long listings: ``python -m tests.benchmarks.listings [--jobs 100000]``.

Prints how long it takes to show 20 rows of many jobs and items, as text and as HTML, to read 50
rows for the panel, and to make data frames of all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas

import paise2nb
from paise2nb.app import App
from paise2nb.plugins import Document
from paise2nb.views.page_rows import SORTS, window

DATES = ("2026-01-02", "2026-01-02T03:04:05Z", None)


def document(number: int) -> tuple[Document, dict[str, Any]]:
    """A small document with its provenance."""
    url = f"https://h{number % 50}.example/{number}"
    return Document(f"Words of page {number}. " * 50, date=DATES[number % 3]), {
        "url": url, "key": url, "mime_type": "text/html", "sha256": f"{number:064x}", "size": 3000,
        "tag": f"tag{number % 50}", "fetched_at": 1.7e9 + number, "job_id": number,
    }  # fmt: skip


def measurements(app: App) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is measured, each with its name."""
    jobs, items = len(app.jobs()), len(app.items())
    yield f"{items:,} items, as text", lambda: str(app.items())
    yield f"{items:,} items, as HTML", lambda: app.items()._repr_html_()
    yield f"{jobs:,} jobs, as text", lambda: str(app.jobs())
    yield f"{jobs:,} jobs, as HTML", lambda: app.jobs()._repr_html_()
    for sort in SORTS:
        yield f"50 of {jobs:,} pages by {sort}", partial(window, app.client, sort=sort)
    yield f"pages of {jobs:,} with a word", partial(window, app.client, words="example/77")
    yield f"{items:,} items, data frame", lambda: app.items().to_frame()
    yield f"{jobs:,} jobs, data frame", lambda: app.jobs().to_frame()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    chosen = parser.parse_args()
    assert pandas.DataFrame  # imported before the measurements
    with (
        tempfile.TemporaryDirectory(prefix="paise2-benchmark-") as root,
        paise2nb.open("development", Path(root)) as app,
    ):
        app.enqueue_many("fetch", [f"https://h{n % 50}.example/{n}" for n in range(chosen.jobs)])
        app.store.put_many(map(document, range(chosen.items)))
        for name, measured in measurements(app):
            start, used = time.perf_counter(), time.process_time()
            measured()
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            print(f"{name:32} {seconds:8.3f} s ({cpu:.3f} s of a core)")


if __name__ == "__main__":
    main()
