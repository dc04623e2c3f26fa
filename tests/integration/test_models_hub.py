"""`sfumato models add owner/name`: huggingface_hub's own client against a hub on a real socket."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.core.params import ModelRules, Shape
from sfumato.engine import backends
from sfumato.models.registry import Model, Registry
from tests.diffusers_models import make_model
from tests.fake_hub import FakeHub

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it lies at a hub: with all the copies of its weights that nobody here needs, and code."""
    folder = make_model("sd", tmp_path_factory.mktemp("models") / "tiny")
    shutil.copy(folder / f"{UNET}.safetensors", folder / f"{UNET}.fp16.safetensors")
    text = folder / "text_encoder" / "model.safetensors"
    text.rename(text.with_suffix(".fp16.safetensors"))
    for name in (
        f"{UNET}.bin",
        "unet/code.py",
        "v1.ckpt",
        "all.safetensors",
        "README.md",
        "safety_checker/config.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return folder


class Shop:
    """A machine with an empty cache, the hub that it knows, and the command."""

    def __init__(self, hub: FakeHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.file = folder / "data" / "models.toml"
        self.cache = folder / "cache"

    def run(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        mine = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "home"),
            "SFUMATO_DATA_DIR": str(self.file.parent),
            "SFUMATO_MODELS_CACHE": str(self.cache),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SFUMATO_"))}  # noqa: TID251 - the child's, handed through
        command = [sys.executable, "-m", "sfumato", "models", *words]
        return subprocess.run(
            command, env=kept | mine | changes, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def added(self, *words: str, **changes: str) -> Model:
        done = self.run("add", "ours", *words, **changes)
        assert done.returncode == 0, done.stderr
        return Registry.load(self.file).get("ours")

    def refused(self, *words: str, **changes: str) -> str:
        done = self.run("add", "ours", *words, **changes)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not self.file.exists()
        return done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with FakeHub() as hub:
        yield Shop(hub, tmp_path)


def test_model_is_fetched_at_one_commit_and_can_be_loaded(shop: Shop, tiny: Path) -> None:
    commit = shop.hub.push("owner/tiny", tiny)

    done = shop.run("add", "ours", "owner/tiny")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("added ours: StableDiffusionPipeline, diffusers, shapes 64x64")
    model = Registry.load(shop.file).get("ours")
    assert (model.hub, model.revision, model.backend) == ("owner/tiny", commit, "diffusers")
    assert model.path.is_relative_to(shop.cache)
    assert backends.load("diffusers", model.path, ModelRules(shapes=(Shape(64, 64),))).about.latent_channels == 4


def test_only_what_is_needed_is_fetched_and_nothing_that_can_run_code(shop: Shop, tiny: Path) -> None:
    shop.hub.push("owner/tiny", tiny)

    shop.added("owner/tiny")

    fetched = set(shop.hub.fetched)
    assert {file for file in fetched if file.endswith(".safetensors")} == {
        f"{UNET}.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.fp16.safetensors",
    }
    assert {Path(file).suffix for file in fetched} <= {".json", ".txt", ".safetensors"}
    assert "tokenizer/tokenizer_config.json" in fetched
    assert not any("safety_checker" in file for file in fetched)


def test_branch_is_written_down_as_the_commit_it_was(shop: Shop, tiny: Path) -> None:
    commit = shop.hub.push("owner/tiny", tiny, "v1.0")
    model = shop.added("owner/tiny", "--revision", "v1.0")
    (changed := Path(shutil.copytree(tiny, shop.folder / "changed"))).joinpath("sfumato.json").write_text("{}")
    shop.hub.push("owner/tiny", changed, "v1.0")

    assert model.revision == commit
    assert (Registry.load(shop.file).get("ours").path / "model_index.json").is_file()


def test_what_was_fetched_is_had_again_without_a_network(shop: Shop, tiny: Path) -> None:
    commit = shop.hub.push("owner/tiny", tiny)
    shop.added("owner/tiny")
    shop.file.unlink()
    asked = len(shop.hub.tokens)

    assert shop.added("owner/tiny", HF_HUB_OFFLINE="1").revision == commit
    assert len(shop.hub.tokens) == asked


def test_model_whose_folder_is_gone_is_fetched_again_and_keeps_its_table(shop: Shop, tiny: Path) -> None:
    commit = shop.hub.push("owner/tiny", tiny)
    shop.added("owner/tiny")
    with shop.file.open("a") as file:
        file.write("batch = 2  # ours\n")
    shutil.rmtree(shop.cache)
    assert f"sfumato models add ours owner/tiny --revision {commit}" in Registry.load(shop.file).troubles["ours"]

    model = shop.added("owner/tiny", "--revision", commit, SFUMATO_MODELS_CACHE=str(shop.folder / "other"))

    assert (model.batch, model.revision) == (2, commit)
    assert model.path.is_relative_to(shop.folder / "other")
    assert "batch = 2  # ours" in shop.file.read_text()


def test_token_goes_along(shop: Shop, tiny: Path) -> None:
    shop.hub.push("owner/tiny", tiny)

    shop.added("owner/tiny", HF_TOKEN="hf_secret")

    assert set(shop.hub.tokens) == {"Bearer hf_secret"}


def test_what_is_not_at_the_hub_is_told(shop: Shop, tiny: Path) -> None:
    shop.hub.push("owner/tiny", tiny)
    shop.hub.close("owner/gated", "GatedRepo")

    assert "no folder weights/typo here and no model weights/typo at the hub, or it is private" in shop.refused(
        "weights/typo"
    )
    assert "owner/gated is gated: accept its terms" in shop.refused("owner/gated")
    assert "owner/tiny has no revision v9 (any more)" in shop.refused("owner/tiny", "--revision", "v9")


def test_model_with_pickled_weights_alone_is_told_how_to_convert_it(shop: Shop, tiny: Path) -> None:
    pickled = Path(shutil.copytree(tiny, shop.folder / "pickled"))
    for file in (pickled / "unet").glob("*.safetensors"):
        file.unlink()
    shop.hub.push("owner/pickled", pickled)

    told = shop.refused("owner/pickled")

    assert "weights of unet only as diffusion_pytorch_model.bin, a pickle, which can run code" in told
    assert "Convert it once" in told
    assert shop.hub.fetched == ["model_index.json"]


def test_repository_that_is_no_pipeline_is_told(shop: Shop, tiny: Path) -> None:
    (shop.folder / "words").mkdir()
    shutil.copy(tiny / "README.md", shop.folder / "words")
    shop.hub.push("owner/words", shop.folder / "words")

    assert "owner/words has no model_index.json, so it is no diffusers model" in shop.refused("owner/words")


def test_hub_that_can_not_be_reached_is_told(shop: Shop, tiny: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "owner/tiny can't be fetched" in (told := shop.refused("owner/tiny", HF_ENDPOINT=nowhere))
    assert "Is there a network" in told
    told = shop.refused("owner/tiny", HF_HUB_OFFLINE="1")
    assert "is not in" in told
    assert "HF_HUB_OFFLINE is set" in told
    shop.hub.failing = True
    assert "the hub answered 500" in shop.refused("owner/tiny")


def test_cache_that_can_not_be_written_is_told(shop: Shop, tiny: Path) -> None:
    shop.hub.push("owner/tiny", tiny)
    (shop.folder / "file").touch()

    assert "SFUMATO_MODELS_CACHE" in shop.refused("owner/tiny", SFUMATO_MODELS_CACHE=str(shop.folder / "file"))
