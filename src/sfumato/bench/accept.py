"""`sfumato bench accept`: what accepting a picture costs a gateway, beside one as it is usually written.

Both get the same 50 KB picture as multipart and answer once it is stored and its message is acknowledged by a real
Kafka (acks=all), first over an object store that answers at once, so that what is measured is the gateway, then over a
real one. Ours runs as shipped: everything validated, hashed, signed and counted. CPU time is the gateway process's own,
of all its threads, as the system counts it. Where there are cores enough the gateway has one and everything else the
others. Each figure is the median of a few rounds, in which the gateways take turns.
"""

import asyncio
import base64
import io
import json
import random
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.gateways import MODEL, TOPIC, ours, stub, usual
from sfumato.bench.load import Load, form, post, send, trickle
from sfumato.bench.machine import BenchFailed, cores, cpu_s, many_files, needs, on_cores, peak_mib
from sfumato.cluster.kafka import kafka
from sfumato.cluster.s3 import new_place
from sfumato.cluster.seaweedfs import seaweedfs
from sfumato.cluster.server import Recipe, Server, free_ports, running
from sfumato.process import run as run_loop
from sfumato.storage.s3_place import S3Place

__all__ = ["Plan", "Row", "Slow", "run"]

PICTURE_BYTES: Final = 50_000
SMALL_SIDE: Final = 16
PATH: Final = f"/api/diffusion?model_name={MODEL}&prompt=neon&priority=normal"
AT_ONCE: Final = "answers at once"
Gateway = Literal["usual", "sfumato"]
GATEWAYS: Final[Sequence[Gateway]] = ("usual", "sfumato")


@dataclass(frozen=True, slots=True)
class Plan:
    """`connections` at once, `seconds` a run, `rounds` of each; `slow` uploads at once of `slow_bytes` each."""

    connections: int = 32
    seconds: float = 5.0
    rounds: int = 3
    slow: int = 1_000
    slow_bytes: int = 300_000


@dataclass(frozen=True, slots=True)
class Row:
    """One gateway over one store: at full load, requests and CPU; at half of that, latencies. Medians of the rounds."""

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
    """What became of many slow uploads at once, and the gateway's largest resident set (MiB): before, after, and after
    the same once more."""

    uploads: int
    accepted: int
    refused: int
    before_mib: float
    peak_mib: float
    again_mib: float


