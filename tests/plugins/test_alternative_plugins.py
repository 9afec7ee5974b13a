"""The extension points: every process uses the parts that plugins provide."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import paise2nb
from paise2nb.commands import Session, main
from paise2nb.core.errors import PluginError, SettingsError, UsageError, WorkersError
from paise2nb.doctor import examine
from tests import alternative_plugins
from tests.alternative_plugins.cache import SQLiteCache
from tests.alternative_plugins.store import JSONLinesStore
from tests.site import PAGE, Site

SETTINGS = {
    "fetch.allow_private_addresses": True,
    "fetch.host_delay": 0,
    "fetch.robots": False,
    "workers.pools.fetch": None,
    "workers.concurrency": 1,
}


@pytest.fixture
def alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the second implementation of every extension point, in every process."""
    alternative_plugins.install(tmp_path, monkeypatch)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], dict[str, object]]:
    """Write a plugin; returns the settings that load it."""

    def write_file(text: str) -> dict[str, object]:
        path = tmp_path / "extra.py"
        path.write_text("from paise2nb import hookimpl\n" + text)
        return {"plugins": [str(path)]}

    return write_file


# All of them ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("alternative")
def test_with_alternative_plugins_no_built_in_part_is_used(tmp_path: Path, site: Site) -> None:
    data = tmp_path / "data"
    with paise2nb.open("development", data, SETTINGS) as app:
        assert (type(app.store), type(app.cache)) == (JSONLinesStore, SQLiteCache)
        app.workers.start()
        urls = [site.url("/ok"), "data:text/plain,a%20needle"]
        assert [len(job.wait(60).items) for job in app.enqueue_many("fetch", urls)] == [1, 1]
        assert [hit["url"] for hit in app.search("needle")] == [urls[1]]
        app.workers.stop()
        lines = alternative_plugins.read_diary(app)
    left = {path.name for path in data.iterdir()}
    assert {"queue", "items", "cache.db"} <= left
    assert left.isdisjoint({"tasks.db", "items.db", "cache"})
    # The app and the worker opened and closed, and the worker's queue ran the jobs.
    assert [(event, worker) for event, worker, *_ in lines if event in ("opened", "closed")] == [
        ("opened", False), ("opened", True), ("closed", True),
    ]  # fmt: skip
    ran = [details for event, worker, *details in lines if event == "ran" and worker]
    assert sorted(ran) == sorted([[t, "completed"] for t in ("fetch", "extract", "store")] * 2)


@pytest.mark.usefixtures("alternative")
def test_every_extension_point_is_listed_with_its_plugin(tmp_path: Path) -> None:
    with paise2nb.open("test", tmp_path / "data") as app:
        rows = [
            row for row in app.plugins.describe() if row["plugin"] == "tests.alternative_plugins"
        ]
    assert {row["origin"] for row in rows} == {alternative_plugins.__file__}
    assert {row["kind"] for row in rows} == {
        "task queue provider", "configuration provider", "data storage provider",
        "cache provider", "content source", "fetcher", "extractor", "lifecycle action",
        "reset action", "task",
    }  # fmt: skip


# ConfigurationProvider -----------------------------------------------------------------------


@pytest.mark.usefixtures("alternative")
def test_the_shell_uses_defaults_of_plugins_unless_the_user_sets_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paise2.yaml").write_text("history: {keep_days: 9}\n")
    words = [sys.executable, "-m", "paise2nb", "--data-dir", str(tmp_path / "data"), "--json"]
    shown = subprocess.run(
        [*words, "config", "show"], capture_output=True, text=True, check=True
    ).stdout
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(shown)}
    assert rows["task_queue.provider"] == ("folder", "plugin alternative")
    assert rows["history.keep_days"] == (9, f"{tmp_path / 'paise2.yaml'}:1")
    subprocess.run([*words, "enqueue", "cleanup"], capture_output=True, check=True)
    assert (tmp_path / "data/queue/jobs.db").exists()
    assert not (tmp_path / "data/tasks.db").exists()


