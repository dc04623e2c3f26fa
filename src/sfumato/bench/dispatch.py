"""`sfumato bench dispatch`: how fast a dispatcher hands out over a real Kafka, and how fast another takes its place.

The dispatcher is the role as shipped, a process of its own. Jobs are published as a gateway does it, and received by a
stand-in for the fleet, which tells that it lives, has slots without end and ends each job at once, or that it has none.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.figures import quantile
from sfumato.bench.machine import BenchFailed, cores, many_files, needs, on_cores
from sfumato.cluster.kafka import kafka
from sfumato.cluster.server import Recipe, Server, free_ports
from sfumato.core.events import Alive, Dispatched, Ended, Standing
from sfumato.core.job import InputPicture, Job, Outcome, Priority, State, Work, uuid7
from sfumato.core.params import Params, Sampler
from sfumato.process import run as run_loop

if TYPE_CHECKING:
    from sfumato.broker.kafka import KafkaBroker
    from sfumato.broker.kafka_events import KafkaEvents
    from sfumato.broker.kafka_work import KafkaWork

__all__ = ["Plan", "Row", "run"]

MODEL: Final = "free"
MODELS_TOML: Final = f"""
[models.{MODEL}]
backend = "simulated"
"""
TAKEOVER_S: Final = 3.0
BEAT_S: Final = 1.0
ENDLESS_SLOTS: Final = 1_000_000
AT_ONCE: Final = 500
"""Publishes under way at the same time."""
READ_AT_ONCE: Final = 2_000
GIVE_UP_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs are handed out at full speed, wait during a takeover, and go through one by one."""

    jobs: int = 30_000
    waiting: int = 100_000
    hops: int = 300


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, what was wanted of it, and its unit in `what`."""

    what: str
    wanted: str
    figure: float


def run(json_file: Path | None, plan: Plan | None = None) -> Table:
    """Start Kafka in a folder of its own and measure; the table to print, rows to `json_file`.

    Raises:
        ExtraMissing: a package is not installed; the message says which extra has it.
        ServerMissing: Kafka is not on this machine; the message says how to get it.
        BenchFailed: nothing was handed out, or nobody took over.
    """
    needs("cluster", "confluent_kafka")
    many_files()
    plan = plan or Plan()
    with tempfile.TemporaryDirectory(prefix="sfumato-bench-") as folder, ExitStack() as stack:
        port, controller_port = free_ports(2)
        stack.enter_context(on_cores(cores()[1]))
        server = Server(kafka(Path(folder, "kafka"), port, controller_port), Path(folder, "kafka.log"))
        stack.callback(server.stop)
        server.start()
        bench = _Bench(Path(folder), f"127.0.0.1:{port}")
        rows = [*run_loop(_hops(bench, plan.hops)), *run_loop(_hand_outs(bench, plan.jobs))]
        rows += run_loop(_takeover(bench, plan.waiting))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    table = Table(title="Handing out over Kafka", box=SIMPLE_HEAD)
    for column in ("what", "wanted", "figure"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(row.what, row.wanted, f"{row.figure:,.{0 if row.figure >= 100 else 2}f}")
    return table


class _Bench:
    """The broker; each measurement has a model of its own on it, so that none meets what another left."""

    def __init__(self, folder: Path, servers: str) -> None:
        self._folder, self.servers = folder, servers

    def model(self) -> "_Model":
        return _Model(self._folder / uuid4().hex[:8], self.servers)


class _Model:
    """One model: its name, who dispatches for it, and our ends of its logs."""

    def __init__(self, folder: Path, servers: str) -> None:
        self.name = f"{MODEL}-{folder.name}"
        self._folder, self._servers = folder, servers
        self._dispatchers: list[Server] = []
        folder.mkdir()
        (folder / "models.toml").write_text(MODELS_TOML.replace(MODEL, self.name))

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[KafkaBroker]":
        """Our own broker; at the end it is closed, and the dispatchers are stopped."""
        from sfumato.broker.kafka import KafkaBroker

        broker = KafkaBroker(self._servers, takeover_s=TAKEOVER_S, answer_s=30.0)
        try:
            yield broker
        finally:
            for dispatcher in self._dispatchers:
                await asyncio.to_thread(dispatcher.stop)
            await broker.close()

    async def dispatch(self) -> Server:
        """Start a dispatcher, on the core for what is measured."""
        settings = {"DATA_DIR": self._folder, "KAFKA_SERVERS": self._servers, "TAKEOVER_S": TAKEOVER_S}
        environment = {f"SFUMATO_{name}": str(value) for name, value in settings.items()}
        command = (sys.executable, "-m", "sfumato", "dispatcher")
        recipe = Recipe("dispatcher", command, lambda: True, environment | {"SFUMATO_BEAT_S": str(BEAT_S)})
        server = Server(recipe, self._folder / f"dispatcher-{len(self._dispatchers)}.log")
        with on_cores(cores()[0]):
            server.start()
        self._dispatchers.append(server)
        return server


class _Fleet:
    """A worker in name: it says that it has `slots`, receives, and tells what it is told to tell."""

    def __init__(self, work: "KafkaWork", events: "KafkaEvents", slots: int) -> None:
        self._work, self._events, self._slots = work, events, slots
        self._told_at = 0.0
        self._lanes: frozenset[int] = frozenset()

    async def receive(self, wait_s: float) -> Sequence[Work]:
        """What came; it is told as alive when it is time for that."""
        received = await self._work.receive(READ_AT_ONCE, wait_s)
        works = [each.work for each in received if isinstance(each.work, Work)]
        if time.time() - self._told_at > BEAT_S or self._work.lanes != self._lanes:
            self._told_at, self._lanes = time.time(), self._work.lanes
            alive = Alive(at=self._told_at, worker="fleet", slots=self._slots, lanes=tuple(sorted(self._lanes)))
            await self._events.append([alive])
        return works

    async def end(self, works: Sequence[Work]) -> None:
        """Tell these as ended."""
        await self._events.append([_ended(work) for work in works])


async def _hops(bench: _Bench, count: int) -> list[Row]:
    """Publish one, wait until a worker has it, publish the next; and the same without a dispatcher in between."""
    model = bench.model()
    async with model.open() as broker:
        jobs, fleet = broker.jobs(model.name), _Fleet(broker.work(model.name), broker.events(model.name), 1_000)
        await jobs.publish(_job(model.name))
        await model.dispatch()
        await fleet.end(await _first(fleet))
        through = []
        for _ in range(count):
            begin = time.perf_counter()
            await jobs.publish(_job(model.name))
            works = await _first(fleet)
            through.append((time.perf_counter() - begin) * 1000)
            await fleet.end(works)
        cursor, direct = await jobs.end(), []
        for _ in range(count):
            begin = time.perf_counter()
            await jobs.publish(_job(model.name))
            cursor = (await jobs.follow(cursor, 10, GIVE_UP_S)).cursor
            direct.append((time.perf_counter() - begin) * 1000)
    through.sort()
    direct.sort()
    return [
        Row("published to received by a worker, p50 ms", "", round(quantile(through, 0.5), 2)),
        Row("the same, p99 ms", "", round(quantile(through, 0.99), 2)),
        Row("published to read, without a dispatcher, p50 ms", "", round(quantile(direct, 0.5), 2)),
        Row("added by the dispatcher, p50 ms", "≤ 8", round(quantile(through, 0.5) - quantile(direct, 0.5), 2)),
    ]


async def _first(fleet: _Fleet) -> Sequence[Work]:
    deadline = time.monotonic() + GIVE_UP_S
    while not (works := await fleet.receive(1.0)):
        if time.monotonic() > deadline:
            raise BenchFailed(f"nothing was handed out within {GIVE_UP_S:.0f} s.")
    return works


async def _hand_outs(bench: _Bench, count: int) -> list[Row]:
    """All wait; then a worker with room for all of them appears."""
    model = bench.model()
    async with model.open() as broker:
        await _publish(broker, model.name, count)
        await model.dispatch()
        await _standing(broker.events(model.name), count, after=0.0)
        events = broker.events(model.name)
        fleet, cursor = _Fleet(broker.work(model.name), events, ENDLESS_SLOTS), await events.end()
        receiving = asyncio.create_task(_receive(fleet, count))
        told: list[float] = []
        while len(told) < count:
            batch = await events.follow(cursor, READ_AT_ONCE, GIVE_UP_S)
            cursor = batch.cursor
            told += [item.value.at for item in batch.items if isinstance(item.value, Dispatched)]
        received_s = await receiving
    # A turn hands out all that it can at one moment, so its end is when the fleet had everything.
    return [
        Row("hand-outs a second, decided to received and told", "≥ 5,000", round(count / (received_s - min(told)), 1))
    ]


async def _receive(fleet: _Fleet, count: int) -> float:
    """Receive so many; when the last one was there (Unix seconds)."""
    received, deadline = 0, time.monotonic() + GIVE_UP_S
    while received < count:
        works = await fleet.receive(1.0)
        await fleet.end(works)
        received += len(works)
        if time.monotonic() > deadline:
            raise BenchFailed(f"{received} of {count} jobs were handed out within {GIVE_UP_S:.0f} s.")
    return time.time()


async def _takeover(bench: _Bench, count: int) -> list[Row]:
    """Kill the dispatcher of so many waiting jobs, beside one that stands by; until that one tells how many wait."""
    model = bench.model()
    async with model.open() as broker:
        await _publish(broker, model.name, count)
        first = await model.dispatch()
        events = broker.events(model.name)
        await _standing(events, count, after=0.0)
        await model.dispatch()
        # The successor is a candidate once it asks; its start takes about two seconds.
        await asyncio.sleep(2 * TAKEOVER_S)
        killed_at = time.time()
        await asyncio.to_thread(first.kill)
        took_s = await _standing(events, count, after=killed_at) - killed_at
    return [
        Row(f"takeover with {count:,} waiting jobs, s", "", round(took_s, 2)),
        Row("the same, after the session timeout, s", "≤ 10", round(max(0.0, took_s - TAKEOVER_S), 2)),
    ]


async def _standing(events: "KafkaEvents", waiting: int, after: float) -> float:
    """When a dispatcher told, later than `after`, that so many wait (Unix seconds)."""
    cursor, deadline = await events.end() if after else "", time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        batch = await events.follow(cursor, READ_AT_ONCE, 1.0)
        cursor = batch.cursor
        for item in batch.items:
            if isinstance(item.value, Standing) and item.value.at > after and item.value.waiting == waiting:
                return time.time()
    raise BenchFailed(f"no dispatcher told of {waiting} waiting jobs within {GIVE_UP_S:.0f} s.")


async def _publish(broker: "KafkaBroker", model: str, count: int) -> None:
    jobs, left = broker.jobs(model), iter(range(count))

    async def some() -> None:
        for _ in left:
            await jobs.publish(_job(model))

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def _job(model: str) -> Job:
    now, size = time.time(), {"width": 64, "height": 64}
    params = Params(
        prompt="neon", strength=1, num_inference_steps=1, guidance_scale=1, seed=1, sampler=Sampler.DDIM, **size
    )
    job_id = uuid7(now, uuid4().bytes)
    return Job(
        id=job_id,
        owner="local",
        model=model,
        priority=Priority.NORMAL,
        cost=64 * 64,
        created_at=now,
        expires_at=now + 86_400,
        params=params,
        input=InputPicture(key=f"inputs/{job_id}/{'0' * 64}", media_type="image/png", size_bytes=1, **size),
    )


def _ended(work: Work) -> Ended:
    outcome = Outcome(job_id=work.job.id, state=State.SUCCEEDED, at=time.time())
    return Ended(job_id=work.job.id, at=outcome.at, attempt=work.attempt, delivery=work.delivery, outcome=outcome)
