"""The ends that a dispatcher itself gives to jobs, each with its reason. Pure."""

from typing import Final

from sfumato.core.job import Job, Outcome, Problem, State

__all__ = ["DEATHS_ALONE", "dead_letter", "not_loaded"]

DEATHS_ALONE: Final = 3
"""A job is a dead letter when so many workers fell silent while they ran it and nothing else."""


def dead_letter(job: Job, attempt: int, now: float) -> Outcome:
    """The end of a job that ends its workers."""
    detail = f"{DEATHS_ALONE} workers died while they ran this job and nothing else; it is not tried again."
    return _failed(job, attempt, now, Problem(slug="dead-letter", title="The job ends its workers", detail=detail))


def not_loaded(job: Job, attempt: int, now: float, trouble: str) -> Outcome:
    """The end of a job whose model no worker could load for too long."""
    detail = f"no worker could load the model: {trouble}"[:800]
    return _failed(job, attempt, now, Problem(slug="model-broken", title="The model can't be loaded", detail=detail))


def _failed(job: Job, attempt: int, now: float, error: Problem) -> Outcome:
    return Outcome(job_id=job.id, state=State.FAILED, attempt=attempt, at=now, error=error)
