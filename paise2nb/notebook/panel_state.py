"""What the panel shows, as JSON that a browser draws, and as HTML for a saved notebook.

Every text and every list has a limit: jobs may say megabytes, and the state is sent whenever it
changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from paise2nb.app import App
from paise2nb.core import render
from paise2nb.core.display import arguments
from paise2nb.core.render import escape, in_cell_words, one_line
from paise2nb.jobs.models import UNFINISHED
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import pause_reason
from paise2nb.views.history import reason
from paise2nb.views.job_rows import progress
from paise2nb.views.status import Status, failure_name

# The most that is shown of each list.
TAGS, HOSTS, GROUPS, ROWS = 8, 5, 12, 12
TEXT, URL, SHORT, LINE = 200, 2000, 84, 400  # characters
LINES = 20  # of the status in a saved notebook
BYTES = 6  # of JSON for each of these characters
# The states of pages as the bars have them.
DONE_FIRST = ("stored", "unchanged", "skipped", "failed", "cancelled", *UNFINISHED)
_FOLDER = Path(__file__).parent


def brief(text: object, length: int = TEXT) -> str:
    """Return text on one line, of at most so many characters and `BYTES` times as many bytes."""
    limit, shown = BYTES * length, one_line(text, length)
    while len(json.dumps(shown)) > limit:
        length = length * 2 // 3
        shown = one_line(text, length)
    return shown


def sentence(text: object) -> str:
    """Return a message on one line, its commands written as a cell takes them."""
    return brief(in_cell_words(str(text)), 1000)


def link(args: Sequence[Any]) -> dict[str, str]:
    """Return the arguments of a job: whole if they are a URL that can be a link, cut, and short."""
    text = arguments(args)
    is_url = text.startswith(("http://", "https://"))
    whole = is_url and len(text) <= URL and len(json.dumps(text)) <= URL + 2
    return {
        "url": text if whole and render.plain(text) == text else "",
        "text": brief(text),
        "short": brief(render.short(text, SHORT)),
    }


def state(app: App, status: Status) -> dict[str, Any]:
    """Return all that the panel shows without being asked.

    Args:
        app: the app.
        status: its status.
    """
    job_store = app.queue.job_store
    tags = job_store.pages_by_tag()
    oldest = status.oldest_queued_seconds
    problems = [status.pauses, status.problem, *_alerts(status)]
    named = sorted(tags.items(), key=lambda item: item[0] is None)  # those without a tag last
    if set(tags) == {None}:
        named = []
    retries, scheduled = job_store.retries(ROWS), job_store.scheduled(ROWS)
    running = [job_id for worker in status.workers for job_id in worker["jobs"]]
    return {
        "profile": status.profile,
        "data_dir": brief(status.data_dir),
        "immediate": status.immediate,
        "utc_offset": time.localtime().tm_gmtoff,
        "zone": time.strftime("%Z"),
        "pages": status.pages,
        "others": {name: n for name, n in status.others.items() if n},
        "items": status.items,
        "tags": [_tag(tag, counts) for tag, counts in named[:TAGS]],
        "more_tags": max(len(named) - TAGS, 0),
        "rate": status.completed_per_minute,
        "left": brief(status.left.text) if status.left else "",
        "oldest": None if oldest is None else round(time.time() - oldest),
        "hosts": _hosts(job_store),
        "problems": [sentence(text) for text in problems if text][:HOSTS],
        "paused": status.paused == pause_reason(),
        "groups": [_group(group) for group in status.failures[:GROUPS]],
        "failures": sum(group["jobs"] for group in status.failures),
        "more_groups": max(len(status.failures) - GROUPS, 0),
        "retries": [_waiting(job_store, row) for row in retries],
        "retrying": status.jobs["retrying"],
        "later": [_waiting(job_store, row) for row in scheduled],
        "scheduled": status.jobs["scheduled"],
        "running": _running(job_store, running[:ROWS]),
        "all_running": status.jobs["running"],
        "workers": [_worker(row) for row in [*status.workers, *status.machines][:ROWS]],
        "all_workers": len(status.workers) + len(status.machines),
    }


def _tag(tag: str | None, counts: Mapping[str, int]) -> dict[str, Any]:
    name = "no tag" if tag is None else brief(tag, 40)
    return {"tag": name, "pages": counts}


def _alerts(status: Status) -> list[str]:
    return [f"alert {alert['name']}: {alert['when']}" for alert in status.alerts]


def _hosts(job_store: JobStore) -> list[dict[str, Any]]:
    """The hosts that most pages wait for."""
    waiting = job_store.waiting_for_hosts()[:HOSTS]
    reasons = job_store.reasons_to_wait(host for host, _ in waiting)
    return [
        {"host": brief(host, 60), "waiting": number, "why": reasons.get(host, "")}
        for host, number in waiting
    ]


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    remedy = group["remedy"]
    return {
        "key": key_of(group),
        "id": group["id"],
        "name": brief(in_cell_words(failure_name(group))),
        "jobs": group["jobs"],
        "recurs": bool(group["recurs"]),
        "error": brief(group["error"] or ""),
        "advice": brief(remedy.advice),
        "command": brief(in_cell_words(remedy.command)),
        "retry": can_retry(group),
    }


def can_retry(group: Mapping[str, Any]) -> bool:
    """Whether a retry can help: of a failed run that recurs, or where its remedy names one."""
    remedy = group["remedy"]
    commands = (remedy.command, remedy.then or "")
    return bool(group["recurs"]) or any(text.startswith("paise2 retry") for text in commands)


def key_of(group: Mapping[str, Any]) -> str:
    """Return the key of a group of failures, which `group_of` reads."""
    return json.dumps(
        [group["error_class"], group["status"], group["id"] if group["recurs"] else None]
    )


def group_of(key: str) -> tuple[str | None, str | None, int | None]:
    """Return the error class and HTTP status of a group, and the id of a recurring job."""
    error_class, status, recurring = json.loads(key)
    return error_class, status, recurring


def _job(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "task": brief(row["task"], 40), **link(row["args"])}


def _waiting(job_store: JobStore, row: Mapping[str, Any]) -> dict[str, Any]:
    """A job that waits for its time."""
    every = row["interval"]
    return {
        **_job(row),
        "due": round(job_store.clock.wall(row["run_at"] or 0), 1),
        "waits_for": brief(row["waiting_for"] or "", 100),
        "attempt": f"attempt {row['attempt'] + 1} of {row['max_attempts']}",
        "error": brief(reason(row["error"], row["args"])),
        "every": f"every {render.duration(every)}" if every else "",
    }


def _running(job_store: JobStore, ids: Sequence[int]) -> list[dict[str, Any]]:
    rows = job_store.rows(ids, "listed")
    return [
        {
            **_job(row),
            "since": round(job_store.clock.wall(row["started_at"] or 0), 1),
            "progress": progress(row),
            "pid": row["worker_pid"],
        }
        for row in (rows[job_id] for job_id in ids if job_id in rows)
    ]


def _worker(row: Mapping[str, Any]) -> dict[str, Any]:
    """A worker process, or another machine."""
    pools = " ".join(f"{name} {number}" for name, number in row.get("pools", {}).items())
    beat = row["heartbeat_at"]
    return {
        "host": brief(row["host"], 60),
        "pool": brief(row.get("pool") or pools, 60),
        "pid": row["pid"],
        "state": row["state"],
        "jobs": len(row["jobs"]),
        "heartbeat": beat and round(datetime.fromisoformat(beat).timestamp()),
        "error": brief(row.get("error") or row.get("problem") or ""),
    }


# The saved picture ---------------------------------------------------------------------------


def lines(status: Status) -> list[str]:
    """Return the lines of a status, each with a limit."""
    return [render.cut(line, LINE) for line in status.lines()[:LINES]]


def saved(status: Status, at: float | None = None) -> str:
    """Return what a saved notebook shows without a kernel.

    Args:
        status: the status.
        at: its time, in seconds since the epoch. None: the form is the same for the same work, and
            it marks the counts as the live panel does.
    """
    kind, count, moment = "paise2-plain", "paise2-count", ""
    if at is not None:
        kind, count = "paise2-saved", "paise2-saved-count"
        clock = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
        moment = f"as it was on {escape(clock)}; run the cell for the live panel"
    counts = "".join(
        f'<span class="{"some" if number else "none"}"><b class="{count}" data-state="{name}"'
        f' data-value="{number}">{number:,}</b> {name}</span>'
        for name, number in status.pages.items()
    )
    known = ("profile", "pages")  # what is shown above
    texts = [line for line in lines(status) if not line.startswith(known)]
    texts = [line.removeprefix("workers ").strip() for line in texts]  # "2 workers" says it
    shown = "".join(f"<div>{escape(in_cell_words(line))}</div>" for line in texts)
    return (
        f'{render.style(_FOLDER / "panel_saved.css")}<div class="paise2 {kind}"><div class="head">'
        f"<b>paise2 · {escape(status.profile)}</b><span>{moment}</span></div>"
        f'{_strip(status.pages)}<div class="counts">{counts}</div>{shown}</div>'
    )


def _strip(pages: Mapping[str, int]) -> str:
    """The pages in each state as parts of a bar."""
    total, x, parts = sum(pages.values()) or 1, 0.0, ""
    for name in DONE_FIRST:
        width = 100 * pages[name] / total
        parts += (
            f'<rect class="{name}" x="{x:.2f}" width="{width:.2f}" height="1"/>' if width else ""
        )
        x += width
    shape = 'viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label="pages"'
    return f"<svg {shape}>{parts}</svg>"
