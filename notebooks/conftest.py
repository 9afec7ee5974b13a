"""Which notebooks can be run on this machine."""

import shutil

collect_ignore = [] if shutil.which("chromium") else ["08-logins-and-javascript.ipynb"]
