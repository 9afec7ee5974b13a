"""Empty databases in place of lost ones, where the user gives up their content."""

import time
from contextlib import suppress
from pathlib import Path

from paise2nb.collection import items
from paise2nb.config.settings import Settings
from paise2nb.core.damage import ASIDE, companion, put_aside, size_of
from paise2nb.core.formats import Format
from paise2nb.core.sqlite import Database
from paise2nb.jobs.database import FORMAT, PAGE_SIZE


def lost_databases(settings: Settings) -> list[tuple[Path, Format, int]]:
    """Return the databases that are missing or empty although companions show that they were used.

    Returns:
        The file of each, its format, and the size of its pages.
    """
    directory = settings.data_dir
    if directory is None:
        return []
    jobs, path = settings.databases(directory)
    lost, _ = items.lost_database(settings, directory) or (None, None)
    return [
        entry
        for entry in ((path, items.FORMAT, 4096), (jobs, FORMAT, PAGE_SIZE))
        if not size_of(entry[0])
        and (put_aside(entry[0]) or companion(entry[0]) or entry[0] == lost)
    ]


def replace(databases: list[tuple[Path, Format, int]]) -> None:
    """Create an empty database for each lost one. A write-ahead log is put aside.

    Raises:
        StorageError: It can't be created.
    """
    for path, wanted, page in databases:
        log = path.with_name(f"{path.name}-wal")
        with suppress(FileNotFoundError):
            log.rename(log.with_name(f"{path.name}{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}-wal"))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        Database(path, wanted, durable=True, page=page, replace=True).close()
