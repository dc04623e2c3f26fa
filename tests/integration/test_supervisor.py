"""The parent of all roles: what it starts stays started."""

import asyncio
import subprocess
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from sfumato.supervisor.keeping import Role, Supervisor
from tests.service import alive
from tests.support import eventually, poll

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


LEADER = """
import pathlib, subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
pathlib.Path(sys.argv[1]).write_text(str(left.pid))
left.wait()
"""


def test_what_a_killed_server_leaves_behind_ends_before_its_successor_starts(tmp_path: Path) -> None:
    told = tmp_path / "left"

    async def left_behind() -> tuple[int, int]:
        supervisor = Supervisor({}, lifeline=0, metrics_dir=tmp_path)
        command = (sys.executable, "-c", LEADER, str(told))
        supervisor.start(Role("server", command, stops=0, grace_s=1.0, ours=False))
        first = await eventually(lambda: asyncio.to_thread(_written, told))
        told.unlink()
        leader = supervisor.children["server"].process
        assert leader is not None
        leader.kill()
        second: int = await eventually(lambda: asyncio.to_thread(_written, told))
        await supervisor.stop_all()
        return first, second

    first, second = asyncio.run(left_behind())

    assert first != second
    poll(lambda: not alive(first) and not alive(second))


def _written(file: Path) -> int:
    text = file.read_text() if file.exists() else ""
    return int(text) if text else 0


PARENT = """
import asyncio, pathlib, sys
from sfumato.supervisor.keeping import Role, Supervisor

async def main():
    supervisor = Supervisor({}, 0, pathlib.Path(sys.argv[1]))
    command = (sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()")
    log = pathlib.Path(sys.argv[1], "server.log")
    supervisor.start(Role("server", command, stops=0, grace_s=1.0, ours=False, log=log))
    while not (child := supervisor.children["server"].process) or not log.exists() or not log.read_text():
        await asyncio.sleep(0.02)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a program with its parent")
def test_a_server_that_knows_no_lifeline_ends_with_its_parent_all_the_same(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert alive(server)
        parent.kill()

    poll(lambda: not alive(server))
