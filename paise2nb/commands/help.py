"""``help``: the commands grouped by what they are for, each with an example."""

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from paise2nb.commands.cli import PURPOSES, command
from paise2nb.commands.session import Session
from paise2nb.core.display import Message
from paise2nb.core.render import in_cell_words


def _names(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = (name for examples in PURPOSES.values() for name in examples)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_names)
def help(session: Session, words: Sequence[str]) -> Message:
    """Show the commands by purpose, or one command with its options.

    \b
    Examples:
      paise2 help
      paise2 help enqueue
    """
    context = click.get_current_context().find_root()
    found: click.Command = context.command
    for word in words:
        if not isinstance(found, click.Group):
            break
        _, known, _ = found.resolve_command(context, [word])
        if known is not None:
            context = click.Context(known, parent=context, info_name=known.name)
            found = known
    text = found.get_help(context)
    return Message(in_cell_words(text) if session.in_notebook else text, {"help": text})
