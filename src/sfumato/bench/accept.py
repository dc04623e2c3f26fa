"""`sfumato bench accept`: what accepting a picture costs a gateway, beside one as it is usually written.

Both get the same 50 KB picture as multipart and answer once it is stored and its message is acknowledged by a real
Kafka (acks=all), first over an object store that answers at once, so that what is measured is the gateway, then over a
real one. Ours runs as shipped: everything validated, hashed, signed and counted. CPU time is the gateway process's own,
of all its threads, as the system counts it.
"""

import asyncio
import base64
import io
import json
import os
import random
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.load import Load, form, post, send, trickle
from sfumato.broker.kafka import KafkaBroker
from sfumato.cluster.kafka import kafka
from sfumato.cluster.s3 import new_place
from sfumato.cluster.seaweedfs import seaweedfs
from sfumato.cluster.server import Recipe, Server, free_ports, running
from sfumato.core.errors import SfumatoError
from sfumato.core.job import InputPicture, Job, Priority, uuid7
from sfumato.core.params import Params, Sampler
from sfumato.storage.s3_place import S3Place

__all__ = ["Plan", "Row", "Slow", "run"]

MODEL: Final = "free"
MODELS_TOML: Final = f"""
[models.{MODEL}]
backend = "simulated"
max_backlog = 1000000000
"""
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PICTURE_BYTES: Final = 50_000
SMALL_SIDE: Final = 16
PATH: Final = f"/api/diffusion?model_name={MODEL}&prompt=neon&priority=normal"
Gateway = Literal["usual", "sfumato"]


class BenchFailed(SfumatoError):
    """A gateway that was to be measured answered otherwise than it should."""

    slug = "bench-failed"
    title = "What was to be measured failed"


@dataclass(frozen=True, slots=True)
class Plan:
    """`connections` at once, `seconds` a run; `slow` uploads at once of `slow_bytes` each."""

    connections: int = 32
    seconds: float = 8.0
    slow: int = 1_000
    slow_bytes: int = 300_000


@dataclass(frozen=True, slots=True)
class Row:
    """One gateway over one store: at full load, requests and CPU; at half of that, latencies."""

    what: str
    store: str
    gateway: Gateway
    per_s: float
    cpu_ms: float
    half_load_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Slow:
    """What became of many slow uploads at once, and the gateway's largest resident set before and after (MiB)."""

    uploads: int
    accepted: int
    refused: int
    before_mib: float
    peak_mib: float


def run(json_file: Path | None, plan: Plan | None = None) -> Table:
    """Start Kafka and the stores in a folder of their own and measure; the table to print, rows to `json_file`.

    Raises:
        ServerMissing: Kafka or the object store is not on this machine; the message says how to get it.
        BenchFailed: a gateway answered otherwise than 202.
    """
    plan = plan or Plan()
    with tempfile.TemporaryDirectory(prefix="sfumato-bench-") as folder, _Bench(Path(folder)) as bench:
        rows = [row for store in bench.stores for row in _compare(bench, store, plan)]
        rows.append(_json(bench, plan))
        slow = _slow(bench, plan)
    if json_file is not None:
        content = {"rows": [asdict(row) for row in rows], "slow": asdict(slow)}
        json_file.write_text(json.dumps(content, indent=1) + "\n")
    return _table(rows, slow)


