"""A file of weights that was cut short is found by its header, for any length it may have been cut to."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from sfumato.models.model import FOLDER
from sfumato.models.registry import Registry
from sfumato.models.weights import trouble_of, troubles_of_model

ONNX = (FOLDER / "vae_decoder" / "model.onnx").read_bytes()


def safetensors(*sizes: int) -> bytes:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    header: dict[str, object] = {
        f"t{number}": {"dtype": "U8", "shape": [size], "data_offsets": [ends[number] - size, ends[number]]}
        for number, size in enumerate(sizes)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(sum(sizes))


@pytest.mark.parametrize(("name", "content"), [("m.onnx", ONNX), ("m.safetensors", safetensors(100, 50))])
def test_a_whole_file_is_whole_and_a_part_of_it_is_not(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert trouble_of(file) == ""
    for kept in (0, 1, 7, 8, 9, 40, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:kept])
        assert trouble_of(file) == f"{file} is cut short or no {file.suffix} file; copy or fetch it again"


def test_bytes_behind_the_last_tensor_are_no_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors(10) + b"more")
    assert "copy or fetch it again" in trouble_of(file)


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors"])
@pytest.mark.parametrize("content", [b"<html>not found</html>" * 9, b"\xff" * 64, bytes(64), b"{}" * 30])
def test_what_is_something_else_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "copy or fetch it again" in trouble_of(tmp_path / name)


def test_a_header_of_another_shape_is_no_header(tmp_path: Path) -> None:
    for header in (b"[]", b'{"t": 1}', b'{"t": {}}', b'{"t": {"data_offsets": [0, "x"]}}', b"\xff\xff\xff\xff"):
        file = tmp_path / "m.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "cut short" in trouble_of(file)


def test_a_pointer_of_git_lfs_is_told_with_what_fetches_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert trouble_of(file) == f"{file} is a pointer of Git LFS, not the file: git lfs pull"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "No such file" in trouble_of(tmp_path / "m.onnx")
    (tmp_path / "d.onnx").mkdir()
    assert "Is a directory" in trouble_of(tmp_path / "d.onnx")


def test_the_bundled_model_is_whole() -> None:
    assert [troubles_of_model(model) for model in Registry.load(None)] == [[]]


def test_a_diffusers_model_whose_shard_is_missing_names_it(tmp_path: Path) -> None:
    unet = tmp_path / "weights" / "unet"
    unet.mkdir(parents=True)
    for part, said in (("vae/config", {"block_out_channels": [1, 2, 3, 4]}), ("scheduler/scheduler_config", {})):
        file = tmp_path / "weights" / f"{part}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(said))
    (tmp_path / "weights" / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]})
    )
    (unet / "config.json").write_text('{"sample_size": 64}')
    name = "diffusion_pytorch_model-00001-of-00002.safetensors"
    (unet / name).write_bytes(safetensors(10))
    shards = {"weight_map": {"a": name, "b": name.replace("00001", "00002")}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(shards))
    text = f"[models.ours]\nbackend = 'diffusers'\npath = '{tmp_path / 'weights'}'\n"
    (model,) = Registry.of(text, tmp_path / "models.toml")
    (told,) = troubles_of_model(model)
    assert "lacks unet/diffusion_pytorch_model-00002-of-00002.safetensors" in told
    (unet / name.replace("00001", "00002")).write_bytes(safetensors(10)[:-1])
    (told,) = troubles_of_model(model)
    assert "00002-of-00002.safetensors is cut short" in told
    (unet / name.replace("00001", "00002")).write_bytes(safetensors(10))
    (tmp_path / "lora.safetensors").write_bytes(safetensors(10)[:-1])
    lora = f"loras = [{{ path = '{tmp_path / 'lora.safetensors'}', weight = 1.0 }}]\n"
    (model,) = Registry.of(text + lora, tmp_path / "models.toml")
    (told,) = troubles_of_model(model)
    assert "lora.safetensors is cut short" in told


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[]", b"\xff"])
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "vae_decoder/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_what_an_onnx_model_is_read_with_must_be_there_and_whole(tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(FOLDER, tmp_path / "ours")
    (model,) = Registry.of("[models.ours]\npath = 'ours'\n", tmp_path / "models.toml")
    assert troubles_of_model(model) == []
    file = tmp_path / "ours" / name
    file.write_bytes(content)
    assert troubles_of_model(model) == [f"{file} is cut short or no .json file; copy or fetch it again"]
    file.unlink()
    assert troubles_of_model(model) == [
        f"{file} can't be read (No such file or directory); copy or fetch the model again"
    ]


def test_weights_outside_of_an_onnx_file_must_be_beside_it_and_whole(tmp_path: Path) -> None:
    file, data = tmp_path / "model.onnx", tmp_path / "model.onnx_data"
    tensors = [onnx.numpy_helper.from_array(np.ones(2_000, np.float32), name) for name in "ab"]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), file, save_as_external_data=True, location=data.name)
    assert trouble_of(file) == ""
    data.write_bytes(data.read_bytes()[:-1])
    assert trouble_of(file) == f"{data} is cut short; copy or fetch it again"
    data.unlink()
    assert trouble_of(file) == f"{file} has weights in model.onnx_data, which is not beside it; copy or fetch it again"


@pytest.mark.parametrize(
    ("field", "what"), [(b"\x3a\x02\x2a\x7f", "a tensor longer than its graph"), (b"\x3a\x01\xff", "no field")]
)
def test_a_message_whose_parts_do_not_fit_into_it_is_damaged(tmp_path: Path, field: bytes, what: str) -> None:
    (tmp_path / "m.onnx").write_bytes(field)
    assert trouble_of(tmp_path / "m.onnx") == f"{tmp_path / 'm.onnx'} is damaged; copy or fetch it again", what
