"""The folder in which the processes of one host share their metrics, and what the ended ones leave there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["Shared", "forget_process"]


class Shared(MultiProcessCollector):
    """What all processes that share `folder` counted, those that have ended too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Any:
        """Every metric; never while the counts of an ended process are on their way to the others."""
        with _locked(self._folder, fcntl.LOCK_SH):
            return super().collect()  # type: ignore[no-untyped-call]


def forget_process(pid: int, folder: Path) -> None:
    """Drop the gauges of a process that ended. Its counts stay, as they happened, in one file for all that ended.

    Workers come and go; a file for each that ever ran would make every look at the metrics slower than the one before.
    """
    if not folder.is_dir():
        return
    with _locked(folder, fcntl.LOCK_EX):
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            if file.exists():
                _add(file, folder / f"{kind}_ended.db")
                file.unlink()


def _add(file: Path, to: Path) -> None:
    total = MmapedDict(str(to))  # type: ignore[no-untyped-call]
    for key, value, at, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
        before, _ = total.read_value(key)  # type: ignore[no-untyped-call]
        total.write_value(key, before + value, at)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, how)
        yield
