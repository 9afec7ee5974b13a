"""The magics, in IPython's own shell and in a real kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

import paise2nb
from tests.acceptance.support import SECONDS, Place, Site, page

Cell = Callable[[str], Any]
Captured = pytest.CaptureFixture[str]


# Lines and cells -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["%paise2 enqueue shout {}", "%%paise2 enqueue shout\n{}\n"])
@pytest.mark.parametrize(
    "url",
    [
        "https://x.example/a#b", "https://x.example/?q=$name", "https://x.example/{name}/{}",
        "https://x.example/a;b;", "https://x.example/what?", "https://x.example/what??",
        "https://x.example/(a", "https://x.example/%20%paise2", "https://x.example/it's",
        "https://x.example/*",
    ],
)  # fmt: skip
def test_a_url_arrives_intact(cell: Cell, form: str, url: str) -> None:
    cell("name = 'no'")
    found = cell(form.replace("{}", url, 1)).result
    jobs = found if isinstance(found, paise2nb.Jobs) else [found]
    assert [job.args for job in jobs] == [[url]]


@pytest.mark.parametrize(
    ("words", "args"),
    [
        ("$name b", ["value", "b"]),
        ("{name.upper()} b", ["VALUE", "b"]),
        ("{'x y'} $many", ["x y", "1", "2"]),
        ("{many[:1]} pre$name", ["1", "pre$name"]),
        ("{missing} $missing", ["{missing}", "$missing"]),
        ('"two words" three', ["two words", "three"]),
        ("a #b", ["a", "#b"]),
    ],
)
def test_variables_are_expanded_as_whole_words(cell: Cell, words: str, args: list[str]) -> None:
    cell("name, many = 'value', [1, 2]")
    jobs = cell(f"%paise2 enqueue shout {words}").result
    assert [job.args[0] for job in jobs] == args


def test_a_cell_gives_one_argument_a_line(cell: Cell) -> None:
    jobs = cell("%%paise2 enqueue shout --tag t\none two\n\n# a remark\nthree\n").result
    assert [(job.args, job.tag) for job in jobs] == [(["one two"], "t"), (["three"], "t")]


def test_a_line_returns_the_object_that_the_command_made(cell: Cell) -> None:
    job = cell("job = %paise2 enqueue shout hello\njob").result
    assert isinstance(job, paise2nb.Job)
    assert cell("s = %paise2 status\ns.jobs['queued']").result == 1
    assert cell("%paise2 status --json").result["jobs"]["queued"] == 1
    assert isinstance(cell("%paise2 jobs").result, paise2nb.Jobs)
    assert isinstance(cell("%paise2 items").result, paise2nb.Items)
    assert cell("%paise2 cancel $job").result[0].state == "cancelled"
    assert cell("%paise2 job {job}").result.state == "cancelled"


@pytest.mark.parametrize(
    "line", ["status", "jobs", "job 1", "items", "search x", "worker status", "plugins",
             "config show", "doctor"],
)  # fmt: skip
def test_every_result_has_a_text_and_an_html_form(cell: Cell, line: str) -> None:
    cell("%paise2 enqueue shout hello")
    formatter: Any = InteractiveShell.instance().display_formatter
    data, _ = formatter.format(cell(f"%paise2 {line}").result)
    assert data["text/plain"]
    assert "<" in data["text/html"]


def test_an_error_is_one_line_that_stops_the_cell_and_can_be_caught(
    cell: Cell, capsys: Captured
) -> None:
    result = cell("%paise2 staus\nprint('not reached')")
    assert isinstance(result.error_in_exec, paise2nb.UsageError)
    said = capsys.readouterr().out
    assert (said.count("\n"), "staus" in said, "status" in said) == (1, True, True)
    cell("from paise2nb import NotFound\ntry:\n    %paise2 job 9\nexcept NotFound:\n    seen = 1\n")
    assert cell("seen").result == 1
    capsys.readouterr()
    cell("%paise2 job 9")
    assert "%paise2 jobs" in capsys.readouterr().out  # as a cell takes it
    cell("%paise2 --debug job 9")
    assert "Traceback" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("%%paise2 status\nx\n", "status"),
        ("%%paise2\nx\n", "%%paise2 enqueue fetch"),
        ("%paise2 enqueue shout {1 / 0}", "division by zero"),
        ("%paise2 enqueue shout --from -", "%%paise2 enqueue shout"),
        ("%paise2 config edit", "%%paise2 config"),
        ("%paise2 reset", "--yes"),
        ("%%paise2 config\nfetch:\n  timeuot: 7\n", "fetch.timeout"),
        ("%paise2 profile prodution", "production"),
    ],
)
def test_what_a_notebook_can_not_do_is_said_in_one_line(
    cell: Cell, capsys: Captured, text: str, named: str
) -> None:
    assert not cell(text).success
    said = capsys.readouterr().out
    assert (said.count("\n"), named in said) == (1, True)


def test_a_replay_raises_in_the_frame_that_failed(cell: Cell) -> None:
    cell("%paise2 --immediate enqueue stumble ab")
    error = cell("%paise2 replay 1").error_in_exec
    assert isinstance(error, ValueError)
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    assert frames is not None
    assert frames.tb_frame.f_locals["word"] == "ab"


def test_help_is_printed(cell: Cell, capsys: Captured) -> None:
    assert cell("%paise2 jobs --help").result is None
    assert "%paise2 jobs" in capsys.readouterr().out
    cell("%paise2?")
    said = capsys.readouterr().out
    assert "replay" in said
    assert "--data-dir" in said


# Completion ------------------------------------------------------------------------------------


def offered(text: str) -> set[str]:
    """What is offered at the end of a text."""
    completer = InteractiveShell.instance().Completer
    with provisionalcompleter():
        return {one.text for one in completer.completions(text, len(text))}


@pytest.mark.parametrize("opening", ["%paise2 ", "x = %paise2 ", "%%paise2 "])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stat", {"status"}),
        ("worker s", {"start", "status", "stop"}),
        ("enqueue sh", {"shout"}),
        ("enqueue shout x --t", {"--tag"}),
        ("jobs --tag ", {"news"}),
        ("jobs --state f", {"failed"}),
        ("jobs --error ", {"ValueError"}),
        ("profile ", {"development", "production", "test"}),
        ("retry ", {"2"}),
        ("status --set workers.conc", {"workers.concurrency="}),
    ],
)
def test_what_can_stand_next_is_offered(
    cell: Cell, opening: str, line: str, words: set[str]
) -> None:
    cell("%paise2 --immediate enqueue shout a")
    cell("%paise2 --immediate enqueue stumble b")
    cell("%paise2 enqueue shout c --tag news")
    assert words <= offered(opening + line)


# The app of the kernel -------------------------------------------------------------------------


def test_a_profile_opens_the_app_that_open_returns(cell: Cell, place: Place) -> None:
    app = cell("%paise2 profile development").result
    assert cell("import paise2nb; paise2nb.open()").result is app
    assert cell("%paise2 profile").result is app
    test = cell("%paise2 profile test").result
    assert (test.profile, os.environ["PAISE2_PROFILE"]) == ("test", "test")
    assert cell("paise2nb.open()").result is test
    assert not cell("%paise2 profile nope").success
    assert cell("paise2nb.open()").result is test


def test_options_of_a_line_are_for_that_line(cell: Cell, place: Place) -> None:
    cell("%paise2 profile development")
    assert cell("%paise2 enqueue shout x --immediate").result.result() == "X"
    assert cell("%paise2 enqueue shout y").result.state == "queued"
    other = cell(f"%paise2 status --data-dir {place.root}/other").result
    assert (other.data_dir, other.jobs["queued"]) == (f"{place.root}/other", 0)


def test_settings_of_a_cell_are_saved_and_hold_at_once(cell: Cell, place: Place) -> None:
    cell("%paise2 profile development")
    text = place.settings.read_text()
    assert cell(f"%%paise2 config\n{text}history: {{keep_days: 7}}\n").success
    rows = {row["key"]: row["value"] for row in cell("%paise2 config show").result.to_dicts()}
    assert rows["history.keep_days"] == 7
    saved = place.settings.read_text()
    assert not cell("%%paise2 config\nfetch: {timeuot: 7}\n").success
    assert place.settings.read_text() == saved


def test_unloading_takes_the_magic_away_and_loading_brings_it_back(cell: Cell) -> None:
    cell("%unload_ext paise2nb")
    assert not cell("%paise2 status").success
    cell("%load_ext paise2nb")
    cell("%reload_ext paise2nb")
    assert cell("%paise2 status").success


# A real kernel ---------------------------------------------------------------------------------


class Kernel:
    """A kernel, and what its cells put out."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str, hook: Callable[[str], None] | None = None) -> list[tuple[str, str]]:
        """The outputs of a cell, each with its kind; ``hook`` is called with each text."""
        outputs: list[tuple[str, str]] = []

        def keep(message: dict[str, Any]) -> None:
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                outputs.append((kind, content["text"]))
            elif kind in ("execute_result", "display_data"):
                outputs.append((kind, content["data"]["text/plain"]))
            elif kind == "error":
                outputs.append((kind, "\n".join(content["traceback"])))
            if outputs and hook is not None:
                hook(outputs[-1][1])

        self.client.execute_interactive(code, output_hook=keep, timeout=SECONDS)
        return outputs

    def text(self, code: str) -> str:
        """What a cell says; an error in it fails the test."""
        outputs = self.run(code)
        assert not [text for kind, text in outputs if kind == "error"]
        return "".join(text for _, text in outputs)


