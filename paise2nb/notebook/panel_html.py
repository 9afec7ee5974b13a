"""The panel's HTML: functions from a snapshot to text, without widgets.

Each part has a limit: jobs may say megabytes, and a part is sent whenever it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paise2nb.core import render
from paise2nb.core.errors import shortened
from paise2nb.core.render import (
    CELL_LENGTH,
    amount,
    bare_table,
    escape,
    in_cell_words,
    link,
    one_line,
)
from paise2nb.views import snapshot as snapshots
from paise2nb.views.snapshot import Snapshot
from paise2nb.views.status import Status

# Bytes of HTML, whatever the characters are.
LINE, LINK, TRACEBACK = 1000, 2000, 6000
WORKERS = 12  # rows of the table

STYLES = render.style() + render.style(Path(__file__).with_name("panel.css"))


def block(*parts: str) -> str:
    """Return HTML in the panel's style."""
    return f'<div class="paise2">{"".join(parts)}</div>'


def line(text: object, length: int = CELL_LENGTH) -> str:
    """Return text on one line, of at most `length` characters and `LINE` bytes."""
    while len((shown := escape(one_line(text, length))).encode()) > LINE:
        length = length * 2 // 3
    return shown


def sentence(text: str) -> str:
    """Return a message on one line, its commands written as a cell takes them."""
    return line(in_cell_words(text), LINE)


def url_link(url: str, text: str | None = None) -> str:
    """Return a URL as a link, or as text if the link would be longer than `LINK` bytes."""
    made = link(url, text)
    return made if len(made.encode()) <= LINK else line(text or url)


def section(title: str, *parts: str) -> str:
    """Return a part of the panel with its title, or nothing for an empty one."""
    return block(heading(title), *parts) if any(parts) else ""


def heading(text: str) -> str:
    """Return the title of a part of the panel."""
    return f"<h4>{escape(text)}</h4>"


def head(status: Status, clock: str) -> str:
    """Return the profile and the time of the update."""
    return block(
        f'<div class="head"><b>paise2</b> <span>{line(status.profile)}</span>'
        f'<span class="updated">Updated {clock}</span></div>'
    )


def counts(status: Status) -> str:
    """Return the number of pages in each state, and of the jobs that are part of no page."""
    tiles = (
        f'<div class="tile{"" if number else " zero"}">'
        f'<span class="paise2-count" data-state="{state}" data-value="{number}">{number:,}</span>'
        f"<span>{state}</span></div>"
        for state, number in status.pages.items()
    )
    others = " · ".join(f"{number:,} {state}" for state, number in status.others.items() if number)
    jobs = f'<div class="dim">other jobs: {others}</div>' if others else ""
    return block(f'<div class="tiles">{"".join(tiles)}</div>', jobs)


def plot(snapshot: Snapshot) -> str:
    """Return the jobs that finished in each of the last minutes as bars, the failed ones on top."""
    minutes = snapshot.pace
    highest = max(completed + failed for _, completed, failed in minutes) or 1
    bars = "".join(
        f'<rect class="{state}" x="{x}" y="{-top / highest:.3f}" width=".75"'
        f' height="{number / highest:.3f}"/>'
        for x, (_, completed, failed) in enumerate(minutes)
        for state, top, number in (
            ("completed", completed, completed),
            ("failed", completed + failed, failed),
        )
        if number
    )
    return bars and (
        f'<svg viewBox="0 -1 {len(minutes)} 1" preserveAspectRatio="none" role="img"'
        f' aria-label="jobs finished in each of the last {len(minutes)} minutes">{bars}</svg>'
    )


def facts(snapshot: Snapshot, now: float) -> str:
    """Return the throughput, the time left, and how long the oldest job has been waiting."""
    texts = [*snapshots.facts(snapshot, now), amount(snapshot.status.items, "item")]
    text = sentence(" · ".join(texts))
    return block(f'<div class="facts">{plot(snapshot)}<span>{text}</span></div>')


def message(text: str) -> str:
    """Return what an action has done or is doing."""
    return block(f'<div class="note">{sentence(text)}</div>')


def problem(text: str) -> str:
    """Return one thing that is wrong, with the command that helps."""
    return f'<div class="problem">{sentence(text)}</div>'


def problems(status: Status) -> str:
    """Return what keeps jobs from running."""
    texts = (status.pauses, status.problem)
    return block(*(problem(text) for text in texts if text))


def workers(snapshot: Snapshot, now: float) -> str:
    """Return the table of workers."""
    rows, columns = snapshots.worker_rows(snapshot, now)
    immediate = snapshot.status.immediate
    none = "Jobs run in this process." if immediate else "No workers are running."
    shown = rows[:WORKERS]
    table = bare_table(shown, columns) if rows else none
    more = "".join(snapshots.more(shown, len(rows)))
    return section("Workers", f'<div class="scroll">{table}</div>{more}')


def retry(row: Mapping[str, Any], now: float) -> str:
    """Return one job that will be retried: when, which attempt, which job, and why."""
    return block(
        f'<div class="entry"><span class="soon">{line(snapshots.countdown(row, now))}</span>'
        f" · {line(row['attempt'])} · job {row['id']}: {line(row['task'])}"
        f" {url_link(row['argument'])}"
        f'<div class="dim">{line(row["error"] or "")}</div></div>'
    )


def failure(row: Mapping[str, Any]) -> str:
    """Return one group of failures, or the failed run of a recurring job, and what helps."""
    number = "" if row["recurs"] else f"{row['jobs']:,} × "
    return block(
        f'<div class="entry"><b class="bad">{number}{sentence(row["name"])}</b>'
        f" · {sentence(row['advice'])} <code>{sentence(row['command'])}</code></div>"
    )


def failure_details(row: Mapping[str, Any]) -> str:
    """Return the last failure of a group, folded."""
    opened = url_link(row["argument"], "Open")
    attempts = amount(row["attempts"], "attempt") + (f" · {opened}" if "href" in opened else "")
    return block(
        f"<details><summary>job {row['id']}: {line(row['task'])} "
        f"{line(row['argument'], 100)}</summary>"
        f'<div class="entry">{line(row["error"] or "", 400)}</div>'
        f'<div class="dim">{attempts}</div>{_traceback(row["traceback"])}</details>'
    )


def _traceback(text: str) -> str:
    length = TRACEBACK
    while len((shown := escape(shortened(text, length))).encode()) > TRACEBACK:
        length = length * 2 // 3
    return f"<pre>{shown}</pre>" if text else ""


def latest_items(snapshot: Snapshot) -> str:
    """Return the newest items: the title as a link, and the beginning of the text."""
    entries = (
        f'<div class="entry">{url_link(row["url"], row["title"] or row["url"])}'
        f'<div class="dim">{line(row["snippet"])}</div></div>'
        for row in snapshot.items
    )
    return section("Latest items", *entries)


def log(snapshot: Snapshot) -> str:
    """Return the last lines of the workers' log."""
    lines = "\n".join(line(text, LINE) for text in snapshot.log)
    return section("Log", f"<pre>{lines}</pre>" if lines else "")


def fallback(status: Status) -> str:
    """Return what a saved notebook shows without a kernel. It is the same for the same work."""
    lines = (f"<div>{sentence(text)}</div>" for text in status.lines())
    return STYLES + counts(status) + block(*lines)
