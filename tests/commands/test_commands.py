"""The command table: a line returns an object; a mistake is an error of one line."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from paise2nb import __main__ as shell
from paise2nb import doctor
from paise2nb.collection.export import export
from paise2nb.collection.sql import SQL
from paise2nb.commands import Session, main, table
from paise2nb.commands.arguments import argument_lines, expand
from paise2nb.commands.cli import ALIASES, Command, CommandGroup
from paise2nb.core import disks, render
from paise2nb.core.errors import (
    NotFound,
    PaiseError,
    PluginError,
    Timeout,
    UsageError,
    WorkersError,
)
from paise2nb.core.text import time_span
from tests import example_plugin
from tests.mounts import paise2_on

PLUGIN = example_plugin.SOURCE

Run = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two pages and without the user's settings."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PAISE2_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PAISE2_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("PAISE2_PROFILE", raising=False)
    for name in ("knots", "ferries"):
        text = f"# On {name}\n\nAll that is known about {name}.\n"
        (work / f"{name}.md").write_text(text)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return work


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    opened: list[Session] = []
    yield opened
    for session in opened:
        session.close()


@pytest.fixture
def run(here: Path, sessions: list[Session]) -> Run:
    """Run one line. Jobs run in this process unless ``queued`` is set."""
    plugin = json.dumps([str(here.parent / "plugin.py")])

    def run(*words: str, queued: bool = False, cell: str | None = None) -> Any:
        session = Session()
        sessions.append(session)
        session.cell = cell
        options = ["--set", f"plugins={plugin}", *([] if queued else ["--immediate"])]
        return main([*options, *words], session)

    return run


# Enqueue and search --------------------------------------------------------------------------


def test_one_literal_argument_returns_a_job(run: Run) -> None:
    job = run("enqueue", "shout", "hello")
    assert (job.state, job.result()) == ("completed", "HELLO")
    assert str(job).startswith(f"job {job.id}: shout hello · completed")


@pytest.mark.parametrize("word", ["what?", "https://x.example/*", "a[b]", "knots.md"])
def test_a_word_that_matches_no_file_is_literal(run: Run, word: str) -> None:
    assert run("enqueue", "shout", word, queued=True).state == "queued"


def test_a_glob_returns_jobs_even_for_one_match(run: Run, here: Path) -> None:
    jobs = run("enqueue", "fetch", "kn*.md")
    assert [job.args for job in jobs] == [[str(here / "knots.md")]]
    assert str(jobs) == "1 new"


def test_stored_pages_can_be_searched(run: Run, here: Path) -> None:
    run("enqueue", "fetch", "*.md", "--tag", "water")
    assert [hit["title"] for hit in run("search", "ferries")] == ["On ferries"]
    assert len(run("items", "--tag", "water")) == 2
    assert len(run("items", "--tag", "land")) == 0
    assert "All that is known" in str(run("item", "1"))


def test_a_command_that_changes_nothing_says_why(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("enqueue", "shout", "hello")
    assert len(run("cancel", "1")) == 0
    assert len(run("retry", "--state", "completed")) == 0
    said = capsys.readouterr().err
    assert said == "nothing to cancel: 1 completed\nnothing to retry: 1 completed\n"


def test_enqueueing_again_adds_nothing(run: Run) -> None:
    assert str(run("enqueue", "fetch", "*.md")) == "2 new"
    assert str(run("enqueue", "fetch", "*.md")) == "2 up to date"
    assert str(run("enqueue", "fetch", "*.md", "--force")) == "2 new"


def test_a_task_without_arguments_needs_none(run: Run) -> None:
    assert run("enqueue", "cleanup").state == "completed"


def test_without_workers_the_jobs_wait_and_a_message_says_so(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = run("enqueue", "shout", "a", "b", queued=True)
    assert [job.state for job in jobs] == ["queued", "queued"]
    assert capsys.readouterr().err.endswith("no worker runs; start some: paise2 worker start\n")
    assert str(run("enqueue", "shout", "a", "b", "c", queued=True)) == "1 new, 2 waiting"


def test_the_json_of_an_enqueue_names_every_argument(run: Run) -> None:
    data = run("--json", "enqueue", "shout", "a", "a", "b", queued=True).to_dict()
    assert [entry["args"] for entry in data["jobs"]] == [["a"], ["a"], ["b"]]
    assert set(data["jobs"][0]) == {"id", "task", "args", "state"}
    assert (data["new"], data["waiting"], data["fresh"]) == (2, 1, 0)
    single = run("--json", "enqueue", "shout", "c", queued=True).to_dict()
    assert [entry["args"] for entry in single["jobs"]] == [["c"]]


def test_shared_options_work_before_and_after_the_command(run: Run) -> None:
    before = run("--profile", "production", "config", "show").to_dict()
    after = run("config", "show", "--profile", "production").to_dict()
    assert before == after
    assert {row["key"]: row["value"] for row in after}["profile"] == "production"


# Arguments -----------------------------------------------------------------------------------


def test_blank_lines_and_comments_in_a_file_are_skipped(run: Run, here: Path) -> None:
    (here / "list.txt").write_text("\ufeffone\n\n# not this\n  two #2  \n#three\n#\n", "utf-8")
    jobs = run("enqueue", "shout", "--from", "list.txt")
    assert [job.args for job in jobs] == [["one"], ["two #2"], ["#three"]]


def test_a_list_may_be_the_bookmarks_that_a_browser_exports(run: Run, here: Path) -> None:
    (here / "bookmarks.html").write_text(
        "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n<TITLE>Bookmarks</TITLE>\n<DL><p>\n"
        '<DT><A HREF="https://a.example/?x=1&amp;y=2" ADD_DATE="1" TAGS="t">A</A>\n'
        '<DT><H3>Folder</H3><DL><p><DT><a add_date="2" href="http://b.example/#c">B</a></DL>\n'
        '<DT><A HREF="place:sort=8">Recent</A><DT><A HREF="javascript:alert(1)">J</A></DL>\n'
    )
    jobs = run("enqueue", "fetch", "--from", "bookmarks.html", "--delay", "9")
    assert [job.args for job in jobs] == [["https://a.example/?x=1&y=2"], ["http://b.example/#c"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_only_a_line_feed_ends_a_line_of_a_list(
    run: Run, here: Path, encoding: str, ending: str
) -> None:
    lines = ["one\u2028line", "two\fparts", "three\x85x", "four\x1cfs", "caf\u00e9"]
    (here / "list.txt").write_bytes(ending.join(lines).encode(encoding))
    jobs = run("enqueue", "shout", "--from", "list.txt")
    assert [job.args for job in jobs] == [[line] for line in lines]
    assert str(run("enqueue", "shout", cell=ending.join(lines), queued=True)) == "5 new"


@pytest.mark.parametrize(
    "data",
    ["one\ncaf\u00e9\n".encode("latin-1"), "one\ntwo\n".encode("utf-16-be"), b"a\nb\0c\n"],
    ids=["Latin-1", "UTF-16 without a mark", "binary"],
)
def test_a_list_that_is_no_text_names_the_file_and_the_line(
    run: Run, here: Path, data: bytes
) -> None:
    (here / "list.txt").write_bytes(data)
    number = 1 if data[0] == 0 else 2
    with pytest.raises(UsageError, match=f"can't read list.txt: line {number} is not UTF-8"):
        run("enqueue", "shout", "--from", "list.txt")


@pytest.mark.parametrize(
    "text",
    [
        "name;url\r\nA;knots.md\r\n",
        "name\turl\nA, B; C\tknots.md\n",
        'sep=;\r\n"a,b,c";url\r\n"x;\r\ny";knots.md\r\n',
        '"name" , "url"\n"a;b;c",knots.md\n',
    ],
    ids=["semicolons", "tabs", "Excel", "commas"],
)
def test_the_delimiter_of_a_csv_file_is_found(run: Run, here: Path, text: str) -> None:
    (here / "urls.csv").write_bytes(text.encode())
    with pytest.raises(UsageError, match="choose one with --column url"):
        run("enqueue", "fetch", "--from", "urls.csv")
    (job,) = run("enqueue", "fetch", "--from", "urls.csv", "--column", "url")
    assert Path(job.args[0]).name == "knots.md"


def test_a_column_of_a_csv_file_gives_the_arguments(run: Run, here: Path) -> None:
    (here / "urls.csv").write_text('id,url\n1,knots.md\n2,"ferries.md"\n3,\n')
    jobs = run("enqueue", "fetch", "--from", "urls.csv", "--column", "url")
    assert [Path(job.args[0]).name for job in jobs] == ["knots.md", "ferries.md"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("id,url\n1,knots.md\n", [], "urls.csv has columns id, url: choose one with --column url"),
        ("url\nknots.md\n", [], "urls.csv has columns url: choose one with --column url"),
        (
            "no,the page\n1,x\n",
            [],
            "urls.csv has columns no, the page: choose one with --column no",
        ),
        ("id,url\n1,a\n", ["--column", "ulr"], "no column 'ulr'; did you mean --column url?"),
        ("ID,URL\n1,a\n", ["--column", "url"], "no column 'url'; did you mean --column URL?"),
        ("id,url\n1,a\n", ["--column", "xyz"], "no column 'xyz'; it has id, url"),
        ("knots.md\nnope.md\n", [], "nope.md"),
    ],
)
def test_a_csv_file_needs_its_column_and_nothing_is_added(
    run: Run, here: Path, text: str, options: list[str], message: str
) -> None:
    (here / "urls.csv").write_text(text)
    with pytest.raises(UsageError) as refused:
        run("enqueue", "fetch", "--from", "urls.csv", *options)
    assert message in str(refused.value)
    assert len(run("jobs")) == 0


def test_a_csv_file_of_paths_needs_no_column(run: Run, here: Path) -> None:
    (here / "plain.csv").write_text("knots.md\nferries.md\n")
    assert str(run("enqueue", "fetch", "--from", "plain.csv")) == "2 new"


def test_a_cell_gives_one_argument_per_line(run: Run) -> None:
    jobs = run("enqueue", "shout", cell="one two\n\n# comment\nhttps://x.example/#a;?\n")
    assert [job.args for job in jobs] == [["one two"], ["https://x.example/#a;?"]]


@pytest.mark.parametrize(
    "url",
    ["https://x.example/*?[a]", "https://x.example/~me", "mailto:a@x.example", "file:///tmp/*"],
)
def test_urls_are_never_expanded(here: Path, url: str) -> None:
    assert expand([url], task="fetch") == [url]


def test_names_of_files_become_absolute_paths(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    both = [str(here / "ferries.md"), str(here / "knots.md")]
    assert expand(["*.md"], task="fetch") == both
    assert expand(["~/knots.md", "./ferries.md"], task="fetch") == [both[1], both[0]]
    assert expand(["../work/knots.md"], task="fetch") == [both[1]]
    (here / "odd[1].md").write_text("x")
    assert expand(["odd[1].md"], task="fetch") == [str(here / "odd[1].md")]


def test_a_word_that_names_no_file_stays_a_word(here: Path) -> None:
    assert expand(["hello", "what?", "x" * 5000], task="shout") == ["hello", "what?", "x" * 5000]


def test_only_a_hash_and_a_space_begin_a_comment() -> None:
    assert argument_lines("# a\n#b\nc # d\n#\n\n") == ["#b", "c # d"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1w", 604800)],
)
def test_time_spans_have_units(text: str, seconds: float) -> None:
    assert time_span(text) == seconds


# Jobs ----------------------------------------------------------------------------------------


def test_filters_select_the_same_jobs_in_every_command(run: Run) -> None:
    run("enqueue", "stumble", "a", "b", "--tag", "t")
    run("enqueue", "shout", "c", "--tag", "t")
    failed = run("jobs", "--state", "failed", "--tag", "t")
    assert [job.args for job in failed] == [["a"], ["b"]]
    error = failed[0].error_class
    assert len(run("jobs", "--error", error, "--limit", "1")) == 1
    assert run("wait", "--task", "stumble").ids == failed.ids
    assert run("retry", "--error", error, queued=True).ids == failed.ids
    assert run("cancel", "--task", "stumble", queued=True).ids == failed.ids


def test_a_job_is_shown_with_its_traceback(run: Run, sessions: list[Session]) -> None:
    job = run("enqueue", "stumble", "over this")
    shown = run("job", str(job.id))
    text = sessions[-1].text(shown)
    assert "ValueError: over this" in text
    assert "Traceback" in text
    assert shown.to_dict()["attempts"][0]["outcome"] == "failed"


def test_a_replay_raises_what_the_task_raises_and_changes_nothing(run: Run) -> None:
    job = run("enqueue", "stumble", "again")
    before = job.to_dict()
    with pytest.raises(ValueError, match="again"):
        run("replay", str(job.id))
    assert job.to_dict() == before
    assert run("replay", str(run("enqueue", "shout", "x").id)).value == "X"


def test_a_wait_without_workers_ends_at_once(run: Run) -> None:
    run("enqueue", "shout", "x", queued=True)
    with pytest.raises(WorkersError, match="paise2 worker start"):
        run("wait", queued=True)
    with pytest.raises(Timeout):
        run("wait", "--timeout", "0.1", queued=True)


def test_a_wait_for_nothing_returns_the_status(run: Run) -> None:
    run("enqueue", "stumble", "x")
    status = run("wait")
    assert (status.jobs["failed"], status.to_dict()["workers"]) == (1, [])
    assert "retry" in str(status)


# Mistakes ------------------------------------------------------------------------------------

MISTAKES = [
    (["staus"], "unknown command 'staus'; did you mean 'status'?"),
    (["frobnicate"], "unknown command 'frobnicate'; known: "),
    (["worker", "strat"], "did you mean 'start'?"),
    (["jobs", "--limt", "3"], "unknown option --limt; did you mean --limit?"),
    (["jobs", "--limit", "many"], "'many' is not a valid integer"),
    (["job"], "missing argument 'ID'; `paise2 job --help` lists what it takes"),
    (["job", "one"], "'one' is not a valid integer"),
    (["jobs", "--state", "broken"], "unknown state 'broken'"),
    (["jobs", "--task", "shuot"], "did you mean 'shout'?"),
    (["enqueue", "shuot", "x"], "did you mean 'shout'?"),
    (["enqueue", "shout"], "takes (word)"),
    (["enqueue", "links"], "task 'links' takes (url), not ()"),
    (["enqueue", "links", "http://h/", "--pattern", ""], "a pattern is empty"),
    (["enqueue", "fetch", "http://h/", "--any-host"], "task 'fetch' takes no --any-host"),
    (["enqueue", "feed", "example.org/feed"], "did you mean https://example.org/feed ?"),
    (["enqueue", "sitemap", "ftp://example.org"], "ftp scheme where http or https was expected"),
    (
        ["worker", "join", "http://user:pw@h/"],
        "'http://h/' is not a redis://, rediss:// or unix://",
    ),
    (["worker", "join", "redis://h/", "--name", ""], "--name is empty"),
    (["enqueue", "shout", "x", "--every", "5y"], "'5y' is not a time span"),
    (["enqueue", "shout", "--column", "url"], "add --from FILE"),
    (["enqueue", "shout", "--from", "nowhere.txt"], "can't read nowhere.txt: No such file"),
    (["enqueue", "fetch", "*.nope"], "no file matches '*.nope'"),
    (["enqueue", "fetch", "exmaple"], "'exmaple' is neither a URL"),
    (["enqueue", "fetch", "knots.md", "http://"], "http://"),
    (["status", "--profile", "prodution"], "did you mean production?"),
    (["status", "--set", "workers.concurency=2"], "did you mean workers.concurrency?"),
    (["status", "--set", "workers.concurrency=none"], "allowed: auto or a whole number"),
    (["status", "--set", "workers"], "--set takes KEY=VALUE"),
    (["retry"], "give ids or a filter"),
    (["cancel"], "give ids or a filter"),
    (["export", "all.docx"], "can't export to .docx; use .jsonl"),
    (["status", "extra"], "extra"),
    (["reset"], "add --yes"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_done(
    run: Run, words: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        run(*words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_status == 2
    assert len(run("jobs")) == 0


@pytest.mark.parametrize("words", [["job", "7"], ["item", "7"], ["retry", "7"], ["replay", "7"]])
def test_a_missing_job_or_item_is_named(run: Run, words: list[str]) -> None:
    with pytest.raises(NotFound, match="7"):
        run(*words)


@pytest.mark.parametrize("query", ['"', "'", '"odd', "a AND", "(", "*", "NEAR(", "a:b", "-", ""])
def test_no_query_is_an_error(run: Run, query: str) -> None:
    assert len(run("search", query)) == 0


def test_a_quoted_word_among_others_is_a_phrase(run: Run) -> None:
    run("enqueue", "fetch", "*.md")
    assert len(run("search", "known", "about knots")) == 1
    assert len(run("search", "known", "knots about")) == 0
    assert len(run("search", "known", "about kno*")) == 1
    assert len(run("search", "known", "kno* about")) == 0


def test_a_tag_of_two_words_selects_beside_others(run: Run) -> None:
    run("enqueue", "fetch", "knots.md", "--tag", "two words")
    run("enqueue", "fetch", "ferries.md", "--tag", "two")
    for words in (["known", "tag:two words"], ["tag:two words", "knots"], ['tag:"two words"']):
        assert [hit.title for hit in run("search", *words)] == ["On knots"]


# Export --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv", "all.parquet"])
def test_an_export_has_every_item_with_its_text(run: Run, here: Path, name: str) -> None:
    run("enqueue", "fetch", "*.md")
    done = run("export", name)
    assert (done.items, done.path) == (2, Path(name))
    rows = read(here / name)
    assert sorted(row["title"] for row in rows) == ["On ferries", "On knots"]
    assert all("All that is known" in row["text"] for row in rows)
    for row in rows:  # where it comes from
        assert row["final_url"] == row["url"]
        assert len(row["sha256"]) == 64
        assert row["visited_at"] == row["fetched_at"] <= row["stored_at"]
        assert int(row["words"]) == len(row["text"].split())
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_a_folder_is_filled_with_markdown(run: Run, here: Path) -> None:
    run("enqueue", "fetch", "knots.md", "--tag", "rope")
    run("export", "pages")
    (page,) = (here / "pages").iterdir()
    assert page.name == "00001-on-knots.md"
    head, body = page.read_text("utf-8").split("---\n")[1:]
    assert 'title: "On knots"\n' in head
    assert 'tag: "rope"\n' in head
    assert f'final_url: "{(here / "knots.md").as_uri()}"\n' in head
    assert "All that is known about knots." in body


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv", "pages"])
def test_an_export_overwrites_only_with_force(run: Run, here: Path, name: str) -> None:
    run("enqueue", "fetch", "knots.md")
    run("export", name)
    with pytest.raises(PaiseError, match=f"{name} exists; add --force") as refused:
        run("export", name)
    assert refused.value.exit_status == 1
    run("enqueue", "fetch", "ferries.md")
    assert run("export", name, "--force").items == 2


def test_an_export_takes_the_items_of_filtered_jobs(run: Run, here: Path) -> None:
    run("enqueue", "fetch", "knots.md", "--tag", "rope")
    run("enqueue", "fetch", "ferries.md", "--tag", "boat")
    assert run("export", "a.jsonl", "--tag", "rope").items == 1
    assert run("export", "b.jsonl", "--task", "fetch").items == 2
    for name in ("none.jsonl", "none.csv", "none.parquet"):
        assert run("export", name, "--state", "failed").items == 0
        assert read(here / name) == []


def test_an_interrupted_export_leaves_the_old_file(
    run: Run, here: Path, sessions: list[Session]
) -> None:
    run("enqueue", "fetch", "*.md")
    (here / "all.jsonl").write_text("old")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    app = sessions[-1].app
    with pytest.raises(KeyboardInterrupt):
        export(app.store.list(), app.store, here / "all.jsonl", force=True, on_progress=interrupt)
    assert (here / "all.jsonl").read_text() == "old"
    assert sorted(path.name for path in here.iterdir()) == ["all.jsonl", "ferries.md", "knots.md"]


# Profile, settings, reset --------------------------------------------------------------------


def test_a_shell_gets_the_line_that_sets_the_profile(run: Run) -> None:
    assert str(run("profile", "production")) == "export PAISE2_PROFILE=production"
    shown = run("profile").to_dict()
    assert (shown["profile"], shown["origin"]) == ("development", "the default")


def test_config_says_which_layer_set_a_value(run: Run, here: Path) -> None:
    (here / "paise2.yaml").write_text("workers:\n  concurrency: 2\n")
    rows = {row["key"]: row for row in run("config", "show").to_dict()}
    assert rows["workers.concurrency"]["value"] == 2
    assert rows["workers.concurrency"]["origin"] == f"{here / 'paise2.yaml'}:2"
    assert [row["exists"] for row in run("config", "path").to_dict()] == [False, True]
    assert str(here / "paise2.yaml") in str(run("config", "validate"))


def test_a_wrong_value_in_a_file_names_its_line(run: Run, here: Path) -> None:
    (here / "paise2.yaml").write_text("workers:\n  concurrency: many\n")
    with pytest.raises(UsageError, match=r"paise2\.yaml:2: workers\.concurrency is 'many'"):
        run("config", "validate")


def test_what_only_plugins_know_is_validated_too(run: Run) -> None:
    with pytest.raises(UsageError, match=r"--set: task_queue\.provider is 'nonsense', which"):
        run("config", "validate", "--set", "task_queue.provider=nonsense")
    with pytest.raises(PluginError, match=r"nowhere\.py' can't be loaded"):
        run("config", "validate", "--set", "plugins=[nowhere.py]")


def test_a_mistake_in_a_line_stops_no_other_workers(run: Run) -> None:
    with pytest.raises(UsageError, match="unknown key data_dirr"):
        run("worker", "stop", "--set", "data_dirr=/elsewhere")


MISTAKES = {
    "job numbers": (["search", "x", "--limit", str(2**70)], "give a smaller number"),
    "item numbers": (["item", str(2**70)], "give a smaller number"),
    "times": (["stats", "--since", "900000d"], "since is '900000d'; give a time span"),
    "a missing path": (["enqueue", "folder", "--recursive"], "missing a required argument"),
    "pages": (["health", "--max-failed", "-1"], "-1 is not in the range"),
    "a home": (["backup", "~nobody-of-that-name/a"], "there is no such home directory"),
    "another home": (["restore", "~nobody-of-that-name/a"], "there is no such home directory"),
    "a file": (["metrics", "--write", "~nobody-of-that-name/a"], "there is no such home"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_value_that_makes_no_sense_is_a_usage_error(run: Run, what: str) -> None:
    words, message = MISTAKES[what]
    with pytest.raises(UsageError, match=message):
        run(*words)


def test_a_valid_cell_becomes_the_settings_file(run: Run, here: Path) -> None:
    run("config", cell="workers:\n  concurrency: 3\n")
    assert (here / "paise2.yaml").read_text() == "workers:\n  concurrency: 3\n"
    with pytest.raises(UsageError, match=r"the cell:2: unknown key workers\.concurency"):
        run("config", cell="workers:\n  concurency: 3\n")
    assert (here / "paise2.yaml").read_text() == "workers:\n  concurrency: 3\n"


def test_config_edit_opens_the_editor_and_checks(
    run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "workers: {concurrency: 9}" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert str(tmp_path / "config" / "paise2.yaml") in str(run("config", "edit"))
    assert "concurrency: 9" in (tmp_path / "config" / "paise2.yaml").read_text()


def test_reset_keeps_the_items_unless_hard(run: Run) -> None:
    run("enqueue", "fetch", "*.md")
    counts = run("reset", "--yes").to_dict()
    assert (counts["jobs"], counts["items"], len(run("items"))) == (6, 0, 2)
    assert run("reset", "--hard", "--yes").items == 2
    assert len(run("items")) == 0


def test_plugins_are_listed_with_their_origin(run: Run, here: Path) -> None:
    rows = {(row["kind"], row["name"]): row for row in run("plugins").to_dict()}
    assert rows["task", "shout"]["origin"] == str(here.parent / "plugin.py")
    assert ("fetcher", "http, https") in rows


def test_a_command_refuses_a_cell_that_it_does_not_read(run: Run) -> None:
    with pytest.raises(UsageError, match="status reads no cell"):
        run("status", cell="x\n")
    with pytest.raises(UsageError, match="name one, such as %%paise2 enqueue fetch"):
        run(cell="https://x.example/\n")


# Doctor --------------------------------------------------------------------------------------


def states(report: doctor.Report) -> dict[str, str]:
    return {finding.check: finding.state for finding in report.findings}


def test_doctor_finds_nothing_wrong_with_a_good_installation(run: Run) -> None:
    run("enqueue", "fetch", "knots.md")
    report = run("doctor")
    assert report.exit_status == 0
    assert {"jobs", "items", "workers", "plugins", "disk"} <= set(states(report))


def test_doctor_finds_a_damaged_and_a_newer_database(
    run: Run, tmp_path: Path, sessions: list[Session]
) -> None:
    run("enqueue", "fetch", "knots.md")
    sessions[-1].close()
    with closing(sqlite3.connect(tmp_path / "data" / "tasks.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    (tmp_path / "data" / "items.db").write_bytes(b"no database" * 1000)
    report = run("doctor")
    assert report.exit_status == 1
    assert (states(report)["jobs"], states(report)["items"]) == ("wrong", "wrong")
    assert "format 99" in str(report)


def test_doctor_advises_on_settings_plugins_and_permissions(
    run: Run, here: Path, tmp_path: Path
) -> None:
    run("status")
    (tmp_path / "data").chmod(0o755)
    report = run("doctor")
    assert states(report)["data directory"] == "warning"
    assert f"chmod 700 {tmp_path / 'data'}" in str(report)
    (tmp_path / "plugin.py").write_text("1 / 0")
    assert states(run("doctor", "--set", f"plugins=[{tmp_path}/broken.py]"))["plugins"] == "wrong"
    (here / "paise2.yaml").write_text("wrokers: {}")
    assert states(run("doctor"))["settings"] == "wrong"


def test_the_filesystem_of_a_path_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    assert disks.filesystem(Path("/proc/sys/kernel")) == "proc"
    assert disks.filesystem(Path("/")) not in ("", "proc")
    mounts, directory = tmp_path / "mounts", tmp_path / "a b"
    point = str(directory).replace(" ", "\\040")
    mounts.write_text(
        f"sda / ext4 rw 0 0\nsdb {point} xfs rw 0 0\nserver:/x {point} nfs4 rw 0 0\n"
        f"tmpfs {tmp_path} tmpfs rw 0 0\n"
    )
    assert disks.filesystem(directory / "x", mounts) == "nfs4"
    assert disks.filesystem(tmp_path / "x", mounts) == "tmpfs"
    assert disks.filesystem(Path("/usr"), mounts) == "ext4"


def test_doctor_finds_a_data_directory_on_a_network_filesystem(tmp_path: Path) -> None:
    checked = paise2_on("cifs", tmp_path, "doctor", "--data-dir", str(tmp_path / "data"))
    assert checked.returncode == 1
    assert "choose another with --data-dir or PAISE2_DATA_DIR" in checked.stdout


def dates(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key in JSON that names a date, with its value."""
    for key, below in value.items() if isinstance(value, dict) else ():
        if key == "date" or key.endswith("_at"):
            yield key, below
        if key != "args":  # the arguments of a task are its own
            yield from dates(below)
    for below in value if isinstance(value, list) else ():
        yield from dates(below)


