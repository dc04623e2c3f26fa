"""What models.toml and model_names.txt may say, and what they are told when they can't."""

import json
import logging
import os
from pathlib import Path

import pytest

from sfumato.core.errors import UnknownModel
from sfumato.core.params import ParamsRequest, Sampler, Shape
from sfumato.models.registry import BUNDLED, FOLDER, BadModels, Registry


def written(folder: Path, text: str, name: str = "models.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def complaint(file: Path) -> str:
    with pytest.raises(BadModels) as caught:
        Registry.load(file)
    assert str(file) in caught.value.detail
    return caught.value.detail


def test_without_a_file_there_is_the_bundled_model() -> None:
    (model,) = Registry.load(None)

    assert (model.name, model.slug, model.backend, model.path) == (BUNDLED, "restyle", "onnx", FOLDER)
    assert "stained glass" in model.summary


def test_bundled_models_rules_are_its_cards() -> None:
    rules = Registry.load(None).get(BUNDLED).rules
    params = rules.resolve(ParamsRequest(prompt="mosaic"), Shape(640, 427), seed=1)

    assert (params.strength, params.num_inference_steps, params.guidance_scale) == (0.4, 15, 1.0)
    assert (params.sampler, params.shape) == (Sampler.DPMPP_2M, Shape(320, 224))
    assert len(rules.shapes) == 5
    assert all(0.9 <= shape.pixels / 256**2 <= 1.1 for shape in rules.shapes)
    assert all(Shape(shape.height, shape.width) in rules.shapes for shape in rules.shapes)


def test_bundled_files_name_no_path_of_the_machine_that_made_them() -> None:
    for file in FOLDER.rglob("*.json"):
        assert "_name_or_path" not in file.read_text()


def test_file_without_models_leaves_the_bundled_one(tmp_path: Path) -> None:
    assert Registry.load(written(tmp_path, "")).names() == (BUNDLED,)


def test_toml_says_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    file = written(
        tmp_path,
        """
        [models.restyle]
        [models."Big One/v2"]
        path = "weights"
        summary = "ours"
        batch = 8
        max_backlog = 5
        rules = { shapes = [[512, 512], [640, 384]], num_inference_steps = 20 }
        """,
    )

    registry = Registry.load(file)

    assert registry.names() == ("restyle", "Big One/v2")
    model = registry.get("Big One/v2")
    assert (model.slug, model.path, model.summary) == ("big-one-v2", tmp_path / "weights", "ours")
    assert (model.batch, model.slots, model.max_backlog) == (8, 32, 5)
    assert model.rules.shapes == (Shape(512, 512), Shape(640, 384))
    assert model.rules.num_inference_steps == 20


def test_rules_in_toml_go_on_top_of_the_folders_own(tmp_path: Path) -> None:
    file = written(tmp_path, "[models.soft]\n[models.soft.rules]\nstrength = 0.3\nsampler = 'euler'")

    rules = Registry.load(file).get("soft").rules

    assert (rules.strength, rules.sampler) == (0.3, Sampler.EULER)
    assert rules.shapes == Registry.load(None).get(BUNDLED).rules.shapes


def test_simulated_model_needs_nothing_but_its_name(tmp_path: Path) -> None:
    model = Registry.load(written(tmp_path, "[models.quick]\nbackend = 'simulated'")).get("quick")

    assert model.backend == "simulated"
    assert model.rules.shapes


def test_plain_list_gives_each_name_the_bundled_files(tmp_path: Path) -> None:
    file = written(tmp_path, "# ours\nrunwayml/sd-1.5\n\n  restyle  \n", "model_names.txt")

    registry = Registry.load(file)

    assert registry.names() == ("runwayml/sd-1.5", "restyle")
    assert {model.path for model in registry} == {FOLDER}
    assert {model.slug for model in registry} == {"runwayml-sd-1-5", "restyle"}


def test_unknown_model_lists_the_known(tmp_path: Path) -> None:
    registry = Registry.load(written(tmp_path, "one\ntwo\n", "model_names.txt"))

    with pytest.raises(UnknownModel, match="one, two"):
        registry.get("three")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a]\nbatch = = 1", "line 2"),
        ("[model.a]", "model is not known here; known are: models"),
        ("models = 1", r"[models.NAME]"),
        ("[models]\na = 1", "[models.a]: must be a table"),
        ("[models.a]\nbatches = 1", "[models.a]: batches is not known here; known are: backend, path, summary"),
        ("[models.a]\nbackend = 'torch'", "backend: Input should be 'onnx', 'diffusers' or 'simulated'"),
        ("[models.a]\ndevice = 'cuda'", "[models.a]: device and dtype are for backend diffusers"),
        ("[models.a]\nbackend = 'diffusers'\ndevice = 'gpu'", "device: Input should be 'auto', 'cpu' or 'cuda'"),
        ("[models.a]\nbackend = 'diffusers'\npath = '.'", "model_index.json can't be read"),
        ("[models.a]\nbatch = 0", "batch: Input should be greater than or equal to 1"),
        ("[models.a]\npath = 'nowhere'", "is no folder"),
        ("[models.a]\npath = '.'", "shapes is empty"),
        ("[models.a.rules]\nstrenght = 0.5", "[models.a] rules: strenght is not known here"),
        ("[models.a.rules]\nstrength = 2", "default strength"),
        ("[models.a.rules]\nshapes = [[100, 100]]", "no multiple of 32"),
        ("[models.a.rules]\nshapes = [[0, 0]]", "has no pixels"),
        ("[models.a.rules]\nsize_multiple = 0", "size_multiple"),
        ("[models.a.rules]\nsampler = 'magic'", "sampler: Input should be"),
        ("[models.'-a']", "a name has"),
        ("[models.'a b']\n[models.a-b]", "too alike"),
    ],
)
def test_what_is_wrong_in_models_toml_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"), [("a\n\na\n", "line 3"), ("ok\n../etc\n", "line 2"), ("b\na b\na-b", "alike")]
)
def test_what_is_wrong_in_a_plain_list_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(written(tmp_path, text, "model_names.txt"))


