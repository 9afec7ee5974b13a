"""The write-ahead log of a database, synchronized to the disk after a commit."""

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from paise2nb.core.damage import storage_error


class DurableLog:
    """The write-ahead log of a database, kept open because opening it takes as long as a sync.

    It is no file with a lock of SQLite: closing it releases none.
    """

    def __init__(self, database: Path) -> None:
        self._database, self._name = database, f"{database}-wal"
        self._file: FileIO | None = None

    def sync(self) -> None:
        """Make the commits in it survive a power cut. Raises StorageError."""
        try:
            with suppress(FileNotFoundError):  # SQLite removes it when all is in the database
                found = os.stat(self._name)
                if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), found):
                    self.close()
                    self._file = FileIO(self._name)
                os.fdatasync(self._file.fileno())
        except OSError as error:
            raise storage_error(self._database, error) from error

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
            self._file = None
