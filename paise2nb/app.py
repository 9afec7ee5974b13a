"""One open profile: the plain object that owns the parts and that every face talks to.

Nothing here is global but the kernel's current app, which a notebook's cells share. A worker
process opens an App of its own from the resolved settings of the process that started it.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from paise2nb.config.settings import Settings
from paise2nb.core import processes as process
from paise2nb.core.errors import NotFound, PermanentError, UsageError, WorkersError
from paise2nb.core.files import claim_directory
from paise2nb.jobs import IMMEDIATE, STATES, Claim, Limits, NewJob, Outcome
from paise2nb.jobs.context import Context
from paise2nb.jobs.retry import policy
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.plugins import (
    CacheProvider,
    DataStorageProvider,
    LifecycleAction,
    Plugins,
    Task,
)
from paise2nb.plugins.saved import SavedPlugins
from paise2nb.views.client import JobClient
from paise2nb.views.items import Item, Items, SearchResults
from paise2nb.views.jobs import Enqueued, Job, Jobs, Replay
from paise2nb.views.snapshot import LOG_LINES, Snapshot, take
from paise2nb.views.status import (
    Digest,
    Log,
    ResetCounts,
    Status,
    mark_seen,
    take_digest,
    take_status,
)
from paise2nb.views.waiting import wait, waiting

if TYPE_CHECKING:
    from paise2nb.workers.control import Workers
    from paise2nb.workers.queue import JobHuey

DEFAULT_POOL = "default"

_current: App | None = None


class App:
    """An open profile. A context manager; `close` it otherwise.

    Attributes:
        settings: what holds, and which layer said so.
        data_dir: where databases, cache and logs lie.
        plugins, queue, cache, store: the parts.
    """

    def __init__(
        self, settings: Settings, *, plugins: Plugins | None = None, is_worker: bool = False
    ) -> None:
        """Open the parts; the plugins too, unless they are given.

        Raises:
            PluginError: a plugin can't be loaded.
            StorageError: a database or the data directory can't be used.
        """
        self.is_worker = is_worker
        self._closed = False
        self._temporary = settings.data_dir is None
        if settings.data_dir is None:
            settings = settings.with_data_dir(Path(tempfile.mkdtemp(prefix="paise2-")))
        self.settings = settings
        assert settings.data_dir is not None
        self.data_dir: Path = settings.data_dir
        claim_directory(self.data_dir)
        self.cells = SavedPlugins(self.plugin_directory)
        self._fingerprint = self.cells.fingerprint()
        self.plugins = plugins or Plugins.of(settings)
        self._granted: dict[str, int] = {}  # attempts by task: the settings do not change
        self._refreshing = threading.Lock()
        self.cache: CacheProvider = self.plugins.first_result("cache_provider", self)
        self.store: DataStorageProvider = self.plugins.first_result("data_storage_provider", self)
        self.queue: JobHuey = self.plugins.provider(settings.task_queue.provider).create(self)
        self._opened: list[tuple[str, LifecycleAction]] = []
        if not is_worker:
            self.workers.rescue_orphans()
        try:
            for name, action in self.plugins.actions("lifecycle_actions"):
                self.plugins.call(name, "opened()", action.opened, self)
                self._opened.append((name, action))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the parts. Workers go on; a temporary data directory goes, with its workers."""
        global _current
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last:  # the last first; whatever one raises, the others are closed too
            if self._temporary:
                last.callback(shutil.rmtree, self.data_dir, ignore_errors=True)
            for part in (self.cache, self.store, self.queue):
                last.callback(part.close)
            if self._temporary:
                last.callback(self.workers.stop, timeout=0)
            if _current is self:
                _current = None
                last.callback(self._mark_seen)
            for name, action in self._opened:
                last.callback(self.plugins.call, name, "closed()", action.closed, self)

    def __repr__(self) -> str:
        return f"<paise2nb app, profile {self.profile}, {self.data_dir}>"

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.settings.profile

    @property
    def plugin_directory(self) -> Path:
        """Where plugins that were written in cells lie."""
        return self.data_dir / "plugins"

    @property
    def immediate(self) -> bool:
        """Whether jobs run in this process, before the enqueue returns."""
        return self.queue.runs_immediately

    @cached_property
    def workers(self) -> Workers:
        """The background workers on this app's job table."""
        from paise2nb.workers.control import Workers

        return Workers(self)

    def refresh(self) -> bool:
        """Take up what has become of cells since: saved, disabled, enabled.

        Jobs that run go on with the code that they began with. It costs a stat where nothing has
        changed, so every enqueue and every execution may ask.

        Returns:
            False where that takes a new app, because an app asks for some things only once.

        Raises:
            PluginError: a plugin can't be loaded any more.
        """
        fingerprint = self.cells.fingerprint()
        if fingerprint == self._fingerprint:
            return True
        with self._refreshing:
            if fingerprint != self._fingerprint:
                plugins = Plugins.of(self.settings)
                if plugins.startup_hooks() != self.plugins.startup_hooks():
                    return False
                self.plugins = plugins
                self._granted.clear()
                self.queue.tasks_changed()
                self._fingerprint = fingerprint  # last: until then others wait for the lock
        return True

    # Enqueueing ------------------------------------------------------------------------------

    def enqueue(
        self,
        task: str,
        *args: Any,
        tag: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        every: float | None = None,
        force: bool = False,
    ) -> Job:
        """Add one job, or answer with its duplicate: the unfinished one, or a fresh finished one.

        Args:
            task: its name.
            args: its arguments, JSON.
            tag: a word that follow-up jobs and items inherit.
            priority: higher first.
            delay: seconds before it may start.
            every: seconds between runs: it runs again and again.
            force: add it even where a finished one is fresh.

        Raises:
            UsageError: an unknown task or unfit arguments; nothing is added.
        """
        options = {"tag": tag, "priority": priority, "delay": delay, "every": every}
        answered: Job = self._enqueue(task, [args], force, options)[0]
        return answered

    def enqueue_many(
        self,
        task: str,
        arguments: Iterable[Any],
        *,
        tag: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        every: float | None = None,
        force: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Enqueued:
        """Add one job for each argument (a tuple: several arguments), all in one transaction.

        ``on_progress`` is called with (checked, total) while the arguments are checked.

        Returns:
            The jobs in the order of the arguments, duplicates included.
        """
        options = {"tag": tag, "priority": priority, "delay": delay, "every": every}
        every_args = [a if isinstance(a, tuple) else (a,) for a in arguments]
        return self._enqueue(task, _with_progress(every_args, on_progress), force, options)

    def _enqueue(
        self, name: str, every_args: Iterable[tuple[Any, ...]], force: bool, options: dict[str, Any]
    ) -> Enqueued:
        self.refresh()
        task = self.plugins.task(name)
        new = self.new_jobs(task, every_args, **options)
        fresh = task.fresh

        def is_fresh(index: int, result: Any, age: float) -> bool:
            assert fresh is not None
            return fresh(self.settings, result, age, tuple(json.loads(new[index].args)))

        answers, idle = self.queue.job_store.add(
            new, is_fresh if fresh and not force else None, force=force
        )
        self.jobs_added([job_id for job_id, answer in answers if answer == "new"], idle)
        if self.immediate:  # what an interrupt has left in the queue
            for job_id in {job_id for job_id, answer in answers if answer == "waiting"}:
                self.queue.run_ready(job_id)
        return Enqueued(self._client, answers)

    def jobs_added(self, ids: Sequence[int], idle: bool = True) -> None:
        """Jobs wait now that did not before: run them here, or wake the workers.

        Those that have left for want of work are brought back, if it may be that they have.
        """
        if self.immediate:
            for job_id in ids:
                self.queue.run_tree(job_id)
        elif ids and not self.queue.notifier.notify() and idle:
            self.workers.restart_idle()

    def new_jobs(
        self,
        task: Task,
        every_args: Iterable[tuple[Any, ...]],
        *,
        tag: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        every: float | None = None,
    ) -> list[NewJob]:
        """Check the arguments of each job and make its row-to-be.

        Raises:
            UsageError: the arguments of one do not fit the task.
        """
        if delay is not None and not 0 <= delay < 10**10:
            raise UsageError(f"delay is {delay!r}; give seconds, 0 or more")
        if every is not None and not 1 <= every < 10**10:
            raise UsageError(f"every is {every!r}; give 1 second or more")
        if not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
            raise UsageError(f"priority is {priority!r}; give a whole number, higher is first")
        if tag is not None and not (isinstance(tag, str) and tag.strip() and tag.isprintable()):
            raise UsageError(f"tag is {tag!r}; give a word")
        granted = self._granted.get(task.name)
        if granted is None:
            granted = self._granted[task.name] = policy(self.settings, task).max_attempts
        return [
            NewJob(task.name, text, granted, key, tag, priority, delay, every, host)
            for text, key, host in (task.accept(self, args) for args in every_args)
        ]

    # Running ---------------------------------------------------------------------------------

    def limits(self, pool: str | None = None) -> dict[str, Limits]:
        """The tasks of a pool (None: all) with what one execution of each may take."""
        workers = self.settings.workers
        return {
            task.name: Limits(
                workers.timeout if task.timeout is None else task.timeout,
                workers.memory_mb if task.memory_mb is None else task.memory_mb,
            )
            for task in self.plugins.tasks.values()
            if pool is None or self.pool_of(task) == pool
        }

    def pool_of(self, task: Task) -> str:
        """The pool whose workers run a task: the settings' choice, else the task's own."""
        pools = self.settings.workers.pools
        chosen = next((name for name, pool in pools.items() if task.name in pool.tasks), None)
        declared = task.pool if task.pool in pools else None
        return chosen or declared or DEFAULT_POOL

    def open_thread(self) -> None:
        """Open this thread's connections, so that what is wrong shows before a job needs them."""
        self.queue.job_store.counts()
        self.store.count()

    def perform(self, claim: Claim, arguments: Sequence[Any]) -> Outcome:
        """Run one execution; its completion: the result as JSON, the follow-ups it asked for.

        Raises:
            Exception: whatever the task raises.
        """
        context = Context(self, claim)
        value = self._call(context, arguments)
        try:
            result = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PermanentError(
                f"task {claim.task!r} returned what is not JSON: {error}", "result"
            ) from error
        return Outcome(
            "completed", "completed", result, followups=context.followups, kept=context.kept(),
            host_delays=context.host_delays,
        )  # fmt: skip

    def _call(self, context: Context, arguments: Sequence[Any]) -> Any:
        value = self.plugins.task(context.job.task).function(context, *arguments)
        return _awaited(value) if inspect.iscoroutine(value) else value

    def replay(self, job_id: int) -> Replay:
        """Run a job here and now with the same input; changes no row.

        Raises:
            NotFound: no such job.
            Exception: what the task raises, raw.
        """
        return self._dry_run(self.job(job_id).row())

    def dry_run(self, task: str, args: Sequence[Any]) -> Replay:
        """The same for a job that nobody has enqueued."""
        return self._dry_run({"id": 0, "task": task, "args": args, "attempt": 1, "priority": 0})

    def context(self, task: str) -> Context:
        """What a job of that task gets, to try a function out with; nothing of it is kept."""
        return self._context({"id": 0, "task": task, "args": [], "attempt": 1, "priority": 0})

    def _context(self, row: Mapping[str, Any]) -> Context:
        known: dict[str, Any] = {name: row.get(name) for name in Claim._fields}
        known |= {"args": json.dumps(row["args"]), "run": 0, "worker_pid": os.getpid()}
        return Context(self, Claim(**known))

    def _dry_run(self, row: Mapping[str, Any]) -> Replay:
        context = self._context(row)
        value = self._call(context, row["args"])
        return Replay(context.job.id, context.job.task, value, context.followups)

    # Reading ---------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> JobClient:
        return JobClient(self.queue.job_store, self.store, self.immediate, _Runner(self))

    def job(self, job_id: int) -> Job:
        """One job. Raises NotFound."""
        rows = self.queue.job_store.rows([job_id])
        if job_id not in rows:
            raise NotFound(f"no job {job_id}; `paise2 jobs` lists them")
        return Job(self._client, job_id, rows[job_id])

    def jobs(
        self,
        *ids: int,
        state: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> Jobs:
        """The jobs that match every filter, oldest first.

        Args:
            ids: only these jobs.
            state: a job state.
            task: the name of a task.
            tag: the tag.
            error: an error class.
            limit: the maximum number of jobs.

        Raises:
            NotFound: there is no job with one of the ids.
            UsageError: an unknown state.
        """
        if state is not None and state not in STATES:
            raise UsageError(f"unknown state {state!r}; one of {', '.join(STATES)}")
        if ids:
            known = self.queue.job_store.rows(ids)
            if missing := [job_id for job_id in ids if job_id not in known]:
                raise NotFound(f"no job {missing[0]}; `paise2 jobs` lists them")
        found = self.queue.job_store.find(
            ids or None, state=state, task=task, tag=tag, error=error, limit=limit
        )
        return Jobs(self._client, found)

    def items(self, *, tag: str | None = None, limit: int | None = None) -> Items:
        """The stored items, newest first."""
        return Items(self.store.list(tag=tag, limit=limit), self.store)

    def item(self, item_id: int) -> Item:
        """One item with its text. Raises NotFound."""
        row = self.store.get(item_id)
        if row is None:
            raise NotFound(f"no item {item_id}; `paise2 items` lists them")
        return Item(row, self.store)

    def search(self, query: str, limit: int = 10) -> SearchResults:
        """Search the items; the best matches first, with snippets.

        Args:
            query: words, ``"phrases"``, prefixes (``word*``).
            limit: the maximum number of results.
        """
        return SearchResults(query, self.store.search(query, limit))

    def status(self) -> Status:
        """The state of the queue, the workers and the collection."""
        return take_status(
            self._client,
            profile=self.profile,
            data_dir=self.data_dir,
            write_dirs=self.write_dirs(),
        )

    def snapshot(self) -> Snapshot:
        """Everything that a live view shows."""
        return take(self._client, self.status(), self.logs(LOG_LINES).lines)

    def write_dirs(self) -> list[Path]:
        """The directories that jobs write to."""
        chosen = (self.queue.job_store.path, self.settings.data_storage.sqlite.path)
        return list(dict.fromkeys([self.data_dir, *(path.parent for path in chosen if path)]))

    def since(self) -> Digest:
        """What happened since this was last called, or since a kernel with this app ended."""
        return take_digest(self._client)

    def _mark_seen(self) -> None:
        mark_seen(self.queue.job_store)

    def logs(self, lines: int = 20) -> Log:
        """The last lines of the workers' log."""
        return Log.tail(self.data_dir / "logs" / "workers.log", lines)

    # Waiting ---------------------------------------------------------------------------------

    def wait(
        self,
        timeout: float | None = None,
        *,
        jobs: Iterable[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Wait until nothing is queued, running, retrying, or scheduled and due.

        Args:
            timeout: seconds; None waits as long as there is a worker.
            jobs: ids; wait only for these jobs and their trees.
            on_progress: called with (done, total) after each check.

        Raises:
            Timeout: the timeout has expired.
            WorkersError: there is no timeout, and jobs are left but no worker runs.
        """
        wait(self._client, timeout, jobs=jobs, on_progress=on_progress)

    def waiting(
        self,
        timeout: float | None = None,
        *,
        jobs: Iterable[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        ended: bool = False,
    ) -> Iterator[float]:
        """The steps of `wait`: yields the seconds to sleep before the next check.

        With ``ended``, wait until the jobs themselves have ended, even those scheduled for later,
        and not for their descendants.
        """
        return waiting(self._client, timeout, jobs=jobs, on_progress=on_progress, ended=ended)

    # The rest --------------------------------------------------------------------------------

    def watch(self) -> Any:
        """The live panel, in a notebook."""
        from paise2nb.notebook import watch

        return watch(self)

    def export(self, path: str | Path, *, tag: str | None = None, force: bool = False) -> Any:
        """Write the items to a file or a folder, by its ending."""
        from paise2nb.collection.export import export

        return export(self.store.list(tag=tag), self.store, Path(path), force=force)

    def reset(self, *, hard: bool = False) -> ResetCounts:
        """Forget finished jobs and cached bytes; ``hard``: everything.

        Raises:
            WorkersError: workers run.
        """
        if self.workers.present():
            raise WorkersError("workers run; stop them first: paise2 worker stop")
        job_store = self.queue.job_store
        jobs = job_store.clear() if hard else job_store.prune(job_store.now() + 1)
        items = self.store.clear() if hard else 0
        cached = self.cache.clear() if hard else self.cache.remove(job_store.needed_keys(), 0)
        for name, action in self.plugins.actions("reset_actions"):
            self.plugins.call(name, "reset()", action.reset, self, hard)
        return ResetCounts(jobs, cached, items)


class _Runner:
    """What views ask of an app: to run jobs, and for its workers."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.run_ready = app.queue.run_ready
        self.jobs_added = app.jobs_added
        self.notify = app.queue.notifier.notify

    def workers_present(self) -> bool:
        return self._app.workers.present()

    def workers_status(self) -> WorkersStatus:
        return self._app.workers.status()


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns; in a thread of its own where a loop runs already (a kernel's)."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _with_progress(
    arguments: Sequence[tuple[Any, ...]], on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[Any, ...]]:
    for number, argument in enumerate(arguments, 1):
        yield argument
        if on_progress is not None:
            on_progress(number, len(arguments))


def open(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> App:
    """Open a profile; without arguments in a kernel, the one that is open there already.

    Args:
        profile: ``development``, ``test``, ``production``; None: PAISE2_PROFILE, else development.
        data_dir: in place of the profile's own.
        settings: dotted keys and values, above every other layer.

    Raises:
        SettingsError: a setting is wrong.
        PluginError: a plugin can't be loaded.
        StorageError: the data can't be used.
    """
    if _current is not None and profile is None and data_dir is None and not settings:
        return _current
    resolved, plugins = resolve(profile, data_dir, settings)
    return App(resolved, plugins=plugins)


def resolve(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[Settings, Plugins]:
    """The settings, with what plugins give as defaults among the layers, and these plugins.

    Raises:
        SettingsError: a setting is wrong, a plugin's default perhaps.
        PluginError: a plugin can't be loaded.
    """
    layers = partial(Settings.resolve, profile, data_dir=data_dir, overrides=dict(settings or {}))
    resolved = layers()
    plugins = Plugins.of(resolved)
    if defaults := plugins.defaults():
        before, resolved = resolved, layers(defaults=defaults)
        chosen = attrgetter("plugins", "entry_points", "data_dir")
        if chosen(resolved) != chosen(before):
            plugins = Plugins.of(resolved)
    return resolved, plugins


def current() -> App | None:
    """The kernel's current app."""
    return _current


def make_current(app: App | None) -> None:
    """Make an app the one that `open` without arguments returns; closed when the kernel ends."""
    global _current
    if app is not None:
        atexit.register(app.close)
    _current = app


__all__ = [
    "DEFAULT_POOL",
    "IMMEDIATE",
    "App",
    "Context",
    "current",
    "make_current",
    "open",
    "process",
    "resolve",
]
