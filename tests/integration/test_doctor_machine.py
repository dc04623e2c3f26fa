"""What `sfumato doctor` says of the machine: GPUs by a stand-in for nvidia-smi, torch, packages, settings, keys."""

import importlib.util
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli import main
from sfumato.cli.doctor import machine
from sfumato.models.model import FOLDER
from sfumato.supervisor import pool

Doctor = Callable[..., list[str]]
Environment = pytest.MonkeyPatch
NVIDIA = "echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 575.57.08'"
DIFFUSERS = "[models.restyle]\n[models.ours]\nbackend = 'diffusers'\npath = 'weights'\n"


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: Environment, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Lines that `doctor` says; no GPU and no variable of ours is there at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(pool, "GPUS", tmp_path / "no-devices")

    def examine(*words: str, status: int = 0) -> list[str]:
        assert main(["doctor", "--port", "0", *words]) == status
        told = capsys.readouterr()
        assert told.err == ""
        return told.out.splitlines()

    return examine


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[[str], None]:
    def says(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        command = tmp_path / "bin" / "nvidia-smi"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)

    return says


@pytest.fixture
def torch(monkeypatch: Environment) -> Callable[[str], None]:
    """A stand-in for torch, which takes seconds to import: what its process prints."""

    def says(answer: str) -> None:
        monkeypatch.setattr(machine, "ASK_TORCH", f"import sys; {answer}")
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json" if name == "torch" else name))

    return says


def without(monkeypatch: Environment, *missing: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))


def test_without_a_gpu_the_cpu_does_and_that_is_fine(doctor: Doctor) -> None:
    assert "✓ no GPU found: models run on the CPU" in doctor()


def test_a_gpu_is_told_with_its_memory(
    doctor: Doctor, nvidia_smi: Callable[[str], None], monkeypatch: Environment
) -> None:
    nvidia_smi(f"{NVIDIA}; {NVIDIA}")
    without(monkeypatch, "torch")
    gpus = [line for line in doctor() if "GPU" in line]
    assert gpus == ["✓ GPU NVIDIA H100 80GB HBM3, 81559 MiB, driver 575.57.08"] * 2


@pytest.mark.parametrize("variable", ["SFUMATO_GPUS", "CUDA_VISIBLE_DEVICES"])
@pytest.mark.parametrize(("value", "said"), [("", "empty"), ("-1", "-1"), ("NoDevFiles", "NoDevFiles")])
def test_gpus_that_are_not_to_be_used_are_not_asked(
    doctor: Doctor,
    nvidia_smi: Callable[[str], None],
    monkeypatch: Environment,
    variable: str,
    value: str,
    said: str,
) -> None:
    nvidia_smi(NVIDIA)
    monkeypatch.setenv(variable, value)
    assert [line for line in doctor() if "GPU" in line] == [
        f"✓ no GPU is to be used (SFUMATO_GPUS or CUDA_VISIBLE_DEVICES is {said})"
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("print('', False)", "torch is built without CUDA: it would leave the GPU idle: pip install"),
        ("print('12.8', False)", "torch for CUDA 12.8 can't use the GPU: the driver may be older"),
        ("sys.exit('ImportError: libcudart')", "torch can't be imported: ImportError: libcudart"),
    ],
)
def test_a_torch_that_can_not_use_the_gpu_is_a_warning_until_a_model_needs_it(
    doctor: Doctor,
    nvidia_smi: Callable[[str], None],
    torch: Callable[[str], None],
    tmp_path: Path,
    answer: str,
    said: str,
) -> None:
    nvidia_smi(NVIDIA)
    torch(answer)
    assert any(line.startswith(f"! {said}") for line in doctor())
    write_diffusers_model(tmp_path)
    assert any(line.startswith(f"✗ {said}") for line in doctor(status=1))
    models = tmp_path / "sfumato-data" / "models.toml"
    models.write_text(f"{DIFFUSERS}device = 'cpu'\n")
    assert any(line.startswith(f"! {said}") for line in doctor())


def test_a_torch_that_uses_the_gpu_is_told(
    doctor: Doctor, nvidia_smi: Callable[[str], None], torch: Callable[[str], None]
) -> None:
    nvidia_smi(NVIDIA)
    torch("print('12.8', True)")
    assert "✓ torch uses it, with CUDA 12.8" in doctor()


