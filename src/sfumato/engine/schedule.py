"""How a model was trained to remove noise, and where on that way the steps of a schedule lie.

Timestep spacing as named in Lin et al. 2023 (arXiv 2305.08891), Karras sigmas from Karras et al. 2022 (2206.00364).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import PermanentError, SfumatoError

__all__ = [
    "Floats",
    "NoiseSchedule",
    "UnsupportedSchedule",
    "karras",
    "spaced",
    "timesteps_of",
    "trained_sigmas",
    "with_last",
]

Floats = npt.NDArray[np.float64]


class UnsupportedSchedule(SfumatoError):
    """The model's scheduler_config.json asks for something no table can do; the message names the key."""

    slug = "unsupported-schedule"
    title = "This noise schedule is not supported"


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """How a model was trained and how its timesteps are spaced; field names are those of scheduler_config.json.

    Defaults are diffusers' own, except `clip_sample`: a latent model whose config is silent is not clamped.
    """

    num_train_timesteps: int = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow_prediction"] = "epsilon"
    """flow_prediction stands in no config; it is what a flow matching family says of itself."""
    timestep_spacing: Literal["linspace", "leading", "trailing"] | None = None
    """None: each sampler's own default in diffusers."""
    steps_offset: int = 0
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    set_alpha_to_one: bool = True
    use_karras_sigmas: bool = False
    lower_order_final: bool = True
    euler_at_final: bool = False
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    lambda_min_clipped: float = -math.inf
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    even_sigmas: bool = False
    """Flow matching steps lie evenly from 1 to 1 / steps before the shift; not in configs, but in Flux's pipeline."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """From the contents of scheduler_config.json; keys of other schedulers are ignored, as diffusers does.

        Raises:
            UnsupportedSchedule: the config needs what is not linear (thresholding) or not written here.
        """
        for key in _REFUSED:
            if config.get(key):
                raise UnsupportedSchedule(
                    f"scheduler_config.json has {key}: {config[key]!r}, which no sampler here does."
                )
        known = {field.name for field in fields(cls)}
        schedule = cls(**{key: value for key, value in config.items() if key in known})
        for key, allowed in _CHOICES.items():
            if getattr(schedule, key) not in allowed:
                raise UnsupportedSchedule(
                    f"scheduler_config.json has {key}: {getattr(schedule, key)!r}; one of {allowed}."
                )
        return schedule

    @property
    def clamp(self) -> float | None:
        """x0 is kept within ± this where the sampler clips; None: nowhere."""
        return self.clip_sample_range if self.clip_sample else None

    def shifted_for(self, tokens: int) -> "NoiseSchedule":
        """This schedule for pictures of so many tokens: a larger one needs more noise to hide as much."""
        if not self.use_dynamic_shifting:
            return self
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        mu = self.base_shift + slope * (tokens - self.base_image_seq_len)
        return replace(self, shift=math.exp(mu) if self.time_shift_type == "exponential" else mu)

    def alphas_cumprod(self) -> Floats:
        """Signal power ᾱ at each training timestep, [num_train_timesteps], rounded as in training: in float32."""
        alphas = np.float32(1) - self._betas().astype(np.float32)
        return alphas.cumprod(dtype=np.float32).astype(np.float64)

    def _betas(self) -> Floats:
        low, high, count = self.beta_start, self.beta_end, self.num_train_timesteps
        if self.beta_schedule == "linear":
            return _line(low, high, count)
        if self.beta_schedule == "scaled_linear":
            return _line(low**0.5, high**0.5, count) ** 2
        alpha_bar = np.cos((_line(0, 1, count + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        betas: Floats = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
        return betas


def _line(first: float, last: float, count: int) -> Floats:
    return np.linspace(first, last, count, dtype=np.float64)


_REFUSED: Final = (
    "thresholding",
    "trained_betas",
    "rescale_betas_zero_snr",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "shift_terminal",
    "invert_sigmas",
    "stochastic_sampling",
    "sigma_data",
)
_CHOICES: Final = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("linspace", "leading", "trailing", None),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_type": ("midpoint", "heun"),
    "time_shift_type": ("exponential", "linear"),
}


def spaced(schedule: NoiseSchedule, steps: int, spacing: str) -> Floats:
    """[steps], falling; linspace is not rounded here."""
    count = schedule.num_train_timesteps
    if steps > count:
        raise PermanentError(
            f"{steps} steps are more than the {count} the model was trained with.", slug="invalid-parameters"
        )
    if spacing == "linspace":
        return np.linspace(0, count - 1, steps)[::-1]
    if spacing == "leading":
        return np.minimum((np.arange(steps) * (count // steps))[::-1] + schedule.steps_offset, count - 1).astype(float)
    # For some counts arange's rounding yields one value more, below timestep 0; it is no step.
    return np.arange(count, 0, -count / steps).round()[:steps] - 1


def trained_sigmas(schedule: NoiseSchedule) -> Floats:
    alphas = schedule.alphas_cumprod()
    return np.sqrt((1 - alphas) / alphas)


def with_last(schedule: NoiseSchedule, sigmas: Floats, trained: Floats) -> Floats:
    return np.append(sigmas, 0.0 if schedule.final_sigmas_type == "zero" else trained[0])


def karras(high: float, low: float, steps: int) -> Floats:
    """Karras et al. 2022, equation 5, rho 7."""
    ramp = _line(0, 1, steps)
    sigmas: Floats = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    return sigmas


def timesteps_of(sigmas: Floats, trained: Floats) -> Floats:
    return np.asarray(np.interp(np.log(sigmas), np.log(trained), np.arange(len(trained))), np.float64)
