"""The parent of all roles: what it starts stays started."""

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from sfumato.supervisor import Role, Supervisor
from tests.support import eventually

SLEEPER = Role("sleeper", (), stops=0, grace_s=2.0)


async def _sleeping() -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()")


def test_a_child_that_could_not_be_started_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    async def spawn(self: Supervisor, role: Role) -> Process:
        tries.append(role)
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        return await _sleeping()

    async def started() -> Process | None:
        supervisor = Supervisor({}, lifeline=0, metrics_dir=tmp_path)
        supervisor.start(SLEEPER)
        process: Process | None = await eventually(lambda: _process(supervisor))
        await supervisor.stop_all()
        return process

    monkeypatch.setattr(Supervisor, "_spawn", spawn)
    process = asyncio.run(started())

    assert len(tries) == 3
    assert process is not None
    assert process.returncode is not None, "stopped with the others"


async def _process(supervisor: Supervisor) -> Process | None:
    return supervisor.children["sleeper"].process