def test_a_driver_that_does_not_answer_is_told(
    doctor: Doctor, nvidia_smi: Callable[[str], None], tmp_path: Path, monkeypatch: Environment
) -> None:
    (tmp_path / "no-devices" / "0000:01:00.0").mkdir(parents=True)
    without(monkeypatch, "torch")
    assert any("nvidia-smi is not found" in line for line in doctor())
    nvidia_smi("echo 'Driver/library version mismatch'; exit 18")
    assert "! an NVIDIA device that does not answer: nvidia-smi: Driver/library version mismatch; mend the driver" in (
        doctor()
    )


def write_diffusers_model(tmp_path: Path) -> None:
    parts = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": {"sample_size": 64},
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler/scheduler_config.json": {},
    }
    for name, said in parts.items():
        file = tmp_path / "sfumato-data" / "weights" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(said))
    (tmp_path / "sfumato-data" / "models.toml").write_text(DIFFUSERS)


def test_a_backend_without_its_packages_is_told_with_the_extra(
    doctor: Doctor, tmp_path: Path, monkeypatch: Environment
) -> None:
    write_diffusers_model(tmp_path)
    without(monkeypatch, "torch", "diffusers")
    told = doctor(status=1)
    assert "✓ models restyle" in told
    assert "✗ model ours: backend diffusers needs torch, diffusers: pip install 'sfumato[diffusers]'" in told


def test_a_model_with_loras_needs_what_adds_them(doctor: Doctor, tmp_path: Path, monkeypatch: Environment) -> None:
    write_diffusers_model(tmp_path)
    models, lora = tmp_path / "sfumato-data" / "models.toml", tmp_path / "sfumato-data" / "style.safetensors"
    lora.write_bytes(b"\x02" + bytes(7) + b"{}")
    without(monkeypatch, "peft")
    assert "✓ models restyle, ours" in doctor()
    models.write_text(f"{DIFFUSERS}loras = [{{ path = 'style.safetensors' }}]\n")
    assert "✗ model ours: backend diffusers needs peft: pip install 'sfumato[diffusers]'" in doctor(status=1)


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_model_that_was_cut_short_or_lost_a_file_is_told(doctor: Doctor, tmp_path: Path, kept: int) -> None:
    folder = tmp_path / "sfumato-data" / "ours"
    for file in FOLDER.rglob("*"):
        if file.is_file():
            copy = folder / file.relative_to(FOLDER)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "sfumato-data" / "models.toml").write_text("[models.restyle]\n[models.ours]\npath = 'ours'\n")
    assert "✓ models restyle, ours" in doctor()
    unet = folder / "unet" / "model.onnx"
    unet.write_bytes(unet.read_bytes()[:kept])
    (folder / "vae_encoder" / "model.onnx").unlink()
    told = [line for line in doctor(status=1) if line.startswith("✗")]
    assert len(told) == 2
    assert "unet/model.onnx is cut short" in told[0]
    assert "vae_encoder/model.onnx can't be read (No such file" in told[1]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PROT": "9000"}, "! SFUMATO_PROT is no setting and is ignored: is SFUMATO_PORT meant?"),
        ({"BEAT_S": "often"}, "✗ settings: SFUMATO_BEAT_S: must be a number, such as 2.0, not 'often'."),
        ({"METRICS_PORT": "8000", "PORT": "8000"}, "✗ SFUMATO_METRICS_PORT and SFUMATO_PORT are both 8000"),
        ({"S3_ENDPOINT": "http://s3"}, "! SFUMATO_S3_ENDPOINT without effect: name the bucket"),
        ({"KAFKA_SASL_USERNAME": "me"}, "! SFUMATO_KAFKA_SASL_USERNAME has no effect"),
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"}, "✗ SFUMATO_KAFKA_SASL_MECHANISM, with sasl_ssl: choose one"),
        ({"KAFKA_SSL_CA": "nowhere.pem"}, "✗ SFUMATO_KAFKA_SSL_CA: there is no file nowhere.pem"),
        ({"MAX_UPLOAD_BYTES": "999999999"}, "✗ SFUMATO_MAX_UPLOAD_BYTES is more than one gateway holds"),
        ({"MODELS": "nowhere.toml"}, "✗ models: SFUMATO_MODELS: there is no file nowhere.toml"),
        ({"BENCHMARK_FILE": "nowhere/b.csv"}, "✗ folder of the benchmark file"),
        ({"HOST": "0.0.0.0"}, "✗ others reach 0.0.0.0, so requests need a key: there is none yet"),  # noqa: S104
    ],
)
def test_settings_that_can_not_be_meant_are_told(
    doctor: Doctor, monkeypatch: Environment, capsys: pytest.CaptureFixture[str], variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"SFUMATO_{name}", value)
    status = main(["doctor"] if "PORT" in variables else ["doctor", "--port", "0"])
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith(said) for line in told), told
    assert status == int(said.startswith("✗"))


