"""One story: clients, gateways, dispatchers, workers, a recorder and a canceler on one world, under a seeded scheduler.

Everything that runs here is the product's own protocol code; only ports, time and luck are ours. `Story.verdict` is the
judge: it looks at the world and at the clients' own ledger, never at what a role says of itself.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sfumato.core.errors import TransientError
from sfumato.core.events import Alive, Ended, Running, decode_event, decode_job
from sfumato.core.job import Job, Outcome, Priority, State, uuid7
from sfumato.core.params import ModelRules, ParamsRequest, Shape
from sfumato.core.ports import Received
from sfumato.core.retry import RetryPolicy
from sfumato.dispatcher.dispatcher import Dispatcher
from sfumato.gateway.intake import Given, Intake, Submission
from sfumato.gateway.pictures import PictureHeader
from sfumato.models.registry import Model
from sfumato.recorder.recorder import Recorder
from sfumato.worker.duties import Duties, Held, Result
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World
from tests.simulation.scheduler import DEADLY, Process, Scheduler
from tests.support import NOW

__all__ = ["Makers", "Story"]

T = TypeVar("T")

MODEL = Model(
    name="restyle",
    slug="restyle",
    backend="simulated",
    path=Path(),
    rules=ModelRules(shapes=(Shape(64, 64),)),
    max_backlog=1000,
    batch=2,
    slots=2,
    summary="",
)
PICTURE = Given(b"a picture", "0" * 64)
HEADER = PictureHeader(media_type="image/png", width=64, height=64)


@dataclass
class Ledger:
    """What the clients know: their own notes, made when an answer reached them."""

    accepted: set[str] = field(default_factory=set)
    canceled: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Makers:
    """What a test may replace to plant a fault."""

    intake: type[Intake] = Intake
    duties: type[Duties] = Duties


class Story:
    """`jobs` clients submit, some cancel; two dispatchers and two workers share the work; `faults` things go wrong."""

    def __init__(self, seed: int, makers: Makers, jobs: int = 3, faults: int = 8, poison: str = "") -> None:
        self.scheduler = Scheduler(seed, NOW, faults)
        self.world = World(clock=lambda: self.scheduler.now, io=self._seam)
        self.ledger = Ledger()
        self.broken: list[str] = []
        self._makers, self._jobs, self._poison = makers, jobs, poison
        self._finished_clients = 0
        self._gateways: list[tuple[Process, Intake]] = []
        for name in ("gateway a", "gateway b"):
            self.scheduler.add(name, self._gateway)
        for name in ("dispatcher a", "dispatcher b"):
            self.scheduler.add(name, self._dispatcher)
        for name in ("worker a", "worker b"):
            self.scheduler.add(name, self._worker)
        self.scheduler.add("recorder", self._recorder)
        self.scheduler.add("clients", self._all_clients, mortal=False)

    def run(self) -> str:
        """What went wrong, or nothing; `scheduler.history` says how it came."""
        ended = self.scheduler.run(self._all_well, most_turns=6_000)
        trouble = self.broken or self._verdict(ended)
        return "; ".join(trouble)

    # The processes

    async def _gateway(self, process: Process) -> None:
        self._gateways = [(other, intake) for other, intake in self._gateways if other is not process]
        broker = MemoryBroker(self.world)
        stores = MemoryBlobs(self.world), MemoryOutcomes(self.world), MemoryRows(self.world)
        self._gateways.append((process, self._makers.intake(broker, *stores, job_wait_s=86_400.0)))
        while True:
            await self.scheduler.rest("idle", for_s=3600.0)

    async def _dispatcher(self, process: Process) -> None:
        del process
        broker = MemoryBroker(self.world)
        dispatcher = Dispatcher(
            "restyle",
            broker.jobs("restyle"),
            broker.work("restyle"),
            broker.events("restyle"),
            MemoryOutcomes(self.world),
        )
        leads = False
        while True:
            try:
                leads = leads or await dispatcher.lead(self.scheduler.now)
                leads = leads and await dispatcher.turn(self.scheduler.now)
            except TransientError:
                leads = False
            await self.scheduler.rest("idle", for_s=0.05 if leads else 0.5)

    async def _worker(self, process: Process) -> None:
        broker, runs = MemoryBroker(self.world), dict[str, Running | None]()
        work, events = broker.work("restyle"), broker.events("restyle")
        name = f"{process.name} {process.deaths}"
        stores = MemoryBlobs(self.world), MemoryOutcomes(self.world)
        duties = self._makers.duties(name, work, events, *stores, RetryPolicy())
        while True:
            try:
                for received in await work.receive(MODEL.slots + 1 - len(runs), wait_s=0):
                    runs[received.receipt] = None
                    self.scheduler.spawn(process, self._handle(duties, received, runs))
                alive = Alive(at=self.scheduler.now, worker=name, slots=MODEL.slots, lanes=tuple(sorted(work.lanes)))
                told = tuple(run for run in runs.values() if run is not None)
                await events.append([alive.model_copy(update={"running": told})])
            except TransientError:
                pass
            await self.scheduler.rest("idle", for_s=0.1)

    async def _handle(self, duties: Duties, received: Received, runs: dict[str, Running | None]) -> None:
        held = await self._surely(lambda: duties.take(received, self.scheduler.now))
        if held is not None:
            job, work = held.job, held.work
            runs[held.receipt] = Running(job_id=job.id, attempt=work.attempt, delivery=work.delivery, step=1, steps=2)
            await self._make(duties, held)
        del runs[received.receipt]

    async def _make(self, duties: Duties, held: Held) -> None:
        await self._surely(lambda: duties.start(held, self.scheduler.now))
        await self._surely(lambda: duties.fetch(held))
        for _ in range(3):
            await self.scheduler.rest("step")
        if held.job.params.prompt == self._poison:
            await self.scheduler.rest(DEADLY)
        if self.scheduler.dice.random() < 0.05:
            return await self._fail(duties, held)
        outcome = await self._surely(lambda: duties.ended(held))
        if outcome is not None:
            return await self._surely(lambda: duties.follow(held, outcome, self.scheduler.now))
        if self.scheduler.dice.random() < 0.05:
            return await self._surely(lambda: duties.hand_back(held, self.scheduler.now))
        nonce = f"{self.scheduler.dice.getrandbits(64):016x}"
        result = Result(b"made", "image/png", 64, 64, nonce)
        await self._surely(lambda: duties.succeed(held, result, self.scheduler.now))
        return None

    async def _fail(self, duties: Duties, held: Held) -> None:
        await self._surely(lambda: duties.fail(held, TransientError("a passing trouble"), self.scheduler.now, 0.0))

    async def _surely(self, duty: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await duty()
            except TransientError:
                await self.scheduler.rest("pauses", for_s=0.2)

    async def _recorder(self, process: Process) -> None:
        del process
        recorder = Recorder(["restyle"], MemoryBroker(self.world), MemoryRows(self.world), MemoryOutcomes(self.world))
        while True:
            with suppress(TransientError):
                await recorder.turn(self.scheduler.now)
            await self.scheduler.rest("idle", for_s=0.1)

    # The clients

    async def _all_clients(self, process: Process) -> None:
        for number in range(self._jobs):
            self.scheduler.spawn(process, self._client(number))
        while True:
            await self.scheduler.rest("idle", for_s=3600.0)

    async def _client(self, number: int) -> None:
        dice = self.scheduler.dice
        submission = self._submission(number)
        job_id = submission.job_id
        while await self._ask(lambda intake: intake.accept(submission, self.scheduler.now)) is None:
            await self.scheduler.rest("tries again", for_s=0.1)
        self.ledger.accepted.add(job_id)
        if dice.random() < 0.3:
            await self._ask(lambda intake: intake.accept(submission, self.scheduler.now))
        if dice.random() < 0.4:
            await self.scheduler.rest("thinks", for_s=dice.choice((0.0, 0.1, 0.3, 4.0)))
            outcome = await self._ask(lambda intake: intake.cancel(job_id, self.scheduler.now))
            if outcome is not None and outcome.state is State.CANCELED:
                self.ledger.canceled.add(job_id)
        self._finished_clients += 1

    def _submission(self, number: int) -> Submission:
        return Submission(
            job_id=uuid7(NOW, number.to_bytes(10, "big")),
            keyed=True,
            owner=f"owner {number % 2}",
            model=MODEL,
            priority=list(Priority)[number % 3],
            asked=ParamsRequest(prompt=f"job {number}"),
            picture=PICTURE,
            header=HEADER,
            metadata={},
        )

    async def _ask(self, call: Callable[[Intake], Awaitable[T]]) -> T | None:
        """What a gateway answered; None when no answer came: it died, said 503, or the answer was lost."""
        living = [(process, intake) for process, intake in self._gateways if process.lives]
        if not living:
            await self.scheduler.rest("finds nobody", for_s=0.1)
            return None
        process, intake = self.scheduler.dice.choice(living)
        box: list[T | None] = []

        async def request() -> None:
            try:
                box.append(await call(intake))
            except TransientError:
                box.append(None)

        deaths = process.deaths
        self.scheduler.spawn(process, request())
        while not box:
            await self.scheduler.rest("waits", for_s=0.02)
            if process.deaths != deaths:
                return None
        return box[0]

    # The judge

    async def _seam(self, what: str) -> None:
        if what == "committed":
            self._check_commit()
        await self.scheduler.io(what)

    def _check_commit(self) -> None:
        topic = self.world.topic("restyle")
        for raw in topic.jobs[: topic.committed.position]:
            job = decode_job(raw)
            if isinstance(job, Job) and job.id not in self.world.outcomes:
                self.broken.append(f"committed past {job.params.prompt}, which has not ended")

    def _all_well(self) -> bool:
        return bool(self.broken) or (self._finished_clients == self._jobs and not self._missing())

    def _missing(self) -> list[str]:
        """What has not come to its end yet."""
        missing = [f"{job_id} has no outcome" for job_id in self.ledger.accepted if job_id not in self.world.outcomes]
        for job_id in self.ledger.accepted:
            row = self.world.rows.get(job_id)
            if row is None or not row.state.terminal:
                missing.append(f"{job_id} is shown {row.state if row else 'nowhere'}")
        topic = self.world.topic("restyle")
        if topic.work:
            missing.append(f"{len(topic.work)} hand-outs are not acknowledged")
        if topic.committed.position < len(topic.jobs):
            missing.append(f"committed {topic.committed.position} of {len(topic.jobs)}")
        return missing

    def _verdict(self, ended: bool) -> list[str]:
        if not ended:
            return self._missing() or ["a client was never answered"]
        trouble = [
            f"{job_id} was answered canceled and is {self.world.outcomes[job_id].state}"
            for job_id in self.ledger.canceled
            if self.world.outcomes[job_id].state is not State.CANCELED
        ]
        for raw in self.world.topic("restyle").events:
            event = decode_event(raw)
            if isinstance(event, Ended) and event.outcome != self.world.outcomes[event.job_id]:
                trouble.append(f"{event.job_id} was told as {event.outcome.state}, which does not hold")
        for job_id in self.ledger.accepted:
            outcome = self.world.outcomes[job_id]
            if self.world.rows[job_id].outcome != outcome:
                trouble.append(f"the row of {job_id} does not show its outcome")
            if outcome.picture is not None and outcome.picture.key not in self.world.blobs:
                trouble.append(f"{job_id} succeeded without a picture")
        buried = {letter.job.id for letter in self.world.topic("restyle").dead}
        if buried != {job_id for job_id, outcome in self.world.outcomes.items() if _is_dead_letter(outcome)}:
            trouble.append("other jobs were buried than those that ended as dead letters")
        return trouble


def _is_dead_letter(outcome: Outcome) -> bool:
    return outcome.error is not None and outcome.error.slug == "dead-letter"
