"""The state of things: the whole, the workers, what happened since, the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.core import render
from paise2nb.core.clock import iso
from paise2nb.core.display import Displayable, arguments
from paise2nb.jobs.workers_status import WorkersStatus

if TYPE_CHECKING:
    pass

TAIL_BYTES = 1_000_000


def _labelled(label: str, text: str) -> str:
    return f"{label:<9}{render.one_line(text)}"


@dataclass(repr=False)
class Status(Displayable):
    """The whole state: the keys of ``status --json`` as attributes, and what a person asks next."""

    profile: str
    data_dir: str
    immediate: bool
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
    problem: str | None = None
    retries: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``status``."""
        extra = ("problem", "retries", "failures")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in extra}

    def lines(self) -> list[str]:
        """What the text form says, line by line, without times and pids."""
        counts = [f"{number:,} {state}" for state, number in self.jobs.items() if number]
        workers = WorkersStatus(self.workers, self.supervisor).summary()
        lines = [
            _labelled("profile", self.profile),
            _labelled("jobs", " · ".join(counts) or "none"),
            _labelled("items", f"{self.items:,}"),
            _labelled("workers", "jobs run in this process" if self.immediate else workers),
        ]
        if self.paused:
            lines.append(_labelled("paused", self.paused))
        lines += [
            _labelled(
                "failed",
                f"{group['jobs']} × {group['error_class']}: {group['error']}"
                f" → paise2 retry --error {group['error_class']}",
            )
            for group in self.failures
        ]
        if self.problem:
            lines.append(render.one_line(self.problem))
        return lines

    def __str__(self) -> str:
        lines = self.lines()
        lines.insert(1, _labelled("data", self.data_dir))
        if self.completed_per_minute:
            pace = f"{self.completed_per_minute:,.0f} completed a minute"
            if self.seconds_left is not None:
                pace += f", about {render.duration(self.seconds_left)} left"
            lines.append(_labelled("pace", pace))
        if self.oldest_queued_seconds is not None:
            oldest = f"the oldest for {render.duration(self.oldest_queued_seconds)}"
            lines.append(_labelled("waiting", oldest))
        for row in self.retries:
            text = (
                f"job {row['id']} in {render.duration(max(0.0, row['in']))}: {row['task']}"
                f" {arguments(row['args'])}, attempt {row['attempt']} of {row['max_attempts']}"
                f" failed: {row['error']}"
            )
            lines.append(_labelled("retry", text))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        # As `lines`: without times and pids.
        counts = (f"{n:,} {render.tone(state)}" for state, n in self.jobs.items() if n)
        workers = WorkersStatus(self.workers, self.supervisor).summary()
        rows = [
            ("profile", render.escape(self.profile)),
            ("jobs", " · ".join(counts) or "none"),
            ("items", f"{self.items:,}"),
            ("workers", "jobs run in this process" if self.immediate else workers),
            ("paused", render.escape(self.paused or "")),
        ]
        rows += [
            (
                "failed",
                f'<div><b class="bad">{group["jobs"]:,} × {render.escape(group["error_class"])}</b>'
                f" · {render.escape(render.one_line(group['error']))}</div>"
                f"<code>%paise2 retry --error {render.escape(group['error_class'])}</code>",
            )
            for group in self.failures
        ]
        lines = (
            f'<tr><th>{name}</th><td class="wide">{told}</td></tr>' for name, told in rows if told
        )
        problem = render.note(render.in_cell_words(self.problem)) if self.problem else ""
        return render.panel(f"<table><tbody>{''.join(lines)}</tbody></table>", problem)


@dataclass(repr=False)
class Digest(Displayable):
    """What happened since an app was last open.

    ``stored``, ``failed`` and ``waiting`` are counts; ``since`` is seconds since the epoch, None
    for the first time.
    """

    since: float | None
    stored: int
    failed: int
    waiting: int
    found: WorkersStatus

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "since": iso(self.since), "stored": self.stored, "failed": self.failed,
            "waiting": self.waiting, **self.found.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        workers = render.amount(len(self.found.workers), "worker")
        news = (
            f"{self.stored:,} stored, {self.failed:,} failed, {self.waiting:,} waiting, {workers}"
        )
        if self.since is None:
            text = f"new; {self.waiting:,} waiting, {workers}"
        else:
            seen = time.localtime(self.since)
            today = time.strftime("%x", seen) == time.strftime("%x")
            moment = time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", seen)
            text = f"since {moment}: {news}"
        return "\n".join(filter(None, [text, self.found.problem]))


@dataclass(repr=False)
class ResetCounts(Displayable):
    """What a reset forgot."""

    jobs: int
    cached: int
    items: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"jobs": self.jobs, "cached": self.cached, "items": self.items}

    def __str__(self) -> str:
        return (
            f"forgot {render.amount(self.jobs, 'job')}, {render.amount(self.cached, 'cached file')}"
            f" and {render.amount(self.items, 'item')}"
        )


@dataclass(repr=False)
class Log(Displayable):
    """Lines of the workers' log."""

    path: Path
    lines: list[str]

    @classmethod
    def tail(cls, path: Path, number: int) -> Log:
        """The last lines of a file; none if there is no such file."""
        try:
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            text = ""
        return cls(path, text.splitlines()[-number:] if number else [])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"path": str(self.path), "lines": self.lines}

    def __str__(self) -> str:
        return "\n".join(render.plain(line) for line in self.lines) or "the log is empty"
