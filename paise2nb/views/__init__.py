"""What commands and the API return: plain objects with a text, an HTML and a JSON form.

Listings are sequences; every result has ``to_dict()``, and shows itself as text and as HTML.
"""

from paise2nb.core.display import Listing, Plain, Shown, arguments
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.views.items import Diff, History, Hits, Item, Items
from paise2nb.views.jobs import JOB_KEYS, STOPPED, Enqueued, Job, Jobs, Replay, progress
from paise2nb.views.status import Log, ResetCounts, Since, Status

__all__ = [
    "JOB_KEYS", "STOPPED", "Diff", "Enqueued", "History", "Hits", "Item", "Items", "Job", "Jobs",
    "Listing", "Log", "Plain", "Replay", "ResetCounts", "Shown", "Since", "Status", "WorkersStatus",
    "arguments", "progress",
]  # fmt: skip
