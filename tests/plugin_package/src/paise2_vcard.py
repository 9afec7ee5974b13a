"""Contacts in vCard files (RFC 6350). Each contact becomes an item."""

from __future__ import annotations

import re
from collections.abc import Iterator

from paise2nb import Document, PermanentError, extractor, task

SHOWN = ("FN", "ORG", "TITLE", "EMAIL", "TEL", "NOTE")


@extractor("text/vcard", "text/x-vcard", suffixes=[".vcf"])
def contacts(context, data, source):
    """Make a document of each contact."""
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\n ", "")
    found = re.findall(r"^BEGIN:VCARD\n(.*?)^END:VCARD", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise PermanentError(f"the file has no contact: {source.url}", "damaged")
    return [document(dict(fields(card)), f"{source.url}/{n}") for n, card in enumerate(found)]


def fields(card: str) -> Iterator[tuple[str, str]]:
    """The fields of one contact that are shown."""
    for line in card.splitlines():
        name, _, value = line.partition(":")
        if (name := name.partition(";")[0].upper()) in SHOWN:
            yield name, value.replace("\\,", ",").replace("\\n", "\n")


def document(card: dict[str, str], url: str) -> Document:
    """Make a document of one contact."""
    text = "\n".join(f"{name}: {value}" for name, value in card.items())
    return Document(text, title=card.get("FN"), url=url, metadata={"kind": "contact"})


@task("introduce")
def introduce(context, name):
    """Return the text of the contact with this name; None if there is none."""
    found = context.items.search(f'"{name}"', 1)
    return context.items.get(found[0]["id"])["text"] if found else None
