"""What commands and the API return: plain objects with a text, an HTML and a JSON form.

Listings are sequences; every result has ``to_dict()``, and shows itself as text and as HTML.
"""

from paise2nb.core.display import Displayable, Listing, RowList, arguments
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.views.items import Diff, History, Item, Items, SearchResults
from paise2nb.views.jobs import JOB_KEYS, STOPPED, Enqueued, Job, Jobs, Replay, progress
from paise2nb.views.status import Digest, Log, ResetCounts, Status

__all__ = [
    "JOB_KEYS",
    "STOPPED",
    "Diff",
    "Digest",
    "Displayable",
    "Enqueued",
    "History",
    "Item",
    "Items",
    "Job",
    "Jobs",
    "Listing",
    "Log",
    "Replay",
    "ResetCounts",
    "RowList",
    "SearchResults",
    "Status",
    "WorkersStatus",
    "arguments",
    "progress",
]  # fmt: skip
