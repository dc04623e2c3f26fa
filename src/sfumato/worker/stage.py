"""What a worker does for a job, stage by stage: each is timed once, for metrics, trace and outcome alike."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sfumato.observability import observe, span

__all__ = ["stage"]


@contextmanager
def stage(model: str, name: str, seconds: dict[str, float] | None = None) -> Iterator[None]:
    """Around the code of a stage, for a job of this model (its slug); what it took is put into `seconds` too.

    One that fails is measured as well, but is no part of `seconds`.
    """
    begin = time.perf_counter()
    try:
        with span(name):
            yield
        if seconds is not None:
            seconds[name] = round(time.perf_counter() - begin, 6)
    finally:
        observe("sfumato_stage_seconds", time.perf_counter() - begin, model=model, stage=name)
