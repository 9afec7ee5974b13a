"""The formats of the databases: a schema, and the migrations that lead to it from earlier ones.

Longer statements have files of their own, too, so that they can be read as SQL.
"""

import hashlib
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from paise2nb.core.errors import NewerFormat, StorageError
from paise2nb.core.files import make_private_directory, replacement

logger = logging.getLogger("paise2nb.data")

COPIES = "backups"  # the directory of the copies from before migrations, beside the database
KEPT = 2  # copies of one database
SPARE_BYTES = 20_000_000  # that a disk must have left beside a copy


class Migration(NamedTuple):
    """A step from one format to the next: its script, and the hash of the schema before it.

    There are several if the step before leaves work for later.
    """

    sources: str
    script: str


class Format(NamedTuple):
    """The format of a database: its schema now, and the steps that lead there from version 1.

    The version is the database's ``user_version``. ``functions`` are those of one argument that
    its views and triggers call, by name. ``page`` is the size of a page of a new file in bytes:
    small pages make small commits cheaper.
    """

    schema: str
    migrations: tuple[Migration, ...] = ()
    functions: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})
    page: int = 4096

    @property
    def version(self) -> int:
        """The number of this format."""
        return 1 + len(self.migrations)


def read_format(directory: Path, **functions: Callable[[Any], Any]) -> Format:
    """Read the format in the files ``schema.sql`` and ``migrations.sql`` of a directory.

    A migration begins with ``-- Version N, from schema HASH or HASH``; see `schema_hash`.
    """
    file = directory / "migrations.sql"
    parts = re.split(
        r"^-- Version \d+, from schema ([0-9a-f or]+)$", file.read_text("utf-8"), flags=re.MULTILINE
    )
    migrations = tuple(map(Migration, parts[1::2], parts[2::2]))
    return Format((directory / "schema.sql").read_text("utf-8"), migrations, functions)


def read_statements(directory: Path, **fragments: object) -> dict[str, str]:
    """Return the statements in the file ``statements.sql`` of a directory by name.

    Each follows a line ``-- name: NAME``. ``{NAME}`` includes an earlier statement or a fragment.

    Args:
        directory: The directory.
        fragments: More texts to include.
    """
    statements: dict[str, str] = {}
    text = (directory / "statements.sql").read_text("utf-8")
    for block in text.split("-- name: ")[1:]:
        name, _, statement = block.partition("\n")
        without_comments = re.sub(r"^ *--.*\n?", "", statement, flags=re.MULTILINE)
        statements[name] = without_comments.format_map({**fragments, **statements}).strip()
    return statements