def test_a_default_for_an_unknown_setting_is_refused(
    write: Callable[[str], dict[str, object]],
) -> None:
    settings = write(
        "class Wrong:\n    def defaults(self): return {'fetch.timeoout': 1}\n"
        "@hookimpl\ndef configuration_providers(): return [Wrong()]\n"
    )
    with pytest.raises(SettingsError, match=r"plugin extra: unknown key fetch\.timeoout"):
        paise2nb.open("test", settings=settings)


# ContentSource -------------------------------------------------------------------------------


@pytest.mark.usefixtures("alternative")
def test_a_source_is_enqueued_by_name_and_enqueues_new_urls(tmp_path: Path, site: Site) -> None:
    data, secret = tmp_path / "data", tmp_path / "secret.txt"
    secret.write_text("a secret")
    with paise2nb.open("test", data, SETTINGS) as app:
        listed = [site.url("/ok"), "data:,a%20needle", secret.as_uri(), str(secret), "ftp://x/", ""]
        (data / "reading-list.txt").write_text("\n".join(listed))
        job = app.enqueue("reading-list", tag="later")
        assert job.result() == {"found": 2, "new": 2}
        assert {item.url for item in job.items} == {site.url("/ok"), "data:,a%20needle"}
        assert {item.tag for item in app.items()} == {"later"}
        site.add("/more", PAGE)
        (data / "other.txt").write_text(f"{site.url('/ok')}\n{site.url('/more')}")
        assert app.enqueue("reading-list", "other.txt").result() == {"found": 2, "new": 1}
        with pytest.raises(UsageError, match=r"task 'reading-list' takes \(name\)"):
            app.enqueue("reading-list", "a", "b")


def test_a_source_may_not_take_the_name_of_a_task(
    write: Callable[[str], dict[str, object]],
) -> None:
    settings = write(
        "class Feed:\n    def addresses(self, context): return []\n"
        "@hookimpl\ndef content_sources(): return {'feed': Feed()}\n"
    )
    with pytest.raises(
        PluginError, match=r"defines task 'feed', which 'paise2nb\.content\.sources' has"
    ):
        paise2nb.open("test", settings=settings)


# ContentFetcher ------------------------------------------------------------------------------


@pytest.mark.usefixtures("alternative")
@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:text/html,<title>T</title><p>a needle in it", "a needle in it"),
        ("data:text/plain;base64,YSBuZWVkbGU=", "a needle"),
        ("data:,a%20needle", "a needle"),
        ("data:text/plain;base64,?", "bad_address"),
        ("data:text/plain", "bad_address"),
        ("data:image/png,x", "unsupported"),
    ],
)
def test_a_url_of_another_scheme_is_fetched(tmp_path: Path, url: str, found: str) -> None:
    with paise2nb.open("test", tmp_path / "data") as app:
        job = app.enqueue("fetch", url)
        texts = [item.text for item in job.items] or [
            j.error_class for j in app.jobs(state="failed")
        ]
        assert texts == [found]


# LifecycleAction, ResetAction ----------------------------------------------------------------

ACTION = """
class Action:
    def opened(self, app):
        {opened}
    def closed(self, app):
        {closed}
    def reset(self, app, hard):
        {reset}
@hookimpl
def lifecycle_actions(): return [Action()]
@hookimpl
def reset_actions(): return [Action()]
"""


def action(opened: str = "pass", closed: str = "pass", reset: str = "pass") -> str:
    return ACTION.format(opened=opened, closed=closed, reset=reset)


@pytest.mark.usefixtures("alternative")
def test_reset_calls_the_reset_actions_of_plugins(tmp_path: Path) -> None:
    with paise2nb.open("test", tmp_path / "data") as app:
        app.enqueue("fetch", "data:,words")
        session = Session()
        session.profile, session.data_dir = "test", str(app.data_dir)
        main(["reset", "--yes", "--hard"], session)
        session.close()
        assert [line[0] for line in alternative_plugins.read_diary(app)] == ["reset", "closed"]
        assert (app.store.count(), app.cache.clear()) == (0, 0)


