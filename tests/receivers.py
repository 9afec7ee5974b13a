"""Local receivers of messages, by SMTP and by HTTP, that keep what they get."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Mail(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one client needs, and a login that accepts everything."""

    def handle(self) -> None:
        self.wfile.write(b"220 localhost\r\n")
        while line := self.rfile.readline().strip():
            match line.upper().split()[0]:
                case b"EHLO":
                    answer = b"250-localhost\r\n250 AUTH PLAIN"
                case b"AUTH":
                    answer = b"235 welcome"
                case b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = iter(self.rfile.readline, b".\r\n")
                    self.server.received.append(b"".join(lines).decode())  # type: ignore[attr-defined]
                    answer = b"250 kept"
                case b"QUIT":
                    answer = b"221 bye"
                case _:
                    answer = b"250 fine"
            self.wfile.write(answer + b"\r\n")


class _Web(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[tuple[int, list[Any]]]:
    server.received = received = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def mail_receiver() -> Iterator[tuple[int, list[str]]]:
    """A mail server: its port, and the messages that it gets."""
    with _served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail)) as receiver:
        yield receiver


@contextmanager
def web_receiver() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A web server: its port, and the JSON that is posted to it."""
    with _served(ThreadingHTTPServer(("127.0.0.1", 0), _Web)) as receiver:
        yield receiver
