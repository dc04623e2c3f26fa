"""Latents as small pictures, made only when somebody asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sfumato.core.errors import EngineDead
from sfumato.engine.backends.arrays import Latents
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.engine import Engine, Event, Pixels, Progress
from sfumato.engine.previews import Previewer
from tests.support import make_params


class Counting(SimulatedBackend):
    """Counts how many pictures it encoded."""

    encoded = 0

    def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
        self.encoded += len(pixels)
        return super().encode_images(pixels, generators)


def halves() -> Pixels:
    """Black left, reddish right."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 40, 10)
    return pixels


def previews(events: Sequence[Event]) -> list[Pixels]:
    return [event.preview for event in events if isinstance(event, Progress) and event.preview is not None]


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return events


def test_preview_has_the_colours_of_the_picture_a_latent_cell_each() -> None:
    backend = SimulatedBackend()
    (latents,) = backend.encode_images(halves()[None], [backend.arrays.generator(0)])

    preview = Previewer(backend).of(latents)

    assert preview is not None
    assert np.abs(preview.astype(int) - halves()[::8, ::8]).max() <= 2


def test_nothing_is_computed_for_a_job_that_nobody_watches() -> None:
    backend = Counting()
    engine = Engine(backend, 4)
    engine.add("a", make_params(), halves())

    assert previews(drain(engine)) == []
    assert backend.encoded == 1


def test_watched_job_shows_its_estimate_at_each_step_but_the_last() -> None:
    engine = Engine(SimulatedBackend(), 4)
    engine.add("watched", make_params(num_inference_steps=8), halves())
    engine.add("other", make_params(num_inference_steps=8), halves())
    engine.show("watched", on=True)

    events = drain(engine)

    shown = [event for event in events if isinstance(event, Progress) and event.preview is not None]
    assert [(event.key, event.step) for event in shown] == [("watched", step) for step in (1, 2, 3)]
    assert {event.preview.shape for event in shown if event.preview is not None} == {(8, 8, 3)}


def test_long_job_is_shown_eight_times_at_most() -> None:
    engine = Engine(SimulatedBackend(), 4)
    engine.add("a", make_params(num_inference_steps=100, strength=1.0), halves())
    engine.show("a", on=True)

    steps = [event.step for event in drain(engine) if isinstance(event, Progress) and event.preview is not None]

    assert steps == [13, 26, 39, 52, 65, 78, 91]


def test_watching_ends_when_nobody_watches_any_more() -> None:
    engine = Engine(SimulatedBackend(), 4)
    engine.add("a", make_params(num_inference_steps=8), halves())
    engine.show("a", on=True)
    first = engine.step()
    engine.show("a", on=False)

    assert len(previews(first)) == 1
    assert previews(drain(engine)) == []


def test_watching_a_job_that_is_not_in_has_no_effect() -> None:
    Engine(SimulatedBackend(), 4).show("nobody", on=True)


def test_job_goes_on_where_there_is_no_memory_for_a_preview() -> None:
    class Full(Counting):
        def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
            if len(pixels) > 1:
                raise MemoryError
            return super().encode_images(pixels, generators)

    engine = Engine(Full(), 4)
    engine.add("a", make_params(), halves())
    engine.show("a", on=True)

    events = drain(engine)

    assert previews(events) == []
    assert type(events[-1]).__name__ == "Finished"


@pytest.mark.parametrize("trouble", [ValueError("Got: 128 Expected: 64"), np.nan])
def test_model_whose_encoder_can_not_be_fitted_has_no_previews_and_its_jobs_go_on(trouble: Any) -> None:
    class Odd(Counting):
        def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
            found = super().encode_images(pixels, generators)
            if len(pixels) > 1 and isinstance(trouble, Exception):
                raise trouble
            return found * np.float32(trouble) if len(pixels) > 1 else found

    backend = Odd()
    engine = Engine(backend, 4)
    engine.add("a", make_params(num_inference_steps=20), halves())
    engine.show("a", on=True)

    events = drain(engine)

    assert previews(events) == []
    assert type(events[-1]).__name__ == "Finished"
    assert backend.encoded == 1 + 8, "tried once"


def test_dead_device_is_told_even_when_a_preview_finds_it() -> None:
    class Dead(Counting):
        def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
            if len(pixels) > 1:
                raise EngineDead("gone")
            return super().encode_images(pixels, generators)

    engine = Engine(Dead(), 4)
    engine.add("a", make_params(num_inference_steps=8), halves())
    engine.show("a", on=True)

    with pytest.raises(EngineDead):
        engine.step()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_not_finite_still_make_a_picture(value: float) -> None:
    latents: npt.NDArray[np.float32] = np.full((3, 4, 4), value, np.float32)

    preview = Previewer(SimulatedBackend()).of(latents)

    assert preview is not None
    assert preview.shape == (4, 4, 3)
