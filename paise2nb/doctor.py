"""The checks of ``paise2 doctor``: from the interpreter up to the running workers.

Each finding says what to do about it. Nothing is changed, and a check that breaks is a finding.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from paise2nb.config.settings import Settings
from paise2nb.core.disks import network_filesystem
from paise2nb.core.display import Displayable
from paise2nb.core.errors import PaiseError, PluginError
from paise2nb.core.render import TONES, amount, escape, one_line, panel, plain, size
from paise2nb.core.sqlite import LOG_BYTES, put_aside

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35)  # RETURNING
OLDEST_HUEY = (3, 5)
LITTLE_SPACE = 1_000_000_000  # bytes
NO_SPACE = 50_000_000


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``warning`` or ``wrong``, and then what to do."""

    state: str
    check: str
    text: str
    advice: str = ""


@dataclass(repr=False)
class Report(Displayable):
    """All findings; ``exit_status`` is 1 if something is wrong."""

    findings: list[Finding]

    @property
    def exit_status(self) -> int:
        """1 if something is wrong, else 0."""
        return int(any(finding.state == "wrong" for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": not self.exit_status,
            "findings": [dict(vars(finding)) for finding in self.findings],
        }

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.state:<8} {finding.check}: {one_line(finding.text)}")
            if finding.advice:
                lines.append(f"         → {one_line(finding.advice)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        bad = [finding for finding in self.findings if finding.state != "ok"]
        return str(Report(bad)) if bad else "all is well"

    def _repr_html_(self) -> str:
        lines = (
            f'<div><span class="{TONES[f.state]}">{f.state}</span> <b>{escape(f.check)}</b>: '
            f"{escape(f.text)}{f'<br>→ {escape(f.advice)}' if f.advice else ''}</div>"
            for f in self.findings
        )
        return panel(*lines)


def examine(resolve: Callable[[], Settings]) -> Report:
    """Run every check that can be run; later ones need what earlier ones found whole.

    Args:
        resolve: gives the settings, or raises what is wrong with them.
    """
    findings = list(_guarded("installation", _installation))
    try:
        settings = resolve()
    except PluginError as error:
        return Report([*findings, Finding("wrong", "plugins", str(error))])
    except PaiseError as error:
        return Report([*findings, Finding("wrong", "settings", str(error), "mend that value")])
    findings.append(Finding("ok", "settings", f"profile {settings.profile}"))
    findings += _guarded("plugins", lambda: _plugins(settings))
    if settings.data_dir is None:
        findings.append(Finding("ok", "data directory", "a temporary one for each run"))
        return Report(findings)
    directory = settings.data_dir
    findings += _guarded("data directory", lambda: _directory(directory))
    findings += _guarded("databases", lambda: _databases(settings, directory))
    if directory.is_dir() and not Report(findings).exit_status:
        findings += _guarded("workers", lambda: _workers(settings))
    return Report(findings)


def _guarded(check: str, run: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from run()
    except Exception as error:
        words = str(error) if isinstance(error, PaiseError) else f"{type(error).__name__}: {error}"
        yield Finding("wrong", check, words, "mend that, then run paise2 doctor again")


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _installation() -> Iterator[Finding]:
    from paise2nb.core.version import __version__

    huey = importlib.metadata.version("huey")
    for name, found, least, advice in (
        ("Python", sys.version.split()[0], OLDEST_PYTHON, "install a newer Python"),
        ("SQLite", sqlite3.sqlite_version, OLDEST_SQLITE, "use a Python with a newer SQLite"),
        ("huey", huey, OLDEST_HUEY, "pip install --upgrade huey"),
    ):
        if _version(found) >= least:
            yield Finding("ok", name, found)
        else:
            wanted = ".".join(map(str, least))
            yield Finding("wrong", name, f"{found}; {wanted} or newer is needed", advice)
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
            yield Finding("ok", "full-text search", "FTS5 is there")
        except sqlite3.OperationalError:
            yield Finding(
                "wrong", "full-text search", "this SQLite has no FTS5",
                "use a Python whose SQLite has it, such as python.org's or conda's",
            )  # fmt: skip
    yield Finding("ok", "paise2nb", __version__)


def _plugins(settings: Settings) -> Iterator[Finding]:
    from paise2nb.plugins import Plugins

    loaded = Plugins.of(settings)
    yield Finding("ok", "plugins", f"all load; tasks: {', '.join(sorted(loaded.tasks))}")


def _directory(path: Path) -> Iterator[Finding]:
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        yield Finding(
            "wrong", "data directory", f"can't write to {parent}",
            "choose another with --data-dir or PAISE2_DATA_DIR",
        )  # fmt: skip
        return
    if parent != path:
        yield Finding("ok", "data directory", f"{path} will be made when it is needed")
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(
            "warning", "data directory", f"{path} can be read by other users", f"chmod 700 {path}"
        )
    else:
        yield Finding("ok", "data directory", f"{path} is yours alone")
    if kind := network_filesystem(parent):
        yield Finding(
            "wrong", "filesystem", f"{path} lies on a network filesystem ({kind})",
            "SQLite needs a local one: choose another with --data-dir or PAISE2_DATA_DIR",
        )  # fmt: skip
    free = shutil.disk_usage(parent).free
    if free < LITTLE_SPACE:
        state = "wrong" if free < NO_SPACE else "warning"
        yield Finding(state, "disk", f"{size(free)} left", "free some space, or run paise2 reset")
    else:
        yield Finding("ok", "disk", f"{size(free)} left")


def _databases(settings: Settings, directory: Path) -> Iterator[Finding]:
    from paise2nb import jobs
    from paise2nb.collection import items

    for check, path, known in (
        ("jobs", settings.task_queue.sqlite.path or directory / "tasks.db", jobs.MIGRATIONS),
        ("items", settings.data_storage.sqlite.path or directory / "items.db", items.MIGRATIONS),
    ):
        if path.exists():
            yield _database(check, path, len(known))
            yield from _log(path)
        elif aside := put_aside(path):
            yield Finding(
                "wrong", check, f"{path} was damaged and put aside",
                f"mend it and move it back, or begin anew: mv {aside[-1]}* elsewhere/",
            )  # fmt: skip
        elif path.with_name(f"{path.name}.lock").exists():
            yield Finding(
                "wrong", check, f"{path} is gone, though it was there before",
                "stop the workers, then restore it from a backup, or go on: a new one is made",
            )  # fmt: skip


def _log(path: Path) -> Iterator[Finding]:
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size > 1.25 * LOG_BYTES:
        yield Finding(
            "warning", "log", f"{log} has grown to {size(log.stat().st_size)}",
            "some process holds a read transaction open: end it, and the log is cut by itself",
        )  # fmt: skip


def _database(check: str, path: Path, known: int) -> Finding:
    # By SQLite itself, never by open(): closing a live database's file would drop its locks.
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        verdict, version = str(error), 0
    if version > known:
        return Finding(
            "wrong", check, f"{path} was written by a newer paise2nb (format {version})",
            "upgrade paise2nb, or use another --data-dir",
        )  # fmt: skip
    if verdict != "ok":
        return Finding(
            "wrong", check, f"{path}: {plain(verdict)}",
            f"stop the workers, then restore it from a backup, or: mv {path} {path}.bad",
        )  # fmt: skip
    return Finding("ok", check, f"{path} is whole")


def _workers(settings: Settings) -> Iterator[Finding]:
    from paise2nb import jobs
    from paise2nb.app import App
    from paise2nb.collection import items

    with App(settings) as app:
        found, paused = app.workers.status(), app.status().paused
        store, path = type(app.store), app.queue.job_store.path
        if store is not items.ItemStore:
            count = amount(app.store.count(), "item")
            yield Finding("ok", "items", f"{count} kept by {store.__module__}.{store.__qualname__}")
        if settings.task_queue.provider not in ("sqlite", "none"):
            yield _database("jobs", path, len(jobs.MIGRATIONS))
    failed = [worker for worker in found.workers if worker["state"] == "failed"]
    for worker in failed:
        yield Finding(
            "wrong", "workers", f"one of pool {worker['pool']} could not start: {worker['error']}",
            "mend that, then: paise2 worker restart",
        )  # fmt: skip
    if found.workers and found.supervisor is None and not failed:
        yield Finding(
            "wrong", "workers", "they run without their supervisor", "paise2 worker restart"
        )
    if found.problem:
        what, _, advice = found.problem.rpartition("; ")
        yield Finding("wrong", "workers", what or found.problem, advice if what else "")
    elif not failed:
        yield Finding("ok", "workers", f"{amount(len(found.workers), 'worker')} running")
    if paused:
        yield Finding("wrong", "queue", f"paused: {paused}", "mend that; the queue then goes on")
