"""Five traces of jobs, the same for the same seed.

Times are in seconds, the length of a job in steps. The days and hours are short, so that a run takes little; a faster
wave is harder to follow for everyone.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["TRACES", "Trace", "TraceName"]

TraceName = str
HOUR_S: Final = 3600.0
STEPS: Final = (20, 30, 40)
Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Trace:
    """`arrivals` are (when, index of the model, steps), in order of time, during `length_s`; `places` are the GPUs."""

    name: TraceName
    models: tuple[str, ...]
    places: int
    length_s: float
    arrivals: tuple[tuple[float, int, int], ...]


def _poisson(dice: random.Random, rate: Rate, highest: float, length_s: float) -> Iterator[float]:
    """Moments of a Poisson process whose rate changes: candidates at the highest rate, each kept by its chance."""
    now = 0.0
    while (now := now + dice.expovariate(highest)) < length_s:
        if dice.random() * highest < rate(now):
            yield now


def _one_model(name: str, places: int, length_s: float, moments: Iterator[float], steps: Callable[[], int]) -> Trace:
    return Trace(name, ("model",), places, length_s, tuple((at, 0, steps()) for at in moments))


def wave(seed: int, scale: float = 1.0) -> Trace:
    """A day in four hours: from 0.02 jobs/s at night to 2 at noon, as a raised cosine."""
    dice, length_s = random.Random(f"wave {seed}"), 4 * HOUR_S * scale

    def rate(now: float) -> float:
        return 0.02 + 1.98 * (0.5 - 0.5 * math.cos(2 * math.pi * now / length_s)) ** 2

    return _one_model("wave", 12, length_s, _poisson(dice, rate, 2.0, length_s), lambda: dice.choice(STEPS))


def flash(seed: int, scale: float = 1.0) -> Trace:
    """0.1 jobs/s, and twice in two hours, for five minutes, twenty times as many."""
    dice, length_s = random.Random(f"flash {seed}"), 2 * HOUR_S * scale
    begins = [dice.uniform(0.1, 0.35) * length_s, dice.uniform(0.55, 0.8) * length_s]

    def rate(now: float) -> float:
        return 2.0 if any(begin <= now < begin + 300.0 for begin in begins) else 0.1

    return _one_model("flash", 12, length_s, _poisson(dice, rate, 2.0, length_s), lambda: dice.choice(STEPS))


def bursts(seed: int, scale: float = 1.0) -> Trace:
    """On for two minutes on average, off for five, both exponential: 1.5 jobs/s, then none."""
    dice, length_s = random.Random(f"bursts {seed}"), 3 * HOUR_S * scale
    spans, now = list[tuple[float, float]](), dice.expovariate(1 / 300.0)
    while now < length_s:
        end = now + dice.expovariate(1 / 120.0)
        spans.append((now, end))
        now = end + dice.expovariate(1 / 300.0)
    moments = sorted(
        begin + at for begin, end in spans for at in _poisson(dice, lambda _: 1.5, 1.5, min(end, length_s) - begin)
    )
    return _one_model("bursts", 12, length_s, iter(moments), lambda: dice.choice(STEPS))


def heavy(seed: int, scale: float = 1.0) -> Trace:
    """0.6 jobs/s, of which three in a hundred are four times as long."""
    dice, length_s = random.Random(f"heavy {seed}"), 2 * HOUR_S * scale

    def steps() -> int:
        return dice.choice(STEPS) * (4 if dice.random() < 0.03 else 1)

    return _one_model("heavy", 12, length_s, _poisson(dice, lambda _: 0.6, 0.6, length_s), steps)


def zipf(seed: int, scale: float = 1.0) -> Trace:
    """30 models on 8 GPUs, 0.3 jobs/s together, the k-th most popular with 1 / k^1.2 of the first one's share."""
    dice, length_s = random.Random(f"zipf {seed}"), HOUR_S * scale
    count = 30
    shares = [1 / (rank + 1) ** 1.2 for rank in range(count)]
    moments = list(_poisson(dice, lambda _: 0.3, 0.3, length_s))
    drawn = dice.choices(range(count), shares, k=len(moments))
    arrivals = tuple((at, model, dice.choice(STEPS)) for at, model in zip(moments, drawn, strict=True))
    return Trace("zipf", tuple(f"m{rank + 1:02}" for rank in range(count)), 8, length_s, arrivals)


TRACES: Final[Mapping[TraceName, Callable[[int, float], Trace]]] = MappingProxyType(
    {"wave": wave, "flash": flash, "bursts": bursts, "heavy": heavy, "zipf": zipf}
)
"""Name → trace of (seed, share of its length)."""
