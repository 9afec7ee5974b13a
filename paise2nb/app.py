"""One open profile: the plain object that owns the parts and that every face talks to.

Nothing here is global but the kernel's current app, which a notebook's cells share. A worker
process opens an App of its own from the resolved settings of the process that started it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from paise2nb.config.settings import Settings
from paise2nb.core.display import Message
from paise2nb.core.errors import NotFound, PluginError, WorkersError
from paise2nb.core.files import claim_directory, expand_user
from paise2nb.core.formats import COPIES
from paise2nb.core.render import amount, counted
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import PAGE_TASKS, argument_tuples, check_state, whole_number
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.workers_status import Pauses
from paise2nb.plugins import CacheProvider, DataStorageProvider, LifecycleAction, Plugins
from paise2nb.plugins.registry import resolve
from paise2nb.views.client import JobClient
from paise2nb.views.enqueued import Enqueued, Replay
from paise2nb.views.items import Item, Items, SearchResults
from paise2nb.views.jobs import Job, Jobs
from paise2nb.views.screen import LOG_LINES, screen
from paise2nb.views.stats import Stats, take_stats
from paise2nb.views.status import Status, tail, take_digest, take_status
from paise2nb.views.waiting import wait
from paise2nb.workers import huey_import  # noqa: F401  # before the others
from paise2nb.workers.control import Workers
from paise2nb.workers.executor import call_function
from paise2nb.workers.queue import JobHuey, create_queue

_current: App | None = None


class App:
    """An open profile. A context manager; `close` it otherwise.

    Attributes:
        settings: the resolved settings, each with the layer that set it.
        data_dir: where databases, cache and logs lie.
        plugins, cache, store, queue: the parts, which `parts` holds for tasks and workers.
        workers: the background workers.
        saved_plugins: the plugins that were written in cells.
        is_worker: whether this is the app of a worker process.
        is_temporary: whether the data directory is deleted when the app closes.
        closed: whether it was closed.
    """

    def __init__(
        self, settings: Settings, *, plugins: Plugins | None = None, is_worker: bool = False
    ) -> None:
        """Open the parts; load the plugins too, unless they are given.

        Raises:
            PluginError: a plugin can't be loaded, and its absence is not tolerated.
            StorageError: a database or the data directory can't be used.
        """
        self.closed, self._process = False, os.getpid()
        self.is_temporary = settings.data_dir is None
        if settings.data_dir is None:
            settings = settings.with_data_dir(Path(tempfile.mkdtemp(prefix="paise2-")))
        assert settings.data_dir is not None
        claim_directory(settings.data_dir)
        self.settings, self.data_dir, self.is_worker = settings, settings.data_dir, is_worker
        self.plugins = plugins or Plugins(settings)
        self.saved_plugins = self.plugins.follow(self.data_dir)
        self.parts = parts = Parts(settings, self.data_dir, self.plugins, is_worker)
        self.cache: CacheProvider = self.plugins.first_result("cache_provider", parts)
        self.store: DataStorageProvider = self.plugins.first_result("data_storage_provider", parts)
        parts.cache, parts.store = self.cache, self.store
        self.queue: JobHuey = create_queue(parts)
        parts.job_store = self.queue.job_store
        self.workers = Workers(parts, self.queue)
        self._opened: list[tuple[str, LifecycleAction]] = []
        try:
            for name, action in self.plugins.actions("lifecycle_actions"):
                try:
                    self.plugins.call(name, "opened()", action.opened, self)
                    self._opened.append((name, action))
                except PluginError as error:
                    self.plugins.refuse(name, error)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the parts. Workers go on; a temporary data directory goes, with its workers."""
        global _current
        if self.closed or os.getpid() != self._process:  # a forked child owns nothing of it
            return
        self.closed = True
        with ExitStack() as last:  # in reverse order; if one raises, the others are closed too
            if self.is_temporary:
                last.callback(shutil.rmtree, self.data_dir, ignore_errors=True)
            for part in (self.cache, self.store, self.queue):
                last.callback(part.close)
            if self.is_temporary:
                last.callback(self.workers.stop, timeout=0)
            if _current is self:
                _current = None
                last.callback(self.client.mark_seen)
            for name, action in self._opened:
                last.callback(self.plugins.call, name, "closed()", action.closed, self)

    def __repr__(self) -> str:
        return f"<paise2nb app, profile {self.profile}, {self.data_dir}>"

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.settings.profile

    @property
    def immediate(self) -> bool:
        """Whether jobs run in this process, before the enqueue returns."""
        return self.queue.runs_immediately

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
        """Add one job; a duplicate is answered with the job that waits, or that is up to date.

        Args:
            task: its name.
            args: its arguments, JSON.
            tag: a word that follow-up jobs and items inherit.
            priority: higher first.
            delay: seconds before it may start.
            every: seconds between two runs: it runs again and again.
            force: add it even if one is up to date; run one that waits for a later time now.

        Raises:
            UsageError: an unknown task, or arguments that do not fit; nothing is added.
        """
        [job] = self.enqueue_many(
            task, [args], tag=tag, priority=priority, delay=delay, every=every, force=force
        )
        return job

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
        self.plugins.refresh()
        found = self.plugins.task(task)
        if self.immediate:  # jobs run here, perhaps with another part than the broken plugin's
            self.plugins.require_all()
        every_args = counted(argument_tuples(arguments), on_progress)
        new = self.parts.new_jobs(
            found, every_args, tag=tag, priority=priority, delay=delay, every=every
        )
        fresh = found.fresh

        def is_fresh(index: int, result: Any, age: float) -> bool:
            assert fresh is not None
            return fresh(self.settings, result, age, tuple(json.loads(new[index].args)))

        answers, idle = self.queue.job_store.add(new, is_fresh if fresh and not force else None)
        self.jobs_added([job_id for job_id, answer in answers if answer == "new"], idle)
        if self.immediate:  # what an interrupt has left in the queue
            for job_id in {job_id for job_id, answer in answers if answer == "waiting"}:
                self.queue.run_ready(job_id)
        enqueued = Enqueued(self.client, answers)
        if force and not delay:
            enqueued.run_now()
        return enqueued

    def jobs_added(self, ids: Sequence[int], idle: bool = True) -> None:
        """Run jobs that wait now here, or wake the workers.

        Args:
            ids: the jobs.
            idle: the workers may have left for want of work: they are started again.
        """
        if self.immediate:
            for job_id in ids:
                self.queue.run_tree(job_id)
        elif ids and idle and not self.queue.has_notified:
            self.workers.restart_idle()

    # Running ---------------------------------------------------------------------------------

    def replay(self, job_id: int) -> Replay:
        """Run a job here and now with the same input; changes no row.

        Raises:
            NotFound: no such job.
            Exception: what the task raises, raw.
        """
        return self.dry_run(self.job(job_id).row())

    def dry_run(self, row: Mapping[str, Any]) -> Replay:
        """The same for a job that was never enqueued: its ``task`` and ``args``."""
        context = Context.trial(self.parts, row)
        value = call_function(self.parts, context, row["args"])
        return Replay(context.job.id, context.job.task, value, context.next_jobs)

    def context(self, task: str) -> Context:
        """The context of a job of that task, to try a function with; nothing of it is stored."""
        return Context.trial(self.parts, {"task": task, "args": []})

    # Reading ---------------------------------------------------------------------------------

    @cached_property
    def client(self) -> JobClient:
        """What views use of this app."""
        return JobClient(
            job_store=self.queue.job_store,
            items=self.store,
            is_cached=lambda key: key in self.cache,
            immediate=self.immediate,
            run_ready=self.queue.run_ready,
            jobs_added=self.jobs_added,
            workers_present=self.workers.present,
            workers_status=self.workers.status,
            held=self.workers.held,
        )

    def job(self, job_id: int) -> Job:
        """One job. Raises NotFound."""
        job = Job(self.client, job_id)
        job.row()
        return job

    def jobs(
        self,
        *ids: int,
        state: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        limit: int | None = None,
        all: bool = False,
    ) -> Jobs:
        """The pages, and the jobs of users that are no page, that match every filter, oldest first.

        Args:
            ids: only these jobs, whether they are pages or not.
            state: a page state, or a job state of a job that is no page.
            task: the name of a task.
            tag: the tag.
            error: an error class.
            limit: the maximum number of jobs.
            all: every job, also those that follow from others; ``state`` is then a job state.

        Raises:
            NotFound: there is no job with one of the ids.
            UsageError: an unknown state.
        """
        pages = not (all or ids) and task in (None, *PAGE_TASKS)
        check_state(state, pages=not all)
        ids = tuple(whole_number("id", job_id, "; several as jobs(*ids)") for job_id in ids)
        if ids:
            known = set(self.queue.job_store.find(ids))
            if missing := [job_id for job_id in ids if job_id not in known]:
                raise NotFound(f"no job {missing[0]}; `paise2 jobs` lists them")
        limit = None if limit is None else whole_number("limit", limit)
        found = self.queue.job_store.find(
            ids or None, state=state, task=task, tag=tag, error=error, limit=limit, pages=pages
        )
        return Jobs(self.client, found, pages=pages)

    def items(self, *, tag: str | None = None, limit: int | None = None) -> Items:
        """The stored items, newest first."""
        limit = None if limit is None else whole_number("limit", limit)
        return Items(self.store.list(tag=tag, limit=limit), self.store)

    def item(self, item_id: int) -> Item:
        """One item with its text. Raises NotFound."""
        row = self.store.get(whole_number("id", item_id))
        if row is None:
            raise NotFound(f"no item {item_id}; `paise2 items` lists them")
        return Item(row, self.store)

    def search(self, query: str, limit: int = 10) -> SearchResults:
        """Search the items for words, ``"phrases"`` or prefixes (``word*``); best matches first."""
        return SearchResults.of(self.store, query, whole_number("limit", limit))

    def status(self) -> Status:
        """The state of the queue, the workers and the collection."""
        return take_status(self.client, self.parts)

    def stats(self, since: float | str = "1d", by: str = "task") -> Stats:
        """What has run since a time, by ``task``, ``pool``, ``host`` or ``error``: `take_stats`."""
        return take_stats(self.queue.job_store, since, by)

    def screen(self, height: int | None = None) -> str:
        """What ``paise2 watch`` shows in a terminal, on at most so many lines."""
        return screen(self.client, self.status(), self.logs(LOG_LINES).lines, height)

    def since(self) -> Message:
        """What happened since this was last called, or since a kernel with this app ended."""
        return take_digest(self.client)

    def logs(self, lines: int = 20) -> Message:
        """The last lines of the workers' log."""
        return tail(self.data_dir / "logs" / "workers.log", lines)

    def pause(self, pool: str | None = None) -> Pauses:
        """Claim no more jobs (of a pool) until `resume`."""
        return self.workers.pause(pool)

    def resume(self, pool: str | None = None) -> Pauses:
        """End the pause of a pool, or all pauses for None."""
        return self.workers.resume(pool)

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
        if jobs is not None:
            jobs = [whole_number("id", job_id) for job_id in jobs]
        wait(self.client, timeout, jobs=jobs, on_progress=on_progress)

    # The rest --------------------------------------------------------------------------------

    def watch(self) -> Any:
        """The live panel, in a notebook."""
        # By name: the notebook is above the app, and only this method reaches up to it.
        return importlib.import_module("paise2nb.notebook").watch(self)

    def export(self, path: str | Path, *, tag: str | None = None, force: bool = False) -> Any:
        """Write the items to a file or a folder, by its ending."""
        from paise2nb.collection.export import export

        return export(self.store.list(tag=tag), self.store, expand_user(str(path)), force=force)

    def reset(self, *, hard: bool = False) -> Message:
        """Delete finished jobs and cached bytes; ``hard``: everything. Returns the numbers.

        Raises:
            WorkersError: workers run.
        """
        if self.workers.present():
            raise WorkersError("workers run; stop them first: paise2 worker stop")
        from paise2nb.content.tasks import needed_keys

        job_store = self.queue.job_store
        # The files first: this gives a full disk the space that the databases need.
        needed = set() if hard else needed_keys(job_store, self.store)
        cached = self.cache.clear() if hard else self.cache.remove(needed, 0)
        jobs = job_store.clear() if hard else job_store.prune(job_store.now() + 1)
        items = self.store.clear() if hard else 0
        job_store.give_back_space()
        if hard:
            shutil.rmtree(self.data_dir / COPIES, ignore_errors=True)
        for name, action in self.plugins.actions("reset_actions"):
            self.plugins.call(name, "reset()", action.reset, self, hard)
        files = amount(cached, "cached file")
        text = f"deleted {amount(jobs, 'job')}, {files} and {amount(items, 'item')}"
        return Message(text, {"jobs": jobs, "cached": cached, "items": items})


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


def current() -> App | None:
    """The kernel's current app."""
    return _current


def make_current(app: App | None) -> None:
    """Make an app the one that `open` without arguments returns; closed when the kernel ends."""
    global _current
    if app is not None:
        atexit.register(app.close)
    _current = app


__all__ = ["App", "Context", "current", "make_current", "open"]
