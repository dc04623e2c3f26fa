"""The pictures that are restyled: drawn scenes, crops of photos, and emoji in front of either; uint8, SIDE × SIDE.

They are made by processes in shards of SHARD pictures, each written whole, while the next stages learn already.
"""

import multiprocessing
import os
import time
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from training.draw import SIDE, Array, blurred, color
from training.plan import Plan
from training.scenes import abstract, landscape, scene

__all__ = ["SHARD", "Makers", "content", "shards"]

SHARD: Final = 64
SHARES: Final = {"scene": 0.42, "photo": 0.34, "emoji": 0.24}

Pictures = npt.NDArray[np.uint8]


def content(rng: np.random.Generator, pictures: Path) -> Pictures:
    """One picture [SIDE, SIDE, 3]."""
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "scene" or not _photos(pictures):
        found = scene(rng)
    elif kind == "photo":
        found = photo(rng, pictures)
    else:
        found = emoji(rng, pictures)
    if rng.random() < 0.2:
        found = found + rng.normal(size=found.shape).astype(np.float32) * rng.uniform(0.005, 0.03)
    return (found.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def photo(rng: np.random.Generator, pictures: Path) -> Array:
    """A crop of a photo, of any proportions within a quarter; a grey photo is mostly given colours."""
    whole = _photos(pictures)[int(rng.integers(len(_photos(pictures))))]
    shorter = min(whole.size)
    tall = int(shorter * rng.uniform(0.38, 1.0))
    wide = min(whole.width, int(tall * rng.uniform(0.8, 1.25)))
    left, top = int(rng.integers(0, whole.width - wide + 1)), int(rng.integers(0, whole.height - tall + 1))
    cut = whole.crop((left, top, left + wide, top + tall)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    found = np.asarray(cut, np.float32) / np.float32(255)
    if (
        float(np.abs(found[..., 0] - found[..., 2] - (found[..., 0] - found[..., 2]).mean()).mean()) < 0.02
        and rng.random() < 0.75
    ):
        stops = np.stack(
            [color(rng, (0.3, 1), (0, 0.3)), color(rng, (0.2, 0.8), (0.4, 0.8)), color(rng, (0, 0.4), (0.85, 1))]
        )
        grey = found.mean(-1)
        found = np.stack([np.interp(grey, (0, 0.5, 1), stops[:, band]) for band in range(3)], -1).astype(np.float32)
    return found


def emoji(rng: np.random.Generator, pictures: Path) -> Array:
    """One large or some small things before something else, often with a shadow."""
    behind = rng.choice(["landscape", "photo", "abstract", "scene"], p=[0.35, 0.3, 0.15, 0.2])
    at = (
        photo(rng, pictures)
        if behind == "photo"
        else {"landscape": landscape, "abstract": abstract, "scene": scene}[behind](rng)
    )
    if rng.random() < 0.5:
        at = blurred(at, rng.uniform(0.5, 6))
    if rng.random() < 0.2:
        at = np.ones((SIDE, SIDE, 3), np.float32) * color(rng, (0, 0.6), (0.4, 1))
    canvas = Image.fromarray((at.clip(0, 1) * 255).astype(np.uint8))
    files = _emoji_files(pictures)
    alone = rng.random() < 0.45
    for _ in range(1 if alone else int(rng.integers(2, 7))):
        size = int(rng.uniform(150, 310) if alone else rng.uniform(60, 165))
        x, y = SIDE / 2 + rng.normal(size=2) * 25 if alone else rng.uniform(size * 0.3, SIDE - size * 0.3, 2)
        put_emoji(canvas, files[int(rng.integers(len(files)))], (x, y), size, rng)
    return np.asarray(canvas, np.float32) / np.float32(255)


def put_emoji(
    canvas: Image.Image, file: Path, middle: tuple[float, float], size: int, rng: np.random.Generator
) -> None:
    """Paste the thing in `file`, `size` pixels a side, onto the canvas."""
    thing = _opened(file).resize((size, size), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        thing = thing.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR, expand=True)
    corner = int(middle[0] - thing.width / 2), int(middle[1] - thing.height / 2)
    if rng.random() < 0.5:
        shadow = thing.getchannel("A").filter(ImageFilter.GaussianBlur(5)).point(lambda alpha: int(alpha * 0.4))
        canvas.paste((0, 0, 0), (corner[0] + 5, corner[1] + 6), shadow)
    canvas.paste(thing.convert("RGB"), corner, thing.getchannel("A"))


class Makers:
    """Processes that make shards until there are `count`, or until `stop`; a dead run's shards are kept."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.folder = plan.folder / "contents"
        self.folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        asked = [(number, plan.seed, self.folder, plan.folder / "pictures") for number in range(count)]
        self._processes = [
            context.Process(target=_make_shards, args=(asked[first :: plan.processes],), daemon=True)
            for first in range(plan.processes)
        ]
        for process in self._processes:
            process.start()

    def wait_for(self, count: int, within_s: float) -> None:
        """Until `count` shards are there. Raises RuntimeError when nobody makes them any more."""
        deadline = time.monotonic() + within_s
        while len(shards(self.folder)) < count and time.monotonic() < deadline:
            running = [process for process in self._processes if process.is_alive()]
            if not running:
                if len(shards(self.folder)) >= count or all(process.exitcode == 0 for process in self._processes):
                    return
                raise RuntimeError("the processes that make contents died; see what they wrote above")
            running[0].join(0.2)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.npy"))


def _make_shards(asked: list[tuple[int, int, Path, Path]]) -> None:
    for number, seed, folder, pictures in asked:
        file = folder / f"{number:05d}.npy"
        if file.exists():
            continue
        rng = np.random.default_rng((seed, number))
        made = np.stack([content(rng, pictures) for _ in range(SHARD)])
        beside = folder / f".{number:05d}.new.npy"
        np.save(beside, made)
        os.replace(beside, file)


@cache
def _photos(pictures: Path) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in sorted((pictures / "photo").glob("*.jpg"))]


@cache
def _emoji_files(pictures: Path) -> list[Path]:
    return sorted((pictures / "emoji").glob("*.webp"))


@cache
def _opened(file: Path) -> Image.Image:
    return Image.open(file).convert("RGBA")
