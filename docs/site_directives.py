"""The directives of this site, which show what is in the code: commands and error classes."""

import json
from pathlib import Path

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from paise2nb.commands import table
from paise2nb.views import remedies


def help_texts(name: str, command: click.Command) -> dict[str, str]:
    """Return the help of a command and of all below it, by their words."""
    with command.make_context(name, [], resilient_parsing=True, max_content_width=100) as context:
        found = {name: command.get_help(context)}
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            found |= help_texts(f"{name} {word}", below)
    return found


class CommandOptions(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        sections = [
            f"### {words.removeprefix('paise2 ')}\n\n```text\n{text}\n```\n"
            for words, text in help_texts("paise2", table).items()
        ]
        return self.parse_text_to_nodes("\n".join(sections), allow_section_headings=True)


class ErrorClasses(SphinxDirective):
    """A table of what can fail, and what helps."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        known = json.loads(Path(remedies.__file__).with_name("remedies.json").read_text("utf-8"))
        rows = (f"| `{word}` | {one['name']} | {one['advice']} |" for word, one in known.items())
        return self.parse_text_to_nodes(
            "\n".join(["| class | | what helps |", "|---|---|---|", *rows])
        )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("command-options", CommandOptions)
    app.add_directive("error-classes", ErrorClasses)
    return {"parallel_read_safe": True}
