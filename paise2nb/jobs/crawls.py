"""The URLs that a crawl has found, so that each is a page of it once, and it ends at its limit.

A crawl is a `links` job that a user or a schedule starts, with all that follows from it. Its URLs
are decided in the transaction of the outcome that found them, so a crash loses or doubles none.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from paise2nb.core.urls import shown_url
from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.models import Claim, Found, NewJob
from paise2nb.jobs.sql import SQL

# Why a URL is left out. PAGE is the reason of those that are not.
PAGE, NOFOLLOW, KNOWN, MAX_PAGES = "", "nofollow", "up_to_date", "max_pages"
# The reasons of rows that are no URL: of a text, and of a shape that URLs have in common.
TEXT, SHAPE = "text", "shape"
# A page that is found again by a shorter way is read again if its links were followed less far
# than this. Beyond, the limit is hardly ever reached, and many pages would be read in vain.
SHALLOW = 8


class Crawled(NamedTuple):
    """What a crawl knows about a URL: how far its links are followed, and why it is left out.

    Of a shape: at how many URLs in succession there were only known texts.
    """

    depth: int
    reason: str

    def is_settled(self, depth: int, reason: str) -> bool:
        """Whether finding the URL again, with this depth and reason, changes nothing."""
        if reason != PAGE or self.reason not in (PAGE, NOFOLLOW, KNOWN):
            return True
        return self.reason != NOFOLLOW and self.depth >= min(depth, SHALLOW)


class CrawlMixin(JobDatabase):
    """The methods of crawls. Each crawl is named by the id of its first job."""

    def _new_pages(self, tx: Transaction, claim: Claim, found: Found) -> list[NewJob]:
        """Settle the URLs that an execution has found, and return the jobs of new pages."""
        crawl = claim.root_id
        if claim.is_root:  # a run begins, perhaps of many
            self._forget_crawls(tx, [crawl])
        known = self._crawled(tx.execute, crawl, [link.key for link in found.links])
        counted = tx.execute(SQL["crawl_pages"], (crawl,)).fetchone()
        # Another outcome of this transaction may have found some, which are not stored yet.
        late, *_ = tx.counters.sums.get(("crawl", crawl), [0])
        left = found.max_pages - late - (counted[0] if counted else 0)
        jobs, rows, pages = [], [], 0
        for key, url, depth, reason, job in found.links:
            before = known.get(key)
            if before and before.is_settled(depth, reason):
                continue
            if not reason and not (before and before.reason == PAGE):
                reason = PAGE if pages < left else MAX_PAGES
                pages += reason == PAGE
            if not reason and job is not None:
                jobs.append(job)
            rows.append((crawl, key, depth, reason, shown_url(url) if reason else ""))
        tx.executemany("REPLACE INTO crawls VALUES (?, ?, ?, ?, ?)", rows)
        if pages:
            tx.counters.count("crawl", crawl, pages)
        return jobs

    @staticmethod
    def _crawled(execute: Any, crawl: int, keys: Sequence[int]) -> dict[int, Crawled]:
        rows = execute(SQL["crawled"], (crawl, json.dumps(keys)))
        return {key: Crawled(depth, reason) for key, depth, reason in map(tuple, rows)}

    def crawled(self, crawl: int, keys: Sequence[int]) -> dict[int, Crawled]:
        """What a crawl knows about URLs and shapes, by key; without those that it has not found."""
        return self._crawled(self._read, crawl, keys)

    @transaction
    def is_known_text(self, tx: Transaction, crawl: int, key: int, url: str, shape: int) -> bool:
        """Whether a crawl has found a text at another URL before.

        It counts how often that was so in succession for URLs of the same shape, see `crawled`.
        """
        tx.execute("INSERT OR IGNORE INTO crawls VALUES (?, ?, 0, ?, ?)", (crawl, key, TEXT, url))
        is_known = bool(tx.execute(SQL["crawl_text"], (crawl, key)).fetchone()[0] != url)
        tx.execute(SQL["count_shape"], (crawl, shape, is_known, SHAPE))
        return is_known

    @transaction
    def leave_out(
        self, tx: Transaction, crawl: int, key: int, url: str, reason: str, instead: int | None
    ) -> bool:
        """Note that a fetched page of a crawl is not stored.

        Args:
            crawl: The crawl.
            key: Of the page.
            url: Its URL, for users.
            reason: A word.
            instead: The key of the page that is stored in its place.

        Returns:
            Whether it is left out. It is not if that other page was left out itself.
        """
        others = self._crawled(tx.execute, crawl, [instead] if instead is not None else [])
        if any(other.reason not in (PAGE, KNOWN) for other in others.values()):
            return False
        tx.execute(SQL["leave_out"], (crawl, key, reason, url))
        return True

    def crawl_of(self, page_id: int) -> tuple[list[Any], bool] | None:
        """The arguments of the `links` job that a page is or follows from, and whether it is one.

        None if the page is not part of a crawl.
        """
        for args, is_own in self._read(SQL["crawl_of"], (page_id,)):
            return json.loads(args), bool(is_own)
        return None

    def left_out(self, crawl: int) -> dict[str, dict[str, Any]]:
        """What a crawl has left out: for each reason the number of URLs, and some of them."""
        return {
            row["reason"]: {"number": row["number"], "examples": json.loads(row["examples"])}
            for row in self._read(SQL["left_out"], (crawl,))
        }

    @staticmethod
    def _forget_crawls(tx: Transaction, ids: Sequence[int]) -> None:
        """Remove what is known about crawls."""
        tx.execute(SQL["forget_crawls"], (json.dumps(ids),))
        tx.execute(SQL["forget_crawl_pages"], (json.dumps(ids),))
