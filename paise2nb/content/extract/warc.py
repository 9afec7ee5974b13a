"""The pages in WARC files, which ArchiveBox, wget, browsers and the web's archives write.

warcio reads the heads of records. The file around them is read here, because a damaged record must
not hide the others.
"""

import io
import math
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message
from typing import Any, BinaryIO, NamedTuple

from paise2nb.content.extract.types import FEEDS, IMAGES, Member
from paise2nb.core import urls
from paise2nb.core.errors import PermanentError

GZIP = b"\x1f\x8b\x08"
CHUNK = 1 << 16
LARGEST = 64 << 20  # bytes of the body of a record
LINE = 1 << 16
HEAD = 1 << 20  # bytes of the heads of a record
MOST_DAMAGED = 1000  # parts of a file; each may be read to its end
# Parts of pages, and data that only their scripts read.
_NO_PAGES = (
    *("text/css", "text/javascript", "application/javascript", "application/json"),
    *("application/ld+json", "application/x-ndjson", *FEEDS),
)
_READ = ("response", "resource", "revisit")


class Record(NamedTuple):
    """A record with the answer of a server, or with a file.

    Attributes:
        fetched_at: In seconds since the epoch.
        status: Of HTTP; None for a file.
        digest: Of the body, as the writer gave it; None if it did not.
        refers_to: The URL of the record with the same body, for one that has none itself.
        data: The decoded body, or why it can't be used; None if another record has it.
    """

    url: str
    fetched_at: float
    status: int | None
    mime_type: str | None
    charset: str | None
    digest: str | None
    refers_to: str | None
    data: bytes | PermanentError | None

    @property
    def is_answer(self) -> bool:
        """Whether it is what a successful request to a web server has led to."""
        return urls.host_of(self.url) is not None and 200 <= (self.status or 200) < 300


class Damage(NamedTuple):
    """A part of a file that can't be read: the first byte of it, and the reason."""

    at: int
    reason: str


def is_packed(data: bytes) -> bool:
    """Whether bytes are a WARC file that is compressed with gzip."""
    try:
        return zlib.decompressobj(31).decompress(data[:512], 8).startswith(b"WARC/")
    except zlib.error:
        return False


def is_page(kind: str, ocr: str = "never") -> bool:
    """Whether records of a type are pages or documents, and not parts of other pages."""
    return kind not in _NO_PAGES and (kind not in IMAGES or ocr != "never")


def members(data: bytes, url: str, take: Callable[[int, int], None]) -> Iterator[Member]:
    """The pages of a WARC file as members of an archive.

    Args:
        data: The file, perhaps compressed.
        url: Its URL, for messages.
        take: Is told the bytes and the number of members that were read.
    """
    bodies: dict[str | None, Record] = {}
    for record in records(io.BufferedReader(io.BytesIO(data))):
        if isinstance(record, Damage):
            problem = f"byte {record.at} of it can't be read ({record.reason})"
            yield Member("", PermanentError(problem, "damaged"), url=url)
            continue
        body = record
        if record.data is None:
            body = bodies.get(record.digest) or bodies.get(record.refers_to) or record
        if body.data is None or not record.is_answer:
            continue
        bodies[record.url] = body
        if record.digest:
            bodies[record.digest] = body
        take(0 if isinstance(body.data, PermanentError) else len(body.data), 1)
        kind = (body.mime_type, body.charset)
        yield Member("", body.data, *kind, record.url, record.fetched_at)


def records(file: io.BufferedReader, limit: int = LARGEST) -> Iterator[Record | Damage]:
    """The answers and files in a WARC file, in its order, and what of it is damaged.

    Args:
        file: The file, plain or compressed with gzip, each record alone or all together.
        limit: The largest size of a body in bytes.
    """
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.recordloader import ArcWarcRecordLoader
    from warcio.statusandheaders import StatusAndHeadersParserException

    failures = (
        *(ArchiveLoadFailed, StatusAndHeadersParserException, zlib.error, EOFError, OSError),
        *(ValueError, TypeError, AttributeError),  # what warcio raises for missing headers
    )
    packed = file.peek(len(GZIP)).startswith(GZIP)
    loader, start, was_damaged = ArcWarcRecordLoader(), 0, False
    loader.http_parser.statuslist = [*loader.HTTP_TYPES, "HTTP/2.0", "HTTP/2", "HTTP/3"]
    for _ in range(MOST_DAMAGED):
        file.seek(start)
        members = _Gunzipped(file)
        stream = io.BufferedReader(members, CHUNK) if packed else file
        try:
            while line := _next_line(stream):
                start = members.start if packed else file.tell() - len(line)
                if (record := _record(loader, stream, line, limit)) is not None:
                    yield record
                was_damaged = False
            return
        except failures as error:
            start = members.start if packed else start
            if not was_damaged:
                yield Damage(start, str(error).partition("\n")[0] or type(error).__name__)
            was_damaged = True
        if (start := _find(file, start + 1, GZIP if packed else b"\nWARC/")) < 0:
            return
        start += not packed
    yield Damage(start, f"{MOST_DAMAGED} parts before it can't be read")


