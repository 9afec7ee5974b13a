"""The live panel: what the background work is doing, and the buttons that change it.

It uses ipywidgets and no JavaScript: each part is a piece of HTML that is sent again when it has
changed. Buttons may be pressed while a cell runs, so their work runs in threads and shared state
is locked.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets

from paise2nb.app import App
from paise2nb.config.settings import DEFAULT_POOL
from paise2nb.core.render import amount
from paise2nb.jobs.models import PAGE_PARTS, PAGE_TASKS
from paise2nb.jobs.workers_status import pause_reason
from paise2nb.notebook import panel_html as html
from paise2nb.notebook.panel_widgets import (
    Button,
    Look,
    Number,
    Row,
    RowGroup,
    SubshellWidget,
    inside,
)
from paise2nb.notebook.poller import Poller
from paise2nb.views.jobs import Jobs
from paise2nb.views.snapshot import Snapshot

REREAD_SECONDS = 5.0  # between two full reads: a process that dies changes no row
DISPLAY_SECONDS = 10.0  # within which a frontend must report that it shows the panel
CONFIRM_SECONDS = 5.0
_OF_PAGES = (*PAGE_TASKS, *PAGE_PARTS)
PARTS = ("head", "counts", "message", "problems", "facts", "workers", "items", "log")


class Panel(SubshellWidget, widgets.VBox):
    """The panel of one app. However often it is displayed, it is the same panel.

    Args:
        app: what it shows.
        poller: updates it while it is displayed.
    """

    def __init__(self, app: App, poller: Poller) -> None:
        self.app = app
        self._poller = poller
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._version = -1
        self._read_at = 0.0
        self._displayed_at = -DISPLAY_SECONDS
        self._action = ""  # what a thread is doing, such as stopping the workers
        self._message = ""
        self._size: int | None = None  # of the running pool default
        self._look = look = Look()
        self._html = {name: look.text() for name in PARTS}
        start = partial(self._run, "starting workers", self._start_workers)
        stop = partial(self._run, "stopping workers", self._stop_workers)
        self._start = Button(look, "Start workers", start, "Start the background workers")
        self._stop = Button(look, "Stop workers", stop, "Running jobs finish first")
        self._pause = Button(look, "Pause", self._pause_or_resume)
        retry = partial(self._retry, self._everything_failed)
        self._retry_failed = Button(look, "Retry failed", retry, "Retry everything that failed")
        refresh = Button(look, "Refresh", self._on_refresh, "Update the panel now")
        self.concurrency = Number(
            description="Concurrency",
            tooltip="Number of processes in the pool default; a change scales running workers",
            value=app.settings.workers.concurrency,
            min=1,
            max=1024,
            style={"description_width": "initial"},
            layout={"width": "150px"},
        )
        self._retries = RowGroup(
            look,
            "Next retries",
            "id",
            ("Retry now", "Retry now instead of at that time", self._retry_one),
            ("Cancel", "Cancel this job", self._cancel),
        )
        self._failures = RowGroup(
            look,
            "Failures",
            "group",
            ("Retry", "Retry the job shown below", self._retry_one),
            ("Retry all", "Retry every job of this group", self._retry_all),
        )
        controls = (
            self._start, self._stop, self._pause, self.concurrency, self._retry_failed, refresh,
        )  # fmt: skip
        style = look.text(look.hidden)
        style.value = html.STYLES
        bar = widgets.Box(controls, layout=look.line)
        lists = [w for group in (self._retries, self._failures) for w in (group.title, group.box)]
        head, counts, *middle, items, log = self._html.values()
        super().__init__([style, head, counts, bar, *middle, *lists, items, log], _view_count=0)
        self.add_class("paise2-watch")
        self.observe(lambda _: poller.wake(), "_view_count")
        self.refresh()
        self.concurrency.observe(lambda _: self._scale(), "value")

    @property
    def displayed(self) -> bool:
        """Whether a frontend shows it, or has just been asked to."""
        if self.comm is None:
            return False
        return bool(self._view_count) or time.monotonic() - self._displayed_at < DISPLAY_SECONDS

    def close(self) -> None:
        """Close the panel and every widget in it."""
        for widget in (*inside(self), *vars(self._look).values()):
            widget.close()
        super().close()

    def __repr__(self) -> str:
        return repr(self._snapshot.status) if self._snapshot else "watch"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        self.refresh()
        self._displayed_at = time.monotonic()
        self._poller.wake()
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        bundle["text/plain"] = repr(self)
        if self._snapshot is not None:
            bundle["text/html"] = html.fallback(self._snapshot.status)
        return bundle

    # Showing ---------------------------------------------------------------------------------

    def refresh(self, *, reread: bool = True) -> None:
        """Show the current state. Errors are shown in the panel, never raised.

        Args:
            reread: read everything, even if no row of the database has changed.
        """
        with self._lock:
            if self.app.closed:
                text = "The app was closed. Run the cell again."
                self._html["message"].value = html.block(text)
                return
            try:
                self._show(self._read(reread), time.time())
            except Exception as error:
                text = str(error) or type(error).__name__
                self._html["problems"].value = html.block(html.problem(text))

    def _read(self, reread: bool) -> Snapshot:
        now = time.monotonic()
        if not reread:  # called by the poller's thread, whose connection sees others' writes
            version = self.app.queue.job_store.version()
            reread = version != self._version or now - self._read_at >= REREAD_SECONDS
            self._version = version
        if reread or self._snapshot is None:
            self._snapshot, self._read_at = self.app.snapshot(), now
            self._show_size(self.app.workers.sizes().get(DEFAULT_POOL))
        return self._snapshot

    def _show(self, snapshot: Snapshot, now: float) -> None:
        status = snapshot.status
        message = self._message
        if self._action:
            running, stopping = status.jobs["running"], self._action == "stopping workers"
            finishing = f"; {amount(running, 'job')} still running" if running and stopping else ""
            message = f"{self._action}{finishing} …"
        parts = {
            "head": html.head(status, time.strftime("%H:%M:%S", time.localtime(now))),
            "counts": html.counts(status),
            "message": html.message(message) if message else "",
            "problems": html.problems(status),
            "facts": html.facts(snapshot, now),
            "workers": html.workers(snapshot, now),
            "items": html.latest_items(snapshot),
            "log": html.log(snapshot),
        }
        for name, value in parts.items():
            self._html[name].value = value
        self._retry_failed.disabled = not (status.pages["failed"] or status.failures)
        paused = status.paused == pause_reason()
        self._pause.description = "Resume" if paused else "Pause"
        self._pause.tooltip = (
            "Claim jobs again" if paused else "Claim no more jobs; running jobs go on"
        )
        self._start.button_style = "" if status.workers else "primary"
        self._start.disabled = self._stop.disabled = bool(self._action)
        for row in self._retries.show(snapshot.retries, status.jobs["retrying"]):
            row.text.value = html.retry(row.entry, now)
        for row in self._failures.show(snapshot.failures, len(status.failures)):
            row.text.value = html.failure(row.entry)
            row.details.value = html.failure_details(row.entry)
            jobs, retry_all = row.entry["jobs"], row.buttons[1]
            confirm = time.monotonic() < row.confirm_until
            retry_all.description = f"Really retry {jobs:,}?" if confirm else f"Retry all {jobs:,}"
            retry_all.button_style = "warning" if confirm else ""
            retry_all.layout = self._look.hidden if jobs == 1 else self._look.button

    # Buttons ---------------------------------------------------------------------------------

    def _run(self, action: str, work: Callable[[], str]) -> None:
        """Run what may take a while in a thread, and show the message that it returns."""

        def run() -> None:
            try:
                message = work()
            except Exception as error:
                message = str(error) or type(error).__name__
            with self._lock:
                self._action, self._message = "", message
            self._poller.wake()

        with self._lock:
            if self._action:
                return
            self._action = action
            self.refresh()
        threading.Thread(target=run, name=f"paise2 {action}", daemon=True).start()

    def _start_workers(self) -> str:
        while True:
            number = self.concurrency.value
            status = self.app.workers.start(concurrency=number)
            if self.concurrency.value == number:  # not changed meanwhile
                return status.message or ""

    def _scale(self) -> None:
        """Scale running workers to the number that the user has chosen."""
        if self._size not in (None, self.concurrency.value):
            self._run("scaling workers", self._start_workers)

    def _show_size(self, size: int | None) -> None:
        """Show the size of the running pool, which another process may have changed."""
        changed, self._size = size != self._size, size
        if size is not None and changed:
            self.concurrency.value = size

    def _pause_or_resume(self) -> None:
        if self.app.workers.pauses().paused is None:
            self._run("pausing", self._pause_queue)
        else:
            self._run("resuming", self._resume_queue)

    def _pause_queue(self) -> str:
        self.app.workers.pause()
        return ""  # the pause itself is shown

    def _resume_queue(self) -> str:
        self.app.workers.resume()
        return "resumed"

    def _stop_workers(self) -> str:
        return self.app.workers.stop().message or "stopped"

    def _on_refresh(self) -> None:
        """Update the panel, and send again what a frontend has missed."""
        self.refresh()
        for widget in inside(self):
            if isinstance(widget, widgets.HTML | Button):
                widget.send_state()

    def _retry(self, selected: Callable[[], Jobs]) -> None:
        self._run("retrying", lambda: f"{amount(len(selected().retry()), 'job')} back in the queue")

    def _everything_failed(self) -> Jobs:
        recurring = (group["id"] for group in self.app.status().failures if group["recurs"])
        ids = {*self._failed().ids, *recurring}
        return self.app.jobs(*ids) if ids else self._failed()

    def _failed(self, error: str | None = None) -> Jobs:
        """The pages that failed, and the other jobs."""
        pages = self.app.jobs(state="failed", error=error)
        rows = self.app.jobs(state="failed", error=error, all=True).to_dicts()
        ids = {*pages.ids, *(row["id"] for row in rows if row["task"] not in _OF_PAGES)}
        return self.app.jobs(*ids) if ids else pages

    def _retry_one(self, row: Row) -> None:
        job_id = row.entry["id"]
        self._retry(lambda: self.app.jobs(job_id))

    def _cancel(self, row: Row) -> None:
        job = self.app.job(row.entry["id"])
        self._run("cancelling", lambda: f"{amount(len(job.cancel()), 'job')} cancelled")

    def _retry_all(self, row: Row) -> None:
        """Retry the jobs of a row's group. It takes a second click to confirm."""
        if time.monotonic() >= row.confirm_until:
            row.confirm_until = time.monotonic() + CONFIRM_SECONDS
            self.refresh()
            return
        row.confirm_until = 0.0
        error_class, status = row.entry["error_class"], row.entry["status"]

        def selected() -> Jobs:
            failed = self._failed(error=error_class)
            if status is None:
                return failed
            ids = (job["id"] for job in failed.to_dicts() if job["error"].startswith(status))
            return self.app.jobs(*ids)

        self._retry(selected)


# One panel for each app ----------------------------------------------------------------------

_panels: dict[App, Panel] = {}


def _refresh_displayed(reread: bool) -> bool:
    displayed = [panel for panel in list(_panels.values()) if panel.displayed]
    for panel in displayed:
        panel.refresh(reread=reread)
    return bool(displayed)


_poller = Poller(_refresh_displayed)


def panel_of(app: App) -> Panel:
    """Return the panel of an app, made on the first call."""
    for known, panel in list(_panels.items()):
        if known.closed or panel.comm is None:
            panel.close()
            del _panels[known]
    if app not in _panels:
        _panels[app] = Panel(app, _poller)
    return _panels[app]


def close_panels() -> None:
    """Close all panels, and end the thread that updates them."""
    global _poller
    _poller.stop()
    _poller = Poller(_refresh_displayed)
    while _panels:
        _panels.popitem()[1].close()
