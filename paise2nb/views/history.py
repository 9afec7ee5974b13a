"""The whole history of a page or a job: every execution, with its time and its duration."""

import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from paise2nb.core import render
from paise2nb.core.clock import local_time
from paise2nb.core.display import arguments
from paise2nb.core.render import Column
from paise2nb.core.urls import file_url
from paise2nb.jobs.models import PAGE_STATES, STATES, value_of
from paise2nb.jobs.queries import Counts
from paise2nb.jobs.store import JobStore

COLUMNS = (
    Column("id", title="job", right=True),
    Column("task"),
    Column("number", title="run", right=True),
    Column("outcome", html=render.tone),
    Column("message", wide=True, html=render.wrapped),
    Column("took", right=True),
    Column("started", html=render.moment),
)

_FRAME = re.compile(r'^ +File "([^"]+)"', re.MULTILINE)
_REASON = re.compile(r"^paise2nb\.core\.errors\.", re.MULTILINE)
_INSTALLED = {Path(__file__).parents[1]} | {
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
}


def parts_of(job_store: JobStore, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of all parts of a job's page, the fetch first; else only its own."""
    ids = {row["id"]}
    if row["page_id"] is not None:
        ids.update(*(parts for parts, _ in job_store.page_parts([row["page_id"]]).values()))
    rows = job_store.rows(ids)
    return [rows.get(job_id, dict(row)) for job_id in sorted(ids)]


def executions(job_store: JobStore, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table: each execution of some jobs, and what runs or waits now."""
    found = []
    for row in rows:
        entries = [*_ended(job_store.attempts(row["id"]), row["args"]), *_current(job_store, row)]
        value = value_of(row["result"])
        if entries and isinstance(value, dict) and row["state"] == "completed":
            entries[-1]["message"] = str(value.get("warning", ""))
        found += [{"id": row["id"], "task": row["task"], **entry} for entry in entries]
    return found


def _ended(attempts: Sequence[Mapping[str, Any]], args: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for attempt in attempts:
        message = reason(attempt["error"], args)
        if attempt["retry_in"] is not None:
            message += f" (retried after {render.duration(attempt['retry_in'])})"
        times = [attempt["started_at"], attempt["finished_at"]]
        began, ended = (datetime.fromisoformat(time) if time else None for time in times)
        seconds = (ended - began).total_seconds() if began and ended else None
        yield {
            "number": attempt["number"],
            "outcome": attempt["outcome"],
            "started": local_time(attempt["started_at"]),
            "took": None if seconds is None else render.duration(max(seconds, 0.0)),
            "message": message.strip(),
        }


def _current(job_store: JobStore, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What an unfinished job does now."""
    if row["state"] == "running":
        began = row["started_at"] or 0.0
        yield {
            "number": row["run"],
            "outcome": "running",
            "started": row_time(job_store, began),
            "took": render.duration(max(job_store.now() - began, 0.0)),
        }
    elif row["state"] in ("queued", "scheduled", "retrying"):
        message = f"waiting for {row['waiting_for']}" if row["waiting_for"] else ""
        if row["run_at"] is not None:
            message = f"{message} until {row_time(job_store, row['run_at'])}".strip()
        yield {"outcome": row["state"], "message": message}


def shown_traceback(traceback: str | None) -> str:
    """A stored traceback if it tells users more than the error's message, else nothing.

    It does not if the package raised the error as a known reason, such as ``404 Not Found``.
    """
    text = traceback or ""
    is_shown = any(map(is_own_code, _FRAME.findall(text))) or not _REASON.search(text)
    return text if is_shown else ""


def is_own_code(file: str) -> bool:
    """Whether the code of a frame is the user's, not that of a library or of this package."""
    return not file.startswith("<") and not set(Path(file).parents) & _INSTALLED


def reason(error: str | None, args: Sequence[Any]) -> str:
    """Return an error without the URL in which many end, and beside which it is shown."""
    text = arguments(args)
    return (error or "").removesuffix(f": {text}").removesuffix(f": {file_url(text)}")


def row_time(job_store: JobStore, seconds: float | None) -> str:
    """A row's time for users, in their time zone."""
    return local_time(job_store.iso_time(seconds))


def counts_in_words(pages: Counts, others: Counts) -> str:
    """Numbers of pages and other jobs in words: ``pages: 9 stored, 1 failed · jobs: 1 completed``.

    Args:
        pages: by page state.
        others: jobs that are part of no page, by state.
    """
    texts = []
    for noun, counts, states in (("pages", pages, PAGE_STATES), ("jobs", others, STATES)):
        known = [state for state in states if counts.get(state)]
        # What has ended comes first: it is what was waited for.
        known.sort(key=lambda state: state in STATES[:4])
        if known:
            texts.append(f"{noun}: " + ", ".join(f"{counts[s]:,} {s}" for s in known))
    return " · ".join(texts)
