"""Connections that go only where they may: each host name is resolved once, every address it
has is checked, and the socket is opened to exactly the address that was checked.

Everything above the socket (the Host header, TLS server name and certificate check, keeping
connections open) still sees the host name, so nothing is lost, and a name that answers
differently a moment later (DNS rebinding) finds no second question to answer.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.request import (  # type: ignore[attr-defined]  # its stub lacks the second one
    getproxies_environment,
    proxy_bypass_environment,
)

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from paise2nb.core.errors import PermanentError, TransientError

HOSTS = 128  # hosts whose idle connections are kept
CONNECTIONS = 16  # idle connections that are kept for one host: as many as a pool has threads

_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # all global unicast addresses, RFC 4291
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_RELAY_6TO4 = ipaddress.IPv4Network("192.88.99.0/24")  # RFC 7526: deprecated
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214, the upper half of the interface identifier


class Budget(threading.local):
    """The time and the bytes that a thread's current request may still take from its sockets.

    A limit for each read alone would let a server that sends a byte now and then hold a thread
    for ever; one for decoded bytes alone, a server that sends what decodes to nothing.
    """

    end = float("inf")
    allowed = bytes_left = 0
    reused = False  # whether the connection of this request has served another before

    def begin(self, seconds: float, allowed: int) -> None:
        """Give the next request this time and this many bytes on the wire."""
        self.end = time.monotonic() + seconds
        self.allowed = self.bytes_left = allowed

    def take(self, number: int) -> None:
        """Count bytes that were read. Raises PermanentError when they are too many."""
        self.bytes_left -= number
        if self.bytes_left < 0:
            raise PermanentError(f"more than {self.allowed} bytes on the wire", "too_large")

    def left(self) -> float:
        """Seconds left. Raises TimeoutError when none are."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this request is over")
        return left


budget = Budget()


def is_public(address: str) -> bool:
    """Whether an IP address is one that the whole internet can reach.

    IPv4 addresses inside IPv6 ones (mapped, compatible, 6to4, NAT64, ISATAP) are judged by what
    they lead to. Source: the IANA special-purpose address registries (RFC 6890).
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
    """What ``getaddrinfo`` says, within a time that it can't be told itself.

    Raises:
        TransientError: ``dns``, the name has no address now, or the answer took too long.
    """
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name=f"resolve {host}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise TransientError(f"no answer from the name servers about {host}", "dns")
    if isinstance(answer[0], Exception):
        reason = getattr(answer[0], "strerror", None) or str(answer[0])
        raise TransientError(f"host {host} not found ({reason})", "dns") from answer[0]
    return list(answer[0])


def refuse_private(host: str, found: Iterable[tuple[Any, ...]]) -> None:
    """Raise PermanentError, ``blocked``, if one of a host's resolved addresses is not public."""
    for entry in found:
        address = str(entry[4][0])
        if not is_public(address):
            raise PermanentError(
                f"{host if host == address else f'{host} ({address})'} is not a public address"
                " and fetch.allow_private_addresses is false",
                "blocked",
            )


def connect(host: str, port: int, *, private: bool) -> socket.socket:
    """A connected socket to a host, within the budget of this thread.

    Args:
        private: whether addresses that are not public are allowed.

    Raises:
        PermanentError: ``blocked``, one of the host's addresses is not public.
        TransientError: ``dns``, ``connection`` or ``timeout``.
    """
    found = resolve(host, port, budget.left())
    if not private:
        refuse_private(host, found)
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # no IPv6 here, say
            problem = error
            continue
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(budget.left())
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    if isinstance(problem, TimeoutError):
        raise TransientError(f"no connection to {host}:{port} in time", "timeout")
    reason = (problem.strerror if problem else None) or "no address"
    raise TransientError(f"no connection to {host}:{port} ({reason})", "connection") from problem


class _BudgetedReader(io.RawIOBase):
    """A socket's stream of bytes in which every read gets only the time that is left."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(budget.left())
        number = self._stream.readinto(buffer)
        budget.take(number or 0)
        return number

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose headers and body are read within the budget of the thread."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_BudgetedReader(sock))


class _Checked(http.client.HTTPConnection):
    """What both kinds of connection add to urllib3's own."""

    response_class = _Response
    private = False
    _requests = 0

    def _new_conn(self) -> socket.socket:
        self._requests = 0
        budget.reused = False
        return connect(self._dns_host, self.port, private=self.private)  # type: ignore[attr-defined]

    def request(self, *args: Any, **named: Any) -> None:
        budget.reused = self._requests > 0
        super().request(*args, **named)
        self._requests += 1


class _Http(_Checked, HTTPConnection):
    pass


class _Https(_Checked, HTTPSConnection):
    pass


class _PrivateHttp(_Http):
    private = True


class _PrivateHttps(_Https):
    private = True


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _PrivateHttpPool(HTTPConnectionPool):
    ConnectionCls = _PrivateHttp


class _PrivateHttpsPool(HTTPSConnectionPool):
    ConnectionCls = _PrivateHttps


_pools: dict[tuple[bool, str | None], PoolManager] = {}
_pools_lock = threading.Lock()


def pools(*, private: bool, proxy: str | None = None) -> PoolManager:
    """The connections of this process, shared by its threads.

    Args:
        private: whether addresses that are not public are allowed.
        proxy: through which all of them lead; it may itself be at such an address.
    """
    with _pools_lock:
        if (private, proxy) not in _pools:
            size: dict[str, Any] = {"num_pools": HOSTS, "maxsize": CONNECTIONS, "retries": False}
            if proxy is None:
                manager = PoolManager(**size)
            else:
                credentials = parse_url(proxy).auth
                headers = make_headers(proxy_basic_auth=credentials) if credentials else None
                manager = ProxyManager(proxy, proxy_headers=headers, **size)
            manager.pool_classes_by_scheme = (
                {"http": _PrivateHttpPool, "https": _PrivateHttpsPool}
                if private or proxy
                else {"http": _HttpPool, "https": _HttpsPool}
            )
            _pools[private, proxy] = manager
        return _pools[private, proxy]


def proxy_for(scheme: str, host: str, chosen: str | None) -> str | None:
    """The proxy that leads to a host, as the setting ``fetch.proxy`` says; None for none.

    Raises:
        PermanentError: ``unsupported``, the environment names one of another kind.
    """
    if chosen != "environment":
        return chosen
    # Not `getproxies`: on some systems that asks more than the environment.
    named = getproxies_environment()
    proxy = named.get(scheme) or named.get("all")
    if not proxy or proxy_bypass_environment(host, named):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        kind = proxy.partition("://")[0]
        raise PermanentError(f"{kind}:// proxies can't be used", "unsupported")
    return proxy


def refuse_private_behind_proxy(host: str, port: int) -> None:
    """Refuse a host that is known here not to be public. One that only the proxy can resolve is
    the proxy's to judge: that is what its user trusts it with.

    Raises:
        PermanentError: ``blocked``.
    """
    with suppress(TransientError):
        refuse_private(host, resolve(host, port, budget.left()))
