"""The state of a collection: the status, what happened since the last visit, and the log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core import render
from paise2nb.core.clock import iso
from paise2nb.core.disks import full_disk
from paise2nb.core.display import Displayable, Message, arguments
from paise2nb.core.errors import shortened, without_secrets
from paise2nb.jobs.alerts import read_states
from paise2nb.jobs.models import RUNNING, UNFINISHED
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import OTHER_SETTINGS, Pauses, WorkersStatus
from paise2nb.views.client import LAST_SEEN, JobClient
from paise2nb.views.remedies import remedy_for
from paise2nb.views.time_left import TimeLeft, clock_time, time_left

LINE_LENGTH = 2000  # characters of a line of the log
TAIL_BYTES = 1_000_000  # of the end of the log that are searched for its last lines
RETRIES = 5
_PHRASES = {str(status.value): status.phrase for status in HTTPStatus}


def _labelled(label: str, text: str) -> str:
    return f"{label:<9}{render.one_line(text)}"


@dataclass(repr=False)
class Status(Displayable):
    """The state of the queue, the workers and the collection.

    Attributes:
        problem: what keeps jobs from running, with the command that helps; or None.
        retries: the next retries; ``in`` is the seconds until each, None if it is due.
        failures: the failed jobs, grouped by error class and HTTP status, then the recurring jobs
            that failed in their last run; each with what helps.
        others: the number of jobs in each state that are part of no page.
        left: the time left, with its reason.

    The other attributes are the keys of ``status --json``.
    """

    profile: str
    data_dir: str
    immediate: bool
    pages: dict[str, int]
    jobs: dict[str, int]
    roots: dict[str, int]
    workers: list[dict[str, Any]]
    supervisor: dict[str, Any] | None
    oldest_queued_seconds: float | None
    next_retry_at: str | None
    completed_per_minute: float
    seconds_left: float | None
    items: int
    paused: str | None
    paused_pools: dict[str, str] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    retries: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    left: TimeLeft | None = None
    machines: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``status``."""
        extra = ("problem", "retries", "failures", "others", "left")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in extra}

    @property
    def pauses(self) -> str:
        """What is paused and why, in one line; empty if nothing is."""
        return "; ".join(filter(None, [self.paused, *self.paused_pools.values()]))

    def _facts(self) -> dict[str, str]:
        workers = WorkersStatus(self.workers, self.supervisor, machines=self.machines).summary()
        facts = {
            "profile": self.profile,
            **self._counts(str),
            "items": f"{self.items:,}",
            "workers": "jobs run in this process" if self.immediate else workers,
            "paused": self.pauses,
        }
        return {label: fact for label, fact in facts.items() if fact}

    def _counts(self, form: Callable[[str], str]) -> dict[str, str]:
        """The pages and the other jobs by state; those of which there are any."""
        texts = {
            label: " · ".join(f"{n:,} {form(state)}" for state, n in counts.items() if n)
            for label, counts in (("pages", self.pages), ("jobs", self.others))
        }
        return {label: text for label, text in texts.items() if text} or {"pages": "none"}

    def lines(self) -> list[str]:
        """The lines of the text form, without times and process ids."""
        lines = [_labelled(label, text) for label, text in self._facts().items()]
        for group in self.failures[: render.VIEW_ROWS]:
            failed = f"{_number(group)} {group['error_class']}: {_reason(group)}{group['next']}"
            lines.append(_labelled("failed", f"{failed} → {group['commands']}"))
        if (more := len(self.failures) - render.VIEW_ROWS) > 0:
            lines.append(_labelled("", f"and {more:,} more: paise2 jobs --state failed"))
        for alert in self.alerts:
            lines.append(_labelled("alert", f"{alert['name']}: {_alert_text(alert)}"))
        return lines + ([render.one_line(self.problem)] if self.problem else [])

    def __str__(self) -> str:
        lines = self.lines()
        lines.insert(1, _labelled("data", self.data_dir))
        if self.completed_per_minute:
            lines.append(
                _labelled("pace", f"{self.completed_per_minute:,.0f} completed per minute")
            )
        if self.left is not None:
            lines.append(_labelled("left", self.left.text))
        if self.oldest_queued_seconds is not None:
            oldest = f"{render.duration(self.oldest_queued_seconds)} (the oldest job)"
            lines.append(_labelled("waiting", oldest))
        for row in self.retries:
            due = due_in_words(row, row["in"] or 0)
            job = f"job {row['id']} {due}: {row['task']} {arguments(row['args'])}"
            attempt = f"attempt {row['attempt']} of {row['max_attempts']} failed: {row['error']}"
            lines.append(_labelled("retry", f"{job}, {attempt}"))
        if (more := self.jobs["retrying"] - len(self.retries)) > 0:
            lines.append(_labelled("", f"and {more:,} more: paise2 jobs --all --state retrying"))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        facts = {label: render.escape(text) for label, text in self._facts().items()}
        cells = list((facts | self._counts(render.tone)).items())
        for group in self.failures[: render.VIEW_ROWS]:
            number = render.escape(f"{_number(group)} {group['error_class']}")
            error = render.escape(render.one_line(f"{_reason(group)}{group['next']}"))
            command = render.escape(render.in_cell_words(group["commands"]))
            failed = f'<div><b class="bad">{number}</b> · {error}</div>'
            cells.append(("failed", f"{failed}<code>{command}</code>"))
        if (more := len(self.failures) - render.VIEW_ROWS) > 0:
            cells.append(("", f"and {more:,} more"))
        for alert in self.alerts:
            name, text = render.escape(alert["name"]), render.escape(_alert_text(alert))
            cells.append(("alert", f'<b class="bad">{name}</b> · {text}'))
        rows = (
            f'<tr><th>{label}</th><td><div class="wrap">{cell}</div></td></tr>'
            for label, cell in cells
        )
        problem = render.note(render.in_cell_words(self.problem)) if self.problem else ""
        return render.panel(f"<table><tbody>{''.join(rows)}</tbody></table>", problem)


