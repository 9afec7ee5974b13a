"""WARC files: each page under its own URL and time, and what is damaged is told and skipped."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

import paise2nb
from paise2nb.app import App
from paise2nb.content import sources
from paise2nb.content.extract import warc
from paise2nb.content.sources import web_archives
from paise2nb.core.errors import UsageError
from paise2nb.jobs.context import Context
from tests.site import Site

LOCAL = {
    "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "workers.retry.max_retries": 0,
}  # fmt: skip
DATE = "2019-03-04T05:06:07Z"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=LOCAL) as app:
        yield app


def page(name: object) -> bytes:
    text = f"The page {name} tells of {name} and of hardly anything else but {name}, at length."
    return f"<html><title>{name}</title><body><article><p>{text}</p></article></body>".encode()


class Written:
    """A WARC file in memory, and where each record begins."""

    def __init__(self, *, packed: bool = True) -> None:
        self.packed = packed
        self.file = io.BytesIO()
        self.starts: list[int] = []
        self._writer = WARCWriter(self.file, gzip=packed)
        self._add(self._writer.create_warcinfo_record("a.warc", {"software": "a test"}))

    def _add(self, record: Any) -> None:
        self.starts.append(self.file.tell())
        self._writer.write_record(record)

    def response(
        self, url: str, body: bytes, status: str = "200 OK", date: str = DATE, **headers: str
    ) -> None:
        http = {"Content-Type": "text/html; charset=utf-8"}
        http |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = StatusAndHeaders(status, list(http.items()), protocol="HTTP/1.1")
        self._add(
            self._writer.create_warc_record(
                url, "response", io.BytesIO(body), http_headers=head,
                warc_headers_dict={"WARC-Date": date},
            )
        )  # fmt: skip

    def resource(self, url: str, body: bytes, mime_type: str) -> None:
        self._add(
            self._writer.create_warc_record(
                url, "resource", io.BytesIO(body), warc_content_type=mime_type,
                warc_headers_dict={"WARC-Date": DATE},
            )
        )  # fmt: skip

    def revisit(self, url: str, body: bytes, of: str, date: str = DATE) -> None:
        digest = "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode()
        record = self._writer.create_revisit_record(url, digest, of, DATE)
        record.rec_headers.replace_header("WARC-Date", date)
        self._add(record)


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def written(request: pytest.FixtureRequest) -> Written:
    return Written(packed=request.param)


def enqueue(app: App, data: bytes, tmp_path: Path, task: str = "warc") -> Any:
    path = tmp_path / ("a.warc.gz" if data.startswith(b"\x1f\x8b") else "a.warc")
    path.write_bytes(data)
    return app.enqueue(task, str(path))


def stored(app: App) -> dict[str, str]:
    return {row["url"]: row["fetched_at"] for row in app.items().to_dicts()}


@pytest.mark.parametrize("task", ["warc", "fetch"])
def test_pages_are_items_under_the_url_and_time_of_their_records(
    app: App, written: Written, tmp_path: Path, task: str
) -> None:
    written.response("http://example.org/a", page("a"))
    written.response("https://example.org/b?c=1", page("b"), date="2020-01-02T03:04:05.5Z")
    written.response("http://example.org/gone", page("gone"), "404 Not Found")
    written.response("http://example.org/moved", b"", "302 Found", Location="/a")
    written.response("http://example.org/a.css", b"p {}", Content_Type="text/css")
    written.resource("http://example.org/notes.txt", b"Notes on the ledger.", "text/plain")
    written.resource("metadata://gnu.org/software/wget/log", b"Saved.", "text/plain")
    job = enqueue(app, written.file.getvalue(), tmp_path, task)
    assert stored(app) == {
        "http://example.org/a": "2019-03-04T05:06:07.000Z",
        "https://example.org/b?c=1": "2020-01-02T03:04:05.500Z",
        "http://example.org/notes.txt": "2019-03-04T05:06:07.000Z",
    }
    if task == "warc":
        assert (job.result()["found"], job.result()["new"]) == (3, 3)
        counts = {name: found["number"] for name, found in job.result()["left_out"].items()}
        assert counts == {"no_answer": 3, "no_page": 1}
        assert "left out: 1 records that are neither a page nor a document: text/css" in (
            job.details()
        )
        assert len(app.jobs(state="stored")) == 3


@pytest.mark.parametrize("task", ["warc", "fetch"])
def test_chunks_and_compression_of_answers_are_removed(
    app: App, written: Written, tmp_path: Path, task: str
) -> None:
    packed = gzip.compress(page("chunked"))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (packed[:40], packed[40:], b""))
    base = "http://example.org/"
    coded = {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"}
    written.response(base + "chunked", chunks, **coded)
    written.response(base + "brotli", brotli.compress(page("brotli")), Content_Encoding="br")
    written.response(base + "deflate", zlib.compress(page("deflate")), Content_Encoding="deflate")
    written.response(base + "kept", page("kept"), Content_Encoding="gzip")  # decoded by the writer
    enqueue(app, written.file.getvalue(), tmp_path, task)
    names = ("chunked", "brotli", "deflate", "kept")
    assert {row["title"] for row in app.items().to_dicts()} == {*names}


@pytest.mark.parametrize("task", ["warc", "fetch"])
def test_a_revisit_has_the_body_of_the_record_that_it_refers_to(
    app: App, written: Written, tmp_path: Path, task: str
) -> None:
    base = "http://example.org/"
    written.response(base + "a", page("a"))
    written.revisit(base + "again", page("a"), base + "a", "2021-01-01T00:00:00Z")
    written.revisit(base + "a", page("a"), base + "a", "2022-01-01T00:00:00Z")
    written.revisit(base + "unknown", page("elsewhere"), base + "elsewhere")
    job = enqueue(app, written.file.getvalue(), tmp_path, task)
    assert stored(app) == {
        base + "a": "2022-01-01T00:00:00.000Z", base + "again": "2021-01-01T00:00:00.000Z",
    }  # fmt: skip
    if task == "warc":
        assert job.result()["left_out"] == {
            "elsewhere": {"number": 1, "examples": [base + "unknown"]}
        }


@pytest.mark.parametrize("task", ["warc", "fetch"])
@pytest.mark.parametrize("damage", ["overwritten", "cut_off", "wrong_length"])
def test_a_damaged_record_is_told_and_hides_no_other(
    app: App, written: Written, tmp_path: Path, task: str, damage: str
) -> None:
    for name in "abcde":
        written.response(f"http://example.org/{name}", page(name * 300))
    data, starts = bytearray(written.file.getvalue()), written.starts
    packed = data.startswith(b"\x1f\x8b")
    match damage:
        case "overwritten":  # the beginning of the record of c, or its compressed data
            at = starts[3] + (20 if packed else 0)
            data[at : at + 12] = b"\xff" * 12
            lost = "c"
        case "cut_off":
            del data[-150:]
            lost = "e"
        case "wrong_length":
            record = bytes(data[starts[3] : starts[4]])
            record = gzip.decompress(record) if packed else record
            length = record.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            record = record.replace(length, b"%d" % (int(length) - 7), 1)
            data[starts[3] : starts[4]] = gzip.compress(record) if packed else record
            lost = "c"
    job = enqueue(app, bytes(data), tmp_path, task)
    assert sorted(url[-1] for url in stored(app)) == sorted(set("abcde") - {lost})
    place = starts["abcde".index(lost) + 1]
    if task == "warc":
        assert job.result()["left_out"]["damaged"]["number"] == 1
        assert f"1 damaged records: byte {place}: " in job.details()
    else:
        [told] = [job for job in job.tree if job.task == "extract"]
        assert f"byte {place} of it can't be read" in told.result()["warning"]


def test_a_file_that_is_compressed_as_a_whole_is_read(app: App, tmp_path: Path) -> None:
    written = Written(packed=False)
    written.response("http://example.org/a", page("a"))
    written.response("http://example.org/b", page("b"))
    enqueue(app, gzip.compress(written.file.getvalue()), tmp_path)
    assert len(stored(app)) == 2


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/2", b"HTTP/2.0", b"HTTP/3"])
def test_answers_of_every_version_of_http_are_read(version: bytes) -> None:
    made = Written(packed=False)
    made.response("https://a.example/", page("a"))
    data = made.file.getvalue().replace(b"HTTP/1.1", version.ljust(8))
    [record] = warc.records(io.BufferedReader(io.BytesIO(data)))
    assert isinstance(record, warc.Record)
    assert (record.status, record.data) == (200, page("a"))


@pytest.mark.parametrize("declared", ["text/html charset=utf-8", "html"])
def test_a_page_is_known_whatever_its_record_declares(
    app: App, tmp_path: Path, declared: str
) -> None:
    written = Written()
    written.response("http://example.org/a", page("a"), Content_Type=declared)
    enqueue(app, written.file.getvalue(), tmp_path)
    assert [row["mime_type"] for row in app.items().to_dicts()] == ["text/html"]


def test_a_second_time_only_what_is_newer_is_enqueued(app: App, tmp_path: Path) -> None:
    first = Written()
    first.response("http://example.org/a", page("a"), date="2020-01-01T00:00:00Z")
    first.response("http://example.org/b", page("b"), date="2020-01-01T00:00:00Z")
    enqueue(app, first.file.getvalue(), tmp_path)
    second = Written()
    second.response("http://example.org/a", page("old a"), date="2019-01-01T00:00:00Z")
    second.response("http://example.org/b", page("new b"), date="2021-01-01T00:00:00Z")
    result = enqueue(app, second.file.getvalue(), tmp_path, "warc").result()
    assert result["new"] == 1
    assert {row["title"] for row in app.items().to_dicts()} == {"a", "new b"}
    result = enqueue(app, second.file.getvalue(), tmp_path, "warc").result()
    assert result["left_out"]["up_to_date"]["number"] == 2
    assert "warning" not in result


def test_an_interrupted_file_goes_on_and_doubles_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PORTION", 10)
    written = Written()
    for number in range(25):
        written.response(f"http://example.org/{number}", page(number))
    with paise2nb.open("development", tmp_path / "data", LOCAL) as app:
        job_store = app.queue.job_store
        job = enqueue(app, written.file.getvalue(), tmp_path)
        worker = job_store.register("default", 1)
        claim = job_store.claim(worker, app.parts.limits())
        assert claim is not None
        web_archives.web_archive(Context(app.parts, claim), *json.loads(claim.args))
        assert len(app.jobs(task="fetch")) == 20  # and then its process is killed: no outcome
        job_store.release(worker)
        app.queue.run_ready()
        assert job.result() == {"found": 25, "new": 5}
        assert len(app.jobs(task="fetch")) == len(app.items()) == 25


def test_a_page_of_an_archive_is_no_reason_not_to_fetch_it_from_the_web(
    app: App, site: Site, tmp_path: Path
) -> None:
    written = Written()
    written.response(site.url("/ok"), page("what it was"))
    enqueue(app, written.file.getvalue(), tmp_path)
    assert app.enqueue("fetch", site.url("/ok")).answer == "new"
    assert site.visits["/ok"] == 1
    assert [row["title"] for row in app.items().to_dicts()] == ["A small page"]


def test_what_is_no_file_or_no_archive_is_refused(app: App, tmp_path: Path) -> None:
    for given in ("http://example.org/a.warc", str(tmp_path / "missing.warc"), str(tmp_path)):
        with pytest.raises(UsageError):
            app.enqueue("warc", given)
    job = enqueue(app, b"no archive at all", tmp_path)
    assert "0 found" in job.summary()


@pytest.mark.parametrize("part", ["warc", "http"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_head_that_never_ends_is_damage_and_takes_no_memory(
    written: Written, part: str, lines: int
) -> None:
    written.response("http://example.org/a", page("a"))
    many = (b"X: " + b"x" * (40_000_000 // lines) + b"\r\n") * lines
    http = b"HTTP/1.1 200 OK\r\n" + many * (part == "http") + b"\r\nbody"
    start = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/bomb\r\n"
    start += f"WARC-Date: {DATE}\r\nContent-Type: application/http; msgtype=response\r\n".encode()
    start += many * (part == "warc") + f"Content-Length: {len(http)}\r\n\r\n".encode()
    bomb = start + http + b"\r\n\r\n"
    written.file.write(gzip.compress(bomb, 1) if written.packed else bomb)
    written.response("http://example.org/b", page("b"))
    del many, http, start, bomb
    file = io.BufferedReader(io.BytesIO(written.file.getvalue()))
    tracemalloc.start()
    try:
        found = list(warc.records(file))
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()
    reasons = [each.reason if isinstance(each, warc.Damage) else each.url[-1] for each in found]
    assert reasons == ["a", "a record with a head of more than 1048576 bytes", "b"]


def test_random_damage_raises_nothing() -> None:
    rng = random.Random(5)
    for packed in (True, False):
        written = Written(packed=packed)
        for name in "abcdef":
            written.response(f"http://example.org/{name}", page(name))
        intact = written.file.getvalue()
        for _ in range(150):
            data = bytearray(intact)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(data))
                data[at : at + rng.choice((0, 1, 9))] = rng.randbytes(rng.choice((0, 1, 3)))
            found = list(warc.records(io.BufferedReader(io.BytesIO(bytes(data)))))
            assert all(isinstance(record, warc.Record | warc.Damage) for record in found)
