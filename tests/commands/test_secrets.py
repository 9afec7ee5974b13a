"""Passwords and tokens in URLs appear in no listing, error or log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import paise2nb
from paise2nb.core.errors import redacted
from tests.site import Site

SECRETS = ("hunter2", "s3cret")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@h/", "http://me:…@h/"),
        (
            "see https://a:b@c.org/x?y=1 and ftp://:p@d",
            "see https://a:…@c.org/x?y=1 and ftp://:…@d",
        ),
        ("http://h/?api_key=abc&page=2", "http://h/?api_key=…&page=2"),
        ("http://h/?page=2&access_token=abc#top", "http://h/?page=2&access_token=…#top"),
        ("http://h/a@b?c=d", "http://h/a@b?c=d"),
        ("not a URL: password=x", "not a URL: password=x"),
    ],
)
def test_secrets_in_urls_are_left_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_failed_fetch_with_secrets_shows_none_of_them(tmp_path: Path, site: Site) -> None:
    url = site.url("/missing?api_key=s3cret").replace("://", "://me:hunter2@")
    settings = {"fetch.allow_private_addresses": True, "workers.concurrency": 1}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        app.workers.start()
        job = app.enqueue("fetch", url)
        job.wait(timeout=60)
        app.workers.stop()
        assert job.state == "failed"
        status = app.status()
        views = [
            str(job), job.details(), job._repr_html_(), json.dumps(job.to_dict()),
            str(app.jobs()), app.jobs()._repr_html_(), json.dumps(app.jobs().to_dicts()),
            str(status), status._repr_html_(), str(app.logs(500)),
        ]  # fmt: skip
    for view in views:
        assert not [secret for secret in SECRETS if secret in view]
