"""A consistent copy of a data directory while workers run, and the way back.

A backup is a directory. Its ``backup.json`` is written last: where it is missing, the backup was
interrupted.
"""

import errno
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from paise2nb.app import App
from paise2nb.collection.cache import Cache
from paise2nb.collection.items import ItemStore
from paise2nb.config.settings import Settings
from paise2nb.content.tasks import needed_keys
from paise2nb.core.clock import iso
from paise2nb.core.disks import is_disk_full
from paise2nb.core.display import Message
from paise2nb.core.errors import DiskFull, PaiseError, UsageError
from paise2nb.core.files import make_private_directory, sync_to_disk, write_atomically
from paise2nb.core.render import amount
from paise2nb.core.version import __version__
from paise2nb.jobs.store import JobStore

MANIFEST = "backup.json"
FACTS = ("version", "created_at", "jobs", "items", "cached", "without_cache")  # of the manifest
UNFINISHED = ".restoring"  # the directory in which a restore collects its files
JOBS, ITEMS, CACHE, PLUGINS = "tasks.db", "items.db", "cache", "plugins"

Progress = Callable[[int, int], None] | None


def _message(facts: dict[str, Any], done: str) -> Message:
    counts = amount(facts["jobs"], "job"), amount(facts["items"], "item")
    content = f"{', '.join(counts)} and {amount(facts['cached'], 'cached file')}"
    return Message(f"{content} {done}", facts)


def back_up(app: App, path: Path, *, cache: bool = True, on_progress: Progress = None) -> Message:
    """Write a copy of jobs, items, cached bytes and saved plugins. Workers may run meanwhile.

    Args:
        app: the open profile.
        path: a new directory, or an empty one.
        cache: whether to copy all cached bytes, or only those that unfinished jobs need.
        on_progress: called with (done, total) while cached files are copied.

    Returns:
        The `FACTS`: the version of paise2nb, when it was made, the numbers of jobs, items and
        cached files, and whether only those cached files are in it that jobs still need.

    Raises:
        PaiseError: `path` exists, or can't be written; nothing of the copy is left.
    """
    if not isinstance(app.store, ItemStore) or not isinstance(app.cache, Cache):
        part = app.cache if isinstance(app.store, ItemStore) else app.store
        raise PaiseError(f"can't back up {type(part).__module__}.{type(part).__qualname__}: a "
                         "plugin keeps the data there; use its own backup")  # fmt: skip
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise PaiseError(f"{path} exists{_interrupted(path)}; name a new directory")
    try:
        path.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PaiseError(f"can't back up to {path}: {error.strerror}") from error
    with _removed_on_error([path], f"back up to {path}"):
        _copy_databases(app.queue.job_store, app.store, path)
        needed, jobs = _forget_workers(path / JOBS, app.store)
        source, target = app.cache, Cache(path / CACHE)
        cached = source.copy_to(target, None if cache else needed, on_progress)
        if app.saved_plugins.directory.is_dir():
            made_here = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(app.saved_plugins.directory, path / PLUGINS, ignore=made_here)
        with closing(sqlite3.connect(path / ITEMS)) as connection:
            items = int(connection.execute("SELECT count(*) FROM items").fetchone()[0])
        made: dict[str, Any] = {
            "version": __version__,
            "created_at": iso(time.time()),
            "jobs": jobs,
            "items": items,
            "cached": cached,
            "without_cache": not cache,
        }
        os.sync()  # one call for many files
        write_atomically(path / MANIFEST, json.dumps(made, indent=2))
    facts = {"path": str(path), **made, "restored_to": None}
    return _message(facts, f"written to {path}")


def _copy_databases(job_store: JobStore, items: ItemStore, path: Path) -> None:
    """Copy both databases as they are at one moment.

    Between their copies no job may end: a stored page would miss its item, or an item its job. So
    both are pinned while nothing can be written to the job store, which takes a few milliseconds.
    Writers go on while the pinned state is copied.
    """
    databases = job_store.database, items.database
    with ExitStack() as sources:

        def pin(_: sqlite3.Connection | None = None) -> list[sqlite3.Connection]:
            return [sources.enter_context(closing(database.pin())) for database in databases]

        try:
            pinned = job_store.database.write(pin)
        except DiskFull:  # no job can end
            pinned = pin()
        for source, name in zip(pinned, (JOBS, ITEMS), strict=True):
            os.close(os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(path / name)) as target:
                source.backup(target)  # in one step, so that a commit does not start it again


