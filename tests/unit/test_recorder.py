"""The recorder's turn over ports in memory: what it folds, what it ends, and what it never loses."""

import asyncio
from collections.abc import Sequence

import pytest

from sfumato.core.errors import TransientError
from sfumato.core.events import Alive, Ended, JobRow, Started
from sfumato.core.job import Job, Outcome, State
from sfumato.core.pictures import UPLOAD_KEEP_S
from sfumato.core.ports import RowChange
from sfumato.recorder.lag import Lag
from sfumato.recorder.recorder import EXPIRY_GRACE_S, Recorder
from sfumato.recorder.sweep import Keep, Sweep
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World
from tests.support import NOW, counted, make_job

JOB = make_job(1)
EXPIRED = JOB.expires_at + EXPIRY_GRACE_S + 1


@pytest.fixture
def world() -> World:
    return World(clock=lambda: NOW)


def recorder_of(world: World, rows: MemoryRows | None = None, models: Sequence[str] = ("restyle",)) -> Recorder:
    return Recorder(models, MemoryBroker(world), rows or MemoryRows(world), MemoryOutcomes(world))


def publish(world: World, *jobs: Job) -> None:
    for job in jobs:
        asyncio.run(MemoryBroker(world).jobs(job.model).publish(job))


def tell(world: World, *events: Started | Ended | Alive, model: str = "restyle") -> None:
    asyncio.run(MemoryBroker(world).events(model).append(events))


def turn(recorder: Recorder, now: float = NOW) -> int:
    return asyncio.run(recorder.turn(now))


def row(world: World, job: Job = JOB) -> JobRow:
    return world.rows[job.id]


def started(job: Job = JOB) -> Started:
    return Started(job_id=job.id, at=NOW, attempt=0, delivery=0, worker="w")


def ends_told(world: World) -> list[Outcome]:
    told = asyncio.run(MemoryBroker(world).events("restyle").follow("", 100, 0)).items
    return [logged.value.outcome for logged in told if isinstance(logged.value, Ended)]


BEAT = Alive(at=NOW, worker="w", slots=1, lanes=(0,))


def test_turn_records_jobs_and_their_events(world: World) -> None:
    publish(world, JOB)
    tell(world, started(), BEAT)

    assert turn(recorder_of(world)) == 3

    assert row(world).state is State.RUNNING
    assert world.cursors == {"jobs:restyle": "1", "events:restyle": "2"}


def test_turn_without_news_is_idle(world: World) -> None:
    publish(world, JOB)
    recorder = recorder_of(world)
    turn(recorder)

    assert turn(recorder) == 0


def test_new_recorder_goes_on_where_the_last_one_stored(world: World) -> None:
    publish(world, JOB)
    turn(recorder_of(world))
    tell(world, started())

    assert turn(recorder_of(world)) == 1

    assert row(world).state is State.RUNNING


def test_model_that_left_the_list_is_followed_to_its_jobs_ends(world: World) -> None:
    publish(world, JOB)
    turn(recorder_of(world))
    tell(world, started())

    turn(recorder_of(world, models=["another"]))

    assert row(world).state is State.RUNNING


def test_model_may_come_later(world: World) -> None:
    recorder = recorder_of(world, models=[])
    turn(recorder)
    publish(world, JOB)

    recorder.watch(["restyle"])
    turn(recorder)

    assert row(world).state is State.QUEUED


def test_more_than_one_batch_is_recorded_turn_by_turn(world: World) -> None:
    jobs = [make_job(number) for number in range(1_201)]
    publish(world, *jobs)
    recorder = recorder_of(world)

    assert [turn(recorder) for _ in range(4)] == [500, 500, 201, 0]

    assert world.rows.keys() == {job.id for job in jobs}


class FailingRows(MemoryRows):
    """Rows whose first `failures` writes fail, half of them after they took effect."""

    failures = 2

    async def record(self, changes: Sequence[RowChange], cursors: dict[str, str]) -> None:
        if self.failures == 1:
            await super().record(changes, cursors)
        if self.failures:
            self.failures -= 1
            raise TransientError("the disk is full")
        await super().record(changes, cursors)


def test_lag_is_nothing_when_everything_is_in_the_rows(world: World) -> None:
    publish(world, JOB)
    recorder = recorder_of(world)
    turn(recorder)

    assert recorder.lag.seconds(NOW + 100) == 0


def test_lag_grows_from_the_oldest_change_that_could_not_be_recorded(world: World) -> None:
    publish(world, make_job(1), make_job(2))
    recorder = recorder_of(world, FailingRows(world))
    for _ in range(2):
        with pytest.raises(TransientError):
            turn(recorder)

    assert recorder.lag.seconds(NOW + 11) == 10
    assert recorder.lag.seconds(NOW + 71) == 70
    turn(recorder)
    assert recorder.lag.seconds(NOW + 71) == 0


def test_lag_is_the_age_of_what_a_whole_batch_left_behind(world: World) -> None:
    publish(world, *(make_job(number) for number in range(700)))
    recorder = recorder_of(world)

    turn(recorder)
    assert recorder.lag.seconds(NOW + 1_000) == 1_000 - 499
    turn(recorder)
    assert recorder.lag.seconds(NOW + 1_000) == 0


def test_lag_grows_while_nothing_can_be_read_either() -> None:
    lag = Lag()
    lag.stuck(NOW)
    lag.stuck(NOW + 5)

    assert lag.seconds(NOW + 9) == 9
    lag.moving()
    assert lag.seconds(NOW + 9) == 0


