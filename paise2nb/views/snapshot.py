"""What the live views show, gathered once and put into words once: the widget, the terminal.

Times are kept as moments, so that a view can count down without reading anything anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from paise2nb.core import render
from paise2nb.core.display import arguments
from paise2nb.core.render import Column
from paise2nb.views.jobs import progress
from paise2nb.views.status import Status

if TYPE_CHECKING:
    from paise2nb.app import App

PACE_MINUTES = 15  # that the plot shows
RETRIES = 6
FAILURES = 6
ITEMS = 4
LOG_LINES = 5
SNIPPET = 160
HELD_SHOWN = 2  # jobs of one worker that are named

RETRY = "paise2 retry --error {error_class}"
REPLAY = "paise2 replay {id}"
LOOK = "paise2 job {id}"


class Remedy(NamedTuple):
    """What a kind of failure is called, what helps, and the command to type."""

    name: str
    advice: str
    command: str = RETRY


# By error class. What is not here is an exception of somebody's code: look at it where it fails.
REMEDIES: Mapping[str, Remedy] = {
    "timeout": Remedy("timed out", "the other side was slow; try again"),
    "connection": Remedy("connection failed", "try again when the host answers"),
    "dns": Remedy("unknown host", "check the spelling, or try again when the network is back"),
    "throttled": Remedy("throttled", "the host wants a pause; try again later"),
    "http_5xx": Remedy("server error", "their side broke; try again later"),
    "http_4xx": Remedy("refused", "check the address; try again if it was mended"),
    "too_large": Remedy("too large", "raise fetch.max_bytes, then try again"),
    "redirects": Remedy("redirected in circles", "check the address in a browser"),
    "blocked": Remedy(
        "private address", "if it is yours: fetch.allow_private_addresses, then retry"
    ),
    "bad_address": Remedy("bad address", "mend the address and enqueue it anew", LOOK),
    "robots": Remedy("refused by robots.txt", "the site asks robots to stay away", LOOK),
    "not_found": Remedy("no such file", "put the file back, then try again"),
    "unsupported": Remedy("unsupported type", "an extractor plugin can read it", "paise2 plugins"),
    "unreadable": Remedy("unreadable document", "the file may be damaged; look at it", REPLAY),
    "empty": Remedy("without text", "nothing to read there; look at it", REPLAY),
    "not_cached": Remedy("bytes forgotten", "fetch the address again", LOOK),
    "crash": Remedy("crashed the worker", "run it here to see why", REPLAY),
    "memory": Remedy("out of memory", "raise workers.memory_mb, then try again"),
}


@dataclass(frozen=True)
class Snapshot:
    """Everything that a live view shows, at one moment.

    Attributes:
        at: when it was read, in seconds since the epoch.
        held: the jobs that workers hold now, by id.
        left: the time left in words, None where nothing is left.
        pace: (minute since the epoch, completed, failed), as the job table tells.
        minute: the minute since the epoch, now, by the job table's clock.
    """

    at: float
    status: Status
    workers: list[dict[str, Any]]
    retries: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    left: str | None
    pace: list[tuple[int, int, int]]
    minute: int
    oldest: float | None
    items: list[dict[str, Any]]
    log: list[str]


def take(app: App) -> Snapshot:
    """Read everything that the live views show; a few milliseconds."""
    job_store, now = app.queue.job_store, time.time()
    status = app.status()
    held = job_store.rows([job_id for worker in status.workers for job_id in worker["jobs"]])
    wait = status.oldest_queued_seconds
    return Snapshot(
        at=now,
        status=status,
        workers=[_worker(app, worker, held) for worker in status.workers],
        retries=[_retry(app, row) for row in job_store.retries(RETRIES)],
        failures=[_failure(app, group) for group in status.failures[:FAILURES]],
        left=_time_left(app, status, now),
        pace=job_store.pace(PACE_MINUTES),
        minute=int(job_store.now() // 60),
        oldest=None if wait is None else now - wait,
        items=[_item(app, row) for row in app.store.list(limit=ITEMS)],
        log=app.logs(LOG_LINES).lines,
    )


def _worker(app: App, worker: dict[str, Any], held: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    rows = [held[job_id] for job_id in worker["jobs"] if job_id in held]
    clock = app.queue.job_store.clock
    return {
        **worker,
        "holds": [
            (
                f"{row['id']} ({far})" if (far := progress(row)) else str(row["id"]),
                row["task"],
                arguments(row["args"]),
                clock.wall(row["started_at"] or 0),
            )
            for row in rows
        ],
        "heartbeat": _moment(worker["heartbeat_at"]),
    }


def _moment(iso: str | None) -> str:
    """The time of day of an ISO 8601 moment, as the clock on the wall says it."""
    from datetime import datetime

    return "" if iso is None else f"{datetime.fromisoformat(iso).astimezone():%H:%M:%S}"


def _retry(app: App, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "task": row["task"],
        "argument": arguments(row["args"]),
        "attempt": f"attempt {row['attempt'] + 1} of {row['max_attempts']}",
        "error": row["error"],
        "due": app.queue.job_store.clock.wall(row["run_at"]),
    }


def _failure(app: App, group: dict[str, Any]) -> dict[str, Any]:
    attempts = app.queue.job_store.attempts(group["id"])
    remedy = REMEDIES.get(group["error_class"]) or Remedy(
        group["error_class"] or "failed", "run it here, then %debug opens the frame", REPLAY
    )
    name = remedy.name
    if group["status"] is not None:
        number = int(group["status"])
        known = number in HTTPStatus._value2member_map_
        name = f"{number} {HTTPStatus(number).phrase}" if known else str(number)
    return {
        "group": (group["error_class"], group["status"]),
        "id": group["id"],
        "task": group["task"],
        "argument": arguments(group["args"]),
        "jobs": group["jobs"],
        "error_class": group["error_class"],
        "status": group["status"],
        "name": name,
        "advice": remedy.advice,
        "command": remedy.command.format(**group),
        "error": group["error"],
        "attempts": len(attempts),
        "traceback": next((a["traceback"] for a in reversed(attempts) if a["traceback"]), ""),
    }


def _item(app: App, row: dict[str, Any]) -> dict[str, Any]:
    whole = app.store.get(row["id"]) or {}
    # Many a text begins with its title, which stands beside it.
    text = (whole.get("text") or "").removeprefix(f"{row['title']}\n")
    text = render.one_line(text[: 4 * SNIPPET], SNIPPET)
    return {**row, "snippet": text}


def _time_left(app: App, status: Status, now: float) -> str | None:
    """When all will be done, by what holds it up: the workers' pace, or the last retry."""
    job_store, jobs, roots = app.queue.job_store, status.jobs, status.roots
    waiting = sum(jobs[state] for state in ("queued", "running", "retrying"))
    if not waiting or not status.workers:
        return None
    unfinished = sum(roots[state] for state in ("queued", "running", "retrying"))
    # What waits will have follow-ups, as many as what is done has had.
    followed = max(1.0, jobs["completed"] / roots["completed"]) if roots["completed"] else 1.0
    expected = waiting + unfinished * (followed - 1)
    pace = status.completed_per_minute / 60
    by_pace = expected / pace if pace else 0.0
    last = job_store.last_retry()
    by_retry = job_store.clock.wall(last) - now if last else 0.0
    host = job_store.slowest_host()
    if host is not None and host[3] > max(by_retry - 1, by_pace / 2):  # most of it waits there
        name, line, delay, seconds = host
        until = f"about {_clock(now + max(seconds, by_pace), now)}; more workers won't help"
        if not line or line * delay < seconds / 2:
            return f"{name} asked for a pause: {until}"
        return f"{line:,} on {name} at {delay:g} s each: {until}"
    if by_retry > by_pace:
        return f"the last retry comes at {_clock(now + by_retry, now)}"
    if not by_pace:
        return "too early to say"
    return f"about {render.duration(by_pace)}, until {_clock(now + by_pace, now)}"


