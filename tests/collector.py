"""A collector of traces, as any that speaks OTLP over HTTP: it takes what is posted to it, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "Taken", "collecting"]


@dataclass(frozen=True)
class Taken:
    """A span as it arrived; ids in hexadecimal, times in Unix seconds."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    began_at: float
    ended_at: float
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Where it listens, and what came."""

    url: str = ""
    spans: list[Taken] = field(default_factory=list)

    def of_job(self, job_id: str) -> dict[str, Taken]:
        """Name → span of the trace in which this job was accepted."""
        traces = {span.trace for span in self.spans if span.attributes.get("sfumato.job") == job_id}
        return {span.name: span for span in self.spans if span.trace in traces}

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_taken(about["service.name"], span) for span in scope.spans]


def _taken(service: str, span: Any) -> Taken:
    values = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    times = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
    return Taken(service, span.name, *ids, *times, values)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collector.take(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
