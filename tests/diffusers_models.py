"""Tiny models of the real architectures with random weights, written as the folders that diffusers writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.models.t5.tokenization_t5 import T5Tokenizer

__all__ = ["KINDS", "make_model", "make_whole"]

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
T5_WIDTH: Final = 72


def make_model(kind: str, folder: Path) -> Path:
    """Write the model of this kind into `folder` and give it; the same weights each time."""
    torch.manual_seed(20)
    (KINDS | ODD)[kind]().save_pretrained(folder, safe_serialization=True)
    return folder


def make_whole(folder: Path, pipeline: str = "StableDiffusionPAGPipeline", **changes: object) -> Path:
    """A model whose index names a pipeline class that has no adapter here."""
    made = make_model("sd", folder)
    index = json.loads((made / "model_index.json").read_text())
    (made / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline} | changes))
    return made


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


def _sd3(t5: bool) -> Any:
    tokenizers = _tokenizer(), _tokenizer("!")
    long = _t5_tokenizer() if t5 else None
    return diffusers.StableDiffusion3Pipeline(
        vae=_vae(latent_channels=8, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=transformers.CLIPTextModelWithProjection(_clip(tokenizers[0])),
        tokenizer=tokenizers[0],
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip(tokenizers[1])),
        tokenizer_2=tokenizers[1],
        text_encoder_3=_t5(long) if t5 else None,
        tokenizer_3=long,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=T5_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=16,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux(guidance_embeds: bool, **schedule: Any) -> Any:
    tokenizer, long = _tokenizer(), _t5_tokenizer()
    return diffusers.FluxPipeline(
        vae=_vae(shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=_t5(long),
        tokenizer_2=long,
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**schedule),
    )


KINDS: Final[dict[str, Callable[[], Any]]] = {
    "sd": _sd,
    "sd-v": lambda: _sd("v_prediction", use_linear_projection=True),
    "sd-lcm": lambda: _sd(time_cond_proj_dim=16),
    "sd-text-added": lambda: _sd(addition_embed_type="text", addition_embed_type_num_heads=4),
    "sdxl": _sdxl,
    "sdxl-refiner": _refiner,
    "sd3": lambda: _sd3(t5=True),
    "sd3-without-t5": lambda: _sd3(t5=False),
    "flux-dev": lambda: _flux(guidance_embeds=True, shift=3.0, use_dynamic_shifting=True),
    "flux-schnell": lambda: _flux(guidance_embeds=False),
}
"""SD 1.x and 2.x, SD distilled with guidance as an input, SD whose UNet adds the prompt to the time, SDXL base and
refiner, SD3, Flux dev and schnell."""

ODD: Final[dict[str, Callable[[], Any]]] = {"sd-wide-text": lambda: _sd(text_width=2 * WIDTH)}


def _vae(**more: Any) -> Any:
    plain = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 64,
    }
    return diffusers.AutoencoderKL(**plain | more)


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


def _t5(tokenizer: Any) -> Any:
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, use_cache=False
    )
    return transformers.T5EncoderModel(config)


def _t5_tokenizer() -> Any:
    """Single letters for words, again."""
    letters = [(chr(code), -2.0) for code in range(33, 127) if chr(code) not in "<>"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)
