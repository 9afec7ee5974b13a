"""Documents of every type, made by common libraries, are fetched, stored and found by a phrase."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import nbformat
import pytest

import paise2nb
from tests import documents
from tests.site import Site

PHRASE = "a needle of {} in a haystack"


def pdf(text: str) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data)
    canvas.drawString(72, 720, text)
    canvas.showPage()
    canvas.drawString(72, 720, "Another page.")
    canvas.save()
    return data.getvalue()


def docx(text: str) -> bytes:
    from docx import Document

    document, data = Document(), io.BytesIO()
    document.add_heading("A heading")
    document.add_paragraph("Words before. ").add_run(text).bold = True
    document.add_table(1, 2).cell(0, 1).text = "a cell"
    document.save(data)
    return data.getvalue()


def pptx(text: str) -> bytes:
    from pptx import Presentation

    deck, data = Presentation(), io.BytesIO()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "A slide", text
    deck.save(data)
    return data.getvalue()


def xlsx(text: str) -> bytes:
    from openpyxl import Workbook

    book, data = Workbook(), io.BytesIO()
    book.active.append(["number", "words"])
    book.create_sheet("Second").append([7, text])
    book.save(data)
    return data.getvalue()


def odt(text: str) -> bytes:
    from odf.opendocument import OpenDocumentText
    from odf.text import H, P

    document, data = OpenDocumentText(), io.BytesIO()
    document.text.addElement(H(outlinelevel=1, text="A heading"))
    document.text.addElement(P(text=text))
    document.write(data)
    return data.getvalue()


def ipynb(text: str) -> bytes:
    cells = [nbformat.v4.new_markdown_cell(f"# Title\n\n{text}"), nbformat.v4.new_code_cell("1")]
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode()


def eml(text: str) -> bytes:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@example.org", "b@example.org", "A letter"
    letter.set_content(f"Dear reader,\n\n{text} — grüße.")
    letter.add_alternative(f"<p>Dear reader,</p><p>{text} — grüße.</p>", subtype="html")
    letter.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename="x.png")
    return letter.as_bytes()


def zipped(text: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/report.docx", docx(text))
    return data.getvalue()


def tarred(text: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member, content = tarfile.TarInfo("deep/sheet.xls"), documents.xls(text)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


KINDS: dict[str, Callable[[str], bytes]] = {
    "pdf": pdf, "docx": docx, "pptx": pptx, "xlsx": xlsx, "xls": documents.xls, "odt": odt,
    "rtf": documents.rtf, "epub": documents.epub, "ipynb": ipynb, "eml": eml, "zip": zipped,
    "tar.gz": tarred, "csv": lambda text: f"number,words\n1,{text}\n".encode(),
    "json": lambda text: f'{{"words": "{text}"}}'.encode(),
    "txt": lambda text: text.encode("utf-16"), "md": lambda text: f"# A title\n\n{text}".encode(),
    "html": lambda text: f"<title>A page</title><body><p>{text}</p></body>".encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_found_by_a_phrase_in_it(site: Site, tmp_path: Path, kind: str) -> None:
    phrase = PHRASE.format(kind.replace(".", " "))
    data = KINDS[kind](phrase)
    (tmp_path / f"file.{kind}").write_bytes(data)
    settings = {"fetch.allow_private_addresses": True, "fetch.host_delay": 0}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        served = app.enqueue(  # declared as servers declare unknown files
            "fetch", site.add(f"/file.{kind}", data, "application/octet-stream")
        )
        local = app.enqueue("fetch", str(tmp_path / f"file.{kind}"))
        for job in (served, local):
            assert [one.error for one in job.tree if one.error] == []
        hits = {hit["id"] for hit in app.search(f'"{phrase}"')}
        assert hits == {item.id for job in (served, local) for item in job.items}
        assert len(hits) == 2
        for item in served.items:
            app.enqueue("extract", str(item.id))  # once more, without fetching
            assert app.item(item.id).text == item.text
        assert site.visits[f"/file.{kind}"] == 1
