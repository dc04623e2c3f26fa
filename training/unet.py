"""The UNet (diffusers' UNet2DConditionModel), trained on the bridge from a picture's latent to its rendering's.

Img2Img mixes the picture's own latent d with noise at the time t1 that the strength says. A model that only knows noisy
renderings z has never seen that, so most samples here lie on the path that the sampler itself takes from there:

    x_t = a z + s e + s (a1 / s1) (d - z),  t <= t1,    target v = (a x_t - z) / s

with a² = alphas_cumprod at t, s² = 1 - a², and a1, s1 at t1. At t1 that is d, noised; at 0 it is z.
"""

from typing import Any, Final

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from training import checkpoint
from training.data import Contents, Pairs
from training.filters import Tensor
from training.learner import Course, Learner, learn
from training.plan import SIZE, Plan
from training.stage import Budget
from training.text import Prompts, load_text
from training.vae import encoded, load_vae

__all__ = ["new_unet", "train_unet"]

RATE: Final = 1e-3
BRIDGED: Final = 0.88  # the rest are noisy renderings, for whoever asks for strength 1
# Where most jobs start: strengths of 0.28 to 0.7, of a thousand steps.
USUAL: Final = (270, 700)
COURSE: Final = Course(hold=0.45, floor=0.01, refresh_every=30)


def train_unet(plan: Plan, contents: Contents) -> None:
    """Makes unet/ in the run's folder."""
    if (plan.folder / "unet.json").exists():
        return
    torch.manual_seed(plan.seed + 2)
    torch.backends.cudnn.benchmark = True
    vae = load_vae(plan)
    text, _ = load_text(plan.folder, plan.device)
    prompts = Prompts(plan, 12 if plan.small else 600, seed=3)
    learner = Learner(new_unet(plan).to(plan.device), plan.dtype, RATE, (0.9, 0.99), 0.01)
    file = plan.folder / "state" / "unet.pt"
    budget = Budget("unet", plan.seconds_of("unet"), learner.restore(file))
    side = SIZE // 8
    kept = torch.float16 if plan.cuda else torch.float32
    pairs = Pairs(plan, contents, plan.latents, lambda x: _latents(vae, x), (plan.latent_channels, side, side), kept)
    pairs.fill(lambda done: budget.tell() if done % 8192 == 0 else None)
    noises = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.to(plan.device)

    def loss() -> torch.Tensor:
        return _loss(plan, learner.net, pairs, prompts, text, noises)

    learn(learner, COURSE, loss, pairs, contents, plan, budget, file)
    learner.mean.save_pretrained(plan.folder / "unet")
    samples = learner.step * plan.unet_batch
    checkpoint.write_json(plan.folder / "unet.json", {"steps": learner.step, "samples": samples})


def new_unet(plan: Plan) -> Any:
    net = UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=plan.latent_channels,
        out_channels=plan.latent_channels,
        block_out_channels=plan.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=plan.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )
    torch.nn.init.constant_(net.add_embedding.norm2.weight, 1.0)
    return net


def _latents(vae: Any, pictures: Tensor) -> Tensor:
    return torch.cat([encoded(vae, part) for part in pictures.split(64)])


def _loss(plan: Plan, net: Any, pairs: Pairs, prompts: Prompts, text: Any, noises: Tensor) -> Tensor:
    n, device = plan.unet_batch, plan.device
    which = pairs.any(n)
    plain, styled, style, mood = (
        pairs.plain[which].float(),
        pairs.styled[which].float(),
        pairs.style[which],
        pairs.mood[which],
    )
    ids = prompts.of(style, mood)
    # Without a word the picture stays as it is; guidance then leads away from that.
    silent = torch.rand(n, device=device) < 0.08
    ids = torch.where(silent[:, None], prompts.nothing, ids)
    styled = torch.where(_wide(silent), plain, styled)
    with torch.no_grad():
        embedding = text(ids)[0].to(plan.dtype)
    start, at, bridged = _times(n, device)
    a, s = _wide(noises[at].sqrt()), _wide((1 - noises[at]).sqrt())
    ratio = _wide((noises[start] / (1 - noises[start])).sqrt() * bridged)
    x = a * styled + s * torch.randn_like(styled) + s * ratio * (plain - styled)
    target = (a * x - styled) / s
    found = net(x.to(plan.dtype).contiguous(memory_format=torch.channels_last), at, embedding, return_dict=False)[0]
    # In units of the clean picture an error of v counts s times: late steps have large targets and small effects.
    return ((0.25 + s) * (found.float() - target).square()).mean()


def _times(n: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Where each sample starts, where it is now, and whether it is on the bridge; numbers of a thousand steps."""
    usual = torch.rand(n, device=device) < 0.8
    start = torch.where(usual, torch.randint(*USUAL, (n,), device=device), torch.randint(200, 985, (n,), device=device))
    begun = torch.rand(n, device=device) < 0.5
    later = (start * (0.04 + 0.96 * torch.rand(n, device=device))).long()
    bridged = torch.rand(n, device=device) < BRIDGED
    free = (torch.rand(n, device=device) ** 0.8 * 994).long().clamp(5, 994)
    return start, torch.where(bridged, torch.where(begun, later, start), free), bridged


def _wide(x: Tensor) -> Tensor:
    return x.view(-1, 1, 1, 1)
