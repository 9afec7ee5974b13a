"""Plugins of a user, from files, modules and hooks, beside the built-in ones."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.config.settings import Settings
from paise2nb.core.errors import PluginError, SettingsError, UnknownTask, UsageError
from paise2nb.plugins import BUILT_IN, Plugins
from paise2nb.plugins.saved import SavedPlugins

DECORATED = """
from paise2nb import Document, extractor, fetcher, task

@task("shout", max_retries=5, retry_delay=2, timeout=60, memory_mb=512, pool="loud")
def shout(context, word, mark="!"):
    return word.upper() + mark

@task("add")
def add(context, a: int, b: "float" = 0.5):
    return a + b

@task("any")
def any_number(context, *words):
    return len(words)

@extractor("text/html", suffixes=".mine")
def html(context, data, source):
    return Document("mine")

@extractor("image/*")
def image(context, data, source):
    return Document("an image")

@fetcher("gopher", "http")
def gopher(context, url):
    return b"gopher says " + url.encode()
"""

HOOKS = """
from pathlib import Path
from paise2nb import hookimpl
from paise2nb.plugins import Extractor, Fetcher, Task
from paise2nb.workers.queue import NoTaskQueueProvider
from paise2nb.collection.cache import Cache

class Loud(NoTaskQueueProvider):
    pass

class Defaults:
    def defaults(self):
        return {"workers.concurrency": 7, "fetch.timeout": 5}

class Source:
    def addresses(self, context):
        return ["http://example.org/"]

class Diary:
    def __init__(self):
        self.lines = []
    def opened(self, app):
        self.lines.append(f"opened {app.profile}")
    def closed(self, app):
        self.lines.append(f"closed with {app.store.count()} items")
    def reset(self, app, hard):
        self.lines.append(f"reset {hard}")

diary = Diary()

@hookimpl
def task_queue_providers():
    return {"loud": Loud()}

@hookimpl
def configuration_providers():
    return [Defaults()]

@hookimpl
def content_sources():
    return {"example": Source()}

@hookimpl
def tasks():
    return [Task("whisper", lambda context, word: word.lower(), plugin=__name__)]

@hookimpl
def content_fetchers():
    return [Fetcher(lambda context, url: b"", ("gemini",), __name__)]

@hookimpl
def content_extractors():
    return [Extractor(lambda context, data, source: None, ("text/x-own",), (), __name__)]

@hookimpl
def lifecycle_actions():
    return [diary]

@hookimpl
def reset_actions():
    return [diary]

