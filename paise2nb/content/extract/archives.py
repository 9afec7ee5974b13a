"""Archives, mailboxes and e-mails as many documents, each by the extractor for its type.

Members are read as a stream within limits, so bombs fail early, and are never written to files.
The URL of a member is that of its container, followed by ``!/`` and the path of the member.
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
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from paise2nb.content.extract import mail, outlook, warc
from paise2nb.content.extract.types import (
    ARCHIVES,
    MAILBOX,
    MAILS,
    MAX_MEMBERS,
    OUTLOOK,
    TAR,
    WARC,
    ZIP,
    Member,
    choose,
    require_distinct_urls,
    signature,
)
from paise2nb.content.extract.zip_names import names_of
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import canonical_url, name_of, suffix_of
from paise2nb.jobs.context import Context
from paise2nb.plugins import Document, Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOTAL = 64 << 20  # bytes of all members together, with those of archives in the archive
RATIO = 200  # of those bytes to the size of the archive; text is hardly ever compressed so well
SMALL = 1 << 20  # bytes that are allowed at any ratio
DEPTH = 12  # of containers in containers, where an archive counts as four
SKIPPED = 20  # errors of members that are kept with the first document
CHUNK = 1 << 16
WRITERS = 16  # threads that put members into the cache

_OPENERS: dict[str | None, Callable[..., Any]] = {
    "application/gzip": gzip.open,
    "application/x-bzip2": bz2.open,
    "application/x-xz": lzma.open,
    "application/zstd": zstd.open,
}
_FORMAT_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, zstd.ZstdError)
_DAMAGED = (*_FORMAT_ERRORS, EOFError, OSError, ValueError, struct.error, RuntimeError)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]|^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")


CONTAINERS = (*ARCHIVES, *MAILS, WARC)


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
    except NotImplementedError as error:  # is a RuntimeError
        raise PermanentError(f"can't be unpacked ({error}): {url}", "unsupported") from error
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
        # Not `readinto`, which loses what comes before the damage that it meets.
        number: int = self._stream.readinto1(buffer)
        self._allowance.take(number)
        return number


def read(context: Context, data: bytes, source: Source) -> list[Document]:
    """Extract the text of an e-mail and the members of any container.

    The errors of members that can't be read are ``left_out`` in the metadata of the first document.

    Raises:
        PermanentError: ``too_large``, ``damaged``, ``password``, or ``empty`` if no member is left.
    """
    # The disk writes several files in the time of one.
    with ThreadPoolExecutor(WRITERS) as writers:
        unpacking = _Unpacking(context, Allowance(data, source.url, TOTAL), writers)
        container = dataclasses.replace(source, url=_base_of_members(source.url))
        found = {
            canonical_url(document.url or source.url): document
            for document in unpacking.documents(data, container, DEPTH)
        }
    documents = list(found.values())
    for facts in (document.metadata.get("source") for document in documents):
        if facts is not None:
            facts["sha256"] = facts["sha256"].result()
    skipped = sorted(unpacking.skipped, key=lambda error: error.error_class == "unsupported")
    if not documents:
        for error in skipped:
            if error.error_class not in ("unsupported", "empty"):
                reason = str(error).rpartition(": ")[0]  # without the URL of the member
                raise PermanentError(f"{reason}: {source.url}", error.error_class)
        raise PermanentError(f"no member of the archive can be read: {source.url}", "empty")
    if skipped:
        named = [str(error) for error in skipped[:SKIPPED]]
        named += [f"and {len(skipped) - SKIPPED} more"] if len(skipped) > SKIPPED else []
        context.log.warning("skipped %s", "; ".join(named))
        metadata = {**documents[0].metadata, "left_out": named}
        documents[0] = dataclasses.replace(documents[0], metadata=metadata)
    return documents


def _base_of_members(url: str) -> str:
    """The URL of a container, without an end that would make all members one item.

    That is a fragment or a tracking parameter, which `canonical_url` would drop with the member.
    """
    canonical = canonical_url(url)
    return canonical if canonical_url(f"{url}!/") == canonical else url


class _Unpacking:
    """The documents of a container, and the errors of members that can't be read."""

    def __init__(self, context: Context, allowance: Allowance, writers: Executor) -> None:
        self._context, self._allowance, self._writers = context, allowance, writers
        self.skipped: list[PermanentError] = []

    def documents(self, data: bytes, source: Source, depth: int) -> Iterator[Document]:
        """Extract the members. The text of an e-mail has no URL of its own.

        Raises:
            PermanentError: ``too_large``, or ``damaged`` from the beginning.
        """
        depth -= 4 if source.mime_type in ARCHIVES else 1
        if depth < 0:
            raise self._allowance.exceeded("holds archives in archives, more than 3 deep")
        is_empty = True
        try:
            for part in _parts(data, source, self._allowance):
                is_empty = False
                if isinstance(part, Document):
                    yield part
                else:
                    yield from self._member(part, source.url, depth)
        except PermanentError as error:
            if is_empty or error.error_class != "damaged":
                raise
            self.skipped.append(error)  # what came before the damage is good

    def _member(self, member: Member, container: str, depth: int) -> Iterator[Document]:
        path = member.name.replace("\\", "/")
        is_unsafe = _UNSAFE.search(path)
        path = path if is_unsafe else posixpath.normpath(path)
        path = quote(path.encode("utf-8", "surrogateescape"))
        url = member.url or f"{container}!/{path}"
        try:
            if is_unsafe:
                raise PermanentError(f"its name is refused: {url}", "damaged")
            yield from self._extracted(member, url, depth)
        except PermanentError as error:  # the other members may be good
            self.skipped.append(error)
        except _DAMAGED as error:
            self.skipped.append(_damaged(error, url))

    def _extracted(self, member: Member, url: str, depth: int) -> Iterator[Document]:
        """Extract a member. Raises PermanentError, also if there is no text in it."""
        context, data = self._context, member.data
        if isinstance(data, PermanentError):
            raise PermanentError(f"{data}: {url}", data.error_class)
        kind, extractor = choose(context.plugins, member.mime_type, data, suffix_of(url))
        if member.url and not warc.is_page(kind, context.settings.extract.ocr):
            return
        if extractor is None:
            raise PermanentError(f"no extractor for {kind}: {url}", "unsupported")
        source = Source(url, kind, member.charset)
        is_container = kind in CONTAINERS
        made: Any = (
            self.documents(data, source, depth)
            if is_container
            else extractor.function(context, data, source)
        )
        if isinstance(made, list):
            require_distinct_urls(made, url, kind)
        is_empty, key = True, None
        for document in [made] if isinstance(made, Document) else made:
            if is_container and document.url:  # a member of this member
                yield document
            elif document.text.strip():
                key = key or self._writers.submit(context.cache.put, data)
                facts = {"mime_type": kind, "kind": kind, "final_url": url, "size": len(data)}
                facts |= {"charset": member.charset, "sha256": key}
                if member.fetched_at is not None:
                    facts["fetched_at"] = member.fetched_at
                metadata = {**document.metadata, "source": facts}
                yield dataclasses.replace(document, url=document.url or url, metadata=metadata)
            else:
                continue
            is_empty = False
        if is_empty and not is_container:
            raise PermanentError(f"no text in it ({kind}): {url}", "empty")


