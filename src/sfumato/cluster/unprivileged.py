"""Runs a program that refuses to be root: `python -m sfumato.cluster.unprivileged FOLDER SIGNAL PROGRAM ARGUMENTS…`.

It becomes that program, working in FOLDER, so whoever started it owns the program itself: its process id, its signals,
its end. Before that it waits until no process works in FOLDER any more: what a killed server leaves behind needs a
moment to notice that it is alone, and its successor can't start beside it. Started by root, it runs as `nobody`. Where
the system can, it gets SIGNAL (a number) when its parent dies.
"""

import os
import pwd
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sfumato.process import die_with_parent

__all__ = ["command", "give", "is_root"]

USER: Final = "nobody"
ALONE_WITHIN_S: Final = 10.0
POLL_S: Final = 0.02


def command(folder: Path, program: Sequence[str], orphaned: signal.Signals = signal.SIGKILL) -> tuple[str, ...]:
    """The command line that runs `program` for `folder`; it gets the signal `orphaned` when its parent dies."""
    return (sys.executable, "-m", "sfumato.cluster.unprivileged", str(folder), str(int(orphaned)), *program)


def is_root() -> bool:
    """Whether this process may do everything, so that programs run here must be made to run with less."""
    return os.geteuid() == 0


def give(folder: Path) -> None:
    """Make an empty folder whose owner is whoever `command` runs programs as; without root that is this user.

    As root, the folders above it are opened for passing through, no more: listing them stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_root():
        return
    user = pwd.getpwnam(USER)
    os.chown(folder, user.pw_uid, user.pw_gid)
    open_way(folder)


def open_way(place: Path) -> None:
    """Let every user pass through the folders above `place`; as root only, as only then another user must."""
    for above in place.resolve().parents:
        mode = above.stat().st_mode
        if is_root() and not mode & 0o001:
            above.chmod(mode | 0o001)


def _become(program: Sequence[str], orphaned: signal.Signals) -> None:
    if is_root():
        user = pwd.getpwnam(USER)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    # Said again: with the user, the system forgot it.
    if (die := die_with_parent(orphaned)) is not None:
        die()
    os.execv(program[0], list(program))  # noqa: S606 - the program that the caller named, without a shell


def _at_work_in(folder: Path) -> Iterator[int]:
    """Processes whose working directory is `folder`; none where /proc does not tell."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                yield int(process.name)
        except OSError:
            continue  # It ended meanwhile, or is another user's.


def main(arguments: Sequence[str]) -> None:
    """Wait until `folder` is nobody's, then become the program. Returns only by an OSError."""
    folder, orphaned, program = Path(arguments[0]).resolve(), signal.Signals(int(arguments[1])), arguments[2:]
    deadline, pause = time.monotonic() + ALONE_WITHIN_S, threading.Event()
    while any(_at_work_in(folder)) and time.monotonic() < deadline:
        pause.wait(POLL_S)
    os.chdir(folder)
    _become(program, orphaned)


if __name__ == "__main__":
    main(sys.argv[1:])
