"""The trained parts as files: diffusers/ as the library saves them, restyle/ as ONNX in optimum's layout.

ONNX weights are stored in half precision and cast when they are used: files are half as large, computing is exact. Each
part is checked against torch at several sizes.
"""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPTextModel, CLIPTokenizer

from training import checkpoint
from training.plan import SIZE, Plan
from training.text import MAX_TOKENS
from training.words import MOODS, STYLES

__all__ = ["STRENGTH", "export"]

STRENGTH: Final = 0.5
STEPS: Final = 12  # at the default strength, six calls of the UNet
OFF_BY: Final = 2e-3  # most that an output may differ from torch's
SIZES: Final = ((128, 128), (256, 256), (192, 320))
PATHS: Final = ("_name_or_path", "is_local", "local_files_only")


def export(plan: Plan) -> None:
    """Makes restyle/ and diffusers/ in the run's folder. Raises ValueError when ONNX Runtime computes otherwise."""
    folder = plan.folder / "restyle"
    if (folder / "sfumato.json").exists():
        return
    torch.manual_seed(plan.seed + 5)
    warnings.simplefilter("ignore")
    vae = AutoencoderKL.from_pretrained(plan.folder / "vae").eval()
    unet = UNet2DConditionModel.from_pretrained(plan.folder / "unet").eval()
    text = CLIPTextModel.from_pretrained(plan.folder / "text_encoder", attn_implementation="eager").eval()
    _halve(vae, unet, text)
    _save_diffusers(plan, vae, unet, text)
    parts = {
        "unet": _Unet(unet),
        "vae_encoder": _Encoder(vae),
        "vae_decoder": _Decoder(vae),
        "text_encoder": _Text(text),
    }
    channels, width, words = vae.config.latent_channels, text.config.hidden_size, text.config.vocab_size
    for name, part in parts.items():
        file = folder / name / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(name, part, _inputs(name, 2, (128, 128), channels, width, words), file)
        for pixels in SIZES:
            for rows in (1, 3):
                _compare(part, file, _inputs(name, rows, pixels, channels, width, words))
    _write_configs(plan, folder, vae, unet, text)
    checkpoint.write_json(folder / "sfumato.json", _constants(channels))


