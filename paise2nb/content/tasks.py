"""The four core tasks: fetch, extract and store lead from an address to an item; cleanup tidies up.

Each hands an identifier to the next, never contents, and each may run twice: what it writes is
found by a key, and older content never replaces newer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.content.extract.types import PAGES, SUFFIXES, choose
from paise2nb.content.fetch import ROBOTS
from paise2nb.content.fetch.robots import forget
from paise2nb.core.errors import NotFound, PermanentError, UsageError
from paise2nb.core.text import words
from paise2nb.core.urls import (
    DEFAULT_PORTS,
    canonical_url,
    file_url,
    host_of,
    name_of,
    parse,
    scheme_of,
    suffix_of,
    url_path,
    without_credentials,
)
from paise2nb.jobs import UNFINISHED
from paise2nb.plugins import Document, Fetched, Source, task

if TYPE_CHECKING:
    from paise2nb.config.settings import Settings
    from paise2nb.jobs.context import Context
    from paise2nb.plugins import AppInfo

DAY = 86400.0
VALIDATORS = ("etag", "last_modified", "mtime_ns")  # by which a later visit sees a change
_DOMAIN = re.compile(r"([\w-]+\.)+[A-Za-z]{2,}(:\d+)?")


# fetch ---------------------------------------------------------------------------------------


def check_fetch(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an address that some fetcher takes, or an existing file as an absolute path.

    Raises:
        UsageError: it is neither; says what it looks like.
    """
    (given,) = args
    given = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(given, str) or not given.strip():
        raise UsageError(f"fetch takes an address or a path, not {given!r}")
    text = given.strip()
    shown = without_credentials(text)
    scheme = scheme_of(text)
    if scheme in DEFAULT_PORTS:
        try:
            parse(text)
        except ValueError as error:
            raise UsageError(f"{shown!r} is not an address that can be fetched: {error}") from None
        return (text,)
    if scheme is not None and (scheme == "file" or "://" in text or app.plugins.fetcher(scheme)):
        if app.plugins.fetcher(scheme) is None:
            raise UsageError(
                f"no fetcher for {scheme}: addresses ({shown!r}); see `paise2 plugins`"
            )
        if scheme != "file":
            return (text,)
    return (_existing_file(text),)


def _existing_file(text: str) -> str:
    """A ``file:`` address as it is, a path as an absolute one, if there is such a file."""
    named = scheme_of(text) == "file"
    try:
        path = Path.cwd() / os.path.normpath(Path(url_path(text)).expanduser())
        if path.is_dir():
            raise UsageError(f"{text!r} is a directory; take its files by: enqueue folder {text}")
        if path.exists():
            return text if named else str(path)
    except (ValueError, OSError, RuntimeError) as error:
        raise UsageError(f"{text!r} is not a path that can be read: {error}") from None
    host = text.partition("/")[0]
    if named or not host.strip(".~") or suffix_of(host) in SUFFIXES:
        raise UsageError(f"no such file: {text!r}")
    hint = f"; did you mean https://{text} ?" if _DOMAIN.fullmatch(host) else ""
    raise UsageError(f"{text!r} is neither an address (http://…) nor a file{hint}")


def is_fresh(settings: Settings, result: Any, age: float, args: tuple[Any, ...]) -> bool:
    """Whether an earlier fetch still stands: a file unchanged, anything else young enough."""
    if scheme_of(args[0]) not in ("file", None):
        return age < settings.fetch.max_age
    try:
        found = Path(url_path(args[0])).stat()
    except (OSError, ValueError):
        return False
    return (found.st_size, found.st_mtime_ns) == (result.get("size"), result.get("mtime_ns"))


@task(
    "fetch", check=check_fetch, key=lambda args: canonical_url(args[0]), fresh=is_fresh,
    host=lambda args: host_of(args[0]),
)  # fmt: skip
def fetch(context: Context, url: str) -> dict[str, Any]:
    """Bring the bytes of an address into the cache."""
    scheme = scheme_of(url) or "file"
    if scheme == "file" and not _named_by_user(context):
        raise PermanentError(f"only a user or a folder may lead to a file: {url}", "blocked")
    fetcher = context.plugins.fetcher(scheme)
    if fetcher is None:
        raise PermanentError(f"no fetcher for {without_credentials(url)}", "unsupported")
    started = time.time()
    fetched = fetcher.function(context.of(fetcher.plugin), url)
    if not isinstance(fetched, Fetched):
        fetched = Fetched(fetched, without_credentials(url))
    if fetched.meta.get("status") == 304:
        item_id = context.items.visited(canonical_url(url), started)
        found = {} if item_id is None else {"item": item_id}
        return {"url": fetched.url, **found, **fetched.meta}
    key = hand_over(context, url, fetched, started)
    return {
        "url": fetched.url,
        "sha256": key,
        "size": len(fetched.data),
        "mime_type": fetched.mime_type,
        **fetched.meta,
    }


def hand_over(context: Context, url: str, fetched: Fetched, started: float | None = None) -> str:
    """Put bytes into the cache and have them extracted; their key."""
    key = context.cache.put(fetched.data)
    shown = without_credentials(url) if scheme_of(url) else file_url(url)
    facts = {
        "mime_type": fetched.mime_type,
        "charset": fetched.charset,
        "size": len(fetched.data),
        "fetched_at": time.time() if started is None else started,
        "final_url": fetched.url,
        **{name: fetched.meta[name] for name in VALIDATORS if name in fetched.meta},
    }
    context.enqueue("extract", shown, key, facts)
    return key


def _named_by_user(context: Context) -> bool:
    """Whether a user asked for this job, or for the folder that it comes from."""
    parent = context.job.parent_id
    if parent is None:
        return True
    row = context.app.queue.job_store.rows([parent]).get(parent)
    return row is not None and row["task"] == "folder"


