"""The command table: each command is written once and returns an object.

The shell prints the object's text or JSON, the notebook returns the object itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paise2nb.commands import collection, jobs, maintenance, workers
from paise2nb.commands.cli import CommandGroup, run
from paise2nb.commands.config import config
from paise2nb.commands.plugin import plugin, plugins
from paise2nb.commands.session import Session

table = CommandGroup(
    "paise2", help="Turn URLs into a searchable collection, with background workers."
)
for command in (
    maintenance.profile, jobs.enqueue, workers.worker, jobs.status, jobs.jobs, jobs.job, jobs.wait,
    jobs.retry, jobs.cancel, jobs.replay, collection.search, collection.items, collection.item,
    collection.export, maintenance.watch, config, plugins, maintenance.reset, maintenance.demo,
    maintenance.doctor, plugin,
):  # fmt: skip
    table.add_command(command)


def main(args: Sequence[str], session: Session, name: str = "paise2") -> Any:
    """Run one line and return the object of its command; see `paise2nb.commands.cli.run`."""
    return run(table, args, session, name)


__all__ = ["Session", "main", "table"]
