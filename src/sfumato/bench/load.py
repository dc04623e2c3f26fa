"""HTTP load over many connections that stay open, as light as it can be, so that it does not measure itself."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from sfumato.bench.figures import quantile

__all__ = ["Load", "form", "post", "send", "trickle"]

END: Final = b"\r\n\r\n"
LENGTH: Final = b"\r\ncontent-length:"
PARTS_PER_S: Final = 4
BORDER: Final = "sfumato-bench-border"


@dataclass(frozen=True, slots=True)
class Load:
    """What came back: seconds of each answered request in order of their ends, and how many had which status."""

    took_s: tuple[float, ...]
    statuses: dict[int, int]
    wall_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.took_s) / self.wall_s

    def quantile_s(self, share: float) -> float:
        """The latency that this share of the requests did not exceed."""
        return quantile(sorted(self.took_s), share)


def form(path: str, picture: bytes, media_type: str) -> bytes:
    """A POST of a picture as multipart field `image`, ready to be sent."""
    about = f'Content-Disposition: form-data; name="image"; filename="p"\r\nContent-Type: {media_type}'
    body = f"--{BORDER}\r\n{about}\r\n\r\n".encode() + picture + f"\r\n--{BORDER}--\r\n".encode()
    return post(path, f"multipart/form-data; boundary={BORDER}", body)


def post(path: str, media_type: str, body: bytes) -> bytes:
    """A POST of this body, ready to be sent."""
    fields = f"Host: 127.0.0.1\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode() + body


async def send(port: int, request: bytes, connections: int, seconds: float, per_s: float | None = None) -> Load:
    """Send `request` for so long, over so many connections at once: one after the other on each, or with `per_s` at
    that rate in all, a request that finds no free connection waiting for one (its wait counts).

    Raises:
        OSError: the service closed a connection.
    """
    took_s: list[float] = []
    statuses: dict[int, int] = {}
    begin = time.perf_counter()
    turns = _Turns(begin, begin + seconds, per_s)

    async def one() -> None:
        client = await _connected(port)
        try:
            while (due := await turns.next()) is not None:
                client.write(request)
                status = await client.answer()
                took_s.append(time.perf_counter() - due)
                statuses[status] = statuses.get(status, 0) + 1
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one())
    return Load(tuple(took_s), statuses, time.perf_counter() - begin)


async def trickle(port: int, request: bytes, count: int, seconds: float) -> dict[int, int]:
    """Send `request` over `count` connections at once, each evenly spread over so many seconds; how many had which
    status. One that is answered early stops sending.

    Raises:
        OSError: the service closed a connection without an answer.
    """
    statuses: dict[int, int] = {}
    parts = max(1, int(seconds * PARTS_PER_S))
    size = -(-len(request) // parts)

    async def one() -> None:
        client = await _connected(port)
        answer = client.answer()
        try:
            for at in range(0, len(request), size):
                if answer.done():
                    break
                client.write(request[at : at + size])
                await asyncio.sleep(1 / PARTS_PER_S)
            status = await answer
            statuses[status] = statuses.get(status, 0) + 1
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return statuses


class _Turns:
    """When each request is due: at once, or evenly at a rate."""

    def __init__(self, begin: float, end: float, per_s: float | None) -> None:
        self._next, self._end = begin, end
        self._every_s = None if per_s is None else 1 / per_s

    async def next(self) -> float | None:
        now = time.perf_counter()
        if now >= self._end:
            return None
        if self._every_s is None:
            return now
        due, self._next = self._next, self._next + self._every_s
        if due > now:
            await asyncio.sleep(due - now)
        return due


class _Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def answer(self) -> "asyncio.Future[int]":
        """The status of the next answer, once it has come whole."""
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(END)
        if head < 0:
            return
        status, end = _read_head(bytes(self._buffer[:head]))
        if len(self._buffer) < head + len(END) + end:
            return
        del self._buffer[: head + len(END) + end]
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError("the service closed a connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _connected(port: int) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    return client


def _read_head(head: bytes) -> tuple[int, int]:
    """The status, and the length of the body, of an answer's head."""
    _, _, behind = head.lower().partition(LENGTH)
    return int(head[9:12]), int(behind.partition(b"\r\n")[0] or 0)
