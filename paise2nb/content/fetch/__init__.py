"""The built-in fetchers: http and https, and local files that the user names."""

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paise2nb.config.settings import FetchSettings
from paise2nb.content.extract.types import HEAD, PAGES, is_text
from paise2nb.content.fetch import robots
from paise2nb.content.render_mode import ALWAYS, AUTO, render_mode
from paise2nb.core.errors import PermanentError, Snoozed, TransientError
from paise2nb.core.text import count_words
from paise2nb.core.urls import canonical_url, file_url, host_of, url_path
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import HostDelay
from paise2nb.plugins import AppInfo, DataStorageProvider, Fetched, fetcher, hookimpl

if TYPE_CHECKING:
    from paise2nb.content.fetch.logins import Session

SHORT_TEXT = 60  # words; a page with more is not the shell of an application


def item_with_url(items: DataStorageProvider, url: str) -> dict[str, Any] | None:
    """The item with a URL or absolute path, in any spelling, or None if there is none."""
    item_id = items.find(canonical_url(url))
    return None if item_id is None else items.get(item_id)


@fetcher("http", "https")
def fetch_web(context: Context, url: str) -> Fetched:
    """Fetch over HTTP. Ask for the page only if it differs from the stored item.

    A replay always fetches the page, to show what would follow.
    """
    item = item_with_url(context.items, url)
    # If the bytes are gone, "unchanged" would leave nothing to extract from.
    is_new = item is None or item["sha256"] not in context.cache or context.is_replay
    if is_new or not item or _has_another_tag(context, item):
        known = None
    else:
        known = item["metadata"].get("source")
    if known and item and _is_rendered_now(context.settings.fetch, url, item, known):
        known = None
    fetched = visit(context, url, known)
    # Half a page is better than none. Half a document is only if there is no hope for more.
    is_last = context.job.attempt >= context.job.max_attempts
    if fetched.meta.get("truncated") and not (is_last or is_text(fetched.data[:HEAD])):
        raise TransientError(f"the answer was cut off: {fetched.url}", "connection")
    return fetched


def _has_another_tag(context: Context, item: Mapping[str, Any]) -> bool:
    """Whether an item has to be stored again to be found by the tag of the job."""
    return context.job.tag not in (None, item.get("tag"))


def _is_rendered_now(
    settings: FetchSettings, url: str, item: Mapping[str, Any], source: Mapping[str, Any]
) -> bool:
    """Whether a stored page was not rendered, and may be since the settings have changed."""
    if source.get("rendered") or source.get("mime_type") not in (*PAGES, None):
        return False
    mode = render_mode(settings, url)
    # Another machine does not get the text of the item.
    is_short = "text" in item and count_words(item["text"]) <= SHORT_TEXT
    return mode == ALWAYS or (mode == AUTO and is_short)