def test_what_could_not_be_recorded_is_recorded_later(world: World) -> None:
    publish(world, JOB)
    tell(world, started())
    recorder = recorder_of(world, FailingRows(world))

    for _ in range(2):
        with pytest.raises(TransientError):
            turn(recorder)
    turn(recorder)

    assert row(world).state is State.RUNNING
    assert len(row(world).events) == 2


def test_unreadable_message_is_parked_and_the_rest_goes_on(world: World) -> None:
    publish(world, JOB)
    strange = '{"kind": "final", "version": 2}'
    world.topic("restyle").events.append(strange)
    tell(world, started())

    turn(recorder_of(world))

    assert world.parked == [("events:restyle", 1, strange)]
    assert row(world).state is State.RUNNING


def test_beats_alone_are_read_but_not_stored_each_time(world: World) -> None:
    tell(world, BEAT, BEAT)
    recorder = recorder_of(world)

    assert turn(recorder) == 2
    assert world.cursors == {}
    assert turn(recorder) == 0


def test_many_beats_are_not_read_again_after_a_restart(world: World) -> None:
    tell(world, *[BEAT] * 2_500)
    recorder = recorder_of(world)

    for _ in range(5):
        turn(recorder)

    assert world.cursors["events:restyle"] == "2000"


def test_job_that_nobody_ended_in_time_is_failed_as_expired(world: World) -> None:
    before = counted("sfumato_outcomes_total", model="restyle", state="failed")
    publish(world, JOB)
    recorder = recorder_of(world)
    turn(recorder)

    turn(recorder, EXPIRED)
    turn(recorder, EXPIRED)

    assert row(world).state is State.FAILED
    assert world.outcomes[JOB.id] == Outcome.expired(JOB.id, attempt=0, now=EXPIRED)
    assert counted("sfumato_outcomes_total", model="restyle", state="failed") == before + 1


def test_expired_job_is_left_to_its_dispatcher_at_first(world: World) -> None:
    publish(world, JOB)
    recorder = recorder_of(world)
    turn(recorder)

    turn(recorder, JOB.expires_at + 1)

    assert world.outcomes == {}


def test_end_that_was_decided_but_never_told_is_told(world: World) -> None:
    before = counted("sfumato_expired_total", model="restyle")
    publish(world, JOB)
    canceled = Outcome(job_id=JOB.id, state=State.CANCELED, at=NOW)
    asyncio.run(MemoryOutcomes(world).decide(canceled))
    recorder = recorder_of(world)
    turn(recorder)

    turn(recorder, EXPIRED)
    turn(recorder, EXPIRED)

    assert ends_told(world) == [canceled]
    assert row(world).state is State.CANCELED
    assert counted("sfumato_expired_total", model="restyle") == before


def test_recorder_that_lags_expires_nothing(world: World) -> None:
    others = [make_job(number) for number in range(2, 700)]
    publish(world, JOB, *others)
    tell(
        world, *(Ended(job_id=job.id, at=NOW, attempt=0, delivery=0, outcome=_canceled(job)) for job in (*others, JOB))
    )
    recorder = recorder_of(world)

    for _ in range(3):
        turn(recorder, EXPIRED)

    assert row(world).state is State.CANCELED
    assert world.outcomes == {}


def _canceled(job: Job) -> Outcome:
    return Outcome(job_id=job.id, state=State.CANCELED, at=NOW)


KEEP = Keep(input_s=300.0, log_s=700.0, result_s=1_400.0, wait_s=100.0)
KINDS = ("inputs", "outputs", "requests", "uploads")


def _swept_after(age_s: float) -> set[str]:
    """Which kinds of what was written at NOW are gone `age_s` later."""
    world = World(clock=lambda: NOW)
    blobs = MemoryBlobs(world)
    for kind in KINDS:
        asyncio.run(blobs.put(f"{kind}/job/x", b"x"))
    world.outcomes[JOB.id] = _canceled(JOB)
    world.rows[JOB.id] = JobRow(job=make_job(1, created_at=NOW), state=State.CANCELED)

    sweep = Sweep(KEEP, blobs, MemoryOutcomes(world), MemoryRows(world), MemoryBroker(world))
    asyncio.run(sweep.turn(NOW + age_s))

    left = {key.partition("/")[0] for key in world.blobs}
    left |= {name for name, kept in (("outcomes", world.outcomes), ("rows", world.rows)) if kept}
    return {*KINDS, "outcomes", "rows"} - left


@pytest.mark.parametrize(
    ("age_s", "gone"),
    [
        (299.0, set()),
        (301.0, {"inputs"}),
        (1_401.0, {"inputs", "outputs", "outcomes", "rows"}),
        (1_501.0, {"inputs", "outputs", "outcomes", "rows", "requests"}),
        (UPLOAD_KEEP_S + 1, {"inputs", "outputs", "requests", "outcomes", "rows", "uploads"}),
    ],
)
def test_sweep_removes_what_is_past_its_time(age_s: float, gone: set[str]) -> None:
    assert _swept_after(age_s) == gone


class StuckOutcomes(MemoryOutcomes):
    async def sweep(self, before: float) -> int:
        raise TransientError("locked")


def test_sweep_goes_on_after_what_can_not_be_swept_now(world: World) -> None:
    asyncio.run(MemoryBlobs(world).put("inputs/job/x", b"x"))
    sweep = Sweep(KEEP, MemoryBlobs(world), StuckOutcomes(world), MemoryRows(world), MemoryBroker(world))

    asyncio.run(sweep.turn(NOW + 5_000))

    assert world.blobs == {}
