"""A thread that alone owns a consumer: it polls at least once a second for ever, and answers the event loop between."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from confluent_kafka import KafkaException

from sfumato.broker.kafka_client import trouble
from sfumato.core.errors import SfumatoError, TransientError

__all__ = ["PATIENCE_S", "Keeper", "Kept", "Not"]

log = logging.getLogger(__name__)

PATIENCE_S: Final = 2.0
"""How much longer than it was willing to wait a caller waits for Kafka itself."""
SLICE_S: Final = 0.03
"""Longest poll while somebody waits: a poll can't be woken, and the next question may come any time."""
TICK_S: Final = 0.25
STUCK_S: Final = 3.0
CLOSE_S: Final = 10.0


class Not(Enum):
    """What a look gives that has no answer yet."""

    YET = auto()


class Kept(Protocol):
    """What a keeper keeps; touched by its thread alone."""

    def poll(self, pause_s: float) -> None:
        """Serve the consumer, if there is one; wait `pause_s` at most."""
        ...

    def close(self) -> None: ...


K = TypeVar("K", bound=Kept)
T = TypeVar("T")
Look = Callable[[K, float], T | Literal[Not.YET]]


@dataclass(slots=True)
class _Asked:
    look: Callable[[Any, float], Any]
    give_up_at: float
    answer: "Future[Any]"


class Keeper(Generic[K]):
    """Runs looks on what it keeps, each again and again between two polls until it has an answer."""

    def __init__(self, name: str, kept: K) -> None:
        self._name, self._kept = name, kept
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._pending: list[_Asked] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    async def ask(self, look: "Look[K, T]", wait_s: float = 0.0) -> T:
        """What `look(kept, now)` gives when it is no longer Not.YET; `now` is of the monotonic clock.

        A look ends by itself when `wait_s` is over; when Kafka keeps it from that for PATIENCE_S more, it is given up.

        Raises:
            TransientError: given up, or a client's error.
            SfumatoError: what the look raised.
        """
        if self._closed:
            raise TransientError("this end was closed; open another one.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        within_s = wait_s + PATIENCE_S
        asked = _Asked(look, time.monotonic() + within_s, Future())
        self._queue.put(asked)
        try:
            async with asyncio.timeout(within_s + STUCK_S):
                answer: T = await asyncio.wrap_future(asked.answer)
                return answer
        except TimeoutError as error:
            raise TransientError(f"{self._name} is stuck in a call to Kafka; try again.") from error

    async def close(self) -> None:
        """Close what is kept, and end the thread."""
        self._closed = True
        if self._thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    # On the thread

    def _run(self) -> None:
        while self._accept():
            self._answer()
            try:
                self._kept.poll(SLICE_S if self._pending else 0)
            except Exception:
                log.exception("%s goes on after an error", self._name)
                self._wait()
        for asked in self._pending:
            self._settle(asked, error=TransientError("this end was closed; open another one."))
        self._close()

    def _accept(self) -> bool:
        """Take in what was asked; waits for it when nothing is pending. False: it is time to end."""
        block = not self._pending
        while True:
            try:
                asked = self._queue.get(block, TICK_S)
            except queue.Empty:
                return True
            if asked is None:
                return False
            self._pending.append(asked)
            block = False

    def _answer(self) -> None:
        now = time.monotonic()
        for asked in tuple(self._pending):
            if asked.answer.cancelled():
                self._pending.remove(asked)
                continue
            try:
                answer = asked.look(self._kept, now)
                if answer is Not.YET and now >= asked.give_up_at:
                    raise TransientError(f"{self._name}: Kafka did not answer in time; try again.")
            except SfumatoError as error:
                self._settle(asked, error=error)
            except KafkaException as error:
                self._settle(asked, error=trouble("answer", error))
            except Exception as error:
                log.exception("%s failed", self._name)
                self._settle(asked, error=TransientError(f"{self._name} failed ({error!r}); try again."))
            else:
                if answer is not Not.YET:
                    self._settle(asked, answer)

    def _settle(self, asked: _Asked, answer: Any = None, error: SfumatoError | None = None) -> None:
        self._pending = [other for other in self._pending if other is not asked]
        if not asked.answer.set_running_or_notify_cancel():
            return
        if error is None:
            asked.answer.set_result(answer)
        else:
            asked.answer.set_exception(error)

    def _close(self) -> None:
        try:
            self._kept.close()
        except Exception:
            log.exception("%s could not be closed", self._name)

    def _wait(self) -> None:
        threading.Event().wait(SLICE_S)
