"""Plugins: decorated functions, hooks, cells, and what an author's own tests stand on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb import App
from paise2nb.testing import Broken, Extracting, Fetching, Rule, Site, rules, run_all
from tests.acceptance.support import SECONDS, Place, Shell, until

Cell = Callable[[str], Any]
Captured = pytest.CaptureFixture[str]


def listed(shell: Shell) -> dict[str, dict[str, Any]]:
    """What is registered, by its name."""
    return {row["name"]: row for row in shell("plugins", "--json").json}


# Decorated functions ---------------------------------------------------------------------------


def test_what_a_file_decorates_is_registered_with_its_origin(place: Place, shell: Shell) -> None:
    found = listed(shell)
    assert (found["shout"]["kind"], found["shout"]["origin"]) == ("task", str(place.plugin))
    assert {row["plugin"] for row in found.values() if row["origin"] == str(place.plugin)} == {
        "helper"
    }
    assert {"fetch", "extract", "store", "cleanup", "feed", "sitemap", "folder", "links"} <= set(
        found
    )


def test_a_module_is_a_plugin(place: Place, shell: Shell) -> None:
    (place.root / "modules").mkdir()
    (place.root / "modules" / "acceptance_mine.py").write_text(
        "from paise2nb import task\n@task('mine')\ndef mine(context, word): return word * 2\n"
    )
    path = f"{place.root / 'modules'}:{place.environment()['PYTHONPATH']}"
    words = ("--set", "plugins=[acceptance_mine]", "--immediate", "enqueue", "mine", "ab")
    assert shell(*words, env={"PYTHONPATH": path}).status == 0
    with paise2nb.open("development") as app:
        assert app.job(1).result() == "abab"


def test_an_installed_package_is_a_plugin_unless_the_settings_leave_it_out(
    place: Place, shell: Shell
) -> None:
    site = place.root / "site"
    info = site / "acceptance_other-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acceptance-other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[paise2]\nother = acceptance_other\n")
    (site / "acceptance_other.py").write_text(
        "from paise2nb import task\n@task('other')\ndef other(context): return 'other'\n"
    )
    env = {"PYTHONPATH": f"{site}:{place.environment()['PYTHONPATH']}"}
    assert shell("--immediate", "enqueue", "other", env=env).status == 0
    words = ("--set", "entry_points.deny=[other]", "enqueue", "other")
    refused = shell(*words, env=env)
    assert (refused.status, "other" in refused.stderr) == (2, True)
    disabled = shell("plugins", "disable", "other", env=env)
    assert disabled.status == 0
    assert shell("enqueue", "other", env=env).status == 2
    assert shell("plugins", "enable", "other", env=env).status == 0
    assert shell("enqueue", "other", env=env).status == 0


def test_an_extractor_takes_its_type_and_its_suffix(here: App, place: Place) -> None:
    path = place.write("poem.lines", "A title\none\ntwo\n")
    [item] = here.enqueue("fetch", str(path)).items
    assert (item.title, item.author, item.text) == ("A title", "Nobody", "one\ntwo")
    with Site() as site:
        url = site.add("/poem", b"Another\nthree\n", "text/x-lines")
        [item] = here.enqueue("fetch", url).items
        assert (item.title, item.text) == ("Another", "three")


def test_one_source_may_hold_several_documents(here: App) -> None:
    with Site() as site:
        url = site.add("/all", b"bowline hitch", "text/x-several")
        job = here.enqueue("fetch", url)
    assert sorted(item.title for item in job.items) == ["bowline", "hitch"]
    assert sorted(item.url for item in here.items()) == [f"{url}/bowline", f"{url}/hitch"]


def test_a_fetcher_takes_its_scheme(here: App) -> None:
    job = here.enqueue("fetch", "gopher://example.org/tunnel")
    [item] = job.items
    assert "burrows below gopher://example.org/tunnel" in item.text


def test_what_the_user_registers_comes_before_what_is_built_in(place: Place) -> None:
    own = place.write(
        "own.py",
        "from paise2nb import Document, extractor\n"
        "@extractor('text/html')\n"
        "def own(context, data, source): return Document('mine', title='My own')\n",
    )
    with paise2nb.open("test", place.data, {"plugins": [str(own)]}) as here, Site() as site:
        [item] = here.enqueue("fetch", site.add("/page", b"<html><p>theirs</p></html>")).items
        assert item.title == "My own"


def test_what_a_plugin_keeps_is_written_with_the_completion(here: App) -> None:
    assert [here.enqueue("count").result() for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import not_there_at_all", "not_there_at_all"),
        ("x = 1\n1 / 0\n", "division by zero"),
        ("def broken(:", "own.py"),
        ("from paise2nb import task\n@task('fetch')\ndef f(context): ...\n", "fetch"),
        ("from paise2nb import hookimpl\n@hookimpl\ndef no_such_hook(): ...\n", "no_such_hook"),
    ],
)
def test_a_plugin_that_can_not_be_loaded_is_named_in_one_line(
    place: Place, shell: Shell, text: str, named: str
) -> None:
    own = place.write("own.py", text)
    done = shell("status", "--set", f"plugins=[{own}]")
    assert (done.status, done.stderr.count("\n")) == (0, 1)
    assert "own" in done.stderr
    assert named in done.stderr
    assert "Traceback" in shell("status", "--set", f"plugins=[{own}]", "--debug").stderr


# Hooks -----------------------------------------------------------------------------------------

HOOKS = '''
import hashlib
import os
from pathlib import Path
from paise2nb import hookimpl

HERE = Path(__file__).parent

def note(line):
    with (HERE / "diary").open("a") as file:
        file.write(line + "\\n")

class Defaults:
    def defaults(self):
        return {"fetch.timeout": 5, "history.keep_days": 6}

class Source:
    def addresses(self, context):
        return (HERE / "known").read_text().split()

class Diary:
    def opened(self, app): note(f"opened {app.profile}")
    def closed(self, app): note("closed")
    def reset(self, app, hard): note(f"reset {hard}")

class Cache:
    """Keeps each value in a file."""
    def __init__(self): (HERE / "kept").mkdir(exist_ok=True)
    def path(self, key): return HERE / "kept" / key
    def put(self, data):
        key = hashlib.sha256(data).hexdigest()
        aside = self.path(f"{key}.{os.getpid()}")
        aside.write_bytes(data)
        aside.replace(self.path(key))
        return key
    def get(self, key):
        if key not in self: raise KeyError(key)
        return self.path(key).read_bytes()
    def __contains__(self, key): return self.path(key).exists()
    def remove(self, needed, older_than): return 0
    def clear(self): return 0
    def close(self): pass

diary = Diary()

@hookimpl
def configuration_providers(): return [Defaults()]

@hookimpl
def content_sources(): return {"known": Source()}

@hookimpl
def lifecycle_actions(): return [diary]

@hookimpl
def reset_actions(): return [diary]

@hookimpl
def cache_provider(app): return Cache()
'''


@pytest.fixture
def hooked(place: Place) -> Place:
    """The place with a plugin of hooks, whose files lie in the working directory."""
    own = place.write("own.py", HOOKS)
    place.write("diary", "")
    text = place.settings.read_text()
    place.settings.write_text(text.replace("plugins: [", f"plugins: [{own}, "))
    return place


def test_defaults_of_a_plugin_lie_under_the_users_own(hooked: Place, shell: Shell) -> None:
    hooked.settings.write_text(hooked.settings.read_text() + "history: {keep_days: 9}\n")
    rows = {row["key"]: row for row in shell("config", "show", "--json").json}
    assert rows["fetch.timeout"]["value"] == 5
    assert "own" in rows["fetch.timeout"]["origin"]
    assert rows["history.keep_days"]["value"] == 9


def test_a_source_is_a_task_that_enqueues_what_is_new(hooked: Place) -> None:
    with paise2nb.open("test", hooked.data) as here, Site() as site:
        urls = [site.add(path, b"<html><p>Words.</p></html>") for path in ("/a", "/b")]
        hooked.write("known", urls[0])
        here.enqueue("known", tag="t")
        hooked.write("known", "\n".join([*urls, "file:///etc/passwd", "no-url"]))
        here.enqueue("known", tag="t")
        assert sorted(item.url for item in here.items(tag="t")) == urls
        assert [job.args[0] for job in here.jobs(task="fetch")] == urls


def test_a_cache_of_a_plugin_keeps_the_bytes(hooked: Place) -> None:
    with paise2nb.open("test", hooked.data) as here, Site() as site:
        here.enqueue("fetch", site.add("/a", b"<html><p>Words.</p></html>"))
        assert len(here.items()) == 1
    kept = [path.read_bytes() for path in (hooked.work / "kept").iterdir()]
    assert b"<html><p>Words.</p></html>" in kept


def test_a_plugin_is_told_of_openings_closings_and_resets(hooked: Place) -> None:
    with paise2nb.open("test", hooked.data) as here:
        here.reset()
        here.reset(hard=True)
    lines = (hooked.work / "diary").read_text().splitlines()
    assert lines == ["opened test", "reset False", "reset True", "closed"]


# Cells -----------------------------------------------------------------------------------------

LOUD = """\
from paise2nb import task