def _clock(moment: float, now: float) -> str:
    """A time of day, with the day where that is not today."""
    then, today = time.localtime(moment), time.localtime(now)
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%a %H:%M", then)


# Words for both faces ------------------------------------------------------------------------


def holding(worker: Mapping[str, Any], now: float) -> str:
    """What a worker does, and for how long."""
    held = worker["holds"]
    words = [
        f"job {job_id}: {task} {argument}"
        + (f" · {render.duration(round(now - since))}" if now - since >= 1 else "")
        for job_id, task, argument, since in held[:HELD_SHOWN]
    ]
    if len(held) > HELD_SHOWN:
        words.append(f"and {len(held) - HELD_SHOWN} more")
    return worker["error"] or ", ".join(words)


def countdown(due: float, now: float) -> str:
    """How long until a retry."""
    return f"in {render.duration(round(due - now))}" if due - now >= 1 else "now"


def worker_rows(snapshot: Snapshot, now: float) -> tuple[list[dict[str, Any]], Sequence[Column]]:
    """The table of workers."""
    rows = [{**worker, "doing": holding(worker, now)} for worker in snapshot.workers]
    columns = (
        Column("pool"), Column("pid", right=True), Column("state", html=render.tone),
        Column("doing", wide=True), Column("heartbeat"),
    )  # fmt: skip
    return rows, columns


