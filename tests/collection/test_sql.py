"""The SQL file of the collection: every statement is used by a module or by another statement."""

from __future__ import annotations

import re
from pathlib import Path

from paise2nb.collection import sql

DIRECTORY = Path(sql.__file__).parent


def test_every_statement_is_used() -> None:
    modules = "\n".join(path.read_text("utf-8") for path in DIRECTORY.glob("*.py"))
    included = re.findall(r"(?<!\{)\{(\w+)\}", (DIRECTORY / "statements.sql").read_text("utf-8"))
    used = set(re.findall(r'"(\w+)"', modules)) | set(included)
    assert sql.SQL.keys() <= used