def test_every_date_in_json_is_iso_8601_in_utc(run: Run, here: Path) -> None:
    run("enqueue", "fetch", "knots.md")
    run("enqueue", "stumble", "x")
    run("enqueue", "shout", "later", "--delay", "1h", queued=True)
    run("enqueue", "shout", "daily", "--every", "1d")
    found = {}
    for line in ("status", "jobs", "jobs --all", "job 1", "job 2", "items", "item 1",
                 "item 1 --versions", "worker status"):  # fmt: skip
        shown = dict(dates(json.loads(json.dumps(run(*line.split()).to_dict()))))
        found |= {key: value for key, value in shown.items() if value is not None}
        for key, value in shown.items():
            if value is not None:
                assert isinstance(value, str), (line, key, value)
                moment = datetime.fromisoformat(value)
                assert key == "date" or moment.utcoffset() == timedelta(0), (line, key, value)
    assert {"enqueued_at", "finished_at", "run_at", "fetched_at", "visited_at"} <= found.keys()


# The table itself ----------------------------------------------------------------------------


def commands() -> list[Command]:
    found = []
    for command in table.commands.values():
        inner = command.commands.values() if isinstance(command, CommandGroup) else [command]
        found += [one for one in inner if isinstance(one, Command)]
    return found


def test_every_command_and_option_has_a_short_help() -> None:
    assert len(commands()) >= 25
    for command in commands():
        assert command.help, command.name
        assert len(command.get_short_help_str(1000)) <= 65, command.name
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, parameter.name  # type: ignore[attr-defined]
    assert set(ALIASES.values()) <= set(table.commands)