class _Unet(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class _Encoder(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, sample: Any) -> Any:
        return self.quant_conv(self.encoder(sample))


class _Decoder(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latent_sample: Any) -> Any:
        return self.decoder(self.post_quant_conv(latent_sample))


class _Text(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def forward(self, input_ids: Any) -> Any:
        found = self.text(input_ids)
        return found.last_hidden_state, found.pooler_output


# Names of the inputs and outputs, and which of their axes are free, as optimum has them.
_PICTURE: Final = {0: "batch", 2: "height", 3: "width"}
_TOKENS: Final = {0: "batch", 1: "sequence"}
NAMES: Final = {
    "unet": (["sample", "timestep", "encoder_hidden_states"], ["out_sample"]),
    "vae_encoder": (["sample"], ["latent_parameters"]),
    "vae_decoder": (["latent_sample"], ["sample"]),
    "text_encoder": (["input_ids"], ["last_hidden_state", "pooler_output"]),
}
AXES: Final = {
    "timestep": {0: "batch"},
    "encoder_hidden_states": _TOKENS,
    "input_ids": _TOKENS,
    "last_hidden_state": _TOKENS,
    "pooler_output": {0: "batch"},
}


def _inputs(name: str, rows: int, pixels: tuple[int, int], channels: int, width: int, words: int) -> tuple[Any, ...]:
    latents = torch.randn(rows, channels, pixels[0] // 8, pixels[1] // 8)
    return {
        "unet": (latents, torch.tensor([801.0, 443.0, 99.0])[:rows], torch.randn(rows, MAX_TOKENS, width)),
        "vae_encoder": (torch.rand(rows, 3, *pixels) * 2 - 1,),
        "vae_decoder": (latents,),
        "text_encoder": (torch.randint(2, words, (rows, MAX_TOKENS)),),
    }[name]


def _write(name: str, part: Any, inputs: tuple[Any, ...], file: Path) -> None:
    ins, outs = NAMES[name]
    axes = {each: AXES.get(each, _PICTURE) for each in (*ins, *outs)}
    with torch.no_grad():
        torch.onnx.export(
            part.eval(),
            inputs,
            str(file),
            input_names=ins,
            output_names=outs,
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    _shrink(file)


def _shrink(file: Path) -> None:
    """Weights in half precision, each with a Cast before its use."""
    model = onnx.load(str(file))
    weights, casts = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < 64:
            weights.append(tensor)
            continue
        half = f"{tensor.name}__h"
        weights.append(numpy_helper.from_array(array.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT, name=f"{tensor.name}__cast"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    onnx.save(model, str(file))


def _compare(part: Any, file: Path, inputs: tuple[Any, ...]) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    with torch.no_grad():
        wanted = part(*inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    off = max(float(np.abs(one - other.numpy()).max()) for one, other in zip(found, wanted, strict=True))
    if off > OFF_BY:
        raise ValueError(f"{file} is off by {off:.1e} at {[tuple(value.shape) for value in inputs]}")


def _halve(*networks: Any) -> None:
    """Round the weights to half precision, so that both formats and the comparison have the same ones."""
    for network in networks:
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()


def _scheduler() -> Any:
    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
        final_sigmas_type="zero",
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


def _save_diffusers(plan: Plan, vae: Any, unet: Any, text: Any) -> None:
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(plan.folder / "tokenizer"),
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = plan.folder / "diffusers"
    pipeline.to(torch.float16).save_pretrained(folder)
    pipeline.to(torch.float32)
    for file in folder.rglob("*.json"):
        _forget_paths(file)


def _write_configs(plan: Plan, folder: Path, vae: Any, unet: Any, text: Any) -> None:
    configs = {"unet": dict(unet.config), "vae_encoder": dict(vae.config), "vae_decoder": dict(vae.config)}
    configs["text_encoder"] = text.config.to_dict() | {"dtype": "float32"}
    for name, config in configs.items():
        checkpoint.write_json(folder / name / "config.json", json.loads(json.dumps(config, default=str)))
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(plan.folder / "diffusers" / name, folder / name, dirs_exist_ok=True)
    index = checkpoint.read_json(plan.folder / "diffusers" / "model_index.json")
    checkpoint.write_json(folder / "model_index.json", index | {"_class_name": "OnnxStableDiffusionPipeline"})
    for file in folder.rglob("*.json"):
        if file.name != "tokenizer.json":
            _forget_paths(file)


def _forget_paths(file: Path) -> None:
    """Say nothing of the machine that the files were made on."""
    if file.name == "tokenizer.json":
        return
    config = checkpoint.read_json(file)
    checkpoint.write_json(file, {key: value for key, value in config.items() if key not in PATHS})


def _constants(channels: int) -> dict[str, Any]:
    """What a server needs to know, and under `rules` what jobs may ask (docs/models.md)."""
    return {
        "name": "restyle",
        "size": SIZE,
        "size_multiple": 32,
        "strength": STRENGTH,
        "strength_range": [0.3, 0.65],
        "prediction_type": "v_prediction",
        "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": 1000,
        "timestep_spacing": "trailing",
        "sampler": "dpmsolver++ 2M, final sigma zero",
        "scaling_factor": 1.0,
        "latent_channels": channels,
        "vae_factor": 8,
        "max_tokens": MAX_TOKENS,
        "bos": 0,
        "eos": 1,
        "pad": 1,
        "timestep_input": "float32 vector of length batch",
        "vae_encoder_output": f"latent_parameters: first {channels} channels mean, then as many of log variance (-20)",
        "styles": list(STYLES),
        "moods": list(MOODS),
        "summary": "",
        "slots": 6,
        "rules": {
            "shapes": [[256, 256], [320, 224], [224, 320], [352, 192], [192, 352]],
            "size_multiple": 32,
            "max_pixels": 512 * 512,
            "strength": STRENGTH,
            "num_inference_steps": STEPS,
            "guidance_scale": 1.0,
            "max_guidance_scale": 1.5,
            "sampler": "dpmpp_2m",
        },
    }
