"""`sfumato bench follow`: what it costs a gateway when many clients follow their jobs, and how soon they hear.

A gateway alone, over SQLite and a folder, with jobs that nobody runs: so all is still, as for most jobs most of the
time. Then every job is canceled, and each follower must be told its job's end once.
"""

import asyncio
import io
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.figures import quantile
from sfumato.bench.machine import BenchFailed, cpu_s, many_files, resident_mib
from sfumato.cluster.server import Recipe, free_ports, running

__all__ = ["Row", "run"]

MODEL: Final = "free"
MODELS_TOML: Final = f"""
[models.{MODEL}]
backend = "simulated"
"""
FOLLOWERS_A_JOB: Final = 10
AT_ONCE: Final = 50
STILL_S: Final = 10.0
TOLD_WITHIN_S: Final = 60.0
WANTED_MIB: Final = 200


@dataclass(frozen=True, slots=True)
class Row:
    """Followers of one gateway: its resident set (MiB) without and with them, the share of a core that they take while
    nothing happens, and the seconds from a cancel to its followers' knowing."""

    followers: int
    before_mib: float
    with_mib: float
    still_cpu: float
    told_p50_s: float
    told_p99_s: float


def run(json_file: Path | None, followers: Sequence[int] = (500, 2_000), still_s: float = STILL_S) -> Table:
    """Measure; the table to print. Rows go to `json_file` if given.

    Raises:
        BenchFailed: a follower was refused, or not told of an end once.
    """
    many_files()
    rows = []
    for count in followers:
        with tempfile.TemporaryDirectory(prefix="sfumato-bench-") as folder:
            rows.append(_measured(Path(folder), count, still_s))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    table = Table(title="Followers of one gateway", box=SIMPLE_HEAD)
    titles = (
        "followers",
        "MiB before",
        f"with them (≤ {WANTED_MIB})",
        "CPU while still",
        "told of an end: p50 ms",
        "p99 ms",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        told = (f"{row.told_p50_s * 1000:.0f}", f"{row.told_p99_s * 1000:.0f}")
        memory = (f"{row.before_mib:.0f}", f"{row.with_mib:.0f}")
        table.add_row(str(row.followers), *memory, f"{row.still_cpu:.1%}", *told)
    return table


def _measured(folder: Path, followers: int, still_s: float) -> Row:
    (folder / "models.toml").write_text(MODELS_TOML)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = {"DATA_DIR": str(folder), "PORT": str(port), "LOG_LEVEL": "warning"}
    environment = {f"SFUMATO_{name}": value for name, value in settings.items()}
    gateway = Recipe("gateway", (sys.executable, "-m", "sfumato", "gateway"), lambda: _answers(url), environment)
    with running(gateway, folder / "gateway.log") as server, httpx.Client(base_url=url, timeout=30) as client:
        jobs = [_submit(client) for _ in range(max(1, followers // FOLLOWERS_A_JOB))]
        return asyncio.run(_follow(port, server.pid, jobs, followers, still_s))


async def _follow(port: int, pid: int, jobs: Sequence[str], followers: int, still_s: float) -> Row:
    before_mib = resident_mib(pid)
    opened: list[tuple[str, asyncio.StreamReader, asyncio.StreamWriter]] = []
    for first in range(0, followers, AT_ONCE):
        of = [jobs[number % len(jobs)] for number in range(first, min(first + AT_ONCE, followers))]
        opened += await asyncio.gather(*(_opened(port, job) for job in of))
    await asyncio.sleep(1.0)
    spent_s, since = cpu_s(pid), time.perf_counter()
    await asyncio.sleep(still_s)
    still_cpu = (cpu_s(pid) - spent_s) / (time.perf_counter() - since)
    with_mib = resident_mib(pid)
    canceled: dict[str, float] = {}
    ends = [asyncio.create_task(_end(job, reader)) for job, reader, _ in opened]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for job in jobs:
            canceled[job] = time.perf_counter()
            (await client.post(f"/api/jobs/{job}/cancel")).raise_for_status()
    told = sorted(at - canceled[job] for job, at in await asyncio.gather(*ends))
    for _, _, writer in opened:
        writer.close()
    figures = (round(quantile(told, share), 4) for share in (0.5, 0.99))
    return Row(followers, round(before_mib, 1), round(with_mib, 1), round(still_cpu, 4), *figures)


async def _opened(port: int, job: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream of this job's events, after its first one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise BenchFailed(f"a follower was answered {head.decode('latin-1')}")
    await reader.readuntil(b"event: queued\n")
    return job, reader, writer


async def _end(job: str, reader: asyncio.StreamReader) -> tuple[str, float]:
    """The job, and when its follower read the end of it, after which the stream itself must end."""
    async with asyncio.timeout(TOLD_WITHIN_S):
        await reader.readuntil(b"event: final\n")
        at = time.perf_counter()
        # The last chunk; a connection is kept open for the next request.
        rest = await reader.readuntil(b"0\r\n\r\n")
    if b"event: " in rest:
        raise BenchFailed(f"job {job} was told of again after its end.")
    return job, at


def _submit(client: httpx.Client) -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    answer = client.post(
        "/api/diffusion",
        params={"model_name": MODEL, "prompt": "follow"},
        files={"image": ("p.png", file.getvalue(), "image/png")},
    )
    if answer.status_code != httpx.codes.ACCEPTED:
        raise BenchFailed(f"a job was answered {answer.status_code}: {answer.text[:500]}")
    job: str = answer.json()["id"]
    return job


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
