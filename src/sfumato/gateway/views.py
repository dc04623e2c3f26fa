"""A job as JSON, and what its caller may expect: position and time left. Pure functions of what is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sfumato.core.events import Alive, JobRow, Running, Standing
from sfumato.core.job import Job, Outcome, State
from sfumato.gateway.live import Waiting
from sfumato.gateway.problems import problem_of
from sfumato.models.registry import Model

__all__ = [
    "BLIND_RETRY_AFTER_S",
    "Estimate",
    "JobLinks",
    "Sighting",
    "backlog_s",
    "broken_json",
    "estimate",
    "job_json",
    "model_json",
    "retry_after_s",
    "rfc3339",
]

LONGEST_RETRY_AFTER_S: Final = 30
BLIND_RETRY_AFTER_S: Final = 5
SHORTEST_ETA_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of a job: its row (None: not recorded yet), and its outcome if it has ended."""

    job_id: str
    row: JobRow | None
    outcome: Outcome | None

    @property
    def state(self) -> State:
        """The outcome's state where there is one: a row may lag behind it."""
        if self.outcome is not None:
            return self.outcome.state
        return self.row.state if self.row else State.QUEUED


@dataclass(frozen=True, slots=True)
class JobLinks:
    """A job's absolute addresses, each with its token."""

    result_url: str
    status_url: str
    events_url: str

    def json(self) -> dict[str, str]:
        return {"result_url": self.result_url, "status_url": self.status_url, "events_url": self.events_url}


@dataclass(frozen=True, slots=True)
class Estimate:
    """`position` 1 is next, 0 runs; `eta_s` is the seconds until the result, None until the model's pace is known."""

    position: int
    eta_s: float | None


def estimate(row: JobRow, ahead: int, standing: Standing | None, progress: Running | None, now: float) -> Estimate:
    """When a job that has not ended may end. `ahead` is how many wait before it."""
    running = row.state is State.RUNNING
    position = 0 if running else ahead + 1
    if standing is None or standing.cost_per_s is None:
        return Estimate(position, None)
    if running:
        done = progress.step / progress.steps if progress and progress.steps else 0.0
        # It shares the pace with what runs beside it.
        return Estimate(position, _seconds((1 - done) * max(row.job.cost, standing.running_cost), standing.cost_per_s))
    cost = _half_of_running(standing) + _cost_ahead(row, ahead, standing) + row.job.cost
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


def _cost_ahead(row: JobRow, ahead: int, standing: Standing) -> float:
    if row.id in standing.front:
        return sum(standing.front_costs[: standing.front.index(row.id)])
    return ahead * (standing.waiting_cost / standing.waiting if standing.waiting else row.job.cost)


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


def job_json(seen: Sighting, links: JobLinks, expected: Estimate | None, progress: Running | None) -> dict[str, Any]:
    """The job as every route shows it. One that is not recorded yet shows what is known: that it is queued or ended."""
    row, outcome = seen.row, seen.outcome
    waits = seen.state is State.QUEUED
    return {
        "id": seen.job_id,
        "status": seen.state.value,
        **(_asked(row.job) if row else {}),
        "started_at": rfc3339(row.started_at if row else None),
        "finished_at": rfc3339(outcome.at if outcome else None),
        "attempt": row.attempt if row else 0,
        "delivery": row.delivery if row else 0,
        "next_attempt_at": rfc3339(row.not_before if row and waits else None),
        "estimate": {"position": expected.position, "eta_s": expected.eta_s} if expected and not outcome else None,
        "progress": {"step": progress.step, "steps": progress.steps} if progress and not outcome else None,
        "timings": _timings(row, outcome),
        "error": _error(row, outcome),
        "result": _result(outcome),
        **links.json(),
    }


def _asked(job: Job) -> dict[str, Any]:
    return {
        "model_name": job.model,
        "priority": job.priority.value,
        "prompt": job.params.prompt,
        "params": job.params.model_dump(mode="json", exclude={"prompt"}),
        "metadata": job.metadata,
        "retry_of": job.retry_of or None,
        "created_at": rfc3339(job.created_at),
        "expires_at": rfc3339(job.expires_at),
    }


def _timings(row: JobRow | None, outcome: Outcome | None) -> dict[str, float]:
    timings: dict[str, float] = {}
    if row and row.started_at is not None:
        timings["wait_s"] = round(max(0.0, row.started_at - row.job.created_at), 3)
    if row and outcome:
        timings["total_s"] = round(max(0.0, outcome.at - row.job.created_at), 3)
    if outcome:
        timings |= {f"{stage}_s": round(seconds, 3) for stage, seconds in outcome.seconds.items()}
    return timings


def _error(row: JobRow | None, outcome: Outcome | None) -> dict[str, str] | None:
    """Why it failed, or, while it waits for a retry, why the last attempt did."""
    error = outcome.error if outcome else row.last_error if row else None
    return problem_of(error) if error else None


def _result(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None or outcome.picture is None:
        return None
    return outcome.picture.model_dump(include={"media_type", "width", "height", "size_bytes"})


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
    about = {"name": model.name, "state": state, "summary": model.summary, "rules": model.rules.model_dump(mode="json")}
    return about | {"backlog": _backlog(standing, waiting, now), "workers": len(workers), "trouble": trouble or None}


def broken_json(name: str, trouble: str, standing: Standing | None, waiting: Waiting, now: float) -> dict[str, Any]:
    """A model whose folder is at fault, so that nothing is known of it but its queue."""
    about = {"name": name, "state": "broken", "summary": "", "rules": {}}
    return about | {"backlog": _backlog(standing, waiting, now), "workers": 0, "trouble": trouble}


def _backlog(standing: Standing | None, waiting: Waiting, now: float) -> dict[str, Any]:
    oldest = standing.oldest_created_at if standing else None
    return {
        "waiting": waiting.jobs,
        "running": standing.running if standing else 0,
        "oldest_s": round(max(0.0, now - oldest), 1) if oldest is not None else None,
        "eta_s": backlog_s(waiting, standing),
    }


def rfc3339(moment: float | None) -> str | None:
    """Unix seconds as an RFC 3339 time in UTC, with milliseconds."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
