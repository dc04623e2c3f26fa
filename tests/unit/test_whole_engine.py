"""A model that can't be stepped, request by request behind the engine's face."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from sfumato.core.errors import EngineDead, PermanentError
from sfumato.core.job import Priority
from sfumato.core.params import Params
from sfumato.engine.events import Event, Failed, Finished, Pixels, Progress
from sfumato.engine.whole import WholeEngine
from tests.support import make_params

PICTURE = np.zeros((64, 64, 3), np.uint8)


class Pipeline:
    """Takes the steps it was asked for; `trouble` may raise before each."""

    def __init__(self, size: tuple[int, int] = (64, 64)) -> None:
        self.size = size
        self.trouble: Callable[[Params, int], None] = lambda params, step: None
        self.begun: list[str] = []
        self.left: list[str] = []

    def generate(self, params: Params, pixels: Pixels, told: Callable[[int, int], None]) -> npt.NDArray[np.float32]:
        self.begun.append(params.prompt)
        try:
            for step in range(params.num_inference_steps):
                self.trouble(params, step)
                told(step + 1, params.num_inference_steps)
        finally:
            self.left.append(params.prompt)
        return np.full((*self.size, 3), 0.5, np.float32)


def drain(engine: WholeEngine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return events


def params(prompt: str, steps: int = 2) -> Params:
    return make_params(prompt=prompt, num_inference_steps=steps)


def summary(events: Sequence[Event]) -> list[tuple[str, object]]:
    return [(event.key, event.step if isinstance(event, Progress) else type(event)) for event in events]


def test_requests_run_one_after_the_other_and_tell_each_step() -> None:
    engine = WholeEngine(Pipeline())
    for key in "ab":
        engine.add(key, params(key), PICTURE)

    events = drain(engine)

    assert summary(events) == [(key, at) for key in "ab" for at in (1, 2, Finished)]
    assert [event.pixels.mean() for event in events if isinstance(event, Finished)] == [128, 128]


def test_one_step_of_the_engine_is_one_step_of_the_pipeline() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)
    reached: list[int] = []
    pipeline.trouble = lambda params, step: reached.append(step)
    engine.add("a", params("a", steps=5), PICTURE)

    engine.step()
    engine.step()

    assert reached == [0, 1]
    assert engine.abort("a")


def test_urgent_request_begins_before_those_that_wait() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)
    for key in "ab":
        engine.add(key, params(key), PICTURE)
    engine.step()
    engine.add("urgent", params("urgent"), PICTURE, Priority.HIGH)

    drain(engine)

    assert pipeline.begun == ["a", "urgent", "b"]


def test_aborted_request_ends_where_it_stands_and_the_next_one_begins() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)
    for key in "ab":
        engine.add(key, params(key, steps=50), PICTURE)
    engine.step()

    assert engine.abort("a")
    assert pipeline.left == ["a"]
    assert not engine.abort("a")
    assert {event.key for event in drain(engine)} == {"b"}


def test_aborted_request_that_waits_never_begins() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)
    for key in "ab":
        engine.add(key, params(key), PICTURE)

    assert engine.abort("b")
    drain(engine)

    assert pipeline.begun == ["a"]


def test_pipeline_that_raises_fails_its_own_request() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)

    def choke(params: Params, step: int) -> None:
        if params.prompt == "a":
            raise ValueError("bad prompt")

    pipeline.trouble = choke
    for key in "ab":
        engine.add(key, params(key), PICTURE)

    events = drain(engine)

    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert (failed.key, str(failed.error)) == ("a", "bad prompt")
    assert [event.key for event in events if isinstance(event, Finished)] == ["b"]


def test_request_that_does_not_fit_into_memory_fails_for_good() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)

    def no_room(params: Params, step: int) -> None:
        raise MemoryError

    pipeline.trouble = no_room
    engine.add("a", params("a"), PICTURE)

    (failed,) = drain(engine)

    assert isinstance(failed, Failed)
    assert isinstance(failed.error, PermanentError)


def test_dead_device_ends_the_engine() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)

    def die(params: Params, step: int) -> None:
        raise EngineDead("gone")

    pipeline.trouble = die
    engine.add("a", params("a"), PICTURE)

    with pytest.raises(EngineDead, match="gone"):
        engine.step()


def test_picture_that_is_not_finite_fails_with_a_reason() -> None:
    class Overflowing(Pipeline):
        def generate(self, params: Params, pixels: Pixels, told: Callable[[int, int], None]) -> npt.NDArray[np.float32]:
            return np.full((64, 64, 3), np.nan, np.float32)

    engine = WholeEngine(Overflowing())
    engine.add("a", params("a"), PICTURE)

    (failed,) = drain(engine)

    assert isinstance(failed, Failed)
    assert "not finite" in str(failed.error)


def test_picture_of_a_size_of_the_pipelines_own_is_brought_to_the_one_asked_for() -> None:
    engine = WholeEngine(Pipeline(size=(32, 48)))
    engine.add("a", params("a"), PICTURE)

    (picture,) = [event.pixels for event in drain(engine) if isinstance(event, Finished)]

    assert picture.shape == (64, 64, 3)


def test_what_is_no_picture_fails_its_request_and_nobody_waits_for_ever() -> None:
    class Layers(Pipeline):
        def generate(self, params: Params, pixels: Pixels, told: Callable[[int, int], None]) -> npt.NDArray[np.float32]:
            return np.zeros((4, 64, 64, 4), np.float32)

    engine = WholeEngine(Layers())
    engine.add("a", params("a"), PICTURE)

    (failed,) = drain(engine)

    assert isinstance(failed, Failed)
    assert "no picture" in str(failed.error)


def test_pipeline_that_exits_fails_its_request_and_nobody_waits_for_ever() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)

    def leave(params: Params, step: int) -> None:
        raise SystemExit(3)

    pipeline.trouble = leave
    engine.add("a", params("a"), PICTURE)

    (failed,) = drain(engine)

    assert isinstance(failed, Failed)


def test_ordinary_requests_keep_every_fourth_turn_beside_a_stream_of_urgent_ones() -> None:
    pipeline = Pipeline()
    engine = WholeEngine(pipeline)
    for number in range(2):
        engine.add(f"ordinary {number}", params("ordinary", steps=1), PICTURE)
    for number in range(9):
        engine.add(f"urgent {number}", params("urgent", steps=1), PICTURE, Priority.HIGH)

    drain(engine)

    assert pipeline.begun[:8] == [*["urgent"] * 3, "ordinary"] * 2


def test_no_thread_is_left_when_all_requests_ended() -> None:
    engine = WholeEngine(Pipeline())
    for key in "abc":
        engine.add(key, params(key), PICTURE)
    engine.step()
    engine.abort("a")

    drain(engine)

    assert [thread for thread in threading.enumerate() if thread.name == "pipeline"] == []
