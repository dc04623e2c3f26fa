"""What the exported model can do, on pictures that it never saw, run by the service's own engine.

Every style and mood is asked for at the default strength; the gate's classifier says what it takes the results for, and
two correlations how much of the picture is left. Only what passes is told to users.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from sfumato.core.params import ModelRules, ParamsRequest, Shape
from sfumato.engine import backends
from sfumato.engine.engine import Engine, Failed, Finished
from training import checkpoint
from training.card import PHRASES, write_card
from training.filters import blur, gradient, grey
from training.gate import load_gate, style_scores
from training.held import ROWS, held_out
from training.moodgate import mood_scores
from training.plan import SIZE, Plan
from training.render import render
from training.sheet import sheet
from training.words import MOODS, STYLES

__all__ = ["Restyler", "judge", "judged"]

RIGHT: Final = 0.75  # of the held-out pictures must be taken for what was asked
KEPT: Final = 0.6  # correlation of the layout with the style's own rendering
SHEETS: Final = (0.35, 0.5, 0.65)
CALLS: Final = 6
LINES: Final = ("photo", "watercolor", "oil", "pencil", "ink", "stained", "comic", "pointillism")

Picture = npt.NDArray[np.uint8]


class Restyler:
    """A model folder in the service's engine."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self.rules = ModelRules.model_validate(json.loads((folder / "sfumato.json").read_text())["rules"])
        self._backend = backends.load("onnx", folder, self.rules, backends.Options(threads=threads))

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str], strength: float | None = None
    ) -> list[Picture]:
        """Each picture as its prompt says; with a `strength`, by CALLS calls of the UNet."""
        engine, found = Engine(self._backend, 4), {}
        steps = None if strength is None else -int(-CALLS // strength)
        for number, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            asked = ParamsRequest(prompt=prompt, strength=strength, num_inference_steps=steps)
            params = self.rules.resolve(asked, Shape(picture.shape[1], picture.shape[0]), seed=100 + number)
            engine.add(str(number), params, picture)
        while not engine.idle:
            for event in engine.step():
                if isinstance(event, Failed):
                    raise RuntimeError(f"{prompts[int(event.key)]}: {event}")
                if isinstance(event, Finished):
                    found[int(event.key)] = event.pixels
        return [found[number] for number in range(len(pictures))]

    def autoencoder(self, held: Sequence[tuple[Picture, str]]) -> dict[str, Any]:
        """Peak signal-to-noise ratio in dB of pictures and of their renderings that go into latents and back."""
        plain = _tensor([picture for picture, _ in held])
        found = {}
        for style in LINES:
            drawn = (render(plain, style, "none") * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
            latents = self._backend.encode_images(drawn, [self._backend.arrays.generator(1)] * len(drawn))
            error = ((self._backend.decode(latents).clip(0, 1) - drawn / 255) ** 2).mean((1, 2, 3))
            found[style] = round(float((-10 * np.log10(error)).mean()), 1)
        return found


def judge(plan: Plan) -> None:
    """Makes judged.json and sheets in the run's folder, and the card and the metadata of restyle/."""
    folder = plan.folder / "restyle"
    if not (plan.folder / "judged.json").exists():
        checkpoint.write_json(plan.folder / "judged.json", judged(plan, folder))
    if not (plan.folder / "autoencoder.json").exists():
        checkpoint.write_json(plan.folder / "autoencoder.json", Restyler(folder).autoencoder(_held(plan)))
    results = checkpoint.read_json(plan.folder / "judged.json")
    passed = [name for name, result in results.items() if result["passed"]]
    write_card(plan, folder, results, passed)
    every, restyle = held_out(plan.folder / "pictures"), Restyler(folder)
    rows = [every[row] for row in (ROWS[:2] if plan.small else ROWS) if row < len(every)]
    names = list(PHRASES)[1 : 3 if plan.small else len(PHRASES)]
    for strength in SHEETS[:1] if plan.small else SHEETS:
        columns = [
            restyle([picture for picture, _ in rows], [PHRASES[name].format(noun) for _, noun in rows], strength)
            for name in names
        ]
        made = sheet([picture for picture, _ in rows], names, columns, f"strength {strength}")
        made.save(plan.folder / f"sheet-{strength}.jpg", quality=88)


def judged(plan: Plan, folder: Path) -> dict[str, Any]:
    """For each style and mood: how often it is recognised, what else it is taken for, and how much content is left."""
    gates, restyle, held = load_gate(plan.folder), Restyler(folder), _held(plan)
    results = {}
    asked = list(PHRASES.items())[: 2 if plan.small else None]
    for name, phrase in track(asked, "judging"):
        made = restyle([picture for picture, _ in held], [phrase.format(noun) for _, noun in held])
        results[name] = _result(name, gates, [picture for picture, _ in held], made)
    return results


def _held(plan: Plan) -> list[tuple[Picture, str]]:
    return held_out(plan.folder / "pictures")[: 2 if plan.small else None]


def _result(name: str, gates: tuple[Any, Any], plain: Sequence[Picture], made: Sequence[Picture]) -> dict[str, Any]:
    names = STYLES if name in STYLES else MOODS
    before, after = _tensor(plain), _tensor(made)
    wanted = render(before, name, "none") if name in STYLES else render(before, "photo", name)
    with torch.no_grad():
        scores = style_scores(gates[0], after) if name in STYLES else mood_scores(gates[1], after)
    taken = [names[number] for number in scores.argmax(1).tolist()]
    right = taken.count(name) / len(taken)
    layout = _likeness(_layout(after), _layout(wanted))
    return {
        "right": round(right, 3),
        "layout": round(layout, 3),
        "edges": round(_likeness(_edges(after), _edges(before)), 3),
        "pictures": len(taken),
        "taken_for": {other: taken.count(other) for other in sorted(set(taken) - {name})},
        "passed": right >= RIGHT and layout >= KEPT,
    }


def _tensor(pictures: Sequence[Picture]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def _layout(x: torch.Tensor) -> torch.Tensor:
    """Where it is light and where dark, 32 by 32."""
    return torch.nn.functional.avg_pool2d(grey(x), SIZE // 32)


def _edges(x: torch.Tensor) -> torch.Tensor:
    """How steep the picture is, 64 by 64."""
    right, down = gradient(blur(grey(x), 2.0))
    return torch.nn.functional.avg_pool2d(torch.hypot(right, down), SIZE // 64)


def _likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean correlation of picture with picture."""
    one, other = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (one, other))
    return float(((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-6)).mean())
