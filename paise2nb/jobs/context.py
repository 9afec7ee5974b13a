"""The first argument of a task: the execution of a job, and the parts of the app that it uses."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, MutableMapping
from copy import copy
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core.errors import UsageError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.models import Claim, Found, HostDelay, NewJob, StateEntry, whole_number
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import CacheProvider, DataStorageProvider, Plugins, short_name

LONGEST_VALUE = 100_000  # characters, as JSON
PROGRESS_SECONDS = 0.2  # between two writes of one execution's progress


class Context:
    """The first argument of a task.

    Attributes:
        job: The execution: ``id``, ``task``, ``args``, ``tag``, ``attempt``, ``parent_id``,
            ``root_id``.
        followups: The jobs that `enqueue` has collected.
        found: The links that become pages of its crawl.
        host_delays: The delays that hosts have asked for.
        settings: The resolved settings.
        data_dir: The directory of the databases, the cache and the logs.
        is_worker: Whether this is a worker process, which is killed if a job exceeds its limits.
        cache: Bytes by their SHA-256.
        items: The collection.
        plugins: The loaded fetchers, extractors and tasks.
        job_store: The job store.
        new_jobs: `Parts.new_jobs`, to make jobs that are added at once and not on completion.
    """

    def __init__(self, parts: Parts, claim: Claim) -> None:
        self.job = claim
        self.followups: list[NewJob] = []
        self.found: Found | None = None
        self.host_delays: list[HostDelay] = []
        self.settings: Settings = parts.settings
        self.data_dir: Path = parts.data_dir
        self.is_worker: bool = parts.is_worker
        self.cache: CacheProvider = parts.cache
        self.items: DataStorageProvider = parts.store
        self.plugins: Plugins = parts.plugins
        self.job_store: JobStore = parts.job_store
        self.new_jobs = parts.new_jobs
        self._states: dict[str, State] = {}
        self._plugin = parts.plugins.task(claim.task).plugin
        self._progress_at = float("-inf")  # monotonic: when progress was last written

    @classmethod
    def trial(cls, parts: Parts, row: Mapping[str, Any]) -> Context:
        """The context of a job that is only tried, with the known columns of its row."""
        job = {"id": 0, "attempt": 1, "max_attempts": 1, "priority": 0, **row}
        claim: dict[str, Any] = {name: job.get(name) for name in Claim._fields}
        claim |= {"args": json.dumps(row["args"]), "run": 0, "worker_pid": os.getpid()}
        return cls(parts, Claim(**claim))

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that adds the job's id to each line of the workers' log."""
        return _Log(logging.getLogger(f"paise2nb.task.{self.job.task}"), {"job": self.job.id})

    def of(self, plugin: str) -> Context:
        """Return the context for a function of another plugin, with that plugin's state."""
        other = copy(self)
        other._plugin = plugin
        return other

    @property
    def state(self) -> MutableMapping[str, Any]:
        """JSON values that the plugin keeps from job to job. See `State`."""
        name = short_name(self._plugin)
        if name not in self._states:
            self._states[name] = State(self.job_store, name)
        return self._states[name]

    def state_entries(self) -> list[StateEntry]:
        """Return the values of plugins' states that this execution has read or written."""
        return [entry for state in self._states.values() for entry in state.entries()]

    @property
    def next_jobs(self) -> list[NewJob]:
        """The jobs that follow from this execution, with the pages of its crawl."""
        return self.followups + (self.found.jobs if self.found else [])

    @property
    def is_replay(self) -> bool:
        """Whether this is a replay, which stores nothing."""
        return not self.job.run

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled, or given to another worker, while it runs."""
        return not self.is_replay and not self.job_store.runs(self.job)

    def enqueue(
        self, task: str, *args: Any, priority: int | None = None, delay: float | None = None
    ) -> None:
        """Add a follow-up job when this job completes. Nothing is added if it fails.

        Args:
            task: The name of a task.
            args: Its arguments, JSON.
            priority: Higher first; by default that of this job.
            delay: Seconds from the completion until it may start.

        Raises:
            UsageError: The task is unknown, or the arguments do not fit.
        """
        chosen = self.job.priority if priority is None else priority
        [followup] = self.new_jobs(task, [args], tag=self.job.tag, priority=chosen, delay=delay)
        self.followups.append(followup._replace(key=None))

    def add_followups(self) -> bool:
        """Add the jobs in `followups` now, so that workers begin with them while this job runs.

        They stay when this job fails, so its next execution must find those that exist already.

        Returns:
            Whether this execution still has the job. If not, nothing is added.
        """
        if self.is_replay:
            return True
        if not self.job_store.add_followups(self.job, self.followups):
            return False
        self.followups = []
        Notifier(self.job_store.path).notify()
        return True

    def progress(self, done: float, total: float | None = None) -> None:
        """Report the progress of this execution, for listings and the panel.

        It may be called often: it is written a few times a second, and at the end.

        Args:
            done: The amount that is done, in any unit.
            total: The whole amount, None if unknown.

        Raises:
            UsageError: An amount is a whole number that SQLite can't store.
        """
        amounts: tuple[Any, ...] = (done, total)  # a float may be an int
        for amount in amounts:
            if isinstance(amount, int):
                whole_number("progress", amount)
        if self.is_replay:
            return
        now = time.monotonic()
        if done == total or now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self.job_store.progress(self.job, done, total)


class State(MutableMapping[str, Any]):
    """The state of a plugin as one execution sees it: a few JSON values by key.

    Nothing is written before the job completes, and then in the same transaction. Each value has a
    version: if another job has changed a value that this job has read, the completion is refused
    and the job runs again, uncharged. So a counter counts each completed job exactly once.

    Args:
        job_store: stores the state.
        plugin: the name of the plugin.
    """

    def __init__(self, job_store: JobStore, plugin: str) -> None:
        self._job_store = job_store
        self._plugin = plugin
        self._read: dict[str, tuple[str | None, int]] = {}  # value and version
        self._written: dict[str, str | None] = {}  # None: deleted

    def entries(self) -> list[StateEntry]:
        """Return the values that were read or written. Empty if none was written."""
        written, versions = self._written, {key: read[1] for key, read in self._read.items()}
        return [
            StateEntry(self._plugin, key, written.get(key), versions.get(key), key in written)
            for key in (versions | written if written else ())
        ]

    def __getitem__(self, key: str) -> Any:
        if key in self._written:
            value = self._written[key]
        else:
            if key not in self._read:
                self._read[key] = self._job_store.plugin_value(self._plugin, key)
            value, _ = self._read[key]
        if value is None:
            raise KeyError(key)
        return json.loads(value)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise UsageError(f"a key of context.state must be a string, not {key!r}")
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"context.state[{key!r}] is not JSON: {error}") from None
        if len(text) > LONGEST_VALUE:
            raise UsageError(
                f"context.state[{key!r}] has {len(text):,} characters, more than "
                f"{LONGEST_VALUE:,}; put it into context.cache, and keep its key"
            )
        self._written[key] = text

    def __delitem__(self, key: str) -> None:
        self[key]
        self._written[key] = None

    def __iter__(self) -> Iterator[str]:
        keys = self._job_store.plugin_keys(self._plugin) | self._written.keys()
        return iter(sorted(key for key in keys if self._written.get(key, "") is not None))

    def __len__(self) -> int:
        return len(list(iter(self)))


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Adds the job's id to each line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        assert self.extra is not None
        return f"job {self.extra['job']}: {msg}", kwargs
