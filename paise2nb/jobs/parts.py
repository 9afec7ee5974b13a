"""The parts of one open profile, as its tasks, its queue and its workers share them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core.errors import UsageError
from paise2nb.jobs.models import Limits, NewJob
from paise2nb.jobs.retry import policy
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import CacheProvider, DataStorageProvider, Plugins, Task

DEFAULT_POOL = "default"


@dataclass(eq=False)
class Parts:
    """What an app is made of. The providers of cache, store and queue get it before these exist.

    Attributes:
        settings: the resolved settings.
        data_dir: where databases, cache and logs lie.
        plugins: the loaded plugins.
        is_worker: whether a worker process opened them.
        cache: bytes by their SHA-256.
        store: the collection.
        job_store: what is true about jobs.
    """

    settings: Settings
    data_dir: Path
    plugins: Plugins
    is_worker: bool = False
    cache: CacheProvider = field(init=False)
    store: DataStorageProvider = field(init=False)
    job_store: JobStore = field(init=False)
    _max_attempts: dict[tuple[int, str], int] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.settings.profile

    def new_jobs(
        self,
        task: str | Task,
        every_args: Iterable[tuple[Any, ...]],
        *,
        tag: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        every: float | None = None,
    ) -> list[NewJob]:
        """Check the arguments of each job, and return the rows to be added.

        Args:
            task: a task or its name.
            every_args: the arguments of each job.
            tag: a word that follow-up jobs and items inherit.
            priority: higher first.
            delay: seconds before a job may start.
            every: seconds between the starts of two runs.

        Raises:
            UsageError: an unknown task, an option out of range, or arguments that do not fit.
        """
        if isinstance(task, str):
            task = self.plugins.task(task)
        if delay is not None and not 0 <= delay < 10**10:
            raise UsageError(f"delay is {delay!r}; give seconds, 0 or more")
        if every is not None and not 1 <= every < 10**10:
            raise UsageError(f"every is {every!r}; give 1 second or more")
        if not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
            raise UsageError(f"priority is {priority!r}; give a whole number, higher is first")
        if tag is not None and not (isinstance(tag, str) and tag.strip() and tag.isprintable()):
            raise UsageError(f"tag is {tag!r}; give a word")
        attempts = self.max_attempts(task)
        return [
            NewJob(task.name, text, attempts, key, tag, priority, every, host, delay)
            for text, key, host in (task.accept(self, args) for args in every_args)
        ]

    def max_attempts(self, task: Task) -> int:
        """How many executions a job of that task gets, unless an error's own policy differs."""
        # Kept, because an enqueue asks each time; plugins may be loaded again, settings not.
        key = (self.plugins.generation, task.name)
        if key not in self._max_attempts:
            self._max_attempts[key] = policy(self.settings, task).max_attempts
        return self._max_attempts[key]

    def pool_of(self, task: Task) -> str:
        """The pool whose workers run a task: the settings' choice, else the task's own."""
        pools = self.settings.workers.pools
        chosen = next((name for name, pool in pools.items() if task.name in pool.tasks), None)
        declared = task.pool if task.pool in pools else None
        return chosen or declared or DEFAULT_POOL

    def limits(self, pool: str | None = None) -> dict[str, Limits]:
        """The tasks of a pool (None: all), each with the limits of one execution."""
        workers = self.settings.workers
        return {
            task.name: Limits(
                workers.timeout if task.timeout is None else task.timeout,
                workers.memory_mb if task.memory_mb is None else task.memory_mb,
            )
            for task in self.plugins.tasks.values()
            if pool is None or self.pool_of(task) == pool
        }

    def write_dirs(self) -> list[Path]:
        """The directories that jobs write to."""
        chosen = (self.job_store.path, self.settings.data_storage.sqlite.path)
        return list(dict.fromkeys([self.data_dir, *(path.parent for path in chosen if path)]))
