import os
import signal

import pytest

from sfumato.cli import lifeline
from tests.support import poll


def test_when_the_parents_end_closes_the_process_asks_itself_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, sign: told.append((pid, sign)))
    ours, parents = os.pipe()
    # For longer than this process lives: its thread outlasts the test, and the real os.kill comes back.
    lifeline.hold(ours, leave_within_s=1e6)
    os.write(parents, b"still here")
    assert told == []
    os.close(parents)
    poll(lambda: told)
    assert told == [(os.getpid(), signal.SIGTERM)]
    os.close(ours)


def test_who_does_not_leave_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, sign: told.append(sign))
    ours, parents = os.pipe()
    lifeline.hold(ours, leave_within_s=0.05)
    os.close(parents)
    poll(lambda: told == [signal.SIGTERM, signal.SIGKILL])
    os.close(ours)


def test_a_wrong_descriptor_is_an_error_at_once() -> None:
    ours, parents = os.pipe()
    os.close(parents)
    os.close(ours)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lifeline.hold(ours)
