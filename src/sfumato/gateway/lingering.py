"""Answering before a body is whole, in a way that clients get to see.

Many clients look for an answer only when they have sent everything; closing on them while they send shows them nothing
but a reset. So the answer goes out at once, what still comes is thrown away for a while, and then the connection ends
(nginx calls it a lingering close).
"""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lingering"]

LINGER_BYTES: Final = 32 * 1024 * 1024
LINGER_S: Final = 5.0


class Lingering:
    """ASGI middleware: at most `max_bytes` and `max_s` seconds of a body are thrown away behind its answer."""

    def __init__(self, app: ASGIApp, max_bytes: int = LINGER_BYTES, max_s: float = LINGER_S) -> None:
        self._app, self._max_bytes, self._max_s = app, max_bytes, max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _announces_body(scope):
            await self._app(scope, receive, send)
            return
        rest = _Rest(receive)

        async def answer(message: Message) -> None:
            if not rest.more:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
            elif message.get("more_body"):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await rest.drop(self._max_bytes, self._max_s)
                await send({"type": "http.response.body", "body": b""})

        await self._app(scope, rest.receive, answer)


class _Rest:
    """What is still to come of a body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def receive(self) -> Message:
        message = await self._receive()
        self.more = self.more and message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def drop(self, max_bytes: int, max_s: float) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(max_s):
                while self.more and dropped < max_bytes:
                    dropped += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def _announces_body(scope: Scope) -> bool:
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )
