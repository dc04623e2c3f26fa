"""Counting and measuring by the table's names, and showing it all to Prometheus.

Processes of one host may share a folder (`sharing`); any of them then shows what all counted.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import start_http_server

from sfumato.observability.shared import Shared
from sfumato.observability.table import METRICS

__all__ = ["begin", "count", "exposition", "gauge", "observe", "serve_metrics", "sharing"]

SEVERAL: Final = {"newest": "livemostrecent", "sum": "livesum"}


@functools.cache
def _instrument(name: str) -> Counter | Gauge | Histogram:
    metric = next((m for m in METRICS if m.name == name), None)
    if metric is None:
        raise KeyError(f"{name} is not in METRICS; add its row there first.")
    if metric.kind == "counter":
        return Counter(metric.name, metric.meaning, metric.labels)
    if metric.kind == "gauge":
        mode: Any = SEVERAL[metric.several]
        return Gauge(metric.name, metric.meaning, metric.labels, multiprocess_mode=mode)
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=metric.buckets)


@functools.lru_cache(maxsize=4096)
def _child(name: str, labels: tuple[tuple[str, str], ...]) -> Any:
    instrument = _instrument(name)
    return instrument.labels(**dict(labels)) if labels else instrument


def count(name: str, by: float = 1, **labels: str) -> None:
    """Add to a counter of METRICS."""
    _child(name, tuple(labels.items())).inc(by)


def begin(*names: str, **labels: str) -> None:
    """Show counters of METRICS as 0 before anything was counted.

    What Prometheus first sees at 1 has not grown, as far as it knows: the first of its kind would raise no alert.
    """
    for name in names:
        count(name, 0, **labels)


def gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge of METRICS; NaN for what is not known any more."""
    _child(name, tuple(labels.items())).set(value)


def observe(name: str, value: float, **labels: str) -> None:
    """Add one observation to a histogram of METRICS."""
    _child(name, tuple(labels.items())).observe(value)


def exposition(metrics_dir: Path | None) -> bytes:
    """All metrics in Prometheus' text format: of every process that shares `metrics_dir`, else of this one."""
    return generate_latest(_registry(metrics_dir))


def serve_metrics(host: str, port: int, metrics_dir: Path | None) -> None:
    """Show what `exposition` gives on http://host:port/metrics, from a thread, for as long as this process lives.

    Raises:
        OSError: the port is taken, or the address is not this host's.
    """
    start_http_server(port, host, _registry(metrics_dir))


def _registry(metrics_dir: Path | None) -> CollectorRegistry:
    if metrics_dir is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(Shared(metrics_dir))
    return registry


@contextmanager
def sharing() -> Iterator[None]:
    """What is first counted from now on is shared by the folder in PROMETHEUS_MULTIPROC_DIR.

    A process that was started with this variable shares without being told; one that sets it later must say so.
    """
    before = values.ValueClass
    values.ValueClass = values.MultiProcessValue(os.getpid)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        values.ValueClass = before
