"""What ``paise2 watch`` shows in a terminal."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from paise2nb.core import render
from paise2nb.core.clock import local_time
from paise2nb.core.display import arguments
from paise2nb.core.render import Column
from paise2nb.jobs.models import ELSEWHERE
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import COLUMNS
from paise2nb.plugins import DataStorageProvider
from paise2nb.views.client import JobClient
from paise2nb.views.job_rows import progress
from paise2nb.views.status import Status, due_in_words, failure_name

PACE_MINUTES = 15
RETRIES = 6
FAILURES = 6
ITEMS = 4
LOG_LINES = 5
SNIPPET = 160  # characters
JOBS_SHOWN = 2  # of one worker

_WORKER_COLUMNS = (
    *COLUMNS[:3],
    Column("doing", wide=True),
    Column("heartbeat_at", title="heartbeat", text=lambda moment: local_time(moment)[11:19]),
)


def screen(client: JobClient, status: Status, log: Sequence[str], height: int | None = None) -> str:
    """Read what a terminal shows beside the status; takes a few milliseconds.

    Args:
        client: the app's client.
        status: the current status.
        log: the last lines of the workers' log.
        height: the maximum number of lines; the last ones are left out.
    """
    job_store = client.job_store
    others, pace = _states(status.others), _pace(job_store)
    lines = [f"paise2 · {status.profile} · updated {time.strftime('%H:%M:%S')}", ""]
    lines.append(_states(status.pages) or "no pages")
    lines += filter(None, [others and f"other jobs: {others}", status.pauses, status.problem])
    lines += [sparkline(pace)] if any(pace) else []
    lines += _facts(status)
    blocks = {
        "workers": _workers(job_store, status),
        "retries": _retries(job_store, status.jobs["retrying"]),
        "failures": _failures(status.failures),
        "latest": _latest(client.items),
        "log": log,
    }
    for title, block in blocks.items():
        if block:
            lines += ["", title, *(f"  {line}" for line in block)]
    width = render.text_width()
    shown = [render.plain(line).replace("\n", " ").expandtabs() for line in lines]
    return "\n".join(render.cut(line, width) for line in shown[:height])


def _states(counts: Mapping[str, int]) -> str:
    """The number of pages or jobs in each state of which there are any."""
    return "   ".join(f"{number:,} {state}" for state, number in counts.items() if number)


def _pace(job_store: JobStore) -> list[int]:
    """The pages and other jobs that completed in each of the last minutes."""
    completed = {minute: number for minute, number, _ in job_store.pace(PACE_MINUTES)}
    last = int(job_store.now() // 60)
    return [completed.get(minute, 0) for minute in range(last - PACE_MINUTES + 1, last + 1)]


def sparkline(numbers: Sequence[int]) -> str:
    """Numbers as a row of bars, one character each."""
    most = max(numbers, default=0) or 1
    return "".join("▁▂▃▄▅▆▇█"[round(7 * number / most)] for number in numbers)


def _facts(status: Status) -> list[str]:
    """Throughput, time left and the longest wait, without those that don't apply."""
    pace, waited = status.completed_per_minute, status.oldest_queued_seconds or 0
    facts = {
        f"{pace:,.0f} completed per minute": pace,
        f"left: {status.left and status.left.text}": status.left,
        f"longest wait: {render.duration(round(waited))}": waited >= 1,
    }
    return [text for text, applies in facts.items() if applies]


def _workers(job_store: JobStore, status: Status) -> list[str]:
    """The table of the workers, and of the machines that have joined the queue."""
    machines = [
        {**machine, "pool": ", ".join(sorted(machine["pools"])), "presence": ELSEWHERE,
         "error": machine["problem"]}
        for machine in status.machines
    ]  # fmt: skip
    rows = [{**row, "doing": _doing(job_store, row)} for row in [*status.workers, *machines]]
    places = [Column("host", title="machine")] if machines else []
    table = render.text_table(rows, (*places, *_WORKER_COLUMNS)) if rows else "none"
    return table.splitlines()


def _doing(job_store: JobStore, worker: Mapping[str, Any]) -> str:
    """The jobs that a worker runs, and for how long; its error, if it has failed."""
    shown, words = worker["jobs"][:JOBS_SHOWN], []
    for row in job_store.rows(shown, "listed").values():
        reported, seconds = progress(row), job_store.now() - (row["started_at"] or 0)
        number = f"{row['id']} ({reported})" if reported else f"{row['id']}"
        passed = f" · {render.duration(round(seconds))}" if seconds >= 1 else ""
        words.append(f"job {number}: {row['task']} {arguments(row['args'])}{passed}")
    if words:
        words += _more(shown, len(worker["jobs"]))
    return worker["error"] or ", ".join(words)


def _retries(job_store: JobStore, number: int) -> list[str]:
    rows, lines = job_store.retries(RETRIES), []
    for row in rows:
        due = due_in_words(row, round((row["run_at"] or 0) - job_store.now()))
        attempt = f"attempt {row['attempt'] + 1} of {row['max_attempts']}"
        job = f"job {row['id']}: {row['task']} {arguments(row['args'])}"
        lines.append(f"{due:>8}  {job} · {attempt} · {row['error']}")
    return lines + _more(rows, number)


def _failures(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = groups[:FAILURES]
    lines = [
        f"{group['jobs']:,} × {failure_name(group)} → {group['remedy'].command}"
        f" · {group['remedy'].advice}"
        for group in shown
    ]
    return lines + _more(shown, len(groups))


def _latest(items: DataStorageProvider) -> list[str]:
    """The newest items, with the beginning of their texts."""
    lines = []
    for row in items.list(limit=ITEMS):
        # Many texts begin with their title, which is shown beside them.
        text = ((items.get(row["id"]) or {}).get("text") or "").removeprefix(f"{row['title']}\n")
        snippet = render.one_line(text[: 4 * SNIPPET], SNIPPET)
        lines.append(f"{row['title'] or row['url']} · {snippet}")
    return lines


def _more(shown: Sequence[object], number: int) -> list[str]:
    """The last line of a list that is cut."""
    return [f"and {number - len(shown):,} more"] if number > len(shown) else []
