"""Archives as many documents: each member is extracted by the extractor for its type.

Members are read as a stream within limits, so bombs fail early, and are never written to files.
The URL of a member is that of the archive, followed by ``!/`` and the path of the member.
"""

import bz2
import dataclasses
import gzip
import io
import lzma
import posixpath
import re
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from paise2nb.content.extract.types import ARCHIVES, MAX_MEMBERS, TAR, ZIP, choose, signature
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import canonical_url, suffix_of
from paise2nb.jobs.context import Context
from paise2nb.plugins import Document, Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOTAL = 64 << 20  # bytes of all members together, with those of archives in the archive
RATIO = 200  # of those bytes to the size of the archive; text is hardly ever compressed so well
SMALL = 1 << 20  # bytes that are allowed at any ratio
DEPTH = 3  # of archives in archives
CHUNK = 1 << 16

_OPENERS: dict[str | None, Callable[..., Any]] = {
    "application/gzip": gzip.open,
    "application/x-bzip2": bz2.open,
    "application/x-xz": lzma.open,
    "application/zstd": zstd.open,
}
_FORMAT_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, zstd.ZstdError)
_DAMAGED = (*_FORMAT_ERRORS, EOFError, OSError, ValueError, NotImplementedError, struct.error)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


class Allowance:
    """The bytes and members that an archive, with the archives in it, may still contain.

    Args:
        data: The archive.
        url: Its URL, for messages.
        total: The bytes that it may unpack to, if that is no more than `RATIO` times its size.
    """

    def __init__(self, data: bytes, url: str, total: int) -> None:
        self._url = url
        self._limit = self.bytes_left = min(total, max(SMALL, RATIO * len(data)))
        self._members_left = MAX_MEMBERS

    def take(self, number: int = 0, members: int = 0) -> None:
        """Count decoded bytes or members. Raises PermanentError if there are too many."""
        self.bytes_left -= number
        self._members_left -= members
        if self.bytes_left < 0:
            raise self.exceeded(f"unpacks to more than {self._limit} bytes")
        if self._members_left < 0:
            raise self.exceeded(f"holds more than {MAX_MEMBERS} members")

    def exceeded(self, what: str) -> PermanentError:
        """The error for an archive that exceeds a limit."""
        return PermanentError(f"the archive {what}: {self._url}", "too_large")


def check_size(data: bytes, url: str, total: int) -> None:
    """Unpack a zip file without keeping anything, for a parser that would unpack it without limit.

    Args:
        data: The zip file.
        url: Its URL, for messages.
        total: The bytes that it may unpack to.

    Raises:
        PermanentError: ``too_large`` or ``damaged``.
    """
    allowance = Allowance(data, url, total)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                allowance.take(members=1)
                with archive.open(member) as opened:
                    while chunk := opened.read(CHUNK):
                        allowance.take(len(chunk))
    except RuntimeError as error:
        raise PermanentError(f"needs a password: {url}", "password") from error
    except _DAMAGED as error:
        raise PermanentError(f"can't be unpacked ({error}): {url}", "damaged") from error


class _Counted(io.RawIOBase):
    """A stream of decoded bytes that counts them."""

    def __init__(self, stream: Any, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        number: int = self._stream.readinto(buffer)
        self._allowance.take(number)
        return number


def read(context: Context, data: bytes, source: Source) -> list[Document]:
    """Extract the members of an archive, except those without text or without an extractor.

    Raises:
        PermanentError: ``too_large``, ``damaged``, or ``empty`` if no member is left.
    """
    allowance = Allowance(data, source.url, TOTAL)
    try:
        found = {
            canonical_url(document.url or ""): document
            for document in _documents(context, data, source, allowance, 1)
        }
    except _DAMAGED as error:
        message = f"can't be read as {source.mime_type} ({error}): {source.url}"
        raise PermanentError(message, "damaged") from error
    if not found:
        if data.startswith(ZIP) and data[6] & 0x1:  # the first member is encrypted
            raise PermanentError(f"needs a password: {source.url}", "password")
        raise PermanentError(f"no member of the archive can be read: {source.url}", "empty")
    return list(found.values())


def _documents(
    context: Context, data: bytes, source: Source, allowance: Allowance, depth: int
) -> Iterator[Document]:
    for name, content in _members(data, source.url, allowance):
        path = name.replace("\\", "/")
        if _UNSAFE.search(path):
            context.log.warning("refused the member %r of %s", name, source.url)
            continue
        url = f"{source.url}!/{quote(posixpath.normpath(path).encode('utf-8', 'surrogateescape'))}"
        kind, extractor = choose(context.plugins, None, content, suffix_of(url))
        if extractor is None:
            continue
        if kind in ARCHIVES:
            if depth == DEPTH:
                raise allowance.exceeded(f"holds archives in archives, more than {DEPTH} deep")
            yield from _documents(context, content, Source(url, kind), allowance, depth + 1)
            continue
        try:
            made = extractor.function(context, content, Source(url, kind))
        except PermanentError as error:  # the other members may be good
            context.log.warning("skipped a member: %s", error)
            continue
        for document in made if isinstance(made, list) else [made]:
            if document.text.strip():
                facts = {"mime_type": kind, "kind": kind, "final_url": url, "size": len(content)}
                facts["sha256"] = context.cache.put(content)
                metadata = {**document.metadata, "source": facts}
                yield dataclasses.replace(document, url=document.url or url, metadata=metadata)


def _members(data: bytes, url: str, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    if data.startswith(ZIP):
        yield from _zipped(data, allowance)
        return
    opener = _OPENERS.get(signature(data))
    raw = io.BytesIO(data)
    stream = io.BufferedReader(_Counted(opener(raw) if opener else raw, allowance), CHUNK)
    if signature(stream.peek(512)) == TAR:
        yield from _tarred(stream, allowance)
    elif opener:  # a single file, named like the archive without its suffix
        name = posixpath.splitext(posixpath.basename(unquote(urlsplit(url).path)))[0]
        yield name or "content", stream.read()
    else:
        raise ValueError("not an archive")


def _zipped(data: bytes, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:  # before `infolist` takes memory
        raise allowance.exceeded(f"holds more than {MAX_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            allowance.take(members=1)
            if member.is_dir() or member.flag_bits & 0x1:  # encrypted
                continue
            if member.file_size > allowance.bytes_left:  # no need to unpack it
                allowance.take(member.file_size)
            # A member may be compressed in a way that zipfile can't read.
            with suppress(NotImplementedError), archive.open(member) as opened:
                yield member.filename, io.BufferedReader(_Counted(opened, allowance), CHUNK).read()


def _tarred(stream: Any, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            allowance.take(members=1)
            # The holes of a sparse file are not in the stream, so they would not be counted.
            if member.isreg() and not member.issparse() and (file := archive.extractfile(member)):
                yield member.name, file.read()
