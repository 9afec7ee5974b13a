"""The rules for fetchers and extractors, which run in real jobs as well as alone."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paise2nb.app import App
from paise2nb.content.extract.types import choose
from paise2nb.core.errors import PermanentError, TaskError
from paise2nb.core.urls import scheme_of, suffix_of
from paise2nb.plugins import Document, Fetched, Source
from paise2nb.testing.fixtures import Site
from paise2nb.testing.rule import Broken, Extracting, Workspace, expect, require, rule

_MIME_TYPE = re.compile(r"[a-z0-9][^A-Z\s;/]*/[^A-Z\s;/]+")  # RFC 6838, in lower case
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986, section 3.1, in lower case
_SUFFIX = re.compile(r"\.[^A-Z./]+")
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d:.*)?)?)?$")  # ISO 8601


def _fetcher(app: App, url: str) -> tuple[tuple[str, ...], Callable[[str], Any]]:
    found = app.plugins.fetcher(scheme_of(url) or "file")
    if found is None:
        raise Broken(f"no fetcher is declared for {url}")
    return found.schemes, lambda url: found.function(app.context("fetch").of(found.plugin), url)


def _require_item(app: App, url: str) -> None:
    job = app.enqueue("fetch", url)
    errors = [each.error for each in job.tree if each.error]
    require(len(job.items) > 0, f"{url[:99]} became no item: {errors}")


@rule("fetcher")
def _fetches_bytes(workspace: Workspace, app: App) -> None:
    """It returns bytes or Fetched, and they become an item.

    `paise2nb.Fetched` describes its fields.
    """
    url = workspace.subject.url
    schemes, fetch = _fetcher(app, url)
    bad = [scheme for scheme in schemes if not _SCHEME.fullmatch(scheme)]
    require(not bad, f"it is declared for {bad}; use lower case and no colon")
    first, second = fetch(url), fetch(url)
    require(isinstance(first, bytes | Fetched), f"it returned {type(first).__name__}")
    if isinstance(first, Fetched):
        require(isinstance(first.data, bytes), f"data is {type(first.data).__name__}")
        require(isinstance(first.url, str), f"url is {first.url!r}")
        kind = first.mime_type
        require(not kind or _MIME_TYPE.fullmatch(kind), f"mime_type {kind!r} is not like text/html")
        json.dumps(first.meta, allow_nan=False)
        first, second = first.data, second.data
    require(first == second, "a second call returned other bytes; a job may run twice")
    _require_item(app, url)


@rule("fetcher")
def _failures_have_a_class(workspace: Workspace, app: App) -> None:
    """A failure is an error of a class that retry policies know.

    Raise PermanentError(message, CLASS) where a retry can't help, else TransientError.
    """
    url, wrong, _ = workspace.subject
    _, fetch = _fetcher(app, url)
    for each in wrong:
        with suppress(TaskError):
            raise Broken(f"{each!r} returned {fetch(each)!r}")
    _, fetch = _fetcher(workspace.open(**{"fetch.max_bytes": 1}), url)
    try:
        found = fetch(url)
        size = len(found.data if isinstance(found, Fetched) else found)
        raise Broken(f"it returned {size} bytes, more than fetch.max_bytes")
    except PermanentError as error:
        expect(error.error_class, "too_large", "the error class over fetch.max_bytes")


def _extractor(app: App, sample: Extracting) -> tuple[Any, Callable[[bytes], list[Any]]]:
    data, mime_type, url, _ = sample
    family, suffix = mime_type.split("/")[0], suffix_of(url)
    kind, found = choose(app.plugins, mime_type, data, suffix)
    declared = () if found is None else (*found.mime_types, *found.suffixes)
    if found is None or not {mime_type, f"{family}/*", suffix} & set(declared):
        raise Broken(f"no extractor is declared for {mime_type} {suffix}")

    def extract(data: bytes) -> list[Any]:
        context = app.context("extract").of(found.plugin)
        documents = found.function(context, data, Source(url, kind))
        return documents if isinstance(documents, list) else [documents]

    return found, extract


def _require_valid(document: Any) -> None:
    require(isinstance(document, Document), f"it returned {type(document).__name__}")
    require(isinstance(document.text, str), f"a text is {type(document.text).__name__}")
    for name in ("title", "author", "date", "language", "url"):
        value = getattr(document, name)
        require(value is None or isinstance(value, str), f"{name} is {value!r}")
    date = document.date or "2024"
    require(_DATE.match(date), f"{date!r} is not a date in ISO 8601")
    json.dumps(document.metadata, allow_nan=False)


@rule("extractor")
def _extracts_documents(workspace: Workspace, app: App) -> None:
    """It returns documents, the same ones every time.

    `paise2nb.Document` describes their fields.
    """
    found, extract = _extractor(app, workspace.subject)
    bad = [kind for kind in found.mime_types if not _MIME_TYPE.fullmatch(kind)]
    bad += [suffix for suffix in found.suffixes if not _SUFFIX.fullmatch(suffix)]
    require(not bad, f"it is declared for {bad}; write types like text/html, suffixes like .html")
    data, mime_type, url, _ = workspace.subject
    documents = extract(data)
    for document in documents:
        _require_valid(document)
    urls = {document.url for document in documents}
    require(len(urls) == len(documents), "two documents have the same url")
    require(extract(data) == documents, "a second call returned others; a job may run twice")
    with Site() as site:
        _require_item(app, site.add(f"/sample{suffix_of(url)}", data, mime_type))


@rule("extractor")
def _damage_is_permanent(workspace: Workspace, app: App) -> None:
    """Damaged bytes are a PermanentError.

    Catch the exceptions of the parser; a retry can't help.
    """
    _, extract = _extractor(app, workspace.subject)
    data = workspace.subject.data
    for damaged in (b"", data[: len(data) // 2], data[::-1], b"\xff\0\x80" * 50, data + b"\x80"):
        with suppress(PermanentError):
            extract(damaged)
