"""Scenes that are drawn anew each time, [SIDE, SIDE, 3] float32: landscapes, cities, still lifes, portraits, shapes."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from training.draw import SIDE, Array, as_array, as_picture, blurred, color, ink, mixed, noise, sky, sphere

__all__ = ["SCENES", "abstract", "landscape", "scene"]

GROUNDS: Final = ((0.35, 0.55, 0.2), (0.75, 0.65, 0.35), (0.85, 0.87, 0.92))
SKIN: Final = ((0.95, 0.78, 0.66), (0.85, 0.64, 0.48), (0.62, 0.43, 0.3), (0.4, 0.27, 0.2))
HAIR: Final = ((0.12, 0.08, 0.06), (0.35, 0.2, 0.1), (0.75, 0.6, 0.3), (0.5, 0.5, 0.5))


def scene(rng: np.random.Generator) -> Array:
    """One of SCENES, by its weight."""
    makers = tuple(SCENES)
    weights = np.array(list(SCENES.values()))
    return makers[rng.choice(len(makers), p=weights / weights.sum())](rng)


def landscape(rng: np.random.Generator) -> Array:
    at, horizon = sky(rng), rng.uniform(0.4, 0.75) * SIDE
    if rng.random() < 0.55:
        at = _sun(at, rng)
    at = _hills(at, rng, horizon)
    rows = np.arange(SIDE, dtype=np.float32)[:, None]
    water = rng.random() < 0.25
    edge = (
        horizon + (0 if water else 5 * np.sin(np.arange(SIDE) / 50 + rng.uniform(0, 6)))[None] if not water else horizon
    )
    depth = np.clip((rows - horizon) / (SIDE - horizon), 0, 1)[..., None]
    if water:
        waves = np.sin(rows / (2 + depth[..., 0] * 7) + 3 * noise(rng, 60, 3)) * 0.5 + 0.5
        deep = np.sort(color(rng, (0.4, 0.8), (0.3, 0.7)))
        ground = deep * (0.75 + 0.35 * waves[..., None] * depth + 0.2 * (1 - depth)) * 0.8 + 0.2 * at[::-1]
    else:
        base = np.array(GROUNDS[rng.integers(3)]) + rng.normal(size=3) * 0.07
        ground = base * (0.65 + 0.5 * noise(rng, 40, 5)[..., None]) * (1 - 0.25 * depth)
    at = mixed(
        at,
        np.clip(ground, 0, 1).astype(np.float32),
        np.clip(rows - edge + 0.5, 0, 1).astype(np.float32) * np.ones((1, SIDE), np.float32),
    )
    return as_array(_things(as_picture(at), rng, horizon, water))


def _sun(at: Array, rng: np.random.Generator) -> Array:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    radius = rng.uniform(10, 36)
    far = np.hypot(columns - rng.uniform(0.1, 0.9) * SIDE, rows - rng.uniform(0.08, 0.45) * SIDE)
    glow = np.maximum(
        np.clip(radius + 0.5 - far, 0, 1), rng.uniform(0, 0.6) * np.exp(-np.maximum(far - radius, 0) / radius)
    )
    return mixed(at, np.array((1, rng.uniform(0.75, 1), rng.uniform(0.5, 0.95)), np.float32), glow.astype(np.float32))


def _hills(at: Array, rng: np.random.Generator, horizon: float) -> Array:
    count, base, far = int(rng.integers(0, 4)), color(rng, (0.1, 0.5), (0.25, 0.7)), at[int(horizon) - 20].mean(0)
    rows = np.arange(SIDE, dtype=np.float32)[:, None]
    for number in range(count):
        height = rng.uniform(0.08, 0.34) * SIDE * (1 - number / (count + 1) * 0.5)
        ridge = horizon - height * noise(rng, int(rng.choice([40, 80, 120])), 5)[0] + number * 9
        near = (number + 1) / count
        stone = (base * near + far * (1 - near) * 0.8) * (noise(rng, 30, 4)[..., None] * 0.25 + 0.85)
        if rng.random() < 0.35 and number < 2:
            snow = rows < (ridge + height * 0.22 + 7 * np.sin(np.arange(SIDE) * 0.28 + number))[None]
            stone[snow] = (0.95, 0.96, 0.99)
        at = mixed(
            at, np.clip(stone, 0, 1).astype(np.float32), np.clip(rows - ridge[None] + 0.5, 0, 1).astype(np.float32)
        )
    return at


def _things(picture: Image.Image, rng: np.random.Generator, horizon: float, water: bool) -> Image.Image:
    draw, side = ImageDraw.Draw(picture), 2 * SIDE
    if water:
        if rng.random() < 0.6:
            _boat(
                draw, rng, rng.uniform(0.2, 0.8) * side, 2 * rng.uniform(horizon + 8, SIDE * 0.88), rng.uniform(50, 150)
            )
        return picture
    if rng.random() < 0.3:
        x, spread = rng.uniform(0.3, 0.7) * side, rng.uniform(60, 220)
        road = [(x - 6, 2 * horizon), (x + 6, 2 * horizon), (x + spread, side), (x - spread * 0.6, side)]
        draw.polygon(road, ink(color(rng, (0.05, 0.3), (0.4, 0.8))))
    for y in sorted(rng.uniform(horizon, SIDE * 0.98, int(rng.integers(0, 9)))):
        size = 50 + (y - horizon) / (SIDE - horizon + 1) * rng.uniform(150, 300)
        (_tree if rng.random() < 0.68 else _house)(draw, rng, rng.uniform(0, side), 2 * y, size)
    return picture


def _boat(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    hull = [
        (x - size * 0.6, y - size * 0.2),
        (x + size * 0.6, y - size * 0.2),
        (x + size * 0.4, y),
        (x - size * 0.4, y),
    ]
    draw.polygon(hull, ink(color(rng)))
    draw.polygon([(x, y - size * 0.25), (x, y - size * 1.2), (x + size * 0.5, y - size * 0.3)], (247, 242, 230))


def _tree(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    green = np.array([rng.uniform(0.1, 0.35), rng.uniform(0.35, 0.62), rng.uniform(0.1, 0.3)], np.float32)
    if rng.random() < 0.25:
        green = np.array([rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.55), 0.12], np.float32)
    draw.rectangle((x - size * 0.05, y - size * 0.4, x + size * 0.05, y), (82, 51, 31))
    if rng.random() < 0.5:
        for layer in range(3):
            low, half = y - size * (0.25 + 0.27 * layer), size * (0.32 - 0.08 * layer)
            draw.polygon([(x - half, low), (x + half, low), (x, low - size * 0.42)], ink(green * (0.8 + 0.15 * layer)))
        return
    for _ in range(9):
        angle, far, radius = rng.uniform(0, 6.28), rng.uniform(0, 0.22) * size, size * rng.uniform(0.1, 0.2)
        cx, cy = x + far * np.cos(angle), y - size * 0.62 + far * np.sin(angle)
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), ink(green * rng.uniform(0.7, 1.3)))


def _house(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    wall, roof = color(rng, (0.05, 0.5), (0.6, 1)), color(rng, (0.4, 0.9), (0.3, 0.8))
    wide, high = size * rng.uniform(0.7, 1.1), size * rng.uniform(0.5, 0.8)
    draw.rectangle((x - wide / 2, y - high, x + wide / 2, y), ink(wall))
    draw.rectangle((x + wide * 0.2, y - high, x + wide / 2, y), ink(wall * 0.78))
    top = y - high - size * 0.42
    draw.polygon(
        [(x - wide * 0.58, y - high), (x + wide * 0.58, y - high), (x + wide * 0.1, top), (x - wide * 0.1, top)],
        ink(roof),
    )
    pane = (242, 217, 115) if rng.random() < 0.4 else (89, 115, 153)
    for left in (-0.3, 0.05):
        draw.rectangle((x + wide * left, y - high * 0.75, x + wide * (left + 0.16), y - high * 0.45), pane)
    draw.rectangle((x - wide * 0.09, y - high * 0.38, x + wide * 0.08, y), ink(roof * 0.6))


def city(rng: np.random.Generator) -> Array:
    picture, side, base = as_picture(sky(rng)), 2 * SIDE, color(rng, (0.05, 0.4), (0.3, 0.8))
    draw = ImageDraw.Draw(picture)
    for layer in range(int(rng.integers(1, 4))):
        x, scale = -20, 2 * (1 + layer * 0.6)
        while x < side:
            wide, high = int(rng.uniform(18, 52) * scale), int(rng.uniform(0.2, 0.62) * side * (1 - 0.15 * layer))
            wall = base * np.float32(rng.uniform(0.6, 1.2) * (1 - 0.2 * layer)) + rng.normal(0, 0.05, 3).astype(
                np.float32
            )
            wall = wall if rng.random() < 0.7 else color(rng, (0.1, 0.6), (0.3, 0.9))
            draw.rectangle((x, side - high, x + wide, side), ink(wall))
            draw.rectangle((x + int(wide * 0.72), side - high, x + wide, side), ink(wall * 0.75))
            pane = (255, 230, 128) if rng.random() < 0.5 else ink(wall * 0.5)
            step, lit = int(rng.integers(16, 34)), rng.random() < 0.5
            for top in range(side - high + 12, side - 10, step):
                for left in range(x + 10, x + wide - step // 2 - 4, step):
                    if not lit or rng.random() < 0.6:
                        draw.rectangle((left, top, left + step // 2, top + step // 2), pane)
            x += wide + int(rng.uniform(0, 30))
    if rng.random() < 0.5:
        draw.rectangle((0, side - int(rng.uniform(30, 100)), side, side), ink(color(rng, (0, 0.2), (0.2, 0.5))))
    return as_array(picture)


def still(rng: np.random.Generator) -> Array:
    edge = int(rng.uniform(0.45, 0.7) * SIDE)
    at = color(rng, (0.05, 0.6), (0.25, 0.95)) * (0.75 + 0.4 * noise(rng, int(rng.choice([30, 80])))[..., None])
    table = color(rng, (0.05, 0.6), (0.25, 0.95)) * (0.75 + 0.4 * noise(rng, 20)[..., None])
    at[edge:] = table[edge:]
    at = np.clip(at, 0, 1).astype(np.float32)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for y in sorted(rng.uniform(edge + 12, SIDE * 0.92, int(rng.integers(1, 6)))):
        x, size, tint = rng.uniform(0.1, 0.9) * SIDE, rng.uniform(20, 72), color(rng, (0.4, 1), (0.5, 1))
        shadow = np.exp(-(((columns - x - size * 0.5) / (size * 1.2)) ** 2 + ((rows - y) / (size * 0.3)) ** 2) * 1.5)
        at = at * (1 - 0.55 * shadow[..., None]).astype(np.float32)
        if rng.random() < 0.6:
            at = sphere(at, x, y - size * 0.85, size * rng.uniform(0.8, 1.2), size * rng.uniform(0.8, 1.1), tint)
            continue
        at = sphere(at, x, y - size, size * 0.75, size, tint)
        at = as_array(_flowers(as_picture(at), rng, 2 * x, 2 * y, 2 * size, tint))
    return at


def _flowers(
    picture: Image.Image, rng: np.random.Generator, x: float, y: float, size: float, tint: Array
) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - size * 0.25, y - size * 2.4, x + size * 0.25, y - size * 1.7), ink(tint * 0.7))
    for _ in range(5):
        fx, fy, radius = x + rng.normal() * size * 0.6, y - size * 2.9 + rng.normal() * size * 0.3, size * 0.3
        draw.line((x, y - size * 2, fx, fy), (51, 115, 38), 4)
        draw.ellipse((fx - radius, fy - radius, fx + radius, fy + radius), ink(color(rng, (0.5, 1), (0.7, 1))))
    return picture


def abstract(rng: np.random.Generator) -> Array:
    at = (
        sky(rng) if rng.random() < 0.3 else mixed(color(rng), color(rng), noise(rng, int(rng.choice([30, 60, 120])), 5))
    )
    if rng.random() < 0.4:
        at = mixed(at, color(rng), np.clip((noise(rng, 60, 5) - 0.5) * rng.uniform(3, 20), 0, 1).astype(np.float32))
    picture = as_picture(at)
    draw, side = ImageDraw.Draw(picture), 2 * SIDE
    for _ in range(int(rng.integers(0, 16))):
        tint, kind, size = ink(color(rng, (0, 1), (0.05, 1))), int(rng.integers(4)), rng.uniform(16, 180)
        x, y = rng.uniform(0, side, 2)
        if kind == 0:
            width = 0 if rng.random() < 0.7 else int(rng.integers(4, 20))
            draw.ellipse((x - size, y - size, x + size, y + size), None if width else tint, tint, width or 1)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 6.28, int(rng.integers(3, 7))))
            draw.polygon([(x + size * np.cos(angle), y + size * np.sin(angle)) for angle in angles], tint)
        elif kind == 2:
            draw.line((x, y, *rng.uniform(0, side, 2)), tint, int(rng.integers(2, 24)))
        else:
            flat = size * rng.uniform(0.3, 1)
            draw.ellipse((x - size, y - flat, x + size, y + flat), tint)
    return as_array(picture)


def portrait(rng: np.random.Generator) -> Array:
    at = blurred((abstract if rng.random() < 0.4 else landscape)(rng), rng.uniform(1, 7))
    x, y, size = SIDE * rng.uniform(0.35, 0.65), SIDE * rng.uniform(0.38, 0.5), rng.uniform(42, 84)
    skin = np.array(SKIN[rng.integers(4)], np.float32) * np.float32(rng.uniform(0.9, 1.05))
    hair = np.array(HAIR[rng.integers(4)], np.float32)
    at = sphere(at, x, y + size * 2.6, size * 1.9, size * 1.5, color(rng, (0.2, 0.9), (0.2, 0.9)))
    at = sphere(at, x, y - size * 0.15, size * 1.08, size * rng.uniform(1.2, 1.5), hair)
    if rng.random() < 0.4:
        at = sphere(at, x, y + size * 0.5, size * 1.15, size * 1.4, hair)
    at = sphere(at, x, y + size * 0.9, size * 0.4, size * 0.7, skin * 0.85)
    at = sphere(at, x, y + size * 0.1, size * 0.86, size * 1.12, np.clip(skin, 0, 1))
    return as_array(_face(as_picture(at), 2 * x, 2 * y, 2 * size, skin, hair))


def _face(picture: Image.Image, x: float, y: float, size: float, skin: Array, hair: Array) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        eye = x + side * size * 0.34
        draw.ellipse((eye - size * 0.17, y - size * 0.1, eye + size * 0.17, y + size * 0.1), (242, 242, 242))
        draw.ellipse((eye - size * 0.09, y - size * 0.09, eye + size * 0.09, y + size * 0.09), (38, 31, 26))
        brow = (eye - size * 0.2, y - size * 0.3, eye + size * 0.2, y - size * 0.14)
        draw.arc(brow, 190, 350, ink(hair * 0.8), max(2, int(size * 0.05)))
    mouth = (x - size * 0.3, y + size * 0.34, x + size * 0.3, y + size * 0.66)
    draw.arc(mouth, 15, 165, (166, 56, 56), max(3, int(size * 0.08)))
    draw.line((x, y + size * 0.05, x - size * 0.08, y + size * 0.28), ink(skin * 0.65), 4)
    return picture


SCENES: Final = {landscape: 0.4, city: 0.15, still: 0.18, abstract: 0.12, portrait: 0.15}
