"""What the tests share: makers of plain values, and waiting with a deadline."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from sfumato.core.job import InputPicture, Job, Priority, uuid7
from sfumato.core.params import Params, Sampler

__all__ = ["NOW", "counted", "eventually", "job_id", "make_job", "make_params", "passable_folder", "poll"]

NOW = 1_700_000_000.0
"""A fixed moment for tests whose code takes `now`."""


def job_id(number: int) -> str:
    """A readable id, the same for the same number."""
    return uuid7(NOW, number.to_bytes(10, "big"))


def make_params(**changes: Any) -> Params:
    plain: dict[str, Any] = {
        "prompt": "as a mosaic",
        "strength": 0.5,
        "num_inference_steps": 8,
        "guidance_scale": 1.0,
        "seed": 7,
        "sampler": Sampler.DPMPP_2M,
        "width": 64,
        "height": 64,
    }
    return Params(**(plain | changes))


def make_job(number: int = 1, **changes: Any) -> Job:
    """A job that is alike for the same number; `changes` go on top."""
    identity = changes.pop("id", job_id(number))
    plain: dict[str, Any] = {
        "id": identity,
        "owner": "local",
        "model": "restyle",
        "priority": Priority.NORMAL,
        "cost": 64 * 64 * 4,
        "created_at": NOW + number,
        "expires_at": NOW + number + 86_400,
        "params": make_params(),
        "input": InputPicture(
            key=f"inputs/{identity}/{'0' * 64}", media_type="image/png", width=64, height=64, size_bytes=100
        ),
    }
    return Job(**(plain | changes))


def counted(name: str, **labels: str) -> float:
    """What this process counted so far."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def eventually(condition: Callable[[], Awaitable[Any]], within_s: float = 10.0, every_s: float = 0.01) -> Any:
    """The first truthy value of `condition`; AssertionError when there is none within the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{condition} stayed {value!r} for {within_s} s"
        await asyncio.sleep(every_s)


def poll(condition: Callable[[], Any], within_s: float = 10.0, every_s: float = 0.02) -> Any:
    """`eventually` for plain functions; without a loop, since a browser's driver has one in this thread."""
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} stayed {value!r} for {within_s} s"
        pause.wait(every_s)
    return value


@contextmanager
def passable_folder() -> Iterator[Path]:
    """A folder for servers, removed at the end."""
    # Root's servers run as another user, who must pass through the folders above theirs. Each start of a pytest shuts
    # the one above all tmp_paths again, also under the servers of another pytest that runs at the same time.
    with tempfile.TemporaryDirectory(prefix="sfumato-test-") as folder:
        yield Path(folder)
