"""Who asks: what a request may do and see, as the door found it out."""

from dataclasses import dataclass
from typing import Final

from fastapi import Request

from sfumato.core.job import Priority
from sfumato.core.keys import LOCAL, ApiKey
from sfumato.gateway.problems import Refusal

__all__ = ["EVERYBODY", "NOBODY", "Caller", "caller_of"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose jobs are asked for, and by which key. `everything`: all owners' jobs are seen, not only the own."""

    owner: str
    key: ApiKey | None = None
    everything: bool = False

    @property
    def weight(self) -> float:
        """Its jobs' share beside those of others, who have 1."""
        return 1.0 if self.key is None else self.key.weight

    def sees(self, owner: str) -> bool:
        """Whether the jobs of `owner` are there for this caller."""
        return self.everything or (self.owner != "" and owner == self.owner)

    def owner_of(self, asked: str) -> str | None:
        """Whose jobs are meant when `asked` is, "" when nobody is named; None: everybody's.

        Raises:
            Refusal: forbidden; others' jobs are not for this caller.
        """
        if not self.everything and asked not in ("", self.owner):
            raise Refusal("forbidden", "Jobs of another owner need a key with the scope admin; this one has others.")
        return asked or (None if self.everything and self.key else self.owner)

    def priority(self, asked: Priority, *, said: bool) -> Priority:
        """The priority that a job gets; a default that nobody `said` gives way to what the key may.

        Raises:
            Refusal: forbidden; the key may not ask for this.
        """
        most = Priority.HIGH if self.key is None else self.key.max_priority
        if asked.rank >= most.rank:
            return asked
        if said:
            raise Refusal("forbidden", f"This key may ask for priority {most} at most, not for {asked}.")
        return most


EVERYBODY: Final = Caller(LOCAL, everything=True)
"""Whoever asks where no key is needed."""
NOBODY: Final = Caller("")
"""Who has no key where one is needed: owns nothing, and sees what a link shows."""


def caller_of(request: Request) -> Caller:
    """Who asks. The door has let every request in that comes here; without its word there is none."""
    caller: Caller = request.scope["caller"]
    return caller
