"""What a model's dispatcher learns from the jobs that pass, for estimates and for the controller. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from sfumato.core.events import Alive, Standing
from sfumato.core.job import Job
from sfumato.dispatcher.arrivals import Arrivals
from sfumato.dispatcher.pace import Pace
from sfumato.dispatcher.throughput import Throughput

__all__ = ["Learned"]

SMOOTHING: Final = 0.1


class Learned:
    """Durations, paces and rates of one model. `seconds_per_job` is from start to success, 0 while unknown."""

    def __init__(self) -> None:
        self.seconds_per_job = 0.0
        self._pace = Pace()
        self._throughput = Throughput()
        self._arrivals = Arrivals()
        self._cold_start_s = 0.0

    def from_predecessor(self, told: Standing) -> None:
        """Take over what an earlier dispatcher told, where nothing was learned yet."""
        self.seconds_per_job = self.seconds_per_job or told.seconds_per_job
        self._pace.learn(told.cost_per_s)
        self._throughput.learn(told.worker_cost_per_s)
        self._cold_start_s = self._cold_start_s or told.cold_start_s

    def heard(self, alive: Alive) -> None:
        """A worker's beat."""
        self._cold_start_s = alive.cold_start_s or self._cold_start_s

    def arrived(self, job: Job) -> None:
        """A job is here that was not known before."""
        self._arrivals.add(job.cost, job.created_at)

    def began(self, worker: str, job: Job, at: float) -> None:
        """A worker has it in hand."""
        self._throughput.began(worker, job.id, at)

    def gave_up(self, worker: str, job: Job, at: float) -> None:
        """That worker has it no more, and it is not done."""
        self._throughput.left(worker, job.id, at, cost_done=0.0)

    def succeeded(self, worker: str, job: Job, begun_at: float, at: float) -> None:
        """That worker is done with it."""
        took_s = max(0.0, at - begun_at)
        before_s = self.seconds_per_job or took_s
        self.seconds_per_job = before_s + SMOOTHING * (took_s - before_s)
        self._pace.done(job.cost, begun_at, at)
        self._throughput.left(worker, job.id, at, job.cost)

    def forget(self, workers: Iterable[str]) -> None:
        """These workers fell silent."""
        for worker in workers:
            self._throughput.forget(worker)

    def told(self, now: float) -> dict[str, Any]:
        """The fields of a standing that come from here."""
        return {
            "seconds_per_job": round(self.seconds_per_job, 4),
            "cost_per_s": self._pace.cost_per_s,
            "worker_cost_per_s": self._throughput.cost_per_s,
            "mean_cost": float(f"{self._arrivals.mean_cost:.4g}"),
            "arriving": self._arrivals.rates(now),
            "cold_start_s": self._cold_start_s,
        }