def test_a_list_that_is_not_there_may_come(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    registry = Registry.load(file)
    before = registry.names()

    file.write_text('[models.a]\nbackend = "simulated"\n')

    assert before == (BUNDLED,)
    assert registry.refresh()
    assert registry.names() == ("a",)


def test_while_a_list_is_wrong_the_last_right_one_stands_in(tmp_path: Path) -> None:
    file, last = tmp_path / "models.toml", tmp_path / "models.last-good"
    file.write_text('[models.a]\nbackend = "simulated"\n')
    Registry.load(file).keep(last)
    file.write_text("[models.a\n")

    registry = Registry.load(file, last)

    assert registry.names() == ("a",)
    file.write_text('[models.b]\nbackend = "simulated"\n')
    assert registry.refresh()
    assert registry.names() == ("b",)


def test_slots_that_a_folder_publishes_wrongly_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    rules = {"shapes": [[64, 64]]}
    (folder / "sfumato.json").write_text(json.dumps({"slots": "many", "rules": rules}))
    file = tmp_path / "models.toml"
    file.write_text('[models.a]\nbackend = "simulated"\npath = "weights"\n')

    with pytest.raises(BadModels, match=r"slots in its .* is 'many'"):
        Registry.load(file)


def test_broken_card_in_a_models_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "sfumato.json").write_text(json.dumps({"rules": []}))

    assert "sfumato.json" in complaint(written(tmp_path, "[models.a]\npath = '.'"))


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    file = written(tmp_path, "one\n", "names.txt")
    registry = Registry.load(file)
    assert not registry.refresh()

    file.write_text("one\ntwo\n")

    assert registry.refresh()
    assert registry.names() == ("one", "two")
    assert not registry.refresh()


def test_touched_file_with_the_same_models_is_no_change(tmp_path: Path) -> None:
    file = written(tmp_path, "one\n", "names.txt")
    registry = Registry.load(file)
    os.utime(file, (1, 1))

    assert not registry.refresh()


def test_broken_edit_keeps_the_models_and_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path, "[models.one]")
    registry = Registry.load(file)
    file.write_text("[models.one")

    with caplog.at_level(logging.ERROR):
        assert not registry.refresh()
        assert not registry.refresh()

    assert registry.names() == ("one",)
    assert len(caplog.records) == 1
    file.unlink()
    assert not registry.refresh()
    assert registry.names() == ("one",)
