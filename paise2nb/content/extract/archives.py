"""Archives as many documents: each member goes through the extractor of its own kind.

Members are read as a stream within limits that a bomb meets early, and none is ever written under
its own name. A member's address is the archive's with ``!/`` and the member's path.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from paise2nb.content.extract.types import ARCHIVES, MOST_MEMBERS, TAR, ZIP, choose, signature
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import canonical_url, suffix_of
from paise2nb.plugins import Document, Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from paise2nb.jobs.context import Context

TOTAL = 64 << 20  # bytes that all members together may have, those of inner archives included
RATIO = 200  # of those bytes to the archive's own, which text hardly ever reaches
SMALL = 1 << 20  # bytes that need no such ratio
DEPTH = 3  # archives in archives
CHUNK = 1 << 16

_OPENERS: dict[str | None, Callable[..., Any]] = {
    "application/gzip": gzip.open,
    "application/x-bzip2": bz2.open,
    "application/x-xz": lzma.open,
    "application/zstd": zstd.open,
}
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError,
    OSError, ValueError, NotImplementedError, struct.error,
)  # fmt: skip
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


@dataclasses.dataclass
class Allowance:
    """What an archive and the archives in it may still hold."""

    url: str
    most: int
    members_left: int = MOST_MEMBERS

    def __post_init__(self) -> None:
        self.bytes_left = self.most

    def take(self, number: int) -> None:
        """Count decoded bytes. Raises PermanentError when they are too many."""
        self.bytes_left -= number
        if self.bytes_left < 0:
            raise self.exceeded(f"unpacks to more than {self.most} bytes")

    def member(self) -> None:
        """Count a member. Raises PermanentError when they are too many."""
        self.members_left -= 1
        if self.members_left < 0:
            raise self.exceeded(f"holds more than {MOST_MEMBERS} members")

    def exceeded(self, what: str) -> PermanentError:
        """The error for an archive that is more than can be taken."""
        return PermanentError(f"the archive {what}: {self.url}", "too_large")


def allowed(data: bytes, url: str, total: int) -> Allowance:
    """What an archive may unpack to: a total in bytes, and no more than `RATIO` times its size."""
    return Allowance(url, min(total, max(SMALL, RATIO * len(data))))


def weigh(data: bytes, url: str, total: int) -> None:
    """Unpack a zip file to nothing, for a parser that would unpack it without limit.

    Raises:
        PermanentError: ``too_large`` or ``damaged``.
    """
    allowance = allowed(data, url, total)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                allowance.member()
                with archive.open(member) as opened:
                    while chunk := opened.read(CHUNK):
                        allowance.take(len(chunk))
    except (*_DAMAGED, RuntimeError) as error:  # RuntimeError: it is encrypted
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
    """Extract the members of an archive; what has no text or no extractor is left out.

    Raises:
        PermanentError: ``too_large``, ``damaged``, or ``empty`` where nothing is left.
    """
    allowance = allowed(data, source.url, TOTAL)
    try:
        found = {
            canonical_url(document.url or ""): document
            for document in _documents(context, data, source, allowance, 1)
        }
    except _DAMAGED as error:
        raise PermanentError(
            f"can't be read as {source.mime_type} ({error}): {source.url}", "damaged"
        ) from error
    if not found:
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
        path = posixpath.normpath(path)
        url = f"{source.url}!/{quote(path.encode('utf-8', 'surrogateescape'))}"
        kind, extractor = choose(context.plugins, None, content, suffix_of(url))
        if extractor is None:
            continue
        if kind in ARCHIVES:
            if depth == DEPTH:
                raise allowance.exceeded(f"holds archives in archives, {DEPTH} deep and more")
            yield from _documents(context, content, Source(url, kind), allowance, depth + 1)
            continue
        try:
            made = extractor.function(context, content, Source(url, kind))
        except PermanentError as error:  # one bad member spoils no others
            context.log.warning("left out a member: %s", error)
            continue
        for document in made if isinstance(made, list) else [made]:
            if document.text.strip():
                own = {
                    "mime_type": kind, "kind": kind, "final_url": url,
                    "sha256": context.cache.put(content), "size": len(content),
                }  # fmt: skip
                yield dataclasses.replace(
                    document,
                    url=document.url or url,
                    metadata={**document.metadata, "source": own},
                )


def _members(data: bytes, url: str, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    if data.startswith(ZIP):
        yield from _zipped(data, allowance)
        return
    opener = _OPENERS.get(signature(data))
    whole = io.BytesIO(data)
    stream = io.BufferedReader(_Counted(opener(whole) if opener else whole, allowance), CHUNK)
    if signature(stream.peek(512)) == TAR:
        yield from _tarred(stream, allowance)
    elif opener:  # one file, called like the archive without its suffix
        name = posixpath.splitext(posixpath.basename(unquote(urlsplit(url).path)))[0]
        yield name or "content", stream.read()
    else:
        raise ValueError("not an archive")


def _zipped(data: bytes, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:  # before a list of them takes memory
        raise allowance.exceeded(f"holds more than {MOST_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            allowance.member()
            if member.is_dir() or member.flag_bits & 0x1:  # encrypted
                continue
            allowance.take(0 if member.file_size <= allowance.bytes_left else member.file_size)
            try:
                opened = archive.open(member)
            except NotImplementedError:  # a compression that this Python does not know
                continue
            with opened:
                yield member.filename, io.BufferedReader(_Counted(opened, allowance), CHUNK).read()


def _tarred(stream: Any, allowance: Allowance) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            allowance.member()
            # The holes of a sparse file are not in the stream, so nothing would count them.
            if member.isreg() and not member.issparse() and (file := archive.extractfile(member)):
                yield member.name, file.read()
