"""Every metric in one typed table, log lines with the job's id, and the benchmark decorator.

Labels never carry a job id. docs/metrics.md is written from METRICS and a test fails when one is missing there.
"""

import contextvars
import fcntl
import functools
import inspect
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = [
    "METRICS",
    "REPEATED_AFTER_S",
    "Metric",
    "Seldom",
    "benchmark",
    "bound_log",
    "count",
    "exposition",
    "forget_process",
    "gauge",
    "observe",
    "setup_logging",
]

P = ParamSpec("P")
R = TypeVar("R")

SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
REPEATED_AFTER_S: Final = 5.0
"""A warning that says the same again and again is logged so often, however often it is said."""
SAYS_OF_MODELS: Final = ("up", "cluster", "gateway")
ROWS: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table: `sfumato_<noun>_<unit>`, its kind, its labels, and what it means."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


METRICS: Final = (
    Metric("sfumato_accepts_total", "counter", "Jobs answered 202.", ("model", "priority")),
    Metric("sfumato_refusals_total", "counter", "Requests refused, by problem type.", ("problem",)),
    Metric("sfumato_accept_seconds", "histogram", "Request to 202, without the client's sending time.", ("model",)),
    Metric("sfumato_waiting_jobs", "gauge", "Jobs waiting in the dispatcher.", ("model",)),
    Metric("sfumato_oldest_waiting_seconds", "gauge", "Age of the oldest waiting job.", ("model",)),
    Metric("sfumato_handouts_total", "counter", "Work messages written.", ("model",)),
    Metric("sfumato_redeliveries_total", "counter", "Hand-outs with delivery above 0.", ("model",)),
    Metric("sfumato_duplicate_generations_total", "counter", "Results made that another had made before.", ("model",)),
    Metric("sfumato_retries_total", "counter", "Attempts that ended in a planned retry.", ("model",)),
    Metric("sfumato_dead_letters_total", "counter", "Jobs failed after killing workers alone.", ("model",)),
    Metric("sfumato_expired_total", "counter", "Jobs that waited past their time.", ("model",)),
    Metric("sfumato_outcomes_total", "counter", "Jobs ended by this process, by state.", ("model", "state")),
    Metric("sfumato_wait_seconds", "histogram", "Accept to start.", ("model", "priority")),
    Metric("sfumato_job_seconds", "histogram", "Accept to outcome.", ("model", "priority")),
    Metric("sfumato_stage_seconds", "histogram", "Time in a stage of the worker.", ("model", "stage")),
    Metric("sfumato_step_seconds", "histogram", "One model call for one batch.", ("model",)),
    Metric("sfumato_batch_rows", "histogram", "Rows in one model call.", ("model",), ROWS),
    Metric("sfumato_running_jobs", "gauge", "Jobs in the engine.", ("model",)),
    Metric("sfumato_desired_replicas", "gauge", "Workers that the controller wants.", ("model",)),
    Metric("sfumato_replicas", "gauge", "Workers that take jobs.", ("model",)),
    Metric("sfumato_recorded_total", "counter", "Changes folded into rows.", ("log",)),
    Metric("sfumato_recorder_lag_seconds", "gauge", "Age of the newest change folded into rows."),
    Metric("sfumato_swept_total", "counter", "Objects, rows and outcomes removed for their age.", ("kind",)),
)


@functools.cache
def _instrument(name: str) -> Counter | Gauge | Histogram:
    metric = next((m for m in METRICS if m.name == name), None)
    if metric is None:
        raise KeyError(f"{name} is not in METRICS; add its row there first.")
    if metric.kind == "counter":
        return Counter(metric.name, metric.meaning, metric.labels)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.meaning, metric.labels, multiprocess_mode="livemostrecent")
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=metric.buckets)


@functools.lru_cache(maxsize=4096)
def _child(name: str, labels: tuple[tuple[str, str], ...]) -> Any:
    instrument = _instrument(name)
    return instrument.labels(**dict(labels)) if labels else instrument


