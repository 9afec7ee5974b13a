"""The demo: fetches the bundled site with background workers, searches it, and checks everything.

It runs in a data directory of its own, so it neither sees nor changes anybody's collection.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paise2nb.app import App, open
from paise2nb.core import render
from paise2nb.core.display import Displayable
from paise2nb.core.errors import Timeout
from paise2nb.demo.site import BUSY_ANSWERS, FLAKY, GONE, PAGES, DemoSite, Page
from paise2nb.views.items import SearchResults
from paise2nb.views.jobs import Job, Jobs

Progress = Callable[[int, int], None]  # takes (addresses done, addresses)
Bar = Callable[[str], AbstractContextManager[Progress | None]]

QUERY = "waiting"
TIMEOUT = 60.0  # seconds; the run takes a few
SETTINGS: dict[str, object] = {
    "workers.concurrency": 1,
    "workers.retry.max_retries": BUSY_ANSWERS + 1,
    "workers.retry.retry_delay": 0.3,
    "workers.retry.backoff": 2,
    "workers.idle_exit": 30,  # so that nothing stays behind a demo that was killed
    "task_queue.provider": "sqlite",
    "task_queue.sqlite.path": None,  # whatever the user's own file says
    "task_queue.sqlite.immediate": False,
    "data_storage.sqlite.path": None,
    "fetch.host_delay": 0,
    "fetch.allow_private_addresses": True,
}


@dataclass(repr=False)
class Demo(Displayable):
    """What a run of the demo came to.

    Attributes:
        pages, jobs, items: how many addresses, jobs and stored items there were.
        seconds: how long it took.
        hits: what the search found.
        problems: whatever did not end as it should, each in one line; empty if all of it worked.
        kept: the data directory, kept for a look at what went wrong; None after a success.
    """

    pages: int
    jobs: int
    items: int
    seconds: float
    hits: SearchResults
    problems: list[str]
    kept: Path | None = None

    @property
    def succeeded(self) -> bool:
        """Whether every job ended exactly as it should."""
        return not self.problems

    @property
    def exit_status(self) -> int:
        """For the shell: 0 only if all of it worked."""
        return 0 if self.succeeded else 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "succeeded": self.succeeded, "pages": self.pages, "jobs": self.jobs,
            "items": self.items, "seconds": round(self.seconds, 2),
            "hits": self.hits.to_dicts(), "problems": self.problems,
            "data_dir": self.kept and str(self.kept),
        }  # fmt: skip

    def __str__(self) -> str:
        found = f"A search for {self.hits.query!r} finds:\n{self.hits}\n"
        if self.succeeded:
            return (
                f"{found}\nAll {self.jobs} jobs ended as they should: {self.items} items from "
                f"{self.pages} addresses in {render.duration(self.seconds)}."
            )
        lines = [f"The demo did not work ({self.kept} is kept):", *self.problems]
        return found + "\n" + "\n  ".join(render.one_line(line) for line in lines)


def _no_bar(words: str) -> AbstractContextManager[None]:
    return nullcontext()


def run_demo(
    say: Callable[[str], None] = print,
    progress: Bar = _no_bar,
) -> Demo:
    """Serve the bundled site, let two background workers collect it, search it, check all of it.

    Args:
        say: shows the person a line.
        progress: given words, shows a bar while its block runs; where it gives None, or is not
            given, ``say`` shows the progress.

    Raises:
        WorkersError: the workers can't start.
    """
    place = Path(tempfile.mkdtemp(prefix="paise2-demo-"))
    try:
        with DemoSite() as site, open("development", place, SETTINGS) as app:
            demo = _collect(site, app, say, progress)
    except KeyboardInterrupt:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if demo.succeeded:
        shutil.rmtree(place, ignore_errors=True)
    else:
        demo.kept = place
    return demo


def _collect(
    site: DemoSite,
    app: App,
    say: Callable[[str], None],
    progress: Bar,
) -> Demo:
    started = time.monotonic()
    problems: list[str] = []
    say(f"A small site answers on {site.base}: one of its pages is busy at first, one is gone.")
    try:
        say(f"{app.workers.start().message}.")
        jobs = app.enqueue_many("fetch", site.urls, tag="demo")
        say(f"Enqueued {render.amount(len(jobs), 'address', 'addresses')} under the tag 'demo'.")
        try:
            with progress("collecting") as bar:
                jobs.wait(TIMEOUT, bar or _said(say))
        except Timeout as late:
            problems.append(str(late))
        say(_troubles(jobs))
    finally:
        app.workers.stop(timeout=5)
    problems += [*_unexpected(jobs), *_missing(site, app)]
    everything = len(app.jobs())
    seconds = time.monotonic() - started
    hits = app.search(QUERY, limit=3)
    return Demo(len(jobs), everything, app.store.count(), seconds, hits, problems)


def _said(say: Callable[[str], None]) -> Progress:
    """Progress as lines, for where no bar can be drawn: one for each change."""
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            say(render.progress_bar(done, total))

    return show


def _troubles(jobs: Jobs) -> str:
    """What became of the two addresses that make trouble."""
    flaky, gone = jobs[-2], jobs[-1]
    return (
        f"{FLAKY.file} is {flaky.state} after {render.amount(len(flaky.attempts), 'attempt')}; "
        f"{GONE.file} is {gone.state}: {gone.error}"
    )


def _unexpected(jobs: Jobs) -> Iterator[str]:
    """Whatever did not end as it should among the jobs and their trees."""
    *_, flaky, gone = jobs
    for job in jobs:
        wanted = BUSY_ANSWERS + 1 if job == flaky else 1
        if len(job.attempts) != wanted:
            yield f"{_named(job)} took {len(job.attempts)} attempts, not {wanted}"
        for member in job.tree:
            if job != gone and member.state != "completed":
                yield f"{_named(member)} is {member.state}: {member.error}"
    if gone.state != "failed" or "410" not in (gone.error or ""):
        yield f"{_named(gone)} is {gone.state}, not failed with status 410: {gone.error}"


def _named(job: Job) -> str:
    return f"job {job.id} ({job.task} {job.args[0]})"


def _missing(site: DemoSite, app: App) -> Iterator[str]:
    """Whatever is not in the collection as it should, found by words that only it has."""
    wanted: list[Page] = [*PAGES, FLAKY]
    if app.store.count() != len(wanted):
        yield f"{app.store.count()} items are stored, not {len(wanted)}"
    for page in wanted:
        found = [hit["url"] for hit in app.search(f'"{page.phrase}"')]
        if found != [site.base + page.file]:
            yield f"a search for {page.phrase!r} finds {found}, not {page.file}"


__all__ = ["Demo", "run_demo"]
