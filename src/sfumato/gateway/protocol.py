"""HTTP/1.1 as uvicorn speaks it, with an end to heads and with refusals in the one shape that all failures have."""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sfumato.gateway.problems import Refusal, answer

__all__ = ["BoundedHttp"]

HEAD_BYTES: Final = 64 * 1024
LINGER_S: Final = 2.0
ADVICE: Final = "A long prompt belongs into the form or the JSON body, not into the query."


class _HeadTooLarge(Exception):
    """Raised within the parser, which then gives the connection up."""


class BoundedHttp(HttpToolsProtocol):
    """One connection.

    The parser keeps a header, or a trailer behind a chunked body, until it is whole. So what is bounded is how much
    may come without the request moving on: no end of its headers, no byte of its body, no end of it.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._moved = self._in_body = self._head_too_large = self._refused = False
        self._unmoved_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._moved = False
        super().data_received(data)
        self._unmoved_bytes = 0 if self._moved else self._unmoved_bytes + len(data)
        if self._unmoved_bytes > HEAD_BYTES and not self._refused:
            self._head_too_large = True
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._moved = True
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._head_too_large = True
            raise _HeadTooLarge
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved, self._in_body = True, False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be read, unless an answer is on its way already, and end the connection."""
        self._refused = True
        under_way = self._in_body or (self.cycle is not None and not self.cycle.response_complete)
        if not (under_way and self.cycle.response_started):
            self.transport.write(_written(self._refusal()))
        if under_way or not self.transport.can_write_eof():
            self.transport.close()
            return
        # Closing on a client that still sends shows it a reset, not the answer: what comes now is thrown away.
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _refusal(self) -> Refusal:
        if self._head_too_large:
            return Refusal("headers-too-large", f"Address and headers may have {HEAD_BYTES} bytes in all. {ADVICE}")
        return Refusal("bad-http", f"This can't be read as HTTP/1.1; percent-encode the address. {ADVICE}")


def _written(refusal: Refusal) -> bytes:
    response = answer(refusal)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", response.body])
