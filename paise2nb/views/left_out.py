"""What sources and crawls leave out, in words."""

from collections.abc import Iterator
from typing import Any

from paise2nb.core import render

REASONS = {
    "calendar": "pages of a calendar",
    "canonical": "pages that name another URL as their own",
    "damaged": "damaged records",
    "elsewhere": "records of pages that are in another file",
    "long_path": "URLs that are too long or repeat themselves",
    "max_pages": "pages beyond --max-pages",
    "no_answer": "records that are no successful answer",
    "no_page": "records that are neither a page nor a document",
    "nofollow": "links that ask not to be followed (nofollow)",
    "noindex": "pages that ask not to be stored (noindex)",
    "other_host": "other hosts",
    "pattern": "URLs that match no --pattern",
    "same_text": "pages with the same text as another one",
    "too_large": "records larger than fetch.max_bytes",
    "up_to_date": "pages that are up to date",
}


def left_out(value: Any) -> Iterator[str]:
    """What a source has left out by its result: a line for each reason.

    Args:
        value: The result. ``left_out`` in it has for each reason the ``number`` and ``examples``.
    """
    reasons = value.get("left_out") if isinstance(value, dict) else None
    for reason, found in reasons.items() if isinstance(reasons, dict) else ():
        if isinstance(found, dict):
            examples = [*found["examples"], *["…"] * (found["number"] > len(found["examples"]))]
            text = f"{found['number']:,} {REASONS.get(reason, reason)}: {', '.join(examples)}"
            yield f"  left out: {render.one_line(text)}"
