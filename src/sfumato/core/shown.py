"""A job as JSON, the same wherever it is shown: in answers, in events, in webhooks. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sfumato.core.events import JobRow, Running
from sfumato.core.job import Job, Outcome, Problem, State

__all__ = ["Estimate", "JobLinks", "Sighting", "job_json", "problem_of", "problem_type", "rfc3339"]


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


def problem_type(slug: str) -> str:
    """The `type` member of a problem."""
    return f"urn:sfumato:problem:{slug}"


def problem_of(problem: Problem) -> dict[str, str]:
    """Why a job failed, as it stands in job JSON."""
    return {"type": problem_type(problem.slug), "title": problem.title, "detail": problem.detail}


def rfc3339(moment: float | None) -> str | None:
    """Unix seconds as an RFC 3339 time in UTC, with milliseconds."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
