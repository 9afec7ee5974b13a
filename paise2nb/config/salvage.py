"""Settings with which workers can be found although the user's files are broken."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.config.parser import parse_mapping, read_file
from paise2nb.config.settings import Settings, config_files
from paise2nb.core.errors import SettingsError

_DATA_DIR = re.compile(r"^data_dir:.*$", re.MULTILINE)
_JOBS = ("task_queue", "sqlite", "path")


def salvaged(profile: str | None = None, data_dir: str | Path | None = None) -> Settings:
    """Return the packaged settings, with the paths that the user's files name.

    Args:
        profile: As in `Settings.resolve`.
        data_dir: The same.

    Raises:
        UsageError: There is no such profile.
        SettingsError: A path is wrong.
    """
    found = [(str(file), _paths(file)) for file in config_files()]
    return Settings.resolve(profile, data_dir=data_dir, defaults=found, files=[])


def _paths(file: Path) -> dict[str, Any]:
    """Return the paths of the data directory and of the job store that a file names."""
    written: Any = {}
    try:
        written = read_file(file)
    except SettingsError:  # not valid YAML; most such files are, up to one line
        with suppress(OSError, SettingsError):
            if line := _DATA_DIR.search(file.read_text("utf-8", "replace")):
                written = parse_mapping(line[0], str(file))
    paths = {}
    for key in (("data_dir",), _JOBS):
        value = written
        for name in key:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str):
            paths[".".join(key)] = str(file.parent / Path(value).expanduser())
    return paths
