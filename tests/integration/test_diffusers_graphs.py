"""Recorded calls, with a recorder for the CPU that keeps CUDA graphs' rule: fixed inputs, one output overwritten."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.core.errors import EngineDead
from sfumato.core.params import ModelRules, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import Options
from sfumato.engine.backends.diffusers.graphs import Call, Replayed
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.trouble import in_words_of_the_port
from tests.diffusers_models import make_model
from tests.integration.test_diffusers_backend import DIFFUSION, FLOW, TOLERANCE, difference, run
from tests.support import make_params

SHARED = frozenset({"grid"})


class Recorder:
    """What a CUDA graph does, by calling again: reads the inputs it was recorded with, writes the output it gave."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, call: Call) -> tuple[Callable[[], object], torch.Tensor]:
        self.recorded += 1
        output = call()
        return lambda: output.copy_(call()), output


def network(x: torch.Tensor, t: torch.Tensor, *, added: Any, grid: torch.Tensor, return_dict: bool) -> Any:
    """Rows differ by everything that is given by row; `grid` is one for all."""
    assert not return_dict
    return (x * t.reshape(-1, 1, 1, 1) + added["pooled"].reshape(-1, 1, 1, 1) + grid.sum(),)


def inputs(rows: int, height: int = 4) -> dict[str, Any]:
    return {
        "x": torch.randn(rows, 2, height, 4),
        "t": torch.randn(rows),
        "added": {"pooled": torch.randn(rows, 1)},
        "grid": torch.randn(5, 3),
        "return_dict": False,
    }


def called(callable_: Any, given: dict[str, Any]) -> torch.Tensor:
    rest = {name: value for name, value in given.items() if name not in ("x", "t")}
    found: torch.Tensor = callable_(given["x"], given["t"], **rest)[0]
    return found


def twice(callable_: Any, given: dict[str, Any]) -> torch.Tensor:
    """The second call's answer: a kind of call is recorded when it comes again."""
    called(callable_, given)
    return called(callable_, given)


@pytest.mark.parametrize("rows", [1, 3, 5, 7, 8, 64])
def test_replayed_call_answers_as_the_network_for_any_number_of_rows(rows: int) -> None:
    recorder = Recorder()
    replayed = Replayed(network, recorder, SHARED)
    for _ in range(4):
        given = inputs(rows)
        assert torch.equal(called(replayed, given), called(network, given))
    assert recorder.recorded == 1


def test_call_is_recorded_when_it_comes_again() -> None:
    recorder = Recorder()
    replayed = Replayed(network, recorder, SHARED)

    called(replayed, inputs(2))
    assert recorder.recorded == 0
    called(replayed, inputs(2))
    assert recorder.recorded == 1


def test_numbers_of_rows_share_recordings_by_their_bucket() -> None:
    recorder = Recorder()
    replayed = Replayed(network, recorder, SHARED)
    for rows in (5, 6, 7, 8, 5):
        called(replayed, inputs(rows))

    assert recorder.recorded == 2


def test_every_shape_and_every_kind_of_input_has_its_own_recording() -> None:
    recorder = Recorder()
    replayed = Replayed(network, recorder, SHARED)
    given = inputs(2)
    last = given | {"x": given["x"].to(memory_format=torch.channels_last)}
    for kind in (
        given,
        inputs(2, height=6),
        given | {"x": given["x"].double()},
        given | {"grid": torch.randn(7, 3)},
        last,
    ):
        assert torch.equal(twice(replayed, kind), called(network, kind))

    assert recorder.recorded == 5


def test_static_inputs_have_the_memory_format_of_what_is_given() -> None:
    seen: list[bool] = []

    def look(x: torch.Tensor, t: torch.Tensor, **rest: Any) -> Any:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return network(x, t, **rest)

    given = inputs(3)
    twice(Replayed(look, Recorder(), SHARED), given | {"x": given["x"].to(memory_format=torch.channels_last)})

    assert all(seen)


def test_more_rows_than_the_largest_bucket_are_called_as_they_are() -> None:
    recorder = Recorder()
    given = inputs(65)

    assert torch.equal(twice(Replayed(network, recorder, SHARED), given), called(network, given))
    assert recorder.recorded == 0


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: operation not permitted when stream is capturing",
        "CUDA error: operation failed due to a previous error during capture",
        "Cannot copy between CPU and CUDA tensors during CUDA graph capture",
    ],
)
def test_network_that_can_not_be_recorded_is_called_as_it_is_from_then_on(said: str) -> None:
    tried = []

    def refuse(call: Call) -> Any:
        tried.append(call)
        raise torch.AcceleratorError(said)

    replayed, given = Replayed(network, refuse, SHARED), inputs(2)

    for _ in range(3):
        with in_words_of_the_port():
            assert torch.equal(called(replayed, given), called(network, given))
    assert len(tried) == 1


def test_device_that_is_gone_while_recording_ends_the_engine() -> None:
    def die(call: Call) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(EngineDead), in_words_of_the_port():
        twice(Replayed(network, die, SHARED), inputs(2))


def test_call_is_made_as_it_is_when_there_is_no_room_to_record_it() -> None:
    recorder, room = Recorder(), [True]

    def narrow(call: Call) -> Any:
        if not room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return recorder(call)

    replayed = Replayed(network, narrow, SHARED)
    twice(replayed, inputs(2))
    room[0] = False

    given = inputs(4)
    assert torch.equal(twice(replayed, given), called(network, given))

    room[0] = True
    twice(replayed, inputs(2))
    assert recorder.recorded == 2, "what was recorded before was let go to make room"


def test_only_so_many_recordings_are_kept_those_last_used() -> None:
    recorder = Recorder()
    replayed = Replayed(network, recorder, SHARED, keep=2)
    for height in (4, 6, 4, 8, 4, 6):
        twice(replayed, inputs(1, height=height))

    assert recorder.recorded == 4
    assert len(replayed._recordings) == 2


@pytest.mark.parametrize("kind", ["sd", "sd-lcm", "sdxl", "sd3", "flux-dev"])
def test_every_familys_network_can_be_replayed(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = FLOW if kind in ("sd3", "flux-dev") else DIFFUSION
    rules = ModelRules(shapes=(Shape(64, 64),), size_multiple=16, samplers=samplers, sampler=samplers[0])
    folder, recorder = make_model(kind, tmp_path / "model"), Recorder()
    options = Options(threads=1, device="cpu")
    plain = backends.load("diffusers", folder, rules, options)
    monkeypatch.setattr(Place, "fast", lambda place, called, shared=(): Replayed(called, recorder, frozenset(shared)))
    replayed = backends.load("diffusers", folder, rules, options)
    jobs = [
        make_params(
            prompt=f"number {number}",
            seed=number,
            sampler=Sampler(samplers[number % len(samplers)]),
            num_inference_steps=8 + 2 * number,
            guidance_scale=[1.0, 5.0, 1.0][number % 3],
        )
        for number in range(5)
    ]

    pairs = list(zip(run(replayed, jobs), run(plain, jobs), strict=True))

    assert recorder.recorded >= 1
    assert max(difference(*pair) for pair in pairs) < TOLERANCE
