"""What the extraction of a page keeps."""

from __future__ import annotations

import json

import pytest

from paise2nb.content.extract import pages
from paise2nb.content.extract.visible import visible_text
from paise2nb.plugins import Document, Source
from tests.pages import DISCUSSIONS, PARTS, STORY, article, discussion, said


def read(html: str, url: str = "https://example.org/a") -> Document:
    return pages.read(html.encode(), Source(url, "text/html", "utf-8"))


def flat(html: str) -> str:
    return " ".join(read(html).text.split())


def missing(html: str, texts: list[str]) -> list[str]:
    text = flat(html)
    return [each for each in texts if each not in text]


# Prose ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 9, 60])
@pytest.mark.parametrize("name", DISCUSSIONS)
def test_a_discussion_has_all_of_its_posts(name: str, number: int) -> None:
    html, texts = discussion(name, number)
    assert missing(html, texts) == []
    assert "Powered by boards" not in flat(html)


@pytest.mark.parametrize("name", PARTS)
def test_an_article_has_what_is_in_it_besides_paragraphs(name: str) -> None:
    part, texts = PARTS[name]
    html = article(part + f"<p>{said(1)}</p>")
    assert missing(html, [*texts, said(1), *STORY.replace("<p>", "").split("</p>")]) == []


def test_short_text_in_markup_that_articles_seldom_have_is_kept() -> None:
    html = article("<center>See below</center><p>The office opens again at the pier of the harbour "
                   "for all crates and barrels on <time>5 March</time>.</p>")  # fmt: skip
    assert missing(html, ["See below", "on 5 March"]) == []


def test_a_chinese_word_that_is_cut_in_the_source_of_a_page_is_one_word() -> None:
    for end in ("\n  ", "\r\n"):
        assert "写在北京的账簿" in read(article(f"<p>写在北{end}京的账簿</p>")).text
    assert "a\nb" in read(article("<pre>a\nb</pre>")).text


@pytest.mark.parametrize("number", [1, 20])
def test_words_with_their_pronunciation_are_in_one_line(number: int) -> None:
    word = "<ruby><rb>吾輩</rb><rp>(</rp><rt>わがはい</rt><rp>)</rp></ruby>は猫である。"
    text = read(article(f"<p>{word * number}</p>")).text
    assert "吾輩(わがはい)は猫である。" * number in text
    assert visible_text(word).text == "吾輩(わがはい)は猫である。"


def test_the_questions_of_a_short_page_are_kept_with_the_answers() -> None:
    parts = [f"<h2>Question {n}?</h2><div><p>Answer {n}, short.</p></div>" for n in range(12)]
    html = f"<title>Questions</title><nav><a href=/>Home</a></nav>{''.join(parts)}"
    assert missing(html, [f"Question {n}? Answer {n}, short." for n in range(12)]) == []
    assert "Home" not in flat(html)


COMMENTS = "".join(
    f"<li class='comment depth-1' id='comment-{n}'><article class='comment-body'><footer class="
    f"'comment-meta'><b class='fn'>u{n}</b></footer><div class='comment-content'><p>{said(n, 90)}"
    "</p></div></article></li>"
    for n in range(30)
)


def test_an_article_does_not_have_its_comments() -> None:
    html = article(
        after=f"<div id='comments' class='comments-area'><ol>{COMMENTS}</ol></div>",
        head="<meta property='og:type' content='article'>",
    )
    assert said(105, 60) in flat(html)
    assert missing(html, [said(n, 90) for n in range(30)]) == [said(n, 90) for n in range(30)]


@pytest.mark.parametrize(
    "boilerplate",
    [
        "<aside><p>{}</p></aside>",
        "<div class='related-posts'><p>{}</p></div>",
        "<div class='newsletter-signup'><p>{}</p></div>",
        "<div id='cookieBanner'><p>{}</p></div>",
        "<form><p>{}</p><input type='email'></form>",
        "<div style='display: none'><p>{}</p></div>",
        "<ul class='share-buttons'><li>{}</li></ul>",
    ],
)
def test_an_article_does_not_have_boilerplate(boilerplate: str) -> None:
    assert said(1) not in flat(article(boilerplate.format(said(1))))
    assert said(1) not in flat(article(after=boilerplate.format(said(1))))


def test_what_was_lost_is_put_where_it_was() -> None:
    lost = f"<div>{said(1)}<p>{said(2)}</p>{said(3)}</div>"
    text = flat(article(lost + f"<p>{said(4)}</p>"))
    places = [text.index(said(n, 60)) for n in range(100, 106)]
    places += [text.index(said(n)) for n in (1, 2, 3, 4)]
    assert places == sorted(places)


