"""What models.toml and model_names.txt may say, and what they are told when they can't."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.core.errors import UnknownModel
from sfumato.core.params import ParamsRequest, Sampler, Shape
from sfumato.core.prediction import version_id
from sfumato.models.folder import default_rules
from sfumato.models.registry import BUNDLED, FOLDER, BadModels, BrokenModel, Lora, Registry


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

    assert (params.strength, params.num_inference_steps, params.guidance_scale) == (0.5, 12, 1.0)
    assert (params.sampler, params.shape) == (Sampler.DPMPP_2M, Shape(320, 224))
    assert len(rules.shapes) == 5
    assert all(0.9 <= shape.pixels / 256**2 <= 1.1 for shape in rules.shapes)
    assert all(Shape(shape.height, shape.width) in rules.shapes for shape in rules.shapes)


@pytest.mark.parametrize(
    ("prompt", "known"),
    [
        ("Stained glass, a cat", True),
        ("a cat in the style of a mosaic.", True),
        ("8-bit cat", True),
        ("a stained shirt", False),
        ("a cat", False),
        ("", False),
    ],
)
def test_bundled_model_knows_words_and_runs_of_words(prompt: str, known: bool) -> None:
    assert Registry.load(None).get(BUNDLED).knows(prompt) is known


def test_a_model_that_names_no_words_knows_any(tmp_path: Path) -> None:
    registry = Registry.load(written(tmp_path, '[models.any]\nbackend = "simulated"'))
    assert registry.get("any").knows("whatever")


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
        ("[models.a]\ndevice = 'cuda'", "[models.a]: for backend diffusers alone, not for onnx: device"),
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

    with pytest.raises(BadModels, match=r"slots in .*sfumato.json is 'many'"):
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


DIFFUSERS = "[models.a]\nbackend = 'diffusers'\npath = 'weights'\n"


def diffusers_folder(folder: Path) -> Path:
    """Configuration alone, which is all that the list's reader looks at."""
    files = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": {"sample_size": 64},
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler/scheduler_config.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def test_diffusers_model_says_what_goes_on_top_of_its_folder(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "weights")
    for name in ("style", "light"):
        (tmp_path / f"{name}.safetensors").touch()
    file = written(
        tmp_path,
        f"""{DIFFUSERS}
        hub = "owner/name"
        revision = "{"5" * 40}"
        loras = [{{ path = "style.safetensors", weight = 0.8 }}, {{ path = "light.safetensors" }}]
        output_filter = "ours.filters:signed"
        attention_slicing = true
        vae_tiling = true
        """,
    )

    registry = Registry.load(file)
    model = registry.get("a")

    assert model.loras == (Lora(tmp_path / "style.safetensors", 0.8), Lora(tmp_path / "light.safetensors", 1.0))
    assert (model.hub, model.revision, model.output_filter) == ("owner/name", "5" * 40, "ours.filters:signed")
    assert registry.version_of(model.name) == version_id(model.name, "owner/name", "5" * 40)
    assert registry.version_of("another") == version_id("another")
    assert (model.attention_slicing, model.vae_tiling) == (True, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a]\nvae_tiling = true\nhub = 'o/n'", "for backend diffusers alone, not for onnx: hub, vae_tiling"),
        ("[models.a]\nloras = [{ path = 'a.safetensors' }]", "for backend diffusers alone, not for onnx: loras"),
        (f"{DIFFUSERS}loras = [{{ path = 'a.bin' }}]", "loras.0.path: must be a .safetensors file, not 'a.bin'"),
        (f"{DIFFUSERS}loras = [{{ weight = 1 }}]", "loras.0.path: Field required"),
        (f"{DIFFUSERS}loras = [{{ path = 'a.safetensors', wait = 1 }}]", "loras: wait is not known here; known are:"),
        (
            f"{DIFFUSERS}loras = [{{ path = 'a.safetensors', weight = nan }}]",
            "loras.0.weight: Input should be a finite",
        ),
        (f"{DIFFUSERS}loras = 'a.safetensors'", "loras: Input should be a valid tuple"),
        (f"{DIFFUSERS}revision = 'main'", "revision is of a hub's model"),
        ("[models.a]\noutput_filter = 'ours.signed'", 'output_filter: must be "package.module:function"'),
        ("[models.a]\noutput_filter = 'ours:si gned'", 'output_filter: must be "package.module:function"'),
    ],
)
def test_what_is_wrong_about_a_models_additions_is_said(tmp_path: Path, text: str, said: str) -> None:
    diffusers_folder(tmp_path / "weights")
    (tmp_path / "a.safetensors").touch()

    assert said in complaint(written(tmp_path, text))


