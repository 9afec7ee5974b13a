"""The format of ``tasks.db``: ``schema.sql``, and any migrations that follow it."""

from pathlib import Path

MIGRATIONS = (Path(__file__).with_name("schema.sql").read_text("utf-8"),)
