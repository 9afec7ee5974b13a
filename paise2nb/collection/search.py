"""Full-text search: parsing queries, selecting the items that match, and ranking the best.

The index is the table ``words`` of ``schema.sql``; the statements are in ``statements.sql``.
Reading a word costs time in proportion to the documents that contain it, and twice as much if it
counts in the ranking, because bm25 reads them once more for its weight. Large
collections are therefore ranked without the most common words, which say least about relevance, and
only among the newest matches.
"""

import hashlib
import json
import re
from contextlib import suppress
from typing import Any, NamedTuple

from paise2nb.collection.index_text import (
    SEPARATORS,
    readable,
    searched,
    snippet_of,
    with_prefix,
)
from paise2nb.collection.sql import SQL
from paise2nb.core.sqlite import Database
from paise2nb.core.urls import ascii_host

# Control characters other than tab and newline (among them HIT_START and HIT_END, so no stored
# text contains these), and lone surrogates, which can't be encoded as UTF-8.
UNSTORABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

RANKED = 1000  # matches of one query that are ranked, the newest
UNRANKED = 100  # newest matches searched for titles if no term is ranked
# Documents that the ranking may read: some milliseconds. Positions in a phrase cost twice.
READ_FOR_RANKING, PHRASE_COST = 100_000, 2

_DAY = "substr(coalesce(date, strftime('%Y-%m-%d', fetched_at, 'unixepoch')), 1, 10)"
_DAY_CONDITIONS = {"before": f" AND {_DAY} < {{}}", "after": f" AND {_DAY} >= {{}}"}

_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_LAST_WORD = re.compile(r"\b[^\W\d_]{3,60}\Z")  # that the stemmer may change
_OPERATOR = re.compile(
    r'(?<!\S)(?:(site|tag):(?:"([^"]+)"|([^\s"]+))|(before|after):(\d{4}(?:-\d\d){0,2}))(?!\S)'
)


class Query(NamedTuple):
    """A parsed query.

    Attributes:
        terms: FTS5 expressions for its words, phrases and prefixes.
        facets: An FTS5 expression for ``site:`` and ``tag:``.
        days: SQL conditions for ``before:`` and ``after:``.
        values: The values of the parameters of these conditions.
    """

    terms: list[str]
    facets: str
    days: str
    values: dict[str, Any]


def search(
    database: Database,
    query: str,
    limit: int,
    *,
    read_for_ranking: int = READ_FOR_RANKING,
    unranked: int = UNRANKED,
) -> list[dict[str, Any]]:
    """The items that contain all words of a query, best first.

    See `paise2nb.collection.items.ItemStore.search`.

    Args:
        database: Holds the items and the index.
        query: The query.
        limit: The largest number of results.
        read_for_ranking: Of how many documents the ranking may read the words.
        unranked: The number of newest matches that are searched for titles if no term is ranked.
    """
    parsed = parse_query(query)
    values = {**parsed.values, "facets": parsed.facets, "limit": limit, "ranked": RANKED}
    if parsed.terms:
        scored_terms = _scored_terms(database, parsed.terms, read_for_ranking)
        if not scored_terms:
            values["ranked"] = max(unranked, limit)
        return _by_words(database, parsed, scored_terms, values)
    if not parsed.facets and not parsed.days:
        return []
    name = "without_facets"
    if parsed.facets:
        name = "by_common_facets" if database.read(SQL["are_common"], values) else "by_facets"
    sql = SQL["selected"].format(selected=SQL[name].format(days=parsed.days))
    return [dict(row) for row in database.read(sql, values)]


def _by_words(
    database: Database, query: Query, scored_terms: list[str], values: dict[str, Any]
) -> list[dict[str, Any]]:
    words = _all_of(query.terms)
    if query.facets:
        words = f"({words}) AND {query.facets}"
    joined = " JOIN items INDEXED BY items_by_day ON items.id = words.rowid" if query.days else ""
    values |= {"words": words, "scored_terms": _all_of(scored_terms)}
    values["title"] = "title : (" + " OR ".join(query.terms) + ")"
    name, rank = "best_by_scored_terms" if scored_terms else "best_by_titles", "0"
    if len(scored_terms) == len(query.terms):
        name, rank = "best", SQL["rank_of_words"]
    sql = SQL[name].format(rank=rank, joined=joined, days=query.days)
    best = database.read(sql, values)
    # A query of its own: in the one above SQLite would make a snippet of every ranked match.
    rows = database.read(
        SQL["snippets_by_range" if "*" in words else "snippets_by_id"],
        {"words": words, "ids": json.dumps([match["id"] for match in best])},
    )
    found = {}
    for row in map(dict, rows):
        text = row.pop("text")
        snippet = readable(row["snippet"]) if text is None else snippet_of(text, query.terms)
        found[row["id"]] = {**row, "snippet": snippet}
    return [
        {**found[match["id"]], "score": -match["rank"]}
        for match in best
        if match["id"] in found  # not removed in the meantime
    ]


