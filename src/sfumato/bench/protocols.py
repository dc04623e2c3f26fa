"""`sfumato bench protocols`: what another service's protocol adds to the way from a submit to its result.

The service, picture and model are those of `bench overhead`, with one client. All ways are gone in turn, so that
whatever else the machine does meets them alike. A way is compared with the service's own to the same end: the
picture itself, or the state of a job that has ended, with its link.
"""

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.overhead import EMBEDDED, MODEL, WAIT, ServiceFailed, gradient, quantile, service

__all__ = ["Row", "run"]

WARM_UP_ROUNDS: Final = 20
Way = Callable[[httpx.Client, bytes], object]


@dataclass(frozen=True, slots=True)
class Row:
    """Submit to result in seconds; `over_s` is how much more its median is than that of the service's own way."""

    way: str
    ends_with: str
    jobs: int
    p50_s: float
    p99_s: float
    over_s: float | None


def run(json_file: Path | None, jobs: int = 300) -> Table:
    """Start the service in a folder of its own and measure it; the table to print. Rows go to `json_file` if given.

    Raises:
        ServiceFailed: it did not start or did not work; the message ends with its last lines.
    """
    with service(EMBEDDED) as url, httpx.Client(base_url=url, timeout=60) as client:
        rows = _measured(client, gradient(), jobs)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    table = Table(title="Submit to result by protocol, model at zero cost, embedded", box=SIMPLE_HEAD)
    for column in ("way", "ends with", "jobs", "p50 ms", "p99 ms", "over the own way, ms"):
        table.add_column(column, justify="left" if column in ("way", "ends with") else "right")
    for row in rows:
        over = "" if row.over_s is None else f"{row.over_s * 1000:+.1f}"
        table.add_row(row.way, row.ends_with, str(row.jobs), f"{row.p50_s * 1000:.1f}", f"{row.p99_s * 1000:.1f}", over)
    return table


def _measured(client: httpx.Client, picture: bytes, jobs: int) -> list[Row]:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(WARM_UP_ROUNDS + jobs):
        for name, (_, way) in WAYS.items():
            began = time.perf_counter()
            way(client, picture)
            if number >= WARM_UP_ROUNDS:
                times[name].append(time.perf_counter() - began)
    medians = {name: quantile(sorted(taken), 0.5) for name, taken in times.items()}
    rows = []
    for name, (ends_with, _) in WAYS.items():
        over_s = None if name in OWN.values() else round(medians[name] - medians[OWN[ends_with]], 6)
        rows.append(Row(name, ends_with, jobs, medians[name], quantile(sorted(times[name]), 0.99), over_s))
    return rows


def _state(client: httpx.Client, picture: bytes) -> dict[str, Any]:
    query = {"model_name": MODEL, "prompt": "overhead"}
    files = {"image": ("p.png", picture, "image/png")}
    return _good(client.post("/api/diffusion", params=query, files=files, headers=WAIT))


def _picture(client: httpx.Client, picture: bytes) -> bytes:
    answer = client.get(_state(client, picture)["result_url"])
    if answer.status_code != httpx.codes.OK:
        raise ServiceFailed(f"a picture was answered {answer.status_code}: {answer.text[:500]}")
    return answer.content


def _openai(client: httpx.Client, picture: bytes) -> bytes:
    files = {"image": ("p.png", picture, "image/png")}
    body = _good(client.post("/v1/images/edits", data={"prompt": "overhead", "model": MODEL}, files=files))
    return base64.b64decode(body["data"][0]["b64_json"])


def _automatic1111(client: httpx.Client, picture: bytes) -> bytes:
    asked = {"init_images": [base64.b64encode(picture).decode()], "prompt": "overhead"}
    return base64.b64decode(_good(client.post("/sdapi/v1/img2img", json=asked))["images"][0])


def _replicate(client: httpx.Client, picture: bytes) -> str:
    image = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    asked = {"input": {"image": image, "prompt": "overhead"}}
    path = f"/v1/models/sfumato/{MODEL}/predictions"
    link: str = _good(client.post(path, json=asked, headers=WAIT), httpx.codes.CREATED)["output"][0]
    return link


def _good(answer: httpx.Response, status: int = httpx.codes.OK) -> dict[str, Any]:
    body: dict[str, Any] = answer.json() if answer.status_code == status else {}
    if not body or body.get("status", "succeeded") != "succeeded":
        raise ServiceFailed(f"a job was answered {answer.status_code}: {answer.text[:500]}")
    return body


STATE, PICTURE = "the job and its link", "the picture"
WAYS: Final[Mapping[str, tuple[str, Way]]] = MappingProxyType(
    {
        "own, Prefer: wait": (STATE, _state),
        "Replicate": (STATE, _replicate),
        "own, Prefer: wait, then its link": (PICTURE, _picture),
        "OpenAI": (PICTURE, _openai),
        "AUTOMATIC1111": (PICTURE, _automatic1111),
    }
)
OWN: Final = MappingProxyType({STATE: "own, Prefer: wait", PICTURE: "own, Prefer: wait, then its link"})
