"""An S3 server that answers at once and keeps next to nothing, so that only the gateway's own work is measured.

What is created create-only is kept, for a service asks for it before it relies on a store: who created it, and what.
Whatever else is put is answered 200 and forgotten.
"""

import asyncio
import sys
from typing import Final

import uvloop

__all__ = ["KEPT_BYTES", "main"]

KEPT_BYTES: Final = 64 * 1024
"""Most that is kept of an object; what is created create-only (outcomes, requests, probes) is far smaller."""
END: Final = b"\r\n\r\n"
NO_SUCH_KEY: Final = b"<Error><Code>NoSuchKey</Code></Error>"


def _answer(status: bytes, body: bytes = b"", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


# obstore reads a time from an object's head, whatever it is.
STORED: Final = b'ETag: "0"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n'
DONE: Final = _answer(b"200 OK", fields=STORED)
GONE: Final = _answer(b"204 No Content")
EXISTS: Final = _answer(b"412 Precondition Failed")
ABSENT: Final = _answer(b"404 Not Found", NO_SUCH_KEY)
ABSENT_HEAD: Final = _answer(b"404 Not Found")


class _Connection(asyncio.Protocol):
    """One client; `kept` is path → object, shared by all connections."""

    def __init__(self, kept: dict[bytes, bytes]) -> None:
        self._kept = kept
        self._buffer = bytearray()
        self._method = self._path = b""
        self._create_only = False
        self._body: bytearray | None = None
        self._body_left = -1
        """Bytes of the body still to come, -1 between requests."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer:
            if self._body_left < 0 and not self._begin():
                return
            taken = min(self._body_left, len(self._buffer))
            if self._body is not None and len(self._body) < KEPT_BYTES:
                self._body += self._buffer[:taken]
            del self._buffer[:taken]
            self._body_left -= taken
            if self._body_left:
                return
            self._transport.write(self._end())
            self._body_left = -1

    def _begin(self) -> bool:
        """Read a request's head; False while it is not whole."""
        at = self._buffer.find(END)
        if at < 0:
            return False
        line, *fields = bytes(self._buffer[:at]).split(b"\r\n")
        del self._buffer[: at + len(END)]
        headers = dict(field.lower().split(b": ", 1) for field in fields if b": " in field)
        self._method, self._path, _ = line.split(b" ", 2)
        self._create_only = b"if-none-match" in headers
        self._body = bytearray() if self._create_only else None
        self._body_left = int(headers.get(b"content-length", b"0"))
        if headers.get(b"expect") == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _end(self) -> bytes:
        """The answer to a request that came whole."""
        if self._method == b"DELETE":
            self._kept.pop(self._path, None)
            return GONE
        found = self._kept.get(self._path)
        if self._method in (b"GET", b"HEAD"):
            if found is None:
                return ABSENT if self._method == b"GET" else ABSENT_HEAD
            return _answer(b"200 OK", found, STORED)[: -len(found) or None if self._method == b"HEAD" else None]
        if self._create_only:
            if found is not None:
                return EXISTS
            self._kept[self._path] = bytes(self._body or b"")
        return DONE


async def _serve(port: int) -> None:
    kept: dict[bytes, bytes] = {}
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(kept), "127.0.0.1", port)
    await server.serve_forever()


def main(port: int) -> None:
    """Serve on this port of loopback until the process is ended."""
    uvloop.run(_serve(port))


if __name__ == "__main__":
    main(int(sys.argv[1]))
