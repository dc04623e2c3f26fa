"""The autoencoder (diffusers' AutoencoderKL): 8 × 8 pixels to a latent cell and back, trained to be sharp on lines.

Its latents are brought to mean 0 and the same spread in every channel, by its own last and first convolution; its
`scaling_factor` is 1. The spread is LATENT_STD, not 1: the noise of a strength is weaker beside the picture then,
which keeps the content at strengths over 0.5 (the same as a shifted noise schedule, without a schedule of its own).
"""

import math
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL

from training import checkpoint
from training.data import Contents, Pairs, as_bytes
from training.filters import Tensor
from training.learner import Course, Learner, learn
from training.plan import SIZE, Plan
from training.stage import Budget

__all__ = ["LATENT_STD", "decoded", "encoded", "load_vae", "new_vae", "train_vae"]

LATENT_STD: Final = 1.7
RATE: Final = 2e-3
NOISE: Final = 0.04  # of the latents' spread: small errors of the UNet must not show
COURSE: Final = Course(hold=0.4, floor=0.015, refresh_every=40)


def train_vae(plan: Plan, contents: Contents) -> None:
    """Makes vae/ in the run's folder; its quality on contents that it never saw is in vae.json."""
    if (plan.folder / "vae.json").exists():
        return
    torch.manual_seed(plan.seed + 1)
    torch.backends.cudnn.benchmark = True
    learner = Learner(new_vae(plan).to(plan.device), plan.dtype, RATE, (0.9, 0.98), 1e-4)
    file = plan.folder / "state" / "vae.pt"
    budget = Budget("autoencoder", plan.seconds_of("vae"), learner.restore(file))
    pairs = Pairs(plan, contents, plan.pool, as_bytes, (3, SIZE, SIZE), torch.uint8)
    pairs.fill()

    def loss() -> torch.Tensor:
        return _loss(learner.net, _crops(plan, pairs).to(plan.dtype))

    learn(learner, COURSE, loss, pairs, contents, plan, budget, file)
    pairs.refresh()
    _fold(learner.mean, pairs.styled[: plan.chunk], plan)
    learner.mean.save_pretrained(plan.folder / "vae")
    checkpoint.write_json(plan.folder / "vae.json", {"steps": learner.step} | _quality(learner.mean, plan, contents))


def load_vae(plan: Plan) -> Any:
    vae = AutoencoderKL.from_pretrained(plan.folder / "vae").eval().requires_grad_(False)
    return vae.to(device=plan.device, dtype=plan.dtype, memory_format=torch.channels_last)


def encoded(vae: Any, x: Tensor) -> Tensor:
    """Latents' means [n, c, h / 8, w / 8] of pictures 0 to 1."""
    taken = (x * 2 - 1).to(vae.dtype).contiguous(memory_format=torch.channels_last)
    means: Tensor = vae.quant_conv(vae.encoder(taken)).chunk(2, 1)[0]
    return means


def decoded(vae: Any, z: Tensor) -> Tensor:
    """Pictures 0 to 1 of latents."""
    made: Tensor = vae.decoder(vae.post_quant_conv(z.to(vae.dtype)))
    return (made.float() / 2 + 0.5).clamp(0, 1)


def new_vae(plan: Plan) -> Any:
    net = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=plan.vae_channels,
        layers_per_block=1,
        latent_channels=plan.latent_channels,
        norm_num_groups=2,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    )
    # Residual branches that start near zero learn several times as fast here as with the library's own start.
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=(module.in_channels * math.prod(module.kernel_size)) ** -0.5)
            torch.nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                module.weight.data *= 0.1
    return net


def _crops(plan: Plan, pairs: Pairs) -> Tensor:
    """A batch [n, 3, crop, crop], -1 to 1: two renderings for every plain picture, cut at latent cells' edges."""
    which, side = pairs.any(plan.vae_batch), plan.vae_crop
    plain = torch.rand(plan.vae_batch, device=plan.device) < 0.33
    whole = torch.where(plain[:, None, None, None], pairs.plain[which], pairs.styled[which])
    top, left = (torch.randint((SIZE - side) // 8 + 1, (plan.vae_batch, 1), device=plan.device) * 8 for _ in range(2))
    span = torch.arange(side, device=plan.device)
    number = torch.arange(plan.vae_batch, device=plan.device)[:, None, None]
    cut = whole[number, :, (top + span)[:, :, None], (left + span)[:, None, :]].permute(0, 3, 1, 2)
    return (cut.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _loss(net: Any, x: Tensor) -> Tensor:
    means = net.quant_conv(net.encoder(x)).chunk(2, 1)[0]
    made = net.decoder(net.post_quant_conv(means + torch.randn_like(means) * NOISE))
    off = made.float() - x.float()
    edges = (off[..., 1:] - off[..., :-1]).abs().mean() + (off[..., 1:, :] - off[..., :-1, :]).abs().mean()
    latents = means.float()
    spread = (latents.square().mean() - 1).abs() + (latents.abs() - 3).clamp(min=0).square().mean()
    coarse = F.avg_pool2d(off, 4).abs().mean()
    return 0.5 * off.abs().mean() + 0.12 * edges + 0.5 * coarse + 4 * off.square().mean() + 0.01 * spread


def _fold(vae: Any, pictures: Tensor, plan: Plan) -> None:
    """Move the latents' mean and spread into the two 1 × 1 convolutions; the variance becomes nothing."""
    with torch.no_grad():
        parts = [encoded(vae, part.float() / 255) for part in pictures.split(16)]
        z = torch.cat(parts)
        mean, spread = z.mean((0, 2, 3)), z.std((0, 2, 3)) / LATENT_STD
        count, before, after = plan.latent_channels, vae.quant_conv, vae.post_quant_conv
        before.weight[:count] /= spread.view(-1, 1, 1, 1)
        before.bias[:count] = (before.bias[:count] - mean) / spread
        before.weight[count:] = 0
        before.bias[count:] = -20.0
        after.bias += torch.einsum("ocij,c->o", after.weight, mean)
        after.weight *= spread.view(1, -1, 1, 1)


def _quality(vae: Any, plan: Plan, contents: Contents) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB, mean over pictures that it was not trained on."""
    pairs = Pairs(plan, contents, plan.chunk, as_bytes, (3, SIZE, SIZE), torch.uint8, unseen=True)
    pairs.fill()
    found = {}
    for name, pictures in (("plain", pairs.plain), ("styled", pairs.styled)):
        with torch.no_grad():
            errors = [
                (decoded(vae, encoded(vae, part.float() / 255)) - part.float() / 255).square().mean((1, 2, 3))
                for part in pictures.split(16)
            ]
        found[f"psnr_{name}_db"] = round(float((-10 * torch.log10(torch.cat(errors))).mean()), 2)
    return found
