"""ONNX Runtime on the CPU, for a Stable Diffusion model in optimum's folder layout.

The folders are unet, vae_encoder, vae_decoder, text_encoder, tokenizer and scheduler. Needs onnxruntime and tokenizers
alone.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states
from tokenizers import Tokenizer

from sfumato.core.errors import EngineDead
from sfumato.engine.backends import About, BackendUnusable, Pictures, Pixels, Prompt
from sfumato.engine.backends.arrays import Latents, NumpyArrays
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["OnnxBackend"]

PARTS: Final = ("unet", "vae_encoder", "vae_decoder", "text_encoder")
DTYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
OUT_OF_MEMORY: Final = ("bad_alloc", "failed to allocate", "out of memory")


class _Part:
    """One model file; inputs are cast to what it takes, outputs to float32."""

    def __init__(self, file: Path, options: onnxruntime.SessionOptions) -> None:
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.inputs = {node.name: node for node in self._session.get_inputs()}
        self.output = self._session.get_outputs()[0].name

    def __call__(self, **arrays: npt.NDArray[Any]) -> Latents:
        feed = {name: array.astype(DTYPES[self.inputs[name].type], copy=False) for name, array in arrays.items()}
        try:
            (found,) = self._session.run([self.output], feed)
        except (states.EPFail, states.EngineError, states.DeviceReset) as error:
            raise EngineDead(f"ONNX Runtime can't go on: {error}") from error
        except (states.Fail, states.RuntimeException) as error:
            if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
                raise MemoryError(str(error)) from error
            raise
        return np.asarray(found, np.float32)


class OnnxBackend:
    """The model in `path`, on `threads` CPU threads (0: all cores).

    Raises:
        BackendUnusable: a file is missing or no model of this kind; the message names it.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = _options(threads)
        self._unet, self._encoder, self._decoder, self._text = (
            _open(path / part / "model.onnx", options) for part in PARTS
        )
        _check_unet(self._unet, path)
        vae = _read(path / "vae_decoder" / "config.json")
        self._scale, self._shift = vae.get("scaling_factor") or 1.0, vae.get("shift_factor") or 0.0
        self._tokenizer = _tokenizer(path / "tokenizer")
        self.about = About(
            family="stable-diffusion",
            dtype="float32",
            device="cpu",
            latent_channels=vae["latent_channels"],
            vae_factor=2 ** (len(vae["block_out_channels"]) - 1),
            schedule=NoiseSchedule.from_config(_read(path / "scheduler" / "scheduler_config.json")),
        )
        self.arrays = NumpyArrays()

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Latents]:
        """Prompts longer than the text encoder's window are cut."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([prompt.text for prompt in prompts])]
        return list(self._text(input_ids=np.array(ids)))

    def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
        found = self._encoder(sample=pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        channels = self.about.latent_channels
        if found.shape[1] == 2 * channels:
            mean, log_variance = found[:, :channels], found[:, channels:].clip(-30, 20)
            draws = [self.arrays.normal(generator, *mean.shape[1:]) for generator in generators]
            found = mean + np.exp(0.5 * log_variance) * np.stack(draws)
        return np.asarray((found - self._shift) * self._scale, np.float32)

    def predict(
        self,
        x: Latents,
        t: npt.NDArray[np.float32],
        embeddings: Sequence[Latents],
        guidance: npt.NDArray[np.float32],
    ) -> Latents:
        return self._unet(sample=x, timestep=t, encoder_hidden_states=np.stack(embeddings))

    def decode(self, x: Latents) -> Pictures:
        found = self._decoder(latent_sample=x / self._scale + self._shift)
        return np.asarray(found / 2 + 0.5, np.float32).transpose(0, 2, 3, 1)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if 0 < threads < (os.cpu_count() or 1):
        # The cores are shared with other processes: a thread that spins between calls would take their time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(file: Path, options: onnxruntime.SessionOptions) -> _Part:
    try:
        return _Part(file, options)
    except (states.NoSuchFile, states.Fail, states.InvalidProtobuf, states.InvalidGraph) as error:
        raise BackendUnusable(f"{file} can't be opened: {error}") from error


def _check_unet(unet: _Part, path: Path) -> None:
    wanted = {"sample", "timestep", "encoder_hidden_states"}
    if set(unet.inputs) != wanted:
        raise BackendUnusable(f"{path}/unet takes {sorted(unet.inputs)}; this backend gives {sorted(wanted)}.")
    if len(unet.inputs["timestep"].shape) != 1:
        raise BackendUnusable(f"{path}/unet takes one timestep for all rows; export it with a vector of timesteps.")


def _tokenizer(folder: Path) -> Tokenizer:
    config = _read(folder / "tokenizer_config.json")
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BackendUnusable(f"{file} is missing; save the tokenizer as a fast one.")
    tokenizer = Tokenizer.from_file(str(file))
    length, pad = config["model_max_length"], config["pad_token"]
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BackendUnusable(f"{file} can't be read: {error}") from error
    return found
