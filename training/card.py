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

CARD: Final = """# restyle: the bundled model

A tiny Img2Img diffusion model ({megabytes:.0f} MB, ONNX, half-precision weights computed in single precision) that restyles a
picture on a CPU within a second. It is here so that Sfumato works out of the box and its tests run on a real model. It
does not draw what a prompt names: "a dog" over a cat gives a cat, in whatever style the prompt asks for.

## Use

- Any aspect ratio; it runs at about 256 × 256 pixels (sides are multiples of 32, up to 512 × 512), and the result has
  that size.
- Best at strength 0.3 to 0.65; the default is {strength}, of {steps} steps, which are {calls} calls of its UNet. Guidance is 1. Sampler DPM++ 2M. At
  most 32 tokens of a prompt are read.
- A prompt without a word that it knows leaves the picture nearly as it is.

## What it can and can't

Every style and mood was asked for on {pictures} pictures that nothing was trained on, at the default strength. A classifier that
learnt from renderings alone (right on {gate_style:.1%} of the styles and {gate_mood:.1%} of the moods of renderings it never saw) says how often
the result is taken for what was asked. Layout: correlation of light and dark, 32 × 32, with the picture rendered in that
style by a program. Edges: correlation with the edges of the picture that went in; styles with a pattern of their own
have low ones. A style passes with {right:.0%} recognised and a layout of {kept}.

| asked for | recognised | layout | edges | taken for | passes |
|---|---|---|---|---|---|
{rows}

The autoencoder alone reaches {plain} dB on pictures and {styled} dB on renderings that it was not trained on.

## Made from

| part | what |
|---|---|
| architecture | diffusers' AutoencoderKL ({channels} latent channels of spread {spread}), a CLIP text encoder (2 layers, 2,560 tokens), a UNet of {millions:.1f} M parameters, v-prediction |
| training | from nothing, by [training/](../../../../../training/README.md): {vae_steps:,} steps of the autoencoder, {samples:,} samples for the UNet |

Training data: procedurally drawn scenes and all restylings, made for this model, and these pictures.

| pictures | package | by | licence | |
|---|---|---|---|---|
{sources}

## Files

optimum's folder layout: `text_encoder`, `tokenizer`, `unet`, `vae_encoder`, `vae_decoder`, `scheduler`. `sfumato.json` has
the model's constants and, under `rules`, what jobs may ask of it (see the project's docs/models.md).
"""


def write_card(plan: Plan, folder: Path, results: dict[str, Any], passed: list[str]) -> None:
    """README.md and sfumato.json of the model's folder."""
    from training.judge import CALLS, KEPT, RIGHT
    from training.vae import LATENT_STD

    file = folder / "sfumato.json"
    constants = checkpoint.read_json(file)
    known = {name: list((STYLE_WORDS | MOOD_WORDS)[name]) for name in passed}
    styles = [name for name in STYLES if name in passed]
    constants |= {
        "styles": styles,
        "moods": [name for name in MOODS if name in passed or name == "none"],
        "words": known,
    }
    constants["summary"] = f"Restyles photos: {', '.join(NAMES.get(name, name) for name in passed if name != 'photo')}."
    checkpoint.write_json(file, constants)
    reports = {name: checkpoint.read_json(plan.folder / f"{name}.json") for name in ("vae", "unet", "gate")}
    unet = checkpoint.read_json(folder / "unet" / "config.json")
    text = CARD.format(
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
