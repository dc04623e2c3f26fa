"""What is published is enough: the built wheel alone, in a new environment, in an empty folder, without a network."""

import email
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import sfumato

ROOT = Path(__file__).parents[2]
LARGEST_WHEEL = 30_000_000
STATIC = ROOT / "src" / "sfumato" / "gateway" / "static"
TYPED = """
from sfumato import AsyncClient, Client, JobInfo, NotFound

def latest(url: str) -> list[str]:
    with Client(url) as client:
        jobs: list[JobInfo] = list(client.jobs(limit=3))
        return [job.result_url for job in jobs if job.ended]

async def picture(client: AsyncClient, job_id: str) -> bytes:
    try:
        return (await client.result(job_id)).data
    except NotFound as error:
        return error.detail.encode()
"""


class Built(NamedTuple):
    """What `python -m build` made: the sdist, and the wheel built from it."""

    sdist: Path
    wheel: Path


class Installed(NamedTuple):
    """A new virtual environment with the wheel and what it asks for in it."""

    python: Path
    command: Path


def build(out: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options, str(ROOT)],
        check=True,
        timeout=100,
        stdout=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    (sdist,), (wheel,) = folder.glob("sfumato-*.tar.gz"), folder.glob("sfumato-*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install", "--retries", "1"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [*pip, *constraints, str(built.wheel)], capture_output=True, text=True, timeout=600, check=False
    )
    if "Failed to establish a new connection" in done.stderr or "No route to host" in done.stderr:
        pytest.skip("the package index, which has what the wheel asks for, can't be reached from here")
    assert done.returncode == 0, done.stderr
    return Installed(python, folder / "bin" / "sfumato")


def files_of(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def environment() -> dict[str, str]:
    """Ours, without what would show the checkout to a child."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}  # noqa: TID251


def said_by(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout.strip()


def test_the_sdist_makes_the_same_wheel_as_the_checkout(built: Built, tmp_path: Path) -> None:
    build(tmp_path, "--wheel")
    (direct,) = tmp_path.glob("*.whl")
    assert files_of(direct) == files_of(built.wheel)


def test_the_sdist_has_what_its_own_makefile_reads(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "docker-compose.yaml",
        "Dockerfile",
    }
    assert needed <= names
    assert {"tests/unit/test_house.py", "docs/cli.md", "deploy/nginx.conf", "images/cat.jpg"} <= names
    assert not any(name.startswith((".venv", "out/", "sfumato-data")) or "__pycache__" in name for name in names)


def test_the_wheel_is_small_and_whole(built: Built) -> None:
    assert built.wheel.stat().st_size <= LARGEST_WHEEL
    names = files_of(built.wheel).keys()
    package = [path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT / "src").as_posix() for path in package} <= names
    assert {"sfumato/py.typed", "sfumato/cluster/nginx.conf"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "examples/"))]


def test_every_file_of_the_page_is_in_the_wheel(built: Built) -> None:
    pages = {path.relative_to(ROOT / "src").as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert pages
    assert pages <= files_of(built.wheel).keys()


def test_the_wheel_says_what_it_is(built: Built) -> None:
    about = metadata_of(built.wheel)
    assert about["Version"] == sfumato.__version__
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["License-Expression"] == "Apache-2.0"
    readme = about.get_payload(decode=True)
    assert isinstance(readme, bytes)
    assert readme.decode().strip() == (ROOT / "README.md").read_text().strip()


def test_the_version_is_one(installed: Installed, tmp_path: Path) -> None:
    code = "import sfumato, importlib.metadata as m; print(sfumato.__version__, m.version('sfumato'), sfumato.__file__)"
    own, told, where = said_by([str(installed.python), "-c", code], tmp_path).split()
    assert own == told == sfumato.__version__
    assert Path(where).is_relative_to(installed.python.parents[1])
    assert said_by([str(installed.command), "--version"], tmp_path) == f"sfumato {own}"


@pytest.mark.parametrize(
    ("code", "status"), [(TYPED, 0), (TYPED.replace("limit=3", "limit='three'"), 1)], ids=["right", "wrong"]
)
def test_a_typed_program_is_checked_against_the_wheel(
    installed: Installed, tmp_path: Path, code: str, status: int
) -> None:
    (tmp_path / "program.py").write_text(code)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed.python), "program.py"]
    done = subprocess.run(mypy, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert ('incompatible type "str"' in done.stdout) == bool(status)


@pytest.mark.timeout(300)
def test_the_wheel_alone_makes_a_picture_without_a_network(installed: Installed, tmp_path: Path) -> None:
    alone = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no network namespace of one's own (unshare --net)")
    shutil.copy(ROOT / "images" / "cat.jpg", tmp_path)
    script = [str(installed.python), "-I", str(ROOT / "tests" / "offline.py"), str(installed.command), "cat.jpg"]

    told: dict[str, Any] = json.loads(said_by([*alone, *script], tmp_path))

    assert not told["outside"]
    assert told["submit"]["status"] == 0, told
    assert told["version"] == told["openapi"] == sfumato.__version__
    assert told["elsewhere"] == []
    assert len(told["assets"]) > 3
    assert all(told["assets"].values())
    sent = json.loads(told["submit"]["out"])
    with Image.open(tmp_path / sent["saved"]) as picture:
        assert picture.size[0] > 0
    assert told["stopped"] == 0
