"""What fits into a device's memory: measured once, kept, and obeyed by the engine."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sfumato.core.params import Shape
from sfumato.engine.backends.arrays import Latents
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.caps import Fit, fits
from sfumato.engine.engine import Engine, Finished, Pixels
from tests.support import make_params

SMALL, LARGE = Shape(64, 64), Shape(128, 128)


class Device(SimulatedBackend):
    """Has room for so many latent cells in a call of the network, and for so many in the decoder."""

    def __init__(self, network_cells: int, decoder_cells: int) -> None:
        super().__init__()
        self.about = replace(self.about, own_memory=True, device="made up")
        self._network_cells, self._decoder_cells = network_cells, decoder_cells
        self.refused = 0

    def predict(
        self, x: Latents, t: npt.NDArray[np.float32], embeddings: Sequence[Latents], guidance: npt.NDArray[np.float32]
    ) -> Latents:
        self._fit(x, self._network_cells)
        return super().predict(x, t, embeddings, guidance)

    def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
        found = super().encode_images(pixels, generators)
        self._fit(found, self._decoder_cells)
        return found

    def decode(self, x: Latents) -> npt.NDArray[np.float32]:
        self._fit(x, self._decoder_cells)
        return super().decode(x)

    def _fit(self, x: Latents, cells: int) -> None:
        if x[:, 0].size > cells:
            self.refused += 1
            raise MemoryError


def device() -> Device:
    """8 small rows or 2 large ones; 2 small pictures, or not even a whole large one."""
    return Device(network_cells=8 * 64, decoder_cells=2 * 64)


def measured(backend: Any, folder: Path, *identity: object) -> Any:
    return fits(backend, [SMALL, LARGE], 16, folder, identity)


def test_what_fits_is_halved_until_it_does(tmp_path: Path) -> None:
    assert measured(device(), tmp_path) == {SMALL: Fit(8, 2), LARGE: Fit(2, 1)}


def test_what_was_measured_is_read_the_next_time(tmp_path: Path) -> None:
    measured(device(), tmp_path)
    again = device()

    assert measured(again, tmp_path) == {SMALL: Fit(8, 2), LARGE: Fit(2, 1)}
    assert again.refused == 0


def test_another_model_or_batch_is_measured_anew(tmp_path: Path) -> None:
    measured(device(), tmp_path, "one")
    other = device()

    measured(other, tmp_path, "another")

    assert other.refused > 0


@pytest.mark.parametrize("damage", ["", "[[64, 64", '{"64": 1}', "[[64]]", '[["a", 1, 2, 3, 4]]'])
def test_damaged_file_is_measured_and_written_again(tmp_path: Path, damage: str) -> None:
    measured(device(), tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text(damage)

    assert measured(device(), tmp_path)[SMALL] == Fit(8, 2)
    assert [64, 64, 8, 2] in json.loads(file.read_text())


def test_folder_that_can_not_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert measured(device(), tmp_path / "file" / "caps")[LARGE] == Fit(2, 1)


def test_device_in_the_hosts_memory_is_not_measured(tmp_path: Path) -> None:
    assert measured(SimulatedBackend(), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_engine_that_knows_what_fits_never_asks_for_more(tmp_path: Path) -> None:
    backend = device()
    engine = Engine(backend, 16, measured(backend, tmp_path))
    backend.refused = 0
    for number in range(12):
        engine.add(str(number), make_params(seed=number), np.zeros((64, 64, 3), np.uint8))

    events = [event for _ in range(20) for event in engine.step()]

    assert sum(isinstance(event, Finished) for event in events) == 12
    assert backend.refused == 0


def test_engine_that_did_not_know_learns_what_the_decoder_has_room_for() -> None:
    backend = device()
    engine = Engine(backend, 16)
    for number in range(8):
        engine.add(str(number), make_params(seed=number), np.zeros((64, 64, 3), np.uint8))
    while not engine.idle:
        engine.step()
    learnt = backend.refused
    for number in range(8):
        engine.add(str(number), make_params(seed=number), np.zeros((64, 64, 3), np.uint8))

    events = [event for _ in range(20) for event in engine.step()]

    assert sum(isinstance(event, Finished) for event in events) == 8
    assert learnt == backend.refused == 2
