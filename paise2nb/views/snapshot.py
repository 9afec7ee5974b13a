"""The data of the live views, read at one moment, and the words that they share.

Times are in seconds since the epoch, so a view can count down without reading anything again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from paise2nb.core import render
from paise2nb.core.display import arguments
from paise2nb.core.render import Column
from paise2nb.jobs.models import ELSEWHERE
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import COLUMNS
from paise2nb.plugins import DataStorageProvider
from paise2nb.views.client import JobClient
from paise2nb.views.job_rows import progress
from paise2nb.views.status import Status

PACE_MINUTES = 15  # in the plot
RETRIES = 6
FAILURES = 6
ITEMS = 4
LOG_LINES = 5
SNIPPET = 160  # characters
JOBS_SHOWN = 2  # of one worker
_PHRASES = {str(status.value): status.phrase for status in HTTPStatus}

_WORKER_COLUMNS = (*COLUMNS[:3], Column("doing", wide=True), Column("heartbeat"))


@dataclass(frozen=True)
class Snapshot:
    """Everything that a live view shows, at one moment.

    Attributes:
        at: when it was read, in seconds since the epoch.
        status: the status.
        workers: the entries of the status, and one for each machine that has joined the queue,
            with the first of their jobs and the time of their heartbeat.
        retries: the next retries; ``due`` is in seconds since the epoch.
        failures: the first groups of failures, with the remedy for each.
        left: the estimated time left, as text; None if nothing is left.
        pace: (minute since the epoch, completed, failed) for each of the last minutes, by the
            job store's clock.
        oldest: when the oldest waiting job was enqueued, in seconds since the epoch.
        items: the newest items, with a snippet.
        log: the last lines of the workers' log.
    """

    at: float
    status: Status
    workers: list[dict[str, Any]]
    retries: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    left: str | None
    pace: list[tuple[int, int, int]]
    oldest: float | None
    items: list[dict[str, Any]]
    log: list[str]


def take(client: JobClient, status: Status, log: list[str]) -> Snapshot:
    """Read everything that the live views show; takes a few milliseconds.

    Args:
        client: the app's client.
        status: the current status.
        log: the last lines of the workers' log.
    """
    job_store, now = client.job_store, time.time()
    workers = [*status.workers, *map(_machine, status.machines)]
    ids = [job_id for worker in workers for job_id in worker["jobs"][: JOBS_SHOWN + 1]]
    running = job_store.rows(ids, "listed")
    waited = status.oldest_queued_seconds
    minute = int(job_store.now() // 60)
    pace = {row[0]: row for row in job_store.pace(PACE_MINUTES)}
    return Snapshot(
        at=now,
        status=status,
        workers=[_worker(job_store, worker, running) for worker in workers],
        retries=[_retry(job_store, row) for row in job_store.retries(RETRIES)],
        failures=[_failure(group) for group in status.failures[:FAILURES]],
        left=status.left.text if status.left else None,
        pace=[pace.get(m, (m, 0, 0)) for m in range(minute - PACE_MINUTES + 1, minute + 1)],
        oldest=None if waited is None else now - waited,
        items=[_item(client.items, row) for row in client.items.list(limit=ITEMS)],
        log=log,
    )


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a machine that has joined the queue, as one of a worker."""
    pools = ", ".join(sorted(machine["pools"]))
    return {**machine, "pool": pools, "presence": ELSEWHERE, "error": machine["problem"]}


def _worker(
    job_store: JobStore, worker: dict[str, Any], running: Mapping[int, dict[str, Any]]
) -> dict[str, Any]:
    rows = [running[job_id] for job_id in worker["jobs"] if job_id in running]
    beat = worker["heartbeat_at"]
    return {
        **worker,
        "running": [{**row, "since": job_store.clock.wall(row["started_at"] or 0)} for row in rows],
        "heartbeat": beat and f"{datetime.fromisoformat(beat).astimezone():%H:%M:%S}",
    }


def _retry(job_store: JobStore, row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "argument": arguments(row["args"]),
        "attempt": f"attempt {row['attempt'] + 1} of {row['max_attempts']}",
        "due": job_store.clock.wall(row["run_at"] or 0),
    }


def _failure(group: Mapping[str, Any]) -> dict[str, Any]:
    remedy = group["remedy"]
    words = {"advice": remedy.advice, "command": remedy.command}
    return {**group, **words, "name": failure_name(group)}


def failure_name(group: Mapping[str, Any]) -> str:
    """The name of a group of failures, or of a recurring job with its failure and next time."""
    status, recurs = group["status"], group["recurs"]
    name = f"{status} {_PHRASES.get(status, '')}".strip() if status else group["remedy"].name
    return f"{recurs}: {name}{group['next']}" if recurs else name


