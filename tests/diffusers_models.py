"""Tiny models of the real architectures with random weights, written as the folders that diffusers writes."""

from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from transformers.models.clip.tokenization_clip import CLIPTokenizer

__all__ = ["KINDS", "make_model"]

STABLE_DIFFUSION: Final = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""What every scheduler_config.json of these families has, also for schedulers that do not look at it."""
WINDOW: Final = 16
WIDTH: Final = 32


def make_model(kind: str, folder: Path) -> Path:
    """Write the model of this kind into `folder` and give it; the same weights each time."""
    torch.manual_seed(20)
    (KINDS | ODD)[kind]().save_pretrained(folder, safe_serialization=True)
    return folder


def _sd(prediction_type: str = "epsilon", text_width: int = WIDTH, **unet: Any) -> Any:
    tokenizer = _tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer, text_width)),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=text_width, **unet),
        scheduler=diffusers.PNDMScheduler.from_config(
            STABLE_DIFFUSION, prediction_type=prediction_type, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    tokenizer, second = _tokenizer(), _tokenizer("!")
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(latents_mean=[0.5, -0.5, 0.2, 0.1], latents_std=[2.0, 0.5, 1.0, 3.0]),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip(second)),
        tokenizer_2=second,
        unet=_unet(cross_attention_dim=2 * WIDTH, **_added(6)),
        scheduler=diffusers.EulerDiscreteScheduler.from_config(STABLE_DIFFUSION, timestep_spacing="leading"),
    )


def _refiner() -> Any:
    tokenizer = _tokenizer()
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip(tokenizer)),
        tokenizer_2=tokenizer,
        unet=_unet(cross_attention_dim=WIDTH, **_added(5)),
        scheduler=diffusers.EulerDiscreteScheduler.from_config(STABLE_DIFFUSION, timestep_spacing="leading"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


KINDS: Final = {
    "sd": _sd,
    "sd-v": lambda: _sd("v_prediction", use_linear_projection=True),
    "sd-lcm": lambda: _sd(time_cond_proj_dim=16),
    "sdxl": _sdxl,
    "sdxl-refiner": _refiner,
}
"""What the tests serve: SD 1.x, SD 2.x, SD distilled with guidance as an input, SDXL base and refiner."""

ODD: Final = {"sd-wide-text": lambda: _sd(text_width=2 * WIDTH)}


def _vae(**more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        **more,
    )


def _unet(cross_attention_dim: int, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=cross_attention_dim,
        **more,
    )


def _added(time_ids: int) -> dict[str, Any]:
    """What an XL network takes beside the prompt's tokens: the pooled prompt and this many numbers."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 8 * time_ids,
    }


def _clip(tokenizer: Any, width: int = WIDTH) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer(padding: str = "<|endoftext|>") -> Any:
    """CLIP's own way of cutting text, with single letters for words."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=padding, model_max_length=WINDOW)
