"""What to do about each kind of failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

RETRY = "paise2 retry --error {error_class}"
REPLAY = "paise2 replay {id}"
SHOW = "paise2 job {id}"


class Remedy(NamedTuple):
    """The name of a kind of failure, what helps, and the command to type."""

    name: str
    advice: str
    command: str = RETRY


REMEDIES: Mapping[str, Remedy] = {
    "timeout": Remedy("timed out", "The server was slow. Try again."),
    "connection": Remedy("connection failed", "Try again when the host answers."),
    "dns": Remedy("unknown host", "Check the spelling, or try again when the network is back."),
    "throttled": Remedy("throttled", "The server asks for fewer requests. Try again later."),
    "http_5xx": Remedy("server error", "The server failed. Try again later."),
    "http_4xx": Remedy("refused", "Check the URL. Try again when it is fixed."),
    "too_large": Remedy("too large", "Raise fetch.max_bytes, then try again."),
    "redirects": Remedy("too many redirects", "Check the URL in a browser."),
    "blocked": Remedy(
        "private address", "If you trust the host, set fetch.allow_private_addresses and try again."
    ),
    "bad_address": Remedy("invalid URL", "Fix the URL and enqueue it again.", SHOW),
    "robots": Remedy("disallowed by robots.txt", "The site asks robots to stay away.", SHOW),
    "not_found": Remedy("no such file", "Put the file back, then try again."),
    "unsupported": Remedy(
        "unsupported type", "An extractor plugin can add support for it.", "paise2 plugins"
    ),
    "unreadable": Remedy("unreadable document", "The file may be damaged. Check it.", REPLAY),
    "empty": Remedy("no text", "The document contains no text. Check it.", REPLAY),
    "not_cached": Remedy("no longer in the cache", "Fetch the URL again.", SHOW),
    "crash": Remedy("crashed the worker", "Run the job here to see why.", REPLAY),
    "memory": Remedy("out of memory", "Raise workers.memory_mb, then try again."),
}


def remedy_for(error_class: str | None) -> Remedy:
    """The remedy for an error class; an exception of a plugin's code is best debugged."""
    return REMEDIES.get(error_class or "") or Remedy(
        error_class or "failed", "Run the job here, then open the frame with %debug.", REPLAY
    )
