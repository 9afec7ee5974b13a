"""The magic, in IPython's own shell and in real kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from traitlets.config import Config

import paise2nb
from paise2nb.core.errors import UsageError
from paise2nb.core.render import in_cell_words
from paise2nb.notebook.magic_line import keep_line_ends, split

PLUGIN = """
import time
from pathlib import Path
from paise2nb import task

@task("shout")
def shout(context, word):
    return word.upper()

@task("hold")
def hold(context, path):
    while not Path(path).exists():
        time.sleep(0.01)

@task("parse", max_retries=0)
def parse(context, word):
    import json
    return json.loads(word)

@task("stumble", max_retries=0)
def stumble(context, word):
    here = word * 2
    raise ValueError(here)
"""
Cell = Callable[[str], ExecutionResult]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a plugin and without the user's settings."""
    directory = tmp_path / "work"
    directory.mkdir()
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (directory / "paise2.yaml").write_text(
        f"plugins: [{tmp_path / 'plugin.py'}]\nworkers: {{concurrency: 1}}\n"
    )
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PAISE2_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PAISE2_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("PAISE2_PROFILE", "development")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return directory


@pytest.fixture
def cell(work: Path) -> Iterator[Cell]:
    """Run a cell in a shell that has loaded the extension."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "paise2nb")
    yield lambda text: shell.run_cell(text)
    shell.run_line_magic("unload_ext", "paise2nb")
    InteractiveShell.clear_instance()


def args(result: ExecutionResult) -> list[Any]:
    """The first arguments of the jobs that a cell returned."""
    assert result.success
    jobs = result.result
    return [jobs.args[0]] if hasattr(jobs, "state") else [job.args[0] for job in jobs]


# Words ---------------------------------------------------------------------------------------

URLS = [
    "https://x.example/a#b",
    "https://x.example/?q=$name",
    "https://x.example/{name}/{}",
    "https://x.example/a;b;",
    "https://x.example/what?",
    "https://x.example/what??",
    "https://x.example/?",
    "https://x.example/(a",
    "https://x.example/%20%paise2",
    "https://x.example/it's",
    "https://x.example/*",
]


@pytest.mark.parametrize("form", ["%paise2 {}", "x = %paise2 {}", "%%paise2 {}", "cell"])
@pytest.mark.parametrize("url", URLS)
def test_urls_arrive_unchanged(cell: Cell, form: str, url: str) -> None:
    cell("name = 'no'")
    if form == "cell":
        result = cell(f"%%paise2 enqueue shout\n{url}\n")
    elif form.startswith("%%"):
        result = cell(form.replace("{}", f"enqueue shout {url}") + "\nanother\n")
    else:
        result = cell(form.replace("{}", f"enqueue shout {url}"))
    if form.startswith("x"):
        result = cell("x")
    assert args(result)[0] == url


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a $name b", ["a", "value", "b"]),
        ("a {name.upper()} b", ["a", "VALUE", "b"]),
        ("{'x y'}", ["x y"]),
        ("{ 1 + 1 }", ["2"]),
        ("{ {'k': '} '}['k'] }", ["} "]),
        ("$many z", ["1", "2", "z"]),
        ("{many[:1]}", ["1"]),
        ("{}", ["{}"]),
        ("{no python}", ["{no", "python}"]),
        ("{missing} $missing", ["{missing}", "$missing"]),
        ("pre$name pre{name}", ["pre$name", "pre{name}"]),
        ('"two words" don\'t', ['"two', 'words"', "don't"]),
        ('"two words" three', ["two words", "three"]),
        ("status # a remark", ["status"]),
        ("status ;", ["status"]),
        ("search tag:news;", ["search", "tag:news"]),
        ('"all {name} here" {name}', ["all {name} here", "value"]),
        ("don't {name}", ["don't", "value"]),
        ("{no} {name} {no", ["{no}", "value", "{no"]),
        ("a #b", ["a", "#b"]),
        ("", []),
    ],
)
def test_variables_are_expanded_as_whole_words(line: str, words: list[str]) -> None:
    assert split(line, {"name": "value", "many": [1, 2]}) == words


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(["a", "b"], index=["id", "x"]),
        pd.Index(["a", "b"]),
        np.array(["a", "b"]),
        np.array([["a"], ["b"]]),
        {1: "a", 2: "b"}.values(),
        {"a": 1, "b": 2}.keys(),
        ["a", ("b",)],
        deque(["a", "b"]),
        pd.Series(["a", "b"], dtype="category"),
        [np.str_("a"), b"b"],
        [Path("a"), bytearray(b"b")],
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_iterable_gives_one_word_for_each_element(value: Any) -> None:
    assert split("$value {value} z", {"value": value}) == ["a", "b", "a", "b", "z"]


def test_a_generator_and_a_set_give_one_word_for_each_element() -> None:
    assert split("$value", {"value": (str(number) for number in range(3))}) == ["0", "1", "2"]
    assert sorted(split("$value", {"value": {"a", "b"}})) == ["a", "b"]
    assert split("{value[0]}", {"value": np.array([7])}) == ["7"]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "True"),
        (np.int64(7), "7"),
        (np.array(7), "7"),
        (np.float32(0.5), "0.5"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 2), "2026-01-02"),
        ("None", "None"),
        ("nan", "nan"),
    ],
)
def test_a_value_with_a_text_gives_one_word(value: Any, word: str) -> None:
    assert split("a $value", {"value": value}) == ["a", word]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "value: None is not a word; remove missing values, as with dropna()"),
        (float("nan"), "value: nan is not a word"),
        (pd.NaT, "value: NaT is not a word"),
        (pd.Series(["a", None], dtype="string"), "value: <NA> is not a word"),
        (b"\xff", "value: these bytes are not text in UTF-8"),
        (print, "value: a value of type builtin_function_or_method is not a word; give texts or"),
        (object(), "value: a value of type object is not a word"),
        (re, "value: a value of type module is not a word"),
        (int, "value: a value of type type is not a word"),
    ],
)
def test_a_value_without_a_text_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        split("enqueue fetch $value", {"value": value})


def test_a_table_or_a_dictionary_is_refused_with_words_that_help() -> None:
    frame = pd.DataFrame({"name": ["A"], "url": ["https://x.example/"]})
    with pytest.raises(UsageError, match=re.escape("choose a column, such as {frame['url']}")):
        split("enqueue fetch $frame", {"frame": frame})
    with pytest.raises(UsageError, match=re.escape("such as {frame[['name']]['name']}")):
        split("enqueue fetch {frame[['name']]}", {"frame": frame})
    with pytest.raises(UsageError, match=r"choose its keys\(\) or values\(\)"):
        split("enqueue fetch $rows", {"rows": [{"url": "https://x.example/"}]})


def test_a_variable_within_a_word_stays_as_typed_and_a_message_says_so(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell("n = 7")
    assert args(cell("%paise2 enqueue shout url{n}")) == ["url{n}"]
    written = "{f'url{n}'}"
    assert f"url{{n}} stays as typed; to insert the value, write {written}\n" in (
        capsys.readouterr().out
    )
    assert args(cell(f"%paise2 enqueue shout {written}")) == ["url7"]
    cell("%paise2 enqueue shout page-{n+1}.html")
    assert "write {f'page-{n+1}.html'}" in capsys.readouterr().out
    cell("%paise2 enqueue shout url{missing} {n} $n")
    assert "stays as typed" not in capsys.readouterr().out


# The final semicolon ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["status;", "status ;", "status;  ", "status ; # a remark", "status;;", "jobs --state queued;"],
)
def test_a_final_semicolon_hides_the_result(cell: Cell, line: str) -> None:
    hidden = cell(f"%paise2 {line}")
    assert (hidden.success, hidden.result) == (True, None)
    assert cell(f"x = %paise2 {line}\nx").result is not None
    assert cell(f"get_ipython().run_line_magic('paise2', {line!r})").result is None


def test_a_final_semicolon_is_no_part_of_an_argument(cell: Cell) -> None:
    cell("word = 'c'")
    cell("%paise2 enqueue shout a;\n%paise2 enqueue shout 'b;'\n%paise2 enqueue shout $word;")
    cell("%paise2 enqueue shout {word * 2};\n%paise2 enqueue shout https://x.example/ ;")
    assert cell("%%paise2 enqueue shout;\nd;\n").result is None
    jobs = cell("%paise2 jobs").result
    assert [job.args for job in jobs] == [
        ["a"],
        ["b;"],
        ["c"],
        ["cc"],
        ["https://x.example/"],
        ["d;"],
    ]


def test_an_expression_that_fails_says_so(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    assert not cell("%paise2 enqueue shout {1 / 0}").success
    assert capsys.readouterr().out == "error: {1 / 0}: ZeroDivisionError: division by zero\n"


def test_variables_of_a_function_are_in_scope(cell: Cell) -> None:
    cell("def go():\n    here = ['p', 'q']\n    a = %paise2 enqueue shout $here\n    return a\n")
    assert args(cell("go()")) == ["p", "q"]


def test_a_job_in_a_variable_gives_its_id(cell: Cell) -> None:
    cell("job = %paise2 enqueue shout x")
    assert cell("%paise2 cancel $job").result[0].state == "cancelled"
    assert cell("%paise2 job {job}").result.state == "cancelled"
    cell("jobs = %paise2 jobs")
    assert cell("%paise2 retry $jobs").result.ids == [1]
    cell("status = %paise2 status")
    assert not cell("%paise2 enqueue shout $status").success


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("%paise2 search what?\n", True),
        ("found = %paise2 search what?\n", True),
        ("a, b[0] = %paise2 search what?\n", True),
        ("if 1:\n    %paise2 search what?\n", True),
        ("%paise2?\n", False),
        ("text = '''\n%paise2 search what?\n'''\n", False),
        ("%%paise2 enqueue fetch\n%paise2 search what?\n", False),
        ("# %paise2 search what?\n", False),
        ("len?\n", False),
        ("x = %paise2 status;\n", True),
        ("text = '''\nx = %paise2 status;\n'''\n", False),
    ],
)
def test_only_commands_keep_their_question_mark(source: str, changed: bool) -> None:
    lines = source.splitlines(keepends=True)
    assert (keep_line_ends(lines) != lines) is changed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("start some: paise2 worker start", "start some: %paise2 worker start"),
        ("`paise2 jobs` lists them", "`%paise2 jobs` lists them"),
        ("%paise2 jobs", "%paise2 jobs"),
        ("see paise2 config edit", "see %%paise2 config"),
        ("/srv/paise2 data", "/srv/paise2 data"),
        ("my-paise2 data", "my-paise2 data"),
    ],
)
def test_messages_show_commands_as_a_cell_takes_them(text: str, shown: str) -> None:
    assert in_cell_words(text) == shown


# Results and errors --------------------------------------------------------------------------


def test_a_line_returns_the_object_and_its_json(cell: Cell) -> None:
    assert cell("%paise2 status").result.jobs["queued"] == 0
    assert cell("%paise2 status --json").result["jobs"]["queued"] == 0
    assert "<table" in cell("%paise2 config show").result._repr_html_()


def test_an_error_is_one_line_and_stops_the_cell(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    result = cell("%paise2 staus\nprint('not reached')")
    assert isinstance(result.error_in_exec, paise2nb.UsageError)
    assert capsys.readouterr().out == "error: unknown command 'staus'; did you mean 'status'?\n"


def test_an_error_can_be_caught_by_its_class(cell: Cell) -> None:
    cell("from paise2nb import NotFound\ntry:\n    %paise2 job 9\nexcept NotFound:\n    seen = 1\n")
    assert cell("seen").result == 1


def test_debug_shows_the_traceback(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    cell("%paise2 --debug job 9")
    shown = capsys.readouterr().out
    assert "Traceback (most recent call last)" in shown
    assert "no job 9" in shown


def test_a_replay_raises_in_the_frame_that_failed(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell("%paise2 --immediate enqueue stumble ab")
    error = cell("%paise2 replay 1").error_in_exec
    assert isinstance(error, ValueError)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "in stumble(context, word)" in shown
    assert "call_function" not in shown  # nor any other frame that is not the user's
    assert shown.rstrip().endswith("ValueError: abab")
    assert sys.last_value is error
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    assert frames is not None
    assert frames.tb_frame.f_locals["here"] == "abab"


def test_help_is_printed_and_returns_nothing(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cell("%paise2 jobs --help").result is None
    assert "Usage: %paise2 jobs" in capsys.readouterr().out
    cell("%paise2?")
    assert "Usage: %paise2 " in capsys.readouterr().out


def test_a_replay_that_fails_in_a_library_names_its_frames_below_the_users(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell("%paise2 --immediate enqueue parse nonsense")
    cell("%paise2 replay 1")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "return json.loads(word)" in shown
    assert "raise JSONDecodeError" not in shown
    assert "It was raised in json/__init__.py:" in shown
    assert "%debug opens that frame; u leads up to yours" in shown


def test_a_replay_that_fails_for_a_known_reason_shows_one_line(
    cell: Cell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty.md").touch()
    cell(f"%paise2 --immediate enqueue fetch {tmp_path / 'empty.md'}")
    capsys.readouterr()
    cell("%paise2 replay 2")
    shown = capsys.readouterr().out.strip()
    assert shown.startswith("error: ")
    assert shown.endswith("%debug opens the frame that raised it")
    assert "\n" not in shown


def test_help_groups_the_commands_by_purpose_with_examples_for_a_cell(cell: Cell) -> None:
    shown = str(cell("%paise2 help").result)
    for text in ("Deal with failures:", "%paise2 retry --error timeout", "%%paise2 plugin shout"):
        assert text in shown
    assert " paise2 " not in shown
    assert "Usage: %paise2 worker stop" in str(cell("%paise2 help workers stop").result)
    assert isinstance(cell("%paise2 help nonsense").error_in_exec, UsageError)


def test_help_lists_the_commands(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    cell("%paise2?")
    shown = capsys.readouterr().out
    assert "replay" in shown
    assert "--data-dir" in shown
    assert "$name and {expression}" in shown


# Completion ----------------------------------------------------------------------------------


def completions(text: str) -> tuple[list[str], set[str]]:
    """The completions of a text, and the part of it that they replace.

    The part itself is left out: it is offered in place of no completions.
    """
    completer = InteractiveShell.instance().Completer
    with provisionalcompleter():
        found = list(completer.completions(text, len(text)))
    replaced = {text[one.start : one.end] for one in found}
    return [one.text for one in found if one.text not in replaced], replaced


@pytest.mark.parametrize("opening", ["%paise2 ", "x = %paise2 ", "%%paise2 ", "a, b[0] = %paise2 "])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("st", ["stats", "status"]),
        ("worker s", ["start", "status", "stop"]),
        ("workers re", ["restart"]),
        ("enqueue sh", ["shout"]),
        ("enqueue shout x --t", ["--tag"]),
        ("jobs --tag ", ["news"]),
        ("jobs --state f", ["failed"]),
        ("jobs --task stu", ["stumble"]),
        ("jobs --error ", ["ValueError"]),
        ("jobs --pro", ["--profile"]),
        ("--profile de", ["development"]),
        ("profile ", ["development", "production", "test"]),
        ("job ", ["1", "2", "3"]),
        ("replay ", ["1", "2"]),
        ("retry ", ["2"]),
        ("cancel ", ["3"]),
        ("cancel 3 ", ["3"]),
        ("item ", []),
        ("status --set workers.conc", ["workers.concurrency="]),
        ("worker start --pool f", ["fetch"]),
        ("plugins d", ["disable"]),
        ("plugins disable pl", ["plugin"]),
    ],
)
def test_completion_offers_what_fits(cell: Cell, opening: str, line: str, words: list[str]) -> None:
    cell("%paise2 --immediate enqueue shout a")
    cell("%paise2 --immediate enqueue stumble b")
    cell("%paise2 enqueue shout c --tag news")
    found, replaced = completions(opening + line)
    assert sorted(found) == words
    assert replaced == {line.rpartition(" ")[2]}


def test_completion_offers_all_commands_and_nothing_else(cell: Cell) -> None:
    from paise2nb.commands import table

    cell("status = stream = 1")
    assert sorted(completions("%paise2 ")[0]) == sorted(table.commands)


def test_completion_offers_files_where_they_fit(cell: Cell, work: Path) -> None:
    (work / "notes one.md").write_text("x")
    assert completions("%paise2 enqueue fetch no")[0] == ["'notes one.md'"]
    assert completions("%paise2 search no")[0] == []


def test_other_lines_are_completed_as_before(cell: Cell) -> None:
    cell("some_name = 1")
    assert "some_name" in completions("%paise2 items\nsome_na")[0]
    cell("%unload_ext paise2nb")
    assert "status" not in completions("%paise2 st")[0]


@pytest.mark.parametrize("line", ["nope x", "job x y", "--set broken status --st", "'"])
def test_a_wrong_line_has_no_completions_and_no_error(
    cell: Cell, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    completions(f"%paise2 {line}")
    assert capsys.readouterr() == ("", "")


# The current app -----------------------------------------------------------------------------


def test_a_profile_opens_the_app_that_open_returns(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    app = cell("%paise2 profile test").result
    assert app.profile == "test"
    assert os.environ["PAISE2_PROFILE"] == "test"
    assert cell("import paise2nb; paise2nb.open()").result is app
    assert cell("%paise2 profile test").result is app
    assert cell("%paise2 profile").result is app
    assert "0 waiting, 0 workers" in capsys.readouterr().out
    assert cell("%paise2 profile development").result is not app


def test_an_unknown_profile_changes_nothing(cell: Cell) -> None:
    app = cell("%paise2 profile").result
    assert not cell("%paise2 profile nope").success
    assert os.environ["PAISE2_PROFILE"] == "development"
    assert cell("import paise2nb; paise2nb.open()").result is app


def test_the_options_of_a_line_apply_to_that_line_only(cell: Cell, tmp_path: Path) -> None:
    app = cell("%paise2 profile").result
    job = cell("%paise2 enqueue shout x --immediate").result
    assert (job.state, job.result()) == ("completed", "X")
    assert cell("%paise2 enqueue shout y").result.state == "queued"
    other = cell(f"%paise2 status --data-dir {tmp_path}/other").result
    assert (other.data_dir, other.jobs["queued"]) == (f"{tmp_path}/other", 0)
    assert cell("import paise2nb; paise2nb.open()").result is app


def test_settings_saved_from_a_cell_apply_at_once(cell: Cell, work: Path) -> None:
    cell("%paise2 profile")
    text = (work / "paise2.yaml").read_text() + "fetch: {timeout: 7}\n"
    assert cell(f"%%paise2 config\n{text}").success
    assert cell("import paise2nb; paise2nb.open().settings.fetch.timeout").result == 7
    assert not cell("%%paise2 config\nfetch: {timeuot: 7}\n").success
    assert (work / "paise2.yaml").read_text() == text


def test_settings_saved_from_a_cell_do_not_override_the_options_of_profile(
    cell: Cell, work: Path
) -> None:
    elsewhere = work / "elsewhere"
    cell(f"%paise2 profile development --data-dir {elsewhere} --set fetch.max_age=7")
    assert cell("%%paise2 config\nfetch: {timeout: 8, max_age: 9}").success
    app = paise2nb.open()
    assert (app.data_dir, app.settings.fetch.max_age) == (elsewhere, 7)
    assert app.settings.fetch.timeout == 8


def test_a_plugin_cell_must_not_use_names_of_the_notebook(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell("%paise2 profile development")
    app = paise2nb.open()
    cell("def clean(word): return word.strip()")
    body = (
        "from paise2nb import task\n@task('tidy')\ndef tidy(context, word):\n    return clean(word)"
    )
    capsys.readouterr()
    assert not cell(f"%%paise2 plugin tidy\n{body}").success
    assert "`clean` is defined in the notebook, not in this cell (line 5" in capsys.readouterr().out
    assert cell(f"%%paise2 plugin tidy\n{body.replace('clean(word)', 'word.strip()')}").success
    assert app.enqueue("tidy", " a ").state == "queued"
    capsys.readouterr()
    assert not cell("%paise2 enqueue clean a").success
    assert "write it in a cell below %%paise2 plugin clean, decorated" in capsys.readouterr().out


def test_the_extension_can_be_unloaded_and_loaded_again(cell: Cell) -> None:
    cell("%paise2 profile")
    cell("%unload_ext paise2nb")
    assert not cell("%paise2 status").success
    cell("%load_ext paise2nb")
    cell("%load_ext paise2nb")
    cell("%reload_ext paise2nb")
    assert cell("%paise2 status").success


def test_loading_imports_little_and_no_extractor(work: Path) -> None:
    program = (
        "import sys, ipykernel.kernelapp, ipykernel.zmqshell\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "before = set(sys.modules)\n"
        "shell.run_line_magic('load_ext', 'paise2nb')\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "shell.run_cell('%paise2 status')\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded, *_, used = done.stdout.splitlines()
    ours = [name for name in loaded.split() if not name.startswith(("paise2nb", "IPython"))]
    assert ours == []
    heavy = {"trafilatura", "xberg", "lxml", "urllib3", "pandas", "ipywidgets"}
    assert not heavy & set(used.split())


# Real kernels --------------------------------------------------------------------------------


class Kernel:
    """A real kernel, and the output of its cells."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell and return its outputs: the type and content of each message."""
        outputs: list[dict[str, Any]] = []

        def keep(message: dict[str, Any]) -> None:
            kind = message["header"]["msg_type"]
            if kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append({"type": kind, **message["content"]})
            else:
                assert kind in ("status", "execute_input") or kind.startswith("comm_"), kind

        self.client.execute_interactive(code, output_hook=keep, timeout=120)
        return outputs

    def text(self, code: str) -> str:
        """Run a cell and return its text, with carriage returns as a notebook shows them."""
        texts = []
        for output in self.run(code):
            texts += [output["text"]] if output["type"] == "stream" else []
            texts += output.get("traceback", [])
            texts += [output["data"]["text/plain"]] if "data" in output else []
        lines = "".join(texts).split("\n")
        return "\n".join(line.rpartition("\r")[2].rstrip() for line in lines)

    def restart(self) -> None:
        """Kill the kernel and start another."""
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)
        self.run("%load_ext paise2nb")


