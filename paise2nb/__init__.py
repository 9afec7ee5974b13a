"""The background worker of the notebook: fetch, extract, store, search; the kernel stays free.

The public names are listed in ``__init__.pyi``, for type checkers as well as for `__getattr__`.
They are imported on first use, so that loading the extension in a kernel costs little.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def _modules() -> dict[str, str]:
    """Return the module of each public name."""
    stub = Path(__file__).with_suffix(".pyi").read_text("utf-8")
    imports = re.findall(r"^from (\S+) import (\w+) as \2$", stub, re.MULTILINE)
    return {name: module for module, name in imports}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_modules())
    if name not in _modules():
        raise AttributeError(f"module 'paise2nb' has no attribute {name!r}")
    return getattr(import_module(_modules()[name]), name)
