"""LoRA files fused into a model at load, against diffusers' own way of adding them."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch

from sfumato.core.params import ModelRules, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import Backend, BackendUnusable, Lora, Options
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.loras import fuse
from tests.diffusers_models import make_model
from tests.integration.test_diffusers_backend import FLOW, TOLERANCE, difference, run, theirs
from tests.support import make_params

# diffusers 0.42 hands torch tensors to numpy 2 in a way that numpy warns about; peft warns of a base without a name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

KINDS = ("sd", "sdxl", "sd3", "flux-dev")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def make_lora(folder: Path, file: Path, seed: int = 1) -> Path:
    """A LoRA of the model in `folder` with random weights large enough to be seen, as diffusers saves one."""
    torch.manual_seed(seed)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    network = getattr(pipeline, part)
    network.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=TARGETS))
    layers = {name: 0.3 * weights for name, weights in peft.get_peft_model_state_dict(network).items()}
    type(pipeline).save_lora_weights(file.parent, **{f"{part}_lora_layers": layers}, weight_name=file.name)
    return file


def load(folder: Path, kind: str, *loras: Lora) -> Backend:
    sampler = FLOW[0] if kind in ("sd3", "flux-dev") else Sampler.DDIM
    rules = ModelRules(shapes=(Shape(64, 64),), size_multiple=16, samplers=(sampler,), sampler=sampler)
    return backends.load("diffusers", folder, rules, Options(threads=1, device="cpu", loras=loras))


def params_for(kind: str) -> Any:
    sampler = FLOW[0] if kind in ("sd3", "flux-dev") else Sampler.DDIM
    return make_params(sampler=sampler, guidance_scale=3.0, negative_prompt="dull")


@pytest.mark.parametrize("kind", KINDS)
def test_fused_loras_do_what_diffusers_does_with_them(tmp_path: Path, kind: str) -> None:
    folder = make_model(kind, tmp_path / "model")
    files = [make_lora(folder, tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    params = params_for(kind)
    (plain,) = run(load(folder, kind), [params])
    pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for name, file in zip("ab", files, strict=True):
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name=name)
    pipeline.set_adapters(["a", "b"], [0.8, 0.5])

    (found,) = run(load(folder, kind, Lora(files[0], 0.8), Lora(files[1], 0.5)), [params])

    assert difference(found, theirs(pipeline, params)) < TOLERANCE
    assert difference(found, plain) > 10 * TOLERANCE


def test_peft_that_is_not_installed_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(make_model("sd", tmp_path / "model"))
    monkeypatch.setitem(sys.modules, "peft", None)

    fuse(folder, [])
    with pytest.raises(ImportError) as caught:
        fuse(folder, [Lora(tmp_path / "any.safetensors")])
    assert caught.value.name == "peft"


def test_lora_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    folder, other = make_model("sd", tmp_path / "model"), make_model("sdxl", tmp_path / "other")
    file = make_lora(other, tmp_path / "other.safetensors")

    with pytest.raises(BackendUnusable, match=r"other\.safetensors"):
        load(folder, "sd", Lora(file))


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_broken_lora_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    folder = make_model("sd", tmp_path / "model")
    (tmp_path / "broken.safetensors").write_bytes(content)

    with pytest.raises(BackendUnusable, match=r"broken\.safetensors"):
        load(folder, "sd", Lora(tmp_path / "broken.safetensors"))
