"""What a run is to do: where, for how long, how big. Every size that a stage needs stands here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # The processes that draw need no torch, and it takes seconds to import.
    import torch

__all__ = ["SIZE", "Plan"]

SIZE: Final = 256  # pixels a side of what the model is trained on
# Shares of the whole time; the gate's evaluation, the export and the sheets come on top and take some minutes.
SHARES: Final = {"contents": 0.06, "text": 0.1, "vae": 0.34, "unet": 0.42, "gate": 0.08}


@dataclass(frozen=True)
class Plan:
    """`hours` is for all stages that learn; `small` makes every size tiny, for a test of the whole way."""

    folder: Path
    device: str = "cpu"
    hours: float = 6.0
    seed: int = 0
    small: bool = False
    processes: int = 2
    seconds: tuple[tuple[str, float], ...] = ()

    def seconds_of(self, stage: str) -> float:
        return dict(self.seconds).get(stage, SHARES[stage] * self.hours * 3600)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def save_every_s(self) -> float:
        return 1.0 if self.small else 30.0

    @property
    def pool(self) -> int:
        """Rendered pictures that are kept at once."""
        return 16 if self.small else 6144 if self.cuda else 1536

    @property
    def latents(self) -> int:
        """Pairs of latents that are kept at once."""
        return 16 if self.small else 24576 if self.cuda else 4096

    @property
    def chunk(self) -> int:
        """Pictures rendered and encoded at a time: every style equally often."""
        return 16 if self.small else 512 if self.cuda else 48

    @property
    def vae_batch(self) -> int:
        return 2 if self.small else 96 if self.cuda else 8

    @property
    def vae_crop(self) -> int:
        """Pixels a side of what the autoencoder is trained on."""
        return 128 if self.cuda else 64

    @property
    def unet_batch(self) -> int:
        return 4 if self.small else 256 if self.cuda else 16

    @property
    def shards(self) -> int:
        """Of how many shards of contents there may be at most, and how many the stages after wait for."""
        return 2 if self.small else 160 if self.cuda else 60

    @property
    def first_shards(self) -> int:
        return 1 if self.small else 40 if self.cuda else 8

    @property
    def vae_channels(self) -> tuple[int, ...]:
        return (4, 8, 8, 16) if self.small else (24, 48, 96, 128)

    @property
    def latent_channels(self) -> int:
        return 4 if self.small else 12

    @property
    def unet_channels(self) -> tuple[int, ...]:
        return (16, 32, 32) if self.small else (96, 112, 128)

    @property
    def text_width(self) -> int:
        return 32 if self.small else 160

    @property
    def dtype(self) -> "torch.dtype":
        """What networks compute in while they learn; on most CPUs bfloat16 is many times slower than float32."""
        import torch

        return torch.bfloat16 if self.cuda else torch.float32
