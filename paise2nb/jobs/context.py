"""What a task gets as its first argument: the execution, and the parts that it may use."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, MutableMapping
from copy import copy
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.jobs.models import Claim, HostDelay, NewJob, StateEntry
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.plugin_state import State
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import CacheProvider, DataStorageProvider, Plugins, short_name

PROGRESS_SECONDS = 0.2  # between two writes of one execution's progress


class Context:
    """What a task gets as its first argument.

    Attributes:
        job: the execution: ``id``, ``task``, ``args``, ``tag``, ``attempt``, ``parent_id``,
            ``root_id``.
        followups: the jobs that ``enqueue`` has collected.
        host_delays: the delays that hosts have asked for.
    """

    def __init__(self, parts: Parts, claim: Claim) -> None:
        self._parts = parts
        self.job = claim
        self.followups: list[NewJob] = []
        self.host_delays: list[HostDelay] = []
        self._states: dict[str, State] = {}
        self._plugin = parts.plugins.task(claim.task).plugin
        self._progress_at = float("-inf")  # monotonic: when progress was last written

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines land in the workers' log, with the job's id."""
        return _Log(logging.getLogger(f"paise2nb.task.{self.job.task}"), {"job": self.job.id})

    def of(self, plugin: str) -> Context:
        """The same execution for a function of another plugin, with that plugin's state."""
        other = copy(self)
        other._plugin = plugin
        return other

    @property
    def state(self) -> MutableMapping[str, Any]:
        """A mapping of the plugin's own, JSON by key. See `paise2nb.jobs.plugin_state`."""
        name = short_name(self._plugin)
        if name not in self._states:
            self._states[name] = State(self.job_store, name)
        return self._states[name]

    def state_entries(self) -> list[StateEntry]:
        """What this execution has read and written of plugins' states."""
        return [entry for state in self._states.values() for entry in state.entries()]

    @property
    def is_replay(self) -> bool:
        """Whether this is a replay, of which nothing is stored."""
        return not self.job.run

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled, or given to another worker, meanwhile."""
        return not self.is_replay and not self.job_store.runs(self.job)

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self._parts.settings

    @property
    def data_dir(self) -> Path:
        """Where the app keeps everything."""
        return self._parts.data_dir

    @property
    def is_worker(self) -> bool:
        """Whether this runs in a worker process, which is ended past the limits of a job."""
        return self._parts.is_worker

    @property
    def cache(self) -> CacheProvider:
        """Bytes by their SHA-256."""
        return self._parts.cache

    @property
    def items(self) -> DataStorageProvider:
        """The collection."""
        return self._parts.store

    @property
    def plugins(self) -> Plugins:
        """Fetchers, extractors, tasks."""
        return self._parts.plugins

    @property
    def job_store(self) -> JobStore:
        """What is true about jobs."""
        return self._parts.job_store

    def new_jobs(
        self, task: str, every_args: Iterable[tuple[Any, ...]], **options: Any
    ) -> list[NewJob]:
        """Check the arguments of follow-up jobs. Each has its key, by which duplicates are found.

        Raises:
            UsageError: an unknown task, or arguments that do not fit.
        """
        return self._parts.new_jobs(task, every_args, **options)

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
            UsageError: an unknown task, or arguments that do not fit.
        """
        chosen = self.job.priority if priority is None else priority
        [followup] = self.new_jobs(task, [args], tag=self.job.tag, priority=chosen, delay=delay)
        self.followups.append(followup._replace(key=None))

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far this execution is; listings and the panel show it.

        Call it as often as you like: it is written a few times a second, and at the end.
        """
        if self.is_replay:
            return
        now = time.monotonic()
        if done == total or now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self.job_store.progress(self.job, done, total)


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Lines that name the job."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        assert self.extra is not None
        return f"job {self.extra['job']}: {msg}", kwargs
