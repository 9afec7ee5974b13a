"""The demo: the whole pipeline on a bundled site, for new users and to check an installation.

The site needs no network, so a failure here is a failure of the installation.
"""

from paise2nb.demo.run import run_demo
from paise2nb.demo.site import DemoSite
from paise2nb.demo.tutorial import notebook

__all__ = ["DemoSite", "notebook", "run_demo"]
