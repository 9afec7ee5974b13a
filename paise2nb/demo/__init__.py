"""The main job on a bundled site: what a stranger sees first, and a check of an installation.

The site needs no network, so a failure here is a failure of the installation.
"""

from __future__ import annotations

from paise2nb.demo.run import Demo, run_demo
from paise2nb.demo.site import DemoSite

__all__ = ["Demo", "DemoSite", "run_demo"]
