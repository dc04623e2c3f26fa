"""What a process loads and how fast it starts; asked of a fresh interpreter each time."""

import subprocess
import sys

HEAVY = {"httpx", "torch", "sqlalchemy", "onnxruntime", "numpy", "pydantic", "rich", "fastapi"}


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) & HEAVY


def test_importing_sfumato_loads_nothing_heavy() -> None:
    assert loaded_by("import sfumato") == set()


def test_importing_the_command_loads_nothing_heavy() -> None:
    assert loaded_by("import sfumato.cli") == set()


def test_the_client_needs_no_server_package() -> None:
    own = {"httpx", "pydantic", "rich"}  # rich comes with httpx's own command
    assert loaded_by("from sfumato import Client") <= own


def test_the_base_install_needs_no_torch() -> None:
    script = """
import sys
for name in ("torch", "diffusers", "transformers", "accelerate", "safetensors"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
import numpy as np, sfumato.cli.bench, sfumato.supervisor.embedded, sfumato.worker.worker, sfumato.gateway.app
import sfumato.dispatcher.dispatcher, sfumato.recorder.recorder
from sfumato.core.params import ParamsRequest, Shape
from sfumato.engine import backends
from sfumato.engine.engine import Engine, Finished
from sfumato.models.registry import Registry
model = Registry.load(None).get("restyle")
engine = Engine(backends.load(model.backend, model.path, model.rules, backends.Options(threads=1)), 1)
params = model.rules.resolve(ParamsRequest(num_inference_steps=3), Shape(64, 64), seed=1)
engine.add("one", params, np.zeros((params.height, params.width, 3), np.uint8))
print(isinstance(engine.step()[-1], Finished))
try:
    backends.load("diffusers", model.path, model.rules)
except backends.BackendUnusable as error:
    print(error.detail)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["True", "backend 'diffusers' needs torch: pip install 'sfumato[diffusers]'."]


def test_help_loads_nothing_but_what_prints_it() -> None:
    assert loaded_by("from sfumato.cli import main; main(['--help'])") <= {"rich"}
