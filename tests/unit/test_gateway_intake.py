"""The order of effects when a job is accepted or canceled, and what a failure in between leaves behind."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from sfumato.core.errors import InvalidRequest, TransientError
from sfumato.core.events import Watched, decode_event
from sfumato.core.job import Outcome, Priority, State
from sfumato.core.params import ParamsRequest
from sfumato.gateway.intake import Accepted, Given, Intake, Submission
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.models.registry import Registry
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World
from tests.support import NOW, counted, job_id

T = TypeVar("T")
MODEL = Registry.load(None).get("restyle")


class Stage:
    """A world that writes down its effects and fails where it is told to."""

    def __init__(self) -> None:
        self.world = World(clock=lambda: NOW, io=self._io)
        self.effects: list[str] = []
        self.failing = ""
        stores = MemoryBlobs(self.world), MemoryOutcomes(self.world), MemoryRows(self.world)
        self.intake = Intake(MemoryBroker(self.world), *stores, job_wait_s=100.0)

    async def _io(self, what: str) -> None:
        if what == self.failing:
            raise TransientError(what)
        self.effects.append(what)

    def run(self, call: Callable[[Intake], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(call(self.intake))

    def accept(self, submission: Submission, now: float = NOW) -> Accepted:
        return self.run(lambda intake: intake.accept(submission, now))

    def cancel(self, model: str | None = None, now: float = NOW) -> Outcome:
        return self.run(lambda intake: intake.cancel(job_id(1), now, model))

    def told(self) -> list[str]:
        return self.world.topic(MODEL.slug).events


def _submission(**changes: Any) -> Submission:
    plain: dict[str, Any] = {
        "job_id": job_id(1),
        "keyed": False,
        "owner": "local",
        "model": MODEL,
        "priority": Priority.NORMAL,
        "asked": ParamsRequest(prompt="neon"),
        "picture": Given(b"picture", "0" * 64),
        "header": PictureHeader("image/png", 64, 48),
        "metadata": {},
    }
    return Submission(**(plain | changes))


def test_the_input_is_stored_before_the_job_is_published() -> None:
    stage = Stage()
    stage.accept(_submission())
    assert stage.effects == ["put inputs", "stored inputs", "publish", "published"]


def test_with_a_key_the_request_is_written_first() -> None:
    stage = Stage()
    stage.accept(_submission(keyed=True))
    assert stage.effects[0] == "put requests"


def test_parameters_that_the_model_refuses_touch_nothing() -> None:
    stage = Stage()
    with pytest.raises(InvalidRequest):
        stage.accept(_submission(asked=ParamsRequest(strength=5.0), keyed=True))
    assert stage.effects == []


def test_a_repeat_publishes_the_very_same_message() -> None:
    stage = Stage()
    first = stage.accept(_submission(keyed=True))
    second = stage.accept(_submission(keyed=True), now=NOW + 50)
    assert first == second
    assert len(set(stage.world.topic(MODEL.slug).jobs)) == 1


def test_a_repeat_under_way_to_the_store_is_told_to_try_again() -> None:
    stage = Stage()
    stage.accept(_submission(keyed=True))
    stage.world.blobs[f"requests/{job_id(1)}"] = (b"half", NOW)
    with pytest.raises(TransientError):
        stage.accept(_submission(keyed=True))


def test_metadata_belongs_to_the_request() -> None:
    stage = Stage()
    stage.accept(_submission(keyed=True, metadata={"a": 1, "b": 2}))
    stage.accept(_submission(keyed=True, metadata={"b": 2, "a": 1}))
    with pytest.raises(Refusal):
        stage.accept(_submission(keyed=True, metadata={"a": 1}))


def test_cancel_decides_before_it_tells() -> None:
    stage = Stage()
    assert stage.cancel("restyle").state is State.CANCELED
    assert stage.effects == ["decide canceled", "decided canceled", "append final", "appended final"]


def test_cancel_that_lost_tells_nothing() -> None:
    stage = Stage()
    stage.world.outcomes[job_id(1)] = Outcome(job_id=job_id(1), state=State.FAILED, at=NOW)
    assert stage.cancel("restyle").state is State.FAILED
    assert stage.told() == []


def test_a_second_cancel_tells_what_the_first_could_not() -> None:
    stage = Stage()
    stage.failing = "append final"
    with pytest.raises(TransientError):
        stage.cancel("restyle")
    stage.failing = ""
    assert stage.cancel("restyle", now=NOW + 9).at == NOW
    assert len(stage.told()) == 1


def test_only_the_cancel_that_won_is_counted() -> None:
    before = counted("sfumato_outcomes_total", model="restyle", state="canceled")
    stage = Stage()
    stage.cancel("restyle")
    stage.cancel("restyle", now=NOW + 9)
    assert counted("sfumato_outcomes_total", model="restyle", state="canceled") == before + 1


def test_cancel_of_a_job_without_a_row_still_holds() -> None:
    stage = Stage()
    assert stage.cancel().state is State.CANCELED
    assert stage.told() == []


def test_who_watches_is_told_of_once_in_half_the_time_that_it_is_good_for() -> None:
    stage = Stage()
    job = stage.accept(_submission()).job

    for later in (0.0, 1.0, 7.4, 7.6, 8.0):
        asyncio.run(stage.intake.watch(job, NOW + later, for_s=15.0))

    told = [decode_event(raw) for raw in stage.told()]
    assert [event.at - NOW for event in told if isinstance(event, Watched)] == pytest.approx([0.0, 7.6])


def test_who_watches_is_told_of_again_when_that_failed() -> None:
    stage = Stage()
    job = stage.accept(_submission()).job
    stage.failing = "append watched"
    with pytest.raises(TransientError):
        stage.run(lambda intake: intake.watch(job, NOW, for_s=15.0))
    stage.failing = ""

    stage.run(lambda intake: intake.watch(job, NOW + 0.5, for_s=15.0))

    assert len(stage.told()) == 1
