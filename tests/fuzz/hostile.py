"""Requests that no honest client sends, written byte by byte; and how any answer to them is looked at."""

import re
import socket
from dataclasses import dataclass
from urllib.parse import quote

from hypothesis import strategies as st

__all__ = ["Raw", "exchange", "raw_requests"]

HANG_S = 20.0
"""Who has sent all it has to say is answered or disconnected long before."""
TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", min_size=1, max_size=20)
NAMES = st.sampled_from(
    (
        *("Authorization", "X-API-Key", "Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "Range"),
        *("Prefer", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "X-Forwarded-For", "X-Forwarded-Proto"),
        *("Host", "Cookie", "Accept", "Accept-Encoding", "Connection", "Upgrade", "traceparent", "Content-Encoding"),
    )
)
VALUES = st.one_of(
    st.sampled_from(
        (
            *("", " ", "0", "-1", "1e9", "18446744073709551616", "*/*", "close", "chunked", "gzip", "100-continue"),
            *("wait=1e999", "wait=-1", "wait=0.01", "respond-async", "bytes=0-", "multipart/form-data", "text/plain"),
            *("multipart/form-data; boundary=x", 'multipart/form-data; boundary="', "image/png", "application/json"),
            *("Bearer ", "Bearer sfu_", "Basic Og==", "websocket", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
        )
    ),
    st.text(max_size=60),
    st.text("a", min_size=1_000, max_size=9_000),
)
METHODS = st.sampled_from(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"))
PATHS = st.sampled_from(
    (
        *("/api/models", "/api/status", "/api/scale/quick", "/readyz", "/", "/openapi.json", "//", "/api/jobs/%00"),
        *("/api/jobs/%2e%2e%2f", "/api/uploads/..", "/api/jobs/x/result", "/api/uploads/x", "*", "http://x/y"),
    )
)
TARGETS = st.one_of(
    st.sampled_from(
        (
            *(("POST", "/api/diffusion"), ("POST", "/api/jobs"), ("POST", "/api/uploads"), ("GET", "/api/jobs")),
            *(("POST", "/api/webhooks/endpoints"), ("GET", "/api/webhooks/deliveries"), ("PUT", "/api/uploads/x")),
        )
    ),
    st.just(("POST", "/api/diffusion")),
    st.tuples(METHODS, PATHS),
)
QUERIES = st.one_of(
    st.just(""),
    st.text(max_size=40),
    st.sampled_from(("model_name=quick&prompt=x", "model_name=quick", "a=1&a=1", "%ff=%fe", "token=x", "cursor=eA")),
)
PARTS = st.sampled_from(
    (
        *(b"--x\r\n", b"--x--\r\n", b"--x--", b"\r\n", b"\n", b"--", b"x", b"\x00", b"\xff\xfe", b"\r\n\r\n"),
        *(b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n', b"Content-Disposition: form-data\r\n"),
        *(
            b'Content-Disposition: form-data; name="prompt"\r\n',
            b'Content-Disposition: form-data; name="model_name"\r\n',
        ),
        *(b"Content-Type: image/png\r\n", b"Content-Transfer-Encoding: base64\r\n", b"quick", b"\x89PNG\r\n\x1a\n"),
        *(b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"{}", b"[" * 2_000, b'{"a":' * 2_000),
    )
)
BODIES = st.one_of(
    st.binary(max_size=300),
    st.lists(PARTS, max_size=12).map(b"".join),
    st.just(b""),
)


@dataclass(frozen=True)
class Raw:
    """One request as bytes."""

    data: bytes


def _line(name: str, value: str) -> bytes:
    # No line ends within a value: they would begin another header, or another request, which is somebody else's test.
    return re.sub(rb"[\r\n]", b" ", f"{name}: {value}".encode("utf-8", "replace")) + b"\r\n"


@st.composite
def raw_requests(draw: st.DrawFn, host: str, more: tuple[str, ...] = ()) -> Raw:
    """Any method, path, query, headers and body; mostly such as reach a route. `more`: header lines of every other."""
    method, path = draw(TARGETS)
    query, well_formed = draw(QUERIES), draw(st.integers(0, 3)) > 0
    query = quote(query, safe="=&%") if well_formed else re.sub(r"[\s#]", "", query)
    head = f"{method} {path}{'?' if query else ''}{query} HTTP/1.1\r\n".encode("utf-8", "replace")
    body = draw(BODIES)
    names = draw(st.lists(st.one_of(NAMES, TOKENS), max_size=4))
    values = [draw(VALUES) for _ in names]
    if well_formed:
        framing = ("content-length", "transfer-encoding", "host")
        names = [name for name in names if name.lower() not in framing]
        values = ["".join(each for each in value if each.isprintable()) for value in values]
    lines = [_line(name, value) for name, value in zip(names, values, strict=False)]
    if not any(name.lower() == "host" for name in names):
        lines.append(_line("Host", host))
    if not any(name.lower() in ("content-length", "transfer-encoding") for name in names):
        lines.append(_line("Content-Length", str(len(body))))
    if draw(st.booleans()):
        lines.append(_line("Content-Type", "multipart/form-data; boundary=x"))
    if draw(st.booleans()):
        lines += [f"{line}\r\n".encode() for line in more]
    return Raw(head + b"".join(lines) + b"\r\n" + body)


def exchange(address: tuple[str, int], request: Raw) -> int:
    """Send it, say that this was all, and read until the other end closes; the first answer's status, 0 for none.

    Raises:
        TimeoutError: nothing came for HANG_S.
    """
    with socket.create_connection(address, HANG_S) as connection:
        answer = b""
        try:
            connection.sendall(request.data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65_536):
                answer += chunk
        except (ConnectionError, BrokenPipeError):
            pass
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found[1]) if found else 0
