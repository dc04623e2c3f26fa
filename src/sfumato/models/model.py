"""One model that jobs can name, and the errors about models that can't be used."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from sfumato.core.errors import SfumatoError, TransientError
from sfumato.core.params import ModelRules

__all__ = [
    "BUNDLED",
    "FOLDER",
    "BackendName",
    "BadModels",
    "BrokenModel",
    "CannotChange",
    "Device",
    "Dtype",
    "Lora",
    "Model",
    "Scaling",
]

BackendName = Literal["onnx", "diffusers", "simulated"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

BUNDLED: Final = "restyle"
FOLDER: Final = Path(__file__).parent / "bundled" / BUNDLED


class BadModels(SfumatoError):
    """The list of models can't be used; the message names the file and the place in it."""

    slug = "bad-models"
    title = "The list of models can't be used"


class BrokenModel(TransientError):
    """The model is listed, but what lies in its folder can't be served; it is served again once that is mended."""

    slug = "broken-model"
    title = "The model's files can't be used now"

    def __init__(self, name: str, trouble: str) -> None:
        super().__init__(f"model {name!r} can't be served now: {trouble}")


class CannotChange(SfumatoError):
    """A model can't be added to the list or removed from it as asked; nothing was changed."""

    slug = "cannot-change-models"
    title = "The list of models can't be changed like this"


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA that goes on top of a model's weights: its .safetensors file, and how strongly (1.0: as it is)."""

    path: Path
    weight: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many workers a model may have: `least` to `most` (None: what SFUMATO_WORKERS says), the time from accept to
    result that they should keep (seconds), and how much its waiting jobs weigh beside those of other models."""

    least: int = 0
    most: int | None = None
    objective_s: float = 30.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """One model that jobs can name.

    `slug` stands in topic and metric names; `batch` is how many rows a model call has at most; `slots` is how many jobs
    one worker holds at once, more than that because a call takes jobs of one shape only; above `max_backlog`
    waiting jobs new ones are answered 429; `device` and `dtype` are where and in which numbers its backend computes;
    `hub` and `revision` are where the folder came from, if it was fetched; `output_filter`, "package.module:function",
    is called with each finished picture; `attention_slicing` and `vae_tiling` need less memory; `cuda_graphs` off is
    for finding out whether they are at fault; `scaling` is what the controller goes by; `words` are those of which a
    prompt needs one, none where any prompt will do; `suggestions` are some of them to choose from, by what they are of
    (`styles`, `moods`).
    """

    name: str
    slug: str
    backend: BackendName
    path: Path
    rules: ModelRules
    max_backlog: int
    batch: int
    slots: int
    summary: str
    device: Device = "auto"
    dtype: Dtype = "auto"
    hub: str = ""
    revision: str = ""
    loras: tuple[Lora, ...] = ()
    output_filter: str = ""
    attention_slicing: bool = False
    vae_tiling: bool = False
    cuda_graphs: bool = True
    scaling: Scaling = Scaling()
    words: frozenset[str] = frozenset()
    suggestions: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    def knows(self, prompt: str) -> bool:
        """Whether a prompt has one of `words`, each a word or a run of words; where there are none, any prompt has."""
        plain = " ".join(["", *re.findall(r"[\w&-]+", prompt.lower()), ""])
        return not self.words or any(f" {word} " in plain for word in self.words)
