"""Searching the collection: what a query means, which items fit it, and which of these are best.

The index is the table ``words`` of `paise2nb.collection.items`. What a common word costs there
grows with the documents that hold it, twice where it counts in the ranking (bm25 reads them once
more for its weight). So of a large collection ranking leaves out the commonest words, which tell
good from better the least, and looks at the newest matches only.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import Any

from paise2nb.core.sqlite import Database
from paise2nb.core.urls import ascii_host

# Around each hit in a snippet: characters that no stored text holds, for renderers to replace.
HIT_START, HIT_END = "\x02", "\x03"

# Control characters (HIT_START and HIT_END are two of them) but tab and newline, and halves of
# surrogate pairs, which can't be written as UTF-8.
UNSTORABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

TITLE_WEIGHT = 5.0  # a word in the title counts as much as five in the text
SNIPPET_WORDS = 24
RANKED = 1000  # matches of one query that are ranked, the newest
UNRANKED = 100  # matches of which those with a hit in the title come first, where none is ranked
# Documents whose words ranking may read: some milliseconds. Positions in a phrase cost twice.
READ_FOR_RANKING, PHRASE_COST = 100_000, 2

_DAY = "substr(coalesce(date, strftime('%Y-%m-%d', fetched_at, 'unixepoch')), 1, 10)"
# What an operator asks of an item's date. What it asks of host and tag is in the index.
_DAYS = {"before": f" AND {_DAY} < {{}}", "after": f" AND {_DAY} >= {{}}"}

_BY_WORDS = f"bm25(words, {TITLE_WEIGHT}, 1.0, 0.0)"
_BY_TITLE = f"-1.0 * coalesce(instr(highlight(words, 0, '{HIT_START}', ''), '{HIT_START}') > 0, 0)"
_MATCHES = """
SELECT words.rowid AS id, {} AS rank FROM words{}
WHERE words MATCH :words{} ORDER BY words.rowid DESC LIMIT :ranked
"""
_BEST = f"SELECT id, rank FROM ({_MATCHES}) ORDER BY rank, id DESC LIMIT :limit"
_BEST_BY_SOME = f"""
WITH matches AS MATERIALIZED ({_MATCHES.format(0, "{}", "{}")})
SELECT words.rowid AS id, {_BY_WORDS} AS rank FROM words
WHERE words MATCH :weighed AND words.rowid >= (SELECT min(id) FROM matches)
    AND +words.rowid IN (SELECT id FROM matches)
ORDER BY rank, words.rowid DESC LIMIT :limit
"""
# About how many documents hold each of some words, from how many of the newest thousand do.
_HELD_BY = """
SELECT value, max(1.0, :last / 1000.0) *
    (SELECT count(*) FROM words WHERE words MATCH value AND words.rowid > :last - 1000)
FROM json_each(:words)
"""
_SHOWN = f"""
SELECT words.rowid AS id, url, items.title AS title,
       snippet(words, 1, '{HIT_START}', '{HIT_END}', '…', {SNIPPET_WORDS}) AS snippet
