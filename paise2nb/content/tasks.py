"""The core tasks. Fetch, extract and store lead from a URL to an item. Cleanup tidies up.

Where a browser has to make the text of a page, render takes the place of extract or follows it: see
`paise2nb.content.sources.rendered`.

Each task hands an identifier to the next, never contents, and may run twice: its effects are found
by a key, and older content never replaces newer.
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from paise2nb.config.settings import Settings
from paise2nb.content import crawl
from paise2nb.content.extract.types import (
    PAGES,
    SUFFIXES,
    choose,
    media_type,
    require_distinct_urls,
    suffix_by,
)
from paise2nb.content.fetch import item_with_url, robots
from paise2nb.content.render_mode import ALWAYS, AUTO, render_mode
from paise2nb.core import urls
from paise2nb.core.errors import HomeOnly, NotFound, PermanentError, UsageError, without_secrets
from paise2nb.core.files import expand_user, working_directory
from paise2nb.core.text import count_words
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import CLEANED_AT, UNFINISHED, NewJob
from paise2nb.jobs.store import NOT_CACHED, JobStore
from paise2nb.plugins import AppInfo, DataStorageProvider, Document, Fetched, Source, task

Facts: TypeAlias = Mapping[str, Any]  # about fetched bytes, see `hand_over`
DAY = 86400.0
TICK = 0.02  # seconds by which the time of a new file may be behind the clock
VALIDATORS = ("etag", "last_modified", "mtime_ns")  # by which a later fetch detects a change
# What an item keeps about its bytes, for extracting or fetching them again.
ANSWER_FACTS = ("name", "truncated", "robots", *VALIDATORS)
SOURCE_FACTS = ("mime_type", "charset", "final_url", "fetched_at", "rendered", *ANSWER_FACTS)
_DOMAIN = re.compile(r"([\w-]+\.)+[A-Za-z]{2,}(:\d+)?")


# fetch ---------------------------------------------------------------------------------------


def check_fetch(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept a URL that has a fetcher, or an existing file as an absolute path.

    Raises:
        UsageError: It is neither. The message says what it looks like.
    """
    given, *archived = args
    given = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(given, str) or not given.strip():
        raise UsageError(f"fetch takes a URL or a path, not {given!r}")
    text = given.strip()
    shown = urls.shown_url(text)
    scheme = urls.scheme_of(text)
    if scheme in urls.DEFAULT_PORTS:
        try:
            urls.parse(text)
        except ValueError as error:
            raise UsageError(f"{shown!r} is not a URL that can be fetched: {error}") from None
        if urls.has_hidden_secret(text):
            raise UsageError(f"the secret in {shown!r} is hidden; give the URL with its value")
        return (text, *archived)
    if scheme not in (None, "file"):
        if app.plugins.fetcher(scheme):
            return (text,)
        if "://" in text:
            raise UsageError(f"no fetcher for {scheme}: URLs ({shown!r}); see `paise2 plugins`")
    return (existing_file(text),)


def existing_file(text: str) -> str:
    """An existing file: a ``file:`` URL as it is, a path as an absolute one."""
    is_url = urls.scheme_of(text) == "file"
    try:
        path = working_directory() / os.path.normpath(expand_user(urls.url_path(text)))
        if path.is_dir():
            raise UsageError(f"{text!r} is a directory; to fetch its files: enqueue folder {text}")
        if path.exists():
            return text if is_url else str(path)
    except (ValueError, OSError, RuntimeError) as error:
        raise UsageError(f"{text!r} is not a path that can be read: {error}") from None
    host = text.partition("/")[0]
    if is_url or not host.strip(".~") or urls.suffix_of(host) in SUFFIXES:
        raise UsageError(f"no such file: {text!r}")
    hint = f"; did you mean https://{text} ?" if _DOMAIN.fullmatch(host) else ""
    raise UsageError(f"{text!r} is neither a URL (http://…) nor a file{hint}")