# extract -------------------------------------------------------------------------------------


def check_extract(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept an item's id, its address, or what a fetch hands on.

    Raises:
        NotFound: no such item.
    """
    if len(args) == 1:
        _stored(app.store, args[0])
    return args


@task("extract", check=check_extract)
def extract(
    context: Context,
    source: str | int,
    key: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a document of bytes in the cache: of a fetch, or of an item to be extracted again."""
    if key is None or facts is None:
        item = _stored(context.items, source)
        url, key = item["url"], item["sha256"]
        facts = {**item["metadata"]["source"], "size": item["size"]}
    else:
        url = str(source)
    try:
        data = context.cache.get(key)
    except KeyError:
        raise PermanentError(
            f"the bytes are no longer in the cache; fetch them again: "
            f"paise2 enqueue fetch --force {url}",
            "not_cached",
        ) from None
    suffix = suffix_of(url) or suffix_of(facts.get("final_url") or "")
    kind, extractor = choose(context.plugins, facts.get("mime_type"), data, suffix)
    if extractor is None:
        raise PermanentError(f"no extractor for {kind}: {url}", "unsupported")
    made = extractor.function(
        context.of(extractor.plugin), data, Source(url, kind, facts.get("charset"))
    )
    documents = made if isinstance(made, list) else [made]
    _check_documents(documents, url, kind)
    documents = [document for document in documents if document.text.strip()]
    text = json.dumps([dataclasses.asdict(document) for document in documents])
    document_key = context.cache.put(text.encode("utf-8", "replace"))
    context.enqueue("store", url, document_key, {**facts, "sha256": key, "kind": kind})
    return {
        "document": document_key,
        "mime_type": kind,
        "documents": len(documents),
        "words": sum(words(document.text) for document in documents),
    }


def _stored(items: Any, source: str | int) -> dict[str, Any]:
    """The item of an id or of an address. Raises NotFound."""
    is_id = isinstance(source, int) or source.isdecimal()
    item_id = int(source) if is_id else items.find(canonical_url(str(source)))
    item: dict[str, Any] | None = None if item_id is None else items.get(item_id)
    if item is None:
        raise NotFound(
            f"no item {source}; `paise2 items` lists them"
            if is_id
            else f"no item has the address {without_credentials(str(source))}; "
            "fetch it first: paise2 enqueue fetch ADDRESS"
        )
    return item


def _check_documents(documents: list[Any], url: str, kind: str) -> None:
    """Refuse what can't become items: nothing to read, or two things for one address."""
    for document in documents:
        if not isinstance(document, Document):
            raise PermanentError(
                f"the extractor for {kind} returned {type(document).__name__}, "
                f"not a Document or a list of them: {url}",
                "plugin",
            )
    if not any(document.text.strip() for document in documents):
        raise PermanentError(f"no text in it ({kind}): {url}", "empty")
    addresses = {canonical_url(document.url or url) for document in documents}
    if len(addresses) < len(documents):
        raise PermanentError(
            f"the extractor for {kind} made {len(documents)} documents with {len(addresses)} "
            f"addresses; each needs a `url` of its own: {url}",
            "plugin",
        )


# store ---------------------------------------------------------------------------------------


@task("store")
def store(
    context: Context, url: str, document_key: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Make an item of each document that an extraction left in the cache."""
    try:
        documents = [Document(**fields) for fields in json.loads(context.cache.get(document_key))]
    except KeyError:
        raise PermanentError(
            f"the extracted text is no longer in the cache; fetch again: "
            f"paise2 enqueue fetch --force {url}",
            "not_cached",
        ) from None
    # What another extraction of the same bytes has to know about them; listed times are rounded.
    known = ("mime_type", "charset", "final_url", "fetched_at", *VALIDATORS)
    entries = []
    for document in documents:
        address = document.url or url
        own = document.metadata.get("source")  # of a member of an archive
        about = facts if own is None else {"fetched_at": facts["fetched_at"], **own}
        source = {name: about[name] for name in known if about.get(name)}
        metadata = {**document.metadata, "source": source}
        # A file without a title is known by its name; a page's address has none worth showing.
        title = document.title or (None if about["kind"] in PAGES else name_of(address))
        provenance = {
            "url": address,
            "key": canonical_url(address),
            "mime_type": about["kind"],
            "sha256": about["sha256"],
            "size": about["size"],
            "tag": context.job.tag,
            "fetched_at": facts["fetched_at"],
            "job_id": context.job.id,
        }
        made = dataclasses.replace(document, title=title, metadata=metadata)
        entries.append((made, provenance))
    ids = context.items.put_many(entries)
    return {"item": ids[0], "items": ids} if len(ids) > 1 else {"item": ids[0]}


# cleanup -------------------------------------------------------------------------------------


@task("cleanup")
def cleanup(context: Context) -> dict[str, int]:
    """Remove what is old and what no unfinished job needs: cached bytes, the history of jobs."""
    settings, job_store = context.settings, context.app.queue.job_store
    pruned = job_store.prune(job_store.now() - settings.history.keep_days * DAY)
    needed = job_store.needed_keys()
    for state in UNFINISHED:  # an extraction of an item names the item, not its bytes
        for row in job_store.rows(job_store.find(task="extract", state=state)).values():
            with suppress(NotFound):
                needed.add(_stored(context.items, row["args"][0])["sha256"])
    removed = context.cache.remove(needed, settings.cache.keep_days * DAY)
    forget(context.app.data_dir / ROBOTS)
    job_store.checkpoint()
    context.items.checkpoint()
    return {"jobs": pruned, "cached": removed}