FROM {{}} CROSS JOIN items ON items.id = words.rowid WHERE words MATCH :words AND words.rowid {{}}
"""
_ONE_BY_ONE = _SHOWN.format("json_each(:ids) AS best CROSS JOIN words", "= best.value")
# Each look for a prefix would put the documents of all words that begin so together.
_IN_ONE_LOOK = _SHOWN.format(
    "words",
    "BETWEEN (SELECT min(value) FROM json_each(:ids)) AND (SELECT max(value) FROM json_each(:ids))"
    " AND +words.rowid IN (SELECT value FROM json_each(:ids))",
)
_NEWEST = "ORDER BY fetched_at DESC, items.id DESC"
_CHOSEN = f"""
SELECT items.id AS id, url, title, substr(text, 1, 200) AS snippet, 0.0 AS score
FROM items JOIN ({{}} {_NEWEST} LIMIT :limit) AS chosen ON chosen.id = items.id {_NEWEST}
"""
# Operators alone: of few items that have the marks all are looked at, in an index with all that is
# asked of them; where many have them, the newest of all items are looked through for some.
_BY_FACETS = (
    "SELECT items.id FROM words CROSS JOIN items INDEXED BY items_by_day ON items.id = words.rowid"
    " WHERE words MATCH :marks{}"
)
_BY_COMMON_FACETS = (
    "SELECT id FROM items WHERE EXISTS"
    " (SELECT 1 FROM words WHERE words MATCH :marks AND words.rowid = items.id){}"
)
_WITHOUT_FACETS = "SELECT id FROM items WHERE 1{}"
_ARE_COMMON = "SELECT 1 FROM words WHERE words MATCH :marks LIMIT 1 OFFSET 5000"

_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_OPERATOR = re.compile(
    r'(?<!\S)(?:(site|tag):(?:"([^"]+)"|([^\s"]+))|(before|after):(\d{4}(?:-\d\d){0,2}))(?!\S)'
)


def search(database: Database, query: str, limit: int) -> list[dict[str, Any]]:
    """The items of a collection that hold all words of a query, best first.

    See `paise2nb.collection.items.ItemStore.search`.
    """
    terms, facets, days, values = parse_query(query)
    values["limit"] = limit
    if terms:
        return _found(database, terms, facets, days, values)
    if not facets and not days:
        return []
    values["marks"] = facets
    chosen = _WITHOUT_FACETS
    if facets:
        chosen = _BY_COMMON_FACETS if database.read(_ARE_COMMON, values) else _BY_FACETS
    sql = _CHOSEN.format(chosen.format(days))
    return [dict(row) for row in database.read(sql, values)]


def _found(
    database: Database, terms: list[str], facets: str, days: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    words = f"({' '.join(terms)}) AND {facets}" if facets else " ".join(terms)
    joined = " JOIN items INDEXED BY items_by_day ON items.id = words.rowid" if days else ""
    scored_terms = _scored_terms(database, terms)
    values |= {"words": words, "weighed": " ".join(scored_terms), "ranked": RANKED}
    if len(scored_terms) == len(terms):
        best = database.read(_BEST.format(_BY_WORDS, joined, days), values)
    elif scored_terms:
        best = database.read(_BEST_BY_SOME.format(joined, days), values)
    else:
        values["ranked"] = max(UNRANKED, values["limit"])
        best = database.read(_BEST.format(_BY_TITLE, joined, days), values)
    # Apart from the query above, in which each of the ranked matches would get its snippet.
    rows = database.read(
        _IN_ONE_LOOK if "*" in words else _ONE_BY_ONE,
        {"words": words, "ids": json.dumps([found["id"] for found in best])},
    )
    shown = {row["id"]: row for row in rows}
    return [
        {**shown[found["id"]], "score": -found["rank"]}
        for found in best
        if found["id"] in shown  # not removed meanwhile
    ]


def _scored_terms(database: Database, terms: list[str]) -> list[str]:
    """The terms that count in the ranking: all, or without the commonest.

    Prefixes always do: how many documents hold one costs as much to tell as to use.
    """
    ((last,),) = database.read("SELECT coalesce(max(id), 0) FROM items")
    words = {term: terms_of(term.strip('"')) for term in terms if not term.endswith("*")}
    if last * PHRASE_COST * sum(map(len, words.values())) <= READ_FOR_RANKING:
        return terms
    every = json.dumps([word for each in words.values() for word in each])
    held = dict(map(tuple, database.read(_HELD_BY, {"words": every, "last": last})))
    costs = {
        term: sum(held[word] for word in each) * (PHRASE_COST if len(each) > 1 else 1)
        for term, each in words.items()
    }
    scored_terms = sorted(terms, key=lambda term: costs.get(term, 0.0))
    while sum(costs.get(term, 0.0) for term in scored_terms) > READ_FOR_RANKING:
        scored_terms.pop()
    return scored_terms


def parse_query(query: str) -> tuple[list[str], str, str, dict[str, Any]]:
    """A query's terms, an FTS5 expression for its marks, SQL conditions, and their values."""
    facets: dict[str, list[str]] = {}
    days, values = "", dict[str, Any]()
    for number, (kind, quoted, word, order, day) in enumerate(_OPERATOR.findall(query)):
        if order:
            values[f"v{number}"] = day
            days += _DAYS[order].format(f":v{number}")
            continue
        value = quoted or word
        if kind == "site":
            with suppress(ValueError):
                value = ascii_host(value.removeprefix("."))
        facets.setdefault(kind, []).append(_facet(kind, value))
    chosen = " AND ".join(f"marks : ({' OR '.join(each)})" for each in facets.values())
    return terms_of(_OPERATOR.sub(" ", query)), chosen, days, values


def terms_of(query: str) -> list[str]:
    """FTS5 expressions for the words, phrases and prefixes of a query; always well-formed.

    Everything is quoted, so AND, NEAR, ``-``, ``:`` and brackets are text. An odd quote is
    left out, and so are terms without a letter or digit: the tokenizer makes nothing of them.
    """
    terms = []
    for phrase, star, word in _TERM.findall(query):
        text = UNSTORABLE.sub(" ", phrase or word.rstrip("*"))
        if any(character.isalnum() for character in text):
            is_prefix = star or word.endswith("*")
            terms.append(f'{{title text}} : "{text}"*' if is_prefix else f'"{text}"')
    return terms


def facets_of(key: str, tag: str | None) -> str:
    """The words by which ``site:`` and ``tag:`` find an item: its host's domains, with its port
    and without it."""
    host = key.partition("://")[2].partition("/")[0]
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    labels = name.split(".")
    domains = [".".join(labels[n:]) for n in range(len(labels))]
    sites = domains + [f"{domain}:{port}" for domain in domains if port]
    return " ".join(
        [*(_facet("site", site) for site in sites), *([_facet("tag", tag)] if tag else [])]
    )


def _facet(kind: str, value: str) -> str:
    """The word that stands for a host or a tag in the index: one that no text holds."""
    name = f"{kind}:{value}".encode(errors="replace")
    return f"{kind}{hashlib.blake2b(name, digest_size=8).hexdigest()}"
