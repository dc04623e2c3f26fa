"""An S3 server that has one answer for everything."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sfumato.storage.s3_place import S3Place

__all__ = ["answering"]


@contextmanager
def answering(status: int, code: str) -> Iterator[S3Place]:
    """A server that gives every request this answer, with S3's word `code` in it if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = f"<Error><Code>{code}</Code></Error>".encode() if code else b"<html>Not here</html>"
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815 - the names that the standard library calls

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}"
            yield S3Place(bucket="b", endpoint=address, access_key_id="a", secret_access_key="b")
        finally:
            server.shutdown()
            thread.join()
