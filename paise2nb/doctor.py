"""The checks of ``paise2 doctor``, from the interpreter up to the running workers.

Each finding says what to do about it. Nothing is changed, and a check that fails is a finding.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from paise2nb.app import App
from paise2nb.collection import items
from paise2nb.config.settings import Settings
from paise2nb.core.damage import put_aside
from paise2nb.core.disks import network_filesystem
from paise2nb.core.display import Displayable
from paise2nb.core.errors import PaiseError, PluginError
from paise2nb.core.formats import Format, schema_hash
from paise2nb.core.render import TONES, amount, escape, one_line, panel, plain, size
from paise2nb.core.sqlite import LOG_BYTES
from paise2nb.core.version import __version__
from paise2nb.jobs.database import FORMAT as JOBS_FORMAT
from paise2nb.plugins import Plugins

WARN_BYTES = 1_000_000_000  # of free disk space
FAIL_BYTES = 50_000_000
CHOOSE_DIRECTORY = "choose another with --data-dir or PAISE2_DATA_DIR"


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


@dataclass(repr=False)
class Report(Displayable):
    """All findings. ``exit_status`` is 1 if something is wrong."""

    findings: list[Finding]

    @property
    def exit_status(self) -> int:
        """1 if something is wrong, else 0."""
        return int(any(finding.state == "wrong" for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return the findings, for JSON."""
        return {"ok": not self.exit_status, **asdict(self)}

    def __str__(self) -> str:
        return "\n".join(
            f"{finding.state:<8} {finding.check}: {one_line(finding.text)}"
            + (f"\n         → {one_line(finding.advice)}" if finding.advice else "")
            for finding in self.findings
        )

    def __repr__(self) -> str:
        bad = [finding for finding in self.findings if finding.state != "ok"]
        return str(Report(bad)) if bad else "no problems found"

    def _repr_html_(self) -> str:
        lines = (
            f'<div><span class="{TONES[f.state]}">{f.state}</span> <b>{escape(f.check)}</b>: '
            f"{escape(f.text)}{f'<br>→ {escape(f.advice)}' if f.advice else ''}</div>"
            for f in self.findings
        )
        return panel(*lines)


def examine(resolve: Callable[[], Settings]) -> Report:
    """Run the checks, up to the first that later ones depend on.

    Args:
        resolve: returns the settings, or raises the PaiseError that says what is wrong with them.
    """
    findings = list(_run("installation", _installation))
    try:
        settings = resolve()
    except PaiseError as error:
        is_plugin = isinstance(error, PluginError)
        check, advice = ("plugins", "") if is_plugin else ("settings", "fix this value")
        return Report([*findings, Finding("wrong", check, str(error), advice)])
    findings.append(Finding("ok", "settings", f"profile {settings.profile}"))
    findings += _run("plugins", _plugins, settings)
    directory = settings.data_dir
    if directory is None:
        findings.append(Finding("ok", "data directory", "a temporary one for each run"))
        return Report(findings)
    findings += _run("data directory", _directory, directory)
    findings += _run("databases", _databases, settings, directory)
    if directory.is_dir() and not Report(findings).exit_status:
        findings += _run("workers", _workers, settings)
    return Report(findings)


def _run(check: str, run: Callable[..., Iterator[Finding]], *args: Any) -> Iterator[Finding]:
    try:
        yield from run(*args)
    except Exception as error:
        text = str(error) if isinstance(error, PaiseError) else f"{type(error).__name__}: {error}"
        yield Finding("wrong", check, text, "fix this, then run paise2 doctor again")


def _installation() -> Iterator[Finding]:
    sqlite, huey = sqlite3.sqlite_version, importlib.metadata.version("huey")
    for name, version, oldest, advice in (
        ("Python", sys.version.split()[0], "3.11", "install a newer Python"),
        ("SQLite", sqlite, "3.35", "use a Python with a newer SQLite"),  # the first with RETURNING
        ("huey", huey, "3.5", "pip install --upgrade huey"),
    ):
        installed, needed = (list(map(int, re.findall(r"\d+", v)[:2])) for v in (version, oldest))
        if installed >= needed:
            yield Finding("ok", name, version)
        else:
            yield Finding("wrong", name, f"{version}; {oldest} or newer is needed", advice)
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
            yield Finding("ok", "full-text search", "FTS5 is available")
        except sqlite3.OperationalError:
            advice = "use a Python whose SQLite has it, such as python.org's or conda's"
            yield Finding("wrong", "full-text search", "this SQLite lacks FTS5", advice)
    yield Finding("ok", "paise2nb", __version__)


