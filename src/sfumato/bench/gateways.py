"""The two gateways of `sfumato bench accept`, and the servers that they stand on, as recipes to start."""

import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sfumato.cluster.server import Recipe
from sfumato.storage.s3_place import S3Place

__all__ = ["MODEL", "TOPIC", "ours", "stub", "usual"]

MODEL: Final = "free"
TOPIC: Final = f"usual.jobs.{MODEL}"
"""Where the usual gateway publishes; a topic as our own are."""
MODELS_TOML: Final = f"""
[models.{MODEL}]
backend = "simulated"
max_backlog = 1000000000
"""


def ours(folder: Path, port: int, brokers: str, place: S3Place) -> Recipe:
    """`sfumato gateway` as it is shipped, with metrics in a folder as under `sfumato up`."""
    metrics = folder / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    (folder / "models.toml").write_text(MODELS_TOML)
    settings = {
        "DATA_DIR": str(folder),
        "PORT": str(port),
        "KAFKA_SERVERS": brokers,
        "S3_ENDPOINT": place.endpoint,
        "S3_BUCKET": place.bucket,
        "S3_ACCESS_KEY_ID": place.access_key_id,
        "S3_SECRET_ACCESS_KEY": place.secret_access_key,
        "METRICS_DIR": str(metrics),
        "LOG_LEVEL": "warning",
    }
    environment = {f"SFUMATO_{name}": value for name, value in settings.items()}
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    return Recipe("sfumato", (sys.executable, "-m", "sfumato", "gateway"), _answering(port, "/healthz"), environment)


def usual(port: int, brokers: str, place: S3Place) -> Recipe:
    """The gateway as it is usually written (baselines/gateway.py)."""
    words = (brokers, TOPIC, place.endpoint, place.bucket, place.access_key_id, place.secret_access_key)
    command = (sys.executable, "-m", "sfumato.bench.baselines.gateway", str(port), *words)
    return Recipe("usual", command, _answering(port, "/openapi.json"))


def stub(port: int) -> Recipe:
    """The store that answers at once (stub_s3.py)."""
    command = (sys.executable, "-m", "sfumato.bench.stub_s3", str(port))
    return Recipe("stub", command, lambda: _status(f"http://127.0.0.1:{port}/") is not None)


def _answering(port: int, path: str) -> Callable[[], bool]:
    return lambda: _status(f"http://127.0.0.1:{port}{path}") == 200


def _status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
