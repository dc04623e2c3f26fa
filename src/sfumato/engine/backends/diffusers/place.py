"""Where a model's numbers live: device and dtype."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sfumato.engine.backends import BackendUnusable, Options
from sfumato.engine.backends.diffusers.graphs import Replayed, record_on_cuda

__all__ = ["Pace", "Place", "memory_in_use"]


@dataclass(frozen=True, slots=True)
class Place:
    """`dtype` is the network's; latents are float32 everywhere, so that steps do not round."""

    device: torch.device
    dtype: torch.dtype
    graphs: bool = True

    @classmethod
    def choose(cls, options: Options, on_cuda: torch.dtype) -> "Place":
        """`auto` is CUDA where there is one, else the CPU; and float32 on the CPU, `on_cuda` elsewhere.

        Raises:
            BackendUnusable: CUDA was asked for and torch sees none.
        """
        has_cuda = torch.cuda.is_available()
        if options.device == "cuda" and not has_cuda:
            raise BackendUnusable(
                "device is 'cuda', but torch finds no CUDA device; check the driver and that torch was installed "
                "with CUDA, or write device = 'cpu'."
            )
        place = torch.device("cuda" if has_cuda and options.device != "cpu" else "cpu")
        usual = on_cuda if place.type == "cuda" else torch.float32
        dtype = usual if options.dtype == "auto" else getattr(torch, options.dtype)
        return cls(place, dtype, options.cuda_graphs)

    @property
    def on_cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    @property
    def described(self) -> str:
        """The device as people know it."""
        if not self.on_cuda:
            return str(self.device)
        known = torch.cuda.get_device_properties(self.device)
        return f"cuda ({known.name}, {known.total_memory / 2**30:.0f} GiB)"

    @property
    def memory_format(self) -> torch.memory_format:
        """Convolutions in half precision are fastest on CUDA with channels last."""
        return torch.channels_last if self.on_cuda else torch.preserve_format

    def send(self, numbers: np.typing.ArrayLike) -> torch.Tensor:
        """As float32 on the device; the host does not wait for the copy."""
        host = torch.from_numpy(np.array(numbers, np.float32))
        return self.receive(host.pin_memory() if self.on_cuda else host)

    def receive(self, host: torch.Tensor) -> torch.Tensor:
        """On the device; from pinned memory the host does not wait for the copy."""
        return host.to(self.device, non_blocking=True)

    def fast(self, network: Any, shared: Sequence[str] = ()) -> Callable[..., tuple[torch.Tensor]]:
        """The network as the device runs it fastest; `shared` are its inputs without an axis of rows."""
        return Replayed(network, record_on_cuda(), frozenset(shared)) if self.on_cuda and self.graphs else network

    def settle(self, module: Any) -> Any:
        """The module here, for inference."""
        return module.to(self.device).to(memory_format=self.memory_format).eval().requires_grad_(False)


def memory_in_use() -> tuple[str, int, int] | None:
    """Id, used and all bytes of the CUDA device in use; None when none is. Asking begins no use of one."""
    if not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}", total - free, total


class Pace:
    """Keeps the host at most AHEAD calls before a device that works by itself.

    One call queued behind the running one hides the host's work. More would only make who joins, leaves or asks for
    progress wait for all that is queued.
    """

    AHEAD: Final = 2

    def __init__(self, place: Place) -> None:
        self._queued: deque[torch.cuda.Event] | None = deque() if place.on_cuda else None

    def wait(self) -> None:
        """Before a call: wait until one less than AHEAD are under way."""
        while self._queued and len(self._queued) >= self.AHEAD:
            self._queued.popleft().synchronize()

    def called(self) -> None:
        """A call was queued."""
        if self._queued is not None:
            done = torch.cuda.Event(blocking=True)
            done.record()
            self._queued.append(done)
