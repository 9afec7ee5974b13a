"""Completion of command lines: the same candidates for shells and for notebooks.

Values that a user would otherwise have to look up (tasks, jobs, tags) are read from the app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from paise2nb.commands.session import Session
from paise2nb.core.errors import PaiseError
from paise2nb.jobs.models import PAGE_STATES, UNFINISHED

if TYPE_CHECKING:
    from paise2nb.app import App

MAX_CANDIDATES = 50
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def candidates(source: Callable[[App], Iterable[object]] | Iterable[str]) -> Complete:
    """Make a completion function that offers the words of a source that fit what was typed.

    A data directory that can't be read offers nothing: completion never fails.

    Args:
        source: the words, or a function that reads them from the app.
    """

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        try:
            session = context.find_object(Session) or Session()
            known = source(session.app) if callable(source) else source
            fitting = (str(word) for word in known if str(word).startswith(incomplete))
            return list(islice(dict.fromkeys(fitting), MAX_CANDIDATES))
        except PaiseError:
            return []

    return complete


def job_ids(*states: str) -> Complete:
    """Make a completion function for jobs in these states (none: all), newest first."""

    def ids(app: App) -> Iterable[int]:
        find = app.queue.job_store.find
        found = [job_id for state in states for job_id in find(state=state)] if states else find()
        return sorted(found, reverse=True)

    return candidates(ids)


def _plugin_names(app: App) -> Iterable[str]:
    names = (row["plugin"] for row in app.plugins.describe())
    return (name for name in names if not name.startswith("paise2nb."))


tasks = candidates(lambda app: app.plugins.tasks)
items = candidates(lambda app: (row["id"] for row in app.store.list(limit=MAX_CANDIDATES)))
tags = candidates(lambda app: app.queue.job_store.tags())
errors = candidates(lambda app: (row["error_class"] for row in app.queue.job_store.failures()))
plugins = candidates(_plugin_names)
pools = candidates(lambda app: ["default", *app.settings.workers.pools])
settings = candidates(lambda app: (f"{row['key']}=" for row in app.settings.rows()))
states = candidates((*PAGE_STATES, "completed"))
profiles = candidates(("development", "production", "test"))
unfinished = job_ids(*UNFINISHED)
retriable = job_ids("failed", "cancelled", "retrying")
replayable = job_ids("failed", "retrying", "completed")


def complete(
    table: click.Group, line: list[str], incomplete: str, session: Session
) -> list[CompletionItem]:
    """Return the candidates for the last word of a line.

    Args:
        table: the commands.
        line: the complete words before.
        incomplete: the beginning of the word to complete.
        session: opens the app that candidates are read from.
    """
    arguments: dict[str, Any] = {"obj": session}
    return ShellComplete(table, arguments, "paise2", "").get_completions(line, incomplete)