def _all_of(terms: list[str]) -> str:
    """One expression for all of some terms. Only brackets need an AND, which has to have tokens."""
    plain = " ".join(term for term in terms if not term.endswith(")"))
    return " AND ".join(filter(None, [plain, *(term for term in terms if term.endswith(")"))]))


def _scored_terms(database: Database, terms: list[str], budget: int) -> list[str]:
    """The terms that count in the ranking: all of them, or all but the most common.

    Prefixes always count, because counting their documents costs as much as ranking them.
    """
    ((last,),) = database.read("SELECT coalesce(max(id), 0) FROM items")
    words = {
        term: [f'"{word}"' for word in SEPARATORS.split(term.strip('"')) if word]
        for term in terms
        if not term.startswith("{")
    }
    if last * PHRASE_COST * sum(map(len, words.values())) <= budget:
        return terms
    all_words = json.dumps([word for each in words.values() for word in each])
    rows = database.read(SQL["document_counts"], {"words": all_words, "last": last})
    counts = dict(map(tuple, rows))
    costs = {
        term: sum(counts[word] for word in each) * (PHRASE_COST if len(each) > 1 else 1)
        for term, each in words.items()
    }
    scored_terms = sorted(terms, key=lambda term: costs.get(term, 0.0))
    while sum(costs.get(term, 0.0) for term in scored_terms) > budget:
        scored_terms.pop()
    return scored_terms


def parse_query(query: str) -> Query:
    """Split a query into its terms and its operators."""
    facets: dict[str, list[str]] = {}
    days, values = "", dict[str, Any]()
    for number, (kind, quoted, word, order, day) in enumerate(_OPERATOR.findall(query)):
        if order:
            values[f"v{number}"] = day
            days += _DAY_CONDITIONS[order].format(f":v{number}")
            continue
        value = quoted or word
        if kind == "site":
            with suppress(ValueError):
                value = ascii_host(value.removeprefix("."))
        facets.setdefault(kind, []).append(_facet(kind, value))
    chosen = " AND ".join(f"facets : ({' OR '.join(each)})" for each in facets.values())
    return Query(terms_of(_OPERATOR.sub(" ", query)), chosen, days, values)


def terms_of(query: str) -> list[str]:
    """The words, phrases and prefixes of a query as FTS5 expressions that are always valid.

    Everything is quoted, so AND, NEAR, ``-``, ``:`` and brackets are text. An unmatched quote is
    left out, and so are terms without a letter or digit, which have no token.
    """
    terms = []
    for phrase, star, word in _TERM.findall(query):
        given = UNSTORABLE.sub(" ", phrase or word.rstrip("*"))
        text, is_beginning = searched(given)
        if any(character.isalnum() for character in text):
            is_prefix = star or word.endswith("*") or is_beginning
            terms.append(_prefix(text) if is_prefix else f'"{text}"')
    return terms


def _prefix(text: str) -> str:
    """The expression for a phrase of which the last word is a prefix."""
    last = _LAST_WORD.search(text)
    before = text[: last.start()] if last else text
    common, others = with_prefix(last[0]) if last else ("", [])
    phrases = [f'"{before}{common}"*', *(f'"{before}{word}"' for word in others)]
    either = " OR ".join(phrases)
    return f"{{title text}} : ({either})" if others else f"{{title text}} : {either}"


def facets_of(key: str, tag: str | None, earlier: str = "") -> str:
    """The words by which ``site:`` and ``tag:`` find an item.

    Args:
        key: Its canonical URL. It is found by its host and by each parent domain, with and
            without the port.
        tag: Its tag.
        earlier: Its facets until now. Their tags are kept.
    """
    host = key.partition("://")[2].partition("/")[0]
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    labels = name.split(".")
    domains = [".".join(labels[n:]) for n in range(len(labels))]
    sites = domains + [f"{domain}:{port}" for domain in domains if port]
    facets = [_facet("site", site) for site in sites]
    tags = [facet for facet in earlier.split() if facet.startswith("tag")]
    return " ".join(dict.fromkeys(facets + tags + ([tag_facet(tag)] if tag else [])))


def tag_facet(tag: str) -> str:
    """The word by which ``tag:`` finds an item."""
    return _facet("tag", tag)


def _facet(kind: str, value: str) -> str:
    """The word for a host or a tag in the index. A hash, so that no text contains it."""
    name = f"{kind}:{value}".encode(errors="replace")
    return f"{kind}{hashlib.blake2b(name, digest_size=8).hexdigest()}"