BESIDE = "[models.restyle]\n"


@pytest.mark.parametrize(
    ("text", "harm", "why"),
    [
        ("[models.a]\npath = 'weights'", shutil.rmtree, "weights' is no folder. Put it there"),
        (
            f"{DIFFUSERS}hub = 'owner/name'\nrevision = 'abc'",
            shutil.rmtree,
            "Fetch it again: sfumato models add a owner/name --revision abc",
        ),
        ("[models.a]\npath = 'weights'", lambda weights: (weights / "sfumato.json").write_text("{"), "can't be read"),
        ("[models.a]\npath = 'weights'", lambda weights: None, "shapes is empty"),
        (
            "[models.a]\npath = 'weights'",
            lambda weights: (weights / "sfumato.json").write_text('{"rules": {"shapes": [[9, 9]]}}'),
            "no multiple of 8",
        ),
        (DIFFUSERS, lambda weights: (weights / "model_index.json").unlink(), "model_index.json can't be read"),
        (
            DIFFUSERS,
            lambda weights: (weights / "vae/config.json").write_text('{"block_out_channels": 4}'),
            "is no diff",
        ),
        (f"{DIFFUSERS}loras = [{{ path = 'a.safetensors' }}]", lambda weights: None, "a.safetensors is no file"),
    ],
)
def test_model_whose_folder_is_at_fault_is_left_out_alone(
    tmp_path: Path, text: str, harm: Callable[[Path], object], why: str
) -> None:
    harm(diffusers_folder(tmp_path / "weights"))

    registry = Registry.load(written(tmp_path, BESIDE + text))

    assert registry.names() == (BUNDLED,)
    assert list(registry.troubles) == ["a"]
    assert why in registry.troubles["a"]
    with pytest.raises(BrokenModel, match="model 'a' can't be served now") as caught:
        registry.get("a")
    assert why in caught.value.detail


@pytest.mark.parametrize("text", ["[models.a.rules]\nstrength = 2", "[models.a]\nbatch = 0", "[models.Restyle]"])
def test_fault_of_the_text_spoils_the_whole_list(tmp_path: Path, text: str) -> None:
    complaint(written(tmp_path, BESIDE + text))


def test_list_of_nothing_but_models_left_out_is_refused(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, "[models.a]\npath = 'x'\n[models.b]\npath = 'y'"))

    assert "[models.a]: path" in said
    assert "[models.b]: path" in said


def test_model_left_out_is_logged_once_a_reading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry.load(written(tmp_path, BESIDE + DIFFUSERS))
    for _ in range(3):
        assert not registry.refresh()

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "[models.a]: path" in caplog.text


def test_model_is_served_again_when_its_folder_is_there(tmp_path: Path) -> None:
    registry = Registry.load(written(tmp_path, f"{DIFFUSERS}{BESIDE}"))
    before = registry.names()

    diffusers_folder(tmp_path / "weights")

    assert before == (BUNDLED,)
    assert registry.refresh()
    assert registry.names() == ("a", BUNDLED)
    assert not registry.troubles
    assert not registry.refresh()


def test_what_is_left_out_is_looked_at_again_only_when_its_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (diffusers_folder(tmp_path / "weights") / "vae" / "config.json").write_text("{")
    registry = Registry.load(written(tmp_path, BESIDE + DIFFUSERS))
    looked: list[Path] = []

    def look(folder: Path) -> dict[str, object]:
        looked.append(folder)
        return default_rules(folder)

    monkeypatch.setattr("sfumato.models.registry.default_rules", look)

    assert not registry.refresh()
    assert not looked

    diffusers_folder(tmp_path / "weights")
    assert registry.refresh()
    assert len(looked) == 1


def test_list_that_was_edited_into_nothing_but_trouble_is_read_when_a_folder_comes(tmp_path: Path) -> None:
    file = written(tmp_path, BESIDE)
    registry = Registry.load(file)
    file.write_text(DIFFUSERS)
    assert not registry.refresh()
    assert registry.names() == (BUNDLED,)

    diffusers_folder(tmp_path / "weights")

    assert registry.refresh()
    assert registry.names() == ("a",)