def take_status(client: JobClient, parts: Parts) -> Status:
    """Read the status of an app.

    Args:
        client: the app's client.
        parts: the app's parts.
    """
    job_store, now = client.job_store, client.job_store.now()
    jobs, roots = job_store.counts()
    found, pauses = client.workers_status(), Pauses.of(job_store.paused_pools())
    retries = job_store.retries(RETRIES)
    next_retry = job_store.next_retry()
    oldest = job_store.oldest_queued()
    pages, others, rates = job_store.page_counts(), job_store.other_counts(), job_store.rates()
    goes_on = (found.workers or found.machines) and not pauses.paused
    left = time_left(job_store, pages, others, rates[1]) if goes_on else None
    return Status(
        profile=parts.profile,
        data_dir=str(parts.data_dir),
        immediate=client.immediate,
        pages=pages,
        jobs=jobs,
        roots=roots,
        workers=found.workers,
        supervisor=found.supervisor,
        machines=found.machines,
        oldest_queued_seconds=None if oldest is None else max(0.0, now - oldest),
        next_retry_at=job_store.iso_time(next_retry),
        completed_per_minute=round(60 * rates[0], 2),
        seconds_left=None if left is None or left.seconds is None else round(left.seconds, 1),
        items=client.items.count(),
        paused=pauses.paused or _pause_reason(job_store, parts.write_dirs()),
        paused_pools=pauses.paused_pools,
        alerts=_alerts(job_store, parts.settings),
        problem=None if found.problem == str(pauses) else found.problem,  # shown as a pause
        retries=[
            {**without_secrets(row), "in": max((row["run_at"] or now) - now, 0) or None}
            for row in retries
        ],
        failures=_failures(job_store, parts.settings, found.problem == OTHER_SETTINGS),
        others=others,
        left=left,
    )


def _alerts(job_store: JobStore, settings: Settings) -> list[dict[str, Any]]:
    """The alerts that are active, and those with a message that could not be delivered."""
    states, iso_time = read_states(job_store), job_store.iso_time
    return [
        {
            "name": alert.name,
            "when": alert.when,
            "began_at": iso_time(state.began_at),
            "undelivered": state.error,
        }
        for alert in settings.alerts
        if (state := states.get(alert.name)) and (state.began_at or state.error)
    ]


def _alert_text(alert: Mapping[str, Any]) -> str:
    texts = [alert["when"] if alert["began_at"] else "over"]
    if alert["undelivered"]:
        texts.append(f"its message can't be delivered: {alert['undelivered']}")
    return "; ".join(texts)


