"""Each table against diffusers' own scheduler of the same config, walking the same fake model from the same noise."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_img2img import calculate_shift
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfumato.core.params import Sampler
from sfumato.engine.sampler import COLUMNS, TABLED, Table, table
from sfumato.engine.schedule import NoiseSchedule

# diffusers 0.42 hands torch tensors to numpy 2 in a way that numpy warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BUNDLED = Path(__file__).parents[2] / "src/sfumato/models/bundled/restyle/scheduler/scheduler_config.json"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
TOLERANCE = 1e-5
FLOAT32 = 2.0**-23

SCHEDULERS = {
    Sampler.EULER: diffusers.EulerDiscreteScheduler,
    Sampler.EULER_ANCESTRAL: diffusers.EulerAncestralDiscreteScheduler,
    Sampler.DDIM: diffusers.DDIMScheduler,
    Sampler.DPMPP_2M: diffusers.DPMSolverMultistepScheduler,
    Sampler.LCM: diffusers.LCMScheduler,
    Sampler.FLOW_MATCH_EULER: diffusers.FlowMatchEulerDiscreteScheduler,
}
DIFFUSION = [sampler for sampler in TABLED if sampler is not Sampler.FLOW_MATCH_EULER]


def fake_model(x: Any, t: float) -> Any:
    return torch.tanh(0.7 * x + 0.001 * t) + 0.1 * x


def theirs(sampler: Sampler, config: dict[str, Any], steps: int, start: int, picture: Any, first: Any) -> Any:
    scheduler = SCHEDULERS[sampler].from_config(config)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    assume(len(timesteps) == steps and timesteps[-1] >= 0)
    scheduler.set_begin_index(start) if hasattr(scheduler, "set_begin_index") else None
    flow = sampler is Sampler.FLOW_MATCH_EULER
    noisy = scheduler.scale_noise if flow else lambda x, t, n: scheduler.add_noise(x, n, t)
    x = noisy(picture, timesteps[start : start + 1], first)
    dice = {} if flow else {"generator": torch.Generator().manual_seed(2)}
    if sampler is Sampler.DPMPP_2M:
        dice = {}
    for t in timesteps[start:]:
        scaled = x if flow else scheduler.scale_model_input(x, t)
        x = scheduler.step(fake_model(scaled, float(t)), t, x, return_dict=False, **dice)[0]
    return x


def ours(job: Table, clamp: float | None, picture: Any, first: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    x, before = job.signal * picture + job.noise * first, torch.zeros_like(picture)
    for s, t, p, q, a, b, c, d, e in job.rows.tolist():
        x0 = p * x + q * fake_model(s * x, t)
        x = a * x + b * x0 + c * before
        if clamp is not None:
            x = x + e * (x0.clamp(-clamp, clamp) - x0)
        if d:
            x = x + d * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        before = x0
    return x


def difference(sampler: Sampler, config: dict[str, Any], steps: int, evaluations: int) -> float:
    """Largest difference over the largest value, less what diffusers rounds off noisy latents in float32."""
    generator = torch.Generator().manual_seed(1)
    picture, first = torch.randn((2, 1, 4, 8, 8), generator=generator, dtype=torch.float64)
    schedule = NoiseSchedule.from_config(config)
    start = steps - evaluations
    expected = theirs(sampler, config, steps, start, picture, first)
    assume(expected.isfinite().all())  # Euler ancestral in float32 may take the root of a rounded negative
    job = table(sampler, schedule, steps, evaluations)
    found = ours(job, schedule.clamp, picture, first)
    return float((found - expected).abs().max() / expected.abs().max()) - FLOAT32 * job.noise


@st.composite
def walks(draw: st.DrawFn, most_steps: int = 60) -> tuple[int, int]:
    steps = draw(st.integers(2, most_steps))
    return steps, draw(st.integers(1, steps))


@pytest.mark.parametrize("sampler", DIFFUSION)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    walk=walks(most_steps=50),
    trained=st.sampled_from([STABLE_DIFFUSION, COSINE]),
    prediction=st.sampled_from(["epsilon", "v_prediction"]),
    spacing=st.sampled_from(["linspace", "leading", "trailing"]),
    alpha_one=st.booleans(),
)
def test_table_walks_as_diffusers_scheduler(
    sampler: Sampler, walk: tuple[int, int], trained: dict[str, Any], prediction: str, spacing: str, alpha_one: bool
) -> None:
    config = trained | {
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "set_alpha_to_one": alpha_one,
        "clip_sample": False,
    }

    assert difference(sampler, config, *walk) < TOLERANCE


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    walk=walks(),
    extra=st.fixed_dictionaries(
        {},
        optional={
            "solver_type": st.sampled_from(["midpoint", "heun"]),
            "lower_order_final": st.booleans(),
            "euler_at_final": st.booleans(),
            "final_sigmas_type": st.sampled_from(["zero", "sigma_min"]),
            "lambda_min_clipped": st.just(-5.1),
            "use_karras_sigmas": st.booleans(),
        },
    ),
    spacing=st.sampled_from(["linspace", "leading", "trailing"]),
    trained=st.sampled_from([STABLE_DIFFUSION, COSINE]),
)
def test_dpmpp_2m_follows_every_option_of_its_config(
    walk: tuple[int, int], extra: dict[str, Any], spacing: str, trained: dict[str, Any]
) -> None:
    # There diffusers' float32 truncates the first timestep, 999, to 998.
    assume(not (extra.get("use_karras_sigmas") and trained is COSINE and walk[0] == walk[1]))

    assert difference(Sampler.DPMPP_2M, trained | extra | {"timestep_spacing": spacing}, *walk) < TOLERANCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    walk=walks(),
    karras=st.booleans(),
    end=st.sampled_from(["zero", "sigma_min"]),
    prediction=st.sampled_from(["epsilon", "v_prediction", "sample"]),
)
def test_euler_follows_karras_and_final_sigma(walk: tuple[int, int], karras: bool, end: str, prediction: str) -> None:
    config = STABLE_DIFFUSION | {
        "use_karras_sigmas": karras,
        "final_sigmas_type": end,
        "prediction_type": prediction,
    }

    assert difference(Sampler.EULER, config, *walk) < TOLERANCE


@pytest.mark.parametrize("sampler", [Sampler.DDIM, Sampler.LCM])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(walk=walks(most_steps=50), clamp=st.floats(0.3, 2.0))
def test_clip_sample_clamps_the_estimate_as_diffusers_does(
    sampler: Sampler, walk: tuple[int, int], clamp: float
) -> None:
    config = STABLE_DIFFUSION | {"clip_sample": True, "clip_sample_range": clamp}

    assert difference(sampler, config, *walk) < TOLERANCE


@settings(max_examples=30, deadline=None, derandomize=True)
@given(walk=walks(), shift=st.floats(1.0, 6.0))
def test_flow_match_euler_follows_the_shift(walk: tuple[int, int], shift: float) -> None:
    assert difference(Sampler.FLOW_MATCH_EULER, {"shift": shift}, *walk) < TOLERANCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=st.integers(1, 60), tokens=st.integers(16, 8192), kind=st.sampled_from(["exponential", "linear"]))
def test_shift_by_size_is_that_of_fluxs_pipeline(steps: int, tokens: int, kind: str) -> None:
    config = {"use_dynamic_shifting": True, "shift": 3.0, "time_shift_type": kind}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    mu = calculate_shift(tokens)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
    schedule = dataclasses.replace(NoiseSchedule.from_config(config), even_sigmas=True)

    found = table(Sampler.FLOW_MATCH_EULER, schedule.shifted_for(tokens), steps, steps)

    assert np.allclose(found.rows[:, COLUMNS.index("t")], scheduler.timesteps.numpy(), rtol=TOLERANCE)


@pytest.mark.parametrize("sampler", DIFFUSION)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(walk=walks(most_steps=50))
def test_bundled_models_schedule_agrees_for_every_sampler(sampler: Sampler, walk: tuple[int, int]) -> None:
    config = json.loads(BUNDLED.read_text()) | {"clip_sample": False}

    assert difference(sampler, config, *walk) < TOLERANCE
