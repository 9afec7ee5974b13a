"""The plugins that were written in cells: modules in one directory, and what is noted of them.

A save ends with the note, which is renamed into its place: whoever has loaded the plugins sees by
its stamp, at the price of one stat, that something has changed since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from paise2nb.core.errors import PluginError
from paise2nb.core.files import make_private_directory

MANIFEST = "cells.json"


class Fingerprint(NamedTuple):
    """What tells one note from the next."""

    inode: int
    modified: int
    size: int


class SavedPlugins:
    """The plugins of one data directory that came from cells, and which plugins are disabled.

    Args:
        directory: where the modules lie, made with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = str(directory / MANIFEST)

    def path(self, name: str) -> Path:
        """Where the module of that name lies, or would."""
        return self.directory / f"{name}.py"

    def previous(self, name: str) -> Path:
        """Where the version before it lies, if there was one."""
        return self.directory / f"{name}.before"

    def fingerprint(self) -> Fingerprint | None:
        """Changes with every save, disable and enable; a microsecond or two."""
        try:
            found = os.stat(self._manifest)
        except OSError:
            return None
        return Fingerprint(found.st_ino, found.st_mtime_ns, found.st_size)

    def manifest(self) -> dict[str, Any]:
        """``versions`` (how often each was saved) and ``disabled`` (of any plugin, by name)."""
        try:
            return dict(json.loads(Path(self._manifest).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return {"versions": {}, "disabled": []}
        except ValueError:
            raise PluginError(
                f"{self._manifest} is damaged; remove it: what is disabled is forgotten with it"
            ) from None

    def paths(self) -> list[Path]:
        """Every module, by name, disabled ones included."""
        return sorted(self.directory.glob("*.py"))

    def save(self, name: str, text: str) -> int:
        """Make a text the module of that name, and keep the one before it; its version."""
        make_private_directory(self.directory)
        path, manifest = self.path(name), self.manifest()
        if path.exists():
            _write(self.previous(name), path.read_text("utf-8"))
        _write(path, text)
        version = int(manifest["versions"].get(name, 0)) + 1
        manifest["versions"][name] = version
        self._store(manifest, set(manifest["disabled"]) - {name})
        return version

    def disable(self, name: str) -> None:
        """Have no app on this data directory load the plugin of that name."""
        make_private_directory(self.directory)
        manifest = self.manifest()
        self._store(manifest, {*manifest["disabled"], name})

    def enable(self, name: str) -> None:
        """Take that back."""
        manifest = self.manifest()
        self._store(manifest, set(manifest["disabled"]) - {name})

    def _store(self, manifest: dict[str, Any], disabled: Iterable[str]) -> None:
        _write(Path(self._manifest), json.dumps({**manifest, "disabled": sorted(disabled)}))


def _write(path: Path, text: str) -> None:
    """Write a whole file aside, sync it, and give it its name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
