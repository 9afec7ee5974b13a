"""The task that has a browser load a page, for the text and the links that its scripts make."""

import time
from collections.abc import Sequence
from typing import Any

from paise2nb.content.crawl import Crawl
from paise2nb.content.sources.links import follow
from paise2nb.content.tasks import Facts, extract
from paise2nb.core import urls
from paise2nb.jobs.context import Context
from paise2nb.plugins import task


@task("render", host=lambda args: urls.host_of(args[0]))
def render(
    context: Context, url: str, facts: Facts, following: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Load a fetched page in a browser, and extract the text that its scripts have made.

    In a crawl, follow the links that they have made. The first page of one is not stored.
    """
    from paise2nb.content.render.visit import render_page  # imports the browser

    page, start, started = context.job.page_id, facts["final_url"], time.time()
    row = page if following is None else page or context.job.root_id
    # With its credentials and secrets, which no other row has.
    asked = context.job_store.rows([row])[row]["args"][0] if row else url
    fetched = render_page(context, asked, asked if urls.has_hidden_secret(start) else start)
    key = context.cache.put(fetched.data)
    # Without what a later fetch compares: the answer is the same, whatever the scripts load.
    about = {
        **{name: facts[name] for name in ("robots",) if name in facts},
        "mime_type": fetched.mime_type,
        "charset": fetched.charset,
        "size": len(fetched.data),
        "fetched_at": started,
        "final_url": urls.shown_url(fetched.url),
        "rendered": True,
    }
    found = {"url": about["final_url"], "sha256": key, "size": len(fetched.data), **fetched.meta}
    if following is not None:
        fetched.meta["robots"] = facts.get("robots")
        found |= follow(context, asked, fetched, Crawl(*following), is_first=page is None)
        if page is None or "skipped" in found:
            return found
    return {**found, **extract(context, url, key, about)}
