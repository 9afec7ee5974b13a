"""Commands about stored items: search, list, show, export."""

import re
from typing import Any

import click

from paise2nb.collection.export import export as write
from paise2nb.commands import completion
from paise2nb.commands.cli import command, filters, option
from paise2nb.commands.jobs import select
from paise2nb.commands.session import Session
from paise2nb.core.display import Message
from paise2nb.core.files import expand_user
from paise2nb.views.items import History, Item, Items, SearchResults

_QUOTED = re.compile(r'\A(tag:|)([^"]+?)(\*?)\Z')


@command("search")
@click.argument("words", metavar="QUERY", nargs=-1, required=True)
@option(
    "--limit N", "Hits; default 10, at most 1,000 of words.", type=click.IntRange(1), default=10
)
def search(session: Session, words: tuple[str, ...], limit: int) -> SearchResults:
    """Find items by words, "phrases" and prefixes*, best first.

    site:, tag:, before: and after: restrict the search.

    \b
    Examples:
      paise2 search canal locks
      paise2 search "canal lock*" site:example.org after:2025-12-31
    """
    # Of several words, one that contains a space was quoted: it is a phrase, or names a tag.
    quoted = [
        _QUOTED.sub(r'\1"\2"\3', word) if " " in word and len(words) > 1 else word for word in words
    ]
    return session.app.search(" ".join(quoted), limit)


@command("items")
@option("--tag NAME", "Only items with this tag.", shell_complete=completion.tags)
@option("--limit N", "Only the newest N.", type=click.IntRange(0))
def items(session: Session, tag: str | None, limit: int | None) -> Items:
    """List items, newest first."""
    return session.app.items(tag=tag, limit=limit)


@command("item")
@click.argument("item_id", metavar="ID", type=int, shell_complete=completion.items)
@option("--versions", "List its versions.")
@option("--diff", "Show the changes since the previous version.")
@option("--since N", "Show the changes since version N.", type=int)
def item(
    session: Session, item_id: int, versions: bool, diff: bool, since: int | None
) -> Item | History | Message:
    """Show one item with its text."""
    found = session.app.item(item_id)
    if versions:
        return found.history()
    return found.diff(-2 if since is None else since) if diff or since is not None else found


@command("export")
@click.argument("path", metavar="PATH")
@filters
@option("--force", "Overwrite an existing file or folder.")
def export(session: Session, /, path: str, force: bool, **given: Any) -> Message:
    """Write items to .jsonl, .csv, .parquet or a Markdown folder.

    The filters --state, --task and --error select the items that such jobs have stored.

    \b
    Examples:
      paise2 export all.jsonl
      paise2 export pages/ --tag news
    """
    by_jobs = any(given[name] for name in ("state", "task", "error"))
    chosen = select(session, (), **given).items if by_jobs else session.app.items(tag=given["tag"])
    with session.progress("exporting") as report:
        target = expand_user(path)
        rows, store = chosen.to_dicts(), session.app.store
        return write(rows, store, target, force=force, on_progress=report)
