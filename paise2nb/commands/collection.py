"""Commands about what was stored: search, list, show, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paise2nb.collection.export import Exported
from paise2nb.collection.export import export as write
from paise2nb.commands import completion
from paise2nb.commands.cli import Command, filters
from paise2nb.commands.jobs import pass_session, select
from paise2nb.commands.session import Session
from paise2nb.views.items import Diff, History, Item, Items, SearchResults


@click.command("search", cls=Command)
@click.argument("words", metavar="QUERY", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1), default=10, metavar="N", help="Hits; 10.")
@pass_session
def search(session: Session, words: tuple[str, ...], limit: int) -> SearchResults:
    """Find items by words, "phrases" and prefixes*, best first.

    site:example.org, tag:news, before:2026-02 and after:2025-12-31 choose among them.
    """
    # Of several words, the one that was quoted on the line is a phrase.
    quoted = [f'"{word}"' if " " in word and len(words) > 1 else word for word in words]
    return session.app.search(" ".join(quoted), limit)


@click.command("items", cls=Command)
@click.option(
    "--tag", metavar="NAME", help="Only items with this tag.", shell_complete=completion.tags
)
@click.option("--limit", type=click.IntRange(0), metavar="N", help="The newest N only.")
@pass_session
def items(session: Session, tag: str | None, limit: int | None) -> Items:
    """List items, newest first."""
    return session.app.items(tag=tag, limit=limit)


@click.command("item", cls=Command)
@click.argument("item_id", metavar="ID", type=int, shell_complete=completion.items)
@click.option("--versions", is_flag=True, help="List what it has held over time.")
@click.option("--diff", is_flag=True, help="What changed since the version before.")
@click.option("--since", type=int, metavar="N", help="What changed since version N.")
@pass_session
def item(
    session: Session, item_id: int, versions: bool, diff: bool, since: int | None
) -> Item | History | Diff:
    """Show one item with its text."""
    found = session.app.item(item_id)
    if versions:
        return found.history()
    return found.diff(-2 if since is None else since) if diff or since is not None else found


@click.command("export", cls=Command)
@click.argument("path", metavar="PATH")
@filters
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@pass_session
def export(session: Session, /, path: str, force: bool, **given: Any) -> Exported:
    """Write items to .jsonl, .csv, .parquet or a Markdown folder.

    Filters by state, task or error take the items that such jobs stored.
    """
    by_jobs = any(given[name] for name in ("state", "task", "error"))
    chosen = select(session, (), **given).items if by_jobs else session.app.items(tag=given["tag"])
    with session.progress("exporting") as report:
        target = Path(path).expanduser()
        rows, store = chosen.to_dicts(), session.app.store
        return write(rows, store, target, force=force, on_progress=report)
