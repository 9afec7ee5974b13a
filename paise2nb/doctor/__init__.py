"""The checks of ``paise2 doctor``, from the interpreter up to the running workers.

Each finding says what to do about it, and a check that fails is a finding. Nothing is changed, but
for indexes that are missing: they are made again from the rows.
"""

import importlib.metadata
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from paise2nb.app import App
from paise2nb.collection import items
from paise2nb.config.settings import Settings
from paise2nb.core.display import Displayable
from paise2nb.core.errors import PaiseError, PluginError, TaskError
from paise2nb.core.render import Column, amount, html_table, one_line, panel, tone, wrapped
from paise2nb.core.version import __version__
from paise2nb.doctor import data
from paise2nb.doctor.data import Finding
from paise2nb.jobs.alerts import INSTALL_APPRISE, UNCHECKED, read_states
from paise2nb.jobs.database import FORMAT as JOBS_FORMAT
from paise2nb.jobs.workers_status import silent_processes
from paise2nb.plugins import Plugins

_COLUMNS = (
    Column("state", html=tone),
    Column("check"),
    Column("text", title="finding", html=wrapped),
    Column("advice", html=wrapped),
)


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
        return panel(html_table(list(map(asdict, self.findings)), _COLUMNS))


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
    findings += _run("logins", _logins, settings)
    findings += _run("rendering", _rendering, settings)
    directory = settings.data_dir
    if directory is None:
        findings.append(Finding("ok", "data directory", "a temporary one for each run"))
        return Report(findings)
    findings += _run("data directory", data.check_directory, directory)
    if directory.is_dir() or not directory.exists():
        findings += _run("databases", data.check_databases, settings, directory)
    if directory.is_dir() and not Report(findings).exit_status:
        findings += _run("workers", _workers, settings)
    return Report(findings)


def _run(check: str, run: Callable[..., Iterator[Finding]], *args: Any) -> Iterator[Finding]:
    try:
        yield from run(*args)
    except Exception as error:  # a check that fails is a finding, and the others follow
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
            advice = "use a Python with a SQLite that has it, such as python.org's or conda's"
            yield Finding("wrong", "full-text search", "this SQLite lacks FTS5", advice)
    yield Finding("ok", "paise2nb", __version__)


def _plugins(settings: Settings) -> Iterator[Finding]:
    loaded = Plugins(settings)
    loaded.provider(settings.task_queue.provider)
    yield Finding("ok", "plugins", f"all load; tasks: {', '.join(sorted(loaded.tasks))}")


def _logins(settings: Settings) -> Iterator[Finding]:
    """Check the cookies and headers for hosts with a login."""
    from paise2nb.content.fetch import logins

    fetch = settings.fetch
    if fetch.cookies is None and not fetch.headers:
        return
    problems = logins.problems(fetch)
    for problem in problems:
        text, _, advice = problem.partition("; ")
        yield Finding("wrong", "logins", text, advice or "fix this, then: paise2 cookies")
    file = None if problems else logins.Session(fetch).file()
    found = [] if file is None else [c for named in file.cookies.values() for c in named]
    if expired := sum(cookie.is_expired for cookie in found):
        text = f"{expired} of {amount(len(found), 'cookie')} have expired: {fetch.cookies}"
        yield Finding("warning", "logins", text, "export them again; paise2 cookies lists them")
    elif not problems:
        text = f"{amount(len(found), 'cookie')}, headers for {amount(len(fetch.headers), 'host')}"
        yield Finding("ok", "logins", text)


def _rendering(settings: Settings) -> Iterator[Finding]:
    """Start the browser, if pages are rendered."""
    fetch = settings.fetch
    if {fetch.render, *fetch.render_hosts.values()} == {"never"}:
        return
    from paise2nb.content.render.browser import browser

    try:
        yield Finding("ok", "rendering", f"Chromium {browser.check(fetch)} starts")
    except TaskError as error:
        text, _, advice = str(error).partition(": ")
        yield Finding("wrong", "rendering", text, advice)
    finally:
        browser.close()


def _workers(settings: Settings) -> Iterator[Finding]:
    with App(settings, plugins=Plugins(settings, tolerant=True)) as app:
        status, paused = app.workers.status(), app.status().paused
        silent = silent_processes(app.queue.job_store)
        missing, alerts = data.missing_bytes(app), list(_alerts(app))
        store, path = type(app.store), app.queue.job_store.path
        if store is not items.ItemStore:
            text = f"{amount(app.store.count(), 'item')} in {store.__module__}.{store.__qualname__}"
            yield Finding("ok", "items", text)
        if path != settings.databases(app.data_dir)[0]:  # a plugin's queue chose it
            yield from data.check_database("jobs", path, JOBS_FORMAT)
    yield from missing
    yield from alerts
    for text, advice in silent:
        yield Finding("wrong", "workers", text, advice)
    failed = [worker for worker in status.workers if worker["state"] == "failed"]
    for worker in failed:
        text = f"a worker of pool {worker['pool']} could not start: {worker['error']}"
        yield Finding("wrong", "workers", text, "fix this, then: paise2 worker restart")
    if status.workers and status.supervisor is None and not failed:
        yield Finding("wrong", "workers", "they have no supervisor", "paise2 worker restart")
    if status.problem:
        problem, _, advice = status.problem.rpartition("; ")
        yield Finding("wrong", "workers", problem or advice, advice if problem else "")
    elif not failed and not silent:
        yield Finding("ok", "workers", f"{amount(len(status.workers), 'worker')} running")
    if paused and paused not in (status.problem or ""):
        yield Finding("wrong", "queue", f"paused: {paused}", "fix this; the queue then goes on")


def _alerts(app: App) -> Iterator[Finding]:
    """Check that the alerts are checked, and that their messages are delivered."""
    alerts, job_store = app.settings.alerts, app.queue.job_store
    if not alerts:
        return
    if any(alert.notify for alert in alerts) and find_spec("apprise") is None:
        yield Finding("wrong", "alerts", "notify needs Apprise", INSTALL_APPRISE)
    if not app.immediate and not job_store.running_supervisor():
        problem, _, advice = UNCHECKED.partition("; ")
        yield Finding("warning", "alerts", problem, advice)
    states = read_states(job_store)
    undelivered = [a for a in alerts if a.name in states and states[a.name].error]
    for alert in undelivered:
        text = f"{alert.name} can't be delivered to {alert.target}: {states[alert.name].error}"
        yield Finding("wrong", "alerts", text, "fix this, then: paise2 alerts test")
    if not undelivered:
        yield Finding("ok", "alerts", f"{amount(len(alerts), 'alert')}, none undelivered")