def is_up_to_date(settings: Settings, result: Any, age: float, args: tuple[Any, ...]) -> bool:
    """Whether a fetch need not be repeated: the file is unchanged, the page was fetched recently.

    Args:
        settings: ``fetch.max_age`` is the age in seconds from which on a page is out of date.
        result: Of the earlier fetch.
        age: Seconds since it finished.
        args: Of the new fetch: the URL or path.
    """
    if "archive" in result:  # what a page was is not what it is
        return False
    if urls.scheme_of(args[0]) not in ("file", None):
        return age < settings.fetch.max_age
    try:
        found = Path(urls.url_path(args[0])).stat()
    except (OSError, ValueError):
        return False
    return (found.st_size, found.st_mtime_ns) == (result.get("size"), result.get("mtime_ns"))


def hand_over(
    context: Context,
    url: str,
    fetched: Fetched,
    started: float | None = None,
    following: crawl.Crawl | None = None,
) -> str:
    """Put bytes into the cache, and enqueue their extraction, or the rendering of their page.

    Args:
        context: The execution that fetched them.
        url: As the user gave it.
        fetched: The bytes and their metadata.
        started: When the fetch began, in seconds since the epoch. None means now.
        following: Render the page, and follow its links for this crawl.

    Returns:
        The key of the bytes in the cache.
    """
    key = context.cache.put(fetched.data)
    shown = urls.shown_url(url) if urls.scheme_of(url) else urls.file_url(url)
    facts = {
        "mime_type": fetched.mime_type,
        "charset": fetched.charset,
        "size": len(fetched.data),
        "fetched_at": time.time() if started is None else started,
        "final_url": urls.shown_url(fetched.url),
        **{name: fetched.meta[name] for name in ANSWER_FACTS if name in fetched.meta},
    }
    is_page = media_type(fetched.mime_type, fetched.data, urls.suffix_of(fetched.url)) in PAGES
    if following is not None:
        context.enqueue("render", shown, facts, following)
    elif is_page and render_mode(context.settings.fetch, fetched.url) == ALWAYS:
        context.enqueue("render", shown, facts)
    else:
        context.enqueue("extract", shown, key, facts)
    return key


@task(
    "fetch",
    check=check_fetch,
    key=lambda args: urls.canonical_url(args[0]),
    fresh=is_up_to_date,
    host=lambda args: None if len(args) > 1 else urls.host_of(args[0]),
    runs="anywhere",
)
def fetch(context: Context, url: str, archived: Facts | None = None) -> dict[str, Any]:
    """Fetch the bytes of a URL or a file into the cache. Those from an archive are there."""
    if archived is not None:
        return _from_archive(context, url, archived)
    scheme = urls.scheme_of(url) or "file"
    if scheme == "file" and not _is_named_by_user(context):
        raise PermanentError(f"only a user or a folder task may name a file: {url}", "blocked")
    fetcher = context.plugins.fetcher(scheme)
    if fetcher is None:
        raise PermanentError(f"no fetcher for {urls.shown_url(url)}", "unsupported")
    started = time.time()
    fetched = fetcher.function(context.of(fetcher.plugin), url)
    if not isinstance(fetched, Fetched):
        fetched = Fetched(fetched, urls.without_credentials(url))
    if fetched.meta.get("status") == 304:
        item_id = context.items.visited(urls.canonical_url(url), started)
        item = {} if item_id is None else {"item": item_id}
        return {"url": urls.shown_url(fetched.url), **item, **fetched.meta}
    key = hand_over(context, url, fetched, started)
    found = {"url": urls.shown_url(fetched.url), "sha256": key, "size": len(fetched.data)}
    return {**found, "mime_type": fetched.mime_type, **fetched.meta}


def _from_archive(context: Context, url: str, archived: Facts) -> dict[str, Any]:
    if context.job_store.is_remote:
        raise HomeOnly("bytes in the cache of home")
    key = archived["sha256"]
    _cached(context, key, "bytes of this page in an archive are", url)
    facts = {name: value for name, value in archived.items() if name != "archive"}
    context.enqueue("extract", urls.shown_url(url), key, facts)
    return {"url": urls.shown_url(url), **archived}


def _is_named_by_user(context: Context) -> bool:
    """Whether a user enqueued this job, or the folder task that it follows from.

    Raises:
        HomeOnly: This is another machine, on which the user has named no file.
    """
    if context.job_store.is_remote:
        raise HomeOnly("a file of home")
    parent = context.job.parent_id
    if parent is None:
        return True
    return context.job_store.task_of(parent) == "folder"


