"""The queries that list pages in windows: a few of many thousands at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from paise2nb.jobs.models import PAGE_STATES
from paise2nb.jobs.sql import SQL
from paise2nb.jobs.statistics import StatisticsMixin

NO_TAG = ""  # selects the pages without a tag
MOST_GROUPS = 400  # tags and states in one query; SQLite allows 500 parts
_ORDERS = {
    "oldest": "page.id,",
    "state": "page.page_state,",
    "host": "page.host IS NULL, page.host,",
    "duration": "coalesce(fourth.finished_at, third.finished_at, second.finished_at,"
    " page.finished_at) - page.started_at DESC,",
}


# The arguments are a list in JSON.
_HAS_WORD = "page.args LIKE ? ESCAPE '!'"
_IS_URL = """page.args IN (SELECT value FROM json_each(?)) OR
    CASE WHEN page.args LIKE '%}]' AND json_valid(page.args)  -- from an archive, with its facts
    THEN json_extract(page.args, '$[0]') END IN (SELECT value FROM json_each(?))"""


def _pattern(word: str) -> str:
    text = json.dumps(word)[1:-1]
    return "%" + "".join(f"!{c}" if c in "%_!" else c for c in text) + "%"


class Selection(NamedTuple):
    """Which pages to list.

    Attributes:
        states: page states; none means all.
        tag: one tag; None means all, `NO_TAG` those without one.
        words: each of them is in the URL. Upper and lower case are the same.
        urls: pages with these URLs need not have the words.
    """

    states: Collection[str] = ()
    tag: str | None = None
    words: Sequence[str] = ()
    urls: Sequence[str] = ()

    def conditions(self) -> tuple[str, list[str | None]]:
        """Return the conditions of a query and their parameters."""
        texts, values = [], []
        if self.tag is not None:
            texts.append("AND page.tag IS ?")
            values.append(self.tag or None)
        if self.states:
            texts.append("AND page.page_state IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(self.states)))
        if self.words:
            texts.append(f"AND (({' AND '.join([_HAS_WORD] * len(self.words))}) OR {_IS_URL})")
            values += [_pattern(word) for word in self.words]
            values.append(json.dumps([json.dumps([url]) for url in self.urls]))
            values.append(json.dumps(list(self.urls)))
        return " ".join(texts), values


class PageQueryMixin(StatisticsMixin):
    """The methods that list pages."""

    def pages_by_tag(self) -> dict[str | None, dict[str, int]]:
        """The number of pages by tag and by state, without zeros. None has those without a tag."""
        counts: dict[str | None, dict[str, int]] = {}
        for tag, state, number in map(tuple, self._read(SQL["pages_by_tag"])):
            counts.setdefault(tag, {})[state] = number
        return counts

    def pages(
        self, selection: Selection, sort: str, offset: int, limit: int
    ) -> tuple[list[int], int]:
        """A window of the selected pages.

        Where an index has the order, it costs some milliseconds beside 100,000 pages, else up to
        150 (``python -m tests.benchmarks.listings``).

        Args:
            selection: which pages.
            sort: ``newest`` or ``oldest`` by the time of the enqueue, ``state``, ``host``, or
                ``duration``, the longest first. Where that is the same, the newest come first.
            offset: the number of pages before the window.
            limit: the largest number of pages in it.

        Returns:
            Their ids, and the number of all selected pages.
        """
        tag = selection.tag or None
        groups = [
            (name, state, number)
            for name, numbers in self.pages_by_tag().items()
            for state, number in numbers.items()
            if selection.tag is None or name == tag
            if not selection.states or state in selection.states
        ]
        total = sum(number for _, _, number in groups)
        if selection.words or sort in ("host", "duration") or len(groups) > MOST_GROUPS:
            conditions, values = selection.conditions()
            joined = SQL["newest_parts"] if sort == "duration" else ""
            order = _ORDERS.get(sort, "")
            sql = (
                f"SELECT page.id FROM jobs AS page INDEXED BY jobs_pages {joined}"
                f" WHERE page.page_state IS NOT NULL {conditions}"
                f" ORDER BY {order} page.id DESC LIMIT ? OFFSET ?"
            )
            if not selection.words:
                return self._column(sql, (*values, limit, offset)), total
            ids = self._column(sql, (*values, -1, 0))
            return ids[offset : offset + limit], len(ids)
        found: list[int] = []
        before = offset
        for states in [[s] for s in sorted(PAGE_STATES)] if sort == "state" else [PAGE_STATES]:
            part = [group for group in groups if group[1] in states]
            found += self._by_id(part, sort == "oldest", before, limit - len(found))
            before = max(0, before - sum(number for _, _, number in part))
        return found, total

    def _by_id(
        self,
        groups: Sequence[tuple[str | None, str, int]],
        oldest_first: bool,
        offset: int,
        limit: int,
    ) -> list[int]:
        """A window of the pages of some tags and states, in the order of their ids."""
        total = sum(number for _, _, number in groups)
        limit = min(limit, total - offset)
        if limit <= 0:
            return []
        from_end = offset > total // 2  # SQLite reads what it skips
        direction = "" if oldest_first != from_end else "DESC"
        sql = " UNION ALL ".join([SQL["pages_of_tag"]] * len(groups))
        sql += f" ORDER BY id {direction} LIMIT ? OFFSET ?"
        skipped = total - offset - limit if from_end else offset
        chosen = [name for tag, state, _ in groups for name in (tag, state)]
        ids = self._column(sql, (*chosen, limit, skipped))
        return ids[::-1] if from_end else ids

    def failed_of_group(self, error_class: str | None, status: str | None) -> list[int]:
        """The pages and other jobs that failed in one way, the latest first.

        Args:
            error_class, status: of a group of `QueryMixin.failures`.
        """
        return self._column(SQL["failed_of_group"], (error_class, status))
