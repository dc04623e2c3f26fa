"""Files that are whole or not there: a run that is killed at any moment goes on from the last ones."""

import json
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["load", "read_json", "save", "write_json"]


def save(file: Path, state: object) -> None:
    """Write with torch.save beside `file`, then rename onto it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    torch.save(state, beside)
    os.replace(beside, file)


def load(file: Path, device: str = "cpu") -> Any:
    """What `save` wrote, or None where nothing was written yet."""
    return torch.load(file, map_location=device, weights_only=False) if file.exists() else None


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(beside, file)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None
