"""Pages whose text is made by JavaScript, in a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.config.settings import Settings
from paise2nb.content.fetch.kept_cookies import KEPT, KeptCookies
from paise2nb.content.render import browser
from paise2nb.core import processes
from paise2nb.doctor import examine
from tests.site import Site, Visit
from tests.waiting import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
TEXT = "Nothing of this text is in the page that the server sends, but it can be found. " * 3
SETTINGS = {
    "fetch.render": "auto",
    "fetch.render_sandbox": os.geteuid() != 0,
    "fetch.allow_private_addresses": True,
    "workers.retry.max_retries": 0,
}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="machine: it has no Chromium")


def shell(script: str, head: str = "") -> bytes:
    """A page that only a script fills."""
    page = f"<!doctype html><html lang='en'><head><title>App</title>{head}</head><body>"
    return f"{page}<div id='root'></div><script>{script}</script></body></html>".encode()


FILL = f"document.getElementById('root').innerHTML = '<h1>Made here</h1><p>{TEXT}</p>';"


@pytest.fixture
def render(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Fetch a URL in this process with these settings; returns the page's job."""
    opened: list[App] = []

    def run(url: str, **settings: Any) -> Any:
        chosen = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
        opened.append(paise2nb.open("test", tmp_path / str(len(opened)), chosen))
        job = opened[-1].enqueue("fetch", url)
        job.wait(timeout=60)
        return job

    yield run
    for app in opened:
        app.close()


def result(job: Any, task: str = "render") -> dict[str, Any]:
    """The result of one part of a page."""
    [value] = [part.result() for part in job.tree if part.row()["task"] == task]
    found: dict[str, Any] = value
    return found


def tasks(job: Any) -> list[str]:
    return [part.row()["task"] for part in job.tree]


@needs_chromium
def test_the_text_that_scripts_make_is_stored(site: Site, render: Callable[..., Any]) -> None:
    site.add("/data", TEXT.encode(), "text/plain")
    site.add("/app.js", b"fetch('/data').then(a => a.text()).then(text => { const root = document"
             b".getElementById('root').attachShadow({mode: 'open'}); root.innerHTML = `<p>${text}"
             b"</p>`; history.pushState({}, '', '/app#/home') })", "text/javascript")  # fmt: skip
    url = site.add("/app", shell("", "<script defer src='/app.js'></script>"))
    job = render(url)
    assert tasks(job) == ["fetch", "extract", "render", "store"]
    [item] = job.items
    assert item.text == TEXT.strip()
    assert item.metadata["source"]["rendered"] is True
    assert item.metadata["source"]["final_url"] == f"{url}#/home"
    assert result(job)["rendered"] is True
    assert job.page_state == "stored"
    agents = [request.headers["User-Agent"] for request in site.requests if request.path == "/app"]
    assert [agent.startswith("Mozilla/5.0") for agent in agents] == [False, True]
    assert all("paise2nb/" in agent for agent in agents)


@needs_chromium
@pytest.mark.parametrize(
    ("mode", "hosts", "expected"),
    [
        ("always", {}, ["fetch", "render", "store"]),
        ("auto", {}, ["fetch", "extract", "store"]),
        ("never", {}, ["fetch", "extract", "store"]),
        ("always", {"127.0.0.1": "never"}, ["fetch", "extract", "store"]),
        ("never", {"*.0.0.1": "always"}, ["fetch", "render", "store"]),
    ],
)
def test_the_settings_say_which_pages_are_rendered(
    site: Site, render: Callable[..., Any], mode: str, hosts: dict[str, str], expected: list[str]
) -> None:
    job = render(site.url("/ok"), fetch__render=mode, fetch__render_hosts=hosts)
    assert tasks(job) == expected
    assert job.page_state == "stored"


