"""One parent, whose children are started again with backoff when they die.

Every role of ours holds the read end of a pipe (its lifeline); when the parent dies, however that happens, the pipe
closes and the role leaves by itself. Other programs know no lifeline: where the system can (Linux), it kills them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.models.registry import Model
from sfumato.observability import count, forget_process
from sfumato.process import CAN_NOT_SERVE_STATUS, die_with_parent

__all__ = ["STOP_WITHIN_S", "Role", "Supervisor", "backoff_s", "lifeline", "of_ours"]

log = logging.getLogger(__name__)

STOP_WITHIN_S = 9.0
UNWELL_S = 30.0
"""Longest pause before such a one is tried again."""
SETTLED_S = 10.0
"""A child that lived this long has started well; its next restart is quick again."""


@dataclass(frozen=True, slots=True)
class Role:
    """What one child runs, and how long it may take to leave. Roles stop in the order of `stops`.

    `fds` are inherited by this child alone, and `environment` goes on top of what all get; `model` is what a worker
    serves. What is not `ours` gets no lifeline, and writes into `log`.
    """

    name: str
    command: tuple[str, ...]
    stops: int
    grace_s: float
    fds: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    model: Model | None = None
    ours: bool = True
    log: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM


def of_ours(*arguments: str) -> tuple[str, ...]:
    """The command line of one of our own roles."""
    return (sys.executable, "-m", "sfumato", *arguments)


@contextmanager
def lifeline() -> Iterator[int]:
    """The end of a pipe for the children to hold; the other end closes with this process."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


@dataclass(slots=True)
class Child:
    """A role's present process and its task."""

    role: Role
    task: "asyncio.Task[None] | None" = None
    process: asyncio.subprocess.Process | None = None
    stopping: bool = field(default=False)
    ends: int = 0
    how: str = ""
    """How often it has ended by itself, and how it did last."""


def backoff_s(deaths: int, longest_s: float = 10.0) -> float:
    """Seconds to wait before the restart after the `deaths`-th early death in a row: 0.1, 0.2, 0.4 … longest."""
    return float(min(longest_s, 0.1 * 2 ** min(30, max(0, deaths - 1))))


class Supervisor:
    """Keeps one process per role alive until told to stop."""

    def __init__(self, environment: Mapping[str, str], lifeline: int, metrics_dir: Path | None = None) -> None:
        self._environment, self._lifeline, self._metrics_dir = dict(environment), lifeline, metrics_dir
        self.children: dict[str, Child] = {}
        self._leaving: list[Child] = []

    def start(self, role: Role) -> None:
        """Run `role` from now on; without effect when it runs already."""
        if role.name not in self.children:
            child = self.children[role.name] = Child(role)
            child.task = asyncio.create_task(self._keep(child))

    async def stop(self, names: Sequence[str], within_s: float) -> None:
        """End these children: ask, wait for their grace within `within_s`, then kill."""
        chosen = [self.children.pop(name) for name in names]
        await asyncio.gather(*(self._end(child, min(child.role.grace_s, within_s)) for child in chosen))

    async def release(self, name: str, sign: signal.Signals, grace_s: float) -> None:
        """Tell this child by `sign` that it may go, and kill it when `grace_s` is over; `stop_all` hastens it."""
        child = self.children.pop(name)
        self._leaving.append(child)
        try:
            await self._end(child, grace_s, sign)
        finally:
            self._leaving.remove(child)

    async def stop_all(self, within_s: float = STOP_WITHIN_S) -> None:
        """End every child in the roles' order: first what takes work in, last what writes it down."""
        deadline = time.monotonic() + within_s
        for rank in sorted({child.role.stops for child in (*self.children.values(), *self._leaving)}):
            names = [name for name, child in self.children.items() if child.role.stops == rank]
            slow = [child for child in self._leaving if child.role.stops == rank]
            left_s = max(0.2, deadline - time.monotonic())
            hastened = (self._end(child, min(child.role.grace_s, left_s)) for child in slow)
            await asyncio.gather(self.stop(names, left_s), *hastened)

    async def _keep(self, child: Child) -> None:
        deaths = 0
        while not child.stopping:
            born = time.monotonic()
            status = await self._live(child)
            if child.stopping:
                return
            unwell = status == CAN_NOT_SERVE_STATUS
            settled = not unwell and time.monotonic() - born > SETTLED_S
            deaths = 1 if settled else deaths + 1
            pause_s = backoff_s(deaths, UNWELL_S) if unwell else backoff_s(deaths)
            child.ends += 1
            child.how = "could not be started" if status is None else f"ended with status {status}"
            log.warning("%s %s; starting it again in %.1f s", child.role.name, child.how, pause_s)
            await asyncio.sleep(pause_s)
            count("sfumato_restarts_total", role=child.role.name.partition(" ")[0])

    async def _live(self, child: Child) -> int | None:
        """One life of a child, and the status it ended with; None when it could not be started."""
        try:
            child.process = await self._spawn(child.role)
            status = await child.process.wait()
            if self._metrics_dir is not None:
                forget_process(child.process.pid, self._metrics_dir)
            if not child.role.ours:
                # What a killed server left behind would hold its port. Each child is a session of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
        except OSError as error:
            # No process, no memory, no descriptor left: a moment later there may be.
            log.warning("%s: %s", child.role.name, error)
            return None
        return status

    async def _spawn(self, role: Role) -> asyncio.subprocess.Process:
        lifeline = ("--lifeline", str(self._lifeline)) if role.ours else ()
        output = None if role.log is None else role.log.open("ab")
        try:
            # A session of its own: Ctrl-C reaches the parent alone, which then ends the children in order.
            return await asyncio.create_subprocess_exec(
                *role.command,
                *lifeline,
                env=self._environment | dict(role.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(*role.fds, self._lifeline) if role.ours else role.fds,
                start_new_session=True,
                preexec_fn=None if role.ours else die_with_parent(),
            )
        finally:
            if output is not None:
                output.close()

    @staticmethod
    async def _end(child: Child, grace_s: float, sign: signal.Signals | None = None) -> None:
        child.stopping = True
        process = child.process
        if child.task is not None and (process is None or process.returncode is not None):
            child.task.cancel()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(sign or child.role.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                log.warning("%s did not leave within %.1f s and is killed", child.role.name, grace_s)
                # A server of many processes may have left some behind; each child is a session of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if child.task is not None:
            await asyncio.gather(child.task, return_exceptions=True)
