"""What a call of AUTOMATIC1111's protocol may say, and what of it can't be done here."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, FailFast, Field
from pydantic_core import from_json, to_json

from sfumato.core.params import ModelRules, OutputFormat, ResizeMode, Sampler
from sfumato.gateway.compat.automatic1111.words import SAMPLERS, sampler_names
from sfumato.gateway.compat.leniency import nearest, without_claim
from sfumato.gateway.problems import Refusal

__all__ = [
    "Img2Img",
    "Options",
    "PngInfo",
    "as_url",
    "check_done_here",
    "echo",
    "first_seed",
    "format_of",
    "order_of",
    "resize_mode",
    "sampler_of",
]

SCHEDULE: Final = re.compile(
    r" (automatic|uniform|karras|exponential|polyexponential|sgm[ _]uniform|kl[ _]optimal|align[ _]your[ _]steps|simple"
    r"|normal|beta)$"
)
"""What stood behind a sampler's name before version 1.9, and still may."""
RESIZE: Final = (ResizeMode.STRETCH, ResizeMode.CROP, ResizeMode.FILL, ResizeMode.STRETCH)
RANDOM_SEED: Final = -1
ECHO_BYTES: Final = 64 * 1024
SEEDS: Final = 2**32
"""How many there are to draw from: clients hold a seed in 32 bits."""
_BLANKS: Final = str.maketrans("", "", " \t\r\n\v\f")
FORMATS: Final = MappingProxyType({"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"})
WHOLE_PICTURES: Final = "this service changes whole pictures; leave it out, or crop to what is to change"
NOT_DONE: Final = MappingProxyType(
    {
        "mask": WHOLE_PICTURES,
        "script_name": "there are no scripts here (GET /sdapi/v1/scripts); leave it out",
        "restore_faces": "there is no face restoration here; send false",
        "tiling": "pictures that tile are not made here; send false",
        "enable_hr": "pictures are not made larger here; send false, and width and height as they are to be",
        "subseed_strength": "seeds are not mixed here; send 0",
    }
)


class Img2Img(BaseModel):
    """A call's fields; whatever else is sent is taken and means nothing here, as AUTOMATIC1111 does with its own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    # The first that is wrong is enough: a body holds millions.
    init_images: Annotated[list[str] | None, FailFast()] = None
    prompt: str | None = None
    negative_prompt: str | None = None
    denoising_strength: float | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    width: int | None = None
    height: int | None = None
    resize_mode: Annotated[int, Field(ge=0, le=3)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    n_iter: Annotated[int, Field(ge=1)] | None = None
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = None
    priority: str | None = None
    mask: object = None
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    subseed_strength: float | None = None
    enable_hr: bool | None = None


class PngInfo(BaseModel):
    """A picture that is asked about."""

    model_config = ConfigDict(frozen=True, extra="allow")

    image: str


class Options(BaseModel):
    """The options to be kept; all but these are taken and mean nothing here."""

    model_config = ConfigDict(frozen=True, extra="allow")

    sd_model_checkpoint: str | None = None


def check_done_here(asked: Img2Img) -> None:
    """Raises Refusal when something is asked for that would have to change the picture and can't be done here."""
    for name, why in NOT_DONE.items():
        if getattr(asked, name):
            raise Refusal("invalid-parameters", f"{name} is not taken: {why}.", param=name)
    on = [name[:80] for name, script in (asked.alwayson_scripts or {}).items() if _switched_on(script)]
    if on:
        detail = f"alwayson_scripts {', '.join(on)}: there are no scripts here; leave them out, or switch them off."
        raise Refusal("invalid-parameters", detail, param="alwayson_scripts")


def _switched_on(script: object) -> bool:
    args = script.get("args") if isinstance(script, dict) else None
    if not isinstance(args, list):
        return bool(args)
    # An extension's first argument says whether it is on; ControlNet's units say so each.
    return bool(args) and args[0] is not False and not all(_unit_is_off(each) for each in args)


