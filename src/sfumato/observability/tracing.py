"""Traces by OpenTelemetry, where an endpoint is set for them and `sfumato[otel]` installed; else nothing, at no cost.

A job's trace goes with its message as a W3C traceparent, so what the roles do for it hangs together.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from sfumato.core.version import VERSION

__all__ = ["setup_tracing", "span", "spanned", "traceparent"]

log = logging.getLogger(__name__)

SEND_WITHIN_S: Final = 2.0
"""A collector that does not answer must not hold up a role that leaves."""
SEND_EVERY_S: Final = 1.0
NOTHING: Final[AbstractContextManager[None]] = nullcontext()


class _Tracing:
    """This process's tracer; None while traces are off."""

    tracer: Any = None


def setup_tracing(role: str, endpoint: str) -> None:
    """From now on send this process's spans to the OTLP collector at `endpoint`; "" sends none.

    Nothing of OpenTelemetry is imported without an endpoint. Where it is not installed that is said, and no more.
    """
    if not endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces are sent, %s is not installed: pip install 'sfumato[otel]'", error.name)
        return
    about = {"service.name": f"sfumato-{role}", "service.version": VERSION}
    provider = TracerProvider(resource=Resource.create(about))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_WITHIN_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SEND_EVERY_S * 1000))
    _Tracing.tracer = provider.get_tracer("sfumato")


def span(
    name: str, parent: str = "", began_at: float | None = None, **attributes: str | int
) -> AbstractContextManager[None]:
    """A part of a job's way, around the code that does it; spans made inside of it are its parts.

    `parent` is a traceparent that came from elsewhere; without one it is the span around. `began_at` is Unix seconds.
    """
    return NOTHING if _Tracing.tracer is None else _Recorded(name, parent, began_at, attributes).around()


def spanned(name: str, parent: str, began_at: float, ended_at: float, **attributes: str | int) -> None:
    """A part of a job's way that is over already (Unix seconds)."""
    if _Tracing.tracer is not None:
        _Recorded(name, parent, began_at, attributes).start().end(_nanoseconds(max(began_at, ended_at)))


def traceparent() -> str:
    """What names the span around to others, as W3C's header of this name; "" when there is none."""
    if _Tracing.tracer is None:
        return ""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}" if context.is_valid else ""


class _Recorded:
    def __init__(self, name: str, parent: str, began_at: float | None, attributes: dict[str, str | int]) -> None:
        self._name, self._parent, self._began_at = name, parent, began_at
        self._attributes = {f"sfumato.{key}": value for key, value in attributes.items()}

    def start(self) -> Any:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # What can't be read as a traceparent begins a trace of its own.
        context = TraceContextTextMapPropagator().extract({"traceparent": self._parent}) if self._parent else None
        began = _nanoseconds(time.time() if self._began_at is None else self._began_at)
        return _Tracing.tracer.start_span(self._name, context, attributes=self._attributes, start_time=began)

    @contextmanager
    def around(self) -> Iterator[None]:
        from opentelemetry.trace import use_span

        with use_span(self.start(), end_on_exit=True):
            yield


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