@pytest.fixture
def kernel(place: Place) -> Iterator[Kernel]:
    manager, client = start_new_kernel(cwd=str(place.work))
    kernel = Kernel(manager, client)
    kernel.run("%load_ext paise2nb")
    yield kernel
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_kernel_does_the_main_job_stays_free_and_finds_its_workers_again(
    kernel: Kernel, site: Site
) -> None:
    urls = [site.add(f"/{n}", page(f"Page {n}", f"About number{n}.")) for n in range(20)]
    kernel.text("%paise2 profile development")
    kernel.text("%paise2 worker start")
    kernel.text("%%paise2 enqueue fetch --tag docs\n" + "\n".join(urls))
    assert kernel.text("6 * 7") == "42"
    pids = "status = %paise2 worker status\nsorted(worker['pid'] for worker in status.workers)"
    before = kernel.text(pids)
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    kernel.text("%load_ext paise2nb\napp = %paise2 profile development")
    assert kernel.text(pids) == before
    kernel.text("done = %paise2 wait")
    assert kernel.text("len(app.items(tag='docs'))") == "20"
    assert kernel.text("[hit['title'] for hit in app.search('number7')]") == "['Page 7']"
    again = "again = app.enqueue_many('fetch', [item.url for item in app.items()])\nagain.fresh"
    assert kernel.text(again) == "20"
    kernel.text("%paise2 worker stop")


