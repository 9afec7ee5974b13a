"""The background workers as the commands and the API show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from paise2nb.core import render
from paise2nb.core.display import Displayable
from paise2nb.core.processes import is_stopped, pid_of
from paise2nb.core.render import Column
from paise2nb.jobs.models import ELSEWHERE, HERE, IMMEDIATE
from paise2nb.jobs.worker_registry import LEASE_SECONDS, WorkerRegistry

COLUMNS = (
    Column("pool"),
    Column("pid", right=True),
    Column("state", html=render.tone),
    Column("jobs", text=lambda ids: " ".join(map(str, ids))),
    Column("error", wide=True),
)
MACHINE_COLUMNS = (
    Column("host", title="machine"),
    Column("pid", right=True),
    Column("state", html=render.tone),
    Column("pools", text=lambda pools: " ".join(f"{name} {pools[name]}" for name in sorted(pools))),
    Column("jobs", text=lambda ids: str(len(ids))),
    Column("problem", wide=True),
)


START = "paise2 worker start"
OTHER_SETTINGS = "the workers run with other settings; to use these: paise2 worker restart"


def waiting_jobs(jobs: int) -> str:
    """The beginning of a message about a number of jobs that wait."""
    return f"{jobs:,} {'jobs wait' if jobs > 1 else 'job waits'}"


def no_worker_runs(jobs: int) -> str:
    """The message for a number of jobs that wait while there are no workers."""
    return f"{waiting_jobs(jobs)} and no worker runs; start some: {START}"


def pause_reason(pool: str = "") -> str:
    """The reason why no jobs of a pool are claimed, or none at all if the name is empty."""
    if pool:
        return f"pool {pool} is paused; to go on: paise2 resume {pool}"
    return "the queue is paused; to go on: paise2 resume"


def pool_without_workers(pool: str) -> str:
    """The reason why the jobs of a pool wait that was not started."""
    return f"pool {pool} has no workers; start them: {START} --pool {pool}"


def silent_processes(job_store: WorkerRegistry) -> list[tuple[str, str]]:
    """What has given no sign for longer than `LEASE_SECONDS`, and what to do about it.

    Only processes that this machine sees: those elsewhere are given up after that time.
    """
    supervisor, found = job_store.supervisor(), []
    rows = [("supervisor", supervisor)] if supervisor is not None else []
    rows += [(f"worker of pool {row['pool']}", row) for row in job_store.workers()]
    for name, row in rows:
        silent = job_store.now() - row["heartbeat_at"]
        if row["presence"] != HERE or row.get("pool") == IMMEDIATE or silent < LEASE_SECONDS:
            continue
        pid = pid_of(row["process"])
        text = f"the {name} (pid {pid}) has given no sign for {render.duration(silent)}"
        if is_stopped(pid):
            found.append((f"{text}: it is stopped", f"continue it: kill -CONT {pid}"))
        else:
            found.append((text, "see what it does: paise2 worker logs"))
    return found


@dataclass(repr=False)
class Pauses(Displayable):
    """The pauses of the queue. Attributes that are keys of the JSON have its values.

    Attributes:
        paused: why no jobs are claimed, or None.
        paused_pools: why no jobs of some pools are claimed.
    """

    paused: str | None
    paused_pools: dict[str, str]

    @classmethod
    def of(cls, pools: Iterable[str]) -> Pauses:
        """Return the pauses of some pools; an empty name stands for all pools."""
        names = set(pools)
        reasons = {pool: pause_reason(pool) for pool in sorted(names - {""})}
        return cls(pause_reason() if "" in names else None, reasons)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"paused": self.paused, "paused_pools": self.paused_pools}

    def reasons(self) -> list[str]:
        """All reasons."""
        return [*filter(None, [self.paused]), *self.paused_pools.values()]

    def __str__(self) -> str:
        return "; ".join(self.reasons()) or "nothing is paused"


def elsewhere(row: dict[str, Any]) -> str:
    """Where a process of the worker registry runs that this process can't see."""
    return f"in another container or on another machine ({row['host']})"


@dataclass(repr=False)
class WorkersStatus(Displayable):
    """The background workers.

    Attributes:
        workers: a dictionary for each process: pool, pid, state, jobs, started_at, …
        supervisor: its pid and start time, or None.
        problem: the reason why jobs do not run and how to fix it, or None.
        message: the result of the command that returned this object.
        machines: a dictionary for each machine that has joined the queue: host, pid, state, jobs,
            pools (the threads of each), version, problem, started_at, heartbeat_at.
    """

    workers: list[dict[str, Any]]
    supervisor: dict[str, Any] | None
    problem: str | None = None
    message: str | None = None
    machines: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as printed by ``worker status --json``."""
        names = ("workers", "supervisor", "problem", "machines")
        return {name: getattr(self, name) for name in names}

    def summary(self) -> str:
        """The workers in one line."""
        if not self.workers and not self.machines:
            return "no workers"
        pools = [worker["pool"] for worker in self.workers]
        parts = [f"{name} {pools.count(name)}" for name in dict.fromkeys(pools)]
        places = {elsewhere(row) for row in self.workers if row.get("presence") == ELSEWHERE}
        machines = [f"and {render.amount(len(self.machines), 'machine')}"] if self.machines else []
        found = [render.amount(len(pools), "worker"), f"({', '.join(parts)})"]
        return " ".join([*found, *places, *machines])

    def __str__(self) -> str:
        lines = [render.one_line(self.message or self.summary())]
        if self.workers:
            lines.append(render.text_table(self.workers, COLUMNS))
        if self.machines:
            lines.append(render.text_table(self.machines, MACHINE_COLUMNS))
        if self.problem:
            lines.append(render.one_line(self.problem))
        return "\n".join(lines)

    def __repr__(self) -> str:
        # Without pids and states, so that the output of a notebook is the same each time.
        lines = [self.message or self.summary(), self.problem]
        return "\n".join(render.one_line(line) for line in lines if line)

    def _repr_html_(self) -> str:
        parts = [render.note(render.in_cell_words(line)) for line in repr(self).splitlines()]
        if self.message is None and self.workers:  # the result of `worker status`: pids are useful
            parts.insert(1, render.html_table(self.workers, COLUMNS))
            if self.machines:
                parts.insert(2, render.html_table(self.machines, MACHINE_COLUMNS))
        return render.panel(*parts)
