"""`sfumato models`: the bare word lists, and add and remove change models.toml, whole or not at all."""

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import httpx
import pytest

from sfumato.cli import main
from sfumato.models.model import FOLDER
from sfumato.models.registry import Registry
from tests.fake_service import FakeService

UNET = "unet/diffusion_pytorch_model"


def diffusers_folder(folder: Path, *more: str, weights: str = ".safetensors") -> Path:
    """A folder with configurations that say something and weights that are empty."""
    files = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
        "unet/config.json": {"sample_size": 64},
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler/scheduler_config.json": {},
    }
    for name in (*files, f"{UNET}{weights}", *more):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(files.get(name, "")))
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, beside the weights; the command runs where both lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path / "data"))
    diffusers_folder(tmp_path / "weights")
    return tmp_path / "data"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["models", *words]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    return told.err


@pytest.mark.parametrize("words", [["models"], ["models", "list"]])
def test_bare_word_lists_as_its_verb_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"], transport=httpx.MockTransport(FakeService())) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "restyle"
    assert main(words, transport=httpx.MockTransport(FakeService())) == 0
    assert "restyles" in capsys.readouterr().out


def test_options_of_the_list_before_another_verb_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", "remove", "a"]) == 2
    assert "behind remove" in capsys.readouterr().err


def test_first_model_is_written_beside_the_bundled_one(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "add", "ours", "weights"]) == 0

    told, about_bundled = capsys.readouterr().out.splitlines()
    assert told.startswith("added ours: StableDiffusionPipeline, diffusers, shapes 512x512, 640x448")
    assert "sfumato up" in told
    assert "restyle" in about_bundled
    registry = Registry.load(data / "models.toml")
    assert registry.names() == ("restyle", "ours")
    assert registry.get("ours").path.resolve() == data.parent / "weights"
    assert 'path = "../weights"' in (data / "models.toml").read_text()
    assert (data / "models.toml").stat().st_mode & 0o777 == 0o644


