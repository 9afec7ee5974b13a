"""The command table: each command is written once and returns an object.

The shell prints the object's text or JSON, the notebook returns the object itself. So nothing here
prints a result or ends the process, and every mistake is one of the package's own exceptions.
"""

from collections.abc import Sequence
from typing import Any

import click

from paise2nb.commands import collection, jobs, logins, maintenance, operate, workers
from paise2nb.commands.cli import CommandGroup, usage_hint
from paise2nb.commands.config import config
from paise2nb.commands.help import help
from paise2nb.commands.plugin import plugin, plugins
from paise2nb.commands.session import Session
from paise2nb.core.errors import PaiseError, UsageError

table = CommandGroup(
    "paise2", help="Turn URLs into a searchable collection, with background workers."
)
for command in (
    maintenance.profile, jobs.enqueue, workers.worker, workers.pause, workers.resume, jobs.status,
    jobs.stats, jobs.jobs, jobs.job, jobs.wait, jobs.retry, jobs.cancel, jobs.replay,
    collection.search, collection.items, collection.item, collection.export, maintenance.watch,
    config, logins.cookies, plugins, operate.health, operate.metrics, operate.alerts,
    operate.backup, operate.restore, maintenance.reset, maintenance.demo, maintenance.doctor,
    plugin, help,
):  # fmt: skip
    table.add_command(command)


def main(args: Sequence[str], session: Session, name: str = "paise2") -> Any:
    """Run one line and return the result of its command.

    Args:
        args: the words of the line.
        session: keeps the line's options.
        name: the first word of the line, for usage texts.

    Raises:
        UsageError: the line is wrong; the message says what to type.
        PaiseError: the command raised it.
        KeyboardInterrupt: the command was interrupted.
    """
    try:
        # Not table.main(): on an interrupt that prints a line and ends the process.
        with table.make_context(name, list(args), obj=session) as context:
            return table.invoke(context)
    except click.exceptions.Exit:  # after --help and --version
        return None
    except click.NoSuchOption as error:
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        raise UsageError(f"unknown option {error.option_name}{near or usage_hint(error)}") from None
    except click.UsageError as error:
        message = error.format_message().strip().rstrip(".").replace("\n", " ")
        raise UsageError(message[:1].lower() + message[1:] + usage_hint(error)) from None
    except click.ClickException as error:
        raise PaiseError(error.format_message()) from None
    except click.Abort:
        raise KeyboardInterrupt from None


__all__ = ["Session", "main", "table"]
