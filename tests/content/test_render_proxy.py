"""The proxy between the browser and the network, asked by other clients."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from paise2nb.config.settings import FetchSettings
from paise2nb.content.render.proxy import USER, Proxy
from tests.content.test_fetch import ADA, certificate, relay, secure_site, settings
from tests.site import PAGE, Site, Visit

__all__ = ["certificate", "relay", "secure_site", "settings"]  # fixtures


@pytest.fixture
def start() -> Iterator[Callable[[FetchSettings], Proxy]]:
    """Start a proxy; its attribute `port` is added."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxies: list[Any] = []

    def run(chosen: FetchSettings) -> Any:
        proxies.append(Proxy(chosen))
        url = asyncio.run_coroutine_threadsafe(proxies[-1].start(), loop).result()
        proxies[-1].port = urlsplit(url).port
        return proxies[-1]

    yield run

    async def stop() -> None:
        for proxy in proxies:
            proxy.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)

    asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def password(proxy: Any) -> dict[str, str]:
    token = base64.b64encode(f"{USER}:{proxy.password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {token}"}


def ask(
    proxy: Any, url: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.request(method, url, body, headers | password(proxy))
    answer = connection.getresponse()
    assert answer.getheader("Connection") == "close"
    return answer.status, answer.read()


def tunnelled(proxy: Any, host: str, port: int, trusted: Path) -> bytes:
    context = ssl.create_default_context(cafile=trusted)
    connection = HTTPSConnection("127.0.0.1", proxy.port, timeout=20, context=context)
    connection.set_tunnel(host, port, password(proxy))
    connection.request("GET", "/ok")
    return connection.getresponse().read()


def test_requests_are_passed_on_without_what_belongs_to_the_connection(
    site: Site, settings: FetchSettings, start: Callable[[FetchSettings], Any]
) -> None:
    proxy = start(settings)
    assert ask(proxy, site.url("/ok"), Proxy_Connection="keep-alive") == (200, PAGE)
    assert site.requests[-1].path == "/ok"
    assert site.requests[-1].headers.get_all("Connection") == ["close"]
    assert ask(proxy, site.url("/status/404"))[0] == 404


@pytest.mark.parametrize("given", [{}, {"Proxy-Authorization": "Basic cGFpc2UybmI6"}])
def test_other_programs_can_not_use_the_proxy(
    site: Site,
    settings: FetchSettings,
    start: Callable[[FetchSettings], Any],
    given: dict[str, str],
) -> None:
    connection = HTTPConnection("127.0.0.1", start(settings).port, timeout=20)
    connection.request("GET", site.url("/ok"), headers=given)
    assert connection.getresponse().status == 407
    connection.set_tunnel("127.0.0.1", site.port, given)
    with pytest.raises(OSError, match="407"):
        connection.request("GET", "/ok")
    assert site.requests == []


def test_the_body_of_a_request_is_passed_on(
    site: Site, settings: FetchSettings, start: Callable[[FetchSettings], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def post(visit: Visit) -> None:
        visit.answer(visit.rfile.read(int(visit.headers["Content-Length"])), "text/plain")

    monkeypatch.setattr(Visit, "do_POST", post, raising=False)
    assert ask(start(settings), site.url("/"), "POST", b"x" * 300_000) == (200, b"x" * 300_000)


def test_interim_answers_are_passed_on(
    site: Site, settings: FetchSettings, start: Callable[[FetchSettings], Any]
) -> None:
    def early(visit: Visit, argument: str) -> None:
        visit.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        visit.answer(b"after all", "text/plain")

    site.on("/early", early)
    assert ask(start(settings), site.url("/early")) == (200, b"after all")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::1]", "10.0.0.1"])
def test_no_private_address_is_reached(
    site: Site, settings: FetchSettings, start: Callable[[FetchSettings], Any], host: str
) -> None:
    proxy = start(replace(settings, allow_private_addresses=False))
    url = site.url("/ok", host)
    assert ask(proxy, url)[0] == 502
    assert proxy.failure(url).error_class == "blocked"
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.set_tunnel(host, site.port, password(proxy))
    with pytest.raises(OSError, match="502"):
        connection.request("GET", "/ok")
    assert site.requests == []


def test_a_request_that_is_none_is_refused(
    settings: FetchSettings, start: Callable[[FetchSettings], Any]
) -> None:
    proxy = start(settings)
    for request in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"nothing\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", proxy.port), 20) as client:
            name, value = *password(proxy), *password(proxy).values()
            client.sendall(request.replace(b"\r\n\r\n", f"\r\n{name}: {value}\r\n\r\n".encode()))
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_no_more_than_the_limit_is_loaded(
    site: Site, settings: FetchSettings, start: Callable[[FetchSettings], Any]
) -> None:
    proxy = start(replace(settings, max_bytes=500_000))
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.request("GET", site.url("/endless"), headers=password(proxy))
    assert len(connection.getresponse().read()) < 700_000
    assert proxy.bytes_left <= 0


def test_tls_is_between_the_browser_and_the_host(
    secure_site: Site, settings: FetchSettings, certificate: Path,
    start: Callable[[FetchSettings], Any],
) -> None:  # fmt: skip
    trusted = certificate.with_name("public.pem")
    assert tunnelled(start(settings), "secure.example", secure_site.port, trusted) == PAGE
    assert secure_site.server.names == ["secure.example"]  # type: ignore[attr-defined]


def test_the_configured_proxy_is_used(
    relay: Any, settings: FetchSettings, start: Callable[[FetchSettings], Any]
) -> None:
    proxy = start(replace(settings, proxy=relay.url, allow_private_addresses=False))
    assert ask(proxy, "http://far.invalid/a?b") == (200, PAGE)
    assert relay.requests == [("http://far.invalid/a?b", ADA)]
    assert ask(proxy, "http://10.0.0.1/")[0] == 502
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.set_tunnel("closed.invalid", 443, password(proxy))
    with pytest.raises(OSError, match="502"):
        connection.request("GET", "/")
    assert proxy.failure("https://closed.invalid/").error_class == "connection"


def test_the_configured_proxy_gets_tunnels(
    relay: Any, secure_site: Site, settings: FetchSettings, certificate: Path,
    start: Callable[[FetchSettings], Any],
) -> None:  # fmt: skip
    proxy, trusted = start(replace(settings, proxy=relay.url)), certificate.with_name("public.pem")
    assert tunnelled(proxy, "secure.example", secure_site.port, trusted) == PAGE
    assert relay.requests == [(f"secure.example:{secure_site.port}", ADA)]