def _plugins(settings: Settings) -> Iterator[Finding]:
    loaded = Plugins(settings)
    yield Finding("ok", "plugins", f"all load; tasks: {', '.join(sorted(loaded.tasks))}")


def _directory(path: Path) -> Iterator[Finding]:
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
    free = shutil.disk_usage(parent).free
    if free < WARN_BYTES:
        state = "wrong" if free < FAIL_BYTES else "warning"
        yield Finding(state, "disk", f"{size(free)} free", "free some space, or run paise2 reset")
    else:
        yield Finding("ok", "disk", f"{size(free)} free")


def _databases(settings: Settings, directory: Path) -> Iterator[Finding]:
    for check, path, known in (
        ("jobs", settings.task_queue.sqlite.path or directory / "tasks.db", JOBS_FORMAT),
        ("items", settings.data_storage.sqlite.path or directory / "items.db", items.FORMAT),
    ):
        if path.exists():
            yield _database(check, path, known)
            log = path.with_name(f"{path.name}-wal")
            if log.exists() and (length := log.stat().st_size) > 1.25 * LOG_BYTES:
                advice = "a process keeps a read transaction open: end it, and the log shrinks"
                yield Finding("warning", "log", f"{log} has grown to {size(length)}", advice)
        elif aside := put_aside(path):
            advice = f"repair it and move it back, or start again: mv {aside[-1]}* elsewhere/"
            yield Finding("wrong", check, f"{path} was damaged and moved aside", advice)
        elif path.with_name(f"{path.name}.lock").exists():
            advice = "stop the workers and restore it from a backup, or go on with a new one"
            yield Finding("wrong", check, f"{path} is gone; it existed before", advice)


# What to do with a file of an unknown earlier format. Items have these columns in all of them.
_CARRY_OVER = {
    "jobs": "move it: mv {path} {path}.old; items stay, the history of jobs starts again",
    "items": "export its items: sqlite3 -json {path} 'SELECT url, title, text, tag FROM items' > "
    "items.json; then move it: mv {path} {path}.old",
}


def _database(check: str, path: Path, known: Format) -> Finding:
    # Read by SQLite, never by open(): to close a file of a live database would drop its locks.
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            older = 0 < version < known.version
            source = known.migrations[version - 1].source if older else ""
            unknown = older and schema_hash(connection) != source
    except sqlite3.DatabaseError as error:
        verdict, version, unknown = str(error), 0, False
    if unknown:
        text = f"{path} was written by an unreleased version of paise2nb"
        return Finding("wrong", check, text, _CARRY_OVER[check].format(path=path))
    if version > known.version:
        text = f"{path} was written by a newer paise2nb (format {version})"
        return Finding("wrong", check, text, "upgrade paise2nb, or use another --data-dir")
    if verdict != "ok":
        advice = f"stop the workers, then restore it from a backup, or: mv {path} {path}.bad"
        return Finding("wrong", check, f"{path}: {plain(verdict)}", advice)
    return Finding("ok", check, f"{path} is intact")


def _workers(settings: Settings) -> Iterator[Finding]:
    with App(settings) as app:
        status, paused = app.workers.status(), app.status().paused
        store, path = type(app.store), app.queue.job_store.path
        if store is not items.ItemStore:
            text = f"{amount(app.store.count(), 'item')} in {store.__module__}.{store.__qualname__}"
            yield Finding("ok", "items", text)
        if settings.task_queue.provider not in ("sqlite", "none"):
            yield _database("jobs", path, JOBS_FORMAT)
    failed = [worker for worker in status.workers if worker["state"] == "failed"]
    for worker in failed:
        text = f"a worker of pool {worker['pool']} could not start: {worker['error']}"
        yield Finding("wrong", "workers", text, "fix this, then: paise2 worker restart")
    if status.workers and status.supervisor is None and not failed:
        yield Finding("wrong", "workers", "they have no supervisor", "paise2 worker restart")
    if status.problem:
        problem, _, advice = status.problem.rpartition("; ")
        yield Finding("wrong", "workers", problem or advice, advice if problem else "")
    elif not failed:
        yield Finding("ok", "workers", f"{amount(len(status.workers), 'worker')} running")
    if paused and paused not in (status.problem or ""):
        yield Finding("wrong", "queue", f"paused: {paused}", "fix this; the queue then goes on")
