"""Leave when the parent is gone: a pipe whose other end only the parent holds reaches its end when the parent dies."""

import os
import signal
import threading

__all__ = ["hold"]


def hold(lifeline: int | None) -> None:
    """From now on, end this process by SIGTERM when file descriptor `lifeline` reaches its end. None: do nothing."""
    if lifeline is None:
        return
    os.fstat(lifeline)  # A wrong number is an error now, not a thread that silently ends.
    threading.Thread(target=_wait_for_end, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait_for_end(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
