"""Ending a long measurement early: by Ctrl-C, by SIGTERM, or because the time that it was given is over."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Stopped", "stopped_after"]

AGAIN_S: Final = 5.0
"""An exception that comes up in a finalizer is lost, so the clock rings until it is heard."""


class Stopped(KeyboardInterrupt):
    """The measurement is to end; `in_time` says that its clock rang, not that somebody wants it to end."""

    def __init__(self, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time


@contextmanager
def stopped_after(seconds: float | None) -> Iterator[None]:
    """SIGINT, SIGTERM and, with `seconds`, the clock raise Stopped inside; for the main thread."""
    main, rang, done = threading.main_thread().ident, threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(rang.is_set())

    def ring() -> None:
        wait_s = seconds
        while main is not None and not done.wait(wait_s):
            rang.set()
            signal.pthread_kill(main, signal.SIGTERM)  # a real signal also ends a wait
            wait_s = AGAIN_S

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    clock = threading.Thread(target=ring, daemon=True)
    if seconds is not None:
        clock.start()
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        done.set()
        if clock.is_alive():
            clock.join()  # or it rings after the handlers are gone
        for number, handler in before.items():
            signal.signal(number, handler)
