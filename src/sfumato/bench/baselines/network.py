"""The network alone, measured: the pipeline's U-Net or transformer with one call's inputs, again and again."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sfumato.bench.baselines.pipeline import Pipeline
from sfumato.bench.ceiling import Ceiling, Loop
from sfumato.bench.play import Job

__all__ = ["measure", "name_of", "seconds_a_call"]

Call = Callable[[], object]

AT_LEAST_S: Final = 1.0
MOST_CALLS: Final = 2_000
WARM_UPS: Final = {"cuda": 4, "cpu": 0}
"""A compiled network is compiled, recorded and replayed in its first calls; on the CPU, counting was one."""
SQUARE: Final = {"cuda": 8192, "cpu": 2048}
"""Side of the matrices whose product is the measure: large enough that the device is kept busy."""


def measure(pipeline: Pipeline, jobs: Sequence[Job], device: str, tell: Callable[[str], object]) -> Iterator[Ceiling]:
    """The network as the pipeline calls it for these jobs, in every way that the device has; `tell` is told which.

    After each way the ceiling as far as it is known: eager first, within seconds; what is compiled last, in minutes.
    """
    kind = torch.device(device).type
    settle = torch.cuda.synchronize if kind == "cuda" else _nothing
    tell("network alone: counting")
    call, rows = _call_of(pipeline, jobs)
    with torch.no_grad():
        flops = _flops(call)
        tell("network alone: matrix peak")
        peak = _matrix_flops_per_s(device, next(pipeline.network.parameters()).dtype, settle)
    shape = jobs[0].params.shape
    loops: list[Loop] = []
    failed: dict[str, str] = {}
    for way, make in WAYS[kind].items():
        tell(f"network alone: {way}")
        try:
            with torch.no_grad():
                call_s = seconds_a_call(make(pipeline.network, call), settle, WARM_UPS[kind])
        except Exception as error:  # compilers fail in ways of their own, and the other figures stand without this
            if not loops:
                raise
            failed[way] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        else:
            loops.append(Loop(way, round(rows / call_s, 2), round(flops / call_s / peak, 4)))
        size = (shape.width, shape.height)
        yield Ceiling(rows, size, flops / rows, SQUARE[kind], round(peak), tuple(loops), dict(failed))


def seconds_a_call(call: Call, settle: Call, warm_ups: int, at_least_s: float = AT_LEAST_S) -> float:
    """Mean over as many calls as take about `at_least_s`; `settle` returns once the device has done all it was given.

    The first `warm_ups` calls, and one that says how many there should be, are not counted.
    """
    for _ in range(warm_ups):
        call()
    once_s = _timed(call, settle, 1)
    count = max(1, min(MOST_CALLS, round(at_least_s / once_s)))
    return _timed(call, settle, count) / count if count > 1 else once_s


def name_of(device: str) -> str:
    """The device in words."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _timed(call: Call, settle: Call, count: int) -> float:
    settle()
    begin = time.perf_counter()
    for _ in range(count):
        call()
    settle()
    return time.perf_counter() - begin


def _nothing() -> None:
    """The CPU has done what it was given when a call returns."""


def _call_of(pipeline: Pipeline, jobs: Sequence[Job]) -> tuple[Callable[..., object], int]:
    """The network's first call in the making of these pictures, to be repeated, and its rows.

    The call takes another network in place of the pipeline's, for example a compiled one.
    """
    seen: list[tuple[Any, Any]] = []

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        if not seen:
            seen.append((args, kwargs))

    hook = pipeline.network.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        pipeline.make(jobs)
    finally:
        hook.remove()
    args, kwargs = seen[0]
    latents = args[0] if args else kwargs["hidden_states"]

    def again(network: Any = pipeline.network) -> object:
        return network(*args, **kwargs)

    return again, len(latents)


def _flops(call: Call) -> float:
    """Operations of one call, two for a multiplication and its addition."""
    # The fused attention of the CPU is not among what is counted; as matrix products it is, on every device alike.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        call()
    return float(counted.get_total_flops())


def _matrix_flops_per_s(device: str, dtype: torch.dtype, settle: Call) -> float:
    side = SQUARE[torch.device(device).type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_a_call(partial(torch.matmul, left, right), settle, warm_ups=2)


def _eager(network: Any, call: Callable[..., object]) -> Call:
    return call


def _compiled(network: Any, call: Callable[..., object]) -> Call:
    """By Inductor, replayed as CUDA graphs."""
    return partial(call, torch.compile(network, mode="reduce-overhead"))


def _graphed(network: Any, call: Callable[..., object]) -> Call:
    """The eager call's kernels, captured once: the host has nothing left to do. As torch's notes on graphs have it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            call()
    finally:
        torch.cuda.set_stream(before)  # a capture that failed leaves its own stream as the current one
    replay: Call = graph.replay
    return replay


WAYS: Final[Mapping[str, Mapping[str, Callable[[Any, Callable[..., object]], Call]]]] = {
    "cpu": {"eager": _eager},
    "cuda": {"eager": _eager, "CUDA graph": _graphed, "torch.compile": _compiled},
}
