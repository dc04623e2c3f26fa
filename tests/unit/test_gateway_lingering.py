"""An early answer goes out before the rest of the body is thrown away, and that has an end."""

import asyncio
from collections.abc import Sequence

from starlette.types import Message, Receive, Scope, Send

from sfumato.gateway.lingering import Lingering

STALL = b"stall"
"""A chunk that never comes."""


class Connection:
    """What went in and out, in order."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = list(chunks)
        self.log: list[str] = []
        self.headers: list[tuple[bytes, bytes]] = []

    async def receive(self) -> Message:
        chunk = self.chunks.pop(0)
        if chunk is STALL:
            await asyncio.Event().wait()
        self.log.append("in")
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks)}

    async def send(self, message: Message) -> None:
        self.headers += message.get("headers", [])
        self.log.append(f"out {message.get('body', b'').decode()}{'…' if message.get('more_body') else ''}")


def _answered(connection: Connection, read: int = 0, size: str = "9", max_bytes: int = 100) -> Sequence[str]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(read):
            await receive()
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    scope = {"type": "http", "headers": [(b"content-length", size.encode())]}
    asyncio.run(Lingering(app, max_bytes, max_s=0.01)(scope, connection.receive, connection.send))
    return connection.log


def test_the_answer_goes_out_before_the_rest_comes_in() -> None:
    connection = Connection([b"abc"] * 3)
    assert _answered(connection) == ["out ", "out no…", "in", "in", "in", "out "]
    assert (b"connection", b"close") in connection.headers


def test_a_body_that_was_read_is_answered_plainly() -> None:
    connection = Connection([b"abc"] * 3)
    assert _answered(connection, read=3) == ["in", "in", "in", "out ", "out no"]
    assert connection.headers == []


def test_a_request_without_body_is_answered_plainly() -> None:
    assert _answered(Connection([]), size="0") == ["out ", "out no"]


def test_no_more_than_the_limit_is_thrown_away() -> None:
    assert _answered(Connection([b"abc"] * 9), max_bytes=6) == ["out ", "out no…", "in", "in", "out "]


def test_a_body_that_stands_still_is_left() -> None:
    connection = Connection([b"abc", STALL])
    assert _answered(connection) == ["out ", "out no…", "in", "out "]