def _item(items: DataStorageProvider, row: dict[str, Any]) -> dict[str, Any]:
    whole = items.get(row["id"]) or {}
    # Many texts begin with their title, which is shown beside them.
    text = (whole.get("text") or "").removeprefix(f"{row['title']}\n")
    return {**row, "snippet": render.one_line(text[: 4 * SNIPPET], SNIPPET)}


# Shared by the terminal and the notebook -----------------------------------------------------


def countdown(row: Mapping[str, Any], now: float) -> str:
    """The time until a retry, or what it waits for; ``now`` is in seconds since the epoch."""
    if row["waiting_for"]:
        return f"waits for {row['waiting_for']}"
    left = row["due"] - now
    return f"in {render.duration(round(left))}" if left >= 1 else "now"


def more(shown: Sequence[object], number: int) -> list[str]:
    """The last line of a list that is cut."""
    return [f"and {number - len(shown):,} more"] if number > len(shown) else []


def _activity(worker: Mapping[str, Any], now: float) -> str:
    """The jobs that a worker runs, and for how long; its error, if it has failed."""
    words = []
    for row in worker["running"][:JOBS_SHOWN]:
        reported, seconds = progress(row), now - row["since"]
        number = f"{row['id']} ({reported})" if reported else f"{row['id']}"
        passed = f" · {render.duration(round(seconds))}" if seconds >= 1 else ""
        words.append(f"job {number}: {row['task']} {arguments(row['args'])}{passed}")
    if (more := len(worker["jobs"]) - JOBS_SHOWN) > 0 and words:
        words.append(f"and {more:,} more")
    return worker["error"] or ", ".join(words)


def worker_rows(snapshot: Snapshot, now: float) -> tuple[list[dict[str, Any]], Sequence[Column]]:
    """The rows and columns of the table of workers."""
    rows = [{**worker, "doing": _activity(worker, now)} for worker in snapshot.workers]
    places = [Column("host", title="machine")] if snapshot.status.machines else []
    return rows, (*places, *_WORKER_COLUMNS)


def sparkline(numbers: Sequence[int]) -> str:
    """Numbers as a row of bars, one character each."""
    most = max(numbers, default=0) or 1
    return "".join("▁▂▃▄▅▆▇█"[round(7 * number / most)] for number in numbers)


def states(counts: Mapping[str, int]) -> str:
    """The number of pages or jobs in each state of which there are any."""
    return "   ".join(f"{number:,} {state}" for state, number in counts.items() if number)


def facts(snapshot: Snapshot, now: float) -> list[str]:
    """Throughput, time left and the longest wait, each as text; without those that don't apply."""
    found = []
    if pace := snapshot.status.completed_per_minute:
        found.append(f"{pace:,.0f} completed per minute")
    if snapshot.left:
        found.append(f"left: {snapshot.left}")
    if snapshot.oldest is not None and now - snapshot.oldest >= 1:
        found.append(f"longest wait: {render.duration(round(now - snapshot.oldest))}")
    return found


def text(snapshot: Snapshot, now: float, height: int | None = None) -> str:
    """The snapshot for a terminal.

    Args:
        snapshot: what to show.
        now: seconds since the epoch.
        height: the maximum number of lines; the last ones are left out.
    """
    status = snapshot.status
    counts = states(status.pages)
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    lines = [f"paise2 · {status.profile} · updated {clock}", ""]
    others = states(status.others)
    lines.append(counts or "no pages")
    lines += filter(None, [others and f"other jobs: {others}", status.pauses, status.problem])
    if any(done for _, done, _ in snapshot.pace):
        lines.append(sparkline([done for _, done, _ in snapshot.pace]))
    lines += facts(snapshot, now)
    rows, columns = worker_rows(snapshot, now)
    blocks = {
        "workers": render.text_table(rows, columns).splitlines() if rows else ["none"],
        "retries": [
            f"{countdown(row, now):>8}  job {row['id']}: {row['task']} {row['argument']}"
            f" · {row['attempt']} · {row['error']}"
            for row in snapshot.retries
        ]
        + more(snapshot.retries, status.jobs["retrying"]),
        "failures": [
            f"{row['jobs']:,} × {row['name']} → {row['command']} · {row['advice']}"
            for row in snapshot.failures
        ]
        + more(snapshot.failures, len(status.failures)),
        "latest": [f"{row['title'] or row['url']} · {row['snippet']}" for row in snapshot.items],
        "log": snapshot.log,
    }
    width = render.text_width()
    for title, block in blocks.items():
        if block:
            lines += ["", title, *(f"  {line}" for line in block)]
    shown = [render.plain(line).replace("\n", " ").expandtabs() for line in lines]
    return "\n".join(render.cut(line, width) for line in shown[:height])
