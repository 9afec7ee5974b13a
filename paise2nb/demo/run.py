"""The demo: background workers fetch the bundled site, and everything is searched and checked.

It uses a separate data directory, so it neither sees nor changes the user's collection.
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
from paise2nb.config.parser import read_file
from paise2nb.core import render
from paise2nb.core.display import Displayable
from paise2nb.core.errors import Timeout
from paise2nb.demo.site import BUSY_ANSWERS, FLAKY, GONE, PAGES, DemoSite
from paise2nb.views.items import SearchResults
from paise2nb.views.jobs import Job, Jobs

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # takes (URLs done, URLs)
Bar = Callable[[str], AbstractContextManager[Progress | None]]

QUERY = "waiting"
TIMEOUT = 60.0  # seconds; the run takes a few


@dataclass(repr=False)
class Demo(Displayable):
    """The outcome of a run of the demo.

    Attributes:
        pages, jobs, items: the numbers of URLs, jobs and stored items.
        seconds: how long it took.
        hits: what the search found.
        problems: each thing that did not end as it should, in one line; empty on success.
        data_dir: the data directory, which remains after a failure; None after a success.
    """

    pages: int
    jobs: int
    items: int
    seconds: float
    hits: SearchResults
    problems: list[str]
    data_dir: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether every job ended exactly as it should."""
        return not self.problems

    @property
    def exit_status(self) -> int:
        """0 on success, else 1."""
        return 0 if self.succeeded else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome, for JSON."""
        facts = {**vars(self), "seconds": round(self.seconds, 2), "hits": self.hits.to_dicts()}
        return {"succeeded": self.succeeded, **facts}

    def __str__(self) -> str:
        found = f"A search for {self.hits.query!r} finds:\n{self.hits}\n"
        if self.succeeded:
            return (
                f"{found}\nAll {self.jobs} jobs ended as they should: {self.items} items from "
                f"{self.pages} URLs in {render.duration(self.seconds)}."
            )
        lines = [f"The demo failed (its data is in {self.data_dir}):", *self.problems]
        return found + "\n" + "\n  ".join(render.one_line(line) for line in lines)


def run_demo(say: Say = print, progress: Bar = lambda label: nullcontext()) -> Demo:
    """Serve the bundled site, collect it with background workers, search it, and check the result.

    Args:
        say: shows one line to the user.
        progress: given a label, shows a progress bar while its block runs. If it gives None,
            ``say`` shows the progress.

    Raises:
        WorkersError: the workers can't start.
    """
    directory = Path(tempfile.mkdtemp(prefix="paise2-demo-"))
    try:
        settings = read_file(Path(__file__).with_name("settings.yaml"))
        with DemoSite() as site, open("development", directory, settings) as app:
            demo = _collect(site, app, say, progress)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if demo.succeeded:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        demo.data_dir = str(directory)
    return demo


def _collect(site: DemoSite, app: App, say: Say, progress: Bar) -> Demo:
    started = time.monotonic()
    problems: list[str] = []
    say(f"A small site runs at {site.base}: one of its pages is busy at first, one is gone.")
    try:
        say(f"{app.workers.start().message}.")
        jobs = app.enqueue_many("fetch", site.urls, tag="demo")
        say(f"Enqueued {len(jobs)} URLs with the tag 'demo'.")
        try:
            with progress("collecting") as bar:
                jobs.wait(TIMEOUT, bar or _as_lines(say))
        except Timeout as error:
            problems.append(str(error))
        flaky, gone = jobs[-2], jobs[-1]
        attempts = render.amount(len(flaky.attempts), "attempt")
        say(
            f"{FLAKY.file} is {flaky.state} after {attempts}; "
            f"{GONE.file} is {gone.state}: {gone.error}"
        )
    finally:
        app.workers.stop(timeout=5)
    problems += [*_wrong_jobs(jobs), *_wrong_items(site, app)]
    count, seconds = len(app.jobs()), time.monotonic() - started
    hits = app.search(QUERY, limit=3)
    return Demo(len(jobs), count, app.store.count(), seconds, hits, problems)


def _as_lines(say: Say) -> Progress:
    """Show progress as lines, one for each change, where no bar can be drawn."""
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            say(render.progress_bar(done, total))

    return show


def _wrong_jobs(jobs: Jobs) -> Iterator[str]:
    """Yield the jobs and follow-up jobs that did not end as they should."""
    *_, flaky, gone = jobs
    for job in jobs:
        expected = BUSY_ANSWERS + 1 if job == flaky else 1
        if len(job.attempts) != expected:
            yield f"{_named(job)} took {len(job.attempts)} attempts, not {expected}"
        for member in job.tree:
            if job != gone and member.state != "completed":
                yield f"{_named(member)} is {member.state}: {member.error}"
    if gone.state != "failed" or "410" not in (gone.error or ""):
        yield f"{_named(gone)} is {gone.state}, not failed with status 410: {gone.error}"


def _named(job: Job) -> str:
    return f"job {job.id} ({job.task} {job.args[0]})"


def _wrong_items(site: DemoSite, app: App) -> Iterator[str]:
    """Yield the pages that a search for their own words does not find."""
    pages = [*PAGES, FLAKY]
    if app.store.count() != len(pages):
        yield f"{app.store.count()} items are stored, not {len(pages)}"
    for page in pages:
        found = [hit["url"] for hit in app.search(f'"{page.phrase}"')]
        if found != [site.base + page.file]:
            yield f"a search for {page.phrase!r} finds {found}, not {page.file}"
