"""The version of the installed package, from its metadata, so that it is stated only once."""

from importlib import metadata

__version__ = metadata.version("paise2nb")
