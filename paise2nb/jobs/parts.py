"""The parts of an app, which its tasks, queue and workers get in place of the app."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.core.errors import UsageError
from paise2nb.jobs.models import Limits, NewJob, whole_number
from paise2nb.jobs.retry import policy
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import CacheProvider, DataStorageProvider, Plugins, Task


@dataclass(eq=False)
class Parts:
    """The parts of an app. The providers of cache, store and job store get it before these exist.

    Attributes:
        settings: The resolved settings.
        data_dir: The directory of the databases, the cache and the logs.
        plugins: The loaded plugins.
        is_worker: Whether this is a worker process.
        cache: Bytes by their SHA-256.
        store: The collection.
        job_store: The job store.
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
        """Check the arguments and options of jobs. Return the jobs to add.

        Args:
            task: A task or its name.
            every_args: The arguments of each job.
            tag: A word that follow-up jobs and items inherit.
            priority: Higher first.
            delay: Seconds before a job may start.
            every: Seconds between the starts of two runs.

        Raises:
            UsageError: The task is unknown, an option is out of range, or arguments do not fit.
        """
        if isinstance(task, str):
            task = self.plugins.task(task)
        if delay is not None and not 0 <= delay < 10**10:
            raise UsageError(f"delay is {delay!r}; give seconds, 0 or more")
        if every is not None and not 1 <= every < 10**10:
            raise UsageError(f"every is {every!r}; give 1 second or more")
        # SQLite takes no numbers of NumPy.
        delay, every = (None if given is None else float(given) for given in (delay, every))
        priority = whole_number("priority", priority, ", higher is first")
        if not -(2**31) <= priority < 2**31:
            raise UsageError(f"priority is {priority}; give a smaller number")
        if tag is not None and not (isinstance(tag, str) and tag.strip() and tag.isprintable()):
            raise UsageError(f"tag is {tag!r}; give a word")
        attempts = self.max_attempts(task)
        return [
            NewJob(task.name, text, attempts, key, tag, priority, every, host, delay)
            for text, key, host in (task.accept(self, args) for args in every_args)
        ]

    def max_attempts(self, task: Task) -> int:
        """Return the number of attempts of a task, unless the policy of an error class differs."""
        # Cached for the enqueue benchmark. Plugins may be reloaded, settings not.
        key = (self.plugins.generation, task.name)
        if key not in self._max_attempts:
            self._max_attempts[key] = policy(self.settings, task).max_attempts
        return self._max_attempts[key]

    def pool_of(self, name: str) -> str:
        """Return the pool that runs a task. The settings override the task's own pool."""
        pools, task = self.settings.workers.pools, self.plugins.tasks.get(name)
        chosen = self.settings.workers.pool_of(name)
        declared = task.pool if task is not None and task.pool in pools else None
        return chosen or declared or DEFAULT_POOL

    def limits(self, pool: str | None = None) -> dict[str, Limits]:
        """Return the tasks of a pool (None: all), each with the limits of one execution."""
        workers = self.settings.workers
        return {
            task.name: Limits(
                workers.timeout if task.timeout is None else task.timeout,
                workers.memory_mb if task.memory_mb is None else task.memory_mb,
            )
            for task in self.plugins.tasks.values()
            if pool is None or self.pool_of(task.name) == pool
        }

    def brief_tasks(self, pool: str) -> frozenset[str]:
        """Return the tasks of a pool of which a few jobs may run at once in one process."""
        tasks = self.plugins.tasks.values()
        return frozenset(t.name for t in tasks if t.threads and self.pool_of(t.name) == pool)

    def write_dirs(self) -> list[Path]:
        """Return the directories that jobs write to."""
        chosen = (self.job_store.path, self.settings.data_storage.sqlite.path)
        return list(dict.fromkeys([self.data_dir, *(path.parent for path in chosen if path)]))
