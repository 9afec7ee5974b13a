"""The demo: background workers fetch the bundled site, and everything is searched and checked.

It uses a separate data directory, so it neither sees nor changes the user's collection.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from paise2nb.app import App, open
from paise2nb.config.parser import read_file
from paise2nb.core import render
from paise2nb.core.display import Message
from paise2nb.core.errors import Timeout
from paise2nb.demo.site import BUSY_ANSWERS, FLAKY, GONE, PAGES, DemoSite
from paise2nb.views.jobs import Job, Jobs

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # takes (URLs done, URLs)
Bar = Callable[[str], AbstractContextManager[Progress | None]]

QUERY = "waiting"
TIMEOUT = 60.0  # seconds; the run takes a few


def run_demo(say: Say = print, progress: Bar = lambda label: nullcontext()) -> Message:
    """Serve the bundled site, collect it with background workers, search it, and check the result.

    Args:
        say: shows one line to the user.
        progress: given a label, shows a progress bar while its block runs. If it gives None,
            ``say`` shows the progress.

    Returns:
        The numbers of ``pages`` (URLs), ``jobs`` and ``items``; the ``seconds`` that it took; the
        ``hits`` of the search; each of the ``problems`` in one line; whether it ``succeeded``; the
        ``data_dir``, which remains after a failure.

    Raises:
        WorkersError: the workers can't start.
    """
    directory = Path(tempfile.mkdtemp(prefix="paise2-demo-"))
    try:
        settings = read_file(Path(__file__).with_name("settings.yaml"))
        settings["workers"]["idle_exit"] = 30  # so that none stay behind a demo that was killed
        with DemoSite() as site, open("development", directory, settings) as app:
            demo = _collect(site, app, say, progress)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if demo.succeeded:
        shutil.rmtree(directory, ignore_errors=True)
    return demo


def _collect(site: DemoSite, app: App, say: Say, progress: Bar) -> Message:
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
    hits, seconds = app.search(QUERY, limit=3), time.monotonic() - started
    facts = {
        "succeeded": not problems,
        "pages": len(jobs),
        "jobs": len(app.jobs(all=True)),
        "items": app.store.count(),
        "seconds": round(seconds, 2),
        "hits": hits.to_dicts(),
        "problems": problems,
        "data_dir": str(app.data_dir) if problems else None,
    }
    lines = [f"A search for {QUERY!r} finds:\n{hits}\n"]
    if problems:
        lines.append(f"The demo failed (its data is in {app.data_dir}):")
        lines += [f"  {render.one_line(problem)}" for problem in problems]
    else:
        lines.append(
            f"All {facts['jobs']} jobs ended as they should: {facts['items']} items from "
            f"{len(jobs)} URLs in {render.duration(seconds)}."
        )
    return Message("\n".join(lines), facts, exit_status=int(bool(problems)))


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
