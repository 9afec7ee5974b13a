"""What decides about the requests of a page."""

from collections.abc import Sequence
from typing import Any, Protocol


class Policy(Protocol):
    """Decides which requests of a page are made, and with which login. Any thread may call it."""

    def check_document(self, url: str) -> None:
        """Raise PaiseError if the page must not be loaded from a URL."""

    def allows(self, url: str) -> bool:
        """Whether the page may load a script, a stylesheet or data from a URL."""

    def headers(self, url: str) -> dict[str, str]:
        """The headers that a request has besides. Raises PaiseError."""

    def cookies(self, host: str) -> list[dict[str, Any]]:
        """The cookies for a host, in Playwright's form. Raises PaiseError."""

    def keep(self, cookies: Sequence[dict[str, Any]]) -> None:
        """Take all cookies that the browser has in the end."""
