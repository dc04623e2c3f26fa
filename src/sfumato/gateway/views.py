"""A job as JSON, and what its caller may expect: position and time left. Pure functions of what is known."""

import math
from collections.abc import Sequence
from typing import Any, Final

from sfumato.core.events import Alive, JobRow, Running, Standing
from sfumato.core.shown import Estimate, JobLinks, Sighting, job_json, rfc3339
from sfumato.gateway.live import Waiting
from sfumato.gateway.places import Place, beside
from sfumato.models.registry import Model

__all__ = [
    "BLIND_RETRY_AFTER_S",
    "Estimate",
    "JobLinks",
    "Sighting",
    "backlog_s",
    "broken_json",
    "estimate",
    "estimate_running",
    "job_json",
    "model_json",
    "retry_after_s",
    "rfc3339",
]

LONGEST_RETRY_AFTER_S: Final = 30
BLIND_RETRY_AFTER_S: Final = 5
SHORTEST_ETA_S: Final = 0.1


def estimate_running(row: JobRow, standing: Standing | None, progress: Running | None, batch: int) -> Estimate:
    """When a running job may end. `batch` is how many rows a worker's call has."""
    if standing is None or standing.cost_per_s is None:
        return Estimate(0, None)
    done = progress.step / progress.steps if progress and progress.steps else 0.0
    # It shares the pace with what runs beside it, or with that part of it which it has to wait for.
    sharing = max(batch * standing.workers, beside(row.job, standing))
    shared = standing.running_cost * min(1.0, sharing / standing.running) if standing.running else 0.0
    return Estimate(0, _seconds((1 - done) * max(row.job.cost, shared), standing.cost_per_s))


def estimate(row: JobRow, place: Place, standing: Standing | None, batch: int, now: float) -> Estimate:
    """When a waiting job may end. `batch` is how many rows a worker's call has."""
    position = place.ahead + 1
    if standing is None or standing.cost_per_s is None:
        return Estimate(position, None)
    full = standing.running >= standing.slots > 0
    # Those of a call mostly end together, in half its time from now; what goes before takes as long as it costs.
    rows, each = batch * standing.workers, standing.running_cost / standing.running if full else 0.0
    before = max(each * min(rows, standing.running) / 2, each / 2 + place.cost)
    # Then it shares the pace with what runs beside it.
    sharing = max(1, min(max(rows, place.beside), standing.slots, standing.running + position))
    cost = before + row.job.cost * sharing
    takes_s = _start_s(standing) + _seconds(cost, _pace_of_queue(standing, standing.cost_per_s))
    return Estimate(position, max(takes_s, round((row.not_before or now) - now, 1)))


def backlog_s(waiting: Waiting, standing: Standing | None) -> float | None:
    """Seconds until all that waits now is done, None until the model's pace is known."""
    if standing is None or standing.cost_per_s is None:
        return None
    if not waiting.jobs and not standing.running:
        return 0.0
    pace = _pace_of_queue(standing, standing.cost_per_s)
    return _start_s(standing) + _seconds(waiting.cost + _half_of_running(standing), pace)


def _start_s(standing: Standing) -> float:
    """Before anything else a worker must be started, where there is none."""
    return 0.0 if standing.workers else round(standing.cold_start_s, 1)


def _pace_of_queue(standing: Standing, seen: float) -> float:
    """While jobs wait every worker is full; the pace `seen` lately may be that of more workers, or of fewer."""
    return standing.worker_cost_per_s * max(1, standing.workers) or seen


def _half_of_running(standing: Standing) -> float:
    """On average half of what runs is still to be done."""
    return standing.running_cost / 2


def _seconds(cost: float, cost_per_s: float) -> float:
    """Never 0: what has not ended takes a moment at least."""
    return max(SHORTEST_ETA_S, round(cost / cost_per_s, 1))


def retry_after_s(expected: Estimate | None) -> int:
    """Whole seconds after which to ask again: 1 to 30, or by its place in the queue 1 to 5 where no time is known."""
    if expected is None:
        return 1
    if expected.eta_s is None:
        return max(1, min(BLIND_RETRY_AFTER_S, expected.position))
    return max(1, min(LONGEST_RETRY_AFTER_S, math.ceil(expected.eta_s)))


def model_json(
    model: Model, standing: Standing | None, waiting: Waiting, workers: Sequence[Alive], trouble: str, now: float
) -> dict[str, Any]:
    """A model as callers see it: `ready` has a worker, `starting` has only jobs, `idle` neither.

    `trouble` is why its last worker could not load it: without another one it is `broken`. So it is, whoever lives,
    while its dispatcher hands nothing out because everything fails.
    """
    busy = waiting.jobs or (standing.running if standing else 0)
    rests = standing.trouble if standing else ""
    trouble = rests or ("" if workers else trouble)
    state = "broken" if trouble else "ready" if workers else "starting" if busy else "idle"
    rules, words = model.rules.model_dump(mode="json"), model.suggestions
    about = {"name": model.name, "state": state, "summary": model.summary, "rules": rules, "words": words}
    return about | {"backlog": _backlog(standing, waiting, now), "workers": len(workers), "trouble": trouble or None}


def broken_json(name: str, trouble: str, standing: Standing | None, waiting: Waiting, now: float) -> dict[str, Any]:
    """A model whose folder is at fault, so that nothing is known of it but its queue."""
    about = {"name": name, "state": "broken", "summary": "", "rules": {}, "words": {}}
    return about | {"backlog": _backlog(standing, waiting, now), "workers": 0, "trouble": trouble}


def _backlog(standing: Standing | None, waiting: Waiting, now: float) -> dict[str, Any]:
    oldest = standing.oldest_created_at if standing else None
    return {
        "waiting": waiting.jobs,
        "running": standing.running if standing else 0,
        "oldest_s": round(max(0.0, now - oldest), 1) if oldest is not None else None,
        "eta_s": backlog_s(waiting, standing),
    }
