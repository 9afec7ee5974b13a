"""The data directory of one scenario, its apps and workers, and the checks of what must hold."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes as process
from paise2nb.core.errors import StorageError
from paise2nb.jobs.models import STATES
from paise2nb.jobs.store import JobStore
from tests.chaos.plugin import EFFECTS
from tests.waiting import until

PLUGIN = Path(__file__).with_name("plugin.py")
ROOT = Path(__file__).parents[2]


class Environment:
    """What one scenario works with. A context manager: it ends all workers and closes all apps.

    Args:
        root: an empty directory.
        seed: of `random`.
        tolerance: a factor for promised times. 1 holds to them; more is for machines that are
            busy with other things.

    Attributes:
        random: the source of everything random.
        figures: what the scenario has measured, for the table.
    """

    def __init__(self, root: Path, *, seed: int, tolerance: float) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.random = random.Random(seed)
        self.seed = seed
        self.tolerance = tolerance
        self.figures: dict[str, Any] = {}
        self._apps: list[App] = []
        self._settings: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._apps:
            with suppress(StorageError):  # the scenario has destroyed the job store
                self.kill_all()
        for app in self._apps:
            app.close()

    # Apps and workers ------------------------------------------------------------------------

    def settings(self, **chosen: Any) -> dict[str, Any]:
        """The settings of the apps, with some changed: ``a__b=1`` is ``a.b: 1``."""
        defaults: dict[str, Any] = {
            "plugins": [str(PLUGIN)],
            "workers.concurrency": 2,
            "workers.cancel_grace": 0.2,
            "workers.idle_exit": 0,
            "workers.pools": {"many": {"tasks": [], "processes": 1, "threads": 16}},
            # No job fails because its worker was killed too often.
            "workers.retry.policies": {
                "crash": {"max_retries": 1000, "retry_delay": 0.01, "max_delay": 0.05}
            },
        }
        return {**defaults, **{key.replace("__", "."): v for key, v in chosen.items()}}

    def open(self, **chosen: Any) -> App:
        """Open an app on the data directory."""
        self._settings = self.settings(**chosen)
        app = paise2nb.open("development", data_dir=self.data_dir, settings=self._settings)
        self._apps.append(app)
        if (self.data_dir / EFFECTS).exists():  # a suspended worker may have its lock
            return app
        with closing(sqlite3.connect(self.data_dir / EFFECTS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE effects (key PRIMARY KEY, times, at) WITHOUT ROWID")
        return app

    @property
    def job_store(self) -> JobStore:
        """The job store of that app, for what only its rows can tell or set."""
        return self.app.queue.job_store

    @property
    def app(self) -> App:
        """The app that was opened last."""
        return self._apps[-1]

    @contextmanager
    def variables(self, **values: str) -> Iterator[None]:
        """Set environment variables for the processes that are started within the block."""
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def program(self, text: str, *arguments: object) -> list[str]:
        """The command of a Python process that runs this text with an open `app`."""
        opening = (
            f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r}); import paise2nb\n"
            # Children of a test run that was started in the background ignore Ctrl-C.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"app = paise2nb.open('development', {str(self.data_dir)!r}, {self._settings!r})\n"
        )
        return [sys.executable, "-c", opening + text, *map(str, arguments)]

    def workers(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The rows of the worker processes that are alive."""
        return [
            row
            for row in self.job_store.workers()
            if process.alive(row["process"]) and (row["state"] == "ready" or not ready)
        ]

    def ready_pools(self) -> Counter[str]:
        """How many processes of each pool are ready and were started by the current supervisor."""
        parent = (self.supervisor() or "").partition("-")[0]
        return Counter(
            row["pool"]
            for row in self.workers(ready=True)
            if ":" not in row["pool"]
            and Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()[1] == parent
        )

    def supervisor(self) -> str | None:
        """The identity of the supervisor process; None if it is not alive."""
        row = self.job_store.supervisor()
        name = row and row["process"]
        return name if name and process.alive(name) else None

    def kill_all(self) -> None:
        """Kill the supervisor and all workers with SIGKILL at the same time."""
        names = [row["process"] for row in self.job_store.workers()]
        if supervisor := self.supervisor():
            names.insert(0, supervisor)
        for name in names:
            process.send(name, signal.SIGKILL)
        until(lambda: not any(map(process.alive, names)))

    # What must hold --------------------------------------------------------------------------

    def rows(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        """Query the job store through a separate connection."""
        with closing(sqlite3.connect(self.data_dir / "tasks.db", timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, parameters).fetchall()

    def effects(self) -> dict[str, int]:
        """How often each effect was written, by key."""
        with closing(sqlite3.connect(self.data_dir / EFFECTS, timeout=60)) as connection:
            return dict(connection.execute("SELECT key, times FROM effects"))

    def effect_times(self) -> dict[str, float]:
        """When each effect was first written, by the clock of the job store."""
        with closing(sqlite3.connect(self.data_dir / EFFECTS, timeout=60)) as connection:
            return dict(connection.execute("SELECT key, at FROM effects"))

    def check_counts(self) -> None:
        """The counts by state equal the numbers of jobs and pages in that state, at any moment."""
        # One pass over the jobs for each query: this is called beside the workers, often.
        counted = self.rows(
            "WITH found AS (SELECT state, count(*) AS all_jobs, sum(parent_id IS NULL) AS all_roots"
            " FROM jobs GROUP BY state)"
            " SELECT name, jobs, roots, ifnull(all_jobs, 0) AS all_jobs,"
            " ifnull(all_roots, 0) AS all_roots FROM counts LEFT JOIN found ON state = name"
        )
        assert {row["name"] for row in counted} == set(STATES)
        for row in counted:
            assert (row["jobs"], row["roots"]) == (row["all_jobs"], row["all_roots"]), row["name"]
        states = {"page": "page_state", "other": "iif(page_id IS NULL, state, NULL)"}
        for kind, state in states.items():
            rows = self.rows(
                f"WITH found AS (SELECT {state} AS found, count(*) AS jobs FROM jobs GROUP BY 1)"
                " SELECT name, number, ifnull(jobs, 0) AS counted"
                " FROM page_counts LEFT JOIN found ON found = name WHERE kind = ?",
                kind,
            )
            assert rows
            assert not [dict(row) for row in rows if row["number"] != row["counted"]], kind

    def check(self) -> None:
        """Check what holds while no job is being rescued: counts, claims, follow-ups, history."""
        self.check_counts()
        living = {row["id"] for row in self.workers()}
        for row in self.rows("SELECT id, state, worker FROM jobs"):
            assert (row["state"] == "running") <= (row["worker"] in living), dict(row)
        twice = self.rows(
            "SELECT parent_id, task, args, count(*) AS copies FROM jobs"
            " WHERE parent_id IS NOT NULL GROUP BY 1, 2, 3 HAVING copies > 1"
        )
        assert not [dict(row) for row in twice], "follow-up jobs were added twice"
        unrecorded = self.rows(
            "SELECT id, state, run, (SELECT count(*) FROM attempts WHERE job_id = id) AS records"
            " FROM jobs WHERE records + (state IN ('completed', 'running')) != run"
        )
        assert not [dict(row) for row in unrecorded], "executions without a record"
        uncounted = self.rows(
            "SELECT task, outcome, sum(number) AS difference FROM ("
            " SELECT task, outcome, number FROM history JOIN series ON series.id = history.series"
            " WHERE task != ''"
            " UNION ALL SELECT task, outcome, -1 FROM attempts JOIN jobs ON jobs.id = job_id"
            " UNION ALL SELECT task, 'completed', -1 FROM jobs WHERE state = 'completed'"
            ") GROUP BY task, outcome HAVING difference != 0"
        )
        assert not [dict(row) for row in uncounted], "executions that the history lacks"
        assert self.rows("PRAGMA integrity_check")[0][0] == "ok"

    def check_all_done(self, expected: set[str]) -> None:
        """Check that all jobs have completed and all effects are stored, each once."""
        self.check()
        states = Counter(row["state"] for row in self.rows("SELECT state FROM jobs"))
        effects = self.effects()
        lost = (expected - effects.keys()) | {s for s in states if s != "completed"}
        jobs = self.rows("SELECT args, count(*) AS copies FROM jobs GROUP BY task, args")
        duplicates = sum(row["copies"] - 1 for row in jobs)
        self.figures |= {
            "jobs": sum(states.values()),
            "lost": len(lost),
            "duplicates": duplicates,
            "executed again": sum(effects.values()) - len(effects),
        }
        assert not lost, lost
        assert not duplicates
        assert effects.keys() == expected

    def within(self, seconds: float, promised: float, what: str) -> None:
        """Record a duration, and check that it is no longer than promised."""
        self.figures[what] = f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
        assert seconds <= promised * self.tolerance, f"{what}: {seconds:.2f} s"


class Standstill:
    """Measures the longest time during which no job completed.

    Attributes:
        longest: that time in seconds.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._completed = -1
        self._since = time.monotonic()
        self.longest = 0.0

    def update(self) -> int:
        """Count the completed jobs, and return their number."""
        completed = self._environment.job_store.counts()[0]["completed"]
        now = time.monotonic()
        self.longest = max(self.longest, now - self._since)
        if completed != self._completed:
            self._completed, self._since = completed, now
        return completed