def visit(context: Context, url: str, known: Mapping[str, Any] | None = None) -> Fetched:
    """Fetch over HTTP. Obey robots.txt, and wait for a slot at each host on the way.

    Args:
        context: The execution that fetches.
        url: An http or https URL.
        known: What is stored about an earlier answer, see `paise2nb.content.fetch.http.get`.

    Raises:
        Snoozed: The next request needs a slot at another host, or another slot at this one.
        TaskError: The page can't be fetched.
    """
    # Imported here because urllib3 slows down the start of processes that never fetch.
    from paise2nb.content.fetch import http, logins

    settings, job = context.settings.fetch, context.job
    # A replay is not paced: the user asks for one request, here and now.
    is_paced = bool(job.host and settings.host_delay) and not context.is_replay
    slot_host = job.host
    crawl_delay: tuple[str, float] | None = None
    # A snoozed execution goes on where it stopped: at the last of some redirects, perhaps with
    # those of the robots.txt for it, and with the cookies that were set.
    chain, rules_chain, *state = json.loads(job.resume or "[[], []]")
    owner = None if context.is_replay else job.id

    def use_slot(url: str, *resume: Sequence[str]) -> None:
        """Use the slot of the job for its only request. Any further one needs another slot."""
        nonlocal slot_host
        host = host_of(url)
        if not is_paced or host is None:
            return
        if host != slot_host:
            raise Snoozed(host, json.dumps([*resume, *session.state()]), crawl_delay)
        slot_host = None

    def fetch_rules(chain: Sequence[str], rules_url: str) -> Fetched:
        return http.get(
            rules_url,
            settings,
            before_request=lambda rules: use_slot(rules[-1], chain, rules),
            chain=rules_chain if rules_chain and rules_chain[0] == rules_url else (),
            read_bytes=robots.MAX_BYTES,
        )

    def before_request(chain: Sequence[str]) -> None:
        nonlocal crawl_delay
        if context.job_store.is_remote:
            _check_machine(context, session, chain[-1])
        if settings.robots:
            agent, directory = http.user_agent(settings), context.data_dir / robots.DIRECTORY
            delay = robots.check(chain[-1], agent, directory, partial(fetch_rules, chain))
            if delay is not None and (host := host_of(chain[-1])):
                crawl_delay = (host, delay)
                context.host_delays.append(HostDelay(host, delay))
        use_slot(chain[-1], chain, ())

    with logins.Session(settings, context.data_dir, owner, *state) as session:
        return http.get(
            url, settings, before_request=before_request, chain=chain, session=session, known=known
        )


def _check_machine(context: Context, session: "Session", url: str) -> None:
    """Refuse a request that another machine must not make."""
    session.require_login(url)
    if context.cancelled:
        raise TransientError(f"the job was given up by its machine: {url}", "lease")


@fetcher("file")
def fetch_file(context: Context, url: str) -> Fetched:
    """Read a local file, and see whether it differs from the stored item.

    A replay always takes it as new, to show what would follow.
    """
    fetched = read_file(url, context.settings.fetch)
    item = None if context.is_replay else item_with_url(context.items, url)
    if item is None or item["sha256"] not in context.cache or _has_another_tag(context, item):
        return fetched
    known_time = item["metadata"]["source"].get("mtime_ns")
    # A new time of the same bytes is stored with the item, so that the file is not read again.
    if fetched.meta["mtime_ns"] != known_time:
        return fetched
    if item["sha256"] != hashlib.sha256(fetched.data).hexdigest():
        return fetched
    meta = {**fetched.meta, "status": 304, "size": len(fetched.data)}
    return Fetched(b"", fetched.url, meta=meta)


def read_file(url: str, settings: FetchSettings) -> Fetched:
    """Read a regular file.

    Args:
        url: A ``file:`` URL or an absolute path.
        settings: ``max_bytes`` is the largest size.

    Returns:
        The bytes. ``meta`` holds ``mtime_ns``, by which a later fetch detects a change.

    Raises:
        PermanentError: ``not_found``, ``unreadable`` or ``too_large``.
    """
    try:
        path = Path(url_path(url))
        found = path.stat()
        # Reading a pipe would block the worker until something writes to it.
        if not stat.S_ISREG(found.st_mode):
            raise PermanentError(f"not a regular file: {path}", "unreadable")
        with path.open("rb") as file:
            data = file.read(settings.max_bytes + 1)
    except FileNotFoundError:
        raise PermanentError(f"no such file: {path}", "not_found") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PermanentError(f"can't be read, {reason}: {url}", "unreadable") from error
    if len(data) > settings.max_bytes:
        message = f"larger than {settings.max_bytes} bytes (fetch.max_bytes): {path}"
        message += f"; it has {found.st_size}: --set fetch.max_bytes={found.st_size}"
        raise PermanentError(message, "too_large")
    return Fetched(data, file_url(str(path)), meta={"mtime_ns": found.st_mtime_ns})


class _Forget:
    """Forgets the cookies of servers when everything is deleted."""

    def reset(self, app: AppInfo, hard: bool) -> None:
        from paise2nb.content.fetch.kept_cookies import KeptCookies

        if hard:
            KeptCookies(app.data_dir).clear()


@hookimpl
def reset_actions() -> list[_Forget]:
    """What a reset has to do here."""
    return [_Forget()]
