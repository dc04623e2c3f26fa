"""Requests as people might send them: Poisson arrivals, mixed steps and strengths, pictures of real aspect ratios."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from sfumato.core.params import Sampler, Shape, evaluations, nearest_shape

__all__ = ["STRENGTHS", "TRAFFICS", "Request", "Traffic", "make"]

Traffic = Literal["photos", "square"]
TRAFFICS: Final[tuple[Traffic, ...]] = ("photos", "square")

# An assumption, stated here: cameras' 3:2, phones' 4:3 and 16:9, a third to a half of each held upright, some squares.
PHOTOS: Final[Mapping[Shape, float]] = MappingProxyType(
    {
        Shape(3, 2): 0.30,
        Shape(2, 3): 0.12,
        Shape(4, 3): 0.22,
        Shape(3, 4): 0.14,
        Shape(16, 9): 0.08,
        Shape(9, 16): 0.06,
        Shape(1, 1): 0.08,
    }
)
SQUARE: Final[Mapping[Shape, float]] = MappingProxyType({Shape(1, 1): 1.0})

# Round numbers, as people type them. Same-parameter batching lives on coincidence, so this is kind to it.
STRENGTHS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to make, `arrives_s` after the beginning, at one of the model's shapes."""

    arrives_s: float
    shape: Shape
    steps: int
    strength: float

    @property
    def evaluations(self) -> int:
        """Model calls it takes part in."""
        return evaluations(self.steps, self.strength, Sampler.DPMPP_2M)


def make(
    traffic: Traffic, shapes: tuple[Shape, ...], steps: Sequence[int], per_s: float, count: int, seed: int
) -> list[Request]:
    """`count` requests at `per_s` on average, in order of arrival; the same for the same arguments."""
    dice = random.Random(seed)
    aspects = PHOTOS if traffic == "photos" else SQUARE
    drawn = dice.choices(list(aspects), list(aspects.values()), k=count)
    now, requests = 0.0, []
    for aspect in drawn:
        now += dice.expovariate(per_s)
        shape = nearest_shape(aspect, shapes)
        requests.append(Request(now, shape, dice.choice(steps), dice.choice(STRENGTHS)))
    return requests
