"""MIME types, character sets, pages and documents: what is extracted from which bytes."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading

import pytest
import trafilatura
from trafilatura.xpaths import AUTHOR_XPATHS

from paise2nb.content.extract import documents as through_library
from paise2nb.content.extract import pages, text
from paise2nb.content.extract.page_metadata import BYLINES
from paise2nb.content.extract.types import OPC, SUFFIXES, media_type
from paise2nb.core.errors import PermanentError
from paise2nb.core.text import count_words
from paise2nb.plugins import Document, Source
from tests import documents

HTML = b"<!DOCTYPE html><title>x</title>"
PDF = documents.pdf("words")
DOCX = documents.docx("words")
ZIP = documents.packed({"a.txt": "words"})
MBOX = b"From ada@example.org Tue Mar  5 08:00:00 2024\nSubject: a\n\nwords\n"
ODT = "application/vnd.oasis.opendocument.text"
OCTETS = "application/octet-stream"
WORD, SLIDES, SHEET = (SUFFIXES[suffix] for suffix in (".docx", ".pptx", ".xlsx"))
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)

RSS = b"<?xml version='1.0'?>\n<!-- x --><rss version='2.0'><channel/></rss>"
RDF = b"<rdf:RDF xmlns:rdf='r' xmlns='http://purl.org/rss/1.0/'/>"
ATOM = b"<feed xmlns='http://www.w3.org/2005/Atom'/>"
JSON_FEED = b'{ "version": "https://jsonfeed.org/version/1.1", "items": [] }'
SITEMAP = b"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'/>"


def packed(*names: str) -> bytes:
    return documents.packed(dict.fromkeys(names, "words"))


# Kinds ---------------------------------------------------------------------------------------

KINDS = [
    # declared, bytes, suffix → MIME type
    ("text/html", HTML, "", "text/html"),
    ("TEXT/HTML", b"<p>fragment", ".php", "text/html"),
    ("text/html", PDF, "", "application/pdf"),
    ("text/plain", PDF, ".txt", "application/pdf"),
    ("application/pdf", PDF, "", "application/pdf"),
    ("application/pdf", b"\n" * 100 + PDF, "", "application/pdf"),
    ("application/pdf", b"X-Sent: no\r\n\r\n" + PDF, "", "application/pdf"),
    (None, b"\0" * 128 + PDF, ".pdf", "application/pdf"),
    ("text/html", b"<p>Each file begins with %PDF-1.7.", "", "text/html"),
    ("application/pdf", HTML, ".pdf", "text/html"),
    ("application/x-pdf", b"no such thing", ".pdf", "text/plain"),
    (OCTETS, PDF, "", "application/pdf"),
    (None, PDF, ".html", "application/pdf"),
    (OCTETS, DOCX, "", WORD),
    ("application/zip", DOCX, "", WORD),
    (WORD, DOCX, "", WORD),
    (WORD, HTML, ".docx", "text/html"),
    (None, documents.xlsx("x"), "", SHEET),
    (None, documents.pptx("x"), "", SLIDES),
    (None, documents.odt("x"), "", "application/vnd.oasis.opendocument.text"),
    (None, documents.epub("x"), ".zip", "application/epub+zip"),
    ("application/zip", ZIP, "", "application/zip"),
    (None, ZIP, ".zip", "application/zip"),
    (None, ZIP[:-10], ".docx", WORD),
    (None, documents.rtf("x"), "", "application/rtf"),
    ("text/rtf", documents.rtf("x"), "", "application/rtf"),
    (None, OLE + "Workbook".encode("utf-16-le"), "", "application/vnd.ms-excel"),
    (None, OLE + "WordDocument".encode("utf-16-le"), "", "application/msword"),
    (None, OLE + "__properties_version1.0".encode("utf-16-le"), "", "application/vnd.ms-outlook"),
    (None, OLE, ".ppt", "application/vnd.ms-powerpoint"),
    (None, OLE, "", "application/x-ole-storage"),
    (None, b"words", "", "text/plain"),
    (None, "Grüße".encode("latin-1"), "", "text/plain"),
    (None, "Grüße".encode("utf-16"), "", "text/plain"),
    (None, b"", "", "text/plain"),
    (None, HTML, "", "text/html"),
    (None, b"\xef\xbb\xbf <!-- x -->\n<html>", "", "text/html"),
    (None, b'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml">', "", "text/html"),
    (None, b'<?xml version="1.0"?><feed>', "", "application/xml"),
    (None, b"<p>fragment", ".html", "text/html"),
    (None, b"# Title", ".md", "text/markdown"),
    ("text/plain", b"# Title", ".md", "text/markdown"),
    ("text/plain; charset=utf-8".partition(";")[0], b"a,b", ".csv", "text/csv"),
    ("text/plain", HTML, ".html", "text/plain"),
    ("text/plain", b"words", ".pdf", "text/plain"),
    ("text/plain", b"ID3 is a header, %PDF-1.7 another", "", "text/plain"),
    ("text/plain", bytes(range(256)), ".xyz", OCTETS),
    ("text/html", b"<p>%PDF-1.7 begins a PDF", "", "text/html"),
    ("text/x-markdown", b"# Title", "", "text/markdown"),
    ("application/json", b"{}", ".json", "application/json"),
    ("application/geo+json", b"{}", "", "application/json"),
    ("", b"{}", ".geojson", "application/json"),
    ("", b"<opml/>", ".opml", "text/x-opml"),
    ("application/json", b"{}", ".ipynb", "application/x-ipynb+json"),
    (None, b"{}", ".ipynb", "application/x-ipynb+json"),
    (None, documents.mail("x"), ".eml", "message/rfc822"),
    (None, bytes(range(256)), "", OCTETS),
    (OCTETS, bytes(range(256)), ".txt", OCTETS),
    (None, b"\x89PNG\r\n\x1a\n\0\0", ".txt", "image/png"),
    (None, gzip.compress(b"words", mtime=0), "", "application/gzip"),
    ("image/png", b"whatever", "", "image/png"),
    ("application/x-mine", PDF, "", "application/pdf"),
    ("application/x-octetstream", DOCX, "", WORD),
    ("application/save-as", HTML, ".html", "text/html"),
    ("application/vnd.ms-word.document.macroEnabled.12", DOCX, ".docm", WORD),
    ("application/vnd.ms-excel.sheet.macroEnabled.12", documents.xlsx("x"), "", SHEET),
    ("application/x-latex", b"\\section{A}", ".tex", "text/plain"),
    ("application/x-mine", bytes(range(256)), "", "application/x-mine"),
    ("application/java-archive", ZIP, ".jar", "application/java-archive"),
    ("application/my-download", ZIP, ".zip", "application/zip"),
    ("application/zip", packed("[Content_Types].xml", "visio/document.xml"), ".vsdx", OPC),
    (OCTETS, packed("Index/Document.iwa", "preview.jpg"), ".zip", "application/vnd.apple.iwork"),
    (OCTETS, packed("META-INF/container.xml", "a.html"), ".zip", "application/epub+zip"),
    (
        None,
        documents.packed({"mimetype": "application/vnd.adobe.indesign-idml-package\n"}),
        ".idml",
        "application/vnd.adobe.indesign-idml-package",
    ),
    (
        None,
        documents.packed({"mimetype": "text/plain, it says", "a.txt": "words"}),
        ".zip",
        "application/zip",
    ),
    (None, documents.packed({"META-INF/manifest.xml": f'<m:media-type="{ODT}"/>'}), "", ODT),
    ("text/plain", MBOX, ".txt", "application/mbox"),
    (OCTETS, b"From \r\nX-Mozilla-Status: 0001\r\n", "", "application/mbox"),
    ("text/plain", b"From here on it is 10:30\nand so on", "", "text/plain"),
    (None, b"Received: from a by b\nSubject: c\n\nd", "", "message/rfc822"),
    ("text/plain", b"From: <Saved by Blink>\n", ".mht", "multipart/related"),
    ("image/png", PDF, "", "image/png"),
    ("application/xml", RSS, "", "application/rss+xml"),
    ("text/html", b"\xef\xbb\xbf\n" + RSS, "", "application/rss+xml"),
    (None, b"<!DOCTYPE rss PUBLIC 'x'>" + RSS, ".xml", "application/rss+xml"),
    ("application/rdf+xml", RDF, "", "application/rss+xml"),
    ("application/rdf+xml", b"<?xml version='1.0'?><rdf:RDF>", "", "application/xml"),
    ("application/atom+xml", ATOM, "", "application/atom+xml"),
    ("application/atom+xml", HTML, "", "text/html"),
    ("application/json", JSON_FEED, ".json", "application/feed+json"),
    ("text/xml", SITEMAP, "", "application/x-sitemap+xml"),
]


@pytest.mark.parametrize(("declared", "data", "suffix", "kind"), KINDS)
def test_the_type_of_bytes_is_found(
    declared: str | None, data: bytes, suffix: str, kind: str
) -> None:
    assert media_type(declared, data, suffix) == kind


def test_hostile_bytes_cause_no_backtracking() -> None:
    for data in (b"<!---->" * 600, b"<?xml " * 700, b"<!-- " * 800, b" " * 4096):
        assert media_type(None, data) in ("text/plain", "application/xml")
    assert text.first_heading("# a" + "#" * 2_000_000 + "x") == "a"


# Text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markdown", "title"),
    [
        ("# Title #\n\ntext", "Title"),
        ("text\n\n## Later\n", "Later"),
        ("Title\n=====\ntext", "Title"),
        ("Title\n---\ntext", "Title"),
        ("---\ntitle: x\n---\n# Title", "Title"),
        ("```\n# not this\n```\n# Title", "Title"),
        ("#hashtag only", None),
        ("a\n\n---\n\nb", None),
        ("", None),
    ],
)
def test_the_first_heading_of_markdown_is_its_title(markdown: str, title: str | None) -> None:
    document = text.read(markdown.encode(), Source("u", "text/markdown"))
    assert (document.text, document.title) == (markdown, title)


@pytest.mark.parametrize("kind", ["text/plain", "text/csv", "application/json"])
def test_text_is_not_changed(kind: str) -> None:
    data = '# a,"b"\n{"c": [1]}\n'
    assert text.read(data.encode(), Source("u", kind)) == Document(data)


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize(
    ("written", "words"),
    [
        (r"caf\u00e9 \u0447\u0435\u0440\u043d", "café черн"),
        (r"\ud83d\ude00 smile\nnext\tone", "😀 smile\nnext\tone"),
        (r"C:\\users \"quoted\" a\/b", 'C:\\users "quoted" a/b'),
        (r"\\u00e9 is no escape", r"\u00e9 is no escape"),
        (r"\u00 \x is no JSON", r"\u00 \x is no JSON"),
    ],
)
def test_escapes_in_json_hide_no_words(kind: str, written: str, words: str) -> None:
    document = text.read(f'{{"a": "{written}"}}\n'.encode(), Source("u", kind))
    assert document.text == f'{{"a": "{words}"}}\n'


# Pages ---------------------------------------------------------------------------------------

ARTICLE = """<!doctype html><html lang="de-AT"><head><title>The title – The site</title>
<meta name="author" content="Ada Lovelace"><meta property="og:site_name" content="The site">
<meta property="article:published_time" content="2024-03-04T10:00:00Z">
<meta name="description" content="In short."></head><body>
<nav><a href="/">Home of navigation</a></nav><article><h1>The title</h1>
<p>The first paragraph has <b>enough</b> words to be taken for the body of a page, clearly.</p>
<p>The second paragraph says other things, at some length, so that there is no doubt.</p>
</article><footer>Furniture below</footer></body></html>"""


def page(html: str | bytes, charset: str | None = None) -> Document:
    data = html if isinstance(html, bytes) else html.encode()
    return pages.read(data, Source("https://example.org/a", "text/html", charset))


def test_a_page_has_its_main_text_and_its_metadata() -> None:
    found = page(ARTICLE)
    assert "The first paragraph has enough words" in found.text
    assert "navigation" not in found.text
    assert "Furniture" not in found.text
    assert (found.title, found.author, found.date, found.language) == (
        "The title", "Ada Lovelace", "2024-03-04", "de-AT",
    )  # fmt: skip
    assert found.metadata == {"site": "The site", "description": "In short."}


@pytest.mark.parametrize(
    ("byline", "author"),
    [
        ('<p class="byline">By Ada Lovelace</p>', "Ada Lovelace"),
        ('<a rel="author" href="/x">Ada Lovelace</a>', "Ada Lovelace"),
        ('<span id="zuozhe">Ada Lovelace</span>', "Ada Lovelace"),
        ('<i data-component="TheByline">Ada Lovelace</i>', "Ada Lovelace"),
        ("<author>Ada Lovelace</author>", "Ada Lovelace"),
        ('<link rel="author" href="/about">', None),
        ('<p class="author"> </p>', None),
        ('<div class="sidebar"><p class="author">Ada Lovelace</p></div>', None),
        ("<p>The author of this text is Ada Lovelace.</p>", None),
    ],
)
def test_the_author_is_the_one_that_trafilatura_finds(byline: str, author: str | None) -> None:
    html = re.sub('<meta name="author"[^>]*>', "", ARTICLE).replace("</h1>", f"</h1>{byline}")
    assert page(html).author == author
    assert trafilatura.extract_metadata(html).author == author


def test_every_name_by_which_trafilatura_finds_authors_is_known() -> None:
    literals = re.findall("'([^']+)'", " ".join(path.path for path in AUTHOR_XPATHS))
    names = re.sub(r"\[(\w)\w\]", r"\1", "|".join(literals)).split("|")  # [Aa]uthor → Author
    assert {"byline", "xiaobian", "Byline"} <= set(names)
    # Its `rel='me'` looks for an element named rel, which HTML does not have.
    known = [name for name in names if any(part in name.lower() for part in BYLINES)]
    assert set(names) - set(known) == {"me"}


@pytest.mark.parametrize(
    "metadata",
    ["null", "3", "[[[]]]", '{"@type": {}}', "{", "[" * 5000, '{"@context": [], "@graph": 1}'],
)
def test_odd_json_metadata_changes_nothing_else(metadata: str) -> None:
    odd = f'<script type="application/ld+json">{metadata}</script></head>'
    assert page(ARTICLE.replace("</head>", odd)) == page(ARTICLE)


def test_a_memory_error_in_the_metadata_fails_the_extraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out(tree: object) -> None:
        raise MemoryError

    monkeypatch.setattr("trafilatura.metadata.extract_title", run_out)
    with pytest.raises(MemoryError):
        page(ARTICLE)


def test_a_date_in_the_text_is_only_found_with_precision() -> None:
    html = b"<html><head><title>T</title></head><body><p>Last updated on March 4, 2024.</p></body>"
    assert page(html).date is None
    assert pages.read(html, Source("u", "text/html"), precise=True).date == "2024-03-04"


def test_precision_leaves_out_doubtful_text() -> None:
    doubtful = '<p class="related-links">Read more about other things, all of them elsewhere.</p>'
    html = ARTICLE.replace("</article>", f"{doubtful}</article>").encode()
    source = Source("https://example.org/a", "text/html")
    precise = pages.read(html, source, precise=True)
    assert "The first paragraph has enough words" in precise.text
    assert len(precise.text) <= len(pages.read(html, source).text)


def test_a_page_in_another_character_set_is_read() -> None:
    html = ARTICLE.replace("clearly", "natürlich größer")
    assert "natürlich größer" in page(html.encode("latin-1", "replace"), "iso-8859-1").text


@pytest.mark.parametrize(
    ("html", "words", "title"),
    [
        ("<p>just a fragment</p>", "just a fragment", None),
        ("no markup at all", "no markup at all", None),
        ("<html><head><title>T</title></head><body><div>short</div></body></html>", "short", "T"),
        ('<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head>'
         "<title>X</title></head><body><p>xhtml</p></body></html>", "xhtml", "X"),
        ("<body><ul><li><a href=/a>one</a></li><li><a href=/b>two</a></li></ul>", "one", None),
        ("<table><tr><td>cell</table>", "cell", None),
        ("<html><body><p>unclosed <b>tags <i>everywhere", "unclosed tags everywhere", None),
    ],
)  # fmt: skip
def test_odd_markup_keeps_its_words(html: str, words: str, title: str | None) -> None:
    found = page(html)
    assert words in " ".join(found.text.split())
    assert found.title == title


def test_a_list_of_links_keeps_its_links() -> None:
    links = "".join(f"<li><a href='/{n}'>Chapter number {n} of it</a></li>" for n in range(500))
    found = page(f"<html><body><h1>All</h1><p>Each chapter.</p><ul>{links}</ul></body></html>")
    assert "Chapter number 77 of it" in found.text


@pytest.mark.parametrize("html", ["", " ", "<html></html>", "<script>x = 1</script>", "<!-- x -->"])
def test_a_page_without_words_has_no_text(html: str) -> None:
    assert page(html).text == ""


# Documents -----------------------------------------------------------------------------------

READ = [
    (documents.pdf, "application/pdf", "A small PDF", "Grace Hopper", "2024-01-02T03:04:05+00:00"),
    (documents.docx, WORD, "An office document", "Ada Lovelace", "2024-05-06T07:08:09+00:00"),
    (documents.xlsx, SHEET, "An office document", "Ada Lovelace", "2024-05-06T07:08:09+00:00"),
    (documents.pptx, SLIDES, "An office document", "Ada Lovelace", "2024-05-06T07:08:09+00:00"),
    (documents.odt, "application/vnd.oasis.opendocument.text", None, None, None),
    (documents.epub, "application/epub+zip", "A small book", "Mary Shelley", None),
    (documents.rtf, "application/rtf", "A rich text", "Ada Lovelace", None),
    (documents.notebook, "application/x-ipynb+json", "A small notebook", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "title", "author", "date"), READ)
def test_documents_are_read(make, kind, title, author, date) -> None:  # type: ignore[no-untyped-def]
    found = through_library.read(make("A needle in a haystack"), Source("u", kind))
    assert "A needle in a haystack" in found.text
    assert (found.title, found.author, found.date) == (title, author, date)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("application/vnd.ms-excel", documents.xls("A needle")),
        ("application/xml", b"<?xml version='1.0'?><needles><a>A needle</a></needles>"),
    ],
)
def test_the_name_of_a_sheet_or_an_element_is_no_title(kind: str, data: bytes) -> None:
    found = through_library.read(data, Source("u", kind))
    assert "A needle" in found.text
    assert found.title is None


@pytest.mark.parametrize(
    ("given", "date"), [("2011", "2011-01-01"), ("2011-05", "2011-05-01"), ("May", None)]
)
def test_a_book_may_tell_only_its_year_or_month(given: str, date: str | None) -> None:
    parts = documents.zip_parts(documents.epub("words"))
    dated = f"<dc:date>{given}</dc:date></metadata>"
    parts["book.opf"] = parts["book.opf"].replace("</metadata>", dated)
    found = through_library.read(documents.packed(parts), Source("u", "application/epub+zip"))
    assert (found.date and found.date[:10]) == date


def test_a_process_that_is_no_worker_never_loads_the_engine() -> None:
    # It may abort at a normal exit, and hangs in a forked child: a kernel must do neither.
    assert "words" in through_library.read(PDF, Source("u", SUFFIXES[".pdf"])).text
    assert "xberg" not in sys.modules


@pytest.mark.parametrize("kind", ["application/pdf", WORD, SHEET, "application/epub+zip"])
@pytest.mark.parametrize("data", [b"", b"junk", b"%PDF-1.7 junk", ZIP])
def test_the_error_of_a_damaged_document_names_it(kind: str, data: bytes) -> None:
    with pytest.raises(PermanentError, match=f"can't be read as {kind}".replace("+", r"\+")) as got:
        through_library.read(data, Source("https://example.org/x", kind))
    assert got.value.error_class == "damaged"
    assert str(got.value).endswith(": https://example.org/x")
    assert "\n" not in str(got.value)


_DAMAGE = """
import os, random
from contextlib import suppress
from paise2nb.content.engine import Reading
from paise2nb.content.extract import documents as through_library
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Source
from tests import documents
from tests.hostile import damaged
dice = random.Random({name!r})
intact = documents.{name}("A needle in a haystack")
for _ in range(60):
    data = damaged(intact, dice)
    with suppress(PermanentError):
        through_library.read(data, Source("u", {kind!r}), Reading(in_process=True))
