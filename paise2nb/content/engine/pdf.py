"""PDF by PDFium: a tenth of xberg's time, and no words joined where the font changes."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from paise2nb.content.engine import ocr
from paise2nb.content.engine.pdf_lines import Line, lines_of, markdown
from paise2nb.content.engine.result import EngineError, Extracted

DPI = 300
MAX_PIXELS = 40_000_000  # of a rendered page
FEW_WORDS = 20  # a page with no more, and a picture on half of it, may be a scan with a stamp
_NO_PAGES, _PASSWORD = 0, 4  # of FPDF_GetLastError
_COMMENTS = (1, 9, 10, 11, 12, 14)  # annotations that are not drawn: a note, a highlight, …
# PDFium marks a word that goes on in the next line with U+FFFE in place of its hyphen.
_BROKEN = re.compile("[\ufffe\x02](?:\r\n)?([^\\W\\d_])?")
_MARKS = "\u00b4\u02c6\u02dc\u00a8\u00b8\u02c7\u02d8\u02da\u02d9\u02dd"
_ACCENTS = "\u0301\u0302\u0303\u0308\u0327\u030c\u0306\u030a\u0307\u030b\u0300"
_COMBINING = dict(zip(_MARKS + "`", _ACCENTS, strict=True))
# Old TeX fonts have no letters with accents: a mark is printed before its letter.
_ACCENTED = re.compile(f"([{_MARKS}]|(?<=[^\\W\\d_])`)([A-Za-z\u0131])")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:Z|([+-]\d\d)'?(\d\d)?)?")


class Unreadable(Exception):
    """PDFium can't read the document. Another library may, if it is cut off."""


def extract(data: bytes, languages: Sequence[str] | None) -> Extracted:
    """Read a PDF: its text, the values of its forms and its comments.

    Args:
        data: The document.
        languages: Recognise the text of scanned pages, in these languages of Tesseract.

    Raises:
        Unreadable: PDFium can't open it.
        EngineError: ``password``, ``scan``, ``ocr``.
    """
    import pypdfium2

    try:
        return _extract(pypdfium2.PdfDocument(data), languages)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _PASSWORD:
            raise EngineError("needs a password", "password") from error
        if error.err_code == _NO_PAGES:  # a tree of pages in which xberg loops forever
            raise EngineError("its list of pages is damaged") from error
        raise Unreadable from error


def _extract(document: Any, languages: Sequence[str] | None) -> Extracted:
    document.init_forms()
    pages = list[list[Line]]()
    recognised, unread = list[int](), 0
    for number in range(1, len(document) + 1):
        page = document[number - 1]
        lines = _lines(document, number - 1, page)
        words = sum(len(line.text.split()) for line in lines)
        if _is_scan(page, words):
            found = ocr.recognise(_image(page), languages) if languages else ""
            unread += not languages
            if len(found.split()) > words:
                lines = [Line(found)]
                recognised.append(number)
        page.close()
        pages.append(lines)
    if unread and not any(pages):
        raise EngineError("a scan: it has pictures of pages, but no text", "scan")
    metadata = _metadata(document.get_metadata_dict(skip_empty=True))
    metadata["page_count"] = len(document)
    if recognised:
        metadata["recognised"] = {"languages": list(languages or ()), "pages": recognised}
    return {"text": markdown(pages), "metadata": metadata}


def _lines(document: Any, index: int, page: Any) -> list[Line]:
    from pypdfium2 import raw

    comments = list(_comments(page))
    # What is drawn over the page, such as the values of a form, becomes part of its text.
    if raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
        page = document[index]
    textpage = page.get_textpage()
    lines = [line._replace(text=_clean(line.text)) for line in lines_of(textpage)]
    textpage.close()
    text = " ".join(" ".join(line.text for line in lines).split())
    lines += [Line(comment) for comment in comments if " ".join(comment.split()) not in text]
    return [line for line in lines if line.text]


def _clean(text: str) -> str:
    text = _BROKEN.sub(_joined, text).replace("\0", "")
    return _ACCENTED.sub(_composed, text).strip()


def _comments(page: Any) -> Iterator[str]:
    """The contents of comments, which a reader shows on a click, or beside the page."""
    import ctypes

    from pypdfium2 import raw

    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if raw.FPDFAnnot_GetSubtype(annotation) in _COMMENTS:
            size = raw.FPDFAnnot_GetStringValue(annotation, b"Contents", None, 0)
            buffer = ctypes.create_string_buffer(size)
            pointer = ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR))
            raw.FPDFAnnot_GetStringValue(annotation, b"Contents", pointer, size)
            if comment := buffer.raw[:-2].decode("utf-16-le", "replace").strip():
                yield comment.replace("\r", "\n")
        raw.FPDFPage_CloseAnnot(annotation)


def _is_scan(page: Any, words: int) -> bool:
    """Whether a page shows what is not in its text: a picture of words, or drawn letters."""
    from pypdfium2 import raw

    if words > FEW_WORDS:
        return False
    for drawn in page.get_objects(max_depth=4):
        if not words:
            return True
        if drawn.type == raw.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = drawn.get_bounds()
            if (right - left) * (top - bottom) > page.get_width() * page.get_height() / 2:
                return True
    return False


def _image(page: Any) -> bytes:
    """A page in grey (PGM), for Tesseract."""
    area = page.get_width() * page.get_height()
    scale = min(DPI / 72, (MAX_PIXELS / max(area, 1)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    width, stride, pixels = bitmap.width, bitmap.stride, bytes(bitmap.buffer)
    rows = (pixels[row * stride :][:width] for row in range(bitmap.height))
    return b"P5 %d %d 255\n" % (width, bitmap.height) + b"".join(rows)


def _joined(match: re.Match[str]) -> str:
    """A word without the hyphen at the end of a line, unless the hyphen belongs to it."""
    rest = match[1] or ""
    return rest if rest.islower() else f"-{rest}"


def _composed(match: re.Match[str]) -> str:
    letter = unicodedata.normalize("NFC", match[2].replace("\u0131", "i") + _COMBINING[match[1]])
    return letter if len(letter) == 1 else match[0]


def _metadata(found: dict[str, str]) -> dict[str, Any]:
    return {
        "title": found.get("Title"),
        "authors": [found["Author"]] if "Author" in found else None,
        "created_at": _date(found.get("CreationDate", "")),
        "modified_at": _date(found.get("ModDate", "")),
    }


def _date(text: str) -> str | None:
    """A date of a PDF (ISO 32000-2, section 7.9.4) as ISO 8601."""
    if not (match := _DATE.match(text)):
        return None
    year, month, day, hour, minute, second, zone, minutes = match.groups()
    date = f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}"
    return date + (f"{zone}:{minutes or '00'}" if zone else "+00:00")
