"""One seeded scheduler for every role at once: it decides who goes next, what fails, who dies and when.

A process is a handful of coroutines that die together. At each seam (`io`) the running coroutine gives way; before it
goes on, its process may be killed on the spot, or the call may fail: in front of the effect nothing happened, behind it
the answer was lost. Time moves a little at every turn, so silence has a length.
"""

import random
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from sfumato.core.errors import TransientError

__all__ = ["DEADLY", "Process", "Scheduler"]

DEADLY = "dies of it"
"""A seam that kills the process which reaches it, however peaceful the times."""

DEATHS = 0.02
FAILURES = 0.03
"""How likely each resumption is a death, or a failure where a port can fail, while there are faults to come."""
RUNS = (1, 1, 3, 12)


def _lost() -> TransientError:
    return TransientError("the simulation lost the answer")


@types.coroutine
def _give_way(what: str, fallible: bool, for_s: float) -> Generator[tuple[str, bool, float], None, None]:
    yield what, fallible, for_s


@dataclass(eq=False, slots=True)
class _Task:
    """A coroutine, when it goes on, and whether what it waits at is a port, whose call may fail."""

    process: "Process"
    steps: Coroutine[Any, Any, Any]
    wakes_at: float
    fallible: bool = False


@dataclass(eq=False)
class Process:
    """What dies together. `boot` makes its first coroutine anew at each start, with fresh memory."""

    name: str
    boot: Callable[["Process"], Coroutine[Any, Any, None]]
    mortal: bool = True
    deaths: int = 0
    lives: bool = False


class Scheduler:
    """Runs processes to the end of a story: first with `faults` misfortunes, then in peace until `done`."""

    def __init__(self, seed: int, start: float, faults: int) -> None:
        self.dice = random.Random(seed)
        self.now = start
        self.faults = faults
        self.history: list[str] = []
        self._tasks: list[_Task] = []

    async def io(self, what: str) -> None:
        """The seam that every port awaits before and after its effect."""
        await _give_way(what, True, 0.0)

    async def rest(self, what: str, for_s: float = 0.0) -> None:
        """Give way to others for a while; nothing can fail here, but the process may die."""
        await _give_way(what, False, for_s)

    def add(self, name: str, boot: Callable[[Process], Coroutine[Any, Any, None]], *, mortal: bool = True) -> None:
        """A process to run; one that is not mortal is spared every misfortune."""
        self._start(Process(name, boot, mortal), after_s=0.0)

    def spawn(self, process: Process, steps: Coroutine[Any, Any, Any]) -> None:
        """A further coroutine of a living process."""
        self._tasks.append(_Task(process, steps, self.now))

    def run(self, done: Callable[[], bool], most_turns: int) -> bool:
        """Give turns until `done`; False when that did not come within `most_turns` after the last fault."""
        quiet = 0
        while not (self.faults <= 0 and quiet % 8 == 0 and done()):
            quiet = 0 if self.faults > 0 else quiet + 1
            if quiet > most_turns:
                return False
            self._turn()
        for task in self._tasks:
            task.steps.close()
        return True

    def _start(self, process: Process, after_s: float) -> None:
        async def life() -> None:
            process.lives = True
            await process.boot(process)

        self._tasks.append(_Task(process, life(), self.now + after_s))

    def _kill(self, process: Process) -> None:
        """SIGKILL: nothing more of it runs; it is started again a moment later."""
        self.history.append(f"{process.name} dies")
        for task in self._tasks:
            if task.process is process:
                task.steps.close()
        self._tasks = [task for task in self._tasks if task.process is not process]
        process.deaths += 1
        process.lives = False
        self._start(process, after_s=self.dice.choice((0.05, 1.0, 6.0)))

    def _turn(self) -> None:
        ready = [task for task in self._tasks if task.wakes_at <= self.now]
        if not ready:
            self.now = min(task.wakes_at for task in self._tasks)
            return
        self.now += self.dice.random() * 0.01
        task = ready[int(self.dice.random() * len(ready))]
        # Long runs of one task let it get far ahead of the others; short ones interleave finely.
        for _ in range(RUNS[int(self.dice.random() * len(RUNS))]):
            if not self._resume(task) or task.wakes_at > self.now:
                return

    def _resume(self, task: _Task) -> bool:
        """One step of a task; False when that was its last."""
        process = task.process
        fate = self.dice.random() if self.faults > 0 and process.mortal else 1.0
        if fate < DEATHS:
            self.faults -= 1
            self._kill(process)
            return False
        fails = fate < DEATHS + FAILURES and task.fallible
        self.faults -= fails
        try:
            what, task.fallible, for_s = task.steps.throw(_lost()) if fails else task.steps.send(None)
        except StopIteration:
            self._tasks.remove(task)
            return False
        task.wakes_at = self.now + for_s
        self.history.append(f"{process.name}: {'fails, then ' if fails else ''}{what}")
        if what == DEADLY:
            self._kill(process)
            return False
        return True
