"""Which files of a diffusers model are needed, what a folder is for, and why a model can't be fetched."""

import errno
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from sfumato.models import hub
from sfumato.models.kind import backend_of, missing_shards, needed_files, pipeline_of
from sfumato.models.model import CannotChange

INDEX = {
    "_class_name": "SomePipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "text_encoder_2": [None, None],
}
SMALL = ["model_index.json", "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json"]
W = "unet/diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ([f"{W}.safetensors"], [f"{W}.safetensors"]),
        ([f"{W}.safetensors", f"{W}.fp16.safetensors", f"{W}.non_ema.safetensors"], [f"{W}.safetensors"]),
        ([f"{W}.fp16.safetensors", f"{W}.bin"], [f"{W}.fp16.safetensors"]),
        (
            [f"{W}-00001-of-00002.safetensors", f"{W}-00002-of-00002.safetensors", f"{W}.safetensors.index.json"],
            [f"{W}-00001-of-00002.safetensors", f"{W}-00002-of-00002.safetensors", f"{W}.safetensors.index.json"],
        ),
        (
            [f"{W}.fp16-00001-of-00001.safetensors", f"{W}.safetensors.index.fp16.json", f"{W}.safetensors"],
            [f"{W}.safetensors"],
        ),
        (
            [f"{W}.fp16-00001-of-00001.safetensors", f"{W}.safetensors.index.fp16.json"],
            [f"{W}.fp16-00001-of-00001.safetensors", f"{W}.safetensors.index.fp16.json"],
        ),
        ([f"{W}.safetensors", f"{W}-00001-of-00001.safetensors"], [f"{W}.safetensors"]),
    ],
)
def test_weights_of_one_precision_are_needed_plain_ones_first(there: list[str], wanted: list[str]) -> None:
    assert sorted(needed_files([*SMALL, *there], INDEX, "m")) == sorted([*SMALL, *wanted])


def test_nothing_else_is_needed() -> None:
    more = ["v1.safetensors", "README.md", "unet/code.py", "unet/onnx/model.onnx", "text_encoder_2/model.safetensors"]
    unneeded = [*more, "safety_checker/model.safetensors", "other/config.json", "unet/diffusion_flax_model.msgpack"]

    assert set(needed_files([*SMALL, *unneeded, f"{W}.safetensors"], INDEX, "m")) == {*SMALL, f"{W}.safetensors"}


def test_part_without_any_weights_is_told_and_one_with_pickles_alone_too() -> None:
    with pytest.raises(CannotChange, match=r"m has no weights for unet"):
        needed_files(SMALL, INDEX, "m")
    with pytest.raises(CannotChange, match=r"unet only as diffusion_pytorch_model\.bin, a pickle"):
        needed_files([*SMALL, f"{W}.bin"], INDEX, "m")


def test_shards_that_are_not_there_are_found(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / f"{W}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one", "b": "two"}}))
    (tmp_path / "unet" / "one").touch()

    assert missing_shards(tmp_path, [f"{W}.safetensors.index.json", "unet/config.json"]) == ["unet/two"]


def test_folder_that_says_nonsense_is_told(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("[]")

    with pytest.raises(CannotChange, match="must be an object"):
        backend_of(tmp_path)
    assert pipeline_of(tmp_path) == ""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


HTTP: Any = SimpleNamespace(status_code=429, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of cache is full. Free some"),
        (caused(errors.LocalEntryNotFoundError("x"), OSError(errno.ENOSPC, "full")), "the disk of cache is full"),
        (OSError(errno.EROFS, "Read-only"), "cache can't be written (Read-only); name another folder"),
        (errors.HfHubHTTPError("slow down", response=HTTP), "the hub answered 429 when asked for o/n; try again later"),
        (RuntimeError("odd"), "o/n can't be fetched (RuntimeError: odd)"),
    ],
)
def test_why_a_model_can_not_be_fetched_is_said_with_what_to_do(error: Exception, said: str) -> None:
    assert said in hub.explained(error, "o/n", "", Path("cache"))


def test_model_that_does_not_fit_on_the_disk_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    hub._check_room(1, "o/n", tmp_path / "not" / "yet")
    with pytest.raises(CannotChange, match=r"o/n needs 1048576\.0 GiB more, .*SFUMATO_MODELS_CACHE"):
        hub._check_room(2**50, "o/n", tmp_path)


@pytest.mark.parametrize("name", ["$(touch pwned).safetensors", "a'; touch pwned; '.safetensors"])
def test_command_that_an_error_tells_to_type_runs_nothing_that_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CannotChange) as caught:
        backend_of(tmp_path)

    command = re.search(r"python -c .*(?= \(or by its family's)", caught.value.detail)
    assert command is not None
    words = shlex.split(command[0])
    assert words[:2] == ["python", "-c"]
    assert len(words) == 3
    compile(words[2], "advice", "exec")
