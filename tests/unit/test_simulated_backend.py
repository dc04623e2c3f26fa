import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.core.params import ModelRules, Params, Shape
from sfumato.engine import backends
from sfumato.engine.backends import BackendUnusable
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.engine import Engine, Finished, Pixels
from tests.support import make_params

RULES = ModelRules(shapes=(Shape(64, 64),))


def run(backend: SimulatedBackend, params: Params, pixels: Pixels) -> Pixels:
    engine = Engine(backend, 4)
    engine.add("a", params, pixels)
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Finished):
                return event.pixels
    raise AssertionError("it did not finish")


def halves() -> Pixels:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    return pixels


def test_call_costs_a_fixed_part_and_a_part_a_row() -> None:
    slept: list[float] = []
    engine = Engine(SimulatedBackend(0.008, 0.002, slept.append), 4)
    for key in "abc":
        engine.add(key, make_params(strength=0.25), halves())

    engine.step()

    assert slept == [pytest.approx(0.014)]


def test_without_cost_it_never_sleeps() -> None:
    def never(seconds: float) -> None:
        raise AssertionError(seconds)

    run(SimulatedBackend(sleep=never), make_params(), halves())


def test_result_is_the_input_tinted_by_its_prompt() -> None:
    red, other = (run(SimulatedBackend(), make_params(prompt=prompt), halves()) for prompt in ("red", "other"))

    assert red[:, 40:].mean() > red[:, :24].mean() + 100
    assert not np.array_equal(red, other)


def test_same_job_gives_the_same_picture() -> None:
    first, second = (run(SimulatedBackend(), make_params(), halves()) for _ in range(2))

    assert np.array_equal(first, second)


def test_costs_are_read_from_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "simulated.json").write_text(json.dumps({"fixed_s": 0.5, "row_s": 0.25}))

    backend = backends.load("simulated", tmp_path, RULES)

    assert isinstance(backend, SimulatedBackend)
    assert (backend.fixed_s, backend.row_s) == (0.5, 0.25)


def test_folder_without_costs_costs_nothing(tmp_path: Path) -> None:
    backend = backends.load("simulated", tmp_path, RULES)

    assert isinstance(backend, SimulatedBackend)
    assert (backend.fixed_s, backend.row_s) == (0.0, 0.0)


def test_unknown_backend_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match="onnx, diffusers, simulated"):
        backends.load("abacus", tmp_path, RULES)


def test_rules_that_the_latents_can_not_follow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match="multiple of 8"):
        backends.load("simulated", tmp_path, ModelRules(shapes=(Shape(60, 60),), size_multiple=4))
