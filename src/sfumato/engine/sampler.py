"""A job's whole schedule as one table of numbers, so that one step is the same arithmetic for every sampler.

With latents x, the model's output m and the clean picture's estimate x0, each step is

    m      = model(s·x, t)
    x0     = p·x + q·m
    x      = a·x + b·x0 + c·x0_before + d·noise + e·(clamp(x0) - x0)

and the first x is signal·picture + noise·normal. Rows of jobs with different samplers, steps and strengths lie side by
side in one batch. The tables agree with diffusers' schedulers (tests/property/test_sampler_tables.py).

Sources: Euler and Euler ancestral, Karras et al. 2022 (arXiv 2206.00364); DDIM, Song et al. 2021 (2010.02502);
DPM-Solver++ 2M, Lu et al. 2022 (2211.01095); LCM, Luo et al. 2023 (2310.04378); flow matching, Esser et al. 2024
(2403.03206).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import PermanentError
from sfumato.core.params import Sampler
from sfumato.engine.schedule import Floats, NoiseSchedule, karras, spaced, timesteps_of, trained_sigmas, with_last

__all__ = ["COLUMNS", "TABLED", "Table", "table"]

COLUMNS: Final = ("s", "t", "p", "q", "a", "b", "c", "d", "e")


@dataclass(frozen=True, slots=True)
class Table:
    """One job's schedule: `rows` [evaluations, 9] in the order of COLUMNS, and how its first latents are mixed."""

    rows: Floats
    signal: float
    noise: float

    def __len__(self) -> int:
        return len(self.rows)


def table(sampler: Sampler, schedule: NoiseSchedule, steps: int, evaluations: int) -> Table:
    """The last `evaluations` of a schedule of `steps`, where an img2img job begins.

    Raises:
        PermanentError: this sampler can't make that many steps of this schedule.
    """
    if not 1 <= evaluations <= steps:
        raise PermanentError(
            f"{evaluations} of {steps} steps can't be run; 1 to {steps} can.", slug="invalid-parameters"
        )
    return _MAKERS[sampler](schedule, steps, steps - evaluations)


def _row(**columns: float) -> list[float]:
    return [columns.get(name, 1.0 if name == "s" else 0.0) for name in COLUMNS]


def _to_x0(schedule: NoiseSchedule, alpha: float, sigma: float) -> tuple[float, float]:
    """(p, q) for x = alpha·x0 + sigma·epsilon with alpha² + sigma² = 1."""
    if schedule.prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if schedule.prediction_type == "v_prediction":
        return alpha, -sigma
    return 0.0, 1.0


def _ve_to_x0(schedule: NoiseSchedule, sigma: float) -> tuple[float, float]:
    """(p, q) for x = x0 + sigma·epsilon, the space in which Euler walks."""
    if schedule.prediction_type == "epsilon":
        return 1.0, -sigma
    if schedule.prediction_type == "v_prediction":
        return 1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1)
    return 0.0, 1.0


def _euler_points(schedule: NoiseSchedule, steps: int, *, by_karras: bool) -> tuple[Floats, Floats]:
    """Timesteps [steps] and sigmas [steps]."""
    trained = trained_sigmas(schedule)
    timesteps = spaced(schedule, steps, schedule.timestep_spacing or "linspace")
    sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    if by_karras:
        sigmas = karras(sigmas[0], sigmas[-1], steps)
        timesteps = timesteps_of(sigmas, trained)
    return timesteps, sigmas


