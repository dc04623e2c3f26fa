"""Models of real architectures with random weights: they cost what the real ones cost, and their pictures are noise.

Widths, depths and schedules are those that the config.json files of the named models have, as published. Tokenizers
have single letters for words; a prompt is padded to the encoder's window, so an encoding costs the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import diffusers
import torch
import transformers
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from sfumato.bench.baselines.pipeline import silence
from sfumato.engine.backends import BackendUnusable

__all__ = ["ARCHITECTURES", "build"]

CLIP_WORDS: Final = 49_408
T5_WORDS: Final = 32_128
SEED: Final = 20
DIFFUSION: Final = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""How all but the flow models were trained; schedulers take what they know of it."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`summary` says what is built; `on_cuda` is the dtype that its family uses there."""

    summary: str
    on_cuda: torch.dtype
    pipeline: Callable[[], Any]


def build(name: str, folder: Path, device: str) -> str:
    """Write the diffusers folder of this architecture, made on `device` (auto, cpu or cuda); what was built.

    Weights are safetensors, float32 on the CPU, else in the family's dtype. The same each time on one device.

    Raises:
        BackendUnusable: CUDA was asked for and torch sees none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise BackendUnusable("--device is cuda, but torch finds no CUDA device; check the driver and torch's build.")
    on_cuda = has_cuda and device != "cpu"
    architecture = ARCHITECTURES[name]
    silence()
    torch.manual_seed(SEED)
    with torch.device("cuda" if on_cuda else "cpu"):
        pipeline = architecture.pipeline()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(architecture.on_cuda if on_cuda else torch.float32)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return architecture.summary


def _sd15() -> Any:
    tokenizer = _clip_tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(sample_size=512, scaling_factor=0.18215),
        text_encoder=transformers.CLIPTextModel(_clip_l()),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            attention_head_dim=8,  # its name there; it is the number of heads
            cross_attention_dim=768,
        ),
        scheduler=_scheduler(diffusers.PNDMScheduler, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    bigger = transformers.CLIPTextConfig(
        vocab_size=CLIP_WORDS,
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1280,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        **_marks(_clip_tokenizer("!")),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
        text_encoder=transformers.CLIPTextModel(_clip_l()),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=transformers.CLIPTextModelWithProjection(bigger),
        tokenizer_2=_clip_tokenizer("!"),
        unet=diffusers.UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        scheduler=_scheduler(diffusers.EulerDiscreteScheduler, timestep_spacing="leading"),
        add_watermarker=False,
    )


def _flux_small() -> Any:
    """Flux at its own width; T5 XXL, which makes 9 GB and runs once a prompt, has one of its 24 layers."""
    long = _t5_tokenizer()
    t5 = transformers.T5Config(
        vocab_size=T5_WORDS,
        d_model=4096,
        d_kv=64,
        d_ff=10_240,
        num_layers=1,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        use_cache=False,
    )
    return diffusers.FluxPipeline(
        vae=_vae(sample_size=1024, **_flux_latents()),
        text_encoder=transformers.CLIPTextModel(_clip_l()),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(t5),
        tokenizer_2=long,
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=4096,
            pooled_projection_dim=768,
            axes_dims_rope=(16, 56, 56),
            guidance_embeds=True,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def _tiny() -> Any:
    tokenizer = _clip_tokenizer(window=16)
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        **_marks(tokenizer),
    )
    return diffusers.StableDiffusionPipeline(
        vae=_vae(sample_size=64, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=8,
            cross_attention_dim=32,
        ),
        scheduler=_scheduler(diffusers.PNDMScheduler, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        "sd15": Architecture("Stable Diffusion 1.5, whole", torch.float16, _sd15),
        "sdxl": Architecture("Stable Diffusion XL base 1.0, whole", torch.float16, _sdxl),
        "flux-small": Architecture(
            "Flux.1 dev at its own width, with 2 of 19 double and 4 of 38 single blocks, and 1 of T5's 24 layers",
            torch.bfloat16,
            _flux_small,
        ),
        "tiny": Architecture("Stable Diffusion 1.5's kind of network at a toy's size", torch.float16, _tiny),
    }
)


def _scheduler(kind: Any, **more: Any) -> Any:
    # Schedulers reckon with numpy, so theirs must be on the CPU wherever the networks are made.
    with torch.device("cpu"):
        return kind.from_config(DIFFUSION, **more)


def _vae(**more: Any) -> Any:
    plain = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    return diffusers.AutoencoderKL(**plain | more)


def _flux_latents() -> dict[str, Any]:
    return {
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def _clip_l() -> Any:
    """CLIP ViT-L/14's text half, in all three of them."""
    return transformers.CLIPTextConfig(
        vocab_size=CLIP_WORDS,
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
        **_marks(_clip_tokenizer()),
    )


def _marks(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _clip_tokenizer(padding: str = "<|endoftext|>", window: int = 77) -> Any:
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=padding, model_max_length=window)


def _t5_tokenizer() -> Any:
    letters = [(chr(code), -2.0) for code in range(33, 127) if chr(code) not in "<>"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)
