"""What can be seen of the service: metrics in one table, log lines, traces, and the benchmark decorator."""

from sfumato.observability.logs import REPEATED_AFTER_S, Seldom, bound_log, setup_logging
from sfumato.observability.metrics import (
    begin,
    count,
    exposition,
    gauge,
    observe,
    serve_metrics,
    sharing,
)
from sfumato.observability.shared import forget_process
from sfumato.observability.table import METRICS, Metric
from sfumato.observability.timing import benchmark
from sfumato.observability.tracing import setup_tracing, span, spanned, traceparent

__all__ = [
    "METRICS",
    "REPEATED_AFTER_S",
    "Metric",
    "Seldom",
    "begin",
    "benchmark",
    "bound_log",
    "count",
    "exposition",
    "forget_process",
    "gauge",
    "observe",
    "serve_metrics",
    "setup_logging",
    "setup_tracing",
    "sharing",
    "span",
    "spanned",
    "traceparent",
]