def _unit_is_off(unit: object) -> bool:
    return isinstance(unit, dict) and unit.get("enabled") is False


def order_of(asked: Img2Img, most: int) -> Sequence[int]:
    """Which of its `init_images` each picture of a call is made from: several are a batch, one is a whole batch.

    Raises:
        Refusal: there is none, there are more than the batch has, or over `most` pictures come of it.
    """
    images, batch = len(asked.init_images or ()), asked.batch_size or 1
    if not images:
        raise Refusal("missing-image", "init_images has no picture; send one as base64.", param="init_images")
    if images > 1 and images > batch:
        told = f"init_images has {images} pictures and batch_size is {batch}"
        raise Refusal("invalid-parameters", f"{told}; raise batch_size, or send fewer.", param="batch_size")
    batch, times = (images if images > 1 else batch), asked.n_iter or 1
    if batch * times > most:
        told = f"A batch of {batch} times n_iter {times} is {batch * times} pictures; at most {most} are made"
        raise Refusal("invalid-parameters", f"{told} in one call. Send several.", param="batch_size")
    return [number % images for number in range(batch * times)]


def sampler_of(asked: Img2Img, rules: ModelRules) -> Sampler | None:
    """The sampler that is meant, None when none is named; what is said of its schedule is left out.

    Raises:
        Refusal: the model has none of this name.
    """
    name = asked.sampler_name or asked.sampler_index
    if not name:
        return None
    ours = {SAMPLERS[sampler].lower(): sampler for sampler in rules.samplers}
    for spelled in (name.lower(), SCHEDULE.sub("", name.lower())):
        if spelled in ours:
            return ours[spelled]
    raise Refusal("invalid-parameters", nearest("sampler_name", name, sampler_names([rules])), param="sampler_name")


def resize_mode(asked: Img2Img) -> ResizeMode | None:
    """How the picture gets into the size asked for; None where no whole size is."""
    return None if asked.width is None or asked.height is None else RESIZE[asked.resize_mode or 0]


def format_of(override_settings: Mapping[str, Any]) -> OutputFormat | None:
    """The file type of the pictures, None when it is left open. Raises Refusal when it is none of ours."""
    name = override_settings.get("samples_format")
    if name is None:
        return None
    if str(name).lower() not in FORMATS:
        detail = f"samples_format is {str(name)[:80]!r}; it must be {', '.join(FORMATS)}."
        raise Refusal("invalid-parameters", detail, param="override_settings")
    return OutputFormat(FORMATS[str(name).lower()])


def as_url(image: str) -> str:
    """A picture as the reception knows it: base64 by itself is a data URL that claims no type; lines are joined."""
    if image.startswith(("http://", "https://")):
        return image
    # Not by split: of a picture with a blank behind every letter it would make a list many times its size.
    whole = image.translate(_BLANKS)
    return without_claim(whole) if whole.startswith("data:") else f"data:;base64,{whole}"


def echo(asked: Img2Img) -> dict[str, Any]:
    """What was sent, as the answer tells it: without the pictures, and without what else is large, for it is kept
    until the pictures are made."""
    left_bytes, told = ECHO_BYTES, dict[str, Any](init_images=None)
    for name, value in asked.model_dump(exclude_unset=True, exclude={"init_images"}).items():
        # What was sent may hold numbers that JSON has no word for.
        text = to_json({name: value}, inf_nan_mode="null")
        short = text if len(text) <= left_bytes else to_json({name: None})
        if (left_bytes := left_bytes - len(short)) < 0:
            break
        told |= from_json(short)
    return told


def first_seed(asked: Img2Img, key: str | None) -> int:
    """The seed of a call's first picture; one that nobody chose is the same when the same request comes again."""
    if asked.seed is not None and asked.seed != RANDOM_SEED:
        return asked.seed
    if key is None:
        return secrets.randbelow(SEEDS)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