def schema_hash(connection: sqlite3.Connection) -> str:
    """Return a hash of a database's tables, indexes, views and triggers, without comments."""
    rows = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite%'"
        " ORDER BY type, name"
    )
    # SQLite quotes the name of a table that was renamed, but not that of a full-text index's own
    # tables, and adds columns with other spaces.
    quotes = r"""--.*|"|(?<=^CREATE TABLE )'|(?<=\w)'(?=\()"""
    texts = (" ".join(re.sub(quotes, "", row[0]).split()) for row in rows)
    text = "\n".join(re.sub(r" ?([(),]) ?", r"\1", text) for text in texts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def missing_parts(connection: sqlite3.Connection, wanted: Format) -> list[str]:
    """Return the tables, indexes, views and triggers that a database lacks: ``trigger NAME``."""
    return [f"{kind} {name}" for kind, name, _ in _missing(connection, wanted)]


def restore_indexes(connection: sqlite3.Connection, wanted: Format) -> None:
    """Create what a database lacks and has no rows of its own; fill full-text indexes again.

    Raises:
        StorageError: A table is missing, and its rows are lost.
    """
    create_missing(connection, wanted)
    # A missing trigger has missed changes, so that the index is out of date.
    for name, sql in connection.execute(_VIRTUAL).fetchall():
        if "fts5" in sql.lower():
            connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")


def create_missing(connection: sqlite3.Connection, wanted: Format) -> None:
    """Create what a database lacks and has no rows of its own, with empty full-text indexes.

    Raises:
        StorageError: A table is missing, and its rows are lost.
    """
    missing = _missing(connection, wanted)
    for kind, name, sql in missing:
        if kind == "table" and not sql.startswith("CREATE VIRTUAL TABLE"):
            raise StorageError(f"the rows of table {name} are lost")
    for _, _, sql in missing:
        connection.execute(sql)


_VIRTUAL = "SELECT name, sql FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%'"


def _missing(connection: sqlite3.Connection, wanted: Format) -> list[tuple[str, str, str]]:
    """The type, name and SQL of all that the schema has and a database lacks, tables first."""
    sql = (
        "SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL"
        " ORDER BY type != 'table', rootpage > 0"
    )
    found = {(row[0], row[1]) for row in connection.execute(sql)}
    with closing(sqlite3.connect(":memory:")) as model:
        execute_script(model, wanted.schema)
        virtual = {row[0] for row in model.execute(_VIRTUAL)}
        rows = [tuple(row) for row in model.execute(sql)]
    # The tables in which a virtual one keeps its data come and go with it.
    shadows = tuple(f"{name}_" for name in virtual)
    return [
        row for row in rows
        if row[:2] not in found and not (row[0] == "table" and row[1].startswith(shadows))
    ]  # fmt: skip


def execute_script(connection: sqlite3.Connection, script: str) -> None:
    """Execute the statements of a script in the transaction of the connection."""
    # A statement ends at a semicolon that ends a line; those inside of triggers must not.
    script = re.sub(r";\n(?= |END)", "; ", script)
    # Not executescript(): it would commit the transaction first.
    for statement in filter(str.strip, script.split(";\n")):
        connection.execute(statement)


_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"


def newer_format_error(path: Path, version: int, known: int) -> NewerFormat:
    """Return the error for a file that a newer version has written."""
    return NewerFormat(
        f"{path} was written by a newer paise2nb (format {version}, this one knows {known}); "
        "upgrade paise2nb, or use another --data-dir; what runs has to be started again"
    )


def copy_before_migration(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy a database to the directory `COPIES` beside it; older copies than `KEPT` are deleted.

    Args:
        connection: Has a write transaction, so that the copy misses nothing.
        path: The file.
        version: Its format.

    Returns:
        The copy.

    Raises:
        StorageError: There is not enough space, or the directory can't be created.
    """
    directory = path.parent / COPIES
    make_private_directory(directory)
    (size,) = connection.execute(_SIZE).fetchone()
    free = shutil.disk_usage(directory).free
    if free < size + SPARE_BYTES:
        raise StorageError(
            f"{path} must be migrated from format {version}, and before that it is copied to "
            f"{directory}: {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; free some, "
            "or make that directory a link to another disk"
        )
    moment = time.strftime("%Y%m%d-%H%M%S")
    target = directory / f"{path.stem}-format{version}-{moment}{path.suffix}"
    with (
        replacement(target) as partial,
        closing(sqlite3.connect(partial)) as copy,
        closing(sqlite3.connect(path)) as reader,  # SQLite copies no connection that writes
    ):
        reader.backup(copy)
    for old in sorted(directory.glob(f"{path.stem}-format*"), key=os.path.getmtime)[:-KEPT]:
        old.unlink()
    return target


def migrate(connection: sqlite3.Connection, wanted: Format, path: Path) -> None:
    """Create the schema in an empty database, or migrate an earlier format to it.

    Args:
        connection: Has a write transaction.
        wanted: The format.
        path: The file, for messages.

    Raises:
        StorageError: The file has a newer format, or another schema than a migration expects.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > wanted.version:
        raise newer_format_error(path, version, wanted.version)
    if version == 0:
        execute_script(connection, wanted.schema)
    else:
        for number, migration in enumerate(wanted.migrations[version - 1 :], version):
            if schema_hash(connection) not in migration.sources:
                raise StorageError(
                    f"{path} was written by an unreleased version of paise2nb "
                    f"(its format {number} has another schema); type: paise2 doctor"
                )
            if number == version:
                copy = copy_before_migration(connection, path, version)
                text = "%s is migrated from format %d to %d; a copy of it is %s"
                logger.warning(text, path, version, wanted.version, copy)
            execute_script(connection, migration.script)
    connection.execute(f"PRAGMA user_version={wanted.version}")
