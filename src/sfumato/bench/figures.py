"""What a run comes to: throughput, latencies, and how they are written."""

import math
from collections.abc import Sequence
from typing import Final

from sfumato.bench.traffic import Request

__all__ = ["figures", "quantile", "short"]

WARM_UP: Final = 0.1
"""Share of the requests, the first ones, that are not measured: they found an empty engine."""


def figures(requests: Sequence[Request], ended: Sequence[float]) -> tuple[float, float, float]:
    """(throughput in requests/s, p50_s, p99_s), from arrival to end, of requests that were answered at `ended`."""
    first = int(len(requests) * WARM_UP)
    begin_s, end_s = requests[first].arrives_s, requests[-1].arrives_s
    throughput = sum(begin_s < at <= end_s for at in ended) / (end_s - begin_s)
    latencies = sorted(at - request.arrives_s for request, at in zip(requests[first:], ended[first:], strict=True))
    return round(throughput, 3), round(quantile(latencies, 0.5), 4), round(quantile(latencies, 0.99), 4)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def short(number: float) -> str:
    """Three figures, as far as two places go."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"
