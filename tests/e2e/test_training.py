"""The bundled model's training, the whole way on tiny networks: killed once, gone on with, exported, judged."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import poll

ROOT = Path(__file__).parents[2]


def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training", "--out", str(out), "--hours", "0.005", "--small", "--processes", "1"]
    return subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.timeout(400)
def test_a_run_is_killed_goes_on_and_ends_with_a_model_that_the_service_can_load(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    first = start(tmp_path, "--seconds", "vae=600")
    poll((tmp_path / "state" / "vae.pt").exists, within_s=150)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    tokenizer = (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns

    second = start(tmp_path)
    _, told = second.communicate(timeout=300)

    assert second.returncode == 0, told.decode()
    assert (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == tokenizer
    model = tmp_path / "restyle"
    parts = ("unet", "vae_encoder", "vae_decoder", "text_encoder")
    assert all((model / part / "model.onnx").stat().st_size > 0 for part in parts)
    assert (tmp_path / "diffusers" / "model_index.json").exists()
    judged = json.loads((tmp_path / "judged.json").read_text())
    published = json.loads((model / "sfumato.json").read_text())
    # What did not pass is not praised: after seconds, hardly anything can.
    assert set(published["styles"]) == {name for name, result in judged.items() if result["passed"]}
    assert (tmp_path / "sheet-0.35.jpg").stat().st_size > 0
    assert not list(tmp_path.rglob(".*.new*"))
