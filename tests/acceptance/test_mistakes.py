"""The command as a process: a mistake is one line with its exit status, and help is no mistake."""

from __future__ import annotations

import pytest

import paise2nb
from tests.acceptance.support import Place, Shell

COMMANDS = [
    "profile", "enqueue", "worker", "worker start", "worker stop", "worker restart",
    "worker status", "worker logs", "workers", "workers start", "status", "jobs", "job", "wait",
    "retry", "cancel", "replay", "search", "items", "item", "export", "watch", "config",
    "config show", "config edit", "config validate", "config path", "plugins", "plugins disable",
    "plugins enable", "plugin", "doctor", "demo", "reset",
]  # fmt: skip

# Options by the command that takes them.
OPTIONS = {
    "enqueue": (
        "--from", "--column", "--tag", "--priority", "--delay", "--every", "--force", "--wait",
        "--recursive", "--pattern", "--depth", "--any-host",
    ),
    "worker start": ("--concurrency", "--pool", "--burst", "--daemonize"),
    "worker stop": ("--timeout",),
    "worker logs": ("-n", "--follow"),
    "jobs": ("--state", "--task", "--tag", "--error", "--limit"),
    "wait": ("--state", "--task", "--tag", "--error", "--timeout"),
    "retry": ("--state", "--task", "--tag", "--error"),
    "cancel": ("--state", "--task", "--tag", "--error"),
    "export": ("--state", "--task", "--tag", "--error", "--force"),
    "search": ("--limit",),
    "items": ("--tag", "--limit"),
    "item": ("--versions", "--diff", "--since"),
    "reset": ("--hard", "--yes"),
    "plugin": ("--try",),
}  # fmt: skip

# Wrong lines: the exit status, and what the error has to name.
MISTAKES = [
    # Commands and options
    ("staus", 2, "staus", "status"),
    ("serch tide", 2, "serch", "search"),
    ("frobnicate", 2, "frobnicate"),
    ("worker strat", 2, "strat", "start"),
    ("config shwo", 2, "shwo", "show"),
    ("plugins disbale helper", 2, "disbale", "disable"),
    ("jobs --limt 3", 2, "--limt", "--limit"),
    ("enqueue shout a --tga x", 2, "--tga", "--tag"),
    ("worker start --concurency 2", 2, "--concurency", "--concurrency"),
    ("status --no-such-option", 2, "--no-such-option"),
    ("status extra", 2, "extra"),
    # Values
    ("jobs --limit many", 2, "many"),
    ("jobs --limit -1", 2, "-1"),
    ("jobs --state broken", 2, "broken", "queued", "failed"),
    ("jobs --task shuot", 2, "shuot", "shout"),
    ("job", 2, "paise2 job --help"),
    ("job one", 2, "one"),
    ("item one", 2, "one"),
    ("replay", 2, "paise2 replay --help"),
    ("search", 2, "paise2 search --help"),
    ("search tide --limit 0", 2, "0"),
    ("wait --timeout soon", 2, "soon"),
    ("worker start --concurrency 0", 2, "0"),
    ("worker start --concurrency none", 2, "none"),
    ("worker start --pool fecth", 2, "fecth", "default"),
    ("worker stop --timeout never", 2, "never"),
    ("worker logs -n some", 2, "some"),
    ("retry", 2, "paise2 retry"),
    ("cancel", 2, "paise2 cancel"),
    ("reset", 2, "--yes"),
    ("export all.docx", 2, ".docx", ".jsonl"),
    ("plugins disable nobody", 2, "nobody"),
    ("plugins enable helper", 2, "helper"),
    ("plugin mine", 2, "%%paise2 plugin"),
    # Arguments of an enqueue: nothing is added
    ("enqueue", 2, "paise2 enqueue --help"),
    ("enqueue shuot a", 2, "shuot", "shout"),
    ("enqueue frobnicate a", 2, "frobnicate"),
    ("enqueue shout", 2, "shout", "word"),
    ("enqueue add many", 2, "add", "many"),
    ("enqueue fetch exmaple", 2, "exmaple"),
    ("enqueue fetch http://", 2, "http://"),
    ("enqueue fetch page.md http://", 2, "http://"),
    ("enqueue fetch page.md nowhere.md", 2, "nowhere.md"),
    ("enqueue fetch *.nope", 2, "*.nope"),
    ("enqueue folder nowhere", 2, "nowhere"),
    ("enqueue shout a --every 5y", 2, "5y"),
    ("enqueue shout a --delay soon", 2, "soon"),
    ("enqueue shout a --priority high", 2, "high"),
    ("enqueue shout a --depth 2", 2, "shout", "--depth"),
    ("enqueue shout a --column url", 2, "--column", "--from"),
    ("enqueue shout --from nowhere.txt", 2, "nowhere.txt"),
    ("enqueue fetch --from table.csv", 2, "table.csv", "--column url"),
    ("enqueue fetch --from table.csv --column ulr", 2, "ulr", "url"),
    # Profiles and settings
    ("status --profile prodution", 2, "prodution", "production"),
    ("--profile nope status", 2, "nope", "development"),
    ("profile prodution", 2, "prodution", "production"),
    ("status --set workers.concurency=2", 2, "workers.concurency", "workers.concurrency"),
    ("status --set workers.concurrency=none", 2, "workers.concurrency", "none"),
    ("status --set workers.concurrency=-1", 2, "workers.concurrency", "-1"),
    ("status --set fetch.timeout=long", 2, "fetch.timeout", "long"),
    ("status --set workers", 2, "workers", "KEY=VALUE"),
    # What is not there, or can't be done
    ("job 7", 1, "7", "paise2 jobs"),
    ("item 7", 1, "7", "paise2 items"),
    ("replay 7", 1, "7"),
    ("retry 7", 1, "7"),
    ("cancel 7", 1, "7"),
    ("wait 7", 1, "7"),
    ("status --data-dir page.md/data", 1, "page.md/data", "--data-dir"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_is_one_line_that_names_it_and_nothing_is_done(
    table: Place, shell: Shell, mistake: tuple[str, int, *tuple[str, ...]]
) -> None:
    line, status, *named = mistake
    done = shell(*line.split())
    assert (done.status, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    for name in named:
        assert name in done.stderr
    if line.startswith("enqueue"):
        with paise2nb.open("development") as app:
            assert len(app.jobs()) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_names_its_options(shell: Shell, command: str) -> None:
    done = shell(*command.split(), "--help")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.count("\n") > 3
    for option in OPTIONS.get(command, ()):
        assert option in done.stdout


def test_the_help_names_every_command_and_every_option_of_all_commands(shell: Shell) -> None:
    done = shell("--help")
    assert (done.status, done.stderr) == (0, "")
    words = done.stdout.split()
    assert {command.split()[0] for command in COMMANDS} - {"workers"} <= set(words)
    shared = {"--profile", "--data-dir", "--set", "--immediate", "--json", "--debug", "--version"}
    assert shared <= set(words)
    assert shell().stdout == done.stdout


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    done = shell("--version")
    assert (done.status, paise2nb.__version__ in done.stdout) == (0, True)


def test_options_of_all_commands_stand_before_or_after_the_command(shell: Shell) -> None:
    before = shell("--json", "--profile", "production", "status").json
    after = shell("status", "--profile", "production", "--json").json
    assert before["profile"] == after["profile"] == "production"


def test_a_traceback_is_shown_only_for_debugging(shell: Shell) -> None:
    assert "Traceback" not in shell("job", "7").stderr
    debugged = shell("job", "7", "--debug")
    assert (debugged.status, "Traceback" in debugged.stderr) == (1, True)
