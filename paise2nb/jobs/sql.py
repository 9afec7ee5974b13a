"""The job store's SQL: ``statements.sql`` as a dictionary by name.

It has a file of its own so that it can be read as SQL, beside ``schema.sql``.
"""

from pathlib import Path

from paise2nb.core.formats import read_statements
from paise2nb.jobs.models import Claim

SQL = read_statements(Path(__file__).parent, claim_columns=", ".join(Claim._fields))
