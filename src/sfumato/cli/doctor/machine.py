"""The machine itself: Python's packages, and the GPU with what speaks to it.

torch is asked in a process of its own, and only where there is something to ask it about: importing it takes seconds.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Final

from sfumato.cli.doctor.finding import Finding, State

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["gpus", "packages"]

ASK: Final = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
ASK_WITHIN_S: Final = 20.0
TORCH_WITHIN_S: Final = 120.0
ASK_TORCH: Final = "import torch; print(torch.version.cuda or '', torch.cuda.is_available())"
REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*>=\s*(?P<least>[0-9.]+)(?P<when>\s*;.*)?")


def packages() -> Iterator[Finding]:
    """Python and the packages that this version asks for; those of extras only where they are installed."""
    wrong: list[Finding] = []
    for asked in metadata.requires("sfumato") or []:
        found = REQUIREMENT.match(asked)
        if found is None or "platform" in (found["when"] or ""):
            continue
        extra = "extra ==" in (found["when"] or "")
        advice = f"pip install --upgrade '{found['name']}>={found['least']}'"
        try:
            version = metadata.version(found["name"])
        except metadata.PackageNotFoundError:
            if not extra:
                wrong.append(Finding("bad", f"package {found['name']} is not installed", advice))
            continue
        if _numbers(version) < _numbers(found["least"]):
            what = f"package {found['name']} is {version}, older than {found['least']}"
            wrong.append(Finding("warning" if extra else "bad", what, advice))
    python = ".".join(map(str, sys.version_info[:3]))
    yield from dict.fromkeys(wrong) or [Finding("good", f"Python {python} with the packages that are needed")]


def gpus(settings: "Settings") -> Iterator[Finding]:
    """The GPUs that there are, and whether torch can use them."""
    from sfumato.cli.doctor.models import listed
    from sfumato.supervisor.pool import room_for, takes_gpu

    if settings.gpus is not None and not room_for(settings).gpus:
        said = settings.gpus.strip() or "empty"
        yield Finding("good", f"no GPU is to be used (SFUMATO_GPUS or CUDA_VISIBLE_DEVICES is {said})")
        return
    found, trouble = _asked()
    if trouble:
        yield Finding("warning", "an NVIDIA device that does not answer", trouble)
    elif not found:
        yield Finding("good", "no GPU found: models run on the CPU")
    for each in found:
        yield Finding("good", f"GPU {each}")
    if (found or trouble) and importlib.util.find_spec("torch") is not None:
        yield _torch(wanted=any(takes_gpu(model) for model in listed(settings)))


def _asked() -> tuple[list[str], str]:
    """One line for each GPU; and why there is none although there is a device."""
    from sfumato.supervisor.pool import gpus_of_driver

    there = bool(gpus_of_driver())
    command = shutil.which("nvidia-smi")
    if command is None:
        return (
            [],
            "nvidia-smi is not found; install the driver's tools, or give them to this container" if there else "",
        )
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [command, *ASK], capture_output=True, text=True, timeout=ASK_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {error}"
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        return [], f"nvidia-smi: {said[0] if said else f'status {done.returncode}'}; mend the driver" if there else ""
    lines = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    return [f"{name}, {memory}, driver {driver}" for name, memory, driver in lines], ""


def _torch(*, wanted: bool) -> Finding:
    fault: State = "bad" if wanted else "warning"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("warning", "torch", f"importing it took more than {TORCH_WITHIN_S:.0f} s")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Finding(fault, "torch can't be imported", said[-1] if said else "")
    cuda, _, usable = done.stdout.strip().rpartition(" ")
    if not cuda:
        advice = "it would leave the GPU idle: pip install --force-reinstall torch, in its build for CUDA"
        return Finding(fault, "torch is built without CUDA", advice)
    if usable != "True":
        advice = "the driver may be older than it needs; update the driver, or install a torch for an older CUDA"
        return Finding(fault, f"torch for CUDA {cuda} can't use the GPU", advice)
    return Finding("good", f"torch uses it, with CUDA {cuda}")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, as far as it has them: 2.6.0+cpu is 2, 6, 0."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
