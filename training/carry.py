"""What a run has learnt, in a few small files and back: for a machine that is lent for minutes and gives little back.

`python -m training.carry pack RUN FILES` writes vae.pt, unet.pt (half precision), the gates and run.json into FILES,
from finished stages or else from their last checkpoints. `python -m training.carry unpack FILES RUN` makes a run's
folder of them, that the stages export and judge go on from.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from training import checkpoint

__all__ = ["pack", "unpack"]

NETWORKS = {"vae": AutoencoderKL, "unet": UNet2DConditionModel}
GATES = ("gate.pt", "moods.pt")
REPORTS = ("text.json", "vae.json", "unet.json", "gate.json")


def pack(run: Path, files: Path) -> None:
    for name, network in NETWORKS.items():
        if (run / f"{name}.json").exists():
            checkpoint.save(files / f"{name}.pt", _halved(network.from_pretrained(run / name).state_dict()))
        elif (kept := checkpoint.load(run / "state" / f"{name}.pt")) is not None:
            checkpoint.save(files / f"{name}.pt", _halved(kept["mean"]))
    for gate in GATES:
        if (run / gate).exists():
            shutil.copyfile(run / gate, files / gate)
    checkpoint.write_json(files / "run.json", {name: checkpoint.read_json(run / name) for name in REPORTS})


def unpack(files: Path, run: Path) -> None:
    """`run` has the tokenizer and the text encoder already; the networks are of the full size."""
    from training.plan import Plan
    from training.unet import new_unet
    from training.vae import new_vae

    plan = Plan(run)
    for name, net in (("vae", new_vae(plan)), ("unet", new_unet(plan))):
        if (files / f"{name}.pt").exists():
            net.load_state_dict({key: value.float() for key, value in checkpoint.load(files / f"{name}.pt").items()})
            net.save_pretrained(run / name)
    for gate in GATES:
        if (files / gate).exists():
            shutil.copyfile(files / gate, run / gate)
    for name, report in checkpoint.read_json(files / "run.json").items():
        if report is not None:
            checkpoint.write_json(run / name, report)


def _halved(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.detach().to("cpu", torch.float16) for key, value in state.items()}


if __name__ == "__main__":
    verb, first, second = sys.argv[1:]
    {"pack": pack, "unpack": unpack}[verb](Path(first), Path(second))
