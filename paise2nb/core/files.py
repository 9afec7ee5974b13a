"""Files and directories that are private to the user, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from paise2nb.core.errors import StorageError


def make_private_directory(path: Path) -> None:
    """Make a directory and those above it; what is new is the user's alone.

    Raises:
        StorageError: it can't be made or written to.
    """
    try:
        for directory in reversed((path, *path.parents)):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"can't create {path}: {error.strerror}; choose another with --data-dir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"can't write to {path}; choose another with --data-dir")


def claim_directory(path: Path) -> None:
    """Make a data directory private; one that is there already is made so while it is empty.

    Raises:
        StorageError: it can't be used, or belongs to another user, who could replace what is in it.
    """
    make_private_directory(path)
    if path.stat().st_uid != os.geteuid():
        raise StorageError(f"{path} belongs to another user; choose another with --data-dir")
    if not any(path.iterdir()):
        path.chmod(0o700)
