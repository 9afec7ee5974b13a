"""The fixtures of `paise2nb.testing`."""

pytest_plugins = ["paise2nb.testing"]
