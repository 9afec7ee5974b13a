"""How a command line becomes a call: click's commands, with the options that all of them take.

The same commands serve the shell and the notebook.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

from paise2nb.commands import completion
from paise2nb.commands.session import Session, pass_session
from paise2nb.core.errors import UsageError
from paise2nb.core.render import in_cell_words
from paise2nb.core.text import did_you_mean

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
ALIASES = {"workers": "worker"}
PURPOSES = {
    "Start": {
        "demo": "demo",
        "profile": "profile production",
        "config": "config show",
        "doctor": "doctor",
        "help": "help enqueue",
    },
    "Collect pages": {
        "enqueue": "enqueue fetch https://example.org/ --tag news --wait",
        "wait": "wait --timeout 10m",
        "cookies": "cookies cookies.txt",
    },
    "Run workers": {
        "worker": "worker start --concurrency 4",
        "pause": "pause fetch",
        "resume": "resume",
    },
    "See what happens": {
        "watch": "watch",
        "status": "status",
        "jobs": "jobs --state failed --tag news",
        "job": "job 17",
        "stats": "stats --since 1d --by host",
    },
    "Deal with failures": {
        "retry": "retry --error timeout",
        "replay": "replay 17",
        "cancel": "cancel --tag news",
    },
    "Use the collection": {
        "search": 'search "canal locks" site:example.org',
        "items": "items --tag news",
        "item": "item 5 --diff",
        "export": "export news.csv --tag news",
    },
    "Extend": {"plugin": "%%paise2 plugin shout", "plugins": "plugins"},
    "Operate": {
        "health": "health --max-failed 10",
        "metrics": "metrics --serve 9100",
        "alerts": "alerts test",
        "backup": "backup ~/backups/news",
        "restore": "restore ~/backups/news",
        "reset": "reset --yes",
    },
}
"""The commands by what they are for, each with an example: its words, or the line of a cell."""
_FILTERS = (
    ("--state NAME", completion.states, "Only pages and jobs in this state: stored, failed, …"),
    ("--task NAME", completion.tasks, "Only jobs of this task."),
    ("--tag NAME", completion.tags, "Only jobs with this tag."),
    ("--error CLASS", completion.errors, "Only jobs with this last error: timeout, http_4xx, …"),
)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Put the value of a shared option into the session."""
    session = context.find_object(Session)
    if session is None or value in (None, False, ()):
        return
    if option.name == "set":
        from paise2nb.config.parser import parse_assignment

        session.overrides.update(map(parse_assignment, value))
    elif option.name == "immediate":
        session.overrides["task_queue.sqlite.immediate"] = True
    else:
        setattr(session, str(option.name), value)


def _add_shared_options(command: click.Command, *, hidden: bool) -> None:
    """Add the options of all commands; only the help of the whole table lists them."""
    add = partial(option, callback=_keep, expose_value=False, hidden=hidden)
    profiles = "The profile: development, test or production."
    add("--profile NAME", profiles, shell_complete=completion.profiles)(command)
    add("--data-dir DIR", "The directory of the databases, the cache and the logs.")(command)
    override = "Override a setting; the value is YAML. Repeatable."
    add("--set KEY=VALUE", override, multiple=True, shell_complete=completion.settings)(command)
    add("--immediate", "Run jobs in this process (task_queue.sqlite.immediate=true).")(command)
    add("--json", "Print the result as JSON.")(command)
    add("--debug", "Show the traceback of an error.")(command)
    text = "paise2nb %(version)s"
    add_version = partial(click.version_option, package_name="paise2nb", message=text)
    add_version(help="Show the version.", hidden=hidden)(command)


class _CellHelp(click.Command):
    """Help with examples that can be pasted where it is read: a shell or a notebook."""

    def get_help(self, context: click.Context) -> str:
        """Return the help text, in a notebook with ``%paise2`` in place of ``paise2``."""
        text = super().get_help(context)
        return in_cell_words(text) if context.command_path.startswith("%") else text


