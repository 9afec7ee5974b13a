"""Every kind of failure has its own words, and no hint recommends what can't help."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

import paise2nb
from paise2nb.commands import table
from paise2nb.config.settings import Settings
from paise2nb.core.errors import PaiseError, Snoozed, TaskError
from paise2nb.jobs.retry import error_class
from paise2nb.views.remedies import REMEDIES, remedy_for

PACKAGE = Path(paise2nb.__file__).parent
RAISED = ("TaskError", "TransientError", "PermanentError")
OF_PROCESSES = {"crash", "timeout", "memory"}
HOPELESS = (
    "unsupported", "empty", "scan", "damaged", "password", "robots", "blocked", "bad_address",
    "wrong_task", "http_4xx", "tls", "redirects", "too_large", "permanent", "NotFound",
    "UsageError",
)  # fmt: skip


def subclasses(kind: type[PaiseError]) -> Iterator[type[PaiseError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from subclasses(subclass)


def exceptions() -> set[str]:
    """The error classes of the package's exceptions, as a job has them that raises one."""
    kinds = (kind for kind in subclasses(PaiseError) if kind.__module__.endswith("core.errors"))
    return {error_class(kind("…")) for kind in kinds if kind is not Snoozed}


def literals() -> set[str]:
    """The error classes that the source code of the package names where it raises an error."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED:
                for part in (n for argument in node.args[1:2] for n in ast.walk(argument)):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.add(part.value)
    return found


def test_every_error_class_has_its_own_words() -> None:
    raised = exceptions() | literals() | OF_PROCESSES
    assert {"NotFound", "permanent", "http_4xx", "tls"} <= raised
    assert sorted(raised - REMEDIES.keys()) == []
    names = [(remedy.name, remedy.advice) for remedy in REMEDIES.values()]
    assert len(set(names)) == len(names)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.resolve("development", data_dir=tmp_path)


@pytest.mark.parametrize("word", HOPELESS)
def test_no_retry_is_recommended_where_it_can_not_help(word: str, settings: Settings) -> None:
    remedy = remedy_for(word, settings)
    assert "retry" not in f"{remedy.command} {remedy.then}"
    assert "try again" not in remedy.advice.lower()


@pytest.mark.parametrize(
    ("word", "setting", "value"),
    [
        ("blocked", "fetch.allow_private_addresses", True),
        ("robots", "fetch.robots", False),
        ("scan", "extract.ocr", "auto"),
    ],
)
def test_a_retry_is_recommended_when_the_setting_has_changed(
    word: str, setting: str, value: bool, tmp_path: Path
) -> None:
    changed = Settings.resolve("development", data_dir=tmp_path, overrides={setting: value})
    retry = "paise2 retry --error {error_class}"
    assert remedy_for(word, changed).command == retry
    restarted = remedy_for(word, changed, restart=True)
    assert (restarted.command, restarted.then) == ("paise2 worker restart", retry)


@pytest.mark.parametrize("word", [*REMEDIES, "ValueError"])
def test_a_remedy_is_a_command_that_exists(word: str, settings: Settings) -> None:
    remedy = remedy_for(word, settings)
    for command in filter(None, (remedy.command, remedy.then)):
        assert command.format(error_class=word, id=1).split()[1] in table.commands


def test_every_setting_in_an_advice_exists(settings: Settings) -> None:
    named = {
        key
        for remedy in REMEDIES.values()
        for key in re.findall(r"\b(?:fetch|extract|workers|task_queue)\.\w+", remedy.advice)
    }
    assert "fetch.allow_private_addresses" in named
    for key in named:
        attrgetter(key)(settings)


def test_the_base_of_tasks_errors_is_retried(settings: Settings) -> None:
    assert remedy_for(TaskError.error_class, settings).command.startswith("paise2 retry")
