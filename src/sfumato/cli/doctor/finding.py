"""What was looked at and how it is."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["MARKS", "Finding", "State"]

State = Literal["good", "warning", "bad"]
MARKS: Final = {"good": "✓", "warning": "!", "bad": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, and what to do when it is not as it should be.

    A warning is what the service starts and works with, perhaps not as it was meant.
    """

    state: State
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.state]} {self.what}{f': {self.advice}' if self.advice else ''}"
