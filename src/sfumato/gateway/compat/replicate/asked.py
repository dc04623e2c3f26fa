"""What a prediction is asked for, in Replicate's words, and what that is in the gateway's own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, FailFast, Field

from sfumato.core.params import ModelRules
from sfumato.core.prediction import scheduler_name
from sfumato.core.webhooks import Hook
from sfumato.gateway.asked import parse
from sfumato.gateway.compat.leniency import nearest, up_to
from sfumato.gateway.compat.openai import NO_MASK
from sfumato.gateway.problems import Refusal

__all__ = ["NAMES", "Input", "VersionWanted", "Wanted", "fields_of", "input_of"]

HOOKS: Final[Mapping[str, tuple[Hook, ...]]] = MappingProxyType(
    {
        "start": (Hook.STARTED,),
        "output": (Hook.SUCCEEDED,),
        "logs": (),
        "completed": (Hook.SUCCEEDED, Hook.FAILED, Hook.CANCELED),
    }
)
NAMES: Final = MappingProxyType(
    {
        "model_name": "model",
        "strength": "prompt_strength",
        "sampler": "scheduler",
        "webhook_url": "webhook",
        "webhook_events": "webhook_events_filter",
    }
)


SAME: Final = frozenset(
    {
        *("prompt", "negative_prompt", "num_inference_steps", "seed", "width", "height", "resize_mode"),
        *("output_format", "priority", "metadata"),
    }
)
"""What both call the same."""


class Wanted(BaseModel):
    """A prediction to be made of a model that the address names. `stream` is taken and means nothing here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: dict[str, Any]
    webhook: str | None = None
    webhook_completed: str | None = None
    # The first that is wrong is enough: a body holds millions.
    webhook_events_filter: Annotated[tuple[Literal["start", "output", "logs", "completed"], ...] | None, FailFast()] = (
        None
    )
    stream: object = None


class VersionWanted(Wanted):
    """A prediction to be made of a version: its id, `owner/name`, `owner/name:version` or a model's own name."""

    version: str


class Input(BaseModel):
    """What a model is given. The fields typed `object` are read by the model's rules.

    Those behind `metadata` are what models on Replicate often have beside; they are taken, and mean nothing here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[str, Field(validation_alias=AliasChoices("image", "input_image"))]
    prompt: object = None
    negative_prompt: object = None
    prompt_strength: Annotated[object, Field(validation_alias=AliasChoices("prompt_strength", "strength"))] = None
    num_inference_steps: object = None
    guidance_scale: object = None
    seed: object = None
    scheduler: Annotated[object, Field(validation_alias=AliasChoices("scheduler", "sampler"))] = None
    width: object = None
    height: object = None
    resize_mode: object = None
    output_format: object = None
    num_outputs: Literal[1] | None = None
    priority: object = None
    metadata: object = None
    aspect_ratio: Literal["match_input_image"] | None = None
    disable_safety_checker: object = None
    safety_tolerance: object = None
    apply_watermark: object = None
    output_quality: object = None
    go_fast: object = None
    megapixels: object = None
    refine: object = None
    refine_steps: object = None
    high_noise_frac: object = None
    lora_scale: object = None


def input_of(wanted: Wanted) -> Input:
    """What the model is to be given; null stands for what was left out. Raises Refusal."""
    if wanted.input.get("mask") is not None:
        raise Refusal("unknown-parameter", NO_MASK)
    return parse(Input, {name: value for name, value in wanted.input.items() if value is not None})


def fields_of(wanted: Wanted, given: Input, rules: ModelRules) -> dict[str, Any]:
    """All but the model and the picture, by the gateway's own names. Raises Refusal."""
    fields = given.model_dump(include=set(SAME))
    fields |= {"strength": given.prompt_strength, "sampler": _sampler(given.scheduler, rules)}
    fields["guidance_scale"] = up_to(rules.max_guidance_scale, given.guidance_scale)
    fields |= {"output_format": "jpeg"} if given.output_format == "jpg" else {}
    return fields | _hooks(wanted)


def _hooks(wanted: Wanted) -> dict[str, str]:
    """Where to tell of what, in the gateway's own words."""
    url, told_of = wanted.webhook, wanted.webhook_events_filter or ()
    if wanted.webhook_completed:
        if url:
            raise Refusal("bad-webhook", "webhook and webhook_completed are two addresses; a prediction tells one.")
        url, told_of = wanted.webhook_completed, ("completed",)
    if not url and not told_of:
        return {}
    events = dict.fromkeys(hook for each in told_of or HOOKS for hook in HOOKS[each])
    if not events:
        said = "webhook_events_filter has logs alone, and none are sent; add start, output or completed."
        raise Refusal("bad-webhook", said)
    return {"webhook_url": url or "", "webhook_events": ",".join(events)}


def _sampler(scheduler: object, rules: ModelRules) -> object:
    """Our name of a scheduler; what is no text is left to the model's rules."""
    if not isinstance(scheduler, str):
        return scheduler
    known = {scheduler_name(sampler): sampler for sampler in rules.samplers}
    known |= {sampler.value: sampler for sampler in rules.samplers}
    if scheduler not in known:
        raise Refusal("invalid-parameters", nearest("scheduler", scheduler, known))
    return known[scheduler]
