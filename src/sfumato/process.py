"""What every process of ours does alike: the event loop it runs on, and how it is told to stop."""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from sfumato.config import BadSettings, Settings, unknown_variables
from sfumato.observability import serve_metrics, setup_logging, setup_tracing

__all__ = [
    "CAN_NOT_SERVE_STATUS",
    "NOT_NEEDED",
    "age_s",
    "any_set",
    "begin_logging",
    "begin_role",
    "die_with_parent",
    "run",
    "settle_memory",
    "show_metrics",
    "stop_on_signals",
]

log = logging.getLogger(__name__)

GARBAGE_AFTER: Final = (10_000, 50, 50)

CAN_NOT_SERVE_STATUS = 78
"""Exit status of a process that can't work as it is set up (EX_CONFIG); a fresh one would not do better soon."""
NOT_NEEDED: Final = signal.SIGUSR1
"""Tells a worker that it may leave as soon as what it runs is done."""
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""

IMPORTED_AT: Final = time.monotonic()

T = TypeVar("T")


def begin_role(role: str, settings: Settings, *, http: bool = False) -> None:
    """What every role does first: its log lines, its traces, and its metrics unless it shows them by its own `http`.

    Raises:
        BadSettings: the port for the metrics can't be had.
    """
    begin_logging(role, settings)
    setup_tracing(role, settings.otlp_endpoint)
    if not http:
        show_metrics(settings)


def begin_logging(role: str, settings: Settings) -> None:
    """The log lines of a process, and a warning of each variable that looks like a setting and is none."""
    setup_logging(role, settings.log_level, settings.log_format)
    for told in unknown_variables().values():
        log.warning("%s", told)


def show_metrics(settings: Settings) -> None:
    """Show `/metrics` on the port that the settings name for it, if any.

    Raises:
        BadSettings: the port can't be had.
    """
    if not settings.metrics_port:
        return
    try:
        serve_metrics(settings.host, settings.metrics_port, settings.metrics_dir)
    except OSError as error:
        raise BadSettings(
            f"SFUMATO_METRICS_PORT: can't listen on {settings.host}:{settings.metrics_port} ({error.strerror})."
        ) from error


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a role to its end, as asyncio.run does, on uvloop's faster loop where it is installed (Windows has none)."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def settle_memory() -> None:
    """Leave what is there now, which stays for good, out of every search for garbage, and search less often.

    Called once a process is ready. Python looks after 700 objects by default, fewer than fifty requests leave behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_AFTER)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on, instead of ending the process at once."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    return stop


async def any_set(within_s: float, *events: asyncio.Event) -> None:
    """Wait until one of these events is set, at most `within_s`."""
    waiting = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def die_with_parent(sign: signal.Signals = signal.SIGKILL) -> Callable[[], object] | None:
    """What makes a program that knows no lifeline get `sign` when its parent dies, called in it before it begins; None
    where the system has no such thing. A change of user undoes it."""
    if not sys.platform.startswith("linux"):
        return None
    # Looked up here: between fork and exec nothing may be imported.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(DIE_WITH_PARENT, int(sign))


def age_s() -> float:
    """Seconds since this process was started; where the system doesn't tell, since this module was imported."""
    try:
        # Field 22 of proc_pid_stat(5), counted behind the name, which may hold spaces: clock ticks from boot to start.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - IMPORTED_AT


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
