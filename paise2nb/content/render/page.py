"""One page in the browser: which requests it may make, when it is complete, and its HTML."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Error

from paise2nb.config.settings import FetchSettings
from paise2nb.content.extract.shells import is_shell
from paise2nb.content.extract.types import PAGES
from paise2nb.content.fetch.http import refusal
from paise2nb.content.render.policy import Policy
from paise2nb.content.render.proxy import USER, Proxy
from paise2nb.core.errors import PaiseError, PermanentError, TransientError, shortened
from paise2nb.core.urls import DEFAULT_PORTS, host_of, scheme_of, shown_url, without_credentials
from paise2nb.plugins import Fetched

SETTLE_SECONDS = 10.0  # for the requests of a page that never ends to make some
EMPTY_SECONDS = 3.0  # for a script that fills the page when there are no more requests
POLL_SECONDS = 0.1
MOST_REFUSED = 20  # requests that a warning names: a page can make any number of them
LONGEST_REFUSED = 200  # characters of each
# Without text, or not of this page. A stylesheet has none either, but scripts wait for it.
_UNWANTED = ("Image", "Media", "Font", "TextTrack", "Manifest", "Ping", "Prefetch")
_HTML = (Path(__file__).parent / "page.js").read_text("utf-8")
T = TypeVar("T")


class Page:
    """One page, with a proxy of its own."""

    def __init__(self, page: Any, proxy: Proxy, settings: FetchSettings, policy: Policy) -> None:
        self._page = page
        self._proxy = proxy
        self._settings = settings
        self._policy = policy
        self._end = time.monotonic() + settings.timeout
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._documents = 0
        self._answer: Any = None  # to the request for the page that is shown
        self._session: Any = None
        self._frame = ""
        self._hosts: dict[str, asyncio.Task[None]] = {}  # of which the browser gets the cookies
        self._given: set[tuple[str, str, str]] = set()  # cookies, which sites may have changed
        self._refused: dict[str, None] = {}
        self._more_refused = 0

    async def load(self, url: str) -> Fetched:
        """Load the page, and return its HTML. Raises what `Browser.render` does."""
        loading = asyncio.ensure_future(self._load(url))
        waits: set[asyncio.Future[Any]] = {loading, self._failure}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            return await loading
        finally:
            for task in (*waits, *self._tasks):
                task.cancel()

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _load(self, url: str) -> Fetched:
        page = self._page
        self._session = await page.context.new_cdp_session(page)
        tree = await self._session.send("Page.getFrameTree")
        self._frame = tree["frameTree"]["frame"]["id"]
        self._session.on("Fetch.requestPaused", self._on_request)
        self._session.on("Fetch.authRequired", lambda event: self._start(self._log_in(event)))
        rules = {"patterns": [{"urlPattern": "*"}], "handleAuthRequests": True}
        await self._session.send("Fetch.enable", rules)
        page.context.on("page", lambda popup: self._start(popup.close()))
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_failed)
        shown = without_credentials(url)
        page.on(
            "crash", lambda _: self._fail(TransientError(f"the page crashed: {shown}", "crash"))
        )
        try:
            async with asyncio.timeout(self._settings.timeout):
                await page.goto(url, wait_until="commit", timeout=0)
        except Error as error:
            raise self._navigation_failure(url, error.message) from error
        fetched = self._checked(await self._settled())
        if self._settings.keep_cookies:
            await _in_thread(self._policy.keep, await page.context.cookies())
        return fetched

    async def _settled(self) -> str:
        """The HTML when the page makes no more requests, or the time for that is over."""
        last = min(time.monotonic() + SETTLE_SECONDS, self._end)
        with suppress(Error):  # it never stops
            left = max(last - time.monotonic(), 0.001)
            await self._page.wait_for_load_state("networkidle", timeout=left * 1000)
        last = min(time.monotonic() + EMPTY_SECONDS, last)
        while True:
            html = await self._html()
            if time.monotonic() >= last or not await _in_thread(is_shell, html):
                return html
            await asyncio.sleep(POLL_SECONDS)

    async def _html(self) -> str:
        while True:
            try:
                html: str = await self._page.evaluate(_HTML, self._settings.max_bytes + 1)
                return html
            except Error as error:
                if "context was destroyed" not in error.message:  # by a navigation
                    raise

    def _checked(self, html: str) -> Fetched:
        """What was loaded. Raises the error for an answer that is not a successful page."""
        url, answer = without_credentials(self._page.url), self._answer
        status = answer.status if answer is not None else 200
        if not 200 <= status < 300:
            raise refusal(url, status, answer.status_text, answer.headers.get("retry-after"))
        data = html.encode("utf-8", "replace")
        if len(data) > self._settings.max_bytes:
            limit = f"{self._settings.max_bytes} bytes (fetch.max_bytes)"
            raise PermanentError(f"larger than {limit}: {url}", "too_large")
        meta: dict[str, Any] = {"status": status, "rendered": True}
        for (host, _), failure in self._proxy.failures.items():
            if isinstance(failure, PermanentError):
                self._refuse(f"{host} ({failure})")
        refused = [*self._refused]
        if self._more_refused:
            refused.append(f"and {self._more_refused} more")
        if self._proxy.bytes_left <= 0:
            refused.append(f"what is beyond {self._settings.max_bytes} bytes (fetch.max_bytes)")
        if refused:
            meta["warning"] = f"the page could not load {'; '.join(refused)}"
        return Fetched(data, url, "text/html", "utf-8", meta)

    def _refuse(self, request: str) -> None:
        """Note a request of the page that was refused, for a warning."""
        if request in self._refused or len(self._refused) < MOST_REFUSED:
            self._refused[request] = None
        else:
            self._more_refused += 1

    def _navigation_failure(self, url: str, message: str) -> PaiseError:
        """The error for a document that could not be loaded."""
        if failure := self._proxy.failure(url):
            return failure
        reason = message.partition("net::")[2].partition(" ")[0] or "no reason given"
        shown = without_credentials(url)
        if "ERR_CERT" in reason:
            return PermanentError(f"the certificate is not valid ({reason}): {shown}", "tls")
        if "ERR_ABORTED" in reason or "Download" in message:
            return PermanentError(f"a download, not a page: {shown}", "unsupported")
        return TransientError(f"the connection failed ({reason}): {shown}", "connection")

    # Events ----------------------------------------------------------------------------------

    def _start(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            with suppress(Error):  # the page has gone on, or is closed
                await work

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_document(self, request: Any) -> bool:
        is_main = request.is_navigation_request() and request.frame == self._page.main_frame
        return is_main and not self._failure.done()

    def _on_response(self, answer: Any) -> None:
        if not self._is_document(answer.request) or 300 <= answer.status < 400:
            return
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("", *PAGES) or answer.status >= 400:
            self._answer = answer
        elif self._answer is None:  # else it is a download, beside the page
            shown = without_credentials(answer.url)
            self._fail(PermanentError(f"{kind}, not a page: {shown}", "unsupported"))

    def _on_failed(self, request: Any) -> None:
        # A navigation that is aborted leaves the page as it is.
        if self._is_document(request) and "ERR_ABORTED" not in (request.failure or ""):
            self._fail(self._navigation_failure(request.url, request.failure or ""))

    def _on_request(self, event: dict[str, Any]) -> None:
        self._start(self._decide(event))

    async def _decide(self, event: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"requestId": event["requestId"]}
        request, wanted = event["request"], False
        try:
            wanted = await self._is_wanted(request, event["resourceType"], event["frameId"])
            if wanted and (login := await self._login(request["url"])):
                headers = {**request["headers"], **login}
                answer["headers"] = [{"name": n, "value": v} for n, v in headers.items()]
        except Error:  # the page has gone on, or is closed
            raise
        except Exception as error:  # which ends the page; the request would wait for ever
            self._fail(error)
        if wanted and not self._failure.done():
            await self._session.send("Fetch.continueRequest", answer)
        else:
            answer["errorReason"] = "BlockedByClient"
            await self._session.send("Fetch.failRequest", answer)

    async def _log_in(self, event: dict[str, Any]) -> None:
        """Give the password of the proxy. A host that asks for one answers 401 without it."""
        answer = {"response": "CancelAuth"}
        if event["authChallenge"]["source"] == "Proxy":
            answer = {
                "response": "ProvideCredentials",
                "username": USER,
                "password": self._proxy.password,
            }
        request = {"requestId": event["requestId"], "authChallengeResponse": answer}
        await self._session.send("Fetch.continueWithAuth", request)

    async def _login(self, url: str) -> dict[str, str]:
        """Give the browser the cookies for the host of a request. Return its other headers."""
        host = host_of(url)
        if host is None:  # data, blob
            return {}
        if host not in self._hosts:
            self._hosts[host] = asyncio.ensure_future(self._give_cookies(host))
        await self._hosts[host]
        headers: dict[str, str] = await _in_thread(self._policy.headers, url)
        return headers

    async def _give_cookies(self, host: str) -> None:
        for cookie in await _in_thread(self._policy.cookies, host):
            key = (cookie["domain"], cookie["path"], cookie["name"])
            if key not in self._given:
                self._given.add(key)
                with suppress(Error):  # such as __Secure-a without secure; servers may take it
                    await self._page.context.add_cookies([cookie])

    async def _is_wanted(self, request: dict[str, Any], kind: str, frame: str) -> bool:
        """Whether to send a request. Raises PaiseError for a document that must not be loaded."""
        url = request["url"]
        is_image = request["headers"].get("Accept", "").startswith("image/")  # such as an icon
        if kind in _UNWANTED or is_image or (kind == "Document" and frame != self._frame):
            return False
        if scheme_of(url) not in DEFAULT_PORTS:  # data, blob
            return kind != "Document"
        if kind != "Document":
            allowed: bool = await _in_thread(self._policy.allows, url)
            if not allowed:
                shown = shortened(shown_url(url), LONGEST_REFUSED)
                self._refuse(f"{shown} (disallowed by robots.txt)")
            return allowed
        self._documents += 1
        if self._documents > self._settings.max_redirects + 1:
            limit = f"{self._settings.max_redirects} times (fetch.max_redirects)"
            shown = without_credentials(url)
            raise PermanentError(f"redirected more than {limit}: {shown}", "redirects")
        await _in_thread(self._policy.check_document, url)
        return True


async def _in_thread(function: Callable[[T], Any], argument: T) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, argument)