@pytest.fixture
def kernel(work: Path) -> Iterator[Kernel]:
    manager, client = start_new_kernel(cwd=str(work))
    kernel = Kernel(manager, client)
    kernel.run("%load_ext paise2nb")
    yield kernel
    kernel.run("%paise2 worker stop --timeout 0")
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_final_output_of_a_wait_in_a_kernel_is_always_the_same(kernel: Kernel) -> None:
    kernel.run("%paise2 worker start")
    kernel.run("%paise2 enqueue shout a b c d")
    assert kernel.text("done = %paise2 wait") == "waiting: done\n"
    assert kernel.text("done = %paise2 wait") == "waiting: done\n"
    assert kernel.text("done = %paise2 wait 1 2") == "jobs: 2 completed\n"
    assert kernel.text("done = %paise2 wait 1 2") == "jobs: 2 completed\n"


def test_a_wait_in_a_kernel_writes_its_bar_only_when_it_has_changed(kernel: Kernel) -> None:
    kernel.run("%paise2 enqueue shout a")
    outputs = kernel.run("%paise2 wait --timeout 1")
    told = "".join(o["text"] for o in outputs if o["type"] == "stream")
    assert told.count("0 of 1") == 1
    assert told.endswith("\r")  # removed


def test_an_error_in_a_kernel_is_one_line(kernel: Kernel) -> None:
    (output,) = kernel.run("%paise2 job 9")
    assert output["type"] == "error"
    assert output["traceback"] == ["error: no job 9; `%paise2 jobs` lists them"]


