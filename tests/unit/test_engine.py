import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sfumato.core.errors import EngineDead, PermanentError
from sfumato.core.job import Priority
from sfumato.core.params import Params, Sampler, evaluations
from sfumato.engine.backends import Prompt
from sfumato.engine.backends.arrays import Latents, NumpyArrays
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.engine import Engine, Event, Failed, Finished, Pixels, Progress
from sfumato.engine.sampler import TABLED, table
from sfumato.engine.schedule import NoiseSchedule
from tests.support import make_params

STABLE_DIFFUSION = NoiseSchedule(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
SAMPLERS = [sampler for sampler in TABLED if sampler is not Sampler.FLOW_MATCH_EULER]
STOCHASTIC = (Sampler.EULER_ANCESTRAL, Sampler.LCM)


class FakeModel(SimulatedBackend):
    """A small nonlinear model: rows differ by timestep and prompt. `before_call` may raise; `calls` are row counts."""

    def __init__(self, schedule: NoiseSchedule = STABLE_DIFFUSION) -> None:
        super().__init__()
        self.about = type(self.about)("fake", "float32", "none", 3, 8, schedule)
        self.calls: list[int] = []
        self.encoded: list[str] = []
        self.before_call: Callable[[Latents, npt.NDArray[np.float32]], None] = lambda x, t: None

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Latents]:
        self.encoded += [prompt.text for prompt in prompts]
        return super().encode_prompts(prompts)

    def predict(
        self,
        x: Latents,
        t: npt.NDArray[np.float32],
        embeddings: Sequence[Latents],
        guidance: npt.NDArray[np.float32],
    ) -> Latents:
        self.before_call(x, t)
        self.calls.append(len(x))
        self.guidance = guidance.tolist()
        steps = 0.001 * t.reshape(-1, 1, 1, 1)
        found: Latents = np.tanh(x * 0.7 + steps + 0.1 * np.stack(embeddings), dtype=np.float32)
        return found


def picture(params: Params, shade: int = 90) -> Pixels:
    ramp = np.arange(params.height * params.width * 3, dtype=np.uint32) % 60 + shade
    return ramp.astype(np.uint8).reshape(params.height, params.width, 3)


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return events


def ends(events: Sequence[Event]) -> dict[str, Finished | Failed]:
    return {event.key: event for event in events if not isinstance(event, Progress)}


def results(events: Sequence[Event]) -> dict[str, Pixels]:
    return {event.key: event.pixels for event in events if isinstance(event, Finished)}


def solo(params: Params) -> Pixels:
    engine = Engine(FakeModel(), 16)
    engine.add("solo", params, picture(params))
    return results(drain(engine))["solo"]


def close(found: Pixels, expected: Pixels) -> bool:
    # Batched and single float32 arithmetic may round differently, by one level of 255 at most.
    return int(np.abs(found.astype(int) - expected.astype(int)).max()) <= 1


def test_idle_engine_does_nothing() -> None:
    assert Engine(FakeModel(), 4).step() == ()


def test_job_runs_as_many_steps_as_its_strength_leaves() -> None:
    engine = Engine(FakeModel(), 4)
    params = make_params(strength=0.5, num_inference_steps=8)
    engine.add("a", params, picture(params))

    events = drain(engine)

    assert events[:-1] == [Progress("a", step, 4) for step in (1, 2, 3, 4)]
    assert results(events)["a"].shape == (64, 64, 3)


def test_jobs_with_different_samplers_steps_and_strengths_share_calls_and_come_out_as_alone() -> None:
    jobs = {
        f"{sampler}": make_params(sampler=sampler, num_inference_steps=6 + n, strength=0.5 + 0.08 * n, seed=n)
        for n, sampler in enumerate(SAMPLERS)
    }
    backend = FakeModel()
    engine = Engine(backend, 16)
    for key, params in jobs.items():
        engine.add(key, params, picture(params))

    found = results(drain(engine))

    assert backend.calls[0] == len(jobs)
    assert all(close(found[key], solo(params)) for key, params in jobs.items())


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_noise_of_a_job_does_not_depend_on_who_joins_midway(sampler: Sampler) -> None:
    engine = Engine(FakeModel(), 16)
    early, late = make_params(sampler=sampler, seed=1), make_params(sampler=sampler, seed=2, num_inference_steps=5)
    engine.add("early", early, picture(early))
    events = [*engine.step()]
    engine.add("late", late, picture(late))

    found = results([*events, *drain(engine)])

    assert close(found["early"], solo(early))
    assert close(found["late"], solo(late))


