"""What a caller may ask of a model, and what a model allows. One frozen model serves wire, message and row.

Public names are diffusers' own: prompt, negative_prompt, strength, num_inference_steps, guidance_scale, seed.
"""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import Field

from sfumato.core.errors import InvalidRequest
from sfumato.core.frozen import Frozen

__all__ = [
    "ModelRules",
    "OutputFormat",
    "Params",
    "ParamsRequest",
    "ResizeMode",
    "Sampler",
    "Shape",
    "evaluations",
    "nearest_shape",
]

MAX_PROMPT_CHARS = 4_000
MAX_SEED = 2**63 - 1
MAX_LCM_STEPS = 50
"""A latent consistency model was distilled at this many points of its schedule; there are no others to step on."""


class Sampler(StrEnum):
    """How a job walks from noise to picture; each is a table of numbers (docs/engine.md)."""

    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    LCM = "lcm"
    FLOW_MATCH_EULER = "flow_match_euler"
    NATIVE = "native"
    """Whatever the model's own pipeline does; for models that run request by request."""


class OutputFormat(StrEnum):
    """The file type of the result."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self.value}"


class ResizeMode(StrEnum):
    """How a picture of another aspect gets into an exact size. diffusers calls `stretch` "default"."""

    CROP = "crop"
    """It covers the size, and what stands over is cropped evenly."""
    FILL = "fill"
    """It fits into the size, and the rest is filled by its reflection."""
    STRETCH = "stretch"
    """Both sides are scaled each by itself."""


class Shape(NamedTuple):
    """A picture's size in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


class ParamsRequest(Frozen):
    """What a caller may leave out. `resolve` turns it into `Params` by the model's rules."""

    prompt: str = ""
    negative_prompt: str = ""
    strength: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    sampler: Sampler | None = None
    width: int | None = None
    height: int | None = None
    resize_mode: ResizeMode | None = None
    output_format: OutputFormat | None = None


