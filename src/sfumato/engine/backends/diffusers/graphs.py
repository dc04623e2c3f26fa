"""A network's calls recorded once and replayed: a step then costs the host one launch instead of thousands.

A CUDA graph is a recording of kernels over fixed memory (Gray 2019, "Getting started with CUDA graphs"), so there is
one for each kind of input and number of rows. Rows are padded to the next of BUCKETS, for a handful of recordings to
serve every batch; the rows that pad are computed and thrown away.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

import torch

from sfumato.engine.backends.diffusers.trouble import is_of_the_device

__all__ = ["BUCKETS", "Record", "Replayed", "record_on_cuda"]

log = logging.getLogger(__name__)

BUCKETS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
WARM_UPS: Final = 3
"""Calls before the recording, in which libraries choose their kernels and allocate their workspaces."""

Call = Callable[[], torch.Tensor]
Record = Callable[[Call], tuple[Callable[[], object], torch.Tensor]]
"""Gives what computes the call anew over its present inputs, and the tensor in which its result then is."""


@dataclass(frozen=True, slots=True)
class _Recording:
    inputs: tuple[torch.Tensor, ...]
    replay: Callable[[], object]
    output: torch.Tensor


class Replayed:
    """In place of a diffusers network: called as it is, with return_dict=False, and answering as it does.

    Every tensor given has the rows of the batch as its first axis, except those named in `shared`. The answer is good
    until the next call.

    A network that can't be recorded (it asks for a number in the middle) is called as it is from then on.
    """

    def __init__(self, network: Callable[..., Any], record: Record, shared: frozenset[str] = frozenset()) -> None:
        self._network, self._record, self._shared = network, record, shared
        self._recordings: dict[Hashable, _Recording] = {}
        self._given_up = False

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        rows = args[0].shape[0] if args else kwargs["hidden_states"].shape[0]
        bucket = next((size for size in BUCKETS if size >= rows), None)
        if self._given_up or bucket is None:
            return self._as_it_is(args, kwargs)
        given: list[torch.Tensor] = []

        def kind(tensor: torch.Tensor, name: str) -> Hashable:
            given.append(tensor)
            return _kind(tensor, name in self._shared)

        key = (bucket, _frozen(_mapped((args, kwargs), kind)))
        recording = self._recordings.get(key)
        if recording is None:
            try:
                recording = self._recordings[key] = self._recorded(args, kwargs, bucket)
            except RuntimeError as error:
                if is_of_the_device(error):
                    raise
                log.warning("this network can't be recorded as CUDA graphs and runs without: %s", error)
                self._given_up = True
                return self._as_it_is(args, kwargs)
        for static, tensor in zip(recording.inputs, given, strict=True):
            static[: tensor.shape[0]].copy_(tensor)
        recording.replay()
        return (recording.output[:rows],)

    def _as_it_is(self, args: Any, kwargs: Any) -> tuple[torch.Tensor]:
        (found,) = self._network(*args, **kwargs)
        return (found,)

    def _recorded(self, args: Any, kwargs: Any, bucket: int) -> _Recording:
        statics: list[torch.Tensor] = []

        def static(tensor: torch.Tensor, name: str) -> torch.Tensor:
            size = tensor.shape[0] if name in self._shared else bucket
            # Like the first row, so that what pads is as good a number as any, and in the same memory format.
            padded = tensor[:1].expand(size, *tensor.shape[1:]).clone(memory_format=_format(tensor))
            padded[: tensor.shape[0]].copy_(tensor)
            statics.append(padded)
            return padded

        fixed_args, fixed_kwargs = _mapped((args, kwargs), static)
        replay, output = self._record(lambda: self._as_it_is(fixed_args, fixed_kwargs)[0])
        return _Recording(tuple(statics), replay, output)


def record_on_cuda() -> Record:
    """Recordings that share one pool of memory, for they never run side by side."""
    pool = torch.cuda.graph_pool_handle()

    def record(call: Call) -> tuple[Callable[[], object], torch.Tensor]:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            output = call()
        return graph.replay, output

    return record


def _mapped(value: Any, change: Callable[[torch.Tensor, str], Any], name: str = "") -> Any:
    """The same nesting with every tensor changed; `name` is the keyword it stands under."""
    if isinstance(value, torch.Tensor):
        return change(value, name)
    if isinstance(value, dict):
        return {key: _mapped(each, change, key) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_mapped(each, change, name) for each in value)
    return value


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple((key, _frozen(each)) for key, each in sorted(value.items()))
    if isinstance(value, tuple):
        return tuple(_frozen(each) for each in value)
    hashable: Hashable = value
    return hashable


def _kind(tensor: torch.Tensor, shared: bool) -> Hashable:
    """What a recording depends on, beside the number of rows."""
    return (*tensor.shape[0 if shared else 1 :], tensor.dtype, _format(tensor))


def _format(tensor: torch.Tensor) -> torch.memory_format:
    plain = tensor.is_contiguous() or tensor.dim() != 4
    return torch.contiguous_format if plain else torch.channels_last