def test_a_job_can_be_awaited_in_a_kernel_while_others_run(kernel: Kernel) -> None:
    kernel.text("import asyncio, paise2nb\napp = paise2nb.open()\nbeats = []")
    kernel.text(
        "async def beat():\n    while True:\n        beats.append(1)\n"
        "        await asyncio.sleep(0.001)\n"
        "task = asyncio.ensure_future(beat())"
    )
    kernel.text("job = %paise2 enqueue shout a\njobs = %paise2 enqueue shout b c")
    kernel.text("%paise2 worker start")
    kernel.text("await job\ndone = await jobs")
    assert kernel.text("[job.result()] + [one.result() for one in done]") == "['A', 'B', 'C']"
    assert kernel.text("len(beats) > 3") == "True"


def test_an_interrupt_ends_the_waiting_in_a_kernel_and_not_the_work(kernel: Kernel) -> None:
    kernel.text("job = %paise2 enqueue shout a")
    interrupted: list[str] = []

    def interrupt(said: str) -> None:
        if not interrupted:  # once, when the wait shows that it waits
            interrupted.append(said)
            kernel.manager.interrupt_kernel()

    outputs = kernel.run("%paise2 wait --timeout 600", interrupt)
    assert "error" in {kind for kind, _ in outputs}
    assert not any("Traceback" in text for _, text in outputs)
    assert kernel.text("job.state") == "'queued'"
