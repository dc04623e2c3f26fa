"""Wake-ups between the processes of one host: a datagram tells a waiting end to look now instead of at its next poll.

A waiting end binds a UDP socket on 127.0.0.1 and shows its port as an empty file `<folder>/<topic>/<port>`; whoever
changed something sends one datagram to every port of the topic. Datagrams carry nothing and may be lost: whoever waits
polls every POLL_S all the same. On this path a wake-up takes well below a millisecond; a poll costs half of POLL_S.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

__all__ = ["POLL_S", "Bell", "Ringer", "look_until"]

T = TypeVar("T")
log = logging.getLogger(__name__)

POLL_S: Final = 0.2
_LOOPBACK: Final = "127.0.0.1"


class Bell:
    """One end's ear for one topic. It belongs to the event loop in which it is first armed."""

    def __init__(self, folder: Path, topic: str) -> None:
        self._place = folder / topic
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()

    def arm(self) -> asyncio.Event:
        """The event that the next ring sets. Arm, then look, then wait: a ring in between is not missed."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.close()
            self._rung = asyncio.Event()
            self._loop = loop
            self._listen(loop)
        return self._rung

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            ear.bind((_LOOPBACK, 0))
            ear.setblocking(False)
            self._place.mkdir(parents=True, exist_ok=True)
            (self._place / str(ear.getsockname()[1])).touch()
        except OSError as error:
            ear.close()
            log.warning("no wake-ups for %s (%s); it is polled every %s s.", self._place.name, error, POLL_S)
            return
        self._socket = ear
        loop.add_reader(ear.fileno(), self._hear, ear)

    def _hear(self, ear: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ear.recv(16)
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    def close(self) -> None:
        """Stop listening; a later `arm` listens again."""
        if self._socket is None:
            return
        (self._place / str(self._socket.getsockname()[1])).unlink(missing_ok=True)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = self._loop = None


class Ringer:
    """Wakes every end that listens for a topic. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def ring(self, topic: str) -> None:
        """Send each listener a datagram; listeners that died are struck off."""
        place = self._folder / topic
        try:
            ports = os.listdir(place)
        except OSError:
            return
        # Other programs leave files of their own in any folder; only port numbers are ours.
        for port in filter(str.isdecimal, ports):
            if not self._reaches(int(port)):
                with contextlib.suppress(OSError):
                    (place / port).unlink()

    def _reaches(self, port: int) -> bool:
        # Only a connected socket hears of ECONNREFUSED, and on loopback it does before `send` returns.
        try:
            self._mouth.connect((_LOOPBACK, port))
            self._mouth.send(b"")
            return self._mouth.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        except OSError:
            return False

    def close(self) -> None:
        self._mouth.close()


async def look_until(bell: Bell, look: Callable[[], Awaitable[T]], wait_s: float) -> T:
    """Call `look` now and after every ring or POLL_S, until it gives something truthy or `wait_s` is over."""
    if wait_s <= 0:
        return await look()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        rung = bell.arm()
        found = await look()
        left_s = deadline - loop.time()
        if found or left_s <= 0:
            return found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, POLL_S)):
                await rung.wait()
