"""The text of scans, recognised by a real Tesseract in pictures that are drawn here."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

import paise2nb
from paise2nb.content.engine import Reading
from paise2nb.content.extract import documents
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Document, Source

pytestmark = pytest.mark.skipif(not shutil.which("tesseract"), reason="needs tesseract-ocr")

PDF = "application/pdf"
WORDS = ["The ferry crosses the", "harbour twelve times a day"]


def picture(*lines: str) -> Image.Image:
    """A page of 100 dots an inch with these lines."""
    drawn = Image.new("L", (827, 1169), 255)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=32)
    for number, line in enumerate(lines):
        pen.text((90, 120 + 60 * number), line, fill=0, font=font)
    return drawn


def encoded(drawn: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    drawn.save(data, kind, **options)
    return data.getvalue()


def pdf(*pages: tuple[Image.Image | None, str]) -> bytes:
    """A PDF whose pages have a picture, a line of text, or both."""
    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(595, 842))
    for drawn, text in pages:
        if drawn:
            canvas.drawImage(ImageReader(drawn), 0, 0, 595, 842)
        canvas.drawString(72, 800, text)
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def read(data: bytes, kind: str = PDF, languages: Sequence[str] | None = ("eng",)) -> Document:
    return documents.read(data, Source("u", kind), Reading(languages=languages))


def test_the_text_of_scanned_pages_is_recognised_and_the_others_are_kept() -> None:
    found = read(pdf((None, "typed words"), (picture(*WORDS), ""), (None, "")))
    assert found.text.split() == ["typed", "words", *" ".join(WORDS).split()]
    assert found.metadata["recognised"] == {"languages": ["eng"], "pages": [2]}


def test_a_scan_with_a_stamp_is_still_a_scan() -> None:
    found = read(pdf((picture(*WORDS), "page 1 of 1")))
    assert "harbour twelve times" in found.text
    assert "page 1 of 1" in found.text


def test_a_page_that_was_scanned_sideways_is_read() -> None:
    lines = [*WORDS, "and the clerk counts", "the crates on the pier", "before the boats leave"]
    assert "crates on the pier" in read(pdf((picture(*lines).rotate(90, expand=True), ""))).text


def test_text_is_not_recognised_where_a_document_has_it() -> None:
    assert "recognised" not in read(pdf((None, "typed words"))).metadata


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "webp", "bmp"])
def test_the_text_of_an_image_is_recognised(kind: str) -> None:
    found = read(encoded(picture(*WORDS), kind), f"image/{kind}")
    assert found.text.split() == " ".join(WORDS).split()
    assert found.metadata["recognised"] == {"languages": ["eng"]}


def test_every_page_of_an_image_is_read() -> None:
    pages = encoded(picture("first"), "tiff", save_all=True, append_images=[picture("second")])
    assert read(pages, "image/tiff").text.split() == ["first", "second"]


def test_missing_data_of_a_language_names_the_package() -> None:
    with pytest.raises(PermanentError) as caught:
        read(encoded(picture(*WORDS), "png"), "image/png", ["eng", "chi_tra_vert"])
    assert caught.value.error_class == "ocr"
    assert "language chi_tra_vert: apt-get install tesseract-ocr-chi-tra-vert" in str(caught.value)


def test_a_missing_tesseract_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PermanentError, match="apt-get install tesseract-ocr,") as caught:
        read(pdf((picture(*WORDS), "")))
    assert caught.value.error_class == "ocr"


def test_a_scan_without_recognition_names_the_setting() -> None:
    with pytest.raises(PermanentError, match=r"a scan: .* see extract\.ocr") as caught:
        read(pdf((picture(*WORDS), "")), languages=None)
    assert caught.value.error_class == "scan"


def test_a_damaged_image_fails_with_the_reason() -> None:
    with pytest.raises(PermanentError, match="can't be read as image/png") as caught:
        read(b"\x89PNG\r\n\x1a\n", "image/png")
    assert caught.value.error_class == "damaged"


def test_an_item_says_that_its_text_was_recognised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {"a.pdf": pdf((picture(*WORDS), "")), "a.png": encoded(picture(*WORDS), "png")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    settings = {"extract.ocr": "auto", "workers.concurrency": 1, "workers.idle_exit": 60}
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=settings) as app:
        app.workers.start()
        try:
            jobs = app.enqueue_many("fetch", [str(tmp_path / name) for name in files])
            jobs.wait(timeout=120)
        finally:
            app.workers.stop()
        for item in app.items():
            assert "harbour twelve times" in app.item(item.id).text
            assert app.item(item.id).metadata["recognised"]["languages"] == ["eng"]
        assert len(app.items()) == 2
    assert not (tmp_path / ".cache").exists()
