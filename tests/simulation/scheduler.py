"""One seeded scheduler for every role at once: it decides who goes next, what fails, who dies and when.

A process is a handful of coroutines that die together. At each seam (`io`) the running coroutine gives way; before it
goes on, its process may be killed on the spot, or the call may fail: in front of the effect nothing happened, behind it
the answer was lost. Time moves a little at every turn, so silence has a length.
"""

import random
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

from sfumato.core.errors import TransientError

__all__ = ["DEADLY", "Process", "Scheduler"]

DEADLY = "dies of it"
"""A seam that kills the process which reaches it, however peaceful the times."""


def _lost() -> TransientError:
    return TransientError("the simulation lost the answer")


@types.coroutine
def _give_way(what: str, fallible: bool) -> Generator[tuple[str, bool], None, None]:
    yield what, fallible


@dataclass(eq=False, slots=True)
class _Task:
    """A coroutine, and whether what it waits at is a port, whose call may fail."""

    steps: Coroutine[Any, Any, Any]
    fallible: bool = False


@dataclass(eq=False)
class Process:
    """What dies together. `boot` makes its first coroutine anew at each start, with fresh memory."""

    name: str
    boot: Callable[["Process"], Coroutine[Any, Any, None]]
    mortal: bool = True
    tasks: list[_Task] = field(default_factory=list)
    asleep_until: float = 0.0
    deaths: int = 0


class Scheduler:
    """Runs processes to the end of a story: first with `faults` misfortunes, then in peace until `done`."""

    def __init__(self, seed: int, start: float, faults: int) -> None:
        self.dice = random.Random(seed)
        self.now = start
        self.faults = faults
        self.processes: list[Process] = []
        self.history: list[str] = []

    async def io(self, what: str) -> None:
        """The seam that every port awaits before and after its effect."""
        await _give_way(what, True)

    async def rest(self, what: str) -> None:
        """Give way to others; nothing can fail here, but the process may die."""
        await _give_way(what, False)

    def add(self, name: str, boot: Callable[[Process], Coroutine[Any, Any, None]], *, mortal: bool = True) -> None:
        """A process to run; one that is not mortal is spared every misfortune."""
        self.processes.append(Process(name, boot, mortal))

    def spawn(self, process: Process, task: Coroutine[Any, Any, Any]) -> None:
        """A further coroutine of a living process."""
        process.tasks.append(_Task(task))

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing more of it runs; it is started again a moment later."""
        self.history.append(f"{process.name} dies")
        for task in process.tasks:
            task.steps.close()
        process.tasks.clear()
        process.deaths += 1
        process.asleep_until = self.now + self.dice.choice((0.05, 1.0, 6.0))

    def run(self, done: Callable[[], bool], most_turns: int) -> bool:
        """Give turns until `done`; False when that did not come within `most_turns` after the last fault."""
        quiet = 0
        while not (self.faults <= 0 and done()):
            quiet = 0 if self.faults > 0 else quiet + 1
            if quiet > most_turns:
                return False
            self.now += self.dice.random() * 0.02
            self._turn()
        for process in self.processes:
            for task in process.tasks:
                task.steps.close()
        return True

    def _turn(self) -> None:
        process = self.dice.choice(self.processes)
        if not process.tasks:
            if self.now >= process.asleep_until:
                process.tasks.append(_Task(process.boot(process)))
            return
        # Long runs of one process let it get far ahead of the others; short ones interleave finely.
        for _ in range(self.dice.choice((1, 1, 3, 12))):
            if not process.tasks:
                return
            self._resume(process, self.dice.choice(process.tasks))

    def _resume(self, process: Process, task: _Task) -> None:
        fate = self.dice.random() if self.faults > 0 and process.mortal else 1.0
        if fate < 0.010:
            self.faults -= 1
            return self.kill(process)
        fails = fate < 0.030 and task.fallible
        self.faults -= fails
        try:
            what, task.fallible = task.steps.throw(_lost()) if fails else task.steps.send(None)
        except StopIteration:
            process.tasks.remove(task)
            return None
        self.history.append(f"{process.name}: {'fails, then ' if fails else ''}{what}")
        if what == DEADLY:
            self.kill(process)
        return None
