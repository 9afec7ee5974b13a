"""How a line becomes a call: click's commands, with the options that all of them take.

The same table serves the shell and the notebook, so nothing here prints or ends the process:
a command returns an object, and every mistake is one of the package's own exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.session import Session
from paise2nb.core.errors import PaiseError, UsageError

ALIASES = {"workers": "worker"}
FILTERS = (
    ("state", "NAME", "Only jobs in this state: queued, running, retrying, failed, …"),
    ("task", "NAME", "Only jobs of this task."),
    ("tag", "NAME", "Only jobs with this tag."),
    ("error", "CLASS", "Only jobs whose last error is of this class: timeout, http_4xx, …"),
)


def shared_options(hidden: bool) -> list[click.Option]:
    """The options of all commands; hidden in the help of each but the first."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        session = context.find_object(Session)
        if session is not None and value not in (None, False):
            setattr(session, str(option.name), value)

    def override(context: click.Context, _: click.Parameter, values: Sequence[str]) -> None:
        from paise2nb.config.settings import parse_assignment

        session = context.find_object(Session)
        if session is not None:
            session.overrides.update(map(parse_assignment, values))

    def immediate(context: click.Context, _: click.Parameter, value: bool) -> None:
        session = context.find_object(Session)
        if session is not None and value:
            session.overrides["task_queue.sqlite.immediate"] = True

    def version(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            from paise2nb.core.version import __version__

            click.echo(f"paise2nb {__version__}")
            context.exit()

    def option(*names: str, call: Callable[..., None], help: str, **rest: Any) -> click.Option:
        return click.Option(
            names, callback=call, help=help, expose_value=False, hidden=hidden, **rest
        )

    return [
        option(
            "--profile", call=keep, metavar="NAME", help="development, test or production.",
            shell_complete=completion.profiles,
        ),
        option("--data-dir", call=keep, metavar="DIR", help="Where everything is kept."),
        option(
            "--set", call=override, multiple=True, metavar="KEY=VALUE",
            shell_complete=completion.settings,
            help="A setting by its dotted key; the value is YAML. Repeatable.",
        ),
        option(
            "--immediate", call=immediate, is_flag=True,
            help="Run jobs in this process: task_queue.sqlite.immediate=true.",
        ),
        option("--json", call=keep, is_flag=True, help="The result as JSON."),
        option("--debug", call=keep, is_flag=True, help="Show the traceback of an error."),
        option("--version", call=version, is_flag=True, is_eager=True, help="Show the version."),
    ]  # fmt: skip


class Command(click.Command):
    """One command of the table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *shared_options(hidden=True)]
        self.epilog = "Options of all commands: paise2 --help"

    def shell_complete(
        self, context: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Its options, and those of all commands."""
        found = super().shell_complete(context, incomplete)
        return completion.with_hidden(self, context, incomplete, found)

    def invoke(self, context: click.Context) -> Any:
        """Run it; a cell's body that it does not read is a mistake."""
        session = context.find_object(Session)
        if session is not None and session.cell is not None and not reads_cell(self):
            raise UsageError(f"{context.command_path} reads no cell; write it in one line")
        return super().invoke(context)


def reads_cell(command: click.Command) -> bool:
    """Whether a command reads the body of a notebook cell."""
    return bool(getattr(command.callback, "reads_cell", False))


@click.pass_context
def _help_alone(context: click.Context) -> None:
    """Without a command the help is the answer."""
    if context.invoked_subcommand is not None:
        return
    session = context.find_object(Session)
    if session is not None and session.cell is not None:
        raise UsageError("a cell of what? Name a command, such as %%paise2 enqueue fetch")
    click.echo(context.get_help())


class CommandGroup(click.Group):
    """The table, or a part of it such as ``worker``."""

    command_class = Command

    def __init__(self, name: str, *, help: str, callback: Callable[..., Any] = _help_alone) -> None:
        super().__init__(name, help=help, callback=callback, invoke_without_command=True)
        self.params = [*self.params, *shared_options(hidden=name != "paise2")]

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which they are used, not of the alphabet."""
        return list(self.commands)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name, or of the name that it also goes by."""
        return super().get_command(context, ALIASES.get(name, name))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments. Raises UsageError with the nearest known name."""
        known_or_option = self.get_command(context, args[0]) or args[0].startswith("-")
        if not known_or_option and not context.resilient_parsing:
            near = get_close_matches(args[0], self.commands, 1)
            known = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.commands)}"
            raise UsageError(f"unknown command {args[0]!r}; {known}")
        return super().resolve_command(context, args)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the filters, alike everywhere."""
    for name, metavar, help in reversed(FILTERS):
        complete = completion.FILTERS[name]
        command = click.option(f"--{name}", metavar=metavar, help=help, shell_complete=complete)(
            command
        )
    return command


def run(table: click.Group, args: Sequence[str], session: Session, name: str = "paise2") -> Any:
    """Run one line of the table; what its command returns.

    Args:
        table: the commands.
        args: the words of the line.
        session: keeps the line's options.
        name: how the line begins, for usage texts.

    Raises:
        UsageError: the line itself is wrong; one line that says what to type.
        PaiseError: what the command raises.
        KeyboardInterrupt: it was interrupted.
    """
    try:
        # Not table.main(): it answers an interrupt with a line of its own.
        with table.make_context(name, list(args), obj=session) as context:
            return table.invoke(context)
    except click.exceptions.Exit:  # --help and --version have printed what there is to say
        return None
    except click.NoSuchOption as error:
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        raise UsageError(f"unknown option {error.option_name}{near or _usage(error)}") from None
    except click.UsageError as error:
        message = error.format_message().strip().rstrip(".").replace("\n", " ")
        raise UsageError(message[:1].lower() + message[1:] + _usage(error)) from None
    except click.ClickException as error:
        raise PaiseError(error.format_message()) from None
    except click.Abort:
        raise KeyboardInterrupt from None


def _usage(error: click.UsageError) -> str:
    where = error.ctx.command_path if error.ctx else "paise2"
    return f"; `{where} --help` says what it takes"
