"""Signed, numbered JSON messages through Huey's plain Redis storage, one list for each receiver.

Redis may lose a message, and deliver one twice. So a receiver takes only numbers that are higher
than the last one, and senders repeat what was not acknowledged; see `relay` and `machine`.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from paise2nb.config.settings import RedisSettings, config_files
from paise2nb.core.errors import SettingsError, WorkersError, message
from paise2nb.core.urls import shown_url

logger = logging.getLogger("paise2nb.worker")

HOME = "home"  # the name of the relay as a sender and a receiver
# Seconds. A read waits one second, so that it never ends because of this limit alone: the server
# would give the next message to a connection that is closed.
SOCKET_SECONDS = 5.0
READ_SECONDS = 1
MAILBOXES = 1000  # kept open
REFUSALS = 100  # senders of refused messages that are logged
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def require_redis() -> None:
    """Require redis-py.

    Raises:
        WorkersError: It is not installed.
    """
    try:
        import redis  # noqa: F401  # only whether it can be imported
    except ImportError:
        reason = "task_queue.provider redis needs redis-py; type: pip install 'paise2nb[redis]'"
        raise WorkersError(reason) from None


def redis_url(settings: RedisSettings) -> str:
    """The URL of the server. PAISE2_REDIS_URL, which may have a password, overrides the setting."""
    return os.environ.get("PAISE2_REDIS_URL") or settings.url


def shared_secret(chosen: str | None, url: str) -> bytes:
    """The secret that home and machines share.

    Args:
        chosen: That of the settings.
        url: Of the server.

    Raises:
        SettingsError: There is none, and the server is not on loopback.
    """
    file = Path(config_files()[0]).with_name("queue.secret")
    found = chosen or os.environ.get("PAISE2_QUEUE_SECRET")
    if not found and file.is_file():
        found = file.read_text("utf-8").strip()
    parts = urlsplit(url)
    # Where it has no host, redis-py takes the one of the query.
    host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
    if not found and parts.scheme != "unix" and host not in LOOPBACK:
        raise SettingsError(
            f"{shown_url(url)} is not on this machine, so messages must be signed: set "
            f"PAISE2_QUEUE_SECRET, or write a secret to {file}, here and on every machine"
        )
    return (found or "").encode()


class Server:
    """The connection to a Redis server.

    Args:
        url: It may have a password, which no message contains.

    Attributes:
        url: Without a password.
        redis: The client.

    Raises:
        WorkersError: redis-py is not installed, or the server does not answer.
    """

    def __init__(self, url: str) -> None:
        require_redis()
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.url = shown_url(url)
        self._mailboxes: dict[str, Any] = {}
        self.errors = (redis.RedisError, OSError)
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                socket_timeout=SOCKET_SECONDS,
                socket_connect_timeout=SOCKET_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            self.redis: Any = redis.Redis(connection_pool=self._pool)
            self.redis.ping()
        except (*self.errors, ValueError) as error:
            raise WorkersError(f"no Redis server answers at {self.url}: {_reason(error)}") from None

    def mailbox(self, collection: str, receiver: str) -> Any:
        """The list of messages for a receiver, as a storage of Huey."""
        from huey.storage import RedisStorage

        # No other characters: Huey's cleaning of names could make two of them one.
        name = f"paise2_{collection}_{receiver}"
        if (known := self._mailboxes.get(name)) is None:  # a new one takes half a millisecond
            if len(self._mailboxes) >= MAILBOXES:
                self._mailboxes.clear()
            known = RedisStorage(name, connection_pool=self._pool, read_timeout=READ_SECONDS)
            self._mailboxes[name] = known
        return known

    def deliver(self, collection: str, messages: Iterable[tuple[str, bytes]]) -> None:
        """Send messages to their receivers in one round trip. Raises one of `errors`."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for receiver, data in messages:
                # As the storage's `enqueue` does.
                pipeline.lpush(self.mailbox(collection, receiver).queue_key, data)
            pipeline.execute()

    def require_noeviction(self) -> None:
        """Refuse a server that may delete messages. Raises WorkersError."""
        policy = self.redis.info("memory").get("maxmemory_policy")
        if policy != "noeviction":
            raise WorkersError(
                f"the Redis server at {self.url} may delete messages: its maxmemory-policy is "
                f"{policy}; set it to noeviction: redis-cli config set maxmemory-policy noeviction"
            )

    def home_key(self, name: str) -> str:
        """The key under which the relay of a queue makes itself known."""
        return f"paise2:{name}:home"


