"""Settings: the layers and their order, and what a mistake in a file is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import Place, Shell

# What `production` sets, as the table of settings documents it.
DOCUMENTED = {
    "workers.concurrency": 4,
    "workers.pools.fetch.tasks": ["fetch"],
    "workers.pools.fetch.threads": 16,
    "workers.cancel_grace": 5,
    "workers.retry.max_retries": 3,
    "workers.retry.retry_delay": 60,
    "workers.retry.backoff": 2,
    "workers.retry.max_delay": 3600,
    "workers.timeout": 300,
    "workers.memory_mb": 1024,
    "workers.idle_exit": 600,
    "task_queue.provider": "sqlite",
    "task_queue.sqlite.path": None,
    "task_queue.sqlite.immediate": False,
    "task_queue.redis.url": "redis://localhost:6379/0",
    "task_queue.redis.name": "paise2",
    "task_queue.redis.secret": None,
    "task_queue.redis.lease": 15,
    "task_queue.redis.blob_mb": 64,
    "data_storage.sqlite.path": None,
    "cache.keep_days": 30,
    "history.keep_days": 30,
    "fetch.user_agent": None,
    "fetch.timeout": 30,
    "fetch.max_bytes": 20971520,
    "fetch.max_redirects": 5,
    "fetch.max_age": 86400,
    "fetch.host_delay": 1.0,
    "fetch.robots": True,
    "fetch.allow_private_addresses": False,
    "fetch.proxy": None,
    "fetch.render": "never",
    "fetch.render_hosts": {},
    "fetch.render_sandbox": True,
    "fetch.render_executable": None,
    "extract.precision": False,
    "extract.ocr": "never",
    "extract.ocr_languages": ["eng"],
    "logging.level": "info",
    "logging.format": "text",
    "plugins": [],
    "entry_points.allow": ["*"],
    "entry_points.deny": [],
}

# Wrong files: the line, and what the error has to name.
MISTAKES = [
    ("workers:\n  concurency: 2\n", 2, "workers.concurency", "workers.concurrency"),
    ("\n\nconcurrency: 2\n", 3, "concurrency", "workers.concurrency"),
    ("workers.concurency: 2\n", 1, "workers.concurency", "workers.concurrency"),
    ("zzzz: 1\n", 1, "zzzz", "workers"),
    ("profile: production\n", 1, "profile", "PAISE2_PROFILE"),
    ("workers: {pools: {own: {thread: 2}}}\n", 1, "thread", "workers.pools.own.threads"),
    ("workers:\n  concurrency: true\n", 2, "workers.concurrency", "true"),
    ("workers: {concurrency: 0}\n", 1, "workers.concurrency", "0"),
    ("workers: {concurrency: null}\n", 1, "workers.concurrency", "null"),
    ("workers: 4\n", 1, "workers", "4"),
    ("fetch:\n  timeout: .nan\n", 2, "fetch.timeout", "nan"),
    ("fetch: {robots: 1}\n", 1, "fetch.robots", "1"),
    ("fetch: {proxy: 'socks5://x'}\n", 1, "fetch.proxy", "socks5://x"),
    ("plugins: mine\n", 1, "plugins", "mine"),
    ("workers: {pools: {default: {threads: 2}}}\n", 1, "default"),
    ("workers: {retry: {policies: {timeout: {max_retries: -1}}}}\n", 1, "max_retries", "-1"),
    ("workers: {timeout: 1}\nfetch: {}\nworkers: {timeout: 2}\n", 3, "workers"),
    ("cache: {}\n- 3\n", 2),
    ("cache: {}\nfetch:\n\trobots: no\n", 3),
    ("fetch:\n  timeout: *no\n", 2, "no"),
    ("[1, 2]\n", 1, "[1, 2]"),
]  # fmt: skip


def shown(shell: Shell, *words: str, **options: Any) -> dict[str, tuple[Any, str]]:
    """Each setting with its value and the layer that set it."""
    rows = shell("config", "show", "--json", *words, **options).json
    return {row["key"]: (row["value"], row["origin"]) for row in rows}


@pytest.fixture
def bare(place: Place) -> Place:
    """The place without a file of settings."""
    place.settings.unlink()
    return place


def test_production_has_the_values_that_are_documented(bare: Place, shell: Shell) -> None:
    found = shown(shell, "--profile", "production")
    assert {key: found[key][0] for key in DOCUMENTED} == DOCUMENTED


def test_the_profiles_differ_where_they_say_so(bare: Place, shell: Shell) -> None:
    assert shown(shell)["profile"][0] == "development"
    assert shown(shell)["task_queue.sqlite.immediate"][0] is False
    assert shown(shell)["workers.retry.retry_delay"][0] < 60
    test = shown(shell, "--profile", "test")
    assert test["task_queue.sqlite.immediate"][0] is True


def test_each_layer_replaces_the_ones_before_and_says_so(bare: Place, shell: Shell) -> None:
    key = "fetch.timeout"
    assert "development" in shown(shell)["workers.retry.retry_delay"][1]
    bare.config.mkdir()
    user = bare.config / "paise2.yaml"
    user.write_text("fetch:\n  timeout: 11\n  max_redirects: 7\n")
    assert shown(shell)[key] == (11, f"{user}:2")
    bare.settings.write_text("fetch: {timeout: 12}\n")
    assert shown(shell)[key] == (12, f"{bare.settings}:1")
    assert shown(shell)["fetch.max_redirects"] == (7, f"{user}:3")
    value, origin = shown(shell, "--set", f"{key}=13")[key]
    assert (value, "--set" in origin) == (13, True)
    paths = shell("config", "path", "--json").json
    assert [row["path"] for row in paths] == [str(user), str(bare.settings)]
    assert [row["exists"] for row in paths] == [True, True]
    assert shell("config", "validate", "--json").json["files"] == [str(user), str(bare.settings)]


def test_the_environment_chooses_profile_and_data_directory(place: Place, shell: Shell) -> None:
    other = str(place.root / "other")
    env = {"PAISE2_PROFILE": "production", "PAISE2_DATA_DIR": other}
    found = shown(shell, env=env)
    assert found["profile"] == ("production", "PAISE2_PROFILE")
    assert found["data_dir"] == (other, "PAISE2_DATA_DIR")
    last = str(place.root / "last")
    found = shown(shell, "--profile", "development", "--data-dir", last, env=env)
    assert (found["profile"][0], found["data_dir"][0]) == ("development", last)
    found = shown(shell, env={"PAISE2_PROFILE": ""})
    assert found["profile"][0] == "development"


def test_without_a_choice_the_data_lie_in_the_home(
    place: Place, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAISE2_DATA_DIR")
    env = {"HOME": str(place.root / "home"), "XDG_DATA_HOME": ""}
    share = Path(env["HOME"], ".local", "share", "paise2")
    assert shell("profile", "--json", env=env).json["data_dir"] == str(share / "development")
    words = ("profile", "--json", "--profile", "production")
    assert shell(*words, env=env).json["data_dir"] == str(share)


def test_mappings_merge_lists_replace_and_null_removes(bare: Place, shell: Shell) -> None:
    bare.settings.write_text(
        "workers: {pools: {fetch: null, own: {tasks: [store], threads: 2}}}\n"
        "fetch.timeout: 9\n"
        "plugins: []\n"
    )
    found = shown(shell)
    assert found["workers.pools.own.tasks"][0] == ["store"]
    assert found["fetch.timeout"][0] == 9
    assert not any(key.startswith("workers.pools.fetch") for key in found)


def test_a_relative_path_starts_where_it_was_written(place: Place, shell: Shell) -> None:
    place.settings.write_text(f"plugins: [../{place.plugin.name}]\n")
    rows = shell("plugins", "--json").json
    [shout] = [row for row in rows if row["name"] == "shout"]
    assert Path(shout["origin"]).resolve() == place.plugin


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: repr(mistake[0]))
def test_a_mistake_in_a_file_names_the_file_the_line_and_the_key(
    bare: Place, shell: Shell, mistake: tuple[str, int, *tuple[str, ...]]
) -> None:
    text, line, *named = mistake
    bare.settings.write_text(text)
    done = shell("config", "validate")
    assert (done.status, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{bare.settings}:{line}:" in done.stderr
    for name in named:
        assert name in done.stderr.replace(str(bare.settings), "")


def test_the_editor_opens_the_file_and_what_it_leaves_is_checked(bare: Place, shell: Shell) -> None:
    editor = bare.root / "editor"
    editor.write_text('#!/bin/sh\necho "fetch: {$WROTE: 9}" > "$1"\n')
    editor.chmod(0o755)
    env = {"VISUAL": str(editor), "EDITOR": str(editor)}
    assert shell("config", "edit", env={**env, "WROTE": "timeout"}).status == 0
    assert shown(shell)["fetch.timeout"] == (9, f"{bare.config / 'paise2.yaml'}:1")
    refused = shell("config", "edit", env={**env, "WROTE": "timeuot"})
    assert (refused.status, "fetch.timeout" in refused.stderr) == (2, True)
