"""The documentation as a site: ``sphinx-build -c docs . build/site``.

The source directory is the root of the repository, so that a link between files is the same on the
site and in the repository. Nothing is fetched, and no notebook runs: the site shows their stored
outputs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import paise2nb

project = "paise2nb"
author = copyright = "paise2nb contributors"
release = paise2nb.__version__
root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "CONTRIBUTING.md", "CHANGELOG.md"]
extensions = ["site_directives", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

napoleon_use_ivar = True
nb_execution_mode = "off"
# Without a kernel a widget's own HTML is shown, and no script for widgets is loaded from elsewhere.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
default_role = "py:obj"

html_theme = "furo"
html_title = "paise2nb"
html_copy_source = False
