"""What a task gets as its first argument: its execution, and what it may use of the app."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.config.settings import Settings
from paise2nb.jobs import Claim, HostDelay, JobStore, NewJob, StateEntry
from paise2nb.jobs.plugin_state import State
from paise2nb.plugins import CacheProvider, DataStorageProvider, Plugins, short_name

if TYPE_CHECKING:
    from paise2nb.app import App

PROGRESS_SECONDS = 0.2  # between two notes of one execution


class Context:
    """What a task gets as its first argument: its execution, and what it may use.

    Attributes:
        settings, cache, items, plugins: the parts of the app.
        job: the execution: ``id``, ``task``, ``args``, ``tag``, ``attempt``, ``parent_id``,
            ``root_id``.
        state: what the plugin keeps from job to job, written with the completion.
        followups: what ``enqueue`` has collected.
        asked: what hosts have asked for.
    """

    def __init__(self, app: App, claim: Claim) -> None:
        self.app = app
        self.job = claim
        self.followups: list[NewJob] = []
        self.host_delays: list[HostDelay] = []
        self._states: dict[str, State] = {}
        self._plugin = app.plugins.task(claim.task).plugin
        self._told = float("-inf")

    @property
    def log(self) -> _Log:
        """A logger whose lines land in the worker's log, with the job's id."""
        return _Log(logging.getLogger(f"paise2nb.task.{self.job.task}"), {"job": self.job.id})

    def of(self, plugin: str) -> Context:
        """The same execution for another plugin's function, with that one's state."""
        other = copy(self)
        other._plugin = plugin
        return other

    @property
    def state(self) -> State:
        """A mapping of the plugin's own, JSON by key. See `paise2nb.jobs.plugin_state`."""
        name = short_name(self._plugin)
        if name not in self._states:
            self._states[name] = State(self.app.queue.job_store, name)
        return self._states[name]

    def kept(self) -> list[StateEntry]:
        """What this execution has read and written of plugins' states."""
        return [entry for state in self._states.values() for entry in state.kept()]

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this execution any more: it was cancelled."""
        return bool(self.job.run) and not self.app.queue.job_store.runs(self.job)

    @property
    def job_store(self) -> JobStore:
        """What is true about jobs."""
        return self.app.queue.job_store

    @property
    def data_dir(self) -> Path:
        """Where the app keeps everything."""
        return self.app.data_dir

    def new_jobs(
        self, task: str, every_args: Iterable[tuple[Any, ...]], **options: Any
    ) -> list[NewJob]:
        """Check the arguments of follow-up jobs; each with its key, so that twins are found."""
        return self.app.new_jobs(self.plugins.task(task), every_args, **options)

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self.app.settings

    @property
    def cache(self) -> CacheProvider:
        """Bytes by their SHA-256."""
        return self.app.cache

    @property
    def items(self) -> DataStorageProvider:
        """The collection."""
        return self.app.store

    @property
    def plugins(self) -> Plugins:
        """Fetchers, extractors, tasks."""
        return self.app.plugins

    def enqueue(
        self, task: str, *args: Any, priority: int | None = None, delay: float | None = None
    ) -> None:
        """Add a follow-up job, together with this job's completion or not at all.

        Args:
            task: its name.
            args: JSON.
            priority: None takes this job's.
            delay: seconds from the completion on.

        Raises:
            UsageError: an unknown task, or arguments that it does not take.
        """
        [followup] = self.app.new_jobs(
            self.app.plugins.task(task), [args], tag=self.job.tag,
            priority=self.job.priority if priority is None else priority, delay=delay,
        )  # fmt: skip
        self.followups.append(followup._replace(key=None))

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far this execution is; seen in listings and the dashboard.

        As often as you like: it is noted a few times a second, and at the end.
        """
        now = time.monotonic()
        if self.job.run and (done == total or now - self._told >= PROGRESS_SECONDS):
            self._told = now  # a replay has no row to tell
            self.app.queue.job_store.progress(self.job, done, total)


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Lines that name the job."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"job {self.extra['job']}: {msg}", kwargs  # type: ignore[index]
