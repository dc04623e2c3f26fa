"""Which models hold the places when together they want more than there are. Pure.

Every worker that a model wants is one claim. Claims are served in this order: the least that each model must have; who
holds a place and was given it less than a few cold starts ago, so that a swap pays; claims of models with jobs, by
weighted waiting cost; workers that only stay warm; models whose worker can't load. Waiting cost is the work that waits
by the wait that is planned, divided among the workers that share it, and rises with the time for which a model has
jobs and no place at all. That rise has no limit, while the cost of a model that is served has one, so every model
comes to its turn. A place that is held counts half as much again: a swap must be worth a cold start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Claim", "share"]

HOLDS_MORE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model wants and has.

    `cost` is its weighted waiting cost; `held` that it was given its places too lately to lose them; `busy` that it
    has jobs; `rested_s` how long it has had none.
    """

    model: str
    wanted: int
    had: int
    least: int
    cost: float
    busy: bool
    held: bool
    broken: bool
    rested_s: float


def share(claims: Sequence[Claim], places: int) -> dict[str, int]:
    """Places for each model, at most what it wants and `places` in all."""
    seats = [(*_rank(claim, number), claim.model) for claim in claims for number in range(1, claim.wanted + 1)]
    seats.sort()
    given = {claim.model: 0 for claim in claims}
    for *_, model in seats[: max(places, 0)]:
        given[model] += 1
    return given


def _rank(claim: Claim, number: int) -> tuple[int, float]:
    """Lowest first, and never lower for a later worker of the same model."""
    if claim.broken:
        return 4, -claim.cost / number
    if number <= claim.least:
        return 0, float(number)
    if not claim.busy:
        return 3, claim.rested_s + number
    if claim.held and number <= claim.had:
        return 1, -claim.cost / number
    return 2, -claim.cost / number * (HOLDS_MORE if number <= claim.had else 1.0)
