"""Leave when the parent is gone: a pipe whose other end only the parent holds reaches its end when the parent dies."""

import os
import signal
import threading

__all__ = ["LEAVE_WITHIN_S", "hold"]

LEAVE_WITHIN_S = 10.0


def hold(lifeline: int | None, leave_within_s: float = LEAVE_WITHIN_S) -> None:
    """From now on, end this process by SIGTERM when file descriptor `lifeline` reaches its end. None: do nothing.

    What has not left `leave_within_s` seconds later is killed: the parent, who would see to that, is no longer there.
    """
    if lifeline is None:
        return
    os.fstat(lifeline)  # A wrong number is an error now, not a thread that silently ends.
    threading.Thread(target=_wait_for_end, args=(lifeline, leave_within_s), name="lifeline", daemon=True).start()


def _wait_for_end(lifeline: int, leave_within_s: float) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(leave_within_s)
    os.kill(os.getpid(), signal.SIGKILL)
