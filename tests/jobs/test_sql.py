"""The SQL file of the job store: every statement is valid, and used by a module."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from paise2nb.jobs import sql
from paise2nb.jobs.store import JobStore

MODULES = Path(sql.__file__).parent.glob("*.py")
# Parts of statements, included by name; each is checked within the statements that include it.
FRAGMENTS = sql.SQL.keys() & set(
    re.findall(r"\{(\w+)\}", Path(sql.__file__).with_name("statements.sql").read_text())
)


@pytest.mark.parametrize("name", sorted(sql.SQL.keys() - FRAGMENTS))
def test_a_statement_fits_the_schema(tmp_path: Path, name: str) -> None:
    store = JobStore(tmp_path / "tasks.db", durable=False)
    statement = sql.SQL[name]
    number = statement.count("?")
    parameters = [None] * number if number else defaultdict[str, None](lambda: None)
    with store.database.connection() as connection:
        assert connection.execute(f"EXPLAIN {statement}", parameters).fetchall()
    store.close()


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    text = "\n".join(path.read_text() for path in MODULES)
    used = set(re.findall(r'SQL\[["\'](\w+)["\']\]', text))
    assert used | FRAGMENTS == sql.SQL.keys()
