"""What a process loads and how fast it starts; asked of a fresh interpreter each time."""

import subprocess
import sys
import time

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


def test_help_is_quick() -> None:
    took_s = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sfumato", "--help"], capture_output=True, check=True)
        took_s.append(time.perf_counter() - begin)
    assert min(took_s) < 0.4