def test_an_action_that_fails_while_opening_is_an_error(
    tmp_path: Path, write: Callable[[str], dict[str, object]]
) -> None:
    settings = write(action(opened="raise OSError('no socket')"))
    with pytest.raises(PluginError, match=r"extra.py' failed in opened\(\): OSError: no socket"):
        paise2nb.open("test", tmp_path / "data", settings)


def test_a_worker_does_not_start_if_an_action_fails_and_the_error_names_it(
    tmp_path: Path, write: Callable[[str], dict[str, object]]
) -> None:
    settings = write(action(opened="if app.is_worker: raise OSError('no socket')"))
    with paise2nb.open("development", tmp_path / "data", {**SETTINGS, **settings}) as app:
        with pytest.raises(WorkersError, match=r"failed in opened\(\): OSError: no socket"):
            app.workers.start()
        app.workers.stop()


def test_an_action_that_fails_while_closing_or_resetting_is_named_and_the_rest_goes_on(
    tmp_path: Path, write: Callable[[str], dict[str, object]]
) -> None:
    settings = write(action(closed="1 / 0", reset="{}['key']"))
    app = paise2nb.open("test", settings=settings)
    app.enqueue("cleanup")
    with pytest.raises(PluginError, match=r"extra.py' failed in reset\(\): KeyError: 'key'"):
        app.reset()
    assert len(app.jobs()) == 0
    with pytest.raises(PluginError, match=r"extra.py' failed in closed\(\): ZeroDivisionError"):
        app.close()
    assert not app.data_dir.exists()


# Providers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["cache_provider", "data_storage_provider"])
def test_a_provider_that_fails_is_named_and_one_that_returns_none_is_ignored(
    tmp_path: Path, write: Callable[[str], dict[str, object]], point: str
) -> None:
    with pytest.raises(PluginError, match=rf"extra.py' failed in {point}: ZeroDivisionError"):
        paise2nb.open("test", tmp_path, write(f"@hookimpl\ndef {point}(app): 1 / 0"))
    with paise2nb.open("test", tmp_path, write(f"@hookimpl\ndef {point}(): pass")) as app:
        assert app.enqueue("cleanup").result() == {"jobs": 0, "cached": 0}


def test_a_worker_does_not_start_if_its_queue_opens_another_job_store(
    tmp_path: Path, write: Callable[[str], dict[str, object]]
) -> None:
    settings = write(
        "from paise2nb.jobs.store import JobStore\nfrom paise2nb.workers.queue import JobHuey\n"
        "class Lost:\n    def create(self, app):\n"
        "        name = 'worker.db' if app.is_worker else 'mine.db'\n"
        "        return JobHuey(app, JobStore(app.data_dir / name), immediate=False)\n"
        "@hookimpl\ndef task_queue_providers(): return {'lost': Lost()}\n"
    )
    settings |= {**SETTINGS, "task_queue.provider": "lost"}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        with pytest.raises(WorkersError, match=r"provider lost gives a worker no jobs .*mine\.db"):
            app.workers.start()
        app.workers.stop()


@pytest.mark.usefixtures("alternative")
def test_doctor_checks_the_parts_that_plugins_provide(tmp_path: Path) -> None:
    with paise2nb.open("development", tmp_path / "data") as app:
        settings, path = app.settings, app.queue.job_store.path
    assert [
        (finding.state, finding.text)
        for finding in examine(lambda: settings).findings
        if finding.check in ("items", "jobs")
    ] == [
        ("ok", "0 items in tests.alternative_plugins.store.JSONLinesStore"),
        ("ok", f"{path} is intact"),
    ]


def test_the_directory_of_the_job_store_is_one_that_is_written(tmp_path: Path) -> None:
    elsewhere = {"task_queue.sqlite.path": tmp_path / "other" / "tasks.db"}
    with paise2nb.open("test", tmp_path / "data", elsewhere) as app:
        assert set(app.parts.write_dirs()) == {tmp_path / "data", tmp_path / "other"}