@needs_chromium
@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_page_stored_without_rendering_is_rendered_when_the_settings_say_so(
    tmp_path: Path, site: Site, mode: str
) -> None:
    page = shell(FILL).replace(b"<div", b"<p>Loading the words of the app</p><div", 1)

    def answer(visit: Visit, argument: str) -> None:
        if visit.headers["If-None-Match"]:
            visit.begin(None, status=304)
        else:
            visit.answer(page, headers={"ETag": '"1"'})

    url, texts = site.on("/app", answer), []
    for rendering in ("never", mode):
        with paise2nb.open("test", tmp_path, SETTINGS | {"fetch.render": rendering}) as app:
            job = app.enqueue("fetch", url, force=True)
            job.wait(timeout=60)
            assert job.page_state == "stored"
            texts.append(app.items()[0].text)
    assert ["Nothing of this text" in text for text in texts] == [False, True]


@needs_chromium
def test_only_pages_are_rendered(site: Site, render: Callable[..., Any]) -> None:
    url = site.add("/notes.txt", b"Plain words, which need no browser.", "text/plain")
    assert tasks(render(url, fetch__render="always")) == ["fetch", "extract", "store"]


@needs_chromium
def test_a_page_loads_only_what_its_text_needs(site: Site, render: Callable[..., Any]) -> None:
    for name in ("image", "icon", "frame", "font", "video", "popup", "file", "ping"):
        site.add(f"/{name}", b"x", "application/octet-stream")
    site.add("/style", b"@font-face { font-family: F; src: url(/font) } * { font-family: F }",
             "text/css")  # fmt: skip
    url = site.add("/page", shell(
        "alert('1'); confirm('2'); prompt('3'); window.open('/popup');"
        "navigator.sendBeacon('/ping');"
        "const link = document.createElement('a'); link.href = '/file'; link.download = 'a.bin';"
        "document.body.append(link); link.click();"
        f"{FILL} document.body.insertAdjacentHTML('beforeend', `<img src=/image><video src=/video>"
        "</video><iframe src=/frame></iframe><a target=_blank id=out href=/popup>out</a>`);"
        "document.getElementById('out').click();",
        "<link rel=icon href=/icon><link rel=stylesheet href=/style>",
    ))  # fmt: skip
    job = render(url)
    assert job.page_state == "stored", job.error
    assert job.items[0].text.startswith(TEXT.strip())
    # A download begins with a request, and is then cancelled.
    assert set(site.visits) <= {"/robots.txt", "/page", "/style", "/file"}


@needs_chromium
@pytest.mark.parametrize(
    "script",
    [
        "setInterval(() => fetch('/ok'), 50); fetch('/hang'); new EventSource('/drip');",
        "</script><script src=/hang></script><script>",
    ],
)
def test_a_page_that_is_never_idle_ends_with_what_it_has(
    site: Site, render: Callable[..., Any], script: str
) -> None:
    job = render(site.add("/busy", shell(FILL + script)), fetch__timeout=3)
    assert job.page_state == "stored", job.error
    assert TEXT.strip() in job.items[0].text


@needs_chromium
def test_a_page_that_hangs_fails_and_the_next_one_does_not(
    site: Site, render: Callable[..., Any]
) -> None:
    job = render(site.add("/loop", shell("while (true) {}")), fetch__timeout=1)
    assert (job.page_state, job.error_class) == ("failed", "timeout")
    assert "fetch.timeout" in job.error
    assert render(site.add("/page", shell(FILL))).page_state == "stored"


@needs_chromium
def test_a_browser_that_has_died_is_started_again(site: Site, render: Callable[..., Any]) -> None:
    url = site.add("/page", shell(FILL))
    assert render(url).page_state == "stored"
    for pid in processes.descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert until(lambda: render(url).page_state == "stored")


