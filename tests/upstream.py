"""A tiny HTTP server in the gateways' place: it says what reached it, and misbehaves on request."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Upstream", "ask", "upstream"]


class Upstream(ThreadingHTTPServer):
    """Counts what came. `dying`: it closes the connection instead of answering; a stream waits for `go_on`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.came: list[str] = []
        self.dying = False
        self.go_on = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self._answer({"status": "ok"})
        self.server.came.append(f"{self.command} {self.path}")
        if self.server.dying:
            self.close_connection = True
            return None
        if self.path.endswith("/events"):
            return self._stream()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self._answer({"headers": dict(self.headers), "bytes": len(body), "server": self.server.address})

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that http.server asks for

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            # The next line is sent once the last one has arrived at the other end.
            assert self.server.go_on.wait(10)
            self.server.go_on.clear()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not onto the tests' standard error."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    """One that serves until the end of the block."""
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(
    address: str, method: str, path: str, body: bytes = b"", /, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request, with nothing added or tried again."""
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(
            method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()
