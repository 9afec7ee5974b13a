"""Hostile content as bytes: decompression bombs, loops, entity expansion and damaged documents.

`traps` returns crafted documents, and `fuzzed` any number of damaged documents of all types.
``python -m tests.benchmarks.hostile`` measures what they do to real workers.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import brotli

from tests import documents
from tests.site import PAGE, zstd

MEGABYTE = bytes(1 << 20)
FEED = (
    b"<rss version='2.0'><channel><title>F</title><item><title>T</title>"
    b"<link>http://127.0.0.1:9/a</link></item></channel></rss>"
)
SITEMAP = b"<urlset><url><loc>http://127.0.0.1:9/a</loc></url></urlset>"


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Bytes with a few short pieces replaced by random ones."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 5, 50])):
        at = dice.randrange(len(changed) + 1)
        changed[at : at + dice.randrange(20)] = dice.randbytes(dice.randrange(20))
    return bytes(changed)


# Bombs ---------------------------------------------------------------------------------------


def gzip_bomb(gigabytes: int) -> bytes:
    """That many gigabytes of zeros in gzip, about a megabyte each."""
    packer = zlib.compressobj(9, wbits=31)
    return (packer.compress(MEGABYTE) + packer.flush()) * (gigabytes << 10)


def zstd_bomb(gigabytes: int) -> bytes:
    """That many gigabytes of zeros in Zstandard frames."""
    return zstd.compress(MEGABYTE) * (gigabytes << 10)


def brotli_bomb(gigabytes: int) -> bytes:
    """That many gigabytes of zeros in Brotli: one block of a megabyte, repeated."""
    packer = brotli.Compressor(quality=5)
    first, again = (packer.process(MEGABYTE) + packer.flush() for _ in range(2))
    return first + again * ((gigabytes << 10) - 2) + again + packer.finish()


def zip_bomb(gigabytes: int, name: str = "a.txt", claimed: int | None = None) -> bytes:
    """That many gigabytes of zeros in a zip file, which declares the size ``claimed``."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    data = block * (gigabytes << 10) + packer.flush()
    size = min(gigabytes << 30, 0xFFFFFFFE) if claimed is None else claimed
    facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(data), size, len(name), 0)
    local = b"PK\3\4" + facts + name.encode()
    central = (
        b"PK\1\2\x14\0" + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    )  # fmt: skip
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    return local + data + central + b"PK\5\6" + end


