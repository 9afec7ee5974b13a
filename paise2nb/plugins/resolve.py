"""Settings and plugins depend on each other: settings name plugins, which may have defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path

from paise2nb.config.settings import Settings
from paise2nb.plugins.registry import Plugins


def resolve(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[Settings, Plugins]:
    """Return the settings, with the defaults of plugins among the layers, and the loaded plugins.

    Raises:
        SettingsError: a setting, or a plugin's default, is wrong.
        PluginError: a plugin can't be loaded.
    """
    layers = partial(Settings.resolve, profile, data_dir=data_dir, overrides=dict(settings or {}))
    resolved = layers()
    plugins = Plugins(resolved)
    if defaults := plugins.defaults():
        before, resolved = resolved, layers(defaults=defaults)
        chosen = attrgetter("plugins", "entry_points", "data_dir")
        if chosen(resolved) != chosen(before):
            plugins = Plugins(resolved)
    return resolved, plugins
