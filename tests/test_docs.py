"""The documentation is complete, and names only things that exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
import pytest

import paise2nb
from paise2nb.commands import table
from paise2nb.config.settings import KEYS
from tests import save_reference
from tests.test_project import PROJECT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = (ROOT / "docs/commands.md").read_text("utf-8")
SETTINGS = (ROOT / "docs/settings.md").read_text("utf-8")
# Every document, with the links and files that it names.
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
NOTEBOOKS = "\n".join(path.read_text("utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))


def commands(group: click.Group = table, *names: str) -> list[tuple[str, click.Command]]:
    """Every command with its full name; groups are left out."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, *names, name)
        else:
            found.append((" ".join((*names, name)), command))
    return found


@pytest.mark.parametrize(("words", "command"), commands())
def test_a_command_has_help_and_is_described(words: str, command: click.Command) -> None:
    assert command.help
    last = words.split()[-1]
    assert f"`{words}" in COMMANDS or f"`{last}" in COMMANDS or f"%paise2 {words}" in NOTEBOOKS
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{words} {option.opts} has no help"


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_described_beside_its_default(key: str) -> None:
    assert save_reference.meaning(key)


def test_the_reference_has_every_setting_with_its_value_in_production() -> None:
    # After a change of the settings: python -m tests.save_reference
    assert "".join(re.findall(r"^\| `.*\n", SETTINGS, re.MULTILINE)) == save_reference.table()


@pytest.mark.parametrize("name", sorted(set(paise2nb.__all__) - {"__version__"}))
def test_a_public_name_has_a_docstring(name: str) -> None:
    public = getattr(paise2nb, name)
    assert inspect.getdoc(public)
    if inspect.isclass(public):
        members = inspect.getmembers(public, inspect.isfunction)
        bare = [m for m, f in members if not m.startswith("_") and not f.__doc__]
        assert bare == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:[\w.-]+/)*[\w-]+/[\w.-]*|[\w/]+\.(?:md|txt|toml))`", text)
    found = [(ROOT / document).parent / link for link in links]
    assert [path for path in found if not path.exists()] == []
    # Where the code is described, paths are relative to the package.
    roots = (ROOT, ROOT / "paise2nb")
    assert [n for n in named if not any((root / n).exists() for root in roots)] == []


def test_the_readme_is_short_and_leads_to_every_document() -> None:
    assert len(README.splitlines()) < 120
    elsewhere = set(DOCUMENTS) - {"README.md", "docs/index.md"}  # the index is the site's own
    assert {name for name in elsewhere if f"]({name})" not in README} == set()


def test_the_readme_names_every_extra() -> None:
    extras = PROJECT["optional-dependencies"].keys()
    assert {e for e in extras if not re.search(rf"`{e}`|\[[\w,]*\b{e}\b[\w,]*\]", README)} == set()


def test_the_readme_has_the_two_commands_for_a_new_machine() -> None:
    assert "pip install . && paise2 demo" in README
    assert "pip install '.[test]' && pytest" in README