class Command(_CellHelp):
    """One command of the table.

    Args:
        reads_cell: whether it reads the body of a notebook cell.
    """

    def __init__(self, *args: Any, reads_cell: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reads_cell = reads_cell
        self.epilog = "Options of all commands: paise2 --help"
        _add_shared_options(self, hidden=True)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return its own options, and those of all commands, which click hides."""
        found = super().shell_complete(context, incomplete)
        if incomplete.startswith("--"):
            hidden = (p for p in self.params if isinstance(p, click.Option) and p.hidden)
            names = (name for option in hidden for name in option.opts)
            found += [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found

    def invoke(self, context: click.Context) -> Any:
        """Run it. Raises UsageError for a cell that it does not read."""
        if not self.reads_cell and context.ensure_object(Session).cell is not None:
            raise UsageError(f"{context.command_path} reads no cell; write it on one line")
        return super().invoke(context)


def _show_help(session: Session) -> None:
    if session.cell is not None:
        raise UsageError("the cell has no command; name one, such as %%paise2 enqueue fetch")
    click.echo(click.get_current_context().get_help())


class CommandGroup(_CellHelp, click.Group):
    """The table, or a part of it such as ``worker``.

    Args:
        name, help: as in click.
        default: called with the session if the line names no command of the group.
    """

    command_class = Command

    def __init__(
        self, name: str, *, help: str, default: Callable[[Session], Any] = _show_help
    ) -> None:
        @click.pass_context
        def callback(context: click.Context) -> Any:
            if context.invoked_subcommand is None:
                return default(context.ensure_object(Session))
            return None

        super().__init__(name, help=help, callback=callback, invoke_without_command=True)
        _add_shared_options(self, hidden=name != "paise2")

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names in the order of use, not of the alphabet."""
        return list(self.commands)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by purpose with examples; those of a part one after the other."""
        if self.name != "paise2":
            super().format_commands(context, formatter)
            return
        for purpose, examples in PURPOSES.items():
            with formatter.section(purpose):
                for name in filter(self.commands.__contains__, examples):
                    text = self.commands[name].get_short_help_str(70)
                    in_cell = examples[name].startswith("%")
                    example = examples[name] if in_cell else f"paise2 {examples[name]}"
                    formatter.write(f"  {name:<9}{text}\n{'':11}{example}\n")

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options."""
        self.format_commands(context, formatter)
        click.Command.format_options(self, context, formatter)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of that name or alias."""
        return super().get_command(context, ALIASES.get(name, name))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments. Raises UsageError with the nearest known name."""
        known_or_option = self.get_command(context, args[0]) or args[0].startswith("-")
        if not known_or_option and not context.resilient_parsing:
            hint = did_you_mean(args[0], self.commands, "{!r}")
            raise UsageError(f"unknown command {args[0]!r}; {hint}")
        return super().resolve_command(context, args)


def command(
    name: str, *, group: click.Group | None = None, reads_cell: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function that takes the session and then the command's options.

    Args:
        name: the name of the command.
        group: the group that it belongs to, other than the table.
        reads_cell: whether it reads the body of a notebook cell.
    """

    def make(function: Callable[..., Any]) -> click.Command:
        made = click.command(name, cls=Command, reads_cell=reads_cell)(pass_session(function))
        if group is not None:
            group.add_command(made)
        return made

    return make


def option(declaration: str, help: str, *names: str, **rest: Any) -> Decorator:
    """Declare an option as its help shows it: ``--tag NAME``, or ``--force`` for a flag.

    Args:
        declaration: the option, and what its value is called.
        help: what it does.
        names: the name of its parameter, if that is another one.
        rest: more arguments of `click.option`.
    """
    name, _, metavar = declaration.partition(" ")
    form = {"metavar": metavar} if metavar else {"is_flag": True}
    return click.option(name, *names, help=help, **{**form, **rest})


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the filters of jobs."""
    for declaration, complete, help in reversed(_FILTERS):
        function = option(declaration, help, shell_complete=complete)(function)
    return function


def usage_hint(error: click.UsageError) -> str:
    """Return the end of a message about a wrong line: the command that lists what fits."""
    command = error.ctx.command_path if error.ctx else "paise2"
    return f"; `{command} --help` lists what it takes"
