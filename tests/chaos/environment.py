"""One data directory that is going to be hurt: apps and workers on it, and what must hold after."""

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
from types import TracebackType
from typing import Any, Self

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes as process
from paise2nb.core.errors import StorageError
from paise2nb.jobs import STATES
from tests.chaos.plugin import EFFECTS
from tests.waiting import until

PLUGIN = Path(__file__).with_name("plugin.py")
ROOT = Path(__file__).parents[2]


class Environment:
    """Where one scenario takes place.

    Args:
        place: an empty directory.
        seed: of all that is random.
        patience: how many times a promised time may be exceeded before that counts; 1 holds to
            it, more is for machines that do other things besides.
    """

    def __init__(self, place: Path, *, seed: int, patience: float) -> None:
        self.place = place
        self.data_dir = place / "data"
        self.random = random.Random(seed)
        self.seed = seed
        self.patience = patience
        self.figures: dict[str, Any] = {}
        self._apps: list[App] = []
        self._settings: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._apps:
            with suppress(StorageError):  # the job table was what has been hurt
                self.kill_all()
        for app in self._apps:
            app.close()

    # Apps and workers ------------------------------------------------------------------------

    def settings(self, **chosen: Any) -> dict[str, Any]:
        """The settings of this house; ``a__b=1`` stands for ``a.b: 1``."""
        defaults: dict[str, Any] = {
            "plugins": [str(PLUGIN)],
            "workers.concurrency": 2,
            "workers.cancel_grace": 0.2,
            "workers.idle_exit": 0,
            "workers.pools": {"many": {"tasks": [], "processes": 1, "threads": 16}},
            # Nobody is given up, however often a worker is killed.
            "workers.retry.policies": {
                "crash": {"max_retries": 1000, "retry_delay": 0.01, "max_delay": 0.05}
            },
        }
        return {**defaults, **{key.replace("__", "."): v for key, v in chosen.items()}}

    def open(self, **chosen: Any) -> App:
        """An app on the data directory."""
        self._settings = self.settings(**chosen)
        app = paise2nb.open("development", data_dir=self.data_dir, settings=self._settings)
        with closing(sqlite3.connect(self.data_dir / EFFECTS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS effects (key PRIMARY KEY, times, at) WITHOUT ROWID"
            )
        self._apps.append(app)
        return app

    @property
    def app(self) -> App:
        """The app that was opened last."""
        return self._apps[-1]

    @contextmanager
    def environment(self, **values: str) -> Iterator[None]:
        """Variables for the processes that are started meanwhile."""
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
        """The command of a Python process that begins with an open `app` on this house."""
        opening = (
            f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r}); import paise2nb\n"
            # Whoever starts the tests in the background has them ignore Ctrl-C.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"app = paise2nb.open('development', {str(self.data_dir)!r}, {self._settings!r})\n"
        )
        return [sys.executable, "-c", opening + text, *map(str, arguments)]

    def workers(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The living worker processes."""
        return [
            row
            for row in self.app.queue.job_store.workers()
            if process.alive(row["process"]) and (row["state"] == "ready" or not ready)
        ]

    def ready_pools(self) -> Counter[str]:
        """How many processes of each pool are ready: children of the living supervisor only."""
        parent = (self.supervisor() or "").partition("-")[0]
        return Counter(
            row["pool"]
            for row in self.workers(ready=True)
            if ":" not in row["pool"]
            and Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()[1] == parent
        )

    def supervisor(self) -> str | None:
        """The name of the living supervisor."""
        row = self.app.queue.job_store.supervisor()
        name = row and row["process"]
        return name if name and process.alive(name) else None

    def kill_all(self) -> None:
        """SIGKILL supervisor and workers, at one stroke."""
        names = [row["process"] for row in self.app.queue.job_store.workers()]
        if supervisor := self.supervisor():
            names.insert(0, supervisor)
        for name in names:
            process.send(name, signal.SIGKILL)
        until(lambda: not any(map(process.alive, names)))

    # What must hold --------------------------------------------------------------------------

    def rows(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        """A query of the job table on a connection of its own."""
        with closing(sqlite3.connect(self.data_dir / "tasks.db", timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, parameters).fetchall()

    def effects(self) -> dict[str, int]:
        """How often each effect was written, by key."""
        with closing(sqlite3.connect(self.data_dir / EFFECTS, timeout=60)) as connection:
            return dict(connection.execute("SELECT key, times FROM effects"))

    def moments(self) -> dict[str, float]:
        """When each effect was first written, by the clock of the job table."""
        with closing(sqlite3.connect(self.data_dir / EFFECTS, timeout=60)) as connection:
            return dict(connection.execute("SELECT key, at FROM effects"))

    def check_counts(self) -> None:
        """The counts by state are those of the rows, in every snapshot."""
        counted = self.rows(
            "SELECT name, jobs, roots, (SELECT count(*) FROM jobs WHERE state = name) AS all_jobs,"
            " (SELECT count(*) FROM jobs WHERE state = name AND parent_id IS NULL) AS all_roots"
            " FROM counts"
        )
        assert {row["name"] for row in counted} == set(STATES)
        for row in counted:
            assert (row["jobs"], row["roots"]) == (row["all_jobs"], row["all_roots"]), row["name"]

    def check(self) -> None:
        """What holds whenever nothing is being rescued: counts, claims, follow-ups, history."""
        self.check_counts()
        living = {row["id"] for row in self.workers()}
        for row in self.rows("SELECT id, state, worker FROM jobs"):
            assert (row["state"] == "running") <= (row["worker"] in living), dict(row)
        twice = self.rows(
            "SELECT parent_id, task, args, count(*) AS copies FROM jobs"
            " WHERE parent_id IS NOT NULL GROUP BY 1, 2, 3 HAVING copies > 1"
        )
        assert not [dict(row) for row in twice], "follow-ups were added twice"
        untold = self.rows(
            "SELECT id, state, run, (SELECT count(*) FROM attempts WHERE job_id = id) AS told"
            " FROM jobs WHERE told + (state IN ('completed', 'running')) != run"
        )
        assert not [dict(row) for row in untold], "executions without a record"
        assert self.rows("PRAGMA integrity_check")[0][0] == "ok"

    def check_all_done(self, expected: set[str]) -> None:
        """Every job completed and each effect stored; notes what was lost or doubled."""
        self.check()
        states = Counter(row["state"] for row in self.rows("SELECT state FROM jobs"))
        effects = self.effects()
        lost = (expected - effects.keys()) | {s for s in states if s != "completed"}
        jobs = self.rows("SELECT args, count(*) AS copies FROM jobs GROUP BY task, args")
        doubled = sum(row["copies"] - 1 for row in jobs)
        self.figures |= {
            "jobs": sum(states.values()),
            "lost": len(lost),
            "duplicates": doubled,
            "executed again": sum(effects.values()) - len(effects),
        }
        assert not lost, lost
        assert not doubled
        assert effects.keys() == expected

    def within(self, seconds: float, promised: float, what: str) -> None:
        """Note how long something took, and hold it to its promise."""
        self.figures[what] = f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
        assert seconds <= promised * self.patience, f"{what}: {seconds:.2f} s"


class Standstill:
    """The longest time during which nothing completed."""

    def __init__(self, environment: Environment) -> None:
        self._house = environment
        self._completed = -1
        self._since = time.monotonic()
        self.longest = 0.0

    def look(self) -> int:
        """Look once; the number of completed jobs."""
        completed = self._house.app.queue.job_store.counts()[0]["completed"]
        now = time.monotonic()
        self.longest = max(self.longest, now - self._since)
        if completed != self._completed:
            self._completed, self._since = completed, now
        return completed
