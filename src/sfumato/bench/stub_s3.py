"""An S3 server that stores nothing and answers at once, so that only the gateway's own work is measured.

It knows which keys were created create-only, for that is asked of it; whatever else is put is answered 200.
"""

import asyncio
import sys
from typing import Final

import uvloop

__all__ = ["main"]

END: Final = b"\r\n\r\n"
DONE: Final = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'
EXISTS: Final = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"
ABSENT: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, created: set[bytes]) -> None:
        self._created = created
        self._buffer = bytearray()
        self._body_left = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer:
            if not self._answer and not self._begin():
                return
            taken = min(self._body_left, len(self._buffer))
            del self._buffer[:taken]
            self._body_left -= taken
            if self._body_left:
                return
            self._transport.write(self._answer)
            self._answer = b""

    def _begin(self) -> bool:
        """Read a request's head; False while it is not whole."""
        at = self._buffer.find(END)
        if at < 0:
            return False
        head = bytes(self._buffer[:at])
        del self._buffer[: at + len(END)]
        line, *fields = head.split(b"\r\n")
        headers = dict(field.lower().split(b": ", 1) for field in fields if b": " in field)
        self._body_left = int(headers.get(b"content-length", b"0"))
        if headers.get(b"expect") == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, path, _ = line.split(b" ", 2)
        self._answer = self._answer_to(method, path, create_only=b"if-none-match" in headers)
        return True

    def _answer_to(self, method: bytes, path: bytes, *, create_only: bool) -> bytes:
        if method in (b"GET", b"HEAD"):
            return ABSENT
        if create_only and path in self._created:
            return EXISTS
        if create_only:
            self._created.add(path)
        return DONE


async def _serve(port: int) -> None:
    created: set[bytes] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(created), "127.0.0.1", port)
    await server.serve_forever()


def main(port: int) -> None:
    """Serve on this port of loopback until the process is ended."""
    uvloop.run(_serve(port))


if __name__ == "__main__":
    main(int(sys.argv[1]))
