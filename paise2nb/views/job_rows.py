"""The rows of jobs and pages as users see them: keys, times, and a line about each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paise2nb.core import render
from paise2nb.core.clock import local_time
from paise2nb.core.display import Record, arguments
from paise2nb.core.errors import without_secrets
from paise2nb.jobs.models import value_of
from paise2nb.jobs.queries import Kind
from paise2nb.jobs.store import JobStore
from paise2nb.views.history import reason, row_time
from paise2nb.views.left_out import REASONS

ARGUMENT_LENGTH = 1000  # characters in the line about a job
LATER = ("scheduled", "retrying")  # the states of a job that waits for a time
NOW = "now instead of later"
DONE = ("stored", "unchanged", "skipped")  # the states of a page that need nothing more
# What a page's row takes over from the part that decides about the page's state.
_OF_PART = (
    *("error_class", "error", "run_at", "waiting_for", "attempt", "max_attempts", "worker_pid"),
    "progress",
)


def progress(row: Mapping[str, Any]) -> str:
    """The progress that a running job has reported, such as ``3 of 10``; empty without any."""
    reported = value_of(row.get("progress"))
    if row["state"] != "running" or not isinstance(reported, list):
        return ""
    return " of ".join(f"{number:,}" for number in reported if isinstance(number, int | float))


def items_of(results: Iterable[str | None]) -> list[int]:
    """The items that the results of jobs name: ``{"item": id}``, or ``{"items": [ids]}``."""
    found: list[int] = []
    for result in map(value_of, results):
        if isinstance(result, dict):  # of any task, which may use these names for other things
            named = result.get("items") or [result.get("item")]
            found += [n for n in named if type(n) is int] if isinstance(named, list) else []
    return found


class JobRecord(Record):
    """The public attributes of a job, which are the keys of its JSON.

    Attributes:
        id: its number.
        task: the name of its task.
        args: the arguments.
        state: queued, scheduled, running, retrying, completed, failed or cancelled.
        waiting_for: what a queued job waits for; None if it may start.
        tag: inherited by its follow-up jobs and items.
        attempt: the number of attempts so far; released ones do not count.
        max_attempts: the number of attempts before the job fails for good.
        error_class, error: the last failure; of a page with a completed fetch, that of its
            other parts.
        enqueued_at, started_at, finished_at: ISO 8601 in UTC.
        run_at: when a scheduled or retrying job is due, in ISO 8601.
        worker_pid: the process that runs it, or ran it last.
        parent_id: the job that enqueued it.
        root_id: the first job of its tree.
        page_id: the fetch of the page that it is part of; None for other tasks.
        page_state: the state of that page.
    """

    times = ("enqueued_at", "started_at", "finished_at", "run_at")

    id: int
    task: str
    args: list[Any]
    state: str
    waiting_for: str | None
    tag: str | None
    attempt: int
    max_attempts: int
    error_class: str | None
    error: str | None
    enqueued_at: str
    started_at: str | None
    finished_at: str | None
    run_at: str | None
    worker_pid: int | None
    parent_id: int | None
    root_id: int
    page_id: int | None
    page_state: str | None


JOB_KEYS, TIMES = JobRecord.fields, JobRecord.times
_ALREADY = {"waiting": "already waiting", "now": NOW, "fresh": "already up to date"}


def public(row: Mapping[str, Any], time: Callable[[float | None], Any]) -> dict[str, Any]:
    """A row of ``jobs --json``.

    Args:
        row: the row.
        time: gives the form of a time of the job store's clock.
    """
    job = {key: row[key] for key in JOB_KEYS}
    job.update({key: time(row[key]) for key in TIMES})
    job["args"] = without_secrets(row["args"])
    return job


def table_row(job_store: JobStore, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: with its time, what it waits for, and the interval of a recurring one."""
    job = public(row, job_store.iso_time)
    waits = row["run_at"] if row["state"] in LATER else None
    moment = waits or row["finished_at"] or row["started_at"] or row["enqueued_at"]
    job["time"] = row_time(job_store, moment)
    waits_for = f"waiting for {job['waiting_for']}" if job["waiting_for"] else None
    job["error"] = waits_for or reason(job["error"], job["args"])
    if row["interval"]:
        job["args"] = [arguments(job["args"]), _interval(row["interval"])]
    return job


def as_pages(
    job_store: JobStore, rows: Mapping[int, dict[str, Any]], kind: Kind = "listed"
) -> None:
    """Give the rows of pages the page's state, and what the part says that decides about it."""
    fetched = [
        n
        for n, row in rows.items()
        if row["page_state"] is not None and row["state"] == "completed"
    ]
    parts = job_store.page_parts(fetched) if fetched else {}
    last = {ids[-1]: page for page, (ids, _) in parts.items() if len(ids) > 1}
    undone = [part for part, page in last.items() if rows[page]["page_state"] not in DONE]
    for page, (ids, finished_at) in parts.items():
        if len(ids) > 1:
            rows[page]["finished_at"] = finished_at
    for part, row in (job_store.rows(undone, kind) if undone else {}).items():
        rows[last[part]] |= {name: row[name] for name in _OF_PART}
    for row in rows.values():
        row["state"] = row["page_state"] or row["state"]


def summary_of(job_store: JobStore, known: Mapping[str, Any], answer: str | None = None) -> str:
    """A job or a page on one line."""
    known = dict(known)
    as_pages(job_store, {known["id"]: known})
    row = public(known, job_store.iso_time)
    retrying = row["state"] == "retrying"
    notes = (
        progress(known),
        _answered(row, answer),
        retrying and f"attempt {row['attempt']} of {row['max_attempts']} failed",
        row["waiting_for"] and f"waiting for {row['waiting_for']}",
    )
    argument = render.one_line(arguments(row["args"]), ARGUMENT_LENGTH)
    words = [f"job {row['id']}: {row['task']} {argument} · {row['state']}"]
    words += [_interval(known["interval"])] if known["interval"] else []
    words += [f"({note})" for note in notes if note]
    if row["error"] and (retrying or row["state"] == "failed"):
        words.append(f"— {row['error']}")
    elif row["error"] and known["interval"]:
        words.append(f"— the last run failed: {row['error']}")
    elif isinstance(value := _result(job_store, known, row), dict):
        texts = (value.get("warning"), value.get("note"), value.get("skipped"))
        words += [f"— {REASONS.get(text, text)}" for text in texts if text]
    return render.one_line(" ".join(words))


def _result(job_store: JobStore, known: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
    """The value of a job; of a page that is not stored, that of the part that decided it."""
    if row["state"] == "skipped":
        [(ids, _)] = job_store.page_parts([row["id"]]).values() or [([row["id"]], None)]
        known = job_store.rows(ids[-1:]).get(ids[-1], known)
    return value_of(known.get("result"))


def _answered(row: Mapping[str, Any], answer: str | None) -> str | None:
    if answer == "waiting" and row["state"] in LATER:
        return f"already waiting until {local_time(row['run_at'])}; --force runs it now"
    return _ALREADY.get(answer or "")


def _interval(seconds: float) -> str:
    return f"every {render.duration(seconds)}"
