"""A plan cut to the time that there is, and in words what it leaves out."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from sfumato.bench.ways import Plan

__all__ = ["fitted", "left_out"]


def fitted(plan: Plan, seconds_of: Callable[[Plan], float], left_s: float) -> Plan:
    """As much of the plan as takes at most `left_s` seconds by `seconds_of`, and at the least two requests a run.

    First runs get shorter, as long as they have a request for every row of a call; then the lower shares go, all
    traffics but the last, and the other shares. No way and no waiting window does: who is compared stays the same.
    """
    fewest = min(plan.requests, plan.rows)
    smaller = list(_smaller(plan))
    for each in smaller:
        for requests in range(plan.requests, fewest - 1, -1):
            cut = replace(each, requests=requests)
            if seconds_of(cut) <= left_s:
                return cut
    shortest = (replace(smaller[-1], requests=requests) for requests in range(fewest, 1, -1))
    return next((cut for cut in shortest if seconds_of(cut) <= left_s), replace(smaller[-1], requests=2))


def left_out(whole: Plan, cut: Plan) -> list[str]:
    """What the cut plan has not, one thing each."""
    lost = []
    if cut.requests < whole.requests:
        lost.append(f"{whole.requests - cut.requests} of {whole.requests} requests a run")
    lost += [f"traffic {kind}" for kind in whole.traffics if kind not in cut.traffics]
    lost += [f"offered share {share:.2f}" for share in whole.shares if share not in cut.shares]
    return lost


def _smaller(plan: Plan) -> Iterator[Plan]:
    yield plan
    yield replace(plan, shares=plan.shares[-1:])
    yield replace(plan, shares=plan.shares[-1:], traffics=plan.traffics[-1:])
    yield replace(plan, shares=(), traffics=plan.traffics[-1:])