def _next_line(stream: BinaryIO) -> bytes:
    """The first line of the next record; empty at the end of the file."""
    while (line := stream.readline(LINE)) and not line.strip():
        pass
    return line


def _record(loader: Any, stream: Any, line: bytes, limit: int) -> Record | None:
    """Read a record. None if it is of another type. Raises an error if it is damaged."""
    lines = _Lines(stream)
    found = loader.parse_record_stream(lines, line, "warc")
    lines.left = math.inf
    if found.length is None:
        raise ValueError("a record without a length")
    headers, http = found.rec_headers, found.http_headers
    data = None
    if found.rec_type in ("response", "resource"):
        data = _body(found, limit)
    while found.raw_stream.read(CHUNK):
        pass
    if found.raw_stream.limit:
        raise EOFError("a record that is cut off")
    following = stream.peek(4)[:4]
    if following.strip() and not following.startswith(b"WARC"):
        raise ValueError("a record with a wrong length")
    if found.rec_type not in _READ or (found.rec_type == "response" and http is None):
        return None
    date = datetime.fromisoformat(headers.get_header("WARC-Date"))
    url = headers.get_header("WARC-Target-URI")
    if not url:
        raise ValueError("a record without a URL")
    declared = http.get_header("content-type") if http else found.content_type
    return Record(
        url,
        (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp(),
        int(http.get_statuscode()) if http else None,
        *_content_type(declared),
        headers.get_header("WARC-Payload-Digest"),
        headers.get_header("WARC-Refers-To-Target-URI") if data is None else None,
        data,
    )


def _content_type(value: str | None) -> tuple[str | None, str | None]:
    """The MIME type and the character set in a header, None for each that it does not tell."""
    header = Message()
    header["Content-Type"] = " ".join((value or "").split())
    kind = header.get_content_type()  # text/plain if there is none
    is_told = " " not in kind and header["Content-Type"].lower().startswith(kind)
    return kind if is_told else None, header.get_content_charset()


def _body(found: Any, limit: int) -> bytes | PermanentError:
    """The body of a record, without the chunks and the compression of its transfer."""
    from urllib3 import HTTPResponse
    from urllib3.exceptions import HTTPError
    from warcio.bufferedreaders import ChunkedDataReader

    too_large = PermanentError(f"larger than {limit} bytes", "too_large")
    http, stream = found.http_headers, found.raw_stream
    coding = (http and http.get_header("content-encoding")) or ""
    if http and "chunked" in (http.get_header("transfer-encoding") or "").lower():
        stream = ChunkedDataReader(stream)
    body: bytes = stream.read(limit + 1)
    if len(body) > limit:
        return too_large
    if not coding:
        return body
    data = bytearray()
    answer = HTTPResponse(io.BytesIO(body), {"Content-Encoding": coding}, preload_content=False)
    try:
        for chunk in answer.stream(CHUNK, decode_content=True):
            data += chunk
            if len(data) > limit:
                return too_large
    except HTTPError:  # many writers keep the header of a body that they have decoded
        return body
    return bytes(data) or body


class _Lines:
    """A stream with bounded lines, because warcio keeps them. It may come from a bomb.

    Attributes:
        left: The bytes that they may still have.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self._stream = stream
        self.left: float = HEAD

    def readline(self, size: int | None = None) -> bytes:
        line = self._stream.readline(LINE if size is None else min(size, LINE))
        self.left -= len(line)
        if self.left < 0:
            raise ValueError(f"a record with a head of more than {HEAD} bytes")
        return line


class _Gunzipped(io.RawIOBase):
    """What a file of gzip members contains, and where the member begins that is being read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._rest = b""
        self._decoder = zlib.decompressobj(31)
        self.start = file.tell()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decoder.eof:
                self._rest = self._decoder.unused_data
                self._decoder = zlib.decompressobj(31)
                self.start = self._file.tell() - len(self._rest)
            packed = self._rest or self._file.read(CHUNK)
            data = self._decoder.decompress(packed, len(buffer))
            self._rest = self._decoder.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed and not self._decoder.eof:
                if self._file.tell() > self.start:
                    raise EOFError("the file is cut off")
                return 0


def _find(file: BinaryIO, start: int, text: bytes) -> int:
    """Where a text is first found in a file from a position on; -1 if it is not."""
    file.seek(start)
    found = b""
    while chunk := file.read(1 << 20):
        found += chunk
        if (at := found.find(text)) >= 0:
            return start + at
        start += len(found) - len(text) + 1
        found = found[1 - len(text) :]
    return -1
