"""Commands that error messages tell people to type; what they name was named by strangers and is quoted for a shell."""

import shlex

__all__ = ["convert_pickles", "convert_single_file"]


def convert_pickles(model: str) -> str:
    """The command that writes the diffusers model `model` (a folder, or its name at the hub) as safetensors."""
    loaded = f"diffusers.DiffusionPipeline.from_pretrained({model!r}, use_safetensors=False)"
    return _python(f"import diffusers; {loaded}.save_pretrained('converted')")


def convert_single_file(file: str) -> str:
    """The command that makes a diffusers folder of a whole model in one file."""
    loaded = f"diffusers.StableDiffusionPipeline.from_single_file({file!r})"
    return _python(f"import diffusers; {loaded}.save_pretrained('converted')")


def _python(code: str) -> str:
    return f"python -c {shlex.quote(code)}"