def _reason(error: Exception) -> str:
    return message(error).partition(": ")[2] or type(error).__name__


@dataclass
class Channel:
    """The messages between home and one machine, during one session of both.

    Attributes:
        key: Of the signatures, see `session_key`.
        collection: The random id of the collection.
        me, other: ``home``, or the random name of the machine.
        sent: The number of the last message that was sent.
        received: The number of the last message that was accepted.
    """

    key: bytes
    collection: str
    me: str
    other: str
    sent: int = 0
    received: int = 0
    _mailbox: Any = field(default=None, repr=False)

    def seal(self, kind: str, body: Any) -> bytes:
        """Number and sign a message."""
        self.sent += 1
        content = [self.collection, self.me, self.other, kind, self.sent, body]
        text = json.dumps(content, separators=(",", ":")).encode()
        return self._signature(text) + text

    def send(self, server: Server, kind: str, body: Any) -> int:
        """Send a message, and return its number. Raises one of `Server.errors`."""
        if self._mailbox is None:
            self._mailbox = server.mailbox(self.collection, self.other)
        self._mailbox.enqueue(self.seal(kind, body))
        return self.sent

    def accept(self, data: bytes) -> tuple[str, Any] | None:
        """Return the kind and the body of a message; None unless it is new and from the other."""
        if not hmac.compare_digest(data[:64], self._signature(data[64:])):
            return None
        collection, sender, receiver, kind, number, body = json.loads(data[64:])
        if (collection, sender, receiver) != (self.collection, self.other, self.me):
            return None
        if number <= self.received:
            return None
        self.received = number
        return kind, body

    def _signature(self, text: bytes) -> bytes:
        return hmac.new(self.key, text, hashlib.sha256).hexdigest().encode()


class Refusals:
    """Logs the messages that are refused, once for each sender."""

    def __init__(self) -> None:
        self._senders: set[str] = set()

    def log(self, sender: str) -> None:
        """Log that a message is refused.

        Args:
            sender: What the message says, which may be wrong.
        """
        if sender not in self._senders and len(self._senders) < REFUSALS:
            self._senders.add(sender)
            logger.warning(
                "a message from %s is refused: it was altered or repeated, or is signed with "
                "another secret or in an earlier session",
                sender,
            )


def sender_of(data: bytes) -> str:
    """The name of the machine that a message gives, which is not verified. Raises ValueError."""
    try:
        name = str(json.loads(data[64:])[1])
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("not a message") from error
    if not (name.isalnum() and len(name) == 32):
        raise ValueError("not the name of a machine")
    return name


def session_key(secret: bytes, collection: str, nonce: str, machine: str) -> bytes:
    """The key of a session: a message of an earlier one of either side is refused.

    Args:
        secret: What both sides share.
        collection: The random id of the collection.
        nonce: Chosen by the relay when it starts.
        machine: Chosen by the machine when it starts.
    """
    text = json.dumps(["paise2nb", collection, nonce, machine])
    return hmac.new(secret, text.encode(), hashlib.sha256).digest()


def setup_digest(setup: dict[str, Any] | None) -> str:
    """A digest of the settings and plugins that home sends to a machine."""
    return hashlib.sha256(json.dumps(setup, sort_keys=True).encode()).hexdigest()[:16]


def new_name() -> str:
    """A random name of a machine or a session: letters and digits."""
    return secrets.token_hex(16)
