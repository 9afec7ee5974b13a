"""An HTTP proxy on loopback through which the browser loads one page.

It resolves each host, checks its addresses and connects to one that was checked, like the fetch
itself. A rule in the browser would see the names only, and of redirects only the first URL.
"""

import asyncio
import base64
import re
import secrets
import ssl
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from paise2nb.config.settings import FetchSettings
from paise2nb.content.fetch.network import budget, connect, proxy_for, refuse_private_behind_proxy
from paise2nb.core.errors import TaskError, TransientError
from paise2nb.core.urls import DEFAULT_PORTS, parse

USER = "paise2nb"
CHUNK = 65536  # bytes
HEAD = 1 << 18  # bytes of a head
THREADS = 32  # connections that are being made at a time, by all pages
# What belongs to a connection (RFC 9110, section 7.6.1). Without Upgrade no answer changes the
# protocol, and each connection has one request: the next one may be for another host.
_OF_CONNECTION = re.compile(
    rb"\r\n(?:Connection|Proxy-[\w-]+|Keep-Alive|Upgrade)[ \t]*:[^\r\n]*", re.IGNORECASE
)
_END = b"\r\n\r\n"  # of a head
_LAST = b"\r\nConnection: close" + _END
_CREDENTIALS = re.compile(rb"\r\nProxy-Authorization[ \t]*:[ \t]*(\S+ \S+)", re.IGNORECASE)
_ASK = b'HTTP/1.1 407 Unauthorized\r\nProxy-Authenticate: Basic realm="paise2nb"' + _LAST
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d\b")
_SUCCESS = re.compile(rb"HTTP/1\.[01] 2\d\d\b")


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "browser-connect")


class Proxy:
    """The proxy of one page.

    Args:
        settings: ``fetch.max_bytes`` is for all that the page loads, ``fetch.timeout`` for each
            connection.

    Attributes:
        password: Of `USER`. Other programs can reach the port, and must not use it.
        bytes_left: What the page may still load.
        failures: By host and port, why there is no connection to it.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self.password = secrets.token_urlsafe()
        self.bytes_left = settings.max_bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: dict[tuple[str, int], TaskError] = {}

    async def start(self) -> str:
        """Listen on a free port. Return the URL of the proxy."""
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", limit=HEAD)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def failure(self, url: str) -> TaskError | None:
        """Why nothing could be loaded from the host of a URL; None if it was possible."""
        parsed = parse(url)
        return self.failures.get((parsed.host, parsed.port))

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                head = await reader.readuntil(_END)
                if not self._is_known(head):
                    writer.write(_ASK)
                    return
                method, target, head = _request(head)
                answers, upstream = await self._open(method, target, head)
                sending = self._start(self._relay(reader, upstream, counted=False))
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 Connected" + _END)
                else:
                    writer.write(await _answer_head(answers, writer))
                await self._relay(answers, writer, counted=True)
                sending.cancel()
            except TaskError:
                writer.write(b"HTTP/1.1 502 Refused" + _LAST)
            except ValueError:
                writer.write(b"HTTP/1.1 400 Bad Request" + _LAST)
            finally:
                for stream in filter(None, (upstream, writer)):
                    stream.close()

    def _is_known(self, head: bytes) -> bool:
        """Whether a request has the password."""
        given = _CREDENTIALS.search(head)
        token = base64.b64encode(f"{USER}:{self.password}".encode())
        return given is not None and secrets.compare_digest(given[1], b"Basic " + token)

    async def _relay(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        with suppress(OSError):
            while self.bytes_left > 0 and (data := await source.read(CHUNK)):
                self.bytes_left -= len(data) * counted
                target.write(data)
                await target.drain()

    async def _open(
        self, method: str, target: str, head: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the host of a request, and send it unless it is CONNECT.

        Raises:
            TaskError: The host can't be reached, or must not be.
            ValueError: The target is not a URL.
        """
        is_tunnel = method == "CONNECT"
        parsed = parse(f"https://{target}" if is_tunnel else target)
        place = (parsed.host, parsed.port)
        try:
            proxy = proxy_for(parsed.scheme, parsed.host, self._settings.proxy)
            loop = asyncio.get_running_loop()
            reach = (parsed.host, parsed.port, proxy, self._settings)
            sock = await loop.run_in_executor(_threads(), _connected, *reach)
            tls: dict[str, Any] = {}
            if proxy and proxy.startswith("https:"):
                tls = {"ssl": ssl.create_default_context(), "server_hostname": parse(proxy).host}
            streams = await asyncio.open_connection(sock=sock, limit=HEAD, **tls)
            if proxy is None:
                if not is_tunnel:
                    streams[1].write(f"{method} {parsed.target} HTTP/1.1".encode() + head)
                return streams
            if is_tunnel:
                head = f"\r\nHost: {target}\r\n\r\n".encode()
            line = f"{method} {target if is_tunnel else parsed.absolute} HTTP/1.1".encode()
            streams[1].write(line + _authorization(proxy) + head)
            if is_tunnel and not _SUCCESS.match(await streams[0].readuntil(_END)):
                streams[1].close()
                raise TransientError(f"the proxy refuses {parsed.netloc}", "connection")
            return streams
        except TaskError as error:
            self.failures[place] = error
            raise
        except (OSError, EOFError) as error:
            text = f"the connection failed ({error}): {parsed.netloc}"
            self.failures[place] = TransientError(text, "connection")
            raise self.failures[place] from error


def _connected(host: str, port: int, proxy: str | None, settings: FetchSettings) -> Any:
    """A socket that is connected to a host or to the user's proxy, after the check of the host."""
    budget.begin(settings.timeout, 0)
    private = settings.allow_private_addresses
    try:
        if proxy is None:
            sock = connect(host, port, private=private)
        else:
            if not private:
                refuse_private_behind_proxy(host, port)
            parts = urlsplit(proxy)
            sock = connect(
                parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme], private=True
            )
    except TimeoutError:
        raise TransientError(f"no connection to {host}:{port} in time", "timeout") from None
    sock.setblocking(False)
    return sock


def _request(head: bytes) -> tuple[str, str, bytes]:
    """The method and the target of a request, and the rest of its head, which ends it."""
    line, separator, rest = head.partition(b"\r\n")
    method, target, _ = line.decode("latin-1").split(" ")
    rest = _OF_CONNECTION.sub(b"", separator + rest.removesuffix(_END))
    return method, target, rest + _LAST


async def _answer_head(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The head of an answer, after which the browser closes the connection."""
    while _INTERIM.match(head := await answers.readuntil(_END)):
        writer.write(head)
    return (
        _OF_CONNECTION.sub(b"", head.removesuffix(b"\r\n\r\n")) + b"\r\nConnection: close\r\n\r\n"
    )


def _authorization(proxy: str) -> bytes:
    parts = urlsplit(proxy)
    if parts.username is None:
        return b""
    token = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return b"\r\nProxy-Authorization: Basic " + base64.b64encode(token)