def test_an_interrupt_ends_the_wait_but_not_the_work(kernel: Kernel) -> None:
    kernel.run("%paise2 enqueue shout a")
    outputs: list[dict[str, Any]] = []

    def interrupt(message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream" and "0 of 1" in content["text"] and not outputs:
            kernel.manager.interrupt_kernel()
        if kind in ("stream", "error"):
            outputs.append(content)

    kernel.client.execute_interactive(
        "%paise2 wait --timeout 100", output_hook=interrupt, timeout=60
    )
    assert outputs[-1]["traceback"] == ["stopped waiting; the work goes on"]
    assert not any(re.search(r"\w", output["text"]) for output in outputs[1:-1])
    assert "queued" in kernel.text("%paise2 job 1")


def test_an_await_lets_other_coroutines_run_and_shows_progress(kernel: Kernel) -> None:
    kernel.run("import asyncio, paise2nb\napp = paise2nb.open()\nbeats = []")
    kernel.run(
        "async def beat():\n    while True:\n        beats.append(1)\n"
        "        await asyncio.sleep(0.001)\n"
        "task = asyncio.ensure_future(beat())"
    )
    kernel.run("job = %paise2 enqueue shout a\njobs = %paise2 enqueue shout b c")
    kernel.run("%paise2 worker start")
    assert kernel.text("done = await job") == "jobs: 1 completed\n"
    assert kernel.text("done = await jobs") == "jobs: 2 completed\n"
    assert kernel.text("done = jobs.wait()") == "jobs: 2 completed\n"
    assert kernel.text("done") == "2 new; jobs: 2 completed"
    assert kernel.text("[job.result() for job in done]") == "['B', 'C']"
    assert kernel.text("len(beats) > 3") == "True"


SHOWING = "on_progress=lambda done, total: print(done, 'of', total, flush=True)"


@pytest.mark.parametrize("code", ["done = await job", f"job.wait(100, {SHOWING})"])
def test_an_interrupted_wait_says_that_the_work_goes_on(
    kernel: Kernel, tmp_path: Path, code: str
) -> None:
    kernel.run(f"job = %paise2 enqueue hold {tmp_path / 'gate'}")
    kernel.run("%paise2 worker start --pool default")
    outputs: list[dict[str, Any]] = []
    interrupted = threading.Event()

    def interrupt(message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind in ("stream", "error"):
            outputs.append(content)
        # Once: a second one would hit what the kernel is asked next.
        if kind == "stream" and "0 of 1" in content["text"] and not interrupted.is_set():
            interrupted.set()
            kernel.manager.interrupt_kernel()

    kernel.client.execute_interactive(code, output_hook=interrupt, timeout=60)
    told = "".join(outputs[-1]["traceback"])
    assert "stopped waiting; the work goes on" in told
    assert kernel.text("job.state") in ("'queued'", "'running'")
    (tmp_path / "gate").touch()
    assert "'completed'" in kernel.text("job.wait(60).state")


def test_a_bulk_enqueue_shows_its_progress(kernel: Kernel) -> None:
    kernel.run("words = [f'w{n}' for n in range(3000)]")
    told = kernel.text("jobs = %paise2 enqueue shout {words}")
    assert told.splitlines()[0] == "enqueueing: done"
    assert kernel.text("len(jobs)") == "3000"


def test_fifty_displays_of_the_panel_share_one_panel_and_one_thread(kernel: Kernel) -> None:
    count = (
        "import threading\nfrom ipywidgets.widgets.widget import _instances\n"
        "(threading.active_count(), len(_instances))"
    )
    show = "panel = %paise2 watch\ndisplay(panel)"
    kernel.run(show)
    before = kernel.text(count)
    for _ in range(50):
        kernel.run(show)
    assert kernel.text(count) == before
    assert kernel.text("[t.name for t in threading.enumerate()].count('paise2 watch')") == "1"
    kernel.run("%unload_ext paise2nb")
    assert kernel.text("[t.name for t in threading.enumerate()].count('paise2 watch')") == "0"
    kernel.run("%load_ext paise2nb")


def test_a_restarted_kernel_finds_its_workers_and_reports_what_happened(kernel: Kernel) -> None:
    kernel.run("%paise2 worker start")
    kernel.run("%paise2 enqueue shout a")
    before = kernel.text("status = %paise2 worker status\nsorted(w['pid'] for w in status.workers)")
    kernel.restart()
    told = kernel.text("app = %paise2 profile development")
    assert told.startswith("since ")
    assert "0 failed, 0 waiting, 2 workers" in told
    after = kernel.text("sorted(w['pid'] for w in app.workers.status().workers)")
    assert after == before
    assert "'A'" in kernel.text("app.job(1).result()")


def test_a_profile_reports_workers_with_other_settings(kernel: Kernel, work: Path) -> None:
    kernel.run("%paise2 worker start")
    kernel.restart()
    with (work / "paise2.yaml").open("a") as file:
        file.write("fetch: {timeout: 7}\n")
    assert "to use these: %paise2 worker restart" in kernel.text("app = %paise2 profile")
    kernel.run("%paise2 worker restart")
    assert "restart" not in kernel.text("app = %paise2 profile")
