"""The command ``cookies``: check a file of cookies before pages are fetched with it."""

import stat
from typing import Any

import click

from paise2nb.commands.cli import command
from paise2nb.commands.session import Session
from paise2nb.core.clock import iso
from paise2nb.core.display import Message
from paise2nb.core.errors import UsageError
from paise2nb.core.files import expand_user
from paise2nb.core.render import VIEW_ROWS, amount

HOW = "log in with a browser and export the cookies again"


@command("cookies")
@click.argument("file", metavar="[FILE]", required=False)
def cookies(session: Session, file: str | None) -> Message:
    """Check a file of cookies: its hosts, and what has expired.

    Without FILE, the one that fetch.cookies names. No value is shown.

    \b
    Examples:
      paise2 cookies cookies.txt
      paise2 --set fetch.cookies=cookies.txt enqueue fetch --wait https://example.org/members
    """
    from paise2nb.content.fetch.cookies import read_cookies

    path = session.settings(plugins=False).fetch.cookies if file is None else expand_user(file)
    if path is None:
        raise UsageError("fetch.cookies is not set; name a file: paise2 cookies FILE")
    found = read_cookies(path)
    hosts: list[dict[str, Any]] = []
    expired: list[dict[str, Any]] = []
    for host, named in sorted(found.cookies.items()):
        over = [c for c in named if c.is_expired]
        hosts.append({"host": host, "cookies": len(named), "expired": len(over)})
        expired += [{"host": c.host, "name": c.name, "expired_at": iso(c.expires)} for c in over]
    number = sum(row["cookies"] for row in hosts)
    amounts = f"{amount(number, 'cookie')} for {amount(len(hosts), 'host')}"
    lines = [f"{path}: {amounts}, {len(expired) or 'none'} expired"]
    for row in expired[:VIEW_ROWS]:
        lines.append(f"  expired: {row['name']} of {row['host']} ({row['expired_at']})")
    if len(expired) > VIEW_ROWS:
        lines.append(f"  and {len(expired) - VIEW_ROWS} more")
    if expired:
        lines.append(HOW)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        lines.append(f"other users can read it: chmod 600 {path}")
    facts = {"path": str(path), "hosts": len(hosts), "cookies": number, "expired": len(expired)}
    return Message("\n".join(lines), {**facts, "by_host": hosts, "expired_cookies": expired})