def test_no_text_is_there_twice() -> None:
    for part, texts in PARTS.values():
        text = flat(article(part))
        assert [each for each in texts if text.count(each) > 1 and len(each) > 20] == []


@pytest.mark.parametrize("depth", [300, 3000])
def test_a_deeply_nested_page_keeps_its_words(depth: int) -> None:
    nested = "<div>" * depth + said(1) + "</div>" * depth
    html = f"<html lang='en'><body>{nested}<p>{said(2)}</p></body>"
    assert missing(html, [said(1), said(2)]) == []


def test_a_page_of_several_columns_is_kept() -> None:
    blocks = [
        f"<div class='c{n}'><h2>Part {n}</h2><div>{said(n, 60)}</div></div>" for n in range(8)
    ]
    main = f"<main><p>{said(9, 60)}</p></main>"
    html = f"<html><body>{blocks[0]}{main}{''.join(blocks[1:])}</body></html>"
    assert missing(html, [said(n, 60) for n in range(10) if n != 8]) == []


def test_a_list_of_entries_has_all_of_them() -> None:
    entries = "".join(
        f"<article class='post'><h2><a href='/{n}'>Entry{n} of it</a></h2><p>{said(n, 30 + n)}</p>"
        "</article>"
        for n in range(8)
    )
    html = f"<html><body><main>{entries}</main></body></html>"
    assert missing(html, [said(n, 30 + n) for n in range(8)]) == []
    assert missing(html, [f"Entry{n} of it" for n in range(8)]) == []


# Data ----------------------------------------------------------------------------------------

TEXTS = [said(n, 40) for n in range(5)]
MARKUP = "".join(f"<p>{text}</p>" for text in TEXTS)
RICH = [{"type": "paragraph", "children": [{"text": text}]} for text in TEXTS]
PARAGRAPHS = [["$", "p", None, {"children": text}] for text in TEXTS]
STREAM = "\n".join(f"{n}:{json.dumps(each)}" for n, each in enumerate(PARAGRAPHS))
QUESTIONS = [{"@type": "Question", "acceptedAnswer": {"text": text}} for text in TEXTS]
DISCOURSE = json.dumps({"topic_1": json.dumps({"cooked": MARKUP})})
NEXT = "id=__NEXT_DATA__ type=application/json"
LINKED = "type=application/ld+json"


def script(content: str, attributes: str = "") -> str:
    return f"<script {attributes}>{content}</script>"


def pushed(text: str) -> str:
    starts = range(0, len(text), 300)
    pieces = (json.dumps([1, text[start : start + 300]]) for start in starts)
    return "".join(script(f"self.__next_f.push({piece})") for piece in pieces)


@pytest.mark.parametrize(
    "data",
    [
        script(json.dumps({"props": {"article": {"body": MARKUP}}}), NEXT),
        script(json.dumps({"props": {"blocks": RICH}}), NEXT),
        script(f"window.__INITIAL_STATE__ = {json.dumps({'post': {'content': MARKUP}})};"),
        script(f"window.__STATE__ = JSON.parse({json.dumps(json.dumps({'text': MARKUP}))})"),
        script(f"window.__NUXT__=(function(a){{return {{body:{json.dumps(MARKUP)}}}}}(0));"),
        pushed(STREAM),
        script(json.dumps({"@type": "NewsArticle", "articleBody": "\n".join(TEXTS)}), LINKED),
        script(json.dumps({"@graph": [{"@type": "FAQPage", "mainEntity": QUESTIONS}]}), LINKED),
        f"<div id='data-preloaded' data-preloaded='{DISCOURSE}'></div>",
        f"<noscript><div>{MARKUP}</div></noscript>",
    ],
)
def test_the_text_in_the_data_of_a_page_is_found(data: str) -> None:
    html = f"<html><head><title>T</title></head><body><i>Loading…</i>{data}</body></html>"
    assert missing(html, TEXTS) == []
    assert "children" not in flat(html)


def test_half_of_a_character_in_the_data_of_a_page_does_not_cut_off_the_text() -> None:
    data = script(rf'[{{"body": "<p>{TEXTS[0]} \ud83d {TEXTS[1]}"}}]')
    assert missing(f"<p>Loading…</p>{data}", TEXTS[:2]) == []


def test_the_data_of_a_page_adds_nothing_to_its_text() -> None:
    data = {"props": {"related": [{"text": text} for text in TEXTS]}}
    html = article(after=script(json.dumps(data), "type=application/json"))
    assert missing(html, TEXTS) == TEXTS


