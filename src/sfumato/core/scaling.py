"""What the controller decides and what it decides by, and the ports through which its decisions reach those who act.

The controller writes how many workers each model should have; the hosts that run workers (pools) read it and make it
so. Whoever can't reach the store keeps what it read last. Models are named by their slugs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

__all__ = ["Board", "Decided", "DecisionReader", "Ends", "Offers", "Placement", "Pool"]


@dataclass(frozen=True, slots=True)
class Decided:
    """So many workers of a model, why in one sentence, and when that was decided (Unix seconds)."""

    replicas: int
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Ends:
    """How often the present workers of a model have ended on a host by themselves, and how the last one did."""

    count: int
    how: str

    def after(self, others: "Ends | None") -> "Ends":
        """These and `others`, of which these are the last."""
        return self if others is None else Ends(self.count + others.count, self.how)


@dataclass(frozen=True, slots=True)
class Pool:
    """A host that runs workers: how many at most, how many of each model it was told last, and which ended there."""

    name: str
    places: int
    placed: Mapping[str, int]
    ends: Mapping[str, Ends] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """So many workers of a model on one host; `idlest` names workers in the order in which to end them."""

    replicas: int
    idlest: tuple[str, ...] = ()


class DecisionReader(Protocol):
    """For who shows or follows the decisions."""

    async def decisions(self) -> Mapping[str, Decided]:
        """The latest decision about each model that there is one about."""
        ...


class Board(DecisionReader, Protocol):
    """The controller's end. Only the holder of the lease may decide."""

    async def lead(self, holder: str, for_s: float) -> bool:
        """Take the lease, or hold it longer: `for_s` from now on. False while another holds it."""
        ...

    async def resign(self, holder: str) -> None:
        """Give the lease up; without effect when another holds it."""
        ...

    async def pools(self, silent_s: float) -> Sequence[Pool]:
        """The hosts that were heard within `silent_s`, by name."""
        ...

    async def decide(
        self, holder: str, decided: Mapping[str, Decided], placed: Mapping[str, Mapping[str, Placement]]
    ) -> None:
        """Replace all decisions, and all placements (pool → model → placement), at once.

        Raises:
            Deposed: the lease is another's now; nothing was changed.
        """
        ...


class Offers(Protocol):
    """A host's end."""

    async def offer(self, pool: str, places: int, ends: Mapping[str, Ends] = MappingProxyType({})) -> None:
        """Say that this host lives and runs up to `places` workers; `ends` as in `Pool`."""
        ...

    async def placed(self, pool: str) -> Mapping[str, Placement]:
        """What this host should run."""
        ...

    async def withdraw(self, pool: str) -> None:
        """This host runs no more workers."""
        ...
