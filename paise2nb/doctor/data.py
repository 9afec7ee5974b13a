"""The checks of the data directory: its files, both databases, and the cache."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from paise2nb.app import App
from paise2nb.collection import items
from paise2nb.collection.cache import Cache
from paise2nb.config.settings import Settings
from paise2nb.core.damage import companion, inspect, lost_error, put_aside, size_of, storage_error
from paise2nb.core.disks import FREE_BYTES, may_be_full, network_filesystem
from paise2nb.core.display import arguments
from paise2nb.core.errors import DiskFull, StorageError
from paise2nb.core.formats import COPIES, Format, missing_parts, restore_indexes, schema_hash
from paise2nb.core.render import amount, plain, size
from paise2nb.core.sqlite import LOG_BYTES, Database
from paise2nb.jobs.database import FORMAT as JOBS_FORMAT
from paise2nb.jobs.models import UNFINISHED

WARN_BYTES = 1_000_000_000  # of free disk space
FAIL_BYTES = 50_000_000
CHOOSE_DIRECTORY = "choose another with --data-dir or PAISE2_DATA_DIR"
DIRECTORIES = ("cache", "logs", "plugins", "robots")
SHOWN = 10  # files that an advice names


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        state: ``ok``, ``warning`` or ``wrong``.
        check: what was checked.
        text: what was found.
        advice: what to do about it.
    """

    state: str
    check: str
    text: str
    advice: str = ""