def walked(params: Params) -> Pixels:
    """The sampler's formula written out for one job, step by step."""
    backend, arrays = FakeModel(), NumpyArrays()
    positive, negative = backend.encode_prompts([Prompt(params.prompt), Prompt(params.negative_prompt)])
    count = evaluations(params.num_inference_steps, params.strength, params.sampler)
    schedule = table(params.sampler, STABLE_DIFFUSION, params.num_inference_steps, count)
    generator = arrays.generator(params.seed)
    clean = backend.encode_images(picture(params)[None], [generator])
    shape = clean.shape[1:]
    x, before = schedule.signal * clean + schedule.noise * arrays.normal(generator, *shape), clean
    for s, t, p, q, a, b, c, d, _ in schedule.rows.tolist():
        time, scale = np.array([t], np.float32), np.array([params.guidance_scale], np.float32)
        with_prompt, without = (backend.predict(s * x, time, [e], scale) for e in (positive, negative))
        m = without + params.guidance_scale * (with_prompt - without) if params.guidance_scale > 1 else with_prompt
        x0 = p * x + q * m
        x, before = a * x + b * x0 + c * before + (d * arrays.normal(generator, *shape) if d else 0), x0
    return np.asarray((backend.decode(x)[0].clip(0, 1) * 255).round(), np.uint8)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_job_walks_the_samplers_formula(sampler: Sampler, guidance: float) -> None:
    params = make_params(sampler=sampler, guidance_scale=guidance, negative_prompt="blur", strength=0.8)

    assert close(solo(params), walked(params))


def test_another_seed_gives_another_picture() -> None:
    assert not np.array_equal(solo(make_params(seed=1)), solo(make_params(seed=2)))


@pytest.mark.parametrize(("guidance", "rows"), [(0.0, 1), (1.0, 1), (1.5, 2)])
def test_guidance_above_one_pays_a_second_row(guidance: float, rows: int) -> None:
    backend = FakeModel()
    engine = Engine(backend, 4)
    params = make_params(guidance_scale=guidance)
    engine.add("a", params, picture(params))

    engine.step()

    assert (backend.calls, engine.rows) == ([rows], rows)


def test_guided_and_plain_jobs_share_a_call_and_come_out_as_alone() -> None:
    guided, plain = make_params(guidance_scale=3.0, negative_prompt="blur"), make_params(seed=4)
    engine = Engine(FakeModel(), 4)
    engine.add("plain", plain, picture(plain))
    engine.add("guided", guided, picture(guided))

    found = results(drain(engine))

    assert close(found["plain"], solo(plain))
    assert close(found["guided"], solo(guided))
    assert not close(found["guided"], solo(make_params(guidance_scale=3.0)))


def test_model_that_embeds_guidance_is_told_it_and_needs_no_second_row() -> None:
    backend = FakeModel()
    backend.about = dataclasses.replace(backend.about, embeds_guidance=True)
    engine = Engine(backend, 4)
    for number, scale in enumerate((7.5, 1.0)):
        params = make_params(guidance_scale=scale)
        engine.add(str(number), params, picture(params))

    engine.step()

    assert (backend.calls, backend.guidance) == ([2], [7.5, 1.0])


def test_same_prompt_is_encoded_once() -> None:
    backend = FakeModel()
    engine = Engine(backend, 4)
    for key in "abc":
        engine.add(key, make_params(prompt="at night"), picture(make_params()))
        engine.step()

    assert backend.encoded == ["at night"]


