"""What is published is enough: the built wheel alone, in an empty folder, makes a picture."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.service import Service, post_picture
from tests.support import poll

ROOT = Path(__file__).parents[2]


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True, timeout=100, stdout=subprocess.DEVNULL)


def test_the_wheel_alone_makes_a_picture(tmp_path: Path) -> None:
    _pip("wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("sfumato-*.whl")
    assert "sfumato/cluster/nginx.conf" in zipfile.ZipFile(wheel).namelist()
    installed = tmp_path / "installed"
    _pip("install", "--no-deps", "--target", str(installed), str(wheel))
    empty = tmp_path / "empty"
    empty.mkdir()

    with Service(empty, models="", environment={"PYTHONPATH": str(installed)}) as service:
        maps = [Path(f"/proc/{pid}/environ").read_bytes() for pid in service.roles().values()]
        photo = (ROOT / "images" / "cat.jpg").read_bytes()
        status, accepted = post_picture(
            service.url, photo, media_type="image/jpeg", model_name="restyle", prompt="mosaic"
        )
        assert status == 202, accepted
        poll(lambda: service.get(accepted["result_url"])[0] == 200, within_s=60)

    assert all(f"PYTHONPATH={installed}".encode() in environment for environment in maps)
    where = subprocess.run(
        [sys.executable, "-c", "import sfumato; print(sfumato.__file__)"],
        env=dict(os.environ) | {"PYTHONPATH": str(installed)},  # noqa: TID251 - the child's, handed through
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)