def test_a_key_is_enough_where_others_reach_the_service(
    doctor: Doctor, monkeypatch: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFUMATO_HOST", "0.0.0.0")  # noqa: S104
    assert main(["keys", "create", "alice"]) == 0
    capsys.readouterr()
    assert "✓ others reach 0.0.0.0, so requests need a key, and there is one" in doctor()


def test_a_folder_with_a_damaged_database_is_told(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "rows.sqlite").write_text("no database")
    told = doctor("--data-dir", str(tmp_path), status=1)
    assert any(line.startswith("✗ rows of the jobs: ") and "file is not a database" in line for line in told)


def test_a_folder_that_may_not_be_looked_into_is_told(doctor: Doctor, monkeypatch: Environment) -> None:
    looked = Path.stat

    def denied(path: Path, **how: Any) -> Any:
        if "shut" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, **how)

    monkeypatch.setenv("SFUMATO_DATA_DIR", "shut")
    monkeypatch.setattr(Path, "stat", denied)
    told = "\n".join(doctor(status=1))
    assert "✗ data folder" in told
    assert "✗ models: shut/models.toml: Permission denied" in told
    assert "✗ rows of the jobs: shut/rows.sqlite: Permission denied" in told
    assert "✓ no GPU found" in told


def test_packages_that_are_missing_or_too_old_are_told(doctor: Doctor, monkeypatch: Environment) -> None:
    asked = ["numpy>=99", "nosuch-package>=1.2", "rich>=99; sys_platform == 'win32'", "pytest>=99; extra == 'test'"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    told = doctor(status=1)
    assert f"✗ package numpy is {metadata.version('numpy')}, older than 99: pip install --upgrade 'numpy>=99'" in told
    assert "✗ package nosuch-package is not installed: pip install --upgrade 'nosuch-package>=1.2'" in told
    assert any(line.startswith("! package pytest is") for line in told)
    assert not any("rich" in line for line in told), "it is for another system"
    python = ".".join(map(str, sys.version_info[:3]))
    monkeypatch.setattr(metadata, "requires", lambda name: ["rich>=1"])
    assert f"✓ Python {python} with the packages that are needed" in doctor()


def test_traces_that_nothing_sends_are_told_where_their_api_alone_is_there(
    doctor: Doctor, monkeypatch: Environment
) -> None:
    monkeypatch.setenv("SFUMATO_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert not any(line.startswith("! no traces") for line in doctor())
    installed = metadata.version

    def api_alone(name: str) -> str:
        if name == "opentelemetry-exporter-otlp-proto-http":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", api_alone)
    assert "! no traces are sent to SFUMATO_OTLP_ENDPOINT: pip install 'sfumato[otel]'" in doctor()


def test_findings_as_json_are_one_object(doctor: Doctor, monkeypatch: Environment) -> None:
    monkeypatch.setenv("SFUMATO_PROT", "9000")
    (line,) = doctor("--json")
    told: dict[str, Any] = json.loads(line)
    assert told["ok"] is True
    assert {finding["state"] for finding in told["findings"]} == {"good", "warning"}
    assert all(finding.keys() == {"state", "what", "advice"} for finding in told["findings"])
    monkeypatch.setenv("SFUMATO_BEAT_S", "often")
    (line,) = doctor("--json", status=1)
    assert json.loads(line)["ok"] is False
