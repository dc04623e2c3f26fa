"""`python -m training`: every stage that is not done yet, in order."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from training.plan import Plan

__all__ = ["main"]

STAGES: Final = ("pictures", "contents", "text", "vae", "unet", "gate", "export", "judge")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _asked(arguments)
    plan = Plan(
        folder=asked.out,
        device=asked.device,
        hours=asked.hours,
        seed=asked.seed,
        small=asked.small,
        processes=asked.processes,
        seconds=tuple((name, float(value)) for name, value in (pair.split("=") for pair in asked.seconds)),
    )
    plan.folder.mkdir(parents=True, exist_ok=True)
    run(plan, asked.stages)
    return 0


def run(plan: Plan, stages: Sequence[str]) -> None:
    """Stages that find their result in the run's folder do nothing; one that was cut off goes on."""
    from training.contents import Makers
    from training.pictures import fetch_pictures
    from training.text import train_text

    if "pictures" in stages and not plan.small:
        fetch_pictures(plan.folder / "pictures")
    makers = None
    if "contents" in stages:
        makers = Makers(plan, plan.shards)
    try:
        if "text" in stages:
            train_text(plan)
        if makers:
            makers.wait_for(plan.first_shards, within_s=3600)
        _learn(plan, stages)
    finally:
        if makers:
            makers.stop()
    if "export" in stages:
        from training.export import export

        export(plan)
    if "judge" in stages:
        from training.judge import judge

        judge(plan)


def _learn(plan: Plan, stages: Sequence[str]) -> None:
    """The stages that need contents."""
    if not {"vae", "unet", "gate"} & set(stages):
        return
    from training.data import Contents
    from training.gate import train_gate
    from training.unet import train_unet
    from training.vae import train_vae

    contents = Contents(plan)
    trainers: dict[str, Callable[[Plan, Contents], None]] = {"vae": train_vae, "unet": train_unet, "gate": train_gate}
    for name, train in trainers.items():
        if name in stages:
            train(plan, contents)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the bundled model.")
    parser.add_argument(
        "--out", type=Path, default=Path("out/training"), help="the run's folder; it goes on from there"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--hours", type=float, default=6.0, help="for all stages that learn together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that make contents")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--seconds", nargs="*", default=[], metavar="STAGE=S", help="a stage's own time instead")
    parser.add_argument("--small", action="store_true", help="tiny networks, no packages: a test of the way, no model")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