print("all read", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("make", "kind"), [row[:2] for row in READ])
def test_random_damage_gives_a_document_or_a_permanent_error(make, kind) -> None:  # type: ignore[no-untyped-def]
    ran = subprocess.run(
        [sys.executable, "-c", _DAMAGE.format(name=make.__name__, kind=kind)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.stdout == "all read\n", ran.stderr


def test_every_chapter_of_a_book_is_read() -> None:
    chapters = {
        "plain.xhtml": "<p>plainword</p>", "a%20space.xhtml": "<p>spacedword</p>",
        "caf%C3%A9.xhtml#part": "<p>accentword &nbsp; caf&eacute;</p>",
        "text/../up.xhtml": "<aside>noteword</aside>",
        "svg.xhtml": '<svg xmlns="http://www.w3.org/2000/svg"><text>drawnword</text></svg>',
    }  # fmt: skip
    files = {"up.xhtml": documents.zip_parts(documents.epub("upword"))["c.xhtml"]}
    found = through_library.read(
        documents.book(chapters, files), Source("u", "application/epub+zip")
    )
    assert found.text.split() == [
        "plainword", "spacedword", "accentword", "café", "upword", "drawnword"
    ]  # fmt: skip


def encrypted(name: str) -> dict[str, str]:
    data = f'<CipherData><CipherReference URI="{name}"/></CipherData>'
    namespace = "http://www.w3.org/2001/04/xmlenc#"
    return {
        "META-INF/encryption.xml": "<encryption>"
        f'<EncryptedData xmlns="{namespace}">{data}</EncryptedData></encryption>'
    }


def test_a_protected_book_needs_a_key_but_fonts_do_not_matter() -> None:
    source, chapters = Source("u", "application/epub+zip"), {"c.xhtml": "<p>words</p>"}
    with pytest.raises(PermanentError, match="DRM") as got:
        through_library.read(documents.book(chapters, encrypted("c.xhtml")), source)
    assert got.value.error_class == "password"
    fonts = documents.book(chapters, encrypted("fonts/a.otf"))
    assert through_library.read(fonts, source).text == "words"


def test_entities_of_xml_do_not_expand() -> None:
    levels = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "lol">{levels}]><x>words &a9;</x>'
    found = through_library.read(bomb.encode(), Source("u", "application/xml"))
    assert len(found.text) < 1000


def test_many_threads_can_extract_documents() -> None:
    found: dict[int, str] = {}

    def read(number: int) -> None:
        source = Source("u", "application/pdf")
        found[number] = through_library.read(documents.pdf(f"number {number}"), source).text

    threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"number {number}" for number in range(12)}


# Imports -------------------------------------------------------------------------------------


def test_the_modules_are_light_until_they_are_used() -> None:
    script = (
        "import sys; import paise2nb.content.tasks, paise2nb.content.fetch,"
        " paise2nb.content.extract, paise2nb.collection.items, paise2nb.collection.cache;"
        " heavy = {'trafilatura', 'xberg', 'urllib3', 'lxml', 'idna',"
        " 'chardetng_py'}; print(sorted(heavy & {n.split('.')[0] for n in sys.modules}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert ran.stdout.strip() == "[]"


def test_words_are_counted_as_str_split_finds_them() -> None:
    spaces = "".join(filter(str.isspace, map(chr, range(0x3100))))
    for sample in ("", " ", "one", "  a bc  def\nghij ", "été\u00a0x\u2003yz", "x".join(spaces)):
        assert count_words(sample) == len(sample.split())
