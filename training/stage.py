"""One stage's time: how much it may take in all, how much earlier tries took, and a bar that says so."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Budget"]

LINE_EVERY_S = 10.0


@dataclass
class Budget:
    """`total_s` seconds for a stage, `spent_s` of them in tries that were cut off."""

    name: str
    total_s: float
    spent_s: float = 0.0
    words: str = ""
    _begin: float = field(default_factory=time.monotonic)

    @property
    def used_s(self) -> float:
        return self.spent_s + time.monotonic() - self._begin

    @property
    def share(self) -> float:
        """How much of the time is gone, 0 to 1."""
        return min(1.0, self.used_s / self.total_s)

    def turns(self) -> Iterator[float]:
        """`share` again and again until it is 1; shows a bar on a terminal, a line every ten seconds elsewhere.

        There is at least one turn, so that every stage leaves something.
        """
        console = Console(file=sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task(self.name, total=self.total_s, words="")
            told = 0.0
            while True:
                share = self.share
                yield share
                bar.update(task, completed=min(self.used_s, self.total_s), words=self.words)
                if not console.is_terminal and self.used_s - told > LINE_EVERY_S:
                    told = self.used_s
                    self.tell()
                if share >= 1:
                    break
        self.tell()

    def tell(self) -> None:
        left = max(0.0, self.total_s - self.used_s)
        sys.stderr.write(f"{self.name}: {self.used_s:.0f} s, {left:.0f} s left; {self.words}\n")
        sys.stderr.flush()