class Params(Frozen):
    """Everything that decides a result, resolved: the same params and input give the same picture.

    `width` × `height` (pixels) is the shape the model runs at; `exact` says that the caller asked for that shape, so
    the result keeps it instead of taking the input's aspect.
    """

    prompt: str
    negative_prompt: str = ""
    strength: Annotated[float, Field(gt=0, le=1)]
    num_inference_steps: Annotated[int, Field(ge=1)]
    guidance_scale: Annotated[float, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    sampler: Sampler
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    exact: bool = False
    resize_mode: ResizeMode = ResizeMode.CROP
    output_format: OutputFormat = OutputFormat.PNG

    @property
    def shape(self) -> Shape:
        return Shape(self.width, self.height)


class ModelRules(Frozen):
    """What one model allows and what it takes when the caller is silent; published at `GET /api/models`.

    `shapes` are the buckets of about equal area that pictures are scaled to, so that any aspect ratio batches.
    """

    shapes: tuple[Shape, ...]
    size_multiple: int = 8
    max_pixels: int = 1024 * 1024
    strength: float = 0.6
    num_inference_steps: int = 30
    max_steps: int = 200
    guidance_scale: float = 5.0
    max_guidance_scale: float = 30.0
    sampler: Sampler = Sampler.DPMPP_2M
    samplers: tuple[Sampler, ...] = (
        Sampler.EULER,
        Sampler.EULER_ANCESTRAL,
        Sampler.DDIM,
        Sampler.DPMPP_2M,
        Sampler.LCM,
    )
    output_format: OutputFormat = OutputFormat.PNG
    max_prompt_chars: int = MAX_PROMPT_CHARS

    def resolve(self, asked: ParamsRequest, input_size: Shape, seed: int) -> Params:
        """Fill in what the caller left out and refuse what this model can't do.

        `input_size` is the upright input picture's size in pixels; `seed` is used when none was asked for.

        Raises:
            InvalidRequest: values are out of this model's range; the message names each with its range.
        """
        if faults := self.faults(asked):
            raise InvalidRequest(
                " ".join(faults), slug="invalid-parameters", title="A parameter is missing or out of range"
            )
        strength = self.strength if asked.strength is None else asked.strength
        steps = self.num_inference_steps if asked.num_inference_steps is None else asked.num_inference_steps
        guidance = self.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
        exact = asked.width is not None and asked.height is not None
        asked_shape = Shape(asked.width or 0, asked.height or 0)
        shape = asked_shape if exact else nearest_shape(input_size, self.shapes)
        return Params(
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=seed if asked.seed is None else asked.seed,
            sampler=asked.sampler or self.sampler,
            width=shape.width,
            height=shape.height,
            exact=exact,
            resize_mode=asked.resize_mode or ResizeMode.CROP,
            output_format=asked.output_format or self.output_format,
        )

    def faults(self, asked: ParamsRequest) -> Sequence[str]:
        """A sentence for each thing this model can't do; none when `resolve` will take it."""
        found = [*self._step_faults(asked), *self._shape_faults(asked)]
        most = self.max_guidance_scale
        if asked.guidance_scale is not None and not 0 <= asked.guidance_scale <= most:
            found.append(_out_of_range("guidance_scale", asked.guidance_scale, f"0 to {most}"))
        if asked.seed is not None and not 0 <= asked.seed <= MAX_SEED:
            found.append(_out_of_range("seed", asked.seed, f"0 to {MAX_SEED}"))
        for name, text in (("prompt", asked.prompt), ("negative_prompt", asked.negative_prompt)):
            if len(text) > self.max_prompt_chars:
                found.append(f"{name} has {len(text)} characters; at most {self.max_prompt_chars} are read.")
        return found

    def _step_faults(self, asked: ParamsRequest) -> Iterator[str]:
        strength = self.strength if asked.strength is None else asked.strength
        steps = self.num_inference_steps if asked.num_inference_steps is None else asked.num_inference_steps
        sampler = asked.sampler or self.sampler
        most = min(self.max_steps, MAX_LCM_STEPS) if sampler is Sampler.LCM else self.max_steps
        if not 0 < strength <= 1:
            yield _out_of_range("strength", strength, "above 0 and at most 1")
        if not 1 <= steps <= most:
            whose = " with sampler lcm" if most < self.max_steps else ""
            yield _out_of_range("num_inference_steps", steps, f"1 to {most}{whose}")
        elif 0 < strength <= 1 and evaluations(steps, strength, sampler) < 1:
            yield (
                f"strength {strength} of num_inference_steps {steps} leaves no step to run; "
                f"raise strength or ask for at least {int(1 / strength) + 1} steps."
            )
        if sampler not in self.samplers:
            yield self.wrong_sampler(sampler)

    def wrong_sampler(self, given: str) -> str:
        """What to say of a sampler that this model does not have."""
        return f"sampler {given} is not one of this model's: {', '.join(self.samplers)}."

    def _shape_faults(self, asked: ParamsRequest) -> Iterator[str]:
        if asked.width is None and asked.height is None:
            if asked.resize_mode is not None:
                yield "resize_mode is for an exact size; give width and height too, or leave it out."
            return
        if asked.width is None or asked.height is None:
            yield "give both width and height, or neither."
            return
        m = self.size_multiple
        for name, value in (("width", asked.width), ("height", asked.height)):
            if value < m or value % m:
                yield _out_of_range(name, value, f"a positive multiple of {m}")
        if asked.width > 0 and asked.height > 0 and asked.width * asked.height > self.max_pixels:
            pixels = asked.width * asked.height
            side = math.isqrt(self.max_pixels) // m * m
            most = f"{self.max_pixels}, such as {side} x {side}"
            yield f"width × height is {pixels} pixels; this model makes at most {most}."

    def check(self) -> Self:
        """Raise ValueError when the rules contradict themselves; run where models.toml is read."""
        if not self.shapes:
            raise ValueError("shapes is empty; give at least one [width, height].")
        if self.size_multiple < 1:
            raise ValueError(f"size_multiple is {self.size_multiple}; it must be 1 or more.")
        if not 0 < self.strength <= 1 or not 1 <= self.num_inference_steps <= self.max_steps:
            raise ValueError("the default strength must be above 0 and at most 1, the default steps 1 to max_steps.")
        for shape in self.shapes:
            if min(shape) < 1:
                raise ValueError(f"shape {tuple(shape)} has no pixels.")
            if shape.width % self.size_multiple or shape.height % self.size_multiple or shape.pixels > self.max_pixels:
                raise ValueError(f"shape {tuple(shape)} is no multiple of {self.size_multiple} or over max_pixels.")
        if self.sampler not in self.samplers:
            raise ValueError(f"default sampler {self.sampler} is not among samplers.")
        if evaluations(self.num_inference_steps, self.strength, self.sampler) < 1:
            raise ValueError("the default strength of the default num_inference_steps leaves no step to run.")
        return self


def evaluations(num_inference_steps: int, strength: float, sampler: Sampler) -> int:
    """How many steps really run, by diffusers' rules: rounded down, but up where a flow is matched (SD3, Flux)."""
    wanted = min(num_inference_steps * strength, num_inference_steps)
    if sampler is Sampler.FLOW_MATCH_EULER:
        return num_inference_steps - int(num_inference_steps - wanted)
    return int(wanted)


def nearest_shape(size: Shape, shapes: tuple[Shape, ...]) -> Shape:
    """The bucket whose aspect ratio is nearest to `size`'s, as a ratio, so that wide and tall weigh the same."""

    def distance(shape: Shape) -> float:
        ours, theirs = shape.width * size.height, shape.height * size.width
        return max(ours, theirs) / min(ours, theirs)

    return min(shapes, key=distance)


def _out_of_range(name: str, value: float, wanted: str) -> str:
    return f"{name} is {value}; it must be {wanted}."
