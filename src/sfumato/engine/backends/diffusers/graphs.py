"""A network's calls recorded once and replayed: a step then costs the host one launch instead of thousands.

A CUDA graph is a recording of kernels over fixed memory (Gray 2019, "Getting started with CUDA graphs"), so there is
one for each kind of input and number of rows. Rows are padded to the next of BUCKETS, for a handful of recordings to
serve every batch; the rows that pad are computed and thrown away. Recordings hold memory that nothing else can use, so
only so many are kept, those last used; and a kind of call is recorded when it comes again, not when it comes.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

import torch

from sfumato.engine.backends.diffusers.trouble import device_is_full, device_is_gone

__all__ = ["BUCKETS", "Record", "Replayed", "record_on_cuda"]

log = logging.getLogger(__name__)

BUCKETS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
KEEP: Final = 48
"""Five shapes have so many kinds of call of up to sixteen rows, and a few more."""

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

    def __init__(
        self,
        network: Callable[..., Any],
        record: Record,
        shared: frozenset[str] = frozenset(),
        keep: int = KEEP,
    ) -> None:
        self._network, self._record, self._shared, self._keep = network, record, shared, keep
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._met: OrderedDict[Hashable, None] = OrderedDict()
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
        recording = self._known(key) or (self._try(key, args, kwargs, bucket) if self._comes_again(key) else None)
        if recording is None:
            return self._as_it_is(args, kwargs)
        for static, tensor in zip(recording.inputs, given, strict=True):
            static[: tensor.shape[0]].copy_(tensor)
        recording.replay()
        return (recording.output[:rows],)

    def _known(self, key: Hashable) -> _Recording | None:
        if (recording := self._recordings.get(key)) is not None:
            self._recordings.move_to_end(key)
        return recording

    def _comes_again(self, key: Hashable) -> bool:
        if key in self._met:
            return True
        self._met[key] = None
        while len(self._met) > 4 * self._keep:
            self._met.popitem(last=False)
        return False

    def _try(self, key: Hashable, args: Any, kwargs: Any, bucket: int) -> _Recording | None:
        """Record this call; None when it can't be, and it is to be made as it is."""
        while len(self._recordings) >= self._keep:
            self._recordings.popitem(last=False)
        try:
            self._recordings[key] = self._recorded(args, kwargs, bucket)
        except RuntimeError as error:
            if device_is_gone(error):
                raise
            if device_is_full(error):
                # The recordings themselves may be what fills it; made as it is, the call needs less.
                self._recordings.clear()
                self._met.clear()
                torch.cuda.empty_cache()
                return None
            log.warning("this network can't be recorded as CUDA graphs and runs without: %s", error)
            self._given_up = True
            return None
        return self._recordings[key]

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
    """Recordings that share one pool of memory, for they never run side by side, and one stream to be made on."""
    pool, beside = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def record(call: Call) -> tuple[Callable[[], object], torch.Tensor]:
        before = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            beside.wait_stream(before)
            # Once, for the libraries to make their workspaces for this stream; kernels were chosen in earlier calls.
            with torch.cuda.stream(beside):
                call()
            before.wait_stream(beside)
            # Other threads (an output filter) may use the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
                output = call()
        finally:
            # A capture that failed leaves its own stream as the current one.
            torch.cuda.set_stream(before)
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
