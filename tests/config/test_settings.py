"""Settings: allowed values, the order of layers, and the messages about mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from paise2nb.config.parser import parse_assignment, parse_mapping
from paise2nb.config.salvage import salvaged
from paise2nb.config.settings import (
    KEYS,
    PROFILES,
    Pool,
    Settings,
    config_files,
)
from paise2nb.config.specs import field_specs
from paise2nb.core.errors import SettingsError, UsageError

# The settings section of the documentation: every key with its default.
DOCUMENTED = """
data_dir: null
workers:
  concurrency: 4
  pools: {fetch: {tasks: [fetch], processes: 1, threads: 16}}
  cancel_grace: 5
  retry:
    max_retries: 3
    retry_delay: 60
    backoff: 2
    max_delay: 3600
  timeout: 300
  memory_mb: 1024
  idle_exit: 600
task_queue:
  provider: sqlite
  sqlite:
    path: null
    immediate: false
  redis:
    url: redis://localhost:6379/0
    name: paise2
    secret: null
    lease: 15
    blob_mb: 64
data_storage:
  sqlite:
    path: null
cache:
  keep_days: 30
history:
  keep_days: 30
fetch:
  user_agent: null
  timeout: 30
  max_bytes: 20971520
  max_redirects: 5
  max_age: 86400
  host_delay: 1.0
  robots: true
  allow_private_addresses: false
  proxy: null
  cookies: null
  headers: {}
  keep_cookies: false
  render: never
  render_hosts: {}
  render_sandbox: true
  render_executable: null
extract:
  precision: false
  ocr: never
  ocr_languages: [eng]
alerts: []
logging: {level: info, format: text}
plugins: []
entry_points: {allow: ["*"], deny: []}
"""


class Place:
    """A configuration directory and a working directory for one test."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.cwd = root / "config", root / "work"
        self.config.mkdir()
        self.cwd.mkdir()
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(self.cwd)
        monkeypatch.setenv("HOME", str(root / "home"))
        for name in ("PAISE2_PROFILE", "PAISE2_DATA_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PAISE2_CONFIG_DIR", str(self.config))

    def resolve(
        self, profile: str | None = None, environ: Mapping[str, str] | None = None, **more: Any
    ) -> Settings:
        with self._monkeypatch.context() as patch:
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            return Settings.resolve(profile, **more)

    def error(self, **more: Any) -> str:
        with pytest.raises(UsageError) as caught:
            self.resolve(**more)
        message = str(caught.value)
        assert "\n" not in message
        return message


def origin(settings: Settings, key: str) -> str:
    """The origin of a value, as ``config show`` shows it."""
    origins = {row["key"]: row["origin"] for row in settings.rows()}
    return str(origins[key])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


# Profiles and defaults -----------------------------------------------------------------------


def test_production_has_the_documented_defaults(place: Place) -> None:
    settings = place.resolve("production").to_dict()
    documented = yaml.safe_load(DOCUMENTED)
    assert settings.pop("data_dir").endswith("home/.local/share/paise2")
    assert settings["workers"]["retry"].pop("policies")["crash"]["max_retries"] == 2
    del documented["data_dir"]
    assert settings == documented


def test_the_default_profile_is_development(place: Place) -> None:
    settings = place.resolve()
    assert settings.profile == "development"
    assert settings.data_dir is not None
    assert settings.data_dir.as_posix().endswith("home/.local/share/paise2/development")
    assert settings.workers.pools == {"fetch": Pool(("fetch",), 1, 16)}
    assert settings.workers.retry.retry_delay < 60


def test_profile_test_runs_in_the_caller_and_leaves_its_directory_to_the_app(place: Place) -> None:
    settings = place.resolve("test")
    assert settings.data_dir is None
    assert settings.task_queue.sqlite.immediate
    assert settings.workers.retry.retry_delay == 0
    assert settings.workers.pools == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_argument_sets_the_data_directory_in_every_profile(
    place: Place, profile: str, tmp_path: Path
) -> None:
    assert place.resolve(profile, data_dir=tmp_path / "here").data_dir == tmp_path / "here"


def test_the_message_about_an_unknown_profile_lists_the_known_ones(place: Place) -> None:
    assert place.error(profile="prodction") == (
        "--profile: unknown profile 'prodction'; did you mean production? "
        "known: development, test, production"
    )
    assert "PAISE2_PROFILE: unknown profile 'x'" in place.error(environ={"PAISE2_PROFILE": "x"})


