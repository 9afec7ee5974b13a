"""Untrusted text is harmless when shown: no tag, script or control character survives."""

from __future__ import annotations

import re

import pytest

from paise2nb.core import render
from paise2nb.core.render import HIT_END, HIT_START, Column

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "</td></tr></table><h1>free</h1>",
    "&lt;b&gt; &amp; &#60;b&#62;",
    "<!-- comment --><b>",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07after",
    "\x1b]8;;http://evil.example/\x1b\\text\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b]0;never closed",
    "\x9b31mred",
    "\x1bPq#0;2;0;0;0\x1b\\",
    "\x1bc reset",
    "back\x08\x08space and\rreturn",
    "bell\x07 null\x00 delete\x7f",
    "user\u202egnp.exe",
    "\u2066isolated\u2069",
    "\ufeffbom \u200e\u200f\u061c",
    "line\u2028separator\u2029",
    "lone \ud800 surrogate",
    "tag \U000e0041 characters",
    f"{HIT_START}<b>{HIT_START}{HIT_END}</b>{HIT_END}",
    f"{HIT_END}{HIT_END}<i>{HIT_START}",
]


def live_tags(markup: str) -> list[str]:
    """The tags in HTML, except those of our own tables."""
    markup = markup.removeprefix(render.style())
    ours = r"</?(?:div|table|thead|tbody|tr|th|td|span|mark)(?: class=\"[a-z0-9 ]+\")?>"
    ours = ours.replace(")?>", ')?(?: title="[^"<>]*")?(?: tabindex="0")?>')
    ours += (
        r'|<a href="https?://[^"<>]*" title="[^"<>]*" target="_blank" rel="noopener noreferrer">'
    )
    ours += "|</a>"
    return re.findall(r"<[^>]*>?", re.sub(ours, "", markup))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless_in_html(text: str) -> None:
    rows = [{"url": text, "title": text, "snippet": text, "state": text}]
    columns = [
        render.url("url"),
        Column("title", wide=True),
        Column("snippet", html=render.snippet_html),
        Column("state", html=render.tone),
    ]
    markup = render.html_table(rows, columns) + render.note(text) + render.link(text, text)
    assert live_tags(markup) == []
    assert not render.UNSAFE.search(markup)
    assert "href" not in render.link(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless_in_a_terminal(text: str) -> None:
    rows = [{"title": text}]
    for shown in (
        render.plain(text),
        render.one_line(text),
        render.snippet_text(text),
        render.text_table(rows, ["title"]),
    ):
        assert not render.UNSAFE.search(shown)
        assert "\x1b" not in shown
        shown.encode()


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        ("https://example.org/a?b=1&c=<2>", True),
        ("http://example.org/", True),
        ("file:///srv/a.html", True),
        ("ftp://example.org/", False),
        ("/srv/a.html", False),
        ("http://[broken", False),
        (" javascript:alert(1)", False),
    ],
)
def test_only_urls_that_run_no_script_become_links(url: str, is_link: bool) -> None:
    assert render.link(url).startswith("<a href=") is is_link


def test_a_url_is_escaped_in_its_link() -> None:
    assert 'href="https://example.org/?a=1&amp;b=&quot;"' in render.link(
        'https://example.org/?a=1&b="'
    )


def test_hits_are_marked_in_text_and_html() -> None:
    snippet = f"a {HIT_START}red{HIT_END}  fox\n<b>"
    assert render.snippet_html(snippet) == "a <mark>red</mark> fox &lt;b&gt;"
    assert render.snippet_text(snippet) == "a «red» fox <b>"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"), (0.25, "250 ms"), (0.9999, "1 s"), (3.21, "3.2 s"), (59.99, "1 min"),
        (245, "4 min 5 s"), (3600, "1 h"), (7260, "2 h 1 min"), (86400 * 2 + 3 * 3600, "2 d 3 h"),
    ],
)  # fmt: skip
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (20_971_520, "21 MB"), (5e13, "50 TB")],
)
def test_sizes_have_decimal_units(count: float, text: str) -> None:
    assert render.size(count) == text


def test_a_table_of_the_first_rows_tells_how_many_rows_are_left() -> None:
    rows = [{"id": n} for n in range(20)]
    text = render.text_table(rows, [Column("id", right=True)], 50_000)
    assert len(text.splitlines()) == 1 + 20 + 1
    assert text.endswith("… 49,980 more")
    markup = render.html_table(rows, ["id"], 50_000)
    assert markup.count("<tr>") == 21
    assert "… 49,980 more" in markup
    assert "more" not in render.text_table(rows, ["id"], 20)


def test_a_column_without_any_text_is_left_out() -> None:
    rows = [{"id": n, "error": None, "note": ""} for n in range(2)]
    assert render.text_table(rows, ["id", "error", "note"]) == "id\n0\n1"
    assert "error" not in render.html_table(rows, ["id", "error"])


def test_a_long_url_is_cut_in_its_middle_and_whole_in_the_link() -> None:
    long = "https://example.org/" + "archive/" * 12 + "tides.html"
    text = render.text_table([{"id": 1, "url": long}], ["id", render.url("url")], width=50)
    assert text.splitlines()[1].startswith("1   example.org/…/archive/")
    assert text.endswith("/tides.html")
    markup = render.html_table([{"url": long}], [render.url("url")])
    assert f'href="{long}" title="{long}"' in markup
    assert "/<wbr>tides.html</a>" in markup
    assert len(re.sub("<[^>]*>", "", markup)) < 70
    assert long in render.text_table([{"url": long}], [render.url("url")], width=200)


def test_what_is_cut_in_html_is_whole_under_the_pointer() -> None:
    error = "the host does not answer " * 4
    markup = render.html_table([{"error": error}], [Column("error", wide=True)])
    assert f'<td class="wide" title="{error.strip()}">' in markup


def test_a_narrow_terminal_cuts_only_the_wide_column() -> None:
    rows = [{"id": 123456, "state": "completed", "url": "https://example.org/" + "a" * 200}]
    columns = [Column("id", right=True), "state", render.url("url")]
    line = render.text_table(rows, columns, width=50).splitlines()[1]
    assert line.startswith("123456  completed  example.org/…aaa")
    assert len(line) <= 50


def test_wide_characters_stay_aligned() -> None:
    rows = [{"a": "日本語", "b": "x"}, {"a": "abc", "b": "y"}]
    first, second = render.text_table(rows, ["a", "b"]).splitlines()[1:]
    assert first == "日本語  x"
    assert second == "abc     y"


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 10, "─" * 10 + " 0 of 10"),
        (5, 10, "━" * 5 + "─" * 5 + " 5 of 10"),
        (12, 10, "━" * 10 + " 12 of 10"),
        (7, None, "─" * 10 + " 7"),
    ],
)
def test_a_progress_bar_shows_its_counts(done: float, total: float | None, text: str) -> None:
    assert render.progress_bar(done, total, width=10) == text
