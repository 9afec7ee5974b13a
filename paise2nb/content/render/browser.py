"""One browser in each process, and a context of its own for each page.

Playwright runs in the event loop of one thread, whichever threads ask for pages. The browser's
processes descend from this one: their memory counts, and they end with it.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from paise2nb.config.settings import FetchSettings
from paise2nb.content.render.policy import Policy
from paise2nb.content.render.proxy import Proxy
from paise2nb.core import processes
from paise2nb.core.errors import PaiseError, PermanentError, TransientError
from paise2nb.core.urls import without_credentials
from paise2nb.core.version import __version__
from paise2nb.plugins import Fetched

IDLE_SECONDS = 60.0  # without a page, after which the browser is ended
START_SECONDS = 30.0  # Playwright has the same limit for the browser, but none for its own start
CLOSE_SECONDS = 5.0
GRACE_SECONDS = 5.0  # after fetch.timeout, to read what the page has by then
NO_PLAYWRIGHT = "rendering needs Playwright: pip install 'paise2nb[browser]'"
NO_BROWSER = (
    "rendering needs Chromium: playwright install chromium, or apt-get install chromium, or its "
    "path in fetch.render_executable"
)
NO_SANDBOX = (
    "Chromium's sandbox can't run {why}: run the workers as another user, or, if you trust the "
    "pages, set fetch.render_sandbox to false"
)
# The list replaces Playwright's own, so it repeats what that has for the sake of pages. Without
# the last three a page takes half of the processor time (tests/benchmarks/render.py): each window
# would load two pages for suggestions in its address bar, and each page start a spare process.
_FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,"
    "HttpsFirstBalancedModeAutoEnable,LensOverlay,MediaRouter,PaintHolding,"
    "ThirdPartyStoragePartitioning,AvoidCorsURLLoaderRestartOnRedirect,OptimizationHints,"
    "NetworkTimeServiceQuerying,AimEnabled,PreconnectToSearch,WebUIOmniboxPopup,"
    "WebUIOmniboxAimPopup,SpareRendererForSitePerProcess"
)
# Of Chromium. Names are resolved by the proxy only. WebRTC and QUIC would not use it. What scripts
# open beside the page would be loaded before it can be closed.
_SWITCHES = [
    "--block-new-web-contents",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-quic",
    f"--disable-features={_FEATURES}",
]
_NO_PROXY = "http://127.0.0.1:9"  # of the browser's own requests: nothing listens there
_TEMPORARY = "paise2-browser-"  # begins the name of a directory; a long one would be too long
_OWNER = "owner"  # a file in it with the identity of the process
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
T = TypeVar("T")


class Browser:
    """The browser of this process. It starts with the first page, and ends when it is idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._launching = asyncio.Lock()
        self._playwright: Any = None
        self._directory = ""
        self._browser: Any = None
        self._started_with: tuple[bool, Path | None] | None = None
        self._pages = 0
        self._idle: asyncio.Task[None] | None = None

    def render(self, url: str, settings: FetchSettings, policy: Policy) -> Fetched:
        """Load a page, and return its HTML when its scripts have made its text.

        Args:
            url: An http or https URL.
            settings: ``fetch.timeout`` is for the whole page.
            policy: Which requests are made. Its methods are called in other threads.

        Raises:
            TaskError: As of a fetch; ``browser``: there is no browser that can be used.
            Snoozed: The policy raised it.
        """
        return self._run(self._render(url, settings, policy))

    def check(self, settings: FetchSettings) -> str:
        """Start the browser, and return its version. Raises PermanentError (``browser``)."""
        self._run(self._launch(settings))
        return str(self._browser.version)

    def close(self) -> None:
        """End the browser."""
        if self._loop is not None:
            with suppress(TimeoutError):
                self._run(asyncio.wait_for(self._end(), 2 * CLOSE_SECONDS))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._serve, args=(self._loop,), name="browser", daemon=True
                ).start()
                atexit.register(self.close)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Ctrl-C

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        processes.LASTING_THREADS.add(threading.get_native_id())
        loop.run_forever()

    async def _render(self, url: str, settings: FetchSettings, policy: Policy) -> Fetched:
        proxy, context = Proxy(settings), None
        self._pages += 1
        try:
            await self._launch(settings)
            async with asyncio.timeout(settings.timeout + GRACE_SECONDS):
                context = await self._browser.new_context(
                    proxy={"server": await proxy.start(), "bypass": "<-loopback>"},
                    user_agent=settings.user_agent or self._user_agent(),
                    service_workers="block",
                    accept_downloads=False,
                )
                # Imported here, because it imports Playwright.
                from paise2nb.content.render.page import Page

                page = Page(await context.new_page(), proxy, settings, policy)
                return await page.load(url)
        except PaiseError:
            raise
        except TimeoutError:
            limit = f"{settings.timeout:g} s (fetch.timeout)"
            shown = without_credentials(url)
            raise TransientError(f"no page within {limit}: {shown}", "timeout") from None
        except Exception as error:  # of Playwright: an exception of any class if its driver is gone
            if context is None:
                await self._discard(self._browser)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            where = f"the browser failed ({reason}): {without_credentials(url)}"
            raise TransientError(where, "crash") from error
        finally:
            proxy.close()
            await self._closed(context)
            self._pages -= 1

    async def _closed(self, context: Any) -> None:
        """Close the context of a page, and the browser if that is not possible."""
        try:
            if context is not None:
                await asyncio.wait_for(context.close(), CLOSE_SECONDS)
        except Exception:  # the browser hangs, or is gone
            await self._discard(context.browser)
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.ensure_future(self._end_when_idle())

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(IDLE_SECONDS)
        async with self._launching:
            if not self._pages:
                await self._stop()

    async def _end(self) -> None:
        async with self._launching:
            await self._stop()

    async def _discard(self, browser: Any) -> None:
        """End a browser that fails, unless another one has been started."""
        async with self._launching:
            if browser is self._browser:
                await self._stop()

    async def _stop(self) -> None:
        playwright, self._playwright, self._browser = self._playwright, None, None
        if playwright is None:
            return
        try:
            await asyncio.wait_for(playwright.stop(), CLOSE_SECONDS)  # which ends the browser
        except Exception:  # it hangs, or is gone
            processes.end_children([threading.get_native_id()])
        shutil.rmtree(self._directory, ignore_errors=True)

    def _user_agent(self) -> str:
        """That of the browser, which pages expect, and the product."""
        major = self._browser.version.partition(".")[0]
        system = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
        return f"{system} Chrome/{major}.0.0.0 Safari/537.36 paise2nb/{__version__}"

    async def _launch(self, settings: FetchSettings) -> None:
        """Start the browser unless it runs.

        Raises:
            PermanentError: ``browser``: it can't be started. The message says what to do.
            TransientError: ``browser``: it could not be started just now.
        """
        async with self._launching:
            if settings.render_sandbox and os.geteuid() == 0:
                raise PermanentError(NO_SANDBOX.format(why="as root"), "browser")
            wanted = (settings.render_sandbox, settings.render_executable)
            if self._browser is not None:
                if self._browser.is_connected() and self._started_with == wanted:
                    return
                await self._stop()  # it has crashed, or another app had other settings
            self._started_with = wanted
            try:
                from playwright.async_api import Error, async_playwright
            except ImportError:
                raise PermanentError(NO_PLAYWRIGHT, "browser") from None
            if self._playwright is None:
                self._directory = _temporary_directory()
                self._playwright = await self._start_driver(async_playwright().start())
            chromium = self._playwright.chromium
            program = _executable(chromium.executable_path, settings)
            try:
                self._browser = await chromium.launch(
                    executable_path=program,
                    args=_SWITCHES,
                    chromium_sandbox=settings.render_sandbox,
                    ignore_default_args=["--disable-popup-blocking"],
                    proxy={"server": _NO_PROXY},
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                )
            except Error as error:
                if settings.render_sandbox and "sandbox" in error.message.lower():
                    why = NO_SANDBOX.format(why="here")
                    raise PermanentError(why, "browser") from error
                why = f"Chromium can't be started: {error.message.splitlines()[0]}"
                if program is not None and not os.path.exists(program):
                    raise PermanentError(why, "browser") from error
                raise TransientError(why, "browser") from error  # such as a lack of memory

    async def _start_driver(self, start: Coroutine[Any, Any, Any]) -> Any:
        """Start Playwright's program. Raises TransientError (``browser``)."""
        starting = asyncio.ensure_future(start)
        with processes.environment(TMPDIR=self._directory):  # it has no argument for it
            done, _ = await asyncio.wait([starting], timeout=START_SECONDS)
        if not done:
            processes.end_children([threading.get_native_id()])
            # Not cancelled: Playwright would leave a future with an error that is never read.
            await asyncio.wait([starting])
            problem = f"Playwright did not start within {START_SECONDS:g} s"
            raise TransientError(problem, "browser") from starting.exception()
        return starting.result()


def _temporary_directory() -> str:
    """Make a directory for the browser's files. Remove those of processes that were killed."""
    for file in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*/{_OWNER}"):
        with suppress(OSError, ValueError):  # just removed by another process, or of another user
            owner = file.read_text()
            if owner and processes.is_visible(owner) and not processes.alive(owner):
                shutil.rmtree(file.parent, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    (directory / _OWNER).write_text(processes.identity(os.getpid()) or "")
    return str(directory)


def _executable(own: str, settings: FetchSettings) -> Path | str | None:
    """The program to start; None is Playwright's own."""
    if settings.render_executable is not None:
        return settings.render_executable
    if os.path.exists(own):
        return None
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        raise PermanentError(NO_BROWSER, "browser")
    return found


browser = Browser()
