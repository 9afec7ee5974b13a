"""The fixtures of the kit."""

pytest_plugins = ["paise2nb.testing"]
