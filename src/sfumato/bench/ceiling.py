"""What no way of batching can beat: the network alone, in a tight loop, beside the most that the device can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfumato.bench.figures import short
from sfumato.bench.ways import Row

__all__ = ["Ceiling", "Loop", "lines"]


@dataclass(frozen=True, slots=True)
class Loop:
    """One way to call the network; `peak_share` is of what the device does in matrix products of the same dtype."""

    way: str
    rows_per_s: float
    peak_share: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`rows` of `shape` [width, height] pixels in each call; `failed` has the ways that did not work, and why.

    Operations count two for a multiplication and its addition; `matrix_flops_per_s` is measured, not a data sheet's.
    """

    rows: int
    shape: tuple[int, int]
    flops_a_row: float
    matrix_side: int
    matrix_flops_per_s: float
    loops: tuple[Loop, ...]
    failed: Mapping[str, str]

    @property
    def best(self) -> Loop:
        """The fastest; that of eager calls is always there."""
        return max(self.loops, key=lambda loop: loop.rows_per_s)


def lines(ceiling: Ceiling, rows: Sequence[Row], dtype: str) -> list[str]:
    """For below the table: each loop, then how much of the best one step-level makes of it."""
    loops = [
        f"{loop.way} {short(loop.rows_per_s)} rows/s ({loop.peak_share:.1%} of the matrix peak)"
        for loop in ceiling.loops
    ]
    width, height = ceiling.shape
    shares = [
        f"{row.traffic} {row.rows_per_s / ceiling.best.rows_per_s:.0%}" for row in rows if row.way == "step-level"
    ]
    best = f"step-level's rows/s ÷ the best loop's ({ceiling.best.way}): {', '.join(shares)}"
    return [
        f"network alone, {ceiling.rows} rows of {width} × {height}: {', '.join(loops)}",
        *(f"network alone, {way} failed: {why}" for way, why in ceiling.failed.items()),
        f"a row is {ceiling.flops_a_row / 1e12:.3g} TFLOP; matrix peak: {ceiling.matrix_flops_per_s / 1e12:.3g} "
        f"TFLOP/s, {dtype}, {ceiling.matrix_side} × {ceiling.matrix_side}",
        *([best] if shares else []),
    ]