def nested_bomb(gigabytes: int) -> bytes:
    """A zip file of ten zip bombs."""
    inner = zip_bomb(max(1, gigabytes // 10))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"{number}.zip", inner)
    return out.getvalue()


def swollen(make: Callable[[str], bytes], megabytes: int) -> bytes:
    """A zipped document with that many megabytes of text."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(make("needle"))) as whole,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in whole.namelist():
            head, needle, tail = whole.read(name).partition(b"needle")
            with archive.open(name, "w", force_zip64=True) as part:
                part.write(head)
                for _ in range(megabytes if needle else 0):
                    part.write(b"word " * (len(MEGABYTE) // 5))
                part.write(tail)
    return out.getvalue()


# Entity expansion and loops ------------------------------------------------------------------

LAUGHS = b"<!DOCTYPE x [<!ENTITY a 'ha'>%s]>" % b"".join(
    b"<!ENTITY %c '%s'>" % (after, b"&%c;" % before * 10)
    for before, after in zip(b"abcdefghi", b"bcdefghij", strict=True)
)


def laughing(document: bytes) -> bytes:
    """An XML document with the entity of the billion laughs attack in place of ``needle``."""
    head, mark, rest = document.partition(b"?>")
    if not mark:
        head, rest = b"<?xml version='1.0'", document
    return head + b"?>" + LAUGHS + rest.replace(b"needle", b"&j;")


def laughing_package(make: Callable[[str], bytes]) -> bytes:
    """A zipped document whose parts have the entity of the billion laughs attack."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(make("needle"))) as whole,
        zipfile.ZipFile(out, "w") as archive,
    ):
        for name in whole.namelist():
            part = whole.read(name)
            archive.writestr(name, laughing(part) if b"needle" in part else part)
    return out.getvalue()


def loops() -> Iterator[tuple[str, bytes]]:
    """PDF files in which an object refers to itself, or is nested too deeply."""
    text = documents.stream(b"BT /F1 12 Tf 72 720 Td (words) Tj ET")
    page = (
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources"
        " << /Font << /F1 5 0 R >> /XObject << /X 6 0 R >> >> >>"
    )
    usual = {
        1: "<< /Type /Catalog /Pages 2 0 R /Outlines 7 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: page,
        4: text,
        5: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    form = "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>"
    inner = documents.stream(b"8 0 <<>>", "/Type /ObjStm /N 1 /First 4 /Extends 6 0 R")
    objects: dict[str, dict[int, str | bytes]] = {
        "pages": {2: "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2000000000 >>"},
        "parents": {2: "<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 3 0 R] /Count 2 >>"},
        "contents": {4: "[4 0 R 4 0 R]"},
        "length": {4: text.replace(b"/Length 36", b"/Length 4 0 R")},
        "form": {4: documents.stream(b"/X Do"), 6: documents.stream(b"/X Do /X Do", form)},
        "object stream": {6: inner},
        "outline": {7: "<< /Title (x) /First 7 0 R /Next 7 0 R /Parent 7 0 R /Count 5 >>"},
        "arrays": {6: "[" * 200_000 + "]" * 200_000},
        "states": {4: documents.stream(b"q " * 500_000 + b"[" * 500_000)},
        "flate": {4: documents.stream(zlib.compress(zlib.compress(b" " * (600 << 20))),
                                      "/Filter [/FlateDecode /FlateDecode]")},
    }  # fmt: skip
    for name, changed in objects.items():
        yield name, documents.pdf_of({**usual, **changed})
    yield "tables", documents.pdf_of(usual, "/Prev XREF")


def traps() -> dict[str, bytes]:
    """Crafted documents by file name."""
    found = {f"loop-{name.replace(' ', '-')}.pdf": data for name, data in loops()}
    for make in (documents.docx, documents.xlsx, documents.pptx, documents.odt, documents.epub):
        found[f"swollen.{make.__name__}"] = swollen(make, 64)
        found[f"laughing.{make.__name__}"] = laughing_package(make)
    deep = 200_000
    return found | {
        "laughing.xml": laughing(b"<x>needle</x>"),
        "deep.rtf": rb"{\rtf1 " + b"{" * deep + b"words" + b"}" * deep,
        "deep.xml": b"<?xml version='1.0'?>" + b"<a>" * deep,
        "deep.html": b"<html><body>" + b"<div>words" * deep,
        "wide.html": b"<html><body><table>" + b"<tr><td>x<td>y" * deep,
        "deep.ipynb": b'{"cells":' + b"[" * deep,
        "deep.json": b"[" * deep,
        "deep.eml": b"From: a\nContent-Type: multipart/mixed; boundary=a\n\n"
        + b"--a\nContent-Type: multipart/mixed; boundary=a\n\n" * 2000,
        "bomb.zip": zip_bomb(10),
        "wrong-size.zip": zip_bomb(10, claimed=1 << 20),
        "bomb.docx": zip_bomb(10, "word/document.xml", claimed=1 << 20),
        "nested.zip": nested_bomb(10),
        "bomb.tar.gz": gzip_bomb(10),
        "bomb.txt.zst": zstd_bomb(10),
    }


# Damage --------------------------------------------------------------------------------------


@cache
def valid() -> dict[str, bytes]:
    """A valid document of each type that is extracted, by its suffix."""
    made = (
        documents.pdf, documents.docx, documents.xlsx, documents.pptx, documents.odt,
        documents.epub, documents.rtf,
    )  # fmt: skip
    text = "A needle in a haystack"
    packed = documents.packed({"a.txt": text, "b.html": PAGE.decode()})
    return {
        **{f".{make.__name__}": make(text) for make in made},
        ".ipynb": documents.notebook(text),
        ".eml": documents.mail(text),
        ".xls": documents.xls(text),
        ".html": PAGE,
        ".xml": SITEMAP,
        ".csv": b"a,b\n1,2\n",
        ".json": b'{"a": ["needle", 1.5e3, null]}',
        ".md": b"# Needle\n\nin a [haystack](x)\n",
        ".txt": text.encode("utf-16"),
        ".zip": packed,
        ".tar.gz": documents.tar_gz({"a.txt": text.encode()}),
    }


def fuzzed(number: int) -> tuple[str, bytes]:
    """The suffix and the bytes of a damaged document, always the same for one number."""
    dice = random.Random(number)
    suffix, original = dice.choice(list(valid().items()))
    data = bytearray(original)
    for _ in range(dice.choice([1, 1, 3, 10, 50])):
        at = dice.randrange(len(data) + 1)
        length = dice.choice([0, 1, 2, 4, 16, len(data) // 4])
        piece = data[at : at + length]
        new = dice.choice([
            dice.randbytes(length), b"", bytes(length), b"\xff" * length, piece[::-1],
            piece * dice.choice([2, 9]), str(2 ** dice.choice([31, 32, 63, 64])).encode(),
        ])  # fmt: skip
        data[at : at + length] = new
    return suffix, bytes(data)