def _euler(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    timesteps, points = _euler_points(schedule, steps, by_karras=schedule.use_karras_sigmas)
    sigmas = with_last(schedule, points, trained_sigmas(schedule))
    rows = []
    for i in range(start, steps):
        here, there = sigmas[i], sigmas[i + 1]
        p, q = _ve_to_x0(schedule, here)
        rows.append(_row(s=1 / math.sqrt(here**2 + 1), t=timesteps[i], p=p, q=q, a=there / here, b=1 - there / here))
    return Table(np.array(rows), 1.0, float(sigmas[start]))


def _euler_ancestral(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    timesteps, points = _euler_points(schedule, steps, by_karras=False)
    sigmas = np.append(points, 0.0)
    rows = []
    for i in range(start, steps):
        here, there = sigmas[i], sigmas[i + 1]
        up = there * math.sqrt(1 - (there / here) ** 2)
        down = there**2 / here
        p, q = _ve_to_x0(schedule, here)
        s = 1 / math.sqrt(here**2 + 1)
        rows.append(_row(s=s, t=timesteps[i], p=p, q=q, a=down / here, b=1 - down / here, d=up))
    return Table(np.array(rows), 1.0, float(sigmas[start]))


def _ddim(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    """eta is 0, so no step draws noise."""
    alphas = schedule.alphas_cumprod()
    last = 1.0 if schedule.set_alpha_to_one else alphas[0]
    timesteps = spaced(schedule, steps, schedule.timestep_spacing or "leading").round().astype(int)
    stride = schedule.num_train_timesteps // steps
    rows = []
    for t in timesteps[start:]:
        power, next_power = alphas[t], alphas[t - stride] if t >= stride else last
        alpha, sigma = math.sqrt(power), math.sqrt(1 - power)
        p, q = _to_x0(schedule, alpha, sigma)
        a = math.sqrt(1 - next_power) / sigma
        # diffusers keeps epsilon of the unclamped estimate, so the clamp weighs less than x0 does: e, not b.
        e = math.sqrt(next_power) if schedule.clip_sample else 0.0
        rows.append(_row(t=t, p=p, q=q, a=a, b=math.sqrt(next_power) - a * alpha, e=e))
    return _variance_preserving(rows, alphas[timesteps[start]])


def _dpmpp_points(schedule: NoiseSchedule, steps: int) -> tuple[Floats, Floats]:
    """Timesteps [steps] and sigmas [steps + 1]; spacing counts the end as a step, unlike the others'."""
    trained = trained_sigmas(schedule)
    # A cosine schedule ends so near to pure noise that its first steps may be cut off by their log SNR.
    last = int(np.count_nonzero(-np.log(trained) >= schedule.lambda_min_clipped))
    if schedule.use_karras_sigmas:
        sigmas = karras(trained[-1], trained[0], steps)
        exact = timesteps_of(sigmas, trained)
        whole = np.trunc(exact) if schedule.beta_schedule == "squaredcos_cap_v2" else exact.round()
        return whole, with_last(schedule, sigmas, trained)
    timesteps = _dpmpp_timesteps(schedule, steps, last)
    return timesteps, with_last(schedule, np.interp(timesteps, np.arange(len(trained)), trained), trained)


def _dpmpp_timesteps(schedule: NoiseSchedule, steps: int, last: int) -> Floats:
    if steps > last:
        raise PermanentError(f"{steps} steps are more than the {last} the model was trained with.")
    spacing = schedule.timestep_spacing or "linspace"
    if spacing == "linspace":
        whole: Floats = np.linspace(last - 1, 0, steps + 1).round()
        return whole[:-1]
    if spacing == "leading":
        return np.arange(steps, 0, -1, dtype=np.float64) * (last // (steps + 1)) + schedule.steps_offset
    ends: Floats = np.arange(last, 0, -schedule.num_train_timesteps / steps).round()
    return ends[:steps] - 1


def _dpmpp_2m(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    timesteps, ve_sigmas = _dpmpp_points(schedule, steps)
    steps = len(timesteps)  # fewer than asked for when trailing steps are cut off by lambda_min_clipped
    if start >= steps:
        raise PermanentError(f"this model's schedule has only {steps} steps; raise strength.")
    alphas = 1 / np.sqrt(ve_sigmas**2 + 1)
    sigmas = ve_sigmas * alphas
    with np.errstate(divide="ignore"):
        half_snr = np.log(alphas) - np.log(sigmas)
    rows = []
    for i in range(start, steps):
        h = half_snr[i + 1] - half_snr[i]
        gain = -math.expm1(-h) * alphas[i + 1]
        b, c = gain, 0.0
        if i > start and not _first_order_end(schedule, steps, i):
            b, c = _second_order(schedule, gain, alphas[i + 1], h, (half_snr[i] - half_snr[i - 1]) / h)
        p, q = _to_x0(schedule, alphas[i], sigmas[i])
        rows.append(_row(t=timesteps[i], p=p, q=q, a=sigmas[i + 1] / sigmas[i], b=b, c=c))
    return Table(np.array(rows), float(alphas[start]), float(sigmas[start]))


def _first_order_end(schedule: NoiseSchedule, steps: int, i: int) -> bool:
    few = schedule.lower_order_final and steps < 15
    return i == steps - 1 and (schedule.euler_at_final or few or schedule.final_sigmas_type == "zero")


def _second_order(schedule: NoiseSchedule, gain: float, alpha: float, h: float, ratio: float) -> tuple[float, float]:
    """(b, c): what x0 and the x0 before weigh in a second-order step; `ratio` is the step before over this one."""
    slope = 0.5 * gain if schedule.solver_type == "midpoint" else alpha * (math.expm1(-h) / h + 1)
    return gain + slope / ratio, -slope / ratio


def _lcm(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    alphas = schedule.alphas_cumprod()
    timesteps = _lcm_timesteps(schedule, steps)
    rows = []
    for i in range(start, steps):
        t = timesteps[i]
        p, q = _to_x0(schedule, math.sqrt(alphas[t]), math.sqrt(1 - alphas[t]))
        skip, out = _boundary(schedule, t)
        signal, noise = 1.0, 0.0
        if i < steps - 1:
            signal, noise = math.sqrt(alphas[timesteps[i + 1]]), math.sqrt(1 - alphas[timesteps[i + 1]])
        e = signal * out if schedule.clip_sample else 0.0
        rows.append(_row(t=t, p=p, q=q, a=signal * skip, b=signal * out, d=noise, e=e))
    return _variance_preserving(rows, alphas[timesteps[start]])


def _lcm_timesteps(schedule: NoiseSchedule, steps: int) -> npt.NDArray[np.int64]:
    original = schedule.original_inference_steps
    if steps > original:
        raise PermanentError(f"sampler lcm makes at most {original} num_inference_steps of this model, not {steps}.")
    distilled = np.arange(1, original + 1, dtype=np.int64) * (schedule.num_train_timesteps // original) - 1
    chosen = np.floor(np.linspace(0, original, steps, endpoint=False)).astype(np.int64)
    return np.asarray(distilled[::-1][chosen], np.int64)


def _boundary(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """(c_skip, c_out) of a consistency model, sigma_data 0.5."""
    scaled = t * schedule.timestep_scaling
    return 0.25 / (scaled**2 + 0.25), scaled / math.sqrt(scaled**2 + 0.25)


def _flow_match_euler(schedule: NoiseSchedule, steps: int, start: int) -> Table:
    """The model predicts noise - picture; sigma runs from 1 to 0."""
    count = schedule.num_train_timesteps
    if schedule.even_sigmas:
        points = np.linspace(1, 1 / steps, steps)
    else:
        # A shift that is the same for all sizes is applied twice, as diffusers does.
        fixed = 1.0 if schedule.use_dynamic_shifting else schedule.shift
        high, low = _shifted(np.array([1.0, 1 / count]), fixed)
        points = np.linspace(high, low, steps)
    sigmas = np.append(_shifted(points, schedule.shift), 0.0)
    rows = []
    for i in range(start, steps):
        here, there = sigmas[i], sigmas[i + 1]
        rows.append(_row(t=here * count, p=1.0, q=-here, a=there / here, b=1 - there / here))
    return Table(np.array(rows), 1 - float(sigmas[start]), float(sigmas[start]))


def _shifted(sigmas: Floats, shift: float) -> Floats:
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _variance_preserving(rows: list[list[float]], power: float) -> Table:
    return Table(np.array(rows), math.sqrt(power), math.sqrt(1 - power))


_MAKERS: Final[Mapping[Sampler, Callable[[NoiseSchedule, int, int], Table]]] = {
    Sampler.EULER: _euler,
    Sampler.EULER_ANCESTRAL: _euler_ancestral,
    Sampler.DDIM: _ddim,
    Sampler.DPMPP_2M: _dpmpp_2m,
    Sampler.LCM: _lcm,
    Sampler.FLOW_MATCH_EULER: _flow_match_euler,
}
TABLED: Final = tuple(_MAKERS)
"""The samplers that are tables here."""
