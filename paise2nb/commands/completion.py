"""What can stand next on a line: the same answers for shells and for notebooks.

Each value that a person would have to look up (a task, a job, a tag) is looked up here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from paise2nb.commands.session import Session
from paise2nb.core.errors import PaiseError
from paise2nb.jobs import STATES, UNFINISHED

if TYPE_CHECKING:
    from paise2nb.app import App

MOST = 50  # words that are offered
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def words(given: Callable[[App], Iterable[object]] | Iterable[str]) -> Complete:
    """Offers those of some words that begin as typed; read from the app, where they depend on it.

    Where nothing can be read there is nothing to offer: completion never fails.
    """

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        try:
            session = context.find_object(Session) or Session()
            known = given(session.app) if callable(given) else given
            fitting = (str(word) for word in known if str(word).startswith(incomplete))
            return list(islice(fitting, MOST))
        except PaiseError:
            return []

    return complete


def jobs(*states: str) -> Complete:
    """The ids of jobs in some states (none: all), the newest first."""

    def ids(app: App) -> Iterable[int]:
        find = app.queue.job_store.find
        found = [job_id for state in states for job_id in find(state=state)] if states else find()
        return sorted(found, reverse=True)

    return words(ids)


tasks = words(lambda app: app.plugins.tasks)
items = words(lambda app: (row["id"] for row in app.store.list(limit=MOST)))
tags = words(lambda app: app.queue.job_store.tags())
errors = words(
    lambda app: {str(group["error_class"]): 1 for group in app.queue.job_store.failures()}
)
plugins = words(
    lambda app: {
        row["plugin"]: 1
        for row in app.plugins.describe()
        if not row["plugin"].startswith("paise2nb.")
    }
)
pools = words(lambda app: ["default", *app.settings.workers.pools])
settings = words(lambda app: (f"{row['key']}=" for row in app.settings.rows()))
states = words(STATES)
profiles = words(("development", "production", "test"))
FILTERS = {"state": states, "task": tasks, "tag": tags, "error": errors}
UNENDED = jobs(*UNFINISHED)
RETRIABLE = jobs("failed", "cancelled", "retrying")
WORTH_REPLAYING = jobs("failed", "retrying", "completed")


def with_hidden(
    command: click.Command, context: click.Context, incomplete: str, found: list[CompletionItem]
) -> list[CompletionItem]:
    """What was found, and the options of all commands, which the help of one does not repeat."""
    if incomplete.startswith("--"):
        hidden = (p for p in command.params if isinstance(p, click.Option) and p.hidden)
        names = (name for option in hidden for name in option.opts)
        found += [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found


def complete(
    table: click.Group, line: list[str], incomplete: str, session: Session
) -> list[CompletionItem]:
    """What can stand at the end of a line.

    Args:
        table: the commands.
        line: the whole words before.
        incomplete: what is there of the word in question.
        session: leads to the app.
    """
    arguments: dict[str, Any] = {"obj": session}
    return ShellComplete(table, arguments, "paise2", "").get_completions(line, incomplete)