# Layers --------------------------------------------------------------------------------------


def test_each_layer_overrides_the_previous_ones_and_is_the_origin(place: Place) -> None:
    key = "fetch.timeout"

    def now(**more: Any) -> tuple[float, str]:
        settings = place.resolve(**more)
        return settings.fetch.timeout, origin(settings, key)

    assert now() == (30, "packaged profile development")
    assert now(defaults=[("mine", {key: 31})]) == (31, "plugin mine")
    (place.config / "paise2.yaml").write_text("fetch:\n  timeout: 32\n")
    assert now(defaults=[("mine", {key: 31})]) == (32, f"{place.config}/paise2.yaml:2")
    (place.cwd / "paise2.yaml").write_text("# mine\n\nfetch: {\n  timeout: 33}\n")
    assert now() == (33, f"{place.cwd}/paise2.yaml:4")
    assert now(overrides={key: 34}) == (34, "--set")


def test_the_environment_sets_profile_and_data_directory(place: Place, tmp_path: Path) -> None:
    (place.cwd / "paise2.yaml").write_text("data_dir: from_file\n")
    environ = {"PAISE2_PROFILE": "production", "PAISE2_DATA_DIR": "here"}
    settings = place.resolve(environ=environ)
    assert settings.data_dir == place.cwd / "here"
    assert origin(settings, "data_dir") == "PAISE2_DATA_DIR"
    assert origin(settings, "profile") == "PAISE2_PROFILE"
    settings = place.resolve("test", environ=environ, data_dir=tmp_path)
    assert (settings.profile, settings.data_dir) == ("test", tmp_path)
    assert origin(settings, "data_dir") == "--data-dir"


def test_an_empty_environment_variable_is_ignored(place: Place) -> None:
    settings = place.resolve(environ={"PAISE2_PROFILE": "", "PAISE2_DATA_DIR": ""})
    assert settings == place.resolve()


def test_mappings_merge_and_lists_are_replaced(place: Place) -> None:
    (place.config / "paise2.yaml").write_text(
        "plugins: [one, two]\n"
        "workers:\n"
        "  pools: {fetch: {threads: 4}, slow: {tasks: [ocr]}}\n"
        "  retry: {policies: {timeout: {max_retries: 9}}}\n"
    )
    settings = place.resolve(overrides={"plugins": ["three"]})
    assert settings.plugins == ("three",)
    assert settings.workers.pools == {
        "fetch": Pool(("fetch",), processes=1, threads=4),
        "slow": Pool(("ocr",), processes=1, threads=1),
    }
    assert settings.workers.retry.policies["timeout"] == {"max_retries": 9}
    assert settings.workers.retry.policies["crash"]["max_retries"] == 2


