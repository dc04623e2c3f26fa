"""Requests played through an engine under a policy's rule: in virtual time by a cost model, or for real."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.bench.policies import Gate, Rule
from sfumato.bench.traffic import Request
from sfumato.core.params import ModelRules, ParamsRequest
from sfumato.engine.backends import Backend
from sfumato.engine.batcher import Batcher
from sfumato.engine.engine import Engine, Failed, Finished

__all__ = ["Cost", "in_real_time", "in_virtual_time"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model call of n rows takes: fixed_s + n * row_s, in seconds."""

    fixed_s: float
    row_s: float

    def of(self, rows: int) -> float:
        return self.fixed_s + self.row_s * rows


def in_virtual_time(requests: Sequence[Request], rule: Rule, rows: int, cost: Cost) -> list[float]:
    """When each request was answered, in seconds from the beginning; the engine's own batcher chooses every call."""
    gate, batcher, now = Gate(requests, rule), Batcher(rows), 0.0
    left: dict[str, int] = {}
    while gate.missing:
        for index in gate.enter(now):
            left[str(index)] = requests[index].evaluations
            batcher.add(str(index), requests[index].shape, 1)
        call = batcher.next()
        if call is None:
            now = max(now, gate.next_s)
            continue
        # The batcher's choice depends on who is in alone, so it stays until one ends or joins: go there at once.
        call_s = cost.of(len(call.keys))
        until_joined = (gate.next_joiner_s - now) / call_s
        steps = min(left[key] for key in call.keys)
        if until_joined < steps:
            steps = max(1, math.ceil(until_joined))
        now += steps * call_s
        for key in call.keys:
            left[key] -= steps
            if not left[key]:
                del left[key]
                batcher.remove(key)
                gate.leave(int(key), now)
    return gate.ended


def in_real_time(
    requests: Sequence[Request], rule: Rule, rows: int, backend: Backend, rules: ModelRules
) -> list[float]:
    """When each request was answered, in seconds from the beginning, on this machine with this model.

    Raises:
        Exception: what a job failed with; a benchmark has no use for failures.
    """
    gate, engine = Gate(requests, rule), Engine(backend, rows)
    noise = np.random.default_rng(1)
    pictures = {shape: noise.integers(0, 256, (shape.height, shape.width, 3), np.uint8) for shape in rules.shapes}
    pause, begin = threading.Event(), time.perf_counter()
    while gate.missing:
        for index in gate.enter(time.perf_counter() - begin):
            request = requests[index]
            asked = ParamsRequest(prompt="mosaic", strength=request.strength, num_inference_steps=request.steps)
            engine.add(str(index), rules.resolve(asked, request.shape, seed=index), pictures[request.shape])
        if engine.idle:
            pause.wait(max(0.0, gate.next_s - (time.perf_counter() - begin)))
            continue
        for event in engine.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                gate.leave(int(event.key), time.perf_counter() - begin)
    return gate.ended