def run(json_file: Path | None, plan: Plan | None = None) -> Table:
    """Start Kafka and the stores in a folder of their own and measure; the table to print, rows to `json_file`.

    Raises:
        ExtraMissing: a package is not installed; the message says which extra has it.
        ServerMissing: Kafka or the object store is not on this machine; the message says how to get it.
        BenchFailed: a gateway answered otherwise than 202.
    """
    needs("bench", "boto3", "aiokafka", "python_multipart")
    needs("cluster", "confluent_kafka")
    many_files()
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
    """The servers, running, and gateways over them; all but the gateways on the other cores, this process too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._measured, self._others = cores()
        self.stores: dict[str, S3Place] = {}

    def __enter__(self) -> "_Bench":
        kafka_port, controller_port, stub_port, real_port = free_ports(4)
        self.kafka = f"127.0.0.1:{kafka_port}"
        self.stores = {AT_ONCE: new_place(stub_port), "SeaweedFS": new_place(real_port)}
        with ExitStack() as stack:
            stack.enter_context(on_cores(self._others))
            for recipe in (
                kafka(self.folder / "kafka", kafka_port, controller_port),
                stub(stub_port),
                seaweedfs(self.folder / "seaweedfs", self.stores["SeaweedFS"]),
            ):
                stack.enter_context(self._running(recipe))
            asyncio.run(_make_topic(self.kafka))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def gateway(self, which: Gateway, place: S3Place) -> Iterator[tuple[int, Server]]:
        """A gateway over Kafka and this store, new: its port, and its process."""
        (port,) = free_ports(1)
        recipe = ours(self.folder / which, port, self.kafka, place)
        if which == "usual":
            recipe = usual(port, self.kafka, place)
        with ExitStack() as stack:
            with on_cores(self._measured):
                server = stack.enter_context(self._running(recipe))
            yield port, server

    @contextmanager
    def _running(self, recipe: Recipe) -> Iterator[Server]:
        with running(recipe, self.folder / "logs" / f"{recipe.name}.log") as server:
            yield server


def _compare(bench: _Bench, store: str, plan: Plan) -> Iterator[Row]:
    request = form(PATH, _picture(PICTURE_BYTES), "image/jpeg")
    rows: dict[Gateway, list[Row]] = {which: [] for which in GATEWAYS}
    for _ in range(plan.rounds):
        for which, measured in rows.items():
            with bench.gateway(which, bench.stores[store]) as (port, server):
                row = _measured(port, server, request, plan)
                measured.append(replace(row, what="50 KB multipart", store=store, gateway=which))
    for measured in rows.values():
        yield _median(measured)


def _json(bench: _Bench, plan: Plan) -> Row:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SMALL_SIDE, SMALL_SIDE)).convert("RGB").save(file, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    request = post(
        "/api/jobs",
        "application/json",
        json.dumps({"model_name": MODEL, "prompt": "neon", "image": image}).encode(),
    )
    rows = []
    for _ in range(plan.rounds):
        with bench.gateway("sfumato", bench.stores[AT_ONCE]) as (port, server):
            rows.append(_measured(port, server, request, plan))
    return _median(rows)


def _measured(port: int, server: Server, request: bytes, plan: Plan) -> Row:
    _good(send(port, request, plan.connections, plan.seconds / 4))  # connections and pools are made in these
    before_s = cpu_s(server.pid)
    full = _good(send(port, request, plan.connections, plan.seconds))
    cpu_ms = (cpu_s(server.pid) - before_s) / len(full.took_s) * 1000
    half = _good(send(port, request, plan.connections, plan.seconds, per_s=full.per_s / 2))
    return Row(
        what="JSON, small picture",
        store=AT_ONCE,
        gateway="sfumato",
        per_s=round(full.per_s, 1),
        cpu_ms=round(cpu_ms, 3),
        half_load_per_s=round(half.per_s, 1),
        p50_ms=round(half.quantile_s(0.5) * 1000, 2),
        p99_ms=round(half.quantile_s(0.99) * 1000, 2),
    )


def _median(rows: Sequence[Row]) -> Row:
    """Figure by figure, so that one disturbed round spoils none of them."""
    names = ("per_s", "cpu_ms", "half_load_per_s", "p50_ms", "p99_ms")
    return replace(rows[0], **{name: round(median(getattr(row, name) for row in rows), 3) for name in names})


def _slow(bench: _Bench, plan: Plan) -> Slow:
    request = form(PATH, _noise_png(plan.slow_bytes), "image/png")
    with bench.gateway("sfumato", bench.stores[AT_ONCE]) as (port, server):
        before = peak_mib(server.pid)
        accepted, refused = _trickled(port, request, plan)
        after = peak_mib(server.pid)
        _trickled(port, request, plan)
        again = peak_mib(server.pid)
    return Slow(plan.slow, accepted, refused, round(before, 1), round(after, 1), round(again, 1))


def _trickled(port: int, request: bytes, plan: Plan) -> tuple[int, int]:
    """How many were accepted, and how many told to come back."""
    statuses = run_loop(trickle(port, request, plan.slow, plan.seconds))
    accepted, refused = statuses.get(202, 0), statuses.get(503, 0)
    if accepted + refused != plan.slow:
        raise BenchFailed(f"slow uploads were answered {statuses}, not 202 or 503 alone.")
    return accepted, refused


def _good(loading: Coroutine[Any, Any, Load]) -> Load:
    load = run_loop(loading)
    if set(load.statuses) != {202}:
        raise BenchFailed(f"a gateway answered {load.statuses} instead of 202 alone.")
    return load


async def _make_topic(brokers: str) -> None:
    """Make the usual gateway's topic as ours are made: by asking our broker for its end."""
    from sfumato.broker.kafka import KafkaBroker

    broker = KafkaBroker(brokers, takeover_s=6.0, prefix=TOPIC.partition(".")[0], answer_s=10.0)
    await broker.jobs(MODEL).last()
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
    side, file = int((size_bytes / 3) ** 0.5), io.BytesIO()
    noise = random.Random(1).randbytes(side * side * 3)
    Image.frombytes("RGB", (side, side), noise).save(file, "PNG", compress_level=0)
    return file.getvalue()


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
    came = f"{slow.accepted} accepted, {slow.refused} told to come back (503)"
    sizes = f"{slow.before_mib:.0f} MiB before, {slow.peak_mib:.0f} after, {slow.again_mib:.0f} after as many again"
    lines.append(f"{slow.uploads} slow uploads at once: {came}; the gateway's largest resident set:")
    lines.append(f"{sizes}.")
    return "\n".join(lines)