def test_null_removes_a_pool_or_a_policy(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text(
        "workers: {pools: {fetch: null, web: {tasks: [fetch]}}, retry: {policies: {crash: ~}}}\n"
    )
    workers = place.resolve().workers
    assert (set(workers.pools), workers.retry.policies) == ({"web"}, {})


@pytest.mark.parametrize(
    "overrides",
    [
        {"workers.retry.policies.fetch.timeout.max_retries": 7},
        {"workers.retry.policies.fetch.timeout": {"max_retries": 7}},
        {"workers.retry": {"policies": {"fetch.timeout": {"max_retries": 7}}}},
        {"workers": {"retry.policies": {"fetch.timeout.max_retries": 7}}},
    ],
)
def test_dotted_and_nested_keys_are_equivalent(
    place: Place, overrides: Mapping[str, object]
) -> None:
    settings = place.resolve(overrides=overrides)
    assert settings.workers.retry.policies["fetch.timeout"] == {"max_retries": 7}
    keys = [row["key"] for row in settings.rows()]
    assert "workers.retry.policies.fetch.timeout.max_retries" in keys


@pytest.mark.parametrize("text", ["", "# nothing\n", "workers:\n  # concurrency: 2\n", "\ufeff\n"])
def test_an_empty_file_changes_nothing(place: Place, text: str) -> None:
    (place.cwd / "paise2.yaml").write_text(text, "utf-8")
    assert place.resolve() == place.resolve(files=[])


def test_auto_is_one_process_for_each_usable_core(place: Place) -> None:
    overrides = {"workers.concurrency": "auto", "workers.pools.own": {"processes": "auto"}}
    settings = place.resolve(overrides=overrides)
    cores = len(os.sched_getaffinity(0))
    for known in (settings, Settings.from_json(settings.to_json())):
        assert 1 <= known.workers.concurrency == known.workers.pools["own"].processes <= cores
    assert {"key": "workers.concurrency", "value": "auto", "origin": "--set"} in settings.rows()


def test_anchors_are_allowed_but_not_cycles_of_them(place: Place) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_text("workers: {pools: {a: &a {threads: 3}, b: *a}}\n")
    assert place.resolve().workers.pools["b"].threads == 3
    file.write_text("workers: &w\n  pools: *w\n")
    assert f"{file}:2: unknown key workers.pools.pools.pools" in place.error()
    file.write_text("workers: &w\n  retry: *w\n")
    assert f"{file}:2: unknown key workers.retry.retry" in place.error()


def test_the_paths_of_the_users_files_are_known_even_if_there_are_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_files() == [place.config / "paise2.yaml", place.cwd / "paise2.yaml"]
    monkeypatch.delenv("PAISE2_CONFIG_DIR")
    assert config_files()[0] == Path.home() / ".config/paise2/paise2.yaml"


# Paths ---------------------------------------------------------------------------------------


def test_a_relative_path_starts_at_the_file_that_contains_it(place: Place) -> None:
    (place.config / "paise2.yaml").write_text(
        "data_dir: ../data\nplugins: [plugin.py, package.module, ~/own.py]\n"
    )
    settings = place.resolve(
        overrides={"task_queue.sqlite.path": "jobs.db", "data_storage.sqlite.path": Path("~/i.db")}
    )
    assert settings.data_dir == place.config.parent / "data"
    assert settings.task_queue.sqlite.path == place.cwd / "jobs.db"
    assert settings.data_storage.sqlite.path == Path.home() / "i.db"
    own = str(Path.home() / "own.py")
    assert settings.plugins == (str(place.config / "plugin.py"), "package.module", own)


def test_null_restores_the_data_directory_of_the_profile(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text("data_dir: /elsewhere\n")
    settings = place.resolve("production", overrides={"data_dir": None})
    assert settings.data_dir == Path.home() / ".local/share/paise2"
    assert origin(settings, "data_dir") == "--set"


@pytest.mark.parametrize("written", ["null", "~", "", "'../data'  # mine"])
def test_a_broken_file_names_the_same_data_directory(place: Place, written: str) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_text(f"data_dir: {written}\n")
    expected = place.resolve().data_dir
    file.write_text(f"data_dir: {written}\nworkers: [\n")
    assert salvaged().data_dir == expected


# Alerts --------------------------------------------------------------------------------------

ALERTS = """
alerts:
- {name: failures, when: failed_rate >= 20%, notify: "mailto://me:hunter2@h/t0ken"}
- {name: disk, when: disk_free<1.5GB, over: 2m, every: 90, command: [page-me, now]}
- {name: paused, when: paused, over: 1h, command: [page-me], timeout: 5s}
"""


def test_alerts_have_conditions_with_units_and_defaults(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text(ALERTS)
    failures, disk, paused = Settings.resolve().alerts
    assert failures.condition == ("failed_rate", ">=", 0.2)
    assert (failures.seconds, failures.held_seconds, failures.every) == (900, 0, 3600)
    assert disk.condition == ("disk_free", "<", 1.5e9)
    assert (disk.seconds, disk.held_seconds, disk.every) == (120, 120, 90)
    assert (disk.command, disk.target, failures.target) == (
        ("page-me", "now"), "page-me", "mailto://…",
    )  # fmt: skip
    assert (paused.condition, paused.timeout) == (("paused", ">", 0), 5)


def test_alerts_reach_workers_and_their_urls_are_not_shown(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text(ALERTS)
    settings = Settings.resolve()
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.alerts[0].notify == "mailto://me:hunter2@h/t0ken"
    [row] = [row for row in settings.rows() if row["key"] == "alerts"]
    assert row["value"][0]["notify"] == "mailto://…"
    assert row["origin"].endswith("paise2.yaml:2")
    for shown in (repr(settings), str(settings.rows())):
        assert "hunter2" not in shown
        assert "t0ken" not in shown


# Mistakes ------------------------------------------------------------------------------------

MISTAKES_IN_A_FILE = [
    ("workers:\n  concurency: 2\n", "2: unknown key workers.concurency; "
     "did you mean workers.concurrency?"),
    ("\n\nconcurrency: 2\n", "3: unknown key concurrency; did you mean workers.concurrency?"),
    ("retry: {max_retries: 2}\n", "1: unknown key retry; did you mean workers.retry?"),
    ("workers.concurency: 2\n", "1: unknown key workers.concurency; "
     "did you mean workers.concurrency?"),
    ("zzzz: 1\n", "1: unknown key zzzz; known here: data_dir, workers, task_queue, data_storage, "
     "cache, history, fetch, extract, alerts, logging, plugins, entry_points"),
    ("cache: {1: 2}\n", "1: unknown key cache.1; known here: keep_days"),
    ("profile: production\n", "1: unknown key profile; "
     "a profile is chosen by --profile NAME or PAISE2_PROFILE"),
    ("workers:\n  pools:\n    fetch:\n      thread: 2\n",
     "4: unknown key workers.pools.fetch.thread; did you mean workers.pools.fetch.threads?"),
    ("workers:\n  concurrency: true\n",
     "2: workers.concurrency is true; allowed: auto or a whole number from 1 to 1,024"),
    ("workers: {concurrency: 0}\n",
     "1: workers.concurrency is 0; allowed: auto or a whole number from 1 to 1,024"),
    ("workers: {concurrency: 2.0}\n",
     "1: workers.concurrency is 2.0; allowed: auto or a whole number from 1 to 1,024"),
    ("workers: {concurrency: null}\n",
     "1: workers.concurrency is null; allowed: auto or a whole number from 1 to 1,024"),
    ("workers: 4\n", "1: workers is 4; allowed: a mapping"),
    ("fetch:\n  timeout: .nan\n",
     "2: fetch.timeout is nan; allowed: a number from 0.001 to 1,000,000,000"),
    ("fetch: {host_delay: .inf}\n",
     "1: fetch.host_delay is inf; allowed: a number from 0 to 1,000,000,000"),
    ("fetch: {robots: 1}\n", "1: fetch.robots is 1; allowed: true or false"),
    ("fetch: {proxy: 'socks5://x'}\n", "1: fetch.proxy is 'socks5://x'; allowed: an http:// or"
     " https:// URL, environment or null"),
    ("fetch: {user_agent: 7}\n", "1: fetch.user_agent is 7; allowed: text or null"),
    ('fetch: {user_agent: "a\\nb"}\n', "1: fetch.user_agent is 'a\\nb'; allowed: text or null"),
    ("data_dir: ''\n", "1: data_dir is ''; allowed: a path or null"),
    ("data_dir: ~no-such-user/x\n",
     "1: data_dir is '~no-such-user/x'; allowed: a path or null"),
    ("plugins: mine\n",
     "1: plugins is 'mine'; allowed: a list of modules and paths of .py files"),
    ("plugins: [1]\n", "1: plugins is [1]; allowed: a list of modules and paths of .py files"),
    ("workers: {pools: {default: {threads: 2}}}\n",
     "1: workers.pools can't have 'default'; allowed: letters, digits, - and _; "
     "not `relay`; not `default`: workers.concurrency is its size"),
    ("workers: {pools: {slow: 3}}\n", "1: workers.pools.slow is 3; allowed: a mapping of tasks, "
     "processes, threads, or null to remove it"),
    ("workers: {pools: {slow: {processes: 0}}}\n",
     "1: workers.pools.slow.processes is 0; allowed: auto or a whole number from 1 to 1,024"),
    ("workers: {retry: {policies: {timeout: {max_retries: -1}}}}\n",
     "1: workers.retry.policies.timeout.max_retries is -1; "
     "allowed: a whole number from 0 to 1,000"),
    ("workers: {timeout: 1}\nfetch:\n  robots: no\nworkers: {timeout: 2}\n",
     "4: not valid YAML: the key workers is given twice"),
    ("workers: {timeout: 1}\nworkers.timeout: 2\n",
     "2: workers.timeout is given twice, first at {file}:1"),
    ("fetch:\n  user_agent: 2024-13-45\n", "2: not valid YAML: month must be in 1..12"),
    ("fetch:\n  robots: !!bool x\n", "2: not valid YAML: 'x'"),
    ("? [a]\n: 1\n", "1: not valid YAML: a key must be a word"),
    ("fetch: {proxy: 'http://h:99999'}\n", "1: fetch.proxy is 'http://h:99999'; "
     "allowed: an http:// or https:// URL, environment or null"),
    ('fetch: {user_agent: "\\u6587"}\n',
     "1: fetch.user_agent: '\u6587' can't be sent in a header; write it in Latin-1"),
    ("alerts: mail\n", "1: alerts is no list; allowed: a list of mappings of name, when, over, "
     "command, notify, every, timeout"),
    ("alerts: [mailto://me:hunter2@h]\n", "1: alerts[0] is no mapping; allowed: mappings of name, "
     "when, over, command, notify, every, timeout"),
    ("alerts:\n- name: a\n  wen: paused\n", "3: unknown key alerts[0].wen; "
     "did you mean alerts[0].when?"),
    ("alerts:\n- name: a\n  when: faild_rate > 1\n", "3: alerts[0].when: unknown condition "
     "'faild_rate'; did you mean failed_rate?"),
    ("alerts: [{when: quota}]\n", "1: alerts[0].when: unknown condition 'quota'; known: "
     "failed_rate, oldest_waiting, paused, workers_missing, stored, disk_free, recurring_failed"),
    ("alerts: [{when: stored}]\n", "1: alerts[0].when: stored needs a limit, such as: stored < 1"),
    ("alerts: [{when: disk_free < 10 gigs}]\n",
     "1: alerts[0].when: '10 gigs' is not a size; write 500MB, 10GB or 2TB"),
    ("alerts: [{when: failed_rate > 20}]\n",
     "1: alerts[0].when: '20' is not a share; write 0.2 or 20%"),
    ("alerts: [{when: paused == 1}]\n", "1: alerts[0].when: 'paused == 1' is not a condition; "
     "write one such as: failed_rate > 0.2"),
    ("alerts: [{when: paused > many}]\n", "1: alerts[0].when: 'many' is not a number"),
    ("alerts: [{when: paused > nan}]\n",
     "1: alerts[0].when: 'nan' is no limit; write a number from 0"),
    ("alerts: [{when: failed_rate > -20%}]\n",
     "1: alerts[0].when: '-20' is no limit; write a number from 0"),
    ("alerts: [{name: a, when: stored < 1, over: 0, command: [x]}]\n",
     "1: alerts[0] (a): stored is measured over a time; over can't be 0"),
    ("alerts: [{over: soon}]\n",
     "1: alerts[0].over: 'soon' is not a time span; write 90, 15m, 2h, 1d or 1w"),
    ("alerts: [{every: -1}]\n", "1: alerts[0].every is -1; allowed: a time span such as 90, 15m, "
     "2h or 1d from 0 to 1,000,000,000"),
    ("alerts: [{notify: 'me:hunter2@h'}]\n", "1: alerts[0].notify is a value that is not shown; "
     "allowed: an Apprise URL such as ntfy://TOPIC or null"),
    ("alerts: [{name: a, command: [x]}]\n", "1: alerts[0] has no when"),
    ("alerts: [{name: a, when: paused}]\n", "1: alerts[0] (a) needs either a command or notify"),
    ("alerts: [{name: a, when: paused, command: [x], notify: 'x://y'}]\n",
     "1: alerts[0] (a) needs either a command or notify"),
    ("alerts: [{name: a, when: paused, command: [x]}, {name: a, when: paused, command: [y]}]\n",
     "1: alerts[1] (a): another alert has this name"),
    ("[1, 2]\n", "1: settings are lines of `key: value`, not [1, 2]"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES_IN_A_FILE)
def test_a_mistake_in_a_file_is_reported_in_one_line(place: Place, text: str, message: str) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_text(text)
    assert place.error() == f"{file}:{message.replace('{file}', str(file))}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cache: {}\n- 3\n", 2),
        ("cache: {}\nfetch:\n\trobots: no\n", 3),
        ("cache: {}\nhistory: {}\nfetch: \x07\n", 3),
        ("cache: {}\n---\ncache: {}\n", 2),
        ("fetch:\n  timeout: !no 3\n", 2),
        ("fetch:\n  timeout: *no\n", 2),
        ("fetch: " + "[" * 20_000, 1),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(place: Place, text: str, line: int) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_text(text)
    assert place.error().startswith(f"{file}:{line}: not valid YAML: ")


def test_a_mistake_is_reported_even_if_a_later_layer_overrides_the_value(place: Place) -> None:
    (place.config / "paise2.yaml").write_text("fetch: {timeout: soon}\n")
    assert "paise2.yaml:1: fetch.timeout is 'soon'" in place.error(overrides={"fetch.timeout": 3})


def test_a_file_that_cannot_be_read_is_named(place: Place) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_bytes(b"plugins:\n  - caf\xe9\n")
    assert place.error() == f"{file}:2: not UTF-8; save the file as UTF-8"
    file.unlink()
    file.mkdir()
    assert place.error() == f"{file}: can't be read: Is a directory; fix or move it"


def test_mistakes_outside_files_are_reported_with_their_origin(place: Place) -> None:
    message = place.error(overrides={"workers": {"concurency": 2}})
    assert message.startswith("--set: unknown key workers.concurency; did you mean")
    assert place.error(environ={"PAISE2_DATA_DIR": "a\tb"}) == (
        "PAISE2_DATA_DIR: data_dir is 'a\\tb'; allowed: a path or null"
    )
    assert place.error(data_dir="").startswith("--data-dir: data_dir is ''")
    assert place.error(defaults=[("mine", {"x.y": 1})]).startswith("plugin mine: unknown key x.y")


def test_an_unknown_key_is_harmless_in_a_terminal_and_cut(place: Place) -> None:
    assert "\x1b" not in place.error(overrides={"a\n\x1b[31m": 1})
    assert len(place.error(overrides={"a" * 10_000: "b" * 10_000})) < 400


def test_two_pools_cannot_run_the_same_task(place: Place) -> None:
    file = place.cwd / "paise2.yaml"
    file.write_text("workers:\n  pools:\n    web:\n      tasks: [fetch]\n")
    assert place.error() == (
        f"{file}:4: workers.pools.web.tasks: pool 'fetch' runs 'fetch' already "
        "(packaged profile development); name it once, or set that pool to null"
    )


def test_a_pool_that_renders_keeps_its_other_tasks(place: Place) -> None:
    settings = place.resolve(
        overrides={"workers.pools.render.tasks": ["shout"], "fetch.render": "auto"}
    )
    assert settings.workers.pools["render"].tasks == ("shout", "render")


@pytest.mark.parametrize("number", [3, 3.5])
def test_a_whole_number_is_allowed_in_place_of_a_fraction(place: Place, number: float) -> None:
    assert place.resolve(overrides={"fetch.timeout": number}).fetch.timeout == number


# --set ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("workers.concurrency=2", "workers.concurrency", 2),
        ("fetch.user_agent=a=b", "fetch.user_agent", "a=b"),
        (" fetch.robots = no ", "fetch.robots", False),
        ("data_dir=", "data_dir", None),
        ("fetch.timeout=1e1", "fetch.timeout", 10.0),
        ("plugins=[a, b.py]", "plugins", ["a", "b.py"]),
        ("workers.pools={slow: {threads: 2}}", "workers.pools", {"slow": {"threads": 2}}),
    ],
)
def test_the_value_of_an_assignment_is_yaml(text: str, key: str, value: object) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fetch.robots",
         "--set takes KEY=VALUE, such as workers.concurrency=2, not 'fetch.robots'"),
        ("=3", "--set takes KEY=VALUE, such as workers.concurrency=2, not '=3'"),
        ("plugins=[a", "--set: not valid YAML: expected ',' or ']', but got '<stream end>', "
         "in the value of 'plugins'"),
    ],
)  # fmt: skip
def test_the_message_about_an_invalid_assignment_shows_a_valid_one(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_assignment(text)
    assert str(caught.value) == message


def test_the_origin_of_an_assignment_is_the_option(place: Place) -> None:
    settings = place.resolve(overrides=dict([parse_assignment("workers={pools: {a: {}}}")]))
    assert origin(settings, "workers.pools.a.threads") == "--set"


def test_the_origin_of_a_cell_is_the_cell_and_the_line(place: Place) -> None:
    cell = parse_mapping("fetch:\n  timeout: soon\n", "the cell")
    assert place.error(overrides=cell).startswith("the cell:2: fetch.timeout is 'soon'")
    cell = parse_mapping("fetch:\n  timeout: 4\n", "the cell")
    assert origin(place.resolve(overrides=cell), "fetch.timeout") == "the cell:2"


def test_a_cell_can_be_checked_without_the_file_that_it_replaces(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text("broken: [")
    (place.config / "paise2.yaml").write_text("fetch: {timeout: 5}\n")
    settings = place.resolve(files=config_files()[:1])
    assert settings.fetch.timeout == 5


# The object ----------------------------------------------------------------------------------


def test_settings_survive_the_transfer_to_another_process(place: Place) -> None:
    (place.cwd / "paise2.yaml").write_text("fetch: {host_delay: 0.1}\nplugins: [a.py]\n")
    settings = place.resolve(
        overrides={"workers.pools.slow.threads": 3, "workers.retry.policies.a.é.backoff": 1.7}
    )
    there = Settings.from_json(settings.to_json())
    assert there == settings
    assert there.rows() == settings.rows()
    assert there.to_json() == settings.to_json()


def test_a_worker_does_not_import_yaml(place: Place) -> None:
    code = (
        "import sys; from paise2nb.config.settings import Settings; "
        "Settings.from_json(sys.stdin.read()); print('yaml' in sys.modules)"
    )
    text = place.resolve().to_json()
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["{}", "[]", "[[1]]", "not json", '[[["profile"], "test", ""]]'])
def test_the_message_about_settings_of_another_version_tells_how_to_restart(text: str) -> None:
    with pytest.raises(SettingsError, match="paise2 worker restart"):
        Settings.from_json(text)


def test_settings_are_equal_if_their_values_are(place: Place) -> None:
    assert place.resolve(overrides={"fetch.timeout": 30}) == place.resolve()
    assert place.resolve(overrides={"fetch.timeout": 31}) != place.resolve()


def test_settings_cannot_be_changed(place: Place) -> None:
    settings = place.resolve()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.fetch.timeout = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.workers.pools["a"] = Pool()  # type: ignore[index]
    settings.rows()[-1]["value"].append("x")
    settings.to_dict()["plugins"].append("x")
    assert settings.to_dict()["plugins"] == []


def test_values_can_be_overridden_later(place: Place, tmp_path: Path) -> None:
    settings = place.resolve("test")
    moved = settings.with_data_dir(tmp_path)
    assert (settings.data_dir, moved.data_dir) == (None, tmp_path)
    wider = moved.override({"workers.concurrency": 9}, "--concurrency")
    assert (wider.workers.concurrency, wider.data_dir) == (9, tmp_path)
    assert origin(wider, "workers.concurrency") == "--concurrency"
    with pytest.raises(SettingsError, match=r"--concurrency: workers.concurrency is 0"):
        moved.override({"workers.concurrency": 0}, "--concurrency")


def test_rows_contain_every_key_once_in_the_order_of_the_declaration(place: Place) -> None:
    keys = [row["key"] for row in place.resolve(overrides={"workers.pools.a.threads": 2}).rows()]
    assert keys[:3] == ["profile", "data_dir", "workers.concurrency"]
    assert keys.index("workers.pools.a.tasks") < keys.index("workers.cancel_grace")
    assert len(keys) == len(set(keys))
    for declared in KEYS:
        assert any(f"{key}.".startswith(f"{declared}.") for key in keys)
    assert {"key": "workers.pools", "value": {}, "origin": "packaged profile test"} in (
        place.resolve("test").rows()
    )


def test_the_output_of_config_show_is_a_valid_file(place: Place) -> None:
    settings = place.resolve("production", overrides={"workers.retry.policies.a.b.backoff": 1.5})
    (place.cwd / "paise2.yaml").write_text(yaml.safe_dump(settings.to_dict()))
    assert place.resolve("production") == settings
    assert json.loads(json.dumps(settings.to_dict())) == settings.to_dict()


# The declaration -----------------------------------------------------------------------------


def _sections(section: type) -> list[type]:
    inner = [d.kind for d in field_specs(section).values() if d.is_section]
    mapped = [d.mapping.values for d in field_specs(section).values() if d.mapping]
    inner += [values for values in mapped if isinstance(values, type)]
    return [section, *(deeper for part in inner for deeper in _sections(part))]


def test_every_number_has_a_range() -> None:
    for section in _sections(Settings):
        for name, declared in field_specs(section).items():
            if declared.kind in (int, float):
                assert declared.limits, f"{section.__name__}.{name}"
