"""Pages that need JavaScript to have a text: a browser loads them, and its text is stored.

This module is imported by every worker, so it imports neither the browser nor what needs it.
"""

import sys


def close_browser() -> None:
    """End the browser of this process, if there is one."""
    if module := sys.modules.get(f"{__name__}.browser"):
        module.browser.close()
