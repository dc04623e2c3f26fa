"""When a server around diffusers' pipeline starts a group. One call has one schedule, so a group is of equals."""

import math
from collections.abc import Hashable, Sequence
from itertools import pairwise

from sfumato.bench.policies import InGroups
from sfumato.bench.traffic import Request

__all__ = ["dynamic", "one_by_one", "queued", "services_s", "static"]


def one_by_one() -> InGroups:
    """The oldest alone, as soon as the pipeline is free."""
    return InGroups(lambda request: "any", 1, 0.0)


def static(most: int, end_s: float) -> InGroups:
    """`most` equals at a time, however long they wait for one another; at the traffic's end what is left over."""
    return InGroups(_equal, most, math.inf, end_s)


def dynamic(most: int, window_s: float) -> InGroups:
    """Up to `most` equals, once there are so many or the first has waited `window_s`."""
    return InGroups(_equal, most, window_s)


def _equal(request: Request) -> Hashable:
    # Pictures are one array, and diffusers' schedulers have one step index and one begin index for a whole batch.
    return request.shape, request.steps, request.strength


def services_s(ended: Sequence[float]) -> list[float]:
    """What each request took of a server that was never idle and made them in their order, one by one."""
    return [after - before for before, after in pairwise((0.0, *ended))]


def queued(requests: Sequence[Request], services_s: Sequence[float]) -> list[float]:
    """When each is answered by a server that makes them in their order, one by one, and takes so long for each.

    That is exact, for alone it makes no difference who waits: measured once, other arrivals need not be sat through.
    """
    now, ended = 0.0, []
    for request, service_s in zip(requests, services_s, strict=True):
        now = max(now, request.arrives_s) + service_s
        ended.append(now)
    return ended