# extract -------------------------------------------------------------------------------------


def check_extract(app: AppInfo, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Accept the id or the URL of an item, or the three arguments that a fetch hands over.

    Raises:
        NotFound: There is no such item.
    """
    if len(args) == 1:
        _item(app.store, args[0])
    return args


@task("extract", check=check_extract, runs="anywhere")
def extract(
    context: Context, source: str | int, key: str | None = None, facts: Facts | None = None
) -> dict[str, Any]:
    """Extract the text of fetched bytes, or of an item again."""
    if key is None or facts is None:
        item = _item(context.items, source)
        url, key = item["url"], item["sha256"]
        facts = {**item["metadata"]["source"], "size": item["size"]}
    else:
        url = str(source)
    data, about, documents = _extracted(context, url, key, facts)
    kind = about.mime_type
    if kind in PAGES and not facts.get("rendered") and is_shell(context, data, about):
        context.enqueue("render", url, facts)
        return {"mime_type": kind, "shell": True}
    _check_documents(documents, url, kind)
    documents = [document for document in documents if document.text.strip()]
    text = json.dumps([dataclasses.asdict(document) for document in documents])
    put = getattr(context.cache, "put_derived", context.cache.put)  # plugins may lack it
    document_key = put(text.encode("utf-8", "replace"))
    context.enqueue("store", url, document_key, {**facts, "sha256": key, "kind": kind})
    number = sum(count_words(document.text) for document in documents)
    result = {"document": document_key, "mime_type": kind, "documents": len(documents)}
    if isinstance(left_out := documents[0].metadata.get("left_out"), list):
        result |= {"warning": f"left out: {'; '.join(map(str, left_out))}"}
    return {**result, "words": number}


def _extracted(
    context: Context, url: str, key: str, facts: Facts
) -> tuple[bytes, Source, list[Any]]:
    """The bytes of a key in the cache, what they are, and what their extractor made of them."""
    data = _cached(context, key, "bytes are", url)
    kind, extractor = choose(context.plugins, facts.get("mime_type"), data, suffix_by(url, facts))
    if extractor is None:
        raise PermanentError(f"no extractor for {kind}: {url}", "unsupported")
    about = Source(url, kind, facts.get("charset"))
    made = extractor.function(context.of(extractor.plugin), data, about)
    return data, about, made if isinstance(made, list) else [made]


def is_shell(context: Context, data: bytes, source: Source) -> bool:
    """Whether only a browser can make the text of a page, and the user wants that."""
    if render_mode(context.settings.fetch, source.url) != AUTO:
        return False
    from paise2nb.content.extract import shells, text  # need what only extraction imports

    return shells.is_shell(text.decode(data, source.charset, source.url))


def _item(items: DataStorageProvider, source: str | int) -> dict[str, Any]:
    """The item with an id or a URL. Raises NotFound."""
    is_id = isinstance(source, int) or source.isdecimal()
    item = items.get(int(source)) if is_id else item_with_url(items, str(source))
    if item is None and is_id:
        raise NotFound(f"no item {source}; `paise2 items` lists them")
    if item is None:
        shown = urls.shown_url(str(source))
        raise NotFound(f"no item has the URL {shown}; fetch it first: paise2 enqueue fetch URL")
    return item


def _cached(context: Context, key: str, what: str, url: str) -> bytes:
    try:
        return context.cache.get(key)
    except KeyError:
        fix = f"fetch again: paise2 enqueue fetch --force {url}"
        raise PermanentError(f"the {what} no longer in the cache; {fix}", NOT_CACHED) from None


def _check_documents(documents: list[Any], url: str, kind: str) -> None:
    """Refuse documents without any text, and two documents for one URL."""
    for document in documents:
        if not isinstance(document, Document):
            problem = f"{type(document).__name__}, not a Document or a list of them"
            raise PermanentError(f"the extractor for {kind} returned {problem}: {url}", "plugin")
    if not any(document.text.strip() for document in documents):
        raise PermanentError(f"no text in it ({kind}): {url}", "empty")
    require_distinct_urls(documents, url, kind)


# store ---------------------------------------------------------------------------------------


@task("store")
def store(context: Context, url: str, document_key: str, facts: Facts) -> dict[str, Any]:
    """Store an item for each document that an extraction has put into the cache."""
    entries = []
    try:
        documents = [Document(**fields) for fields in json.loads(context.cache.get(document_key))]
    except KeyError:  # a power cut took it
        *_, made = _extracted(context, url, facts["sha256"], facts)
        documents = [document for document in made if document.text.strip()]
    if reason := _reason_to_skip(context, url, documents, facts):
        return {"skipped": reason}
    for document in documents:
        item_url = urls.shown_url(document.url or url)
        member, about = document.metadata.get("source"), facts
        if isinstance(member, dict) and "sha256" in member:  # of an archive, with its own facts
            about = {"fetched_at": facts["fetched_at"], **member}
        source = {name: about[name] for name in SOURCE_FACTS if about.get(name)}
        # A file without a title is known by its name. The last segment of a page's URL is none.
        name = about.get("name") or urls.name_of(item_url)
        title = document.title or (None if about["kind"] in PAGES else name)
        metadata = {**without_secrets(document.metadata), "source": source}
        provenance = {
            "url": item_url,
            "key": urls.canonical_url(item_url),
            "mime_type": about["kind"],
            "tag": context.job.tag,
            "job_id": context.job.id,
            **{name: about[name] for name in ("sha256", "size", "fetched_at")},
        }
        entries.append((dataclasses.replace(document, title=title, metadata=metadata), provenance))
    ids = context.items.put_many(entries)
    return {"item": ids[0], "items": ids} if len(ids) > 1 else {"item": ids[0]}


def _reason_to_skip(
    context: Context, url: str, documents: list[Document], facts: Facts
) -> str | None:
    """Why a page of a crawl is not stored; None if it is, or if it belongs to no crawl."""
    if len(documents) > 1 or (of := crawl.of_page(context, url)) is None:
        return None
    text, metadata = documents[0].text, documents[0].metadata
    robots = crawl.directives(context, facts.get("robots"), *metadata.get("robots", ()))
    claims = crawl.Claims(robots, metadata.get("canonical"), crawl.digest(text, "item"))

    def page_job(url: str) -> NewJob:
        [job] = context.new_jobs(
            "fetch", [(url,)], tag=context.job.tag, priority=context.job.priority
        )
        return job

    final_url = facts.get("final_url") or url
    return crawl.reason_to_skip(context, of, url, final_url, claims, page_job) or None


# cleanup -------------------------------------------------------------------------------------


def needed_keys(job_store: JobStore, items: DataStorageProvider) -> set[str]:
    """The keys of the cached bytes that unfinished jobs need."""
    needed = job_store.needed_keys()
    for state in UNFINISHED:  # an extraction of an item names the item, not the key of its bytes
        for row in job_store.rows(job_store.find(task="extract", state=state)).values():
            with suppress(NotFound):
                needed.add(_item(items, row["args"][0])["sha256"])
    return needed


# Without retries: no time of it keeps a supervisor from leaving.
@task("cleanup", max_retries=0, policies={"crash": {"max_retries": 0}})
def cleanup(context: Context) -> dict[str, int]:
    """Remove old finished jobs, and old cached bytes that no unfinished job needs."""
    from paise2nb.content.fetch.kept_cookies import KeptCookies  # here: it takes a while

    settings, job_store = context.settings, context.job_store
    # What a job has put into the cache is in no arguments before it ends. This job is one of them.
    began = min((row["started_at"] for row in job_store.claimed()), default=job_store.now())
    pruned = job_store.prune(job_store.now() - settings.history.keep_days * DAY)
    needed = needed_keys(job_store, context.items)
    least = max(settings.cache.keep_days * DAY, job_store.now() - began + TICK)
    removed = context.cache.remove(needed, least)
    robots.remove_expired(context.data_dir / robots.DIRECTORY)
    KeptCookies(context.data_dir).remove_expired()
    job_store.give_back_space()
    context.items.checkpoint()
    job_store.put(CLEANED_AT, str(job_store.now()))
    return {"jobs": pruned, "cached": removed}
