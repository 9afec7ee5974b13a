"""A broken plugin is named with its line, and blocks only the commands that need it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.config.settings import Settings
from paise2nb.core.errors import PluginError, SettingsError
from paise2nb.plugins import Plugins

HEAD = "from paise2nb import extractor, fetcher, hookimpl, task\n\n"
SHOUT = HEAD + '@task("shout")\ndef shout(context, word):\n    return word.upper()\n'

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SHOUT)
    return path


@pytest.fixture
def run(tmp_path: Path, plugin: Path) -> Run:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        options = ["--data-dir", str(tmp_path / "data"), "--set", f"plugins=[{plugin}]"]
        line = [sys.executable, "-m", "paise2nb", *words, *options]
        return subprocess.run(
            line, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
        )

    return command


def test_a_broken_plugin_blocks_only_the_commands_that_need_it(
    run: Run, plugin: Path, tmp_path: Path
) -> None:
    assert run("worker", "start", "--daemonize").returncode == 0
    try:
        assert run("enqueue", "shout", "hello", "--wait").returncode == 0
        plugin.write_text(SHOUT + "\nimport nothing_of_that_name\n")
        reason = f"plugin '{plugin}' can't be loaded: line 7: ModuleNotFoundError: No module"
        for words in (
            ("status",), ("worker", "status"), ("search", "word"), ("items",), ("jobs",),
            ("job", "1"), ("export", "items.jsonl"), ("config", "show"), ("plugins",),
            ("worker", "logs"), ("pause",), ("resume",), ("retry", "1"), ("cancel", "1"),
        ):  # fmt: skip
            done = run(*words)
            assert done.returncode == 0, (words, done.stderr)
            assert reason in done.stderr or words[0] == "config", words
        [row] = [r for r in json.loads(run("plugins", "--json").stdout) if r["state"] == "broken"]
        assert (row["name"], row["origin"]) == ("mine", str(plugin))
        assert row["reason"].startswith(reason)
        assert reason in run("plugins").stdout
        for words in (("enqueue", "shout", "x"), ("worker", "start"), ("worker", "restart")):
            done = run(*words)
            assert done.returncode == 1, words
            assert reason in done.stderr.splitlines()[-1], words
        assert run("worker", "status").stdout.startswith("5 workers"), "a restart that can't"
        assert run("enqueue", "cleanup").returncode == 0
    finally:
        stopped = run("worker", "stop", "--timeout", "0")
    assert stopped.stdout.startswith("workers stopped")


def test_jobs_do_not_run_in_a_process_without_one_of_its_plugins(run: Run, plugin: Path) -> None:
    plugin.write_text("1 / 0")
    done = run("enqueue", "cleanup", "--immediate")
    assert done.returncode == 1
    assert "line 1: ZeroDivisionError" in done.stderr


def test_a_plugin_is_loaded_whole_or_not_at_all(plugin: Path, tmp_path: Path) -> None:
    plugin.write_text(SHOUT + '@task("fetch")\ndef fetch(context, url): ...\n')
    settings = Settings.resolve(
        "test", data_dir=tmp_path / "data", overrides={"plugins": [str(plugin)]}
    )
    loaded = Plugins(settings, tolerant=True)
    assert "shout" not in loaded.tasks
    assert loaded.tasks["fetch"].plugin == "paise2nb.content.tasks"
    with pytest.raises(PluginError, match=r"unknown task 'shout'; .*defines task 'fetch', which"):
        loaded.task("shout")


def test_an_app_opens_without_an_action_or_provider_that_fails(
    run: Run, plugin: Path, tmp_path: Path
) -> None:
    body = "class Odd:\n    def opened(self, app): 1 / 0\n    def closed(self, app): ...\n"
    plugin.write_text(f"{HEAD}{body}@hookimpl\ndef lifecycle_actions(): return [Odd()]\n")
    done = run("items")
    assert done.returncode == 0
    assert "failed in opened(): ZeroDivisionError" in done.stderr
    plugin.write_text(f"{HEAD}@hookimpl\ndef cache_provider(app): return {{}}\n")
    done = run("items")
    assert done.returncode == 0
    assert "cache_provider returned {} (dict), which has no put()" in done.stderr


def test_a_damaged_list_of_saved_plugins_blocks_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "plugins").mkdir(parents=True)
    (tmp_path / "data" / "plugins" / "cells.json").write_text("{")
    done = run("status")
    assert done.returncode == 0
    assert "cells.json is damaged; remove it" in done.stderr


# What plugins declare ------------------------------------------------------------------------

DECLARATIONS = {
    "a negative number": (
        '@task("x", max_retries=-1)\ndef x(context): ...',
        "line 3: task 'x': max_retries is -1; give a whole number, 0 or more",
    ),
    "a number as text": (
        '@task("x", retry_delay="2")\ndef x(context): ...',
        "line 3: task 'x': retry_delay is '2'; give seconds, 0 or more",
    ),
    "no time at all": ('@task("x", timeout=0)\ndef x(context): ...', "timeout is 0; give seconds"),
    "negative memory": (
        '@task("x", memory_mb=-5)\ndef x(context): ...',
        "task 'x': memory_mb is -5; give megabytes, 1 or more",
    ),
    "a policy with a negative number": (
        '@task("x", policies={"dns": {"max_retries": -2}})\ndef x(context): ...',
        "max_retries is -2 in the policy for 'dns'; give a whole number",
    ),
    "a policy that is a number": (
        '@task("x", policies={"dns": 2})\ndef x(context): ...',
        "line 3: task 'x': the policy for 'dns' is 2; give a mapping such as",
    ),
    "a task without a name": (
        "@task\ndef x(context): ...",
        'line 3: a decorator needs a name, such as @task("shout")',
    ),
    "an extractor without a type": (
        "@extractor\ndef a(context, data, source): ...",
        "line 3: a decorator needs a name",
    ),
    "an extractor for nothing": (
        "@extractor()\ndef a(context, data, source): ...",
        'line 3: extractor a is declared for [] (list); write @extractor("text/csv", suffixes=',
    ),
    "a suffix as a type": (
        '@extractor(".a")\ndef a(context, data, source): ...',
        "line 3: extractor a is declared for ['.a'] (list); write @extractor(",
    ),
    "a list of schemes": (
        '@fetcher(["gopher"])\ndef g(context, url): ...',
        "line 3: fetcher g is declared for [['gopher']] (list); write @fetcher(",
    ),
    "a scheme with a colon": (
        '@fetcher("gopher://")\ndef g(context, url): ...',
        "line 3: fetcher g is declared for ['gopher://'] (list); write @fetcher(",
    ),
    "an unknown pool": (
        '@task("x", pool="gpu")\ndef x(context): ...',
        "line 3: task 'x': pool is 'gpu', which workers.pools does not have; known: default, fet",
    ),
    "no context": (
        '@task("x")\ndef x(word): ...',
        "line 3: task 'x': it takes no context; write def x(context, word)",
    ),
    "no argument at all": ('@task("x")\ndef x(): ...', "write def x(context, …)"),
    "an extractor without a context": (
        '@extractor("text/x-a")\ndef a(data, source): ...',
        "line 3: extractor a must take (context, data, source)",
    ),
    "a fetcher without a context": (
        '@fetcher("gopher")\ndef g(url): ...',
        "line 3: fetcher g must take (context, url)",
    ),
    "functions as tasks": (
        "@hookimpl\ndef tasks(): return [print]",
        "tasks returned [<built-in function print>] (list); return a list of Task",
    ),
    "a list of queues": (
        "@hookimpl\ndef task_queue_providers(): return [1]",
        "task_queue_providers returned [1] (list); return a mapping of names to a TaskQueueProvi",
    ),
    "a source without a method": (
        "@hookimpl\ndef content_sources(): return {'a': 5}",
        "content_sources returned 5 (int), which has no addresses(); return a ContentSource",
    ),
    "an object without a method": (
        "@hookimpl\ndef reset_actions(): return [5]",
        "reset_actions returned 5 (int), which has no reset(); return a ResetAction",
    ),
    "one object": (
        "@hookimpl\ndef lifecycle_actions(): return 5",
        "lifecycle_actions returned 5 (int); return a list of LifecycleAction",
    ),
    "a store that is none": (
        "@hookimpl\ndef data_storage_provider(app): return 'x'",
        "data_storage_provider returned 'x' (str), which has no put()",
    ),
    "defaults that are no mapping": (
        "class C:\n    def defaults(self): return 5\n"
        "@hookimpl\ndef configuration_providers(): return [C()]",
        "defaults() returned 5 (int); return a mapping of dotted keys to values",
    ),
}


@pytest.mark.parametrize("what", DECLARATIONS)
def test_a_declaration_is_checked_when_it_is_loaded(
    plugin: Path, tmp_path: Path, what: str
) -> None:
    body, reason = DECLARATIONS[what]
    plugin.write_text(HEAD + body + "\n")
    settings = {"plugins": [str(plugin)]}
    with pytest.raises(PluginError) as caught:
        paise2nb.open("development", tmp_path / "data", settings).reset()
    assert f"plugin '{plugin}'" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_queue_must_be_one(plugin: Path, tmp_path: Path) -> None:
    body = "class Q:\n    def create(self, app): return 5\n"
    plugin.write_text(f"{HEAD}{body}@hookimpl\ndef task_queue_providers(): return {{'mine': Q()}}")
    settings = {"plugins": [str(plugin)], "task_queue.provider": "mine"}
    with pytest.raises(PluginError, match=r"task_queue.provider mine: create\(\) returned int"):
        paise2nb.open("development", tmp_path / "data", settings)


def test_pools_do_not_matter_where_jobs_run_in_the_caller(plugin: Path, tmp_path: Path) -> None:
    plugin.write_text(SHOUT.replace('"shout"', '"shout", pool="gpu"'))
    with paise2nb.open("test", tmp_path / "data", {"plugins": [str(plugin)]}) as app:
        assert app.enqueue("shout", "a").result() == "A"


def test_a_task_of_a_pool_that_no_plugin_defines_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = {"workers.pools.slow.tasks": ["fetsh"]}
    wrong = r"^--set: workers\.pools\.slow\.tasks: unknown task 'fetsh'; did"
    with pytest.raises(SettingsError, match=wrong):
        paise2nb.open("development", tmp_path / "data", settings)


def test_a_context_may_have_another_name(plugin: Path, tmp_path: Path) -> None:
    functions = ("def a(ctx, x): ...", "def b(_, x): ...", "def c(*all): ...")
    typed = "from paise2nb import Context\n@task('d')\ndef d(me: Context): ...\n"
    tasks = "".join(f"@task('{f[4]}')\n{f}\n" for f in functions)
    plugin.write_text(HEAD + tasks + typed)
    with paise2nb.open("test", tmp_path / "data", {"plugins": [str(plugin)]}) as app:
        assert isinstance(app, App)
        assert {"a", "b", "c", "d"} <= set(app.plugins.tasks)
