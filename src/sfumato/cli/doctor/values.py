"""Settings that are right one by one and have no effect, or not the one that was meant, together."""

from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Final

from sfumato.cli.doctor.finding import Finding

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["of", "strays"]

EXPORTER: Final = "opentelemetry-exporter-otlp-proto-http"
"""Of the extra otel the part that sends; others bring OpenTelemetry's API with them, which sends nothing."""


def strays() -> Iterator[Finding]:
    """Variables that look like settings and are none."""
    from sfumato.config import unknown_variables

    for told in unknown_variables().values():
        what, _, advice = told.partition("; ")
        yield Finding("warning", what, advice)


def of(settings: "Settings") -> Iterator[Finding]:
    """What these settings say that can't be meant, or one line that they are right."""
    found = [*_kafka(settings), *_cluster(settings), *_gateway(settings), *_tracing(settings)]
    yield from found or [Finding("good", "settings")]


def _kafka(settings: "Settings") -> Iterator[Finding]:
    sasl = settings.kafka_security_protocol.startswith("sasl_")
    if sasl and not settings.kafka_sasl_mechanism:
        advice = "choose one: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        yield Finding("bad", f"SFUMATO_KAFKA_SASL_MECHANISM, with {settings.kafka_security_protocol}", advice)
    if settings.kafka_sasl_username and not sasl:
        advice = "set SFUMATO_KAFKA_SECURITY_PROTOCOL to sasl_ssl or sasl_plaintext"
        yield Finding("warning", "SFUMATO_KAFKA_SASL_USERNAME has no effect", advice)
    for name in ("kafka_ssl_ca", "kafka_ssl_certificate", "kafka_ssl_key"):
        file = getattr(settings, name)
        if file is not None and not file.is_file():
            yield Finding("bad", f"SFUMATO_{name.upper()}", f"there is no file {file}")


def _cluster(settings: "Settings") -> Iterator[Finding]:
    servers = {
        "SFUMATO_KAFKA_SERVERS": bool(settings.kafka_servers),
        "SFUMATO_S3_BUCKET": bool(settings.s3_bucket),
        "SFUMATO_DATABASE_URL": bool(settings.database_url.get_secret_value()),
    }
    missing = [name for name, there in servers.items() if not there]
    if 0 < len(missing) < len(servers):
        advice = f"without {' and '.join(missing)} the rest is in a folder here, which other machines don't see"
        yield Finding("warning", "some of the servers of a cluster are named, not all", advice)
    given = [name for name in ("s3_endpoint", "s3_public_url", "s3_access_key_id") if getattr(settings, name)]
    if given and not settings.s3_bucket:
        names = ", ".join(f"SFUMATO_{name.upper()}" for name in given)
        yield Finding("warning", f"{names} without effect", "name the bucket too, in SFUMATO_S3_BUCKET")


def _gateway(settings: "Settings") -> Iterator[Finding]:
    if settings.metrics_port and settings.metrics_port == settings.port:
        yield Finding("bad", f"SFUMATO_METRICS_PORT and SFUMATO_PORT are both {settings.port}", "give each its own")
    if settings.max_upload_bytes > settings.max_body_bytes_in_flight:
        advice = "raise SFUMATO_MAX_BODY_BYTES_IN_FLIGHT, or pictures between the two are never accepted"
        yield Finding("bad", "SFUMATO_MAX_UPLOAD_BYTES is more than one gateway holds", advice)


def _tracing(settings: "Settings") -> Iterator[Finding]:
    if not settings.otlp_endpoint:
        return
    try:
        metadata.version(EXPORTER)
    except metadata.PackageNotFoundError:
        yield Finding("warning", "no traces are sent to SFUMATO_OTLP_ENDPOINT", "pip install 'sfumato[otel]'")
