"""Asking the system for the addresses of a name, without waiting in line behind names that never answer."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

__all__ = ["Resolve", "system_resolver"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → addresses. Raises OSError when there are none."""

MOST_LOOKUPS: Final = 512
"""A look-up can't be broken off: one that nobody waits for any more still holds its place until the system gives up."""

_places: Final = threading.BoundedSemaphore(MOST_LOOKUPS)


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """What getaddrinfo says. Each has a thread of its own: those of a pool would all hang on one bad name server."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()
    if not _places.acquire(blocking=False):
        raise OSError("too many names are being looked up")

    def tell(answer: Sequence[str] | OSError) -> None:
        if found.done():
            return
        if isinstance(answer, OSError):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    def ask() -> None:
        try:
            answer: Sequence[str] | OSError
            try:
                entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                answer = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
            except (OSError, UnicodeError) as error:
                answer = error if isinstance(error, OSError) else OSError(str(error))
        finally:
            _places.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, answer)

    try:
        threading.Thread(target=ask, daemon=True, name="look-up").start()
    except RuntimeError as error:  # this machine gives no more threads
        _places.release()
        raise OSError("too many names are being looked up") from error
    return await found
