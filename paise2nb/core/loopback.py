"""A web server on loopback, for the site of the demo and for tests of plugins."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """The response to a request."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {"Content-Type": "text/plain"}


class LoopbackServer(ThreadingHTTPServer, ABC):
    """Serves on 127.0.0.1 from creation until `server_close`. A context manager.

    Attributes:
        base: The URL of the server, with a slash at its end.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @abstractmethod
    def answer(self, path: str) -> Answer:
        """Return the response for a path, which begins with a slash. Called in many threads."""

    def server_close(self) -> None:
        """Stop serving. The end of the ``with`` block calls it; a second call does nothing."""
        self.shutdown()
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds after which an idle connection releases its thread

    def do_GET(self) -> None:
        body, status, headers = self.server.answer(self.path)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the output belongs to the demo and to the tests."""