def test_shapes_never_share_a_call() -> None:
    backend = FakeModel()
    engine = Engine(backend, 16)
    for number, (width, height) in enumerate([(64, 64), (96, 48), (64, 64)]):
        params = make_params(width=width, height=height)
        engine.add(str(number), params, picture(params))

    found = results(drain(engine))

    assert sorted(backend.calls) == [1] * 4 + [2] * 4
    assert {key: pixels.shape[:2] for key, pixels in found.items()} == {"0": (64, 64), "1": (48, 96), "2": (64, 64)}


def test_aborted_job_is_in_no_later_call_and_has_no_further_event() -> None:
    backend = FakeModel()
    engine = Engine(backend, 4)
    for key in "ab":
        engine.add(key, make_params(), picture(make_params()))
    engine.step()

    assert engine.abort("a") is True
    events = drain(engine)

    assert {event.key for event in events} == {"b"}
    assert backend.calls == [2, 1, 1, 1]
    assert engine.abort("a") is False


def test_high_priority_pauses_a_younger_job_that_then_ends_as_if_undisturbed() -> None:
    engine = Engine(FakeModel(), 1)
    engine.add("normal", make_params(seed=1), picture(make_params()))
    events = [*engine.step()]
    engine.add("high", make_params(seed=2), picture(make_params()), Priority.HIGH)

    events += drain(engine)

    assert list(results(events)) == ["high", "normal"]
    assert close(results(events)["normal"], solo(make_params(seed=1)))


def test_high_priority_enters_a_full_batch_at_the_next_step_however_long_it_has_run() -> None:
    backend = FakeModel()
    engine = Engine(backend, 2)
    jobs = {str(n): make_params(seed=n, num_inference_steps=40, sampler=Sampler.EULER_ANCESTRAL) for n in range(2)}
    for key, params in jobs.items():
        engine.add(key, params, picture(params))
    for _ in range(15):
        engine.step()
    high = make_params(seed=9, num_inference_steps=4)
    engine.add("high", high, picture(high), Priority.HIGH)

    first = engine.step()
    events = drain(engine)

    assert [event.key for event in first] == ["high", "0"]
    assert set(results(events)) == {"0", "1", "high"}
    assert all(close(results(events)[key], solo(params)) for key, params in (jobs | {"high": high}).items())


def test_output_that_is_not_finite_fails_that_job_alone() -> None:
    class HidingDecoder(FakeModel):
        def decode(self, x: Latents) -> npt.NDArray[np.float32]:
            return np.nan_to_num(super().decode(x))

    backend = HidingDecoder()
    engine = Engine(backend, 4)
    for key, prompt in (("good", "a"), ("bad", "b")):
        engine.add(key, make_params(prompt=prompt), picture(make_params()))

    def spoil(x: Latents, t: npt.NDArray[np.float32]) -> None:
        if len(x) == 2:
            x[1, 0, 0, 0] = np.nan

    backend.before_call = spoil
    found = ends(drain(engine))

    assert isinstance(found["good"], Finished)
    assert isinstance(found["bad"], Failed)
    assert isinstance(found["bad"].error, PermanentError)


def test_picture_that_is_not_finite_fails_that_job_alone() -> None:
    class SpoilingDecoder(FakeModel):
        def decode(self, x: Latents) -> npt.NDArray[np.float32]:
            pictures = super().decode(x)
            pictures[0, 0, 0, 0] = np.inf
            return pictures

    engine = Engine(SpoilingDecoder(), 4)
    for key in "ab":
        engine.add(key, make_params(), picture(make_params()))

    found = ends(drain(engine))

    assert [type(found[key]) for key in "ab"] == [Failed, Finished]


def test_call_that_raises_is_repeated_one_by_one_and_only_the_culprit_fails() -> None:
    backend = FakeModel()
    engine = Engine(backend, 4)
    jobs = {key: make_params(seed=n, sampler=Sampler.EULER_ANCESTRAL) for n, key in enumerate("abc")}
    jobs["b"] = make_params(num_inference_steps=12)
    for key, params in jobs.items():
        engine.add(key, params, picture(params))
    first_step_of_b = 500.0

    def choke(x: Latents, t: npt.NDArray[np.float32]) -> None:
        if first_step_of_b in t:
            raise RuntimeError("bad row")

    backend.before_call = choke
    found = ends(drain(engine))

    assert isinstance(found["b"], Failed)
    assert str(found["b"].error) == "bad row"
    assert all(close(results([found[key]])[key], solo(jobs[key])) for key in "ac")


