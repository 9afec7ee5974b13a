"""The plugins that were written in notebook cells: modules in one directory, with a manifest.

The manifest is replaced with every change. Running processes compare its fingerprint, which costs
one ``stat``, to see whether they have to reload plugins.
"""

import json
import os
from pathlib import Path
from typing import Any, TypeAlias

from paise2nb.core.errors import PluginError
from paise2nb.core.files import locked, make_private_directory, write_atomically

MANIFEST = "cells.json"

Fingerprint: TypeAlias = tuple[int, int, int]
"""The inode, modification time and size of the manifest."""


class SavedPlugins:
    """The saved plugins of one data directory.

    Args:
        directory: Where the modules are. It is created with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = directory / MANIFEST
        self._name = str(self._manifest)  # converted once: every enqueue and execution needs it

    def path(self, name: str) -> Path:
        """Return the path of the module with that name, whether it exists or not."""
        return self.directory / f"{name}.py"

    def previous(self, name: str) -> Path:
        """Return the path of its previous version, whether it exists or not."""
        return self.directory / f"{name}.before"

    def fingerprint(self) -> Fingerprint | None:
        """Return a value that changes with every save, disable and enable."""
        try:
            found = os.stat(self._name)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def manifest(self) -> dict[str, Any]:
        """Return ``versions`` (how often each was saved) and ``disabled`` (names of any plugins).

        Raises:
            PluginError: The file is damaged.
        """
        try:
            return dict(json.loads(self._manifest.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return {"versions": {}, "disabled": []}
        except ValueError:
            raise PluginError(
                f"{self._manifest} is damaged; remove it, and disable plugins again as needed"
            ) from None

    def paths(self) -> list[Path]:
        """Return all modules in the order of their names, including disabled ones."""
        return sorted(self.directory.glob("*.py"))

    def save(self, name: str, text: str) -> int:
        """Save a module, enable it and keep its previous version. Return the version number."""
        make_private_directory(self.directory)
        with locked(self.directory):  # from the manifest that it reads to the one that it writes
            path, manifest = self.path(name), self.manifest()
            if path.exists():
                write_atomically(self.previous(name), path.read_bytes())
            write_atomically(path, text)
            version = int(manifest["versions"].get(name, 0)) + 1
            manifest["versions"][name] = version
            self._store(manifest, name, enabled=True)
        return version

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let all apps on this data directory load the plugin with that name, or none of them."""
        make_private_directory(self.directory)
        with locked(self.directory):
            self._store(self.manifest(), name, enabled)

    def _store(self, manifest: dict[str, Any], name: str, enabled: bool) -> None:
        disabled = set(manifest["disabled"]) - {name} | (set() if enabled else {name})
        write_atomically(self._manifest, json.dumps({**manifest, "disabled": sorted(disabled)}))