@hookimpl
def cache_provider(app):
    return Cache(app.data_dir / "own cache")
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a plugin file; its path."""

    def write_file(text: str, name: str = "extra.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_file


def load(*names: str) -> Plugins:
    """Load plugins by module or path."""
    return Plugins(Settings.resolve("test", overrides={"plugins": names}))


# What a plugin adds --------------------------------------------------------------------------


def test_a_file_adds_what_it_decorates(write: Write) -> None:
    plugins = load(write(DECORATED))
    shout = plugins.task("shout")
    assert (shout.max_retries, shout.retry_delay, shout.timeout, shout.memory_mb, shout.pool) == (
        5, 2, 60, 512, "loud",
    )  # fmt: skip
    assert {"fetch", "extract", "store", "cleanup", "shout", "any"} <= set(plugins.tasks)
    gopher = plugins.fetcher("gopher")
    assert gopher is not None
    assert gopher.function(None, "gopher://x") == b"gopher says gopher://x"


def test_a_module_adds_what_it_decorates(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(DECORATED, "a_stranger_of_mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = load("a_stranger_of_mine")
    assert plugins.task("shout").plugin == "a_stranger_of_mine"
    monkeypatch.delitem(sys.modules, "a_stranger_of_mine")


def install(where: Path, text: str) -> None:
    """What an installer leaves of a package with one module and an entry point."""
    (where / "installed_stranger.py").write_text(text)
    info = where / "installed_stranger-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-stranger\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[paise2]\nstranger = installed_stranger\n")


def test_an_entry_point_adds_what_it_decorates(tmp_path: Path) -> None:
    install(tmp_path, DECORATED)
    script = "import paise2nb; print(paise2nb.open('test').plugins.task('shout').plugin)"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout == "installed_stranger\n"


def test_plugins_of_the_user_come_before_the_built_in_ones(write: Write) -> None:
    path = write(DECORATED)
    own, built_in = load(path), load()
    for kind in ("text/html", "image/png"):
        extractor = own.extractor(kind, "")
        assert extractor is not None
        assert extractor.plugin.startswith("paise2_plugin_extra")
    assert getattr(own.fetcher("http"), "plugin", "").startswith("paise2_plugin_extra")
    assert getattr(built_in.extractor("text/html", ""), "plugin", "") == "paise2nb.content.extract"
    assert getattr(built_in.fetcher("http"), "plugin", "") == "paise2nb.content.fetch"


def test_of_two_plugins_the_one_named_last_comes_first(write: Write) -> None:
    first, second = (
        write(DECORATED, "first.py"),
        write(
            DECORATED.replace('"shout"', '"shout2"')
            .replace('"any"', '"any2"')
            .replace('"add"', '"add2"'),
            "second.py",
        ),
    )
    extractor = load(first, second).extractor("text/html", "")
    assert extractor is not None
    assert extractor.plugin.startswith("paise2_plugin_second")


def test_a_suffix_counts_only_where_no_extractor_takes_the_type(write: Write) -> None:
    plugins = load(write(DECORATED))
    by_suffix = plugins.extractor("application/octet-stream", ".mine")
    by_type = plugins.extractor("text/plain", ".mine")
    assert by_suffix is not None
    assert by_type is not None
    assert by_suffix.plugin.startswith("paise2_plugin_extra")
    assert by_type.plugin == "paise2nb.content.extract"
    assert plugins.extractor("application/x-unknown", ".unknown") is None
    assert plugins.extractor("application/x-unknown", "") is None


def test_imported_declarations_are_not_declared_twice(write: Write) -> None:
    plugins = load(write("from paise2nb.content.tasks import fetch, extract\n"))
    assert plugins.task("fetch").plugin == "paise2nb.content.tasks"


def test_every_hook_of_a_plugin_is_called(write: Write, tmp_path: Path) -> None:
    path = write(HOOKS, "hooked.py")
    settings = {"plugins": [path], "task_queue.provider": "loud", "fetch.timeout": 9}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        assert (app.settings.workers.concurrency, app.settings.fetch.timeout) == (7, 9)
        assert app.immediate
        assert app.enqueue("whisper", "HUSH").result() == "hush"
        assert app.plugins.fetcher("gemini") is not None
        assert app.plugins.extractor("text/x-own", "") is not None
        app.cache.put(b"bytes")
        assert (tmp_path / "data" / "own cache").is_dir()
        app.reset()
        diary = sys.modules[app.plugins.task("whisper").plugin].diary
        rows = {(row["kind"], row["name"]) for row in app.plugins.describe()}
        assert {("task queue provider", "loud"), ("content source", "example")} <= rows
    assert diary.lines == ["opened test", "reset False", "closed with 0 items"]


def test_the_description_names_every_part_and_its_origin(write: Write) -> None:
    path = write(DECORATED)
    rows = load(path).describe()
    keys = {"kind", "name", "plugin", "version", "state", "origin"}
    assert all(set(row) == keys and row["state"] == "loaded" for row in rows)
    found = {(row["kind"], row["name"]): row["origin"] for row in rows}
    assert found["task", "shout"] == path
    assert found["fetcher", "gopher, http"] == path
    assert found["extractor", "text/html, .mine"] == path
    assert found["task", "fetch"].endswith("paise2nb/content/tasks.py")
    kinds = {kind for kind, _ in found}
    assert {"task queue provider", "data storage provider", "cache provider"} <= kinds


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"entry_points.allow": ["other*"]}, "not allowed"),
        ({"entry_points.deny": ["str*"]}, "not allowed"),
        ({}, "disabled"),
    ],
)
def test_a_denied_entry_point_is_listed_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], state: str
) -> None:
    install(tmp_path, "raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    if state == "disabled":
        SavedPlugins(tmp_path / "data" / "plugins").set_enabled("stranger", False)
    settings = Settings.resolve("test", data_dir=tmp_path / "data", overrides=given)
    [row] = [row for row in Plugins(settings).describe() if row["kind"] == "entry point"]
    assert row == {
        "kind": "entry point", "name": "stranger", "plugin": "stranger", "version": "1",
        "state": state, "origin": "installed_stranger",
    }  # fmt: skip
    with pytest.raises(
        PluginError,
        match=r"plugin 'stranger' can't be loaded: .*installed_stranger\.py, line 1: SystemExit",
    ):
        load()


def test_built_in_parts_register_like_plugins() -> None:
    names = {name.removesuffix(" (declared)") for name, _ in load().hooks.list_name_plugin()}
    assert set(BUILT_IN) <= names


# What can't be loaded ------------------------------------------------------------------------

BROKEN = {
    "an error in it": ("1 / 0", "ZeroDivisionError: division by zero"),
    "an import that fails": ("import no_such_thing", "No module named 'no_such_thing'"),
    "a mistake of syntax": ("def (", "SyntaxError"),
    "an exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "a task that is taken": (
        "from paise2nb import task\n@task('fetch')\ndef mine(context): ...",
        "defines task 'fetch', which 'paise2nb.content.tasks' has defined already; "
        "give it another name",
    ),
    "a hook that fails": (
        "from paise2nb import hookimpl\n@hookimpl\ndef tasks(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "a hook that is unknown": (
        "from paise2nb import hookimpl\n@hookimpl\ndef no_such_hook(): ...",
        "no_such_hook",
    ),
    "a hook with wrong arguments": (
        "from paise2nb import hookimpl\n@hookimpl\ndef cache_provider(app, more): ...",
        "more",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_plugin_that_can_not_be_loaded_is_named(write: Write, what: str) -> None:
    text, reason = BROKEN[what]
    path = write(text, "broken.py")
    with pytest.raises(PluginError) as caught:
        load(path)
    assert f"plugin {path!r}" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_that_failed_can_be_fixed_and_loaded(write: Write) -> None:
    path = write("1 / 0", "fixed.py")
    with pytest.raises(PluginError):
        load(path)
    write(DECORATED, "fixed.py")
    assert load(path).task("shout")


@pytest.mark.parametrize("name", ["no_such_module_here", "/nowhere/at/all.py"])
def test_a_missing_plugin_is_named(name: str) -> None:
    with pytest.raises(
        PluginError, match=rf"plugin '{name}' can't be loaded: .*fix it, or.*disable"
    ):
        load(name)


def test_a_plugin_named_twice_is_refused(write: Write) -> None:
    path = write(DECORATED)
    with pytest.raises(PluginError, match=r"plugin '.*extra\.py' can't be registered"):
        load(path, path)


def test_two_plugins_can_not_define_the_same_name(write: Write) -> None:
    first, second = write(DECORATED, "first.py"), write(DECORATED, "second.py")
    with pytest.raises(PluginError) as caught:
        load(first, second)
    assert f"plugin {second!r} defines task 'shout', which {first!r} has defined already" in str(
        caught.value
    )


def test_files_with_the_same_name_in_two_directories_are_two_plugins(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    first = write(DECORATED, "same.py")
    second = write("from paise2nb import task\n@task('b')\ndef b(context): ...", "other/same.py")
    assert {"shout", "b"} <= set(load(first, second).tasks)


def test_an_unknown_provider_is_named_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="'postgres', which no plugin defines; known: none"):
        load().provider("postgres")
    with pytest.raises(SettingsError, match=r"did you mean sqlite\? known: none, redis, sqlite"):
        load().provider("sqlit")


@pytest.mark.parametrize(
    ("name", "hint"), [("fetsch", "did you mean 'fetch'"), ("xyz", "known: .*fetch, extract")]
)
def test_the_error_for_an_unknown_task_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownTask, match=f"unknown task '{name}'; {hint}"):
        load().task(name)


# Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arguments", "fits"),
    [
        ("shout", (), False),
        ("shout", ("a",), True),
        ("shout", ("a", "?"), True),
        ("shout", ("a", "?", "more"), False),
        ("any", (), True),
        ("any", tuple("abcdef"), True),
        ("any", ({"deep": [1, None, True, 0.5]},), True),
        ("any", (object(),), False),
        ("any", (float("nan"),), False),
        ("any", (b"bytes",), False),
        ("any", ({1, 2},), False),
        ("add", (1, 2), True),
        ("add", ("1", "2.5"), True),
        ("add", ("1.5",), False),
        ("add", (1, "two"), False),
    ],
)
def test_arguments_must_fit_the_function_and_be_json(
    write: Write, task: str, arguments: tuple[Any, ...], fits: bool
) -> None:
    found = load(write(DECORATED)).task(task)
    if fits:
        text, key, host = found.accept(None, arguments)  # type: ignore[arg-type]
        assert found.accept(None, arguments) == (text, key, host)  # type: ignore[arg-type]
        assert -(2**63) <= key < 2**63
    else:
        with pytest.raises(UsageError, match=f"task '{task}'"):
            found.accept(None, arguments)  # type: ignore[arg-type]


def test_typed_numbers_become_numbers(write: Write) -> None:
    add = load(write(DECORATED)).task("add")
    assert add.accept(None, ("1", "2.5"))[0] == "[1, 2.5]"  # type: ignore[arg-type]
    assert add.accept(None, ("1",)) == add.accept(None, (1,))  # type: ignore[arg-type]


def test_keys_differ_by_task_and_arguments(write: Write) -> None:
    plugins = load(write(DECORATED))
    arguments: list[tuple[Any, ...]] = [("a",), ("b",), ("a", "!"), (["a"],), ("1",), (1,)]
    keys = {
        plugins.task(name).accept(None, given)[1]  # type: ignore[arg-type]
        for name in ("shout", "any")
        for given in arguments
    }
    assert len(keys) == 12


def test_importing_the_package_imports_no_heavy_module() -> None:
    script = (
        "import sys, paise2nb; paise2nb.open('test');"
        " print(sorted({'trafilatura', 'xberg', 'urllib3', 'pandas', 'IPython', 'ipywidgets'}"
        " & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in paise2nb.__all__:
        value = getattr(paise2nb, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), name
    assert importlib.import_module("paise2nb").__all__ == sorted(paise2nb.__all__)
