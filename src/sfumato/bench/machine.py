"""What a benchmark asks of the system: a core for what is measured, enough open files, a process's CPU and memory."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sfumato.core.errors import SfumatoError

__all__ = [
    "BenchFailed",
    "ExtraMissing",
    "cores",
    "cpu_s",
    "many_files",
    "needs",
    "on_cores",
    "peak_mib",
    "resident_mib",
]

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class BenchFailed(SfumatoError):
    """What was to be measured did not do what it should; the message says what it did."""

    slug = "bench-failed"
    title = "What was to be measured failed"


class ExtraMissing(SfumatoError):
    """A benchmark needs packages that a plain install has not; the message says how to get them."""

    slug = "extra-missing"
    title = "This benchmark needs packages that are not installed"


def needs(extra: str, *packages: str) -> None:
    """Raises ExtraMissing when one of these packages, by the names they are imported by, is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ExtraMissing(f"this benchmark needs {', '.join(missing)}: pip install 'sfumato[{extra}]'.")


def cores() -> tuple[Sequence[int], Sequence[int]]:
    """The core for what is measured, and those for everything else; both empty where there is only one to use."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[:1], usable[1:]) if len(usable) > 1 else ((), ())


@contextmanager
def on_cores(chosen: Sequence[int]) -> Iterator[None]:
    """This thread, and what it starts inside, run on these cores alone; on any that it had when there are none."""
    if not chosen:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def many_files() -> None:
    """Let this process and those it starts have as many files open as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used, in and out of the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mib(pid: int) -> float:
    """The largest resident set that a process had so far."""
    return _status_mib(pid, "VmHWM")


def resident_mib(pid: int) -> float:
    """The resident set that a process has now."""
    return _status_mib(pid, "VmRSS")


def _status_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