def _parts(data: bytes, source: Source, allowance: Allowance) -> Iterator[Document | Member]:
    try:
        if source.mime_type == MAILBOX:
            yield from mail.messages(data)
        elif source.mime_type == WARC:
            yield from warc.members(data, source.url, allowance.take)
        elif source.mime_type in MAILS:
            is_outlook = source.mime_type == OUTLOOK
            yield from mail.parts(outlook.as_email(data) if is_outlook else data, source)
        else:
            yield from _members(data, source.url, allowance)
    except _DAMAGED as error:
        raise _damaged(error, source.url, source.mime_type) from error


def _damaged(error: Exception, url: str, kind: str = "file") -> PermanentError:
    return PermanentError(f"can't be read as {kind} ({error}): {url}", "damaged")


def _members(data: bytes, url: str, allowance: Allowance) -> Iterator[Member]:
    if data.startswith(ZIP):
        yield from _zipped(data, allowance)
        return
    if warc.is_packed(data):
        yield from warc.members(data, url, allowance.take)
        return
    opener = _OPENERS.get(signature(data))
    raw = io.BytesIO(data)
    stream = io.BufferedReader(_Counted(opener(raw) if opener else raw, allowance), CHUNK)
    if signature(stream.peek(512)) == TAR:
        yield from _tarred(stream, allowance)
    elif opener:  # a single file, named like the archive without its suffix
        name = posixpath.splitext(name_of(url))[0]
        yield Member(name or "content", stream.read())
    else:
        raise ValueError("not an archive")


def _zipped(data: bytes, allowance: Allowance) -> Iterator[Member]:
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:  # before `infolist` takes memory
        raise allowance.exceeded(f"holds more than {MAX_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        for member, name in zip(members, names_of(members), strict=True):
            allowance.take(members=1)
            if not member.is_dir():
                yield Member(name, _unzipped(archive, member, allowance))


def _unzipped(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, allowance: Allowance
) -> bytes | PermanentError:
    if member.flag_bits & 0x1:
        return PermanentError("needs a password", "password")
    if member.file_size > allowance.bytes_left:  # no need to unpack it
        allowance.take(member.file_size)
    try:
        with archive.open(member) as opened:
            return io.BufferedReader(_Counted(opened, allowance), CHUNK).read()
    except NotImplementedError as error:
        return PermanentError(str(error), "unsupported")
    except _DAMAGED as error:
        return PermanentError(f"can't be read as application/zip ({error})", "damaged")


def _tarred(stream: Any, allowance: Allowance) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            allowance.take(members=1)
            # The holes of a sparse file are not in the stream, so they would not be counted.
            if member.isreg() and not member.issparse() and (file := archive.extractfile(member)):
                yield Member(member.name, file.read())
