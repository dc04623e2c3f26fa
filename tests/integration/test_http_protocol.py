"""What is no request, or has no end to its head, is answered as a problem and not kept."""

import asyncio
import json
from contextlib import suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from sfumato.gateway.protocol import BoundedHttp
from tests.support import eventually

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
KIB = 1024


async def _talk(*sent: bytes) -> bytes:
    """Everything that is answered until the gateway ends the connection."""
    config = uvicorn.Config(PlainTextResponse("fine"), log_config=None, lifespan="off", ws="none")
    loop, state = asyncio.get_running_loop(), ServerState()
    async with await loop.create_server(lambda: BoundedHttp(config, state, {}), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            for part in sent:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

            async def gone() -> bool:
                return not state.connections

            await eventually(gone)


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ([GET, *[b"X: " + b"y" * 16 * KIB] * 200], 431, "headers-too-large"),
        ([GET + b"X: " + b"y" * 70 * KIB + b"\r\n\r\n"], 431, "headers-too-large"),
        ([b"GET /?prompt=" + b"y" * 70 * KIB + b" HTTP/1.1\r\nHost: x\r\n\r\n"], 431, "headers-too-large"),
        (["GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode()], 400, "bad-http"),
        ([CHUNKED + b"Content-Length: 3\r\n\r\nabc"], 400, "bad-http"),
        ([b"hello\r\n\r\n"], 400, "bad-http"),
    ],
    ids=["endless header", "long header", "long query", "raw URL", "two lengths", "no HTTP"],
)
def test_what_the_parser_cannot_take_is_answered_as_a_problem(sent: list[bytes], status: int, slug: str) -> None:
    head, _, body = asyncio.run(_talk(*sent)).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["type"] == f"urn:sfumato:problem:{slug}"
    assert "JSON body" in json.loads(body)["detail"]


def test_requests_after_one_another_are_counted_one_by_one() -> None:
    each = GET + b"X: " + b"y" * 40 * KIB + b"\r\n\r\n"
    last = each.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert asyncio.run(_talk(each, each, last)).count(b" 200 OK") == 3


def test_a_trailer_without_end_ends_the_connection() -> None:
    # A client that goes on sending may see the reset before the answer; a connection that stays open is a TimeoutError.
    with suppress(ConnectionError):
        said = asyncio.run(_talk(CHUNKED + b"\r\n0\r\nX: ", *[b"y" * 16 * KIB] * 200))
        assert said.count(b"HTTP/1.1 ") == 1
