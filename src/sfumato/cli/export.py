"""A list of jobs as a file: CSV for spreadsheets, JSON lines for programs. One job at a time is in memory."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from sfumato.client.views import JobInfo

__all__ = ["COLUMNS", "Format", "line_of", "whole_file"]

Format = Literal["csv", "jsonl"]
PARAMS: Final = (
    "negative_prompt",
    "strength",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "sampler",
    "width",
    "height",
    "output_format",
)
COLUMNS: Final = (
    *("id", "owner", "status", "model_name", "priority", "prompt", *PARAMS, "metadata"),
    *("created_at", "started_at", "finished_at", "attempt", "delivery", "wait_s", "total_s"),
    *("error_type", "error_detail", "result_media_type", "result_width", "result_height", "result_bytes", "result_url"),
)
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What spreadsheets take a cell for a formula by (OWASP, CSV injection); behind spaces some do, too."""


def line_of(job: JobInfo | None, format: Format) -> str:
    """The job as one record with its end; of no job, what stands before the first one."""
    if format == "jsonl":
        return "" if job is None else f"{job.model_dump_json()}\n"
    record = io.StringIO()
    # As RFC 4180 has it; what has a line break, a comma or a quote is quoted.
    csv.writer(record).writerow(COLUMNS if job is None else map(_cell, _fields(job).values()))
    return record.getvalue()


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """The file at `path`, there under its name once all was written; what is not whole is removed again.

    Raises:
        OSError: it can't be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _fields(job: JobInfo) -> Mapping[str, Any]:
    told = job.model_dump(mode="json")
    error, result = told["error"] or {}, told["result"] or {}
    more = {
        **{name: job.params.get(name) for name in PARAMS},
        **{name: job.timings.get(name) for name in ("wait_s", "total_s")},
        "metadata": json.dumps(job.metadata, ensure_ascii=False) if job.metadata else None,
        "error_type": error.get("type"),
        "error_detail": error.get("detail"),
        "result_media_type": result.get("media_type"),
        "result_width": result.get("width"),
        "result_height": result.get("height"),
        "result_bytes": result.get("size_bytes"),
    }
    return {name: more[name] if name in more else told[name] for name in COLUMNS}


def _cell(value: object) -> object:
    """The value as it may stand in a spreadsheet: text that would be run as a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(FORMULA) or value.lstrip().startswith(FORMULA) else value