def _failures(job_store: JobStore, settings: Settings, restart: bool) -> list[dict[str, Any]]:
    """The groups of failed jobs, then each recurring job that failed in its last run."""
    groups = [{**group, "recurs": None, "next": ""} for group in job_store.failures()]
    groups += _recurring_failures(job_store)
    for group in groups:
        group["args"] = without_secrets(group["args"])
        remedy = remedy_for(group["error_class"], settings, restart)
        commands = [part.format(**group) for part in (remedy.command, remedy.then) if part]
        group["commands"] = ", then ".join(commands)
        group["remedy"] = remedy._replace(command=commands[0])
    return groups


def _recurring_failures(job_store: JobStore) -> Iterator[dict[str, Any]]:
    for row in job_store.recurring_failed():
        at = "now" if row["run_at"] is None else clock_time(job_store.clock.wall(row["run_at"]))
        recurs = f"{row['task']} {arguments(row['args'])} every {render.duration(row['interval'])}"
        yield {**row, "jobs": 1, "status": None, "recurs": recurs, "next": f"; next {at}"}


def failure_name(group: Mapping[str, Any]) -> str:
    """The name of a group of failures, or of a recurring job with its failure and next time."""
    status, recurs = group["status"], group["recurs"]
    name = f"{status} {_PHRASES.get(status, '')}".strip() if status else group["remedy"].name
    return f"{recurs}: {name}{group['next']}" if recurs else name


def due_in_words(retry: Mapping[str, Any], seconds: float) -> str:
    """When a retry comes, in so many seconds, or what it waits for."""
    if retry["waiting_for"]:
        return f"waits for {retry['waiting_for']}"
    return f"in {render.duration(seconds)}" if seconds > 0 else "now"


def _reason(group: Mapping[str, Any]) -> str:
    """The error without its class, with which the errors of plugins begin."""
    return str(group["error"]).removeprefix(f"{group['error_class']}: ")


def _number(group: Mapping[str, Any]) -> str:
    return f"{group['recurs']}:" if group["recurs"] else f"{group['jobs']:,} ×"


def _pause_reason(job_store: JobStore, write_dirs: Iterable[Path]) -> str | None:
    """The reason why workers claim no jobs."""
    if reason := full_disk(write_dirs):
        return reason
    noted = json.loads(job_store.get("paused") or "null")
    # Only valid as long as the worker that wrote it is alive.
    living = (row["process"] for row in job_store.workers() if row["presence"] in RUNNING)
    return noted[1] if noted and noted[0] in living else None


def take_digest(client: JobClient) -> Message:
    """Read what happened since this was last called, or since a kernel with the app ended.

    Returns:
        ``since`` (None for the first time), the numbers of items ``stored`` and of pages and other
        jobs that ``failed`` since then or are ``waiting`` now, and the facts of `WorkersStatus`.
    """
    job_store, workers = client.job_store, client.workers_status()
    seen = float(job_store.get(LAST_SEEN) or 0)
    client.mark_seen()
    since = job_store.clock.wall(seen) if seen else None
    counts = (job_store.page_counts(), job_store.other_counts())
    facts = {
        "since": iso(since),
        "stored": client.items.count_since(since) if since else 0,
        "failed": job_store.failed_pages(seen) if seen else 0,
        "waiting": sum(states[state] for states in counts for state in UNFINISHED),
    }
    text = f"{facts['waiting']:,} waiting, {render.amount(len(workers.workers), 'worker')}"
    if since is None:
        text = f"new; {text}"
    else:
        is_today = time.localtime(since)[:3] == time.localtime()[:3]
        moment = time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", time.localtime(since))
        text = f"since {moment}: {facts['stored']:,} stored, {facts['failed']:,} failed, {text}"
    recurring = _recurring_failures(job_store)
    lines = [text, *(f"{g['recurs']} failed: {g['error']}{g['next']}" for g in recurring)]
    lines += [workers.problem] if workers.problem else []
    return Message("\n".join(lines), {**facts, **workers.to_dict()})


def tail(path: Path, number: int) -> Message:
    """Read the last ``lines`` of a log; none if it does not exist."""
    lines: list[str] = []
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    lines = [shortened(line, LINE_LENGTH) for line in (lines[-number:] if number else [])]
    # Line by line: an escape sequence that has no end hides only the rest of its line.
    text = "\n".join(map(render.plain, lines)) or "the log is empty"
    return Message(text, {"path": path, "lines": lines})
