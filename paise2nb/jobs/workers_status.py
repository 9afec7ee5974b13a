"""The background workers, as commands and the API show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paise2nb.core import render
from paise2nb.core.display import Displayable
from paise2nb.core.render import Column


def _worker_columns() -> tuple[Column, ...]:
    return (
        Column("pool"), Column("pid", right=True), Column("state", html=render.tone),
        Column("jobs", text=lambda ids: " ".join(map(str, ids))), Column("error", wide=True),
    )  # fmt: skip


@dataclass(repr=False)
class WorkersStatus(Displayable):
    """The background workers.

    Attributes:
        workers: one entry for each process: pool, pid, state, jobs, started_at, …
        supervisor: its pid and start, or None.
        problem: what keeps jobs from running, with what helps; or None.
        message: what a command that returns this has done.
    """

    workers: list[dict[str, Any]]
    supervisor: dict[str, Any] | None
    problem: str | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``worker status``."""
        return {name: getattr(self, name) for name in ("workers", "supervisor", "problem")}

    def summary(self) -> str:
        """The workers in one line."""
        if not self.workers:
            return "no workers"
        pools = [worker["pool"] for worker in self.workers]
        parts = [f"{name} {pools.count(name)}" for name in sorted(set(pools))]
        return f"{render.amount(len(pools), 'worker')} ({', '.join(parts)})"

    def __str__(self) -> str:
        lines = [render.one_line(self.message or self.summary())]
        if self.workers:
            lines.append(render.text_table(self.workers, _worker_columns()))
        if self.problem:
            lines.append(render.one_line(self.problem))
        return "\n".join(lines)

    def __repr__(self) -> str:
        # Without pids and states: the same for the same workers, in a notebook's output too.
        lines = [self.message or self.summary(), self.problem]
        return "\n".join(render.one_line(line) for line in lines if line)

    def _repr_html_(self) -> str:
        parts = [render.note(render.in_cell_words(line)) for line in repr(self).splitlines()]
        if self.message is None and self.workers:  # asked for: then pids are of use
            parts.insert(1, render.bare_table(self.workers, _worker_columns()))
        return render.panel(*parts)