def text(snapshot: Snapshot, now: float, height: int | None = None) -> str:
    """The overview for a terminal.

    Args:
        overview: what was read.
        now: seconds since the epoch.
        height: lines; what does not fit is left out from the end.
    """
    status = snapshot.status
    counts = "   ".join(f"{number:,} {state}" for state, number in status.roots.items() if number)
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    lines = [f"paise2 · {status.profile} · updated {clock}", ""]
    lines += [counts or "no jobs", *filter(None, [status.paused, status.problem])]
    pace = sum(done for minute, done, _ in snapshot.pace)
    if pace:
        bars = sparkline([done for _, done, _ in by_minute(snapshot)])
        lines.append(f"{bars}  {status.completed_per_minute:,.0f} completed a minute")
    if snapshot.left:
        lines.append(f"left: {snapshot.left}")
    if snapshot.oldest is not None and now - snapshot.oldest >= 1:
        lines.append(f"the oldest waits for {render.duration(round(now - snapshot.oldest))}")
    rows, columns = worker_rows(snapshot, now)
    blocks = {
        "workers": render.text_table(rows, columns).splitlines() if rows else ["none"],
        "retries": [
            f"{countdown(row['due'], now):>8}  job {row['id']}: {row['task']} {row['argument']}"
            f" · {row['attempt']} · {row['error']}"
            for row in snapshot.retries
        ],
        "failures": [
            f"{row['jobs']:,} × {row['name']} → {row['command']} · {row['advice']}"
            for row in snapshot.failures
        ],
        "latest": [f"{row['title'] or row['url']} · {row['snippet']}" for row in snapshot.items],
        "log": snapshot.log,
    }
    width = render.text_width()
    for title, block in blocks.items():
        if block:
            lines += ["", title, *(f"  {line}" for line in block)]
    shown = [render.plain(line).replace("\n", " ").expandtabs() for line in lines]
    return "\n".join(render.cut(line, width) for line in shown[:height])


def by_minute(snapshot: Snapshot) -> list[tuple[int, int, int]]:
    """The pace with the minutes in which nothing ended."""
    known = {minute: (minute, done, failed) for minute, done, failed in snapshot.pace}
    first = snapshot.minute - PACE_MINUTES + 1
    return [known.get(minute, (minute, 0, 0)) for minute in range(first, snapshot.minute + 1)]


def sparkline(numbers: Sequence[int]) -> str:
    """Numbers as bars of one line."""
    most = max(numbers, default=0) or 1
    return "".join("▁▂▃▄▅▆▇█"[round(7 * number / most)] for number in numbers)


__all__ = [
    "REMEDIES",
    "Snapshot",
    "by_minute",
    "countdown",
    "holding",
    "sparkline",
    "take",
    "text",
    "worker_rows",
]  # fmt: skip