@needs_chromium
def test_a_playwright_that_does_not_start_is_told(
    site: Site, render: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.browser.close()
    before = set(processes.descendants(os.getpid()))
    program = tmp_path / "node"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    with monkeypatch.context() as changed:
        changed.setenv("PLAYWRIGHT_NODEJS_PATH", str(program))
        changed.setattr(browser, "START_SECONDS", 0.5)
        job = render(site.add("/page", shell(FILL)))
    assert (job.page_state, job.error_class) == ("failed", "browser")
    assert "Playwright did not start within 0.5 s" in job.error
    assert set(processes.descendants(os.getpid())) <= before
    assert render(site.url("/page")).page_state == "stored"


@needs_chromium
def test_a_late_text_is_waited_for(site: Site, render: Callable[..., Any]) -> None:
    job = render(site.add("/late", shell(f"setTimeout(() => {{ {FILL} }}, 1500)")))
    assert job.items[0].text.startswith(TEXT.strip())


@needs_chromium
def test_redirects_in_the_browser_are_followed(site: Site, render: Callable[..., Any]) -> None:
    target = site.add("/target", shell(FILL))
    site.add("/next", shell("location.replace('/moved')"))
    site.add("/moved", b"", status=302, headers={"Location": "/target"})
    job = render(site.url("/next"))
    assert job.page_state == "stored", job.error
    assert result(job)["url"] == target
    job = render(
        site.add("/circle", shell("location.href = '/circle?' + Date.now()")),
        fetch__max_redirects=2,
    )
    assert (job.page_state, job.error_class) == ("failed", "redirects")


@needs_chromium
def test_robots_txt_holds_for_documents_and_parts_of_the_same_host(
    site: Site, render: Callable[..., Any]
) -> None:
    rules = b"User-agent: *\nDisallow: /secret\nDisallow: /hidden\n"
    site.add("/robots.txt", rules, "text/plain")
    site.add("/away", b"", status=302, headers={"Location": "/secret"})
    job = render(site.add("/page", shell("location.href = '/away'")))
    assert (job.page_state, job.error_class) == ("failed", "robots")
    job = render(site.add("/part", shell(f"fetch('/hidden'); {FILL}")))
    assert job.page_state == "stored"
    assert f"{site.url('/hidden')} (disallowed by robots.txt)" in result(job)["warning"]
    assert not {"/secret", "/hidden"} & set(site.visits)
    job = render(site.url("/part"), fetch__robots=False)
    assert site.visits["/hidden"] == 1


@needs_chromium
def test_a_page_with_many_refused_requests_has_a_short_warning_without_secrets(
    site: Site, render: Callable[..., Any]
) -> None:
    site.add("/robots.txt", b"User-agent: *\nDisallow: /hidden\n", "text/plain")
    request = "fetch('/hidden?api_key=swordfish&n=' + n + 'x'.repeat(5000))"
    many = f"for (let n = 0; n < 100; n++) {request}; {FILL}"
    job = render(site.add("/page", shell(many)))
    assert job.page_state == "stored"
    warning = result(job)["warning"]
    assert warning.endswith("; and 80 more")
    assert "swordfish" not in warning
    assert len(warning) < 6000


@needs_chromium
def test_a_browser_that_does_not_start_is_tried_again(
    site: Site, render: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    url = site.add("/page", shell(FILL))
    numbers = []
    for _ in range(2):
        settings = {"workers.retry.max_retries": 2, "workers.retry.retry_delay": 0}
        job = render(url, fetch__render_executable=str(program), **settings)
        [part] = [part for part in job.tree if part.row()["task"] == "render"]
        assert "Chromium can't be started" in part.attempts[0]["error"]
        numbers.append(len(part.attempts))
        program.unlink(missing_ok=True)
    assert numbers == [3, 1], "a missing program is no reason to try again"
    assert part.state == "failed"


@needs_chromium
def test_a_document_of_another_host_waits_for_a_slot_there(
    render: Callable[..., Any],
) -> None:
    with Site("0.0.0.0") as site:
        there = site.url("/there", "127.0.0.2")
        site.add("/there", shell(FILL))
        site.add("/here", shell(f"location.href = '{there}'"))
        job = render(site.url("/here"), fetch__host_delay=0.1)
        assert job.page_state == "stored", job.error
        assert result(job)["url"] == there
        site.add("/there", shell(f"location.href = '{site.url('/here')}'"))
        job = render(site.url("/here"), fetch__host_delay=0.01, fetch__max_redirects=2)
        assert (job.page_state, job.error_class) == ("failed", "redirects")


@needs_chromium
def test_a_login_reaches_its_host_only(render: Callable[..., Any], tmp_path: Path) -> None:
    """By cookies and headers, which no other host gets, whether by a redirect or from a script."""

    def member(visit: Visit, argument: str) -> None:
        cookie, key = visit.headers["Cookie"] or "", visit.headers["X-Key"]
        is_member = "member=yes" in cookie and key == "secret-key"
        visit.answer(TEXT.encode() if is_member else b"Log in first.", "text/plain")

    with Site("0.0.0.0") as site:
        away = site.url("/away", "127.0.0.2")
        site.add("/away", b"", "text/javascript", headers={"Access-Control-Allow-Origin": "*"})
        site.add("/out", b"", status=302, headers={"Location": away})
        site.on("/member", member)
        url = site.add("/page", shell(
            f"fetch('/out', {{mode: 'no-cors'}}); fetch('{away}', {{mode: 'no-cors'}});"
            "fetch('/member').then(a => a.text()).then(t => { root.innerText = t });"
        ), headers={"Set-Cookie": "session=from-server"})  # fmt: skip
        file = tmp_path / "cookies.txt"
        lines = ("127.0.0.1", "FALSE", "/", "FALSE", "4000000000", "member", "yes")
        file.write_text("\t".join(lines) + "\n")
        headers = {"127.0.0.1": {"X-Key": "secret-key", "Authorization": "Bearer secret"}}
        login = {"fetch__cookies": str(file), "fetch__headers": headers}
        job = render(url, **login, fetch__keep_cookies=True)
        assert job.page_state == "stored", job.error
        assert TEXT.strip() in job.items[0].text
        there = [r.headers for r in site.requests if r.headers["Host"].startswith("127.0.0.2")]
        assert len(there) >= 2
        assert not any(h["Cookie"] or h["X-Key"] or h["Authorization"] for h in there)
        asked = [r.headers["Cookie"] for r in site.requests if r.path == "/member"]
        assert "session=from-server" in asked[-1]


@needs_chromium
def test_cookies_reach_the_browser_and_come_back_from_it_unchanged(
    site: Site, render: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they contain, also those that a site renews, and beside some that it refuses."""
    resolve = socket.getaddrinfo

    def resolver(host: str, *args: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host.endswith(".club.test") else host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    cookie = {"domain": ".club.test", "path": "/", "value": "old"}
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps([
        {**cookie, "name": "session"},
        {**cookie, "name": "__Secure-a"},
        {**cookie, "name": "late", "expires": 2**50},
        {**cookie, "name": "color", "value": "grün"},
        {**cookie, "name": "own", "domain": "api.club.test", "hostOnly": True},
        {**cookie, "name": "hidden", "httpOnly": True},
    ]))  # fmt: skip
    site.add("/data", b"", "text/javascript")
    there = site.url("/data", "api.club.test")
    load = f"fetch('{there}', {{mode: 'no-cors', credentials: 'include'}})"
    script = (
        f"document.cookie = 'wide=日本'; Promise.all([{load}, {load}]).then(() => {{ {FILL}"
        "document.querySelector('p').append(document.cookie) })"
    )
    visits: list[str] = []

    def renew(visit: Visit, argument: str) -> None:
        visits.append(visit.path)
        renewed = f"session={len(visits)}; Domain=club.test; Path=/; HttpOnly"
        visit.answer(shell(script, "<meta charset=utf-8>"), headers={"Set-Cookie": renewed})

    site.on("/page", renew)
    job = render(
        site.url("/page", "www.club.test"),
        fetch__cookies=str(file), fetch__keep_cookies=True, fetch__render="always",
    )  # fmt: skip
    assert job.page_state == "stored", job.error

    def cookies(path: str) -> list[set[str]]:
        sent = [r.headers["Cookie"] or "" for r in site.requests if r.path == path]
        return [set(value.encode("latin-1").decode().split("; ")) for value in sent]

    text = job.items[0].text
    assert "late=old" in text
    assert "hidden=" not in text
    assert "session=" not in text
    shared = {"late=old", "color=grün", "hidden=old"}
    first, rendered = cookies("/page")
    assert first == shared | {"session=old", "__Secure-a=old"}
    assert rendered == shared | {"session=1"}
    assert cookies("/data") == [shared | {"session=2", "own=old"}] * 2
    kept = KeptCookies(tmp_path / "0").of([KEPT], "www.club.test")
    values = {cookie.name: cookie.value.encode("latin-1").decode() for _, cookie in kept}
    assert values == {
        "session": "2", "color": "grün", "late": "old", "hidden": "old", "wide": "日本",
    }  # fmt: skip
    assert {cookie.name for _, cookie in kept if cookie.http_only} == {"session", "hidden"}


@needs_chromium
def test_a_crawl_follows_the_links_that_scripts_make(site: Site, tmp_path: Path) -> None:
    """Though the pages of such a site are all the same before their scripts run."""
    links = "{'/': ['/a', '/same'], '/a': ['/b'], '/b': ['/c']}"
    script = (
        "const here = location.pathname; root.innerHTML = `<p>This page ${here} is all about"
        " ${here}, and tells it in a number of words.</p>` +"
        f" ({links}[here] || []).map(to => `<a href=${{to}}>to</a>`).join(' ');"
    )
    note = b"<noscript>You need to enable JavaScript to run this app, really.</noscript>"
    for path in ("/", "/a", "/b", "/same"):
        page = shell(script).replace(b"<div", note + b"<div")
        site.add(path, page.replace(b"location.pathname", b"'/a'") if path == "/same" else page)
    with paise2nb.open("test", tmp_path, SETTINGS) as app:
        job = app.enqueue("links", site.url("/"), 2, tag="app")
        assert job.wait(timeout=100)
        found = {urlsplit(item.url).path: item.text for item in app.items(tag="app")}
        assert set(found) == {"/a", "/b"}
        assert not any("enable JavaScript" in text for text in found.values())
        assert all(f"all about {path}" in text for path, text in found.items())
        assert job.result()["left_out"] == {
            "same_text": {"number": 1, "examples": [site.url("/same")]}
        }


@needs_chromium
@pytest.mark.parametrize(
    ("path", "error_class"),
    [("/status/404", "http_4xx"), ("/status/500", "http_5xx"), ("/status/429", "throttled"),
     ("/close", "connection")],
)  # fmt: skip
def test_what_the_browser_gets_in_place_of_a_page_is_an_error(
    site: Site, render: Callable[..., Any], path: str, error_class: str
) -> None:
    job = render(site.add("/page", shell(f"location.href = '{path}'")))
    assert (job.page_state, job.error_class) == ("failed", error_class), job.error


@needs_chromium
@pytest.mark.parametrize("kind", ["application/pdf", "application/octet-stream"])
def test_a_file_is_no_page_and_a_page_may_offer_one(
    site: Site, render: Callable[..., Any], kind: str
) -> None:
    site.add("/file", b"%PDF-1.4", kind, headers={"Content-Disposition": "attachment"})
    job = render(site.add("/page", shell(f"{FILL} location.href = '/file'")))
    assert job.page_state == "stored", job.error

    def by_agent(visit: Visit, argument: str) -> None:
        is_browser = visit.headers["User-Agent"].startswith("Mozilla")
        visit.answer(shell(FILL), kind if is_browser else "text/html")

    job = render(site.on("/agent", by_agent))
    assert (job.page_state, job.error_class) == ("failed", "unsupported"), job.error


@needs_chromium
def test_a_page_may_not_be_larger_than_the_limit(site: Site, render: Callable[..., Any]) -> None:
    url = site.add("/page", shell("document.body.append('many words '.repeat(20000))"))
    job = render(url, fetch__max_bytes=100_000)
    assert (job.page_state, job.error_class) == ("failed", "too_large"), job.error
    site.add("/data", b"x" * 200_000, "text/plain")
    url = site.add("/loads", shell(f"fetch('/data'); {FILL}"))
    assert (
        "100000 bytes (fetch.max_bytes)" in result(render(url, fetch__max_bytes=100_000))["warning"]
    )


@needs_chromium
def test_nothing_goes_around_the_proxy(site: Site, render: Callable[..., Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        job = render(site.add("/page", shell(
            f"const servers = [{{urls: 'stun:127.0.0.1:{port}'}}];"
            "const pc = new RTCPeerConnection({iceServers: servers});"
            "pc.createDataChannel('x'); pc.createOffer().then(o => pc.setLocalDescription(o));"
            f"new WebTransport('https://127.0.0.1:{port}').ready.catch(() => 0);"
            "navigator.serviceWorker.register('/worker.js').catch(() => 0);"
            f"setTimeout(() => {{ {FILL} }}, 1500)",
        )))  # fmt: skip
        assert job.page_state == "stored", job.error
        udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.recv(1)
    assert "/worker.js" not in site.visits


def test_the_sandbox_is_not_given_up_silently(site: Site, render: Callable[..., Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("machine: the sandbox can run")
    job = render(site.add("/page", shell(FILL)), fetch__render_sandbox=True)
    assert (job.page_state, job.error_class) == ("failed", "browser")
    assert "set fetch.render_sandbox to false" in job.error


def test_a_browser_that_is_missing_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "playwright.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    url = site.add("/page", shell(FILL))
    command = [sys.executable, "-m", "paise2nb", "--profile", "test", "--set", "fetch.render=auto",
               "--set", "fetch.render_sandbox=false", "--set", "fetch.allow_private_addresses=true",
               "enqueue", "fetch", "--wait", url]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "pip install 'paise2nb[browser]'" in done.stdout + done.stderr


@needs_chromium
def test_the_doctor_starts_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(**settings: Any) -> tuple[str, str]:
        chosen = Settings.resolve("test", overrides=SETTINGS | settings)
        found = {each.check: each for each in examine(lambda: chosen).findings}["rendering"]
        return found.state, found.text + found.advice

    state, text = finding()
    assert state == "ok"
    assert "Chromium 1" in text
    state, text = finding(**{"fetch.render_executable": "/missing/chromium"})
    assert state == "wrong"
    assert "/missing/chromium" in text


PRIVATE = r"""
import json, socket, subprocess, sys, threading
for line in ("link set lo up", "addr add 8.8.8.8/32 dev lo", "addr add 10.0.0.1/32 dev lo"):
    subprocess.run(["ip", *line.split()], check=True)
import paise2nb
from tests.content.test_render import FILL, SETTINGS, shell
from tests.site import Site

def count(listener):
    while True:
        listener.accept()[0].close()
        reached.append(listener.getsockname()[0])

reached = []
with Site("8.8.8.8") as site:
    parts = []
    for family, address in ((2, "127.0.0.1"), (2, "10.0.0.1"), (10, "::1")):
        canary = socket.socket(family)
        canary.bind((address, site.port))
        canary.listen()
        threading.Thread(target=count, args=(canary,), daemon=True).start()
        host = f"[{address}]" if ":" in address else address
        parts += [f"http://{host}:{site.port}/x", f"https://{host}:{site.port}/x"]
        site.add(f"/to{address.replace(':', '')}", b"", status=302, headers={"Location": parts[-2]})
        parts.append(site.url(f"/to{address.replace(':', '')}", "8.8.8.8"))
    parts += [f"http://localhost:{site.port}/", f"http://0x7f.1:{site.port}/"]
    loads = "".join(f"fetch('{part}', {{mode: 'no-cors'}}).catch(() => 0);" for part in parts)
    loads += f"new WebSocket('ws://127.0.0.1:{site.port}/');"
    loads += f"const script = document.createElement('script'); script.src = '{parts[0]}';"
    loads += "document.head.append(script);"
    site.add("/page", shell(loads + FILL))
    site.add("/away", shell(f"location.href = '{parts[0]}'"))
    settings = SETTINGS | {"fetch.allow_private_addresses": False}
    with paise2nb.open("test", sys.argv[1], settings) as app:
        page, away = app.enqueue_many("fetch", [site.url(p, "8.8.8.8") for p in ("/page", "/away")])
        [part] = [part for part in page.tree if part.row()["task"] == "render"]
        states = page.page_state, part.result()["warning"], away.page_state, away.error_class
        print(json.dumps([reached, *states]))
"""


@needs_chromium
def test_no_page_reaches_a_private_address(tmp_path: Path) -> None:
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("machine: a new network namespace is not allowed")
    done = subprocess.run(
        [*command, sys.executable, "-c", PRIVATE, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    reached, state, warning, away, error_class = json.loads(done.stdout.splitlines()[-1])
    assert reached == []
    assert state == "stored"
    assert "127.0.0.1 is not a public address" in warning
    assert (away, error_class) == ("failed", "blocked")
