"""The model's card and the words about it, made of what was measured; nothing that did not pass is praised."""

from pathlib import Path
from typing import Any, Final

from training import checkpoint
from training.pictures import sources
from training.plan import Plan
from training.words import MOOD_WORDS, MOODS, STYLE_WORDS, STYLES

__all__ = ["PHRASES", "write_card"]

# A plain way to ask for each, {} is what the picture shows.
PHRASES: Final = {
    "photo": "a photo of {}",
    "watercolor": "a watercolor painting of {}",
    "oil": "{}, oil painting",
    "pencil": "pencil drawing of {}",
    "ink": "{}, line art, ink",
    "pixel": "{} in pixel art style",
    "mosaic": "mosaic of {}",
    "stained": "{} as stained glass",
    "comic": "comic book, {}",
    "lowpoly": "low poly {}",
    "neon": "neon {}",
    "crossstitch": "{}, cross stitch",
    "pointillism": "{}, pointillism",
    "blueprint": "blueprint of {}",
    "sepia": "sepia photo of {}",
    "bw": "{}, black and white photo",
    "sunset": "{} at sunset",
    "night": "{} at night",
    "autumn": "{} in autumn",
    "winter": "{} in winter",
    "pastel": "{}, pastel colors",
    "vivid": "{}, vivid colors",
    "golden": "{}, golden",
    "blue": "{} in blue tones",
    "green": "{} in green tones",
}
NAMES: Final = {
    "oil": "oil painting",
    "pencil": "pencil drawing",
    "ink": "line art",
    "pixel": "pixel art",
    "stained": "stained glass",
    "lowpoly": "low poly",
    "crossstitch": "cross stitch",
    "bw": "black and white",
    "sunset": "at sunset",
    "night": "at night",
}

TEMPLATE: Final = Path(__file__).parent / "card.md"


def write_card(plan: Plan, folder: Path, results: dict[str, Any], passed: list[str]) -> None:
    """README.md and sfumato.json of the model's folder."""
    from training.judge import CALLS, KEPT, RIGHT
    from training.vae import LATENT_STD

    file = folder / "sfumato.json"
    constants = checkpoint.read_json(file)
    styles = [name for name in STYLES if name in passed]
    constants |= {
        "styles": styles,
        "moods": [name for name in MOODS if name in passed or name == "none"],
        "words": {name: list(words) for name, words in (STYLE_WORDS | MOOD_WORDS).items()},
    }
    constants["summary"] = f"Restyles photos: {', '.join(NAMES.get(name, name) for name in passed if name != 'photo')}."
    checkpoint.write_json(file, constants)
    reports = {name: checkpoint.read_json(plan.folder / f"{name}.json") for name in ("vae", "unet", "gate")}
    lines = checkpoint.read_json(plan.folder / "autoencoder.json")
    unet = checkpoint.read_json(folder / "unet" / "config.json")
    text = TEMPLATE.read_text().format(
        megabytes=sum(path.stat().st_size for path in folder.rglob("*.onnx")) / 1e6,
        strength=constants["strength"],
        steps=constants["rules"]["num_inference_steps"],
        calls=CALLS,
        pictures=next(iter(results.values()))["pictures"],
        gate_style=reports["gate"]["style"],
        gate_mood=reports["gate"]["mood"],
        right=RIGHT,
        kept=KEPT,
        rows="\n".join(_row(name, result) for name, result in results.items()),
        autoencoder=", ".join(f"{NAMES.get(name, name)} {value}" for name, value in lines.items()),
        plain=reports["vae"]["psnr_plain_db"],
        styled=reports["vae"]["psnr_styled_db"],
        channels=unet["in_channels"],
        spread=LATENT_STD,
        millions=(folder / "unet" / "model.onnx").stat().st_size / 2e6,
        vae_steps=reports["vae"]["steps"],
        samples=reports["unet"]["samples"],
        sources="\n".join(
            f"| {source.name} | {_package(source.package, source.version)} | {source.by} | {source.licence} | "
            f"{'judged with only' if source.held_out == source.files else ''} |"
            for source in sources()
        ),
    )
    (folder / "README.md").write_text(text)


def _row(name: str, result: dict[str, Any]) -> str:
    others = ", ".join(f"{NAMES.get(other, other)} {count}" for other, count in result["taken_for"].items())
    verdict = "yes" if result["passed"] else "no"
    asked = NAMES.get(name, name)
    return (
        f"| {asked} | {result['right']:.0%} | {result['layout']:.2f} | {result['edges']:.2f} | {others} | {verdict} |"
    )


def _package(package: str, version: str) -> str:
    return f"{package.split(':')[1]} {version}".strip()
