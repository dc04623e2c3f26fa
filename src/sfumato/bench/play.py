"""Requests played through an engine under a policy's rule: in virtual time by a cost model, or for real."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sfumato.bench.policies import Gate, InGroups, Rule
from sfumato.bench.traffic import Request
from sfumato.core.params import ModelRules, Params, ParamsRequest
from sfumato.engine.backends import Backend
from sfumato.engine.batcher import Batcher
from sfumato.engine.engine import Engine, Failed, Finished, Pixels

__all__ = ["Cost", "Job", "in_groups", "in_real_time", "in_virtual_time", "jobs_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model call of n rows takes: fixed_s + n * row_s, in seconds."""

    fixed_s: float
    row_s: float

    def of(self, rows: int) -> float:
        return self.fixed_s + self.row_s * rows


class Job(NamedTuple):
    """What a request becomes for the model: resolved parameters and a picture, [height, width, 3]."""

    params: Params
    pixels: Pixels


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
    requests: Sequence[Request], rule: Rule, rows: int, backend: Backend, rules: ModelRules, prompt: str = "mosaic"
) -> list[float]:
    """When each request was answered, in seconds from the beginning, on this machine with this model.

    Raises:
        Exception: what a job failed with; a benchmark has no use for failures.
    """
    gate, engine, jobs = Gate(requests, rule), Engine(backend, rows), jobs_of(requests, rules, prompt)
    pause, begin = threading.Event(), time.perf_counter()
    while gate.missing:
        for index in gate.enter(time.perf_counter() - begin):
            engine.add(str(index), *jobs[index])
        if engine.idle:
            pause.wait(max(0.0, gate.next_s - (time.perf_counter() - begin)))
            continue
        for event in engine.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                gate.leave(int(event.key), time.perf_counter() - begin)
    return gate.ended


def in_groups(requests: Sequence[Request], rule: InGroups, answer: Callable[[Sequence[int]], object]) -> list[float]:
    """When each request was answered, in seconds from the beginning, by a server that works at one group at a time.

    `answer` makes the pictures of a group, requests being named by their index, and gives them back together.
    """
    gate, pause, begin = Gate(requests, rule), threading.Event(), time.perf_counter()
    while gate.missing:
        group = gate.enter(time.perf_counter() - begin)
        if not group:
            pause.wait(max(0.0, gate.next_s - (time.perf_counter() - begin)))
            continue
        answer(group)
        now = time.perf_counter() - begin
        for index in group:
            gate.leave(index, now)
    return gate.ended


def jobs_of(requests: Sequence[Request], rules: ModelRules, prompt: str) -> list[Job]:
    """What is asked of the model: noise as pictures, a seed for each, and by the rules whatever a request leaves open.

    "{}" in the prompt becomes the request's number, so that no text was encoded before.
    """
    noise = np.random.default_rng(1)
    pictures = {shape: noise.integers(0, 256, (shape.height, shape.width, 3), np.uint8) for shape in rules.shapes}
    return [
        Job(rules.resolve(_asked(request, prompt.format(index)), request.shape, seed=index), pictures[request.shape])
        for index, request in enumerate(requests)
    ]


def _asked(request: Request, prompt: str) -> ParamsRequest:
    return ParamsRequest(prompt=prompt, strength=request.strength, num_inference_steps=request.steps)
