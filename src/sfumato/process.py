"""What every process of ours does alike: the event loop it runs on, and how it is told to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["run", "stop_on_signals"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a role to its end, as asyncio.run does, on uvloop's faster loop where it is installed (Windows has none)."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on, instead of ending the process at once."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    return stop


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