def test_out_of_memory_splits_the_batch_and_lowers_the_cap() -> None:
    backend = FakeModel()
    engine = Engine(backend, 8)

    tried: list[int] = []

    def room_for_three(x: Latents, t: npt.NDArray[np.float32]) -> None:
        tried.append(len(x))
        if len(x) > 3:
            raise MemoryError

    backend.before_call = room_for_three
    for number in range(8):
        engine.add(str(number), make_params(seed=number), picture(make_params()))

    found = ends(drain(engine))

    assert all(isinstance(end, Finished) for end in found.values())
    assert tried[:6] == [8, 4, 2, 2, 2, 2]
    assert max(tried[6:]) == 2


def test_job_that_alone_does_not_fit_fails_for_good() -> None:
    backend = FakeModel()
    engine = Engine(backend, 8)

    def no_room(x: Latents, t: npt.NDArray[np.float32]) -> None:
        raise MemoryError

    backend.before_call = no_room
    engine.add("a", make_params(), picture(make_params()))

    (failed,) = engine.step()

    assert isinstance(failed, Failed)
    assert isinstance(failed.error, PermanentError)
    assert engine.idle


def test_picture_that_can_not_be_encoded_fails_alone() -> None:
    class ChokingEncoder(FakeModel):
        def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
            if (pixels[:, 0, 0, 0] == 7).any():
                raise RuntimeError("bad picture")
            return super().encode_images(pixels, generators)

    engine = Engine(ChokingEncoder(), 4)
    engine.add("good", make_params(), picture(make_params()))
    engine.add("bad", make_params(), picture(make_params(), shade=7))

    found = ends(drain(engine))

    assert isinstance(found["bad"], Failed)
    assert close(results([found["good"]])["good"], solo(make_params()))


def test_dead_backend_ends_the_engine() -> None:
    backend = FakeModel()
    engine = Engine(backend, 4)

    def die(x: Latents, t: npt.NDArray[np.float32]) -> None:
        raise EngineDead("the device is gone")

    backend.before_call = die
    for key in "ab":
        engine.add(key, make_params(), picture(make_params()))

    with pytest.raises(EngineDead):
        engine.step()


def test_schedule_that_can_not_be_made_is_refused_at_the_door() -> None:
    engine = Engine(FakeModel(), 4)
    params = make_params(sampler=Sampler.LCM, num_inference_steps=60)

    with pytest.raises(PermanentError, match="at most 50"):
        engine.add("a", params, picture(params))

    assert engine.idle


def test_picture_of_another_shape_is_refused_at_the_door() -> None:
    with pytest.raises(PermanentError, match=r"\(64, 32, 3\)"):
        Engine(FakeModel(), 4).add("a", make_params(), picture(make_params(width=32)))


def test_clamp_of_the_schedule_bounds_the_estimate() -> None:
    clamped = NoiseSchedule(clip_sample=True, clip_sample_range=0.1)
    engine = Engine(FakeModel(clamped), 4)
    params = make_params(sampler=Sampler.DDIM, strength=1.0)
    engine.add("a", params, picture(params))

    pixels = results(drain(engine))["a"]

    assert np.abs(pixels / 127.5 - 1).max() <= 0.1 + 1 / 127.5


def test_encoders_draw_comes_before_the_noise() -> None:
    drawn: list[str] = []

    class WatchedArrays(NumpyArrays):
        def normal(self, generator: Any, channels: int, height: int, width: int) -> Latents:
            drawn.append("noise")
            return super().normal(generator, channels, height, width)

    class Watched(FakeModel):
        def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
            drawn.append("encoder")
            return super().encode_images(pixels, generators)

    backend = Watched()
    backend.arrays = WatchedArrays()
    engine = Engine(backend, 4)
    engine.add("a", make_params(), picture(make_params()))

    engine.step()

    assert drawn == ["encoder", "noise"]
