"""A job as Replicate's HTTP API shows one, a prediction: for the routes of that protocol, and for the webhooks of jobs
that came by it. Pure.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from sfumato.core.events import JobRow, Running
from sfumato.core.job import Job, Outcome, State
from sfumato.core.params import OutputFormat, Sampler, evaluations
from sfumato.core.shown import rfc3339

__all__ = ["OWNER", "PROTOCOL", "SCHEDULERS", "model_id", "prediction_json", "scheduler_name", "version_id"]

PROTOCOL: Final = "replicate"
"""What jobs have as their `protocol` that came in its words."""
OWNER: Final = "sfumato"
"""Whose the models are whose names do not say so."""
SCHEDULERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {
        "K_EULER": Sampler.EULER,
        "K_EULER_ANCESTRAL": Sampler.EULER_ANCESTRAL,
        "DDIM": Sampler.DDIM,
        "DPMSolverMultistep": Sampler.DPMPP_2M,
        "LCM": Sampler.LCM,
    }
)
"""As models on Replicate call them; the others have our own names."""
STATUSES: Final[Mapping[State, str]] = MappingProxyType({State.QUEUED: "starting", State.RUNNING: "processing"})
"""The others are the same word in both."""
BAR_CHARS: Final = 10


def version_id(name: str, hub: str = "", revision: str = "") -> str:
    """64 hex digits that stand for a model from this place at this revision, the same wherever it is listed so."""
    return hashlib.sha256(json.dumps([name, hub, revision]).encode()).hexdigest()


def model_id(name: str) -> str:
    """The model's name as `owner/name`, or as `sfumato/name` where it is none; percent-encoded as in an address."""
    parts = name.split("/")
    owner, rest = parts if len(parts) == 2 and all(parts) else (OWNER, name)
    return f"{quote(owner, safe='')}/{quote(rest, safe='')}"


def scheduler_name(sampler: Sampler) -> str:
    """What a sampler is called there."""
    return next((name for name, ours in SCHEDULERS.items() if ours is sampler), sampler.value)


def prediction_json(
    row: JobRow, outcome: Outcome | None, base_url: str, output_url: str, version: str, progress: Running | None
) -> dict[str, Any]:
    """The job as a prediction. Addresses begin with `base_url`; its picture is at `output_url` once it is there.

    `outcome` is its end, which the row may not know of yet.
    """
    job = row.job
    state = outcome.state if outcome else row.state
    here = f"{base_url}/v1/predictions/{job.id}"
    return {
        "id": job.id,
        "model": model_id(job.model),
        "version": version,
        "status": STATUSES.get(state, state.value),
        "input": _input(job, base_url),
        "output": [output_url] if outcome and outcome.picture else None,
        "error": f"{outcome.error.title}: {outcome.error.detail}" if outcome and outcome.error else None,
        "logs": _logs(job, outcome, progress),
        "metrics": _metrics(row, outcome),
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(row.started_at),
        "completed_at": rfc3339(outcome.at if outcome else None),
        "urls": {"get": here, "cancel": f"{here}/cancel"},
        "data_removed": False,
        "source": "api",
    }


def _input(job: Job, base_url: str) -> dict[str, Any]:
    """What was asked, with defaults filled in; a size only if one was asked for."""
    params = job.params
    shown: dict[str, Any] = {
        "image": f"{base_url}/api/jobs/{job.id}/input",
        "prompt": params.prompt,
        "negative_prompt": params.negative_prompt,
        "prompt_strength": params.strength,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": params.guidance_scale,
        "seed": params.seed,
        "scheduler": scheduler_name(params.sampler),
        "output_format": "jpg" if params.output_format is OutputFormat.JPEG else params.output_format.value,
        "priority": job.priority.value,
    }
    if params.exact:
        shown |= {"width": params.width, "height": params.height, "resize_mode": params.resize_mode.value}
    return shown | ({"metadata": job.metadata} if job.metadata else {})


def _logs(job: Job, outcome: Outcome | None, progress: Running | None) -> str:
    """How far it is, as tqdm writes it, which is what clients look for in the logs."""
    if outcome is not None:
        params = job.params
        steps = evaluations(params.num_inference_steps, params.strength, params.sampler) if outcome.picture else 0
        done = steps
    else:
        done, steps = (progress.step, progress.steps) if progress else (0, 0)
    if not steps:
        return ""
    bar = "█" * (BAR_CHARS * done // steps)
    return f"{100 * done // steps:3d}%|{bar:<{BAR_CHARS}}| {done}/{steps}"


def _metrics(row: JobRow, outcome: Outcome | None) -> dict[str, float]:
    if outcome is None:
        return {}
    metrics = {"total_time": round(max(0.0, outcome.at - row.job.created_at), 3)}
    if row.started_at is not None:
        metrics["predict_time"] = round(max(0.0, outcome.at - row.started_at), 3)
    return metrics
