"""Connections to public addresses only: a host name is resolved once, each of its addresses is
checked, and the socket is opened to an address that was checked.

DNS rebinding fails, because the name is never resolved again. All layers above the socket (the Host
header, TLS server name and certificate check, connection reuse) still use the host name.
"""

import http.client
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from paise2nb.content.fetch.head import read_head
from paise2nb.core.errors import PermanentError, TransientError

HOSTS = 128  # hosts for which idle connections are kept
CONNECTIONS = 16  # idle connections kept for one host: the threads of the packaged fetch pool

_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # all global unicast addresses, RFC 4291
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_RELAY_6TO4 = ipaddress.IPv4Network("192.88.99.0/24")  # RFC 7526: deprecated
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214, the upper half of the interface identifier


class Budget(threading.local):
    """The time and the bytes that are left for the current request of a thread.

    A time limit for each read would let a server that sends a byte now and then block a thread
    forever. So would a limit for decoded bytes, if the server sends what decodes to nothing.
    """

    end = float("inf")
    allowed = bytes_left = 0
    reused = False  # whether the connection of this request has served another one before
    target = ""  # of the request line; urllib3 would escape it once more
    is_closed = False  # whether the server has closed the connection

    def begin(self, seconds: float, allowed: int) -> None:
        """Start a request with this time and this number of bytes on the wire."""
        self.end, self.is_closed = time.monotonic() + seconds, False
        self.allowed = self.bytes_left = allowed

    def take(self, number: int) -> None:
        """Count bytes that were read. Raises PermanentError if there are too many."""
        self.bytes_left -= number
        if self.bytes_left < 0:
            raise PermanentError(f"more than {self.allowed} bytes on the wire", "too_large")

    def left(self) -> float:
        """The seconds left. Raises TimeoutError if there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this request is over")
        return left


budget = Budget()


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from the whole internet.

    IPv6 addresses that contain an IPv4 address (mapped, compatible, 6to4, NAT64, ISATAP) are as
    public as that one. Source: the IANA special-purpose address registries (RFC 6890).
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        number = int(ip)
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64 or number >> 32 == 0 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
            embedded = ipaddress.IPv4Address(number & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        return ip in _GLOBAL_IPV6 and ip.is_global
    return ip.is_global and not ip.is_multicast and ip not in _RELAY_6TO4


def resolve(host: str, port: int, seconds: float) -> list[tuple[Any, ...]]:
    """Call ``getaddrinfo`` with a time limit, which it has not itself.

    Raises:
        TransientError: ``dns``: the name has no address now, or the answer took too long.
    """
    answer: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise TransientError(f"no answer from the name servers about {host}", "dns") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TransientError(f"host {host} not found ({reason})", "dns") from error


def refuse_private(host: str, found: Iterable[tuple[Any, ...]]) -> None:
    """Raise PermanentError (``blocked``) if one of a host's resolved addresses is not public."""
    for entry in found:
        address = str(entry[4][0])
        if not is_public(address):
            shown = host if host == address else f"{host} ({address})"
            reason = "is not a public address and fetch.allow_private_addresses is false"
            raise PermanentError(f"{shown} {reason}", "blocked")


def connect(host: str, port: int, *, private: bool) -> socket.socket:
    """Connect a socket to a host, within the budget of this thread.

    Args:
        host: Its name or IP address.
        port: The port.
        private: Whether addresses that are not public are allowed.

    Raises:
        PermanentError: ``blocked``: one of the host's addresses is not public.
        TransientError: ``dns``, ``connection`` or ``timeout``.
    """
    found = resolve(host, port, budget.left())
    if not private:
        refuse_private(host, found)
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        with ExitStack() as on_failure:
            try:
                sock = socket.socket(family, kind, protocol)  # fails on a machine without IPv6
                on_failure.callback(sock.close)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(budget.left())
                sock.connect(address)
                on_failure.pop_all()
                return sock
            except OSError as error:
                problem = error
    if isinstance(problem, TimeoutError):
        raise TransientError(f"no connection to {host}:{port} in time", "timeout")
    reason = (problem.strerror if problem else None) or "no address"
    raise TransientError(f"no connection to {host}:{port} ({reason})", "connection") from problem


class _BudgetedReader(io.RawIOBase):
    """A stream of the bytes of a socket, within the budget of the thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(budget.left())
        number = self._stream.readinto(buffer)
        budget.take(number or 0)
        budget.is_closed = number == 0
        return number

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that is read within the budget of the thread, and as browsers read it."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_BudgetedReader(sock))

    def begin(self) -> None:
        stream = self.fp
        self.fp = io.BufferedReader(io.BytesIO(read_head(stream)))
        super().begin()
        self.fp = stream

    def _safe_read(self, amt: int) -> bytes:
        """The bytes of a chunk, or those that came. The next read notices the end."""
        return self.fp.read(amt)


class _Connection(HTTPConnection):
    """urllib3's connection with the socket and the response of this module."""

    response_class = _Response
    private = False  # whether addresses that are not public are allowed
    _requests = 0

    def _new_conn(self) -> socket.socket:
        self._requests = 0
        budget.reused = False
        return connect(self._dns_host, self.port, private=self.private)

    def request(self, method: str, url: str, *args: Any, **named: Any) -> None:
        budget.reused = self._requests > 0
        super().request(method, budget.target, *args, **named)
        self._requests += 1


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


_CLASSES: dict[str, tuple[type, type]] = {
    "http": (HTTPConnectionPool, _Connection),
    "https": (HTTPSConnectionPool, _SecureConnection),
}


@cache
def pools(*, private: bool, proxy: str | None = None) -> PoolManager:
    """The connections of this process, which all of its threads share.

    Args:
        private: Whether addresses that are not public are allowed.
        proxy: The URL of a proxy for all connections. It may have a private address itself.
    """
    size: dict[str, Any] = {"num_pools": HOSTS, "maxsize": CONNECTIONS, "retries": False}
    if proxy is None:
        manager = PoolManager(**size)
    else:
        credentials = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=credentials) if credentials else None
        manager = ProxyManager(proxy, proxy_headers=headers, **size)
    # A pool makes connections of its class, so the permission is an attribute of a class.
    permission = {"private": private or proxy is not None}
    manager.pool_classes_by_scheme = {}
    for scheme, (pool, connection) in _CLASSES.items():
        permitted = type(connection.__name__, (connection,), permission)
        chosen: Any = type(pool.__name__, (pool,), {"ConnectionCls": permitted})
        manager.pool_classes_by_scheme[scheme] = chosen
    return manager


def proxy_for(scheme: str, host: str, chosen: str | None) -> str | None:
    """The proxy for requests to a host, or None for a direct connection.

    Args:
        scheme: ``http`` or ``https``.
        host: The host.
        chosen: The setting ``fetch.proxy``.

    Raises:
        PermanentError: ``unsupported``: the environment names a proxy of another kind.
    """
    if chosen != "environment":
        return chosen
    named = getproxies()
    proxy = named.get(scheme) or named.get("all")
    if not proxy or proxy_bypass(host, named):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise PermanentError(f"{proxy.partition('://')[0]}:// proxies can't be used", "unsupported")
    return proxy


def refuse_private_behind_proxy(host: str, port: int) -> None:
    """Raise PermanentError (``blocked``) if a host can be resolved here and is not public.

    A host that only the proxy can resolve is left to the proxy, which its user trusts.
    """
    with suppress(TransientError):
        refuse_private(host, resolve(host, port, budget.left()))