@task("loud")
def loud(context, word):
    return word.upper()
"""
READER = """\
from paise2nb import Document, extractor

@extractor("text/x-poem", suffixes=[".poem"])
def poem(context, data, source):
    first, *rest = data.decode().splitlines()
    return Document(" / ".join(rest), title=first)
"""


@pytest.fixture
def cell(cell: Cell) -> Cell:
    """Run a cell of a notebook that has opened the profile."""
    cell("app = %paise2 profile development")
    return cell


def test_a_cell_becomes_a_plugin_that_running_workers_use(cell: Cell, place: Place) -> None:
    app = paise2nb.open()
    app.workers.start()
    pids = {row["pid"] for row in app.workers.status().workers}
    saved = cell(f"%%paise2 plugin loud\n{LOUD}").result.to_dict()
    assert Path(saved["path"]).is_relative_to(place.data)
    assert "loud" in Path(saved["path"]).read_text()
    assert saved["version"] == 1
    assert app.enqueue("loud", "hello you").result(timeout=SECONDS) == "HELLO YOU"
    again = cell(f"%%paise2 plugin loud\n{LOUD.replace('upper', 'title')}").result.to_dict()
    assert again["version"] == 2
    assert "upper" in Path(again["before"]).read_text()
    assert app.enqueue("loud", "hello us").result(timeout=SECONDS) == "Hello Us"
    assert {row["pid"] for row in app.workers.status().workers} == pids
    with paise2nb.open("development", place.data, {"history.keep_days": 9}) as other:
        assert other.enqueue("loud", "elsewhere").state in ("queued", "running", "completed")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("x = 1", "@task"),
        ("x = 1\n\n1 / 0", "line 4"),
        ("\nimport nowhere_at_all", "line 3"),
        (LOUD + "def broken(:", "line 7"),
        (LOUD.replace('"loud"', '"fetch"'), "fetch"),
        (LOUD.replace('"loud"', '"shout"'), "shout"),
        (LOUD.replace("word.upper()", "clean(word)"), "clean"),
        (LOUD.replace("word.upper()", "claen(word)"), "line 6"),
        (LOUD.replace("context, word", "").replace("word", "''"), "line 4"),
        ("from paise2nb import hookimpl\n@hookimpl\ndef no_such_hook(): ...", "no_such_hook"),
        ("import os; os._exit(3)", "3"),
        ("import ctypes\nctypes.string_at(0)", "line 3"),
        ("import subprocess\nsubprocess.Popen(['sleep', '1000'])\n" + LOUD, "process"),
    ],
)  # fmt: skip
def test_a_cell_that_is_no_plugin_is_refused_in_one_line_and_changes_nothing(
    cell: Cell, capsys: Captured, place: Place, body: str, named: str
) -> None:
    cell("def clean(word): return word.strip()")
    cell(f"%%paise2 plugin loud\n{LOUD.replace('upper', 'lower')}")
    capsys.readouterr()
    refused = cell(f"%%paise2 plugin loud\n{body}")
    assert isinstance(refused.error_in_exec, paise2nb.PaiseError)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert named in said
    with paise2nb.open("test", place.data) as here:
        assert here.enqueue("loud", "AS BEFORE").result() == "as before"


def test_a_cell_is_tried_on_a_job_or_an_item_and_not_saved(cell: Cell, place: Place) -> None:
    cell(f"app = %paise2 profile test --data-dir {place.data}")  # runs jobs in this process
    path = place.write("one.poem", "A title\none\x00\ntwo\n")
    job = cell(f"%paise2 enqueue fetch {path}").result
    assert len(job.items) == 0
    tried = cell(f"%%paise2 plugin poem --try {job.id}\n{READER}").result
    assert "A title" in str(tried)
    assert not any(row["name"] == "poem" for row in cell("%paise2 plugins").result.to_dicts())
    cell(f"%%paise2 plugin poem\n{READER}")
    cell("%paise2 retry --state failed")
    assert [item.title for item in job.items] == ["A title"]


def test_a_plugin_is_disabled_and_enabled_again_and_its_jobs_wait(
    cell: Cell, capsys: Captured
) -> None:
    app = paise2nb.open()
    cell(f"%%paise2 plugin loud\n{LOUD}")
    job = app.enqueue("loud", "hello")
    assert cell("%paise2 plugins disable loud").success
    rows = cell("%paise2 plugins").result.to_dicts()
    assert {row["state"] for row in rows if row["plugin"] == "loud"} == {"disabled"}
    assert not cell("%paise2 enqueue loud again").success
    app.workers.start()
    assert app.enqueue("shout", "beside").result(timeout=SECONDS) == "BESIDE"
    assert job.state == "queued"
    assert "paise2 plugins enable" in str(until(lambda: app.workers.status().problem))
    assert cell("%paise2 plugins enable loud").success
    assert job.result(timeout=SECONDS) == "HELLO"


def test_a_cells_plugin_that_breaks_later_can_be_disabled(cell: Cell, shell: Shell) -> None:
    saved = cell(f"%%paise2 plugin loud\n{LOUD}").result.to_dict()
    Path(saved["path"]).write_text("import not_there_at_all")
    broken = shell("enqueue", "loud", "x")
    assert (broken.status, "paise2 plugins disable loud" in broken.stderr) == (1, True)
    assert shell("plugins", "disable", "loud").status == 0
    assert shell("status").status == 0


# What authors' tests stand on ------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules("extractor"), ids=str)
@pytest.mark.parametrize(
    ("data", "mime_type"),
    [(b"<html><p>Some words.</p></html>", "text/html"), (b"Some words.", "text/plain")],
)
def test_the_extractors_keep_the_rules(rule: Rule, data: bytes, mime_type: str) -> None:
    rule.check(Extracting(data, mime_type))


@pytest.mark.parametrize("rule", rules("fetcher"), ids=str)
def test_the_fetcher_keeps_the_rules(rule: Rule) -> None:
    with Site() as site:
        good = site.add("/page", b"<html><p>Some words.</p></html>")
        bad = site.add("/bad", b"", status=500)
        rule.check(Fetching(good, (bad, "http://")))


@pytest.mark.parametrize("kind", ["cache", "store", "queue", "fetcher", "extractor"])
def test_there_are_rules_for_every_kind_of_part(kind: str) -> None:
    assert all(rule.kind == kind and str(rule) and rule.advice for rule in rules(kind))
    assert len(rules(kind)) >= 2


def test_an_extractor_that_breaks_a_rule_is_told_which_and_what_helps(place: Place) -> None:
    own = place.write(
        "own.py",
        "from paise2nb import extractor\n"
        "@extractor('text/x-own')\n"
        "def own(context, data, source): return 7\n",
    )
    subject = Extracting(b"words", "text/x-own", settings={"plugins": [str(own)]})
    [first, *_] = rules("extractor")
    with pytest.raises(Broken) as broken:
        first.check(subject)
    assert first.says in str(broken.value)
    assert first.advice in str(broken.value)


def test_all_that_waits_is_run_to_its_end(app: App, place: Place) -> None:
    app.enqueue("parent", "a", "b")
    app.enqueue("flaky", str(place.root / "tries"), 2)
    assert {job.state for job in run_all(app)} == {"completed"}


def test_a_plugins_own_tests_have_an_app_and_a_site(place: Place) -> None:
    tests = place.root / "their"
    tests.mkdir()
    (tests / "conftest.py").write_text('pytest_plugins = ["paise2nb.testing"]\n')
    (tests / "test_theirs.py").write_text(
        "import pytest\n"
        "from paise2nb.testing import run_all\n\n"
        "@pytest.fixture\n"
        "def paise2_settings():\n"
        f"    return {{'plugins': [{str(place.plugin)!r}]}}\n\n"
        "def test_theirs(paise2_app, paise2_site):\n"
        "    url = paise2_site.add('/p', b'A title\\nwords', 'text/x-lines', ETag='\"1\"')\n"
        "    paise2_app.enqueue('fetch', url)\n"
        "    run_all(paise2_app)\n"
        "    assert [item.title for item in paise2_app.items()] == ['A title']\n"
        "    assert paise2_site.requests == ['/p']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        cwd=tests, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
