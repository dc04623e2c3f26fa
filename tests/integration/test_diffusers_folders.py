"""What the torch backend says of folders that are not whole, and of devices that fail."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.core.errors import EngineDead
from sfumato.core.params import ModelRules, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import Backend, BackendUnusable, Options
from sfumato.engine.backends.diffusers.backend import DiffusersBackend
from sfumato.engine.engine import Engine, Event, Finished
from tests.diffusers_models import make_model
from tests.integration.test_diffusers_backend import scene
from tests.support import make_params

RULES = ModelRules(shapes=(Shape(64, 64),))
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("sd", tmp_path_factory.mktemp("models") / "sd")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(folder: Path, **options: Any) -> Backend:
    return backends.load("diffusers", folder, RULES, Options(threads=1, **options))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reweigh(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def spoil(weights: dict[str, Any]) -> None:
    weights["conv_in.weight"][0] = float("nan")


def pickle(folder: Path) -> None:
    (folder / UNET).rename((folder / UNET).with_suffix(".bin"))


def widen_the_text_encoder(folder: Path) -> None:
    wide = make_model("sd-wide-text", folder.parent / "wide")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(wide / "text_encoder", folder / "text_encoder")


def inpaint(folder: Path) -> None:
    edit(folder / "unet" / "config.json", in_channels=9)
    shape = (16, 9, 3, 3)
    reweigh(folder / UNET, lambda weights: weights.update({"conv_in.weight": torch.zeros(shape)}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda m: (m / "model_index.json").unlink(), r"model_index\.json can't be read"),
        (lambda m: (m / "scheduler/scheduler_config.json").unlink(), r"scheduler_config\.json can't be read"),
        (lambda m: (m / "vae/config.json").write_text("{"), r"vae/config\.json can't be read"),
        (lambda m: (m / UNET).unlink(), r"unet/diffusion_pytorch_model\.safetensors is missing"),
        (lambda m: (m / TEXT).write_bytes(b"cut off"), r"text_encoder can't be loaded as CLIPTextModel"),
        (lambda m: (m / "tokenizer/tokenizer.json").unlink(), r"tokenizer has no vocabulary"),
        (pickle, r"diffusion_pytorch_model\.bin, a pickle.*Convert it once.*use_safetensors=False"),
        (lambda m: reweigh(m / UNET, spoil), r"unet: the weights conv_in\.weight are not all finite"),
        (lambda m: reweigh(m / UNET, lambda w: w.pop("conv_out.bias")), r"lacks 1 weights .* conv_out\.bias"),
        (lambda m: reweigh(m / TEXT, lambda w: w.popitem()), r"text_encoder lacks 1 weights"),
        (
            lambda m: edit(m / "model_index.json", _class_name="WuerstchenPipeline"),
            r"pipeline WuerstchenPipeline can't be stepped here; these can: StableDiffusionPipeline",
        ),
        (
            lambda m: edit(m / "model_index.json", unet=["their_code", "TheirUnet"]),
            r"unet is their_code\.TheirUnet; .* needs diffusers\.UNet2DConditionModel",
        ),
        (lambda m: edit(m / "model_index.json", text_encoder=[None, None]), r"text_encoder is None"),
        (lambda m: edit(m / "scheduler/scheduler_config.json", thresholding=True), "thresholding"),
        (lambda m: edit(m / "scheduler/scheduler_config.json", sigma_data=0.5), "sigma_data"),
        (inpaint, r"in_channels is 9, the vae makes 4; inpainting"),
        (widen_the_text_encoder, r"cross_attention_dim is 32, the text encoder gives 64"),
    ],
)
def test_folder_that_is_not_whole_is_refused_by_name(folder: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(folder)

    with pytest.raises(BackendUnusable, match=said):
        load(folder)


def test_xl_refiner_that_hides_that_it_is_one_is_refused(tmp_path: Path) -> None:
    folder = make_model("sdxl-refiner", tmp_path / "refiner")
    edit(folder / "model_index.json", requires_aesthetics_score=False)

    with pytest.raises(BackendUnusable, match="mend requires_aesthetics_score"):
        load(folder)


@pytest.mark.parametrize("kind", ["sd3", "flux-dev"])
def test_flow_transformer_whose_vae_is_anothers_is_refused(tmp_path: Path, kind: str) -> None:
    folder = make_model(kind, tmp_path / "model")
    other = make_model("flux-dev" if kind == "sd3" else "sd3", tmp_path / "other")
    shutil.rmtree(folder / "vae")
    shutil.copytree(other / "vae", folder / "vae")

    with pytest.raises(BackendUnusable, match="they are of different models"):
        load(folder)


@pytest.mark.parametrize(("kind", "sampler"), [("flux-dev", Sampler.EULER), ("sd", Sampler.FLOW_MATCH_EULER)])
def test_sampler_of_the_other_kind_of_model_is_refused(tmp_path: Path, kind: str, sampler: Sampler) -> None:
    folder = make_model(kind, tmp_path / "model")
    rules = ModelRules(shapes=(Shape(64, 64),), size_multiple=16, sampler=sampler, samplers=(sampler,))

    with pytest.raises(BackendUnusable, match=f"samplers has {sampler}"):
        backends.load("diffusers", folder, rules)


def test_folder_with_only_half_precision_files_is_served(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))

    assert load(folder).about.latent_channels == 4


def test_cuda_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(BackendUnusable, match="torch finds no CUDA device"):
        load(folder, device="cuda")


def test_dtype_is_the_networks_and_latents_stay_float32(folder: Path) -> None:
    backend = load(folder, device="cpu", dtype="bfloat16")
    latents = backend.encode_images(scene(make_params())[None], [backend.arrays.generator(1)])

    assert backend.about.dtype == "bfloat16"
    assert latents.dtype == torch.float32
    assert all(isinstance(event, Finished) for event in ends(backend))


@pytest.mark.parametrize(("kind", "wanted"), [("sd", torch.float16), ("sdxl", torch.float32)])
def test_only_xl_upcasts_its_vae_as_diffusers_does(tmp_path: Path, kind: str, wanted: torch.dtype) -> None:
    backend = DiffusersBackend(make_model(kind, tmp_path / kind), Options(device="cpu", dtype="float16"))

    assert backend._vae._module.dtype == wanted


def test_memory_is_spared_where_that_is_asked_for(folder: Path) -> None:
    backend: Any = load(folder, attention_slicing=True, vae_tiling=True)

    assert backend._vae._module.use_tiling
    processors = backend._family._unet._module.attn_processors.values()
    assert {type(processor).__name__ for processor in processors} == {"SlicedAttnProcessor"}
    assert all(isinstance(event, Finished) for event in ends(backend))


def test_slicing_of_a_network_that_can_not_slice_is_refused(tmp_path: Path) -> None:
    folder = make_model("flux-dev", tmp_path / "model")
    sampler = Sampler.FLOW_MATCH_EULER
    rules = ModelRules(shapes=(Shape(64, 64),), size_multiple=16, sampler=sampler, samplers=(sampler,))

    with pytest.raises(BackendUnusable, match="attention_slicing is not for a FluxPipeline"):
        backends.load("diffusers", folder, rules, Options(attention_slicing=True))


def ends(backend: Backend, jobs: int = 1) -> list[Event]:
    """What became of so many equal jobs in one engine."""
    engine = Engine(backend, 8)
    params = make_params(num_inference_steps=2)
    for number in range(jobs):
        engine.add(str(number), params, scene(params))
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return [event for event in events if isinstance(event, Finished) or hasattr(event, "error")]


class Failing:
    """In place of a network: raises `error` for more than `rows` rows."""

    def __init__(self, network: Any, error: Exception, rows: int) -> None:
        self._network, self._error, self._rows = network, error, rows
        self.calls: list[int] = []

    def __call__(self, x: Any, *arguments: Any, **more: Any) -> Any:
        self.calls.append(len(x))
        if len(x) > self._rows:
            raise self._error
        return self._network(x, *arguments, **more)


def failing(backend: Any, error: Exception, rows: int) -> Failing:
    unet = backend._family._unet
    network = unet._network = Failing(unet._network, error, rows)
    return network


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_out_of_memory_splits_the_batch_and_no_job_fails(folder: Path, error: Exception) -> None:
    backend = load(folder)
    network = failing(backend, error, rows=2)

    events = ends(backend, jobs=4)

    assert [type(event) for event in events] == [Finished] * 4
    assert network.calls == [4, 2, 2]


def test_memory_of_a_call_that_did_not_fit_is_free_before_the_next(folder: Path) -> None:
    class Tensor:
        alive = 0

        def __init__(self) -> None:
            Tensor.alive += 1

        def __del__(self) -> None:
            Tensor.alive -= 1

    def network(x: Any, *arguments: Any, **more: Any) -> Any:
        seen.append(Tensor.alive)
        activation = Tensor()
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        del activation
        return (x,)

    seen: list[int] = []
    backend: Any = load(folder)
    backend._family._unet._network = network

    ends(backend, jobs=2)

    assert seen == [0, 0, 0]


def test_error_of_the_device_ends_the_engine(folder: Path) -> None:
    backend = load(folder)
    failing(backend, torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), rows=0)

    with pytest.raises(EngineDead, match="illegal memory access"):
        ends(backend)


def test_error_of_the_device_in_the_engines_own_arithmetic_ends_it_too(folder: Path) -> None:
    backend = load(folder)

    with pytest.raises(EngineDead), backend.arrays.computing():
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