def check_directory(path: Path) -> Iterator[Finding]:
    """Check a data directory: who may use it, the disk, and the directories in it."""
    parent = next(directory for directory in (path, *path.parents) if directory.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        yield Finding("wrong", "data directory", f"can't write to {parent}", CHOOSE_DIRECTORY)
        return
    if parent != path:
        yield Finding("ok", "data directory", f"{path} will be created when it is needed")
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        text = f"{path} can be read by other users"
        yield Finding("warning", "data directory", text, f"chmod 700 {path}")
    else:
        yield Finding("ok", "data directory", f"only you can read {path}")
    if kind := network_filesystem(parent):
        text = f"{path} is on a network filesystem ({kind})"
        yield Finding("wrong", "filesystem", text, f"SQLite needs a local one: {CHOOSE_DIRECTORY}")
    yield _disk(parent)
    if parent == path:
        yield from _kinds_and_permissions(path)
        yield from _copies(path)


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES:
        text = f"the disk is full, {size(free)} free: nothing more is stored, and nothing is lost"
        return Finding("wrong", "disk", text, "free some space, or run paise2 reset")
    state = "wrong" if free < FAIL_BYTES else "warning" if free < WARN_BYTES else "ok"
    advice = "" if state == "ok" else "free some space, or run paise2 reset"
    return Finding(state, "disk", f"{size(free)} free", advice)


def _copies(directory: Path) -> Iterator[Finding]:
    """Tell of the copies from before migrations."""
    if copies := [path for path in (directory / COPIES).glob("*") if path.is_file()]:
        text = f"{amount(len(copies), 'copy', 'copies')} of databases from before migrations, "
        text += f"{size(sum(path.stat().st_size for path in copies))}, in {directory / COPIES}"
        advice = "they may hold secrets in URLs that this version hides; delete them if it works"
        yield Finding("ok", "backups", text, advice)


def _kinds_and_permissions(directory: Path) -> Iterator[Finding]:
    """Find files in place of directories, and what its owner may not write to."""
    for path in (directory / name for name in DIRECTORIES):
        if path.exists() and not path.is_dir():
            advice = f"move it away: mv {path} {path}.old"
            yield Finding("wrong", "files", f"{path} is a file, not a directory", advice)
    databases = (path for path in directory.glob("*.db*") if path.is_file())
    used = [*databases, *(directory / name for name in DIRECTORIES)]
    # Root may write to all files, but the workers may run as another user.
    read_only = " ".join(str(path) for path in used if _is_read_only(path))
    if read_only:
        yield Finding("wrong", "files", f"read-only: {read_only}", f"chmod u+w {read_only}")


def _is_read_only(path: Path) -> bool:
    with suppress(FileNotFoundError):  # workers make and remove journals and logs meanwhile
        is_writable = os.access(path, os.W_OK) and path.stat().st_mode & stat.S_IWUSR
        return not is_writable and path.exists()
    return False


def check_databases(settings: Settings, directory: Path) -> Iterator[Finding]:
    """Check both databases, and the cache beside them."""
    jobs, path = settings.databases(directory)
    pair = items.lost_database(settings, directory)
    for check, database, known in (("jobs", jobs, JOBS_FORMAT), ("items", path, items.FORMAT)):
        log = database.with_name(f"{database.name}-wal")
        beside = pair[1] if pair and pair[0] == database else companion(database)
        if size_of(database):
            yield from check_database(check, database, known)
            if (length := size_of(log)) > 1.25 * LOG_BYTES:
                advice = "a process keeps a read transaction open: end it, and the log shrinks"
                yield Finding("warning", "log", f"{log} has grown to {size(length)}", advice)
        elif aside := put_aside(database):
            advice = f"repair {aside[-1]} and move it back, or begin an empty one: paise2 reset"
            yield Finding("wrong", check, f"{database} was damaged and moved aside", advice)
        elif beside is not None:
            text, _, advice = str(lost_error(database, beside)).partition(": ")
            yield Finding("wrong", check, text, advice)
    if (directory / "cache").is_dir():
        yield from _cache(Cache(directory / "cache"))


# What to do with a file of an unknown earlier format. Items have these columns in all of them.
_CARRY_OVER = {
    "jobs": "move it: mv {path} {path}.old; items stay, the history of jobs starts again with: "
    "paise2 reset",
    "items": "export its items: sqlite3 -json {path} 'SELECT url, title, text, tag FROM items' > "
    "items.json; then move it: mv {path} {path}.old; then: paise2 reset",
}


def check_database(check: str, path: Path, known: Format) -> Iterator[Finding]:
    """Check that a database is intact and has the known format."""

    def read(connection: sqlite3.Connection) -> tuple[int, str, str, list[str]]:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        missing = missing_parts(connection, known) if version == known.version else []
        return version, plain(verdict), schema_hash(connection), missing

    try:
        version, verdict, schema, missing = inspect(path, read)
    except sqlite3.DatabaseError as error:
        problem = storage_error(path, error)
        if isinstance(problem, DiskFull) or may_be_full(error):
            text = f"{path} can't be read while the disk is full; that is no damage"
            yield Finding("wrong", check, text, "free some space")
            return
        version, verdict, schema, missing = 0, str(error), "", []
    if verdict != "ok":
        advice = (
            "stop the workers; then restore a backup into an empty directory (paise2 restore PATH),"
            f" or go on with an empty file: mv {path} {path}.bad, then: paise2 reset"
        )
        yield Finding("wrong", check, f"{path}: {verdict}", advice)
    elif version > known.version:
        text = f"{path} was written by a newer paise2nb (format {version})"
        yield Finding("wrong", check, text, "upgrade paise2nb, or use another --data-dir")
    elif version < known.version and schema not in known.migrations[version - 1].sources:
        text = f"{path} was written by an unreleased version of paise2nb"
        yield Finding("wrong", check, text, _CARRY_OVER[check].format(path=path))
    elif version < known.version:
        text = f"{path} has format {version} of an earlier paise2nb"
        yield Finding("warning", check, text, "migrate it: paise2 status")
    elif missing:
        yield _restored(check, path, known, missing)
    else:
        yield Finding("ok", check, f"{path} is intact")


def _restored(check: str, path: Path, known: Format, missing: list[str]) -> Finding:
    """Make missing indexes and triggers again; tables hold rows that are lost."""
    text = f"{path} has no {', '.join(missing)}"
    try:
        with closing(Database(path, known, durable=True)) as database:
            database.write(restore_indexes, known)
    except StorageError as error:
        advice = f"restore a backup into an empty directory: paise2 restore PATH ({error})"
        return Finding("wrong", check, text, advice)
    return Finding("warning", check, f"{text}; made again from the rows")


def _cache(cache: Cache) -> Iterator[Finding]:
    damaged, number = cache.damaged()
    if damaged:
        files = " ".join(map(str, damaged[:SHOWN]))
        more = f" (and {len(damaged) - SHOWN} more)" if len(damaged) > SHOWN else ""
        text = f"{len(damaged)} of {amount(number, 'cached file')} are damaged"
        advice = f"delete them, they are fetched again when needed: rm {files}{more}"
        yield Finding("wrong", "cache", text, advice)
    else:
        yield Finding("ok", "cache", f"{amount(number, 'cached file')}, none damaged")


def missing_bytes(app: App) -> list[Finding]:
    """Find unfinished jobs that need bytes that are gone from the cache."""
    job_store, found = app.queue.job_store, []
    missing = {key for key in job_store.needed_keys() if key not in app.cache}
    for state in UNFINISHED if missing else ():
        for job_id, row in job_store.rows(job_store.find(state=state)).items():
            args = row["args"]
            if row["task"] == "store":  # it extracts again if only its text is missing
                args = [facts.get("sha256") for facts in args if isinstance(facts, dict)]
            if missing.isdisjoint(map(str, args)):
                continue
            text = f"job {job_id} ({row['task']} {arguments(row['args'])}) has lost its cached file"
            url = arguments(row["args"][:1])
            advice = f"paise2 cancel {job_id}, then: paise2 enqueue fetch --force {url}"
            found.append(Finding("wrong", "cache", text, advice))
    return found