class _Bench:
    """The servers, running, and gateways over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.stores: dict[str, S3Place] = {}

    def __enter__(self) -> "_Bench":
        kafka_port, controller_port, stub_port, real_port = free_ports(4)
        self.kafka = f"127.0.0.1:{kafka_port}"
        self._start(kafka(self.folder / "kafka", kafka_port, controller_port))
        self.stores["answers at once"] = new_place(stub_port)
        self._start(_stub(stub_port))
        self.stores["SeaweedFS"] = new_place(real_port)
        self._start(seaweedfs(self.folder / "seaweedfs", self.stores["SeaweedFS"]))
        asyncio.run(_make_topic(self.kafka))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, recipe: Recipe) -> Server:
        return self._stack.enter_context(running(recipe, self.folder / "logs" / f"{recipe.name}.log"))

    @contextmanager
    def gateway(self, which: Gateway, place: S3Place) -> Iterator[tuple[int, Server]]:
        """A gateway over Kafka and this store: its port, and its process."""
        (port,) = free_ports(1)
        recipe = _ours(self.folder, port, self.kafka, place) if which == "sfumato" else _usual(port, self.kafka, place)
        with running(recipe, self.folder / "logs" / f"{which}.log") as server:
            yield port, server


def _compare(bench: _Bench, store: str, plan: Plan) -> Iterator[Row]:
    request = form(PATH, _picture(PICTURE_BYTES), "image/jpeg")
    for which in ("usual", "sfumato"):
        with bench.gateway(which, bench.stores[store]) as (port, server):
            yield replace(_measured(port, server, request, plan), store=store, gateway=which)


def _json(bench: _Bench, plan: Plan) -> Row:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SMALL_SIDE, SMALL_SIDE)).convert("RGB").save(file, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    body = json.dumps({"model_name": MODEL, "prompt": "neon", "image": image}).encode()
    with bench.gateway("sfumato", bench.stores["answers at once"]) as (port, server):
        row = _measured(port, server, post("/api/jobs", "application/json", body), plan)
    return replace(row, what="JSON, small picture", store="answers at once", gateway="sfumato")


def _measured(port: int, server: Server, request: bytes, plan: Plan) -> Row:
    _good(send(port, request, plan.connections, plan.seconds / 4))  # connections and pools are made in these
    before_s = _cpu_s(server.pid)
    full = _good(send(port, request, plan.connections, plan.seconds))
    cpu_ms = (_cpu_s(server.pid) - before_s) / len(full.took_s) * 1000
    half = _good(send(port, request, plan.connections, plan.seconds, per_s=full.per_s / 2))
    return Row(
        what="50 KB multipart",
        store="",
        gateway="sfumato",
        per_s=round(full.per_s, 1),
        cpu_ms=round(cpu_ms, 3),
        half_load_per_s=round(half.per_s, 1),
        p50_ms=round(half.quantile_s(0.5) * 1000, 2),
        p99_ms=round(half.quantile_s(0.99) * 1000, 2),
    )


def _slow(bench: _Bench, plan: Plan) -> Slow:
    request = form(PATH, _noise_png(plan.slow_bytes), "image/png")
    with bench.gateway("sfumato", bench.stores["answers at once"]) as (port, server):
        before = _peak_mib(server.pid)
        statuses = asyncio.run(trickle(port, request, plan.slow, plan.seconds))
        after = _peak_mib(server.pid)
    accepted, refused = statuses.get(202, 0), statuses.get(503, 0)
    if accepted + refused != plan.slow:
        raise BenchFailed(f"slow uploads were answered {statuses}, not 202 or 503 alone.")
    return Slow(plan.slow, accepted, refused, round(before, 1), round(after, 1))


def _good(loading: Coroutine[Any, Any, Load]) -> Load:
    load = asyncio.run(loading)
    if set(load.statuses) != {202}:
        raise BenchFailed(f"a gateway answered {load.statuses} instead of 202 alone.")
    return load


def _ours(folder: Path, port: int, brokers: str, place: S3Place) -> Recipe:
    data = folder / "ours"
    data.mkdir(exist_ok=True)
    (data / "models.toml").write_text(MODELS_TOML)
    settings = {
        "DATA_DIR": str(data),
        "PORT": str(port),
        "KAFKA_SERVERS": brokers,
        "S3_ENDPOINT": place.endpoint,
        "S3_BUCKET": place.bucket,
        "S3_ACCESS_KEY_ID": place.access_key_id,
        "S3_SECRET_ACCESS_KEY": place.secret_access_key,
        "LOG_LEVEL": "warning",
    }
    environment = {f"SFUMATO_{name}": value for name, value in settings.items()}
    return Recipe("ours", (sys.executable, "-m", "sfumato", "gateway"), _answering(port, "/healthz"), environment)


def _usual(port: int, brokers: str, place: S3Place) -> Recipe:
    words = (brokers, TOPIC, place.endpoint, place.bucket, place.access_key_id, place.secret_access_key)
    command = (sys.executable, "-m", "sfumato.bench.baselines.gateway", str(port), *words)
    return Recipe("usual", command, _answering(port, "/openapi.json"))


def _stub(port: int) -> Recipe:
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


TOPIC: Final = f"usual.jobs.{MODEL}"


async def _make_topic(brokers: str) -> None:
    """Publish once through our own broker, which makes the topic as its own are made."""
    broker = KafkaBroker(brokers, takeover_s=6.0, prefix="usual", answer_s=10.0)
    size = {"width": 64, "height": 64}
    params = Params(
        prompt="", strength=1, num_inference_steps=1, guidance_scale=1, seed=1, sampler=Sampler.DDIM, **size
    )
    picture = InputPicture(key="inputs/none", media_type="image/png", size_bytes=1, **size)
    job = Job(
        id=uuid7(0.0, bytes(10)),
        owner="bench",
        model=MODEL,
        priority=Priority.NORMAL,
        cost=1,
        created_at=0.0,
        expires_at=1.0,
        params=params,
        input=picture,
    )
    await broker.jobs(MODEL).publish(job)
    await broker.close()


def _picture(size_bytes: int) -> bytes:
    """A JPEG of about this size: noise, which no coder makes small."""
    dice, side = random.Random(1), 64
    while True:
        file = io.BytesIO()
        Image.frombytes("RGB", (side, side), dice.randbytes(side * side * 3)).save(file, "JPEG", quality=90)
        if file.tell() >= size_bytes:
            return file.getvalue()
        side += 8


def _noise_png(size_bytes: int) -> bytes:
    side = int((size_bytes / 3) ** 0.5)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3)).save(
        file, "PNG", compress_level=0
    )
    return file.getvalue()


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used, in and out of the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _table(rows: Sequence[Row], slow: Slow) -> Table:
    table = Table(title="Accepting", caption=_caption(rows, slow), caption_justify="left", box=SIMPLE_HEAD)
    for column in ("request", "store", "gateway"):
        table.add_column(column)
    for column in ("requests/s", "CPU ms each", "at half load: p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for row in rows:
        figures = (f"{row.per_s:.0f}", f"{row.cpu_ms:.2f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}")
        table.add_row(row.what, row.store, row.gateway, *figures)
    return table


def _caption(rows: Sequence[Row], slow: Slow) -> str:
    lines = []
    for store in dict.fromkeys(row.store for row in rows):
        cpu = {row.gateway: row.cpu_ms for row in rows if row.store == store and row.what.startswith("50 KB")}
        lines.append(f"{store}: the usual gateway takes {cpu['usual'] / cpu['sfumato']:.1f} times the CPU.")
    lines.append(
        f"{slow.uploads} slow uploads at once: {slow.accepted} accepted, {slow.refused} told to come back (503); "
        f"largest resident set {slow.before_mib:.0f} MiB before, {slow.peak_mib:.0f} MiB after."
    )
    return "\n".join(lines)
