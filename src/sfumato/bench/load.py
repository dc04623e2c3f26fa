"""HTTP load over many connections that stay open, as light as it can be, so that it does not measure itself."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

__all__ = ["Load", "form", "post", "send", "trickle"]

END: Final = b"\r\n\r\n"
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
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


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
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while (due := await turns.next()) is not None:
                writer.write(request)
                status = await _answer(reader)
                took_s.append(time.perf_counter() - due)
                statuses[status] = statuses.get(status, 0) + 1
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one())
    return Load(tuple(took_s), statuses, time.perf_counter() - begin)


async def trickle(port: int, request: bytes, count: int, seconds: float) -> dict[int, int]:
    """Send `request` over `count` connections at once, each evenly spread over so many seconds; how many had which
    status. One that is answered early stops sending."""
    statuses: dict[int, int] = {}
    parts = max(1, int(seconds * PARTS_PER_S))
    size = -(-len(request) // parts)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(_answer(reader))
        try:
            for at in range(0, len(request), size):
                if answer.done():
                    break
                writer.write(request[at : at + size])
                await asyncio.sleep(1 / PARTS_PER_S)
            status = await answer
            statuses[status] = statuses.get(status, 0) + 1
        finally:
            writer.close()

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


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(END)
    line, *fields = head.split(b"\r\n")
    length = next((int(field[15:]) for field in fields if field[:15].lower() == b"content-length:"), 0)
    await reader.readexactly(length)
    return int(line.split(b" ", 2)[1])
