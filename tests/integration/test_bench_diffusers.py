"""`sfumato bench engine --backend diffusers` on the tiny architecture: both sides do the same work, and all of it."""

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from rich.table import Table

from sfumato.bench import play, progress, real
from sfumato.bench.baselines import architectures, network
from sfumato.bench.baselines.pipeline import Pipeline
from sfumato.bench.progress import Bar
from sfumato.bench.traffic import Request
from sfumato.core.params import ModelRules, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import BackendUnusable, Options
from sfumato.engine.engine import Engine, Finished, Pixels

# diffusers 0.42 hands torch tensors to numpy 2 in a way that numpy warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RULES = ModelRules(shapes=(Shape(64, 64), Shape(80, 56)), guidance_scale=4.0, sampler=Sampler.DPMPP_2M)
WAYS = ["sequential diffusers", "static batching", "dynamic batching", "step-level"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the benchmark itself has it for the tiny architecture."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench") / "tiny"
    architectures.build("tiny", made, "cpu")
    return made


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return Pipeline(folder, "cpu", "float32", RULES.sampler)


def jobs(count: int) -> list[play.Job]:
    return play.jobs_of([Request(0.0, RULES.shapes[1], 6, 0.5)] * count, RULES, "picture {}")


def ours(folder: Path, job: play.Job) -> Pixels:
    engine = Engine(backends.load("diffusers", folder, RULES, Options(device="cpu")), 2)
    engine.add("one", *job)
    while True:
        for event in engine.step():
            if isinstance(event, Finished):
                return event.pixels


def test_every_way_answers_every_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = tmp_path / "found.json"

    shown: list[Table] = []

    real.run("tiny", None, "cpu", file, shown.append, requests=4)

    found = json.loads(file.read_text())
    assert [(row["traffic"], row["way"]) for row in found["rows"]] == [
        (kind, way) for kind in ("photos", "square") for way in WAYS
    ]
    for row in found["rows"]:
        assert row["answered"] == 4
        assert row["pictures_per_s"] > 0
        assert [load["share"] for load in row["loads"]] == [0.5, 0.8]
        assert all(load["answered"] == 4 and 0 < load["p50_s"] <= load["p99_s"] for load in row["loads"])
    assert [loop["way"] for loop in found["ceiling"]["loops"]] == ["eager"]
    assert found["ceiling"]["rows"] == 16
    assert {"device", "dtype", "torch"} <= found["about"].keys()
    assert (found["left_out"], found["ended"]) == ([], "all of the plan is measured")
    (table,) = shown
    assert "not measured" not in str(table.caption)
    assert table.row_count == 8
    assert f"float32, torch {torch.__version__}" in str(table.caption)
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert capsys.readouterr().out == ""


def test_run_that_is_told_to_end_shows_what_it_has_and_has_written_it_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, written = tmp_path / "found.json", []

    class HeardByTheThirdRun(Bar):
        def tell(self, what: str) -> None:
            if what.startswith("photos, all waiting: dynamic"):
                written.append(json.loads(file.read_text()))
                signal.raise_signal(signal.SIGTERM)
            super().tell(what)

    monkeypatch.setattr(progress, "Bar", HeardByTheThirdRun)
    shown: list[Table] = []

    with pytest.raises(KeyboardInterrupt):
        real.run("tiny", None, "cpu", file, shown.append, requests=2)

    found = json.loads(file.read_text())
    assert [row["way"] for row in found["rows"]] == WAYS[:2] == [row["way"] for row in written[0]["rows"]]
    assert (found["ended"], found["left_out"]) == ("interrupted", ["26 of 28 runs"])
    assert written[0]["ended"] == "not yet"
    assert shown[0].row_count == 2
    assert "not measured (interrupted): 26 of 28 runs" in str(shown[0].caption)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_plan_is_cut_to_the_minutes_and_the_table_says_by_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(real, "PLANNED", 0.0)  # as if nothing were left of the minutes once a picture was timed
    shown: list[Table] = []

    real.run("tiny", None, "cpu", tmp_path / "found.json", shown.append, minutes=2)

    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["traffic"], row["answered"], row["loads"]) for row in found["rows"]] == [("square", 2, [])] * 4
    assert found["left_out"] == [
        "46 of 48 requests a run",
        "traffic photos",
        "offered share 0.50",
        "offered share 0.80",
    ]
    assert "not measured: 46 of 48 requests a run, traffic photos, offered share 0.50" in str(shown[0].caption)


def test_pipeline_makes_the_pictures_that_the_engine_makes(folder: Path, pipeline: Pipeline) -> None:
    together = pipeline.make(jobs(3))

    for picture, job in zip(together, jobs(3), strict=True):
        assert np.abs(ours(folder, job) / 255 - picture).max() <= 0.5 / 255 + 1e-4
    assert np.abs(pipeline.make(jobs(1))[0] - together[0]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "millions"),
    [("sd15", {"unet": 859.5}), ("sdxl", {"unet": 2567.5, "text_encoder_2": 694.7}), ("flux-small", {"vae": 83.8})],
)
def test_architectures_have_the_published_sizes(name: str, millions: dict[str, float]) -> None:
    with torch.device("meta"):
        made: Any = architectures.ARCHITECTURES[name].pipeline()

    found = {part: sum(weights.numel() for weights in made.components[part].parameters()) for part in millions}
    assert {part: round(count / 1e6, 1) for part, count in found.items()} == millions


def test_network_alone_is_called_with_full_rows_and_a_failing_way_is_told(
    monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline
) -> None:
    def without_compiler(network: Any, call: Any) -> Any:
        raise RuntimeError("no compiler\nand a long story")

    ways = {"cpu": {**network.WAYS["cpu"], "torch.compile": without_compiler}}
    monkeypatch.setattr(network, "WAYS", MappingProxyType(ways))

    first, ceiling = network.measure(pipeline, jobs(3), "cpu", str)

    assert (len(first.loops), first.failed) == (1, {})
    assert (ceiling.rows, ceiling.shape) == (6, (80, 56))
    assert ceiling.best.way == "eager"
    assert 0 < ceiling.best.peak_share < 1
    assert ceiling.failed == {"torch.compile": "RuntimeError: no compiler"}


def test_warm_ups_are_not_counted() -> None:
    happened: list[str] = []

    network.seconds_a_call(lambda: happened.append("call"), lambda: happened.append("settle"), 2, at_least_s=0)

    assert happened == ["call", "call", "settle", "call", "settle"]


def test_cuda_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(BackendUnusable, match="finds no CUDA device"):
        architectures.build("tiny", tmp_path / "model", "cuda")