def test_next_model_is_added_alone_and_comments_stay(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    (data / "models.toml").write_text("# ours\n[models.first]  # the first\n")

    assert main(["models", "add", "a/b", str(data.parent / "weights")]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 1
    assert (data / "models.toml").read_text() == (
        "# ours\n[models.first]  # the first\n\n"
        f'[models."a/b"]\nbackend = "diffusers"\npath = "{data.parent / "weights"}"\n'
    )


def test_onnx_folder_is_told_by_its_files(data: Path) -> None:
    shutil.copytree(FOLDER, data.parent / "onnx")

    assert main(["models", "add", "mine", "onnx"]) == 0
    assert Registry.load(data / "models.toml").get("mine").backend == "onnx"


def test_backend_that_is_named_is_taken(data: Path) -> None:
    diffusers_folder(data.parent / "weights", "unet/model.onnx")
    shutil.copy(FOLDER / "sfumato.json", data.parent / "weights")

    assert main(["models", "add", "one", "weights"]) == 0
    assert main(["models", "add", "two", "weights", "--backend", "onnx"]) == 0
    registry = Registry.load(data / "models.toml")
    assert [registry.get(name).backend for name in ("one", "two")] == ["diffusers", "onnx"]


def test_list_that_is_named_is_made_where_it_is_missing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data.parent / "lists" / "mine.toml"

    assert main(["models", "add", "ours", "weights", "--models", str(file)]) == 0
    assert Registry.load(file).names() == ("restyle", "ours")
    monkeypatch.setenv("SFUMATO_MODELS", str(file))
    assert main(["models", "remove", "restyle"]) == 0
    assert Registry.load(file).names() == ("ours",)
    assert not data.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "ours", "weights"], "has 'ours' already; remove it first: sfumato models remove 'ours'"),
        (["add", "Ours", "weights"], "too alike"),
        (["add", "-ours", "weights"], "a name has up to 80"),
        (["add", "more", "w\udcff"], "is not UTF-8, which a list in TOML must be"),
        (["add", "more", "nowhere"], "no folder, and no name of a model at the hub"),
        (["add", "more", "weights", "--revision", "main"], "--revision is for models of the hub"),
        (["add", "more", "owner/name", "--backend", "onnx"], "add its folder"),
        (["add", "more", "data"], "neither a diffusers folder (model_index.json) nor one of ONNX files"),
        (["add", "more", "single"], "from_single_file"),
        (["add", "more", "pickled"], "a pickle, which can run code when it is opened. Convert it once"),
        (["add", "more", "empty"], "has no weights for unet as .safetensors; it is not whole"),
        (["add", "more", "broken"], "vae/config.json can't be read"),
        (["add", "more", "shapeless"], "shapes is empty"),
        (["remove", "more"], "has no [models.more]; it has: restyle, ours"),
        (["remove", "a", "--models", "names.txt"], "names.txt is a plain list of names"),
        (["remove", "a", "--models", "none.toml"], "there is no none.toml"),
    ],
)
def test_what_can_not_be_done_is_said_and_changes_nothing(
    data: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = data.parent
    diffusers_folder(here / "pickled", weights=".bin")
    diffusers_folder(here / "empty", weights=".msgpack")
    (diffusers_folder(here / "broken") / "vae" / "config.json").write_text("{")
    (here / "single").mkdir()
    (here / "single" / "all.safetensors").touch()
    (here / "shapeless" / "unet").mkdir(parents=True)
    (here / "shapeless" / "unet" / "model.onnx").touch()
    (here / "names.txt").write_text("a\n")
    assert main(["models", "add", "ours", "weights"]) == 0
    before = (data / "models.toml").read_bytes()

    assert said in refused(capsys, *(["add", "--", *words[1:]] if "-ours" in words else words))

    assert (data / "models.toml").read_bytes() == before
    assert {file.name for file in data.iterdir()} == {"models.toml", "models.toml.lock"}


def test_list_that_is_broken_is_left_for_its_writer(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    for text, said in (("[models.a", "Mend that first"), ("[models.a]\nbatch = 0\n", "batch: Input should be")):
        (data / "models.toml").write_text(text)
        assert said in refused(capsys, "add", "ours", "weights")
        assert (data / "models.toml").read_text() == text


def test_model_that_spoils_the_list_can_be_removed(data: Path) -> None:
    data.mkdir()
    (data / "models.toml").write_text("[models.a]\nbatch = 0\n[models.b]\npath = 'gone'\n[models.restyle]\n")

    assert main(["models", "remove", "a"]) == 0
    assert main(["models", "remove", "b"]) == 0
    assert (data / "models.toml").read_text() == "[models.restyle]\n"


def test_removing_the_last_one_says_what_is_served(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    (data / "models.toml").write_text("[models.a]\n")

    assert main(["models", "remove", "a"]) == 0
    assert "the bundled model restyle is served" in capsys.readouterr().out
    assert Registry.load(data / "models.toml").names() == ("restyle",)


def test_models_that_are_added_at_once_are_all_there(data: Path) -> None:
    ready = threading.Barrier(6)
    told: list[int] = []

    def add(number: int) -> None:
        ready.wait()
        told.append(main(["models", "add", f"model-{number}", "weights"]))

    threads = [threading.Thread(target=add, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert told == [0] * 6
    assert set(Registry.load(data / "models.toml").names()) == {"restyle", *(f"model-{number}" for number in range(6))}


def test_list_behind_a_link_is_changed_and_stays_one(data: Path) -> None:
    real = data.parent / "elsewhere" / "deep" / "list.toml"
    real.parent.mkdir(parents=True)
    real.write_text("[models.restyle]\n")
    real.chmod(0o600)
    data.mkdir()
    (data / "models.toml").symlink_to(real)

    assert main(["models", "add", "ours", "weights"]) == 0
    assert (data / "models.toml").is_symlink()
    assert Registry.load(data / "models.toml").get("ours").path.resolve() == data.parent / "weights"
    assert real.stat().st_mode & 0o777 == 0o600


def test_folder_is_named_whole_where_the_way_to_it_is_not_straight(data: Path) -> None:
    (data.parent / "disk" / "deep").mkdir(parents=True)
    data.symlink_to(data.parent / "disk" / "deep")

    assert main(["models", "add", "ours", "weights"]) == 0
    assert f'path = "{data.parent / "weights"}"' in (data / "models.toml").read_text()


def test_write_that_fails_leaves_the_old_list(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "add", "ours", "weights"]) == 0
    before = (data / "models.toml").read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert "No space left" in refused(capsys, "add", "more", "weights")
    assert (data / "models.toml").read_bytes() == before
    assert {file.name for file in data.iterdir()} == {"models.toml", "models.toml.lock"}


def test_without_its_library_the_hub_is_told_how_to_get_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    assert "pip install 'sfumato[diffusers]'" in refused(capsys, "add", "ours", "owner/name")


def test_models_are_shown_with_their_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        broken = {"name": "lost", "state": "broken", "summary": "draws", "trouble": "path 'x' is no folder"}
        return httpx.Response(200, json={"models": [broken]})

    assert main(["models"], transport=httpx.MockTransport(answer)) == 0
    told = capsys.readouterr().out
    assert "broken" in told
    assert "path 'x' is no folder" in told
