"""What a measurement does now, on standard error: a bar on a terminal, else a line for each thing."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Bar", "bar"]


class Bar:
    """Tells what is done, how long it has gone on and about how long it will."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("", total=None)
        self._began_s = time.monotonic()
        self._told, self._runs, self._guess_s, self._runs_began_s = 0, 0, 0.0, 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began_s

    def tell(self, what: str) -> None:
        """This is done from now on."""
        said = f"{what}{self._rest()}"
        if not self._progress.console.is_terminal:
            # There is no bar, and the table is minutes away.
            self._progress.console.print(f"{self.elapsed_s:4.0f} s  {said}", soft_wrap=True)
        self._told += 1
        self._progress.update(self._task, description=said, completed=self._told)

    def expect(self, runs: int, guess_s: float) -> None:
        """It will be told of so many runs of about the same length from now on, by a guess so many seconds in all."""
        self._told, self._runs, self._guess_s, self._runs_began_s = 0, runs, guess_s, time.monotonic()
        self._progress.update(self._task, total=runs, completed=0)

    def _rest(self) -> str:
        left = self._runs - self._told
        if left <= 0:
            return ""
        passed_s = time.monotonic() - self._runs_began_s
        rest_s = passed_s / self._told * left if self._told else self._guess_s
        return f" (run {self._told + 1} of {self._runs}, about {rest_s:.0f} s left)"


@contextmanager
def bar() -> Iterator[Bar]:
    """For as long as something is measured."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    # FORCE_COLOR makes a pipe look like a terminal, and nothing may move there.
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
