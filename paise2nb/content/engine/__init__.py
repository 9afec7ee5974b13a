"""The libraries that read documents, where they can do no harm.

xberg may abort its process when that exits normally, and hangs in a forked child. So documents are
read in worker processes, which end by `os._exit`, and in a new process for each everywhere else.
Its program is `main`: this package imports little, so that it starts fast.
"""

import contextlib
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.content.engine import ocr, office, pdf
from paise2nb.content.engine.result import EngineError, Extracted, Reading
from paise2nb.core.processes import program

__all__ = ["EngineError", "Extracted", "Reading", "extract", "is_used"]

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

PDF = "application/pdf"
DRAWING = "application/vnd.oasis.opendocument.graphics"  # which xberg does not read
_NOTHING: Extracted = {"text": "", "metadata": {}}
_PACKAGES = re.compile("openxmlformats|opendocument")

_lock = threading.Lock()  # memory is limited per process, so that only one document is read at once
_loop: "AbstractEventLoop | None" = None  # one for all documents: with several it aborts at exit


def is_used() -> bool:
    """Whether this process has used xberg, so that it must end by `os._exit`."""
    return _loop is not None


def extract(data: bytes, kind: str, how: Reading) -> Extracted:
    """Read a document of a MIME type.

    Raises:
        EngineError: The document can't be read.
    """
    if how.in_process:
        # A library that is loaded under the limit may wait forever for a thread it can't start.
        if not kind.startswith("image/"):
            importlib.import_module("pypdfium2" if kind == PDF else "xberg")
        with _lock, _memory_limit(how.memory_mb):
            return _extract(data, kind, how.languages)
    order = json.dumps([kind, how._replace(in_process=True)]).encode()
    sent, command = order + b"\n" + data, program(__name__)
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=how.seconds)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"took more than {how.seconds:g} seconds", "timeout") from error
    if done.returncode:
        if b"memory allocation" in done.stderr or b"MemoryError" in done.stderr:
            raise EngineError(f"needs more than {how.memory_mb:g} MB of memory", "memory")
        raise EngineError(f"ends its reader with exit status {done.returncode}", "crash")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise EngineError(*answer["error"])
    extracted: Extracted = answer
    return extracted


def main() -> None:
    """Read the document that standard input has, and end without what may abort."""
    kind, how = json.loads(sys.stdin.buffer.readline())
    try:
        answer: Any = extract(sys.stdin.buffer.read(), kind, Reading(*how))
    except EngineError as error:
        answer = {"error": [str(error), error.error_class]}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def _extract(data: bytes, kind: str, languages: Sequence[str] | None) -> Extracted:
    if kind.startswith("image/"):
        text = ocr.recognise(data, languages or ())
        metadata = {"recognised": {"languages": languages}}
        return {"text": text, "metadata": metadata}
    if kind == PDF:
        with contextlib.suppress(pdf.Unreadable):
            return pdf.extract(data, languages)
    extracted = _NOTHING if kind == DRAWING else _by_xberg(data, kind)
    if _PACKAGES.search(kind):
        return {**extracted, "text": office.complete(data, extracted["text"])}
    return extracted


def _by_xberg(data: bytes, kind: str) -> Extracted:
    global _loop
    import asyncio

    import xberg

    _loop = _loop or asyncio.new_event_loop()
    # Its cache would keep a second copy of everything.
    config = xberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        output_format="plain" if kind == PDF else "markdown",  # Markdown of PDFs loses words
        escape_markdown=False,
        concurrency=xberg.ConcurrencyConfig(max_threads=1),
    )
    given = xberg.ExtractInput(kind="bytes", bytes=data, mime_type=kind)
    try:
        result = _loop.run_until_complete(xberg.extract(given, config))
    except BaseException as error:  # its panics are not even an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        is_locked = re.search("password|encrypted", str(error), re.IGNORECASE)
        raise EngineError(str(error), "password" if is_locked else "damaged") from error
    if not result.results:
        raise EngineError("; ".join(error.message for error in result.errors))
    return _extracted(result.results[0])


def _extracted(document: Any) -> Extracted:
    facts = document.metadata
    names = ("title", "subject", "authors", "created_at", "modified_at", "language")
    metadata = {name: getattr(facts, name) for name in names}
    if about := getattr(facts.format, "pdf", None):
        metadata["page_count"] = about.page_count
    return {
        "text": document.content,
        "metadata": {name: value for name, value in metadata.items() if value},
    }


@contextlib.contextmanager
def _memory_limit(megabytes: float) -> Iterator[None]:
    """Limit the memory that this process can allocate in addition while the block runs.

    A damaged spreadsheet takes gigabytes at once, faster than the supervisor can notice.
    """
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = pages * resource.getpagesize() + int(megabytes * (1 << 20))
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
