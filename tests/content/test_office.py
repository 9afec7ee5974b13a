"""PDF and Office documents: every word that a reader sees, and what a document is."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from odf import dc, draw, office, opendocument, presentation, style, table, text
from openpyxl.comments import Comment
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

import paise2nb
from paise2nb.content.engine.office import complete
from paise2nb.content.extract import documents as through_library
from paise2nb.content.extract.types import SUFFIXES, media_type
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Document, Source
from tests import documents, hostile

RELATIONS = "word/_rels/document.xml.rels"


def read(data: bytes, suffix: str) -> Document:
    kind = media_type(None, data, suffix)
    assert kind == SUFFIXES[suffix]
    return through_library.read(data, Source("u", kind))


def saved(document: object) -> bytes:
    data = io.BytesIO()
    document.save(data)  # type: ignore[attr-defined]
    return data.getvalue()


# Word ----------------------------------------------------------------------------------------


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Heading words")
    paragraph = document.add_paragraph("Plain words with ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run("ed letters")
    document.add_table(1, 1).cell(0, 0).text = "cellword"
    section = document.sections[0]
    section.header.paragraphs[0].text = "headerword of each page"
    section.footer.paragraphs[0].text = "footerword"
    document.add_comment(paragraph.runs, text="commentword", author="Ada", initials="A")
    box = parse_xml(
        f"<w:r {nsdecls('w')} xmlns:v='urn:schemas-microsoft-com:vml'><w:pict><v:shape>"
        "<v:textbox><w:txbxContent><w:p><w:r><w:t>boxword in a frame</w:t></w:r></w:p>"
        "</w:txbxContent></v:textbox></v:shape></w:pict></w:r>"
    )
    paragraph._p.append(box)
    paragraph._p.append(
        parse_xml(f"<w:del {nsdecls('w')}><w:r><w:delText>deletedword</w:delText></w:r></w:del>")
    )
    return saved(document)


def test_a_word_document_keeps_headers_comments_and_text_boxes() -> None:
    found = read(word(), ".docx").text
    for words in ("Heading words", "cellword", "headerword of each page", "footerword",
                  "commentword", "boxword in a frame"):  # fmt: skip
        assert found.count(words) == 1
    assert found.count("Plain words with") == 1
    assert "deletedword" not in found


def test_what_markdown_writes_otherwise_is_not_added_again() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("See the words of ")
    link = paragraph.part.relate_to("https://example.org/a_b", RELATIONSHIP_TYPE.HYPERLINK, True)
    paragraph._p.append(
        parse_xml(
            f"<w:hyperlink {nsdecls('w', 'r')} r:id='{link}'><w:r><w:t>a page</w:t></w:r>"
            "</w:hyperlink>"
        )
    )
    paragraph.add_run(" for more")
    assert read(saved(document), ".docx").text.count("for more") == 1


# Presentations and spreadsheets ----------------------------------------------------------------


def slides() -> bytes:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Title words"
    group = slide.shapes.add_group_shape().shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "groupword"
    slide.shapes.add_table(1, 1, 0, 0, Inches(1), Inches(1)).table.cell(0, 0).text = "cellword"
    slide.notes_slide.notes_text_frame.text = "noteword of the speaker"
    numbers = CategoryChartData()
    numbers.categories = ["categoryword", "b"]
    numbers.add_series("seriesword", (1, 2))
    slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, Inches(3), Inches(3), numbers)
    return saved(deck)


def test_slides_keep_groups_tables_notes_and_charts() -> None:
    found = read(slides(), ".pptx").text
    for words in ("Title words", "groupword", "cellword", "noteword of the speaker",
                  "categoryword", "seriesword"):  # fmt: skip
        assert words in found


def test_a_spreadsheet_keeps_its_comments() -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "cellword"
    book.active["A1"].comment = Comment("commentword for the clerk", "Ada")
    found = read(saved(book), ".xlsx").text
    assert "cellword" in found
    assert "commentword for the clerk" in found


def test_a_binary_spreadsheet_has_its_own_type() -> None:
    package = documents.packed({"[Content_Types].xml": "<Types/>", "xl/workbook.bin": "x"})
    assert media_type(None, package) == SUFFIXES[".xlsb"]


# OpenDocument ----------------------------------------------------------------------------------


def odt() -> bytes:
    document = opendocument.OpenDocumentText()
    layout = style.PageLayout(name="layout")
    document.automaticstyles.addElement(layout)
    master = style.MasterPage(name="Standard", pagelayoutname=layout)
    master.addElement(style.Header())
    master.firstChild.addElement(text.P(text="headerword of each page"))
    document.masterstyles.addElement(master)
    paragraph = text.P(text="Plain words")
    note = text.Note(noteclass="footnote")
    note.addElement(text.NoteCitation(text="1"))
    note.addElement(text.NoteBody())
    note.lastChild.addElement(text.P(text="footnoteword"))
    paragraph.addElement(note)
    remark = office.Annotation()
    remark.addElement(dc.Creator(text="Ada"))
    remark.addElement(text.P(text="commentword"))
    paragraph.addElement(remark)
    document.text.addElement(paragraph)
    frame = draw.Frame(width="5cm", height="2cm")
    frame.addElement(draw.TextBox())
    frame.firstChild.addElement(text.P(text="boxword in a frame"))
    document.text.addElement(text.P())
    document.text.lastChild.addElement(frame)
    return saved(document)


def test_numbers_of_a_spreadsheet_are_not_added_as_they_are_shown() -> None:
    sheet, document = table.Table(name="S"), opendocument.OpenDocumentSpreadsheet()
    for shown, value in ("1,234.50", 1234.5), ("2,000.75 EUR", 2000.75):
        cell, row = table.TableCell(valuetype="float", value=value), table.TableRow()
        cell.addElement(text.P(text=shown))
        row.addElement(cell)
        sheet.addElement(row)
    document.spreadsheet.addElement(sheet)
    found = read(saved(document), ".ods").text
    assert "1234.5" in found
    assert "1,234.50" not in found
    assert "2,000.75 EUR" in found


def test_a_drawing_of_very_many_paragraphs_is_read() -> None:
    name = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
    lines = "".join(f"<p>word{n} other{n}</p>" for n in range(100_000))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as package:
        package.writestr("content.xml", f'<document xmlns="{name}">{lines}</document>')
    assert len(complete(data.getvalue(), "").split()) == 200_000


def ods() -> bytes:
    document = opendocument.OpenDocumentSpreadsheet()
    sheet = table.Table(name="Sheet")
    cell = table.TableCell()
    remark = office.Annotation()
    remark.addElement(text.P(text="commentword"))
    cell.addElement(remark)
    cell.addElement(text.P(text="cellword"))
    sheet.addElement(table.TableRow())
    sheet.firstChild.addElement(cell)
    document.spreadsheet.addElement(sheet)
    return saved(document)


def new_page(document: opendocument.OpenDocument) -> draw.Page:
    layout = style.PageLayout(name="layout")
    document.automaticstyles.addElement(layout)
    master = style.MasterPage(name="Standard", pagelayoutname=layout)
    document.masterstyles.addElement(master)
    return draw.Page(masterpagename=master)


def odp() -> bytes:
    document = opendocument.OpenDocumentPresentation()
    page = new_page(document)
    for place, words in ((page, "slideword"), (presentation.Notes(), "noteword")):
        frame = draw.Frame(width="5cm", height="2cm")
        frame.addElement(draw.TextBox())
        frame.firstChild.addElement(text.P(text=words))
        place.addElement(frame)
        if place is not page:
            page.addElement(place)
    document.presentation.addElement(page)
    return saved(document)


def odg() -> bytes:
    document = opendocument.OpenDocumentDrawing()
    page, frame = new_page(document), draw.Frame(width="5cm", height="2cm")
    frame.addElement(draw.TextBox())
    frame.firstChild.addElement(text.P(text="drawnword"))
    page.addElement(frame)
    document.drawing.addElement(page)
    return saved(document)


@pytest.mark.parametrize(
    ("make", "suffix", "words"),
    [
        (odt, ".odt", "Plain words|headerword of each page|footnoteword|commentword|boxword"),
        (ods, ".ods", "cellword|commentword"),
        (odp, ".odp", "slideword|noteword"),
        (odg, ".odg", "drawnword"),
    ],
)
def test_opendocument_keeps_notes_comments_headers_and_frames(
    make: Callable[[], bytes], suffix: str, words: str
) -> None:
    found = read(make(), suffix).text
    for word in words.split("|"):
        assert word in found
    assert found.count(words.partition("|")[0]) == 1


def test_a_template_is_read_like_a_document() -> None:
    parts = documents.zip_parts(ods())
    parts["mimetype"] += "-template"
    assert "cellword" in read(documents.packed(parts), ".ots").text
    assert SUFFIXES[".dotm"] == SUFFIXES[".docx"]


# OLE -------------------------------------------------------------------------------------------


def bof(*more: tuple[int, bytes]) -> bytes:
    records = [(0x0809, b"\x00\x06\x05\x00" + bytes(12)), *more]
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in records)


WORD_STREAM = bytes(512)
OLE_KINDS: list[tuple[Mapping[str, object], str]] = [
    ({"WordDocument": WORD_STREAM}, ".doc"),
    ({"Workbook": bof(), "MBD01": {"WordDocument": WORD_STREAM}}, ".xls"),
    ({"BOOK": bof()}, ".xls"),
    ({"PowerPoint Document": b"x", "MBD01": {"Workbook": bof()}}, ".ppt"),
    ({"__properties_version1.0": bytes(32), "__attach": {"WordDocument": WORD_STREAM}}, ".msg"),
]


@pytest.mark.parametrize(("streams", "suffix"), OLE_KINDS)
def test_an_ole_file_is_what_its_root_directory_says(
    streams: documents.Storage, suffix: str
) -> None:
    data = documents.ole(streams)
    assert media_type(None, data, ".doc") == SUFFIXES[suffix]
    assert media_type("application/msword", data) == SUFFIXES[suffix]


LOCKED = [
    {"EncryptedPackage": b"x"},
    {"WordDocument": bytes(11) + b"\x01" + bytes(500)},
    {"Workbook": bof((0x86, b""), (0x2F, bytes(6)))},
    {"PowerPoint Document": b"x", "Current User": bytes(12) + b"\xdf\xc4\xd1\xf3"},
]


@pytest.mark.parametrize("streams", LOCKED, ids=lambda streams: next(iter(streams)))
def test_an_ole_file_with_a_password_says_so(streams: documents.Storage) -> None:
    data = documents.ole(streams)
    with pytest.raises(PermanentError, match="needs a password") as caught:
        through_library.read(data, Source("u", media_type(None, data)))
    assert caught.value.error_class == "password"


def test_a_locked_document_inside_of_another_needs_no_password() -> None:
    data = documents.ole({"Workbook": bof(), "MBD01": {"EncryptedPackage": b"x"}})
    with pytest.raises(PermanentError) as caught:
        through_library.read(data, Source("u", media_type(None, data)))
    assert caught.value.error_class == "damaged"


# PDF -------------------------------------------------------------------------------------------


def canvas(draw_on: Callable[[Canvas], None], **options: object) -> bytes:
    data = io.BytesIO()
    made = Canvas(data, **options)
    draw_on(made)
    made.save()
    return data.getvalue()


def form(made: Canvas) -> None:
    made.drawString(72, 700, "Name of the applicant:")
    made.acroForm.textfield(name="name", value="fieldword", x=200, y=690, forceBorder=True)
    made.acroForm.choice(name="port", value="portword", options=["portword", "otherword"],
                         x=200, y=640)  # fmt: skip


def test_a_pdf_keeps_the_values_of_its_form() -> None:
    found = read(canvas(form), ".pdf").text
    assert "fieldword" in found
    assert "portword" in found


def test_a_pdf_keeps_its_comments() -> None:
    note = "<< /Type /Annot /Subtype /Text /Rect [9 9 30 30] /Contents (commentword of Ada) >>"
    data = documents.pdf("Plain words")
    found = read(data.replace(b"/Contents 4 0 R", b"/Contents 4 0 R /Annots [%s]" % note.encode()),
                 ".pdf")  # fmt: skip
    assert "commentword of Ada" in found.text


def lines(*shown: str) -> Callable[[Canvas], None]:
    def draw_on(made: Canvas) -> None:
        for number, line in enumerate(shown):
            made.drawString(72, 700 - 14 * number, line)

    return draw_on


LONG = (
    "The harbour office keeps a ledger of every crate that passes the pier, and for sixty years",
    "the same green ink was used for the weights. Two apprentices copied it by hand, for",
    "nobody trusted the scanner.",
)


def test_lines_of_a_pdf_become_paragraphs_headings_and_entries_of_lists() -> None:
    def draw_on(made: Canvas) -> None:
        made.setFont("Helvetica", 20)
        made.drawString(72, 760, "The ledger of the pier")
        made.setFont("Helvetica", 10)
        shown = [(72, text) for text in LONG] + [(90, LONG[0]), *((72, text) for text in LONG[1:])]
        shown += [(72, "1. crates"), (72, "2. barrels"), (72, "int main() {"), (72, "}")]
        for number, (x, text) in enumerate(shown):
            made.drawString(x, 720 - 12 * number, text)
        made.drawString(72, 500, "10")
        made.setFont("Helvetica", 6)
        made.drawString(83.2, 504, "2")
        made.setFont("Helvetica", 10)
        made.drawString(90, 500, "metres")

    found = read(canvas(draw_on), ".pdf")
    text, lists = " ".join(LONG), "1. crates\n2. barrels\nint main() {\n}"
    assert found.text == f"# The ledger of the pier\n\n{text}\n{text}\n{lists}\n\n102 metres"
    assert read(canvas(draw_on, initFontName="Courier"), ".pdf").title == "untitled"


@pytest.mark.parametrize(("prose", "separator"), [("Helvetica", "\n"), ("Courier", " ")])
def test_lines_of_code_are_not_joined_but_those_of_a_typewriter_are(
    prose: str, separator: str
) -> None:
    def draw_on(made: Canvas) -> None:
        for number, line in enumerate(LONG[:2] * 2):
            made.setFont(prose if number < 2 else "Courier", 10)
            made.drawString(72, 720 - 12 * number, line)

    assert read(canvas(draw_on), ".pdf").text.endswith(separator.join(LONG[:2]))


def test_a_chinese_word_at_the_end_of_a_line_is_one_word() -> None:
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def draw_on(made: Canvas) -> None:
        made.setFont("STSong-Light", 10)
        made.drawString(
            72, 700, "港口办公室记录每一个经过码头的木箱而且六十年来重量总是用同样的绿色墨水写在北"
        )
        made.drawString(72, 686, "京的账簿上")

    assert "写在北京的账簿上" in read(canvas(draw_on), ".pdf").text


def test_words_divided_at_the_end_of_a_line_are_joined() -> None:
    shown = ["the clerk of the harbour is a ware-", "houseman, and sails on the Nord-", "Ostsee"]
    found = re.sub(r"\s+", " ", read(canvas(lines(*shown)), ".pdf").text)
    assert "warehouseman" in found
    assert "Nord-Ostsee" in found


def test_accents_of_old_fonts_are_put_on_their_letters() -> None:
    found = read(
        canvas(lines("voc\u02c6e cora\u00b8c\u02dcao \u00b4e m\u00b4odulo `code`")), ".pdf"
    )
    assert found.text == "você coração é módulo `code`"


def test_a_pdf_with_a_password_says_so() -> None:
    locked = canvas(lines("words"), encrypt=StandardEncryption("secret"))
    with pytest.raises(PermanentError, match="needs a password") as caught:
        read(locked, ".pdf")
    assert caught.value.error_class == "password"


def test_a_pdf_without_a_password_for_readers_is_read() -> None:
    protected = canvas(lines("words"), encrypt=StandardEncryption("", "owner", canPrint=0))
    assert read(protected, ".pdf").text == "words"


@pytest.mark.parametrize("damage", ["cut off", "wrong table", "no table"])
def test_a_pdf_without_a_good_table_of_objects_is_read(damage: str) -> None:
    data = documents.pdf("The words of a page")
    table = data.index(b"xref\n")
    data = {
        "cut off": data[:table],
        "wrong table": data.replace(b"xref\n0 1\n", b"xref\n7 1\n"),
        "no table": data[:table] + data[data.index(b"trailer") :],
    }[damage]
    assert read(data, ".pdf").text == "The words of a page"


def test_a_list_of_pages_that_contains_itself_is_damaged() -> None:
    with pytest.raises(PermanentError, match="can't be read as application/pdf") as caught:
        through_library.read(hostile.traps()["loop-pages.pdf"], Source("u", "application/pdf"))
    assert caught.value.error_class == "damaged"


def test_a_damaged_list_of_embedded_documents_costs_no_word_of_the_rest() -> None:
    parts = documents.zip_parts(documents.docx("good words"))
    parts[RELATIONS] = "<Relationships><Relationship Type='x/aFChunk' Target='gone.html'/>"
    data = documents.packed(parts)
    assert read(data, ".docx").text == "good words"
    assert list(through_library.word_chunks(data)) == []


def test_workers_that_have_read_documents_end_normally(tmp_path: Path) -> None:
    # The parsers abort a process that used them, and ends as usual, now and then.
    for number in range(4):
        (tmp_path / f"{number}.docx").write_bytes(documents.docx(f"words of {number}"))
        (tmp_path / f"{number}.pdf").write_bytes(documents.pdf(f"words of {number}"))
    settings = {"workers.concurrency": 2, "workers.idle_exit": 60}
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=settings) as app:
        app.workers.start()
        try:
            jobs = app.enqueue_many("fetch", [str(tmp_path / f) for f in os.listdir(tmp_path)
                                              if f != "data"])  # fmt: skip
            jobs.wait(timeout=120)
        finally:
            app.workers.stop()
        assert len(app.items()) == 8
    log = "".join(path.read_text() for path in (tmp_path / "data").rglob("*.log"))
    assert set(re.findall(r"ended with status (-?\d+)", log)) == {"0"}
    assert "Fatal Python error" not in log