def _forget_workers(path: Path, items: ItemStore) -> tuple[set[str], int]:
    """Queue the running jobs of a copy again, uncharged.

    Returns:
        The keys of the cached files that its jobs need, and the number of its jobs.
    """
    copy = JobStore(path)
    try:
        copy.forget_workers()
        return needed_keys(copy, items), sum(copy.counts()[0].values())
    finally:
        copy.close()
        for other in path.parent.glob(f"{path.name}.*"):  # its locks
            other.unlink()


def restore(path: Path, settings: Settings) -> Message:
    """Put a backup into an empty data directory.

    Args:
        path: the backup.
        settings: of the profile; its data directory is empty or missing.

    Returns:
        The same facts as `back_up`, and ``restored_to``.

    Raises:
        UsageError: the profile's data directory is a temporary one.
        PaiseError: the backup or the directory can't be used. The directory is as it was.
    """
    if settings.data_dir is None:
        raise UsageError(f"profile {settings.profile} has no data directory; name one: --data-dir")
    made = _read_manifest(path)
    directory = settings.data_dir
    targets = {name: directory / name for name in (CACHE, PLUGINS)}
    targets[JOBS], targets[ITEMS] = settings.databases(directory)
    _require_empty(directory, targets.values())
    is_new = not directory.exists()
    make_private_directory(directory)
    unfinished = directory / UNFINISHED
    written = [directory if is_new else unfinished]
    with _removed_on_error(written, f"restore {path} to {directory}"):
        unfinished.mkdir(mode=0o700)
        for name in targets:
            _copy(path / name, unfinished / name)
        for name in (JOBS, ITEMS):
            _check(unfinished / name)
        JobStore(unfinished / JOBS).close()  # raises if its format is unknown, or migrates it
        os.sync()
        # The databases last, because with them the directory can be used.
        for name in (CACHE, PLUGINS, ITEMS, JOBS):
            if (unfinished / name).exists():
                make_private_directory(targets[name].parent)
                _move(unfinished / name, targets[name])
                written.append(targets[name])
        shutil.rmtree(unfinished)
        sync_to_disk(directory)
    facts = {"path": str(path), **made, "restored_to": str(directory)}
    return _message(facts, f"restored to {directory}; go on: paise2 worker start")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise PaiseError(f"no backup at {path}: it is not a directory")
    try:
        made = json.loads((path / MANIFEST).read_bytes())
        return {name: made[name] for name in FACTS}
    except FileNotFoundError:
        reason = _interrupted(path) or f"{MANIFEST} is missing"
        raise PaiseError(f"no backup at {path}: {reason.removeprefix(', ')}") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PaiseError(f"can't read {path / MANIFEST}: {error}") from error


def _interrupted(path: Path) -> str:
    has_part = (path / JOBS).exists() or (path / CACHE).exists()
    if not has_part or (path / MANIFEST).exists() or (path / f"{JOBS}.lock").exists():
        return ""
    return f", an interrupted backup: delete it (rm -r {path})"


def _require_empty(directory: Path, targets: Iterable[Path]) -> None:
    if directory.is_dir():
        if (directory / UNFINISHED).exists():
            raise PaiseError(
                f"{directory} has an interrupted restore, or another one runs; if none runs, delete"
                f" the directory and try again: rm -r {directory}"
            )
        if any(directory.iterdir()):
            raise PaiseError(
                f"{directory} is not empty, and a restore replaces nothing; name a new directory: "
                "--data-dir DIR"
            )
    elif directory.exists():
        raise PaiseError(f"{directory} is a file; name a new directory: --data-dir DIR")
    if existing := [target for target in targets if target.exists()]:
        raise PaiseError(f"{existing[0]} exists, and a restore replaces nothing")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _move(source: Path, target: Path) -> None:
    """Move a file or directory; never replace one that was created meanwhile."""
    if target.exists():
        raise PaiseError(f"{target} was created while the backup was restored; stop what uses it")
    shutil.move(source, target)  # over to another filesystem, too


def _check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise PaiseError(f"{path.name} of the backup is damaged: {verdict}")


@contextmanager
def _removed_on_error(written: list[Path], doing: str) -> Iterator[None]:
    """Remove files and directories if the block raises."""
    try:
        yield
    except BaseException as error:
        for path in written:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        # copytree() puts the errors of all files into the text of one.
        if is_disk_full(error) or os.strerror(errno.ENOSPC) in str(error):
            raise DiskFull(f"can't {doing}: no space left on the disk") from error
        if isinstance(error, OSError | sqlite3.DatabaseError):
            reason = getattr(error, "strerror", None) or str(error)
            raise PaiseError(f"can't {doing}: {reason}") from error
        raise
