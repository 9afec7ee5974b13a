"""What commands and the API return: plain objects with a text, an HTML and a JSON form."""

from paise2nb.views.items import Item, Items
from paise2nb.views.jobs import Job, Jobs
from paise2nb.views.status import Status

__all__ = ["Item", "Items", "Job", "Jobs", "Status"]
