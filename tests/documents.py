"""Small valid documents, with only what the specification of each format requires."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import unquote

OFFICE = "http://schemas.openxmlformats.org"
RELATIONSHIPS = f"{OFFICE}/officeDocument/2006/relationships"


def packed(parts: Mapping[str, str]) -> bytes:
    """A zip archive of these texts, in order; ``mimetype`` is uncompressed, as required."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in parts.items():
            stored = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(name, text, stored)
    return data.getvalue()


def pdf(*lines: str, title: str = "A small PDF") -> bytes:
    """One page with these lines (ASCII without brackets)."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    content = f"BT /F1 14 Tf 72 720 Td 18 TL {shown} ET"
    return pdf_of({
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        4: stream(content.encode()),
        5: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        6: f"<< /Title ({title}) /Author (Grace Hopper) /CreationDate (D:20240102030405Z) >>",
    }, "/Info 6 0 R")  # fmt: skip


def stream(data: bytes, facts: str = "") -> bytes:
    """A stream object of a PDF."""
    return f"<< /Length {len(data)} {facts} >>\nstream\n".encode() + data + b"\nendstream"


def pdf_of(objects: Mapping[int, str | bytes], trailer: str = "") -> bytes:
    """A PDF of numbered objects, of which the first is the catalog. ``XREF`` in the trailer is
    replaced by the position of the cross-reference table."""
    data, table = b"%PDF-1.5\n", ""
    for number, content in sorted(objects.items()):
        table += f"{number} 1\n{len(data):010d} 00000 n \n"
        content = content if isinstance(content, bytes) else content.encode()
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    facts = f"/Size {max(objects) + 1} /Root 1 0 R {trailer.replace('XREF', str(len(data)))}"
    return (
        data
        + (
            f"xref\n0 1\n0000000000 65535 f \n{table}trailer << {facts} >>\n"
            f"startxref\n{len(data)}\n%%EOF\n"
        ).encode()
    )


def _office(main: str, kind: str, parts: Mapping[str, str]) -> bytes:
    """An Office Open XML package with this main part; every part has its own relationships."""
    overrides = "".join(
        f'<Override PartName="/{name}" ContentType="application/vnd.openxmlformats-officedocument.'
        f'{content_type}+xml"/>'
        for name, content_type in (
            (main, kind),
            ("xl/worksheets/sheet1.xml", "spreadsheetml.worksheet"),
            ("ppt/slides/slide1.xml", "presentationml.slide"),
        )
        if name in parts
    )
    return packed({
        "[Content_Types].xml": '<?xml version="1.0"?>'
        f'<Types xmlns="{OFFICE}/package/2006/content-types">'
        '<Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        '<Override PartName="/docProps/core.xml"'
        ' ContentType="application/vnd.openxmlformats-package.core-properties+xml"/>'
        f"{overrides}</Types>",
        "_rels/.rels": '<?xml version="1.0"?>'
        f'<Relationships xmlns="{OFFICE}/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{RELATIONSHIPS}/officeDocument" Target="{main}"/>'
        f'<Relationship Id="rId2" Type="{OFFICE}/package/2006/relationships/metadata/'
        'core-properties" Target="docProps/core.xml"/></Relationships>',
        "docProps/core.xml": '<?xml version="1.0"?><cp:coreProperties'
        f' xmlns:cp="{OFFICE}/package/2006/metadata/core-properties"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        "<dc:title>An office document</dc:title><dc:creator>Ada Lovelace</dc:creator>"
        '<dcterms:created xsi:type="dcterms:W3CDTF">2024-05-06T07:08:09Z</dcterms:created>'
        "</cp:coreProperties>",
        **parts,
    })  # fmt: skip


def docx(text: str) -> bytes:
    """A Word document with one paragraph."""
    word = f"{OFFICE}/wordprocessingml/2006/main"
    body = f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
    part = f'<?xml version="1.0"?><w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>'
    return _office(
        "word/document.xml", "wordprocessingml.document.main", {"word/document.xml": part}
    )


def _relations(kind: str, target: str) -> str:
    return (
        f'<?xml version="1.0"?><Relationships xmlns="{OFFICE}/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{RELATIONSHIPS}/{kind}" Target="{target}"/>'
        "</Relationships>"
    )


def xlsx(text: str) -> bytes:
    """A spreadsheet with one cell."""
    main = f"{OFFICE}/spreadsheetml/2006/main"
    cell = f'<c r="A1" t="inlineStr"><is><t>{text}</t></is></c>'
    return _office("xl/workbook.xml", "spreadsheetml.sheet.main", {
        "xl/workbook.xml": f'<?xml version="1.0"?><workbook xmlns="{main}"'
        f' xmlns:r="{RELATIONSHIPS}"><sheets><sheet name="First" sheetId="1" r:id="rId1"/></sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": _relations("worksheet", "worksheets/sheet1.xml"),
        "xl/worksheets/sheet1.xml": f'<?xml version="1.0"?><worksheet xmlns="{main}"><sheetData>'
        f'<row r="1">{cell}</row></sheetData></worksheet>',
    })  # fmt: skip


def pptx(text: str) -> bytes:
    """A presentation with one slide."""
    main, drawing = f"{OFFICE}/presentationml/2006/main", f"{OFFICE}/drawingml/2006/main"
    shape = (
        '<p:sp><p:nvSpPr><p:cNvPr id="2" name="T"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/>'
        f"<p:txBody><a:bodyPr/><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )
    return _office("ppt/presentation.xml", "presentationml.presentation.main", {
        "ppt/presentation.xml": f'<?xml version="1.0"?><p:presentation xmlns:p="{main}"'
        f' xmlns:r="{RELATIONSHIPS}"><p:sldIdLst><p:sldId id="256" r:id="rId1"/></p:sldIdLst>'
        "</p:presentation>",
        "ppt/_rels/presentation.xml.rels": _relations("slide", "slides/slide1.xml"),
        "ppt/slides/slide1.xml": f'<?xml version="1.0"?><p:sld xmlns:p="{main}"'
        f' xmlns:a="{drawing}"><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/>'
        "<p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>"
        f"{shape}</p:spTree></p:cSld></p:sld>",
    })  # fmt: skip


def odt(text: str) -> bytes:
    """An OpenDocument text."""
    namespace = "urn:oasis:names:tc:opendocument:xmlns"
    kind = "application/vnd.oasis.opendocument.text"
    return packed({
        "mimetype": kind,
        "META-INF/manifest.xml": f'<?xml version="1.0"?><m:manifest xmlns:m="{namespace}:manifest:'
        f'1.0"><m:file-entry m:full-path="/" m:media-type="{kind}"/></m:manifest>',
        "content.xml": f'<?xml version="1.0"?><o:document-content xmlns:o="{namespace}:office:1.0"'
        f' xmlns:t="{namespace}:text:1.0"><o:body><o:text><t:p>{text}</t:p></o:text></o:body>'
        "</o:document-content>",
    })  # fmt: skip


def epub(text: str) -> bytes:
    """An e-book with one chapter."""
    return packed({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<?xml version="1.0"?><container version="1.0"'
        ' xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile'
        ' full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles>'
        "</container>",
        "book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf"'
        ' version="3.0" unique-identifier="id"><metadata'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">1</dc:identifier>'
        "<dc:title>A small book</dc:title><dc:creator>Mary Shelley</dc:creator>"
        "<dc:language>en</dc:language></metadata><manifest>"
        '<item id="c" href="c.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="c"/></spine></package>',
        "c.xhtml": '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head>'
        f"<title>One</title></head><body><p>{text}</p></body></html>",
    })  # fmt: skip


def rtf(text: str) -> bytes:
    """A rich text document."""
    return (
        r"{\rtf1\ansi{\info{\title A rich text}{\author Ada Lovelace}}{\pard " + text + r"\par}}"
    ).encode()


def notebook(text: str) -> bytes:
    """A Jupyter notebook."""
    return json.dumps({
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# A small notebook\n", text]},
            {"cell_type": "code", "metadata": {}, "source": ["print(1)"], "execution_count": 1,
             "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]},
        ],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
    }).encode()  # fmt: skip


def mail(text: str) -> bytes:
    """An e-mail message."""
    return (
        "From: Ada <ada@example.org>\r\nTo: grace@example.org\r\nSubject: A small letter\r\n"
        "Date: Mon, 1 Jan 2024 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


def xls(text: str) -> bytes:
    """A spreadsheet in the format before 2007, with one cell."""
    import xlwt

    book, data = xlwt.Workbook(), io.BytesIO()
    book.add_sheet("First").write(0, 0, text)
    book.save(data)
    return data.getvalue()


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    """A compressed tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def book(chapters: Mapping[str, str], more: Mapping[str, str] = {}) -> bytes:
    """An e-book: the hrefs of its chapters, as the manifest has them, and their texts."""
    whole = dict(zip_parts(epub("")))
    items = "".join(
        f'<item id="c{n}" href="{href}" media-type="application/xhtml+xml"/>'
        for n, href in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    opf = re.sub("<manifest>.*</spine>", f"<manifest>{items}</manifest><spine>{spine}</spine>",
                 whole["book.opf"])  # fmt: skip
    pages = {
        unquote(href.partition("#")[0]): whole["c.xhtml"].replace("<p></p>", text)
        for href, text in chapters.items()
    }
    return packed({**whole, "book.opf": opf, **pages, **more})


def zip_parts(data: bytes) -> dict[str, str]:
    """The texts of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


Storage: TypeAlias = Mapping[str, "bytes | Storage"]


def ole(content: Storage) -> bytes:
    """A compound file with these storages and streams, all of them short: [MS-CFB]."""
    free, end = 0xFFFFFFFF, 0xFFFFFFFE
    entries: list[list[Any]] = []  # name, type, right, child, start, size
    small, table = b"", []

    def add(name: str, value: bytes | Storage) -> int:
        nonlocal small
        index = len(entries)
        entry = [name, 2, free, free, end, 0]
        entries.append(entry)
        if isinstance(value, bytes):
            sectors = -(-len(value) // 64)
            if sectors:
                entry[4], entry[5] = len(table), len(value)
                table.extend([*range(len(table) + 1, len(table) + sectors), end])
            small += value.ljust(sectors * 64, b"\0")
            return index
        entry[1] = 1
        before = None
        for key, inner in value.items():
            child = add(key, inner)
            if before is None:
                entry[3] = child
            else:
                entries[before][2] = child
            before = child
        return index

    add("Root Entry", content)
    entries[0][1] = 5
    entries[0][5] = len(small)
    minifat = struct.pack(f"<{len(table)}L", *table)
    sizes = [-(-len(entries) * 128 // 512), -(-len(minifat) // 512), -(-len(small) // 512)]
    starts = [1, 1 + sizes[0], 1 + sizes[0] + sizes[1]]
    entries[0][4] = starts[2]
    fat = [0xFFFFFFFD]
    for start, size in zip(starts, sizes, strict=True):
        fat += [*range(start + 1, start + size), end][:size]
    directory = b"".join(
        struct.pack("<64sHBBLLL36xLQ", name.encode("utf-16-le"), 2 * len(name) + 2, kind, 1, free,
                    right, child, start, size)
        for name, kind, right, child, start, size in entries
    )  # fmt: skip
    head = struct.pack("<8s16xHHHHH6xLLLLLLLLLL", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 62, 3,
                       0xFFFE, 9, 6, 0, 1, 1, 0, 4096, starts[1], sizes[1], end, 0, 0)  # fmt: skip
    sectors = [struct.pack(f"<{len(fat)}L", *fat).ljust(512, b"\xff"), directory, minifat, small]
    padded = b"".join(part.ljust(-(-len(part) // 512) * 512, b"\0") for part in sectors)
    return head.ljust(512, b"\xff") + padded


def outlook(subject: str, text: str, attachments: Mapping[str, bytes | Storage] = {}) -> Storage:
    """The storages of an Outlook message, for `ole`. An attachment may be a message."""

    def unicode(number: int, value: str) -> dict[str, bytes | Storage]:
        return {f"__substg1.0_{number:04X}001F": value.encode("utf-16-le")}

    sent = (
        (datetime(2024, 3, 5, 8, tzinfo=UTC) - datetime(1601, 1, 1, tzinfo=UTC)).days * 864 * 10**9
    )
    message = unicode(0x37, subject) | unicode(0xC1A, "Ada") | unicode(0xE04, "grace@example.org")
    message |= unicode(0x5D01, "ada@example.org") | unicode(0x1000, text)
    for number, (name, value) in enumerate(attachments.items()):
        kind = "0102" if isinstance(value, bytes) else "000D"
        message[f"__attach_version1.0_#{number:08X}"] = {
            **unicode(0x3707, name), f"__substg1.0_3701{kind}": value,
            "__properties_version1.0": bytes(8),
        }  # fmt: skip
    header = bytes(24 if subject.startswith("Inner") else 32)
    message["__properties_version1.0"] = header + struct.pack("<HHLQ", 0x40, 0x39, 6, sent)
    return message