def count(name: str, by: float = 1, **labels: str) -> None:
    """Add to a counter of METRICS."""
    _child(name, tuple(labels.items())).inc(by)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge of METRICS."""
    _child(name, tuple(labels.items())).set(value)


def observe(name: str, value: float, **labels: str) -> None:
    """Add one observation to a histogram of METRICS."""
    _child(name, tuple(labels.items())).observe(value)


def exposition(metrics_dir: Path | None) -> bytes:
    """All metrics in Prometheus' text format: of every process that shares `metrics_dir`, else of this one."""
    if metrics_dir is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(metrics_dir))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_process(pid: int, metrics_dir: Path) -> None:
    """Drop the gauges of a process that ended; its counters stay, as they happened."""
    mark_process_dead(pid, str(metrics_dir))  # type: ignore[no-untyped-call]


_bound: contextvars.ContextVar[tuple[tuple[str, str], ...]] = contextvars.ContextVar("bound", default=())


@contextmanager
def bound_log(**fields: str) -> Iterator[None]:
    """Every line logged inside carries `fields` (job, model, worker)."""
    token = _bound.set((*_bound.get(), *fields.items()))
    try:
        yield
    finally:
        _bound.reset(token)


class _Lines(logging.Formatter):
    def __init__(self, role: str, form: str) -> None:
        super().__init__()
        self.role, self.form = role, form

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        trouble = self.formatException(record.exc_info) if record.exc_info else ""
        fields = dict(_bound.get())
        if self.form == "json":
            line = {"at": stamp, "level": record.levelname.lower(), "role": self.role, "message": record.getMessage()}
            return json.dumps(line | fields | ({"trouble": trouble} if trouble else {}))
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{stamp} {record.levelname.lower():7} {self.role:10} {record.getMessage()}{tail}"
        return f"{text}\n{trouble}" if trouble else text


class Seldom(logging.Filter):
    """Lets one record of a kind through every REPEATED_AFTER_S, with how many like it were held back before it."""

    def __init__(self, kind: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._kind = kind
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now = self._kind(record), record.created
        at, held_back = self._last.get(kind, (0.0, 0))
        if now - at < REPEATED_AFTER_S:
            self._last[kind] = (at, held_back + 1)
            return False
        self._last = {other: seen for other, seen in self._last.items() if now - seen[0] < 2 * REPEATED_AFTER_S}
        self._last[kind] = (now, 0)
        if held_back:
            record.msg, record.args = f"{record.getMessage()} ({held_back} more like it)", ()
        return True


def _text(record: logging.LogRecord) -> str:
    return f"{record.getMessage()} {_bound.get()} {record.exc_info and record.exc_info[1]!r}"


def setup_logging(role: str, level: str, form: str) -> None:
    """Log to standard error, one line an event, each with time, level and role; what is repeated now and then."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(role, form))
    # What is wrong with the list of models is said once, not by every process that reads it.
    handler.addFilter(lambda record: role in SAYS_OF_MODELS or not record.name.startswith("sfumato.models"))
    handler.addFilter(Seldom(_text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "aiosqlite"):
        logging.getLogger(chatty).setLevel("WARNING")


def benchmark(model_name: str, file: Path | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions and coroutine functions: each call appends a line to `file`.

    The line is `model name;seconds;memory in MiB`, memory being the process's peak resident set so far. Lines of
    several processes never mix: one write under a lock. With `file` None the function is returned as it is. A call
    that raises is not recorded.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if file is None:
            return function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                begin = time.perf_counter()
                result = await function(*args, **kwargs)
                _append(file, model_name, time.perf_counter() - begin)
                return result

            return cast("Callable[P, R]", measured_async)

        @functools.wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            _append(file, model_name, time.perf_counter() - begin)
            return result

        return measured

    return decorate


def _append(file: Path, model_name: str, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
    name = model_name.replace(";", ",").replace("\n", " ")
    with file.open("ab", buffering=0) as stream:
        # O_APPEND alone keeps short writes whole on local disks; the lock keeps them whole on network folders too.
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.write(stream.fileno(), f"{name};{seconds:.6f};{mib:.1f}\n".encode())
