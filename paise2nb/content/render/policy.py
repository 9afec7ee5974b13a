"""What decides about the requests of a page."""

from typing import Protocol


class Policy(Protocol):
    """Decides which requests of a page are made. It may be called in any thread."""

    def check_document(self, url: str) -> None:
        """Raise PaiseError if the page must not be loaded from a URL."""

    def allows(self, url: str) -> bool:
        """Whether the page may load a script, a stylesheet or data from a URL."""
