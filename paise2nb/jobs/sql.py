"""The job store's SQL: ``statements.sql`` as a dictionary by name.

It has a file of its own so that it can be read as SQL, beside ``schema.sql``.
"""

import re
from pathlib import Path

from paise2nb.jobs.models import Claim


def load(path: Path, **fragments: str) -> dict[str, str]:
    """The statements of a file by name; each follows a line ``-- name: NAME``.

    Args:
        path: the file. ``{NAME}`` in a statement includes an earlier one or a fragment.
        fragments: more texts to include.
    """
    statements: dict[str, str] = {}
    for block in path.read_text("utf-8").split("-- name: ")[1:]:
        name, _, text = block.partition("\n")
        without_comments = re.sub(r"^ *--.*\n?", "", text, flags=re.MULTILINE)
        statements[name] = without_comments.format_map(fragments | statements).strip()
    return statements


SQL = load(Path(__file__).with_name("statements.sql"), claim_columns=", ".join(Claim._fields))