def test_the_marks_of_hits_are_those_of_the_store() -> None:
    statements = "".join(SQL.values())
    assert render.HIT_START in statements
    assert render.HIT_END in statements


def test_a_long_listing_is_complete_and_its_view_is_cut(run: Run) -> None:
    run("enqueue", "shout", *map(str, range(25)), queued=True)
    jobs = run("jobs", queued=True)
    assert len(jobs.to_dicts()) == len(jobs) == 25
    assert str(jobs).endswith("… 5 more")
    assert jobs._repr_html_().count("<tr>") == 21
    assert str(jobs[20:]).count("shout") == 5


def test_json_has_no_character_that_acts_on_a_terminal() -> None:
    hostile = "\x1b[31m \x9b1m \u202e \x7f \ud800 \U000e0041 é 日"
    text = shell.as_json({"title": hostile})
    assert json.loads(text) == {"title": hostile}
    assert not render.UNSAFE.search(text)
    assert "é 日" in text


def test_an_unusable_data_directory_is_an_error_of_one_line(run: Run, here: Path) -> None:
    place = here / "knots.md" / "data"
    with pytest.raises(PaiseError) as raised:
        run("status", "--data-dir", str(place))
    assert str(raised.value).startswith(f"can't create {place}")
    assert "--data-dir" in str(raised.value)
