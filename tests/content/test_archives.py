"""Archives: many items from one file, and no harm by bombs and crafted names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.content.extract.archives import TOTAL
from paise2nb.content.extract.types import MAX_MEMBERS
from tests import documents
from tests.site import Site, bomb, zstd


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {
        "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False,
        "workers.retry.max_retries": 0,
    }  # fmt: skip
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        yield app


def zipped(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return data.getvalue()


MEMBERS = {
    "./notes.md": b"# Notes\n\nwords in Markdown",
    "deep/er/ä b#1.txt": "größer".encode(),
    "report.pdf": documents.pdf("words in a page"),
    "picture.png": b"\x89PNG\r\n\x1a\n",
    "empty.txt": b"",
}
FORMS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.tar.gz": lambda members: gzip.compress(tarred(members)),
    "a.tgz": lambda members: gzip.compress(tarred(members)),
    "a.tar.bz2": lambda members: bz2.compress(tarred(members)),
    "a.tar.xz": lambda members: lzma.compress(tarred(members)),
    "a.tar.zst": lambda members: zstd.compress(tarred(members)),
}


def fetched(app: App, site: Site, body: bytes, path: str = "/a.zip") -> list[dict[str, object]]:
    """The items that an archive becomes, sorted by URL."""
    app.enqueue("fetch", site.add(path, body, "application/octet-stream"))
    rows = [app.store.get(row["id"]) for row in app.items().to_dicts()]
    return sorted((row for row in rows if row), key=lambda row: str(row["url"]))


def failure(app: App, site: Site, body: bytes, path: str = "/a.zip") -> tuple[str, str]:
    assert fetched(app, site, body, path) == []
    (job,) = app.jobs(state="failed").to_dicts()
    return job["error_class"], job["error"]


@pytest.mark.parametrize("name", FORMS)
def test_each_member_becomes_an_item_of_its_own_type(app: App, site: Site, name: str) -> None:
    rows = fetched(app, site, FORMS[name](MEMBERS), f"/{name}")
    base = site.url(f"/{name}!/")
    assert [(row["url"], row["mime_type"], row["text"]) for row in rows] == [
        (base + "deep/er/%C3%A4%20b%231.txt", "text/plain", "größer"),
        (base + "notes.md", "text/markdown", "# Notes\n\nwords in Markdown"),
        (base + "report.pdf", "application/pdf", "words in a page"),
    ]
    assert rows[1]["title"] == "Notes"
    assert rows[1]["size"] == len(MEMBERS["./notes.md"])


def test_a_member_can_be_extracted_again_alone(app: App, site: Site) -> None:
    row = fetched(app, site, zipped(MEMBERS))[1]
    assert app.cache.get(str(row["sha256"])) == MEMBERS["./notes.md"]
    job = app.enqueue("extract", row["id"])
    assert [item.id for item in job.items] == [row["id"]]
    assert job.items[0].text == row["text"]
    assert len(app.items()) == 3


def test_a_single_compressed_file_is_one_item(app: App, site: Site) -> None:
    (row,) = fetched(app, site, gzip.compress(b"words"), "/notes.txt.gz")
    assert (row["url"], row["text"]) == (site.url("/notes.txt.gz!/notes.txt"), "words")


@pytest.mark.parametrize("end", ["?utm_source=x", "?a=1&utm_source=x", "#top"])
def test_members_of_an_archive_are_items_whatever_its_url_ends_with(
    app: App, site: Site, end: str
) -> None:
    body = zipped({"a.txt": b"one", "b.txt": b"two"})
    app.enqueue("fetch", site.add("/a.zip", body, "application/zip") + end)
    assert sorted(item.text for item in app.items()) == ["one", "two"]


def test_a_compressed_file_in_an_archive_keeps_its_name(app: App, site: Site) -> None:
    body = zipped({"deep/notes.md.gz": gzip.compress(b"# Words")})
    app.enqueue("fetch", site.add("/get", body, "application/zip") + "?id=1")
    (row,) = app.items().to_dicts()
    assert row["url"] == site.url("/get?id=1!/deep/notes.md.gz!/notes.md")
    assert row["mime_type"] == "text/markdown"


def test_archives_in_archives_are_extracted(app: App, site: Site) -> None:
    inner = gzip.compress(tarred({"b.txt": b"words"}))
    (row,) = fetched(app, site, zipped({"inner.tgz": inner}))
    assert row["url"] == site.url("/a.zip!/inner.tgz!/b.txt")


@pytest.mark.parametrize(
    "name",
    ["../x.txt", "a/../../x.txt", "/etc/x.txt", "..\\x.txt", "C:\\x.txt", "C:/x.txt", "..", "a/.."],
)
@pytest.mark.parametrize("form", ["a.zip", "a.tar"])
def test_member_names_outside_of_the_archive_are_refused(
    app: App, site: Site, form: str, name: str
) -> None:
    body = FORMS[form]({name: b"evil words", "good.txt": b"good words"})
    (row,) = fetched(app, site, body, f"/{form}")
    assert row["url"] == site.url(f"/{form}!/good.txt")
    assert list(app.data_dir.parent.rglob("x.txt")) == []
    (job,) = app.jobs(task="extract", all=True)
    assert f"left out: its name is refused: {site.url(f'/{form}!/')}" in job.result()["warning"]


def test_the_same_name_twice_is_one_item(app: App, site: Site) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", "last")
    (row,) = fetched(app, site, data.getvalue())
    assert row["text"] == "last"


def nested(depth: int) -> bytes:
    body = b"words"
    for level in range(depth):
        body = zipped({"a.txt" if level == 0 else "a.zip": body})
    return body


def lying() -> bytes:
    """A zip file with a member that is larger than declared."""
    size = (TOTAL + 1).to_bytes(4, "little")
    return zipped({"a.txt": bytes(TOTAL + 1)}).replace(size, (10).to_bytes(4, "little"))


HOSTILE = [
    ("a.zip", lambda: zipped({"a.txt": bytes(TOTAL + 1)}), "too_large", "unpacks to more than"),
    ("a.zip", lying, "damaged", "can't be read as application/zip"),
    ("a.zip", lambda: zipped({"a.txt": bytes(8 << 20)}), "too_large", "unpacks to more than"),
    ("a.zip", lambda: nested(4), "too_large", "holds archives in archives, more than 3 deep"),
    ("a.zip", lambda: zipped({"a.zip": zipped({"a.txt": bytes(8 << 20)})}), "too_large", "unpacks"),
    ("a.gz", bomb, "too_large", "unpacks to more than"),
    ("a.zst", lambda: bomb("zstd"), "too_large", "unpacks to more than"),
    ("a.tgz", lambda: gzip.compress(tarred({"a": bytes(256 << 20)})), "too_large", "unpacks to"),
    ("a.zip", lambda: zipped({f"{n}": b"x" for n in range(MAX_MEMBERS + 1)}), "too_large",
     f"holds more than {MAX_MEMBERS} members"),
    ("a.tar", lambda: tarred({f"{n}": b"" for n in range(MAX_MEMBERS)}), "too_large",
     f"holds more than {MAX_MEMBERS} members"),
    ("a.zip", lambda: zipped(MEMBERS)[:-30], "damaged", "can't be read as application/zip"),
    ("a.tgz", lambda: gzip.compress(tarred(MEMBERS))[:-30], "damaged", "can't be read as"),
    ("a.zip", lambda: zipped({"a.png": b"\x89PNG\r\n\x1a\n"}), "empty", "no member of the archive"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "word", "message"), HOSTILE)
def test_archives_that_are_too_large_or_damaged_fail_with_the_reason(
    app: App, site: Site, name: str, make: Callable[[], bytes], word: str, message: str
) -> None:
    error_class, error = failure(app, site, make(), f"/{name}")
    assert error_class == word
    assert message in error
    assert error.endswith(site.url(f"/{name}"))


def named(*names: bytes) -> bytes:
    """A zip file whose members have these names, without the flag for UTF-8."""
    data = io.BytesIO()
    stand_ins = [f"{number}".rjust(len(name), "~") for number, name in enumerate(names)]
    with zipfile.ZipFile(data, "w") as archive:
        for number, name in enumerate(stand_ins):
            archive.writestr(name, f"words {number}")
    body = data.getvalue()
    for name, stand_in in zip(names, stand_ins, strict=True):
        body = body.replace(stand_in.encode(), name)
    return body


NAMES = [
    ("cp932", ["新しいテキスト.txt", "資料/写真.txt"]),
    ("gb18030", ["蝴蝶代码说明文件.txt", "使用手册.txt"]),
    ("big5", ["使用說明.txt", "資料庫/簡介.txt"]),
    ("cp949", ["한글 문서.txt"]),
    ("cp866", ["Журнал приливов.txt", "счёт.txt"]),
    ("cp437", ["façade.txt", "Größe/übersicht.txt"]),
    ("cp1252", ["Größe/Übersicht.txt", "résumé.txt"]),
    ("cp850", ["São João.txt", "Ærø.txt"]),
    ("cp852", ["Wykład.txt"]),
    ("cp852", ["žluťoučký kůň.txt"]),
    ("cp852", ["Szerződés.txt"]),
    ("cp1250", ["Příloha.txt"]),
    ("utf-8", ["Größenübersicht.txt", "写真.txt"]),
]


@pytest.mark.parametrize(("codec", "names"), NAMES)
def test_names_of_members_are_decoded_as_they_were_written(
    app: App, site: Site, codec: str, names: list[str]
) -> None:
    rows = fetched(app, site, named(*(name.encode(codec) for name in names), b"plain.txt"))
    expected = {name.rpartition("/")[2] for name in [*names, "plain.txt"]}
    assert {row["title"] for row in rows} == expected


def test_a_name_in_an_extra_field_outweighs_the_other(app: App, site: Site) -> None:
    data, member = io.BytesIO(), zipfile.ZipInfo("x.txt")
    real = "Größe.txt".encode()
    field = struct.pack("<BL", 1, zlib.crc32(b"\x81.txt")) + real
    member.extra = struct.pack("<HH", 0x7075, len(field)) + field
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(member, "words")
    (row,) = fetched(app, site, data.getvalue().replace(b"x.txt", b"\x81.txt"))
    assert row["title"] == "Größe.txt"


def test_members_that_cannot_be_read_are_named_beside_the_others(app: App, site: Site) -> None:
    body = zipped({"a.txt": b"good words", "b.png": b"\x89PNG\r\n\x1a\n", "c.txt": b"secret"})
    # The flag of the last member says that it is encrypted, in both of its headers.
    local, central = body.rindex(b"PK\x03\x04"), body.rindex(b"PK\x01\x02")
    locked = bytearray(body)
    locked[local + 6] |= 1
    locked[central + 8] |= 1
    (row,) = fetched(app, site, bytes(locked))
    assert row["text"] == "good words"
    named = [
        f"needs a password: {site.url('/a.zip!/c.txt')}",
        f"no extractor for image/png, unless extract.ocr is auto: {site.url('/a.zip!/b.png')}",
    ]
    (job,) = app.jobs(task="extract", all=True)
    assert job.result()["warning"] == f"left out: {'; '.join(named)}"
    page = app.job(job.page_id)
    for form in (page.details(), page._repr_html_(), str(app.item(row["id"]))):
        assert "left out: needs a password: " in form


def test_a_damaged_member_does_not_cost_the_others(app: App, site: Site) -> None:
    body = zipped({"a.txt": b"good words", "b.zip": zipped({"c.txt": b"lost"})[:-30]})
    (row,) = fetched(app, site, body)
    assert row["url"] == site.url("/a.zip!/a.txt")


def test_a_locked_archive_needs_a_password(app: App, site: Site) -> None:
    body = bytearray(zipped({"a.txt": b"secret"}))
    body[6] |= 1
    body[body.rindex(b"PK\x01\x02") + 8] |= 1
    assert failure(app, site, bytes(body))[0] == "password"


PACKAGES = [
    {"[Content_Types].xml": b"<Types/>", "visio/document.xml": b"<words/>"},
    {"mimetype": b"application/vnd.adobe.indesign-idml-package", "content.xml": b"<words/>"},
    {"Index/Document.iwa": b"x", "Metadata/BuildVersionHistory.plist": b"<plist/>"},
]


@pytest.mark.parametrize("members", PACKAGES)
def test_the_parts_of_a_package_are_no_documents(
    app: App, site: Site, members: Mapping[str, bytes]
) -> None:
    assert failure(app, site, zipped(members))[0] == "unsupported"


def test_members_keep_their_types_where_the_url_has_a_query(app: App, site: Site) -> None:
    app.enqueue("fetch", site.add("/download", zipped(MEMBERS), "application/zip") + "?id=1")
    rows = sorted(app.items().to_dicts(), key=lambda row: str(row["url"]))
    assert rows[0]["url"] == site.url("/download?id=1!/deep/er/%C3%A4%20b%231.txt")
    assert [row["title"] for row in rows[1:]] == ["Notes", "A small PDF"]


def test_random_damage_gives_documents_or_a_permanent_error(app: App) -> None:
    from paise2nb.content.extract.archives import read
    from paise2nb.plugins import Source

    claim = type("Claim", (), {"task": "extract", "id": 0})()
    context = paise2nb.Context(app.parts, claim)  # type: ignore[arg-type]
    small = {"a.txt": b"words and words", "b/c.md": b"# more"}
    for form in (zipped, tarred, FORMS["a.tar.gz"], FORMS["a.tar.xz"], FORMS["a.tar.zst"]):
        body = bytearray(form(small))
        for position in range(0, len(body), max(1, len(body) // 150)):
            damaged = bytes(body[:position]) + bytes([body[position] ^ 0x5A]) + body[position + 1 :]
            for data in (bytes(damaged), bytes(body[:position])):
                # Any other exception fails the test.
                with suppress(paise2nb.PermanentError):
                    assert read(context, data, Source("http://x/a.zip", "application/zip"))


def test_of_an_archive_that_is_cut_off_what_came_is_kept(app: App, tmp_path: Path) -> None:
    noise = random.Random(3).randbytes
    members = {f"{n}.txt": noise(6000).hex().encode() for n in range(6)}
    data = documents.tar_gz(members)
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    job = app.enqueue("fetch", tmp_path / "a.tar.gz")
    names = [row["url"].rpartition("!/")[2] for row in app.items().to_dicts()]
    assert 1 < len(names) < 6
    assert set(names) < set(members)
    [extract] = [part for part in job.tree if part.task == "extract"]
    assert "left out: can't be read" in extract.result()["warning"]