def test_the_paragraphs_of_an_article_are_those_of_the_page() -> None:
    body = " ".join(said(n, 60) for n in range(100, 106))
    data = script(json.dumps({"@type": "NewsArticle", "articleBody": body}), LINKED)
    assert read(article(head=data)) == read(article())


def test_an_article_that_is_cut_off_is_taken_from_the_data() -> None:
    body = " ".join([said(100, 60), *TEXTS])
    data = script(json.dumps({"@type": "NewsArticle", "articleBody": body}), LINKED)
    html = f"<html><head>{data}</head><body><article><p>{said(100, 60)}</p></article></body></html>"
    assert missing(html, [said(100, 60), *TEXTS]) == []
    assert flat(html).count(said(100, 60)) == 1


# Dates and language --------------------------------------------------------------------------


def dated(published: str, more: str = "", lang: str = "en") -> str | None:
    metas = f"<meta property='article:published_time' content='{published}'>{more}"
    return read(article(head=metas).replace("lang='en'", f"lang='{lang}'")).date


@pytest.mark.parametrize(
    ("published", "more", "lang", "date"),
    [
        ("Tue, 07/11/2023 - 17:57", "", "en", "2023-11-07"),
        ("Tue, 07/11/2023 - 17:57", "", "en-US", "2023-07-11"),
        ("07/25/2023", "", "en", "2023-07-25"),
        (
            "Tue, 07/11/2023 - 17:57",
            "<meta property='article:modified_time' content='Fri, 07/14/2023 - 10:30'>",
            "de",
            "2023-07-11",
        ),
        (
            "07/11/2023",
            "<meta property='article:modified_time' content='14/11/2023'>",
            "en-US",
            "2023-11-07",
        ),
        (
            "07/11/2023",
            "<meta property='article:modified_time' content='2023-07-12T10:30:00Z'>",
            "de",
            "2023-07-11",
        ),
        ("2023-07-11T17:57:00Z", "", "en", "2023-07-11"),
    ],
)
def test_an_ambiguous_date_is_read_as_the_other_dates_of_the_page(
    published: str, more: str, lang: str, date: str
) -> None:
    assert dated(published, more, lang) == date


def test_a_date_stays_in_the_text_as_it_is_written() -> None:
    html = article("<p class='updated'>Harbour office, 05/06/2021, for crates and barrels.</p>")
    assert "Harbour office, 05/06/2021, for" in flat(html)


ENTRY = "<a href='/{0}'>Fog</a> <time datetime='2025-09-{0}'>{0} September 2025</time>"


@pytest.mark.parametrize(
    "others",
    [
        f"<aside><p>{ENTRY.format(10)}</p></aside>",
        f"<ul><li>{ENTRY.format(10)}</li><li>{ENTRY.format(11)}</li></ul>",
        "".join(
            f"<div class='card'><h3>{ENTRY.format(n)}</h3><p>{said(n)}</p></div>" for n in (10, 11)
        ),
        "<footer>Harbour, 2025-09-10</footer>",
        "<div><a href='/10'><time datetime='2025-09-10'>a</time></a></div>"
        "<div><a href='/11'><time datetime='2025-09-11'>b</time></a></div>",
    ],
)
def test_no_date_is_taken_from_links_to_other_pages(others: str) -> None:
    assert read(article(after=others)).date is None
    own = "<p class='byline'>By <a href='/u'>U</a>, <time datetime='2024-03-04'>4 March</time></p>"
    assert read(article(own, after=others)).date == "2024-03-04"
    assert "Fog" not in others or said(105, 60) in flat(article(after=others))


def test_a_discussion_has_the_date_of_its_first_post() -> None:
    html, _ = discussion("Discourse", 5)
    assert read(html).date == "2024-03-01"


@pytest.mark.parametrize(
    ("html", "language"),
    [
        ("<html lang='pl'><body>x", "pl"),
        ("<html xml:lang='pt-BR'><body>x", "pt-BR"),
        ("<html><meta http-equiv='Content-Language' content='nl, en'><body>x", "nl"),
        ("<html><head><meta property='og:locale' content='nl_NL'></head><body>x", "nl-NL"),
        ("<html><head><meta name='DC.language' content='cs'></head><body>x", "cs"),
        ("<html><body lang='fi'>x", "fi"),
        ("<html lang=''><head><meta property='og:locale' content='nl_NL'></head><body>x", "nl-NL"),
        ("<!--[if IE 9]><html lang='en'><![endif]--><html lang='pl'><body>x", "pl"),
        ("<html><head><meta name='language' content='English'></head><body>x", None),
    ],
)
def test_the_language_is_the_declared_one(html: str, language: str | None) -> None:
    assert read(html).language == language
