"""A URL is shown with its host and the end of its path."""

from __future__ import annotations

import pytest

from paise2nb.core.urls import short_url

LONG = "/archive/2026/some/long/path/that/goes/on/and/on"


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://example.org/", "example.org", ""),
        ("https://example.org?page=2", "example.org", "?page=2"),
        ("https://example.org/a/b.html#part", "example.org", "/a/b.html"),
        (f"https://example.org{LONG}/tides.html", "example.org", "/…/goes/on/and/on/tides.html"),
        (f"{LONG}/Report 1.pdf", "", "/…/path/that/goes/on/and/on/Report 1.pdf"),
        ("file:///tmp/Report%201.pdf", "", "/tmp/Report 1.pdf"),
        ("https://example.org/%D0%9B%D1%83%D0%BD%D0%B0", "example.org", "/Луна"),
        ("https://example.org/%FF", "example.org", "/%FF"),
        ("https://user:word@example.org/?token=word", "example.org", "/?token=…"),
        ("example.org", "", "example.org"),
        ("/tmp/C# notes, 100%25.md", "", "/tmp/C# notes, 100%25.md"),
        ("", "", ""),
    ],
)
def test_a_short_url_has_the_host_and_whole_segments(url: str, host: str, path: str) -> None:
    assert short_url(url, 40) == (host, path)


@pytest.mark.parametrize(
    "url", ["https://" + "a" * 70 + ".example.org" + LONG, "https://e.org/" + "x" * 500, "y" * 500]
)
def test_a_short_url_has_room(url: str) -> None:
    host, path = short_url(url, 40)
    assert len(host + path) <= 40
    assert host.endswith("e.org") or url.startswith("y")
    assert path.endswith(url[-9:])
