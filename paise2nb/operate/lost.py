"""Empty databases in place of lost ones, where the user gives up their content."""

import time
from contextlib import suppress
from pathlib import Path

from paise2nb.collection import items
from paise2nb.config.settings import Settings
from paise2nb.core.damage import ASIDE, companion, put_aside, size_of
from paise2nb.core.formats import Format
from paise2nb.core.sqlite import Database
from paise2nb.jobs.database import FORMAT


def lost_databases(settings: Settings) -> list[tuple[Path, Format]]:
    """Return the missing or empty databases, with their formats, that companions show were used."""
    directory = settings.data_dir
    if directory is None:
        return []
    jobs, path = settings.databases(directory)
    lost, _ = items.lost_database(settings, directory) or (None, None)
    return [
        (file, known)
        for file, known in ((path, items.FORMAT), (jobs, FORMAT))
        if not size_of(file) and (put_aside(file) or companion(file) or file == lost)
    ]


def replace(databases: list[tuple[Path, Format]]) -> None:
    """Create an empty database for each lost one. A write-ahead log is put aside.

    Raises:
        StorageError: It can't be created.
    """
    for path, wanted in databases:
        log = path.with_name(f"{path.name}-wal")
        with suppress(FileNotFoundError):
            log.rename(log.with_name(f"{path.name}{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}-wal"))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        Database(path, wanted, durable=True, replace=True).close()
