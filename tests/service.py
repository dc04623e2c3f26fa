"""`sfumato up` as its users start it: the real command on a free port, in a folder of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.support import poll

__all__ = ["Answer", "Service", "alive", "answered", "children", "picture_request", "post_picture", "sfumato", "stream"]

SIMULATED = """
[models.quick]
backend = "simulated"
batch = 4
"""


class Service:
    """Starts `sfumato up`, waits until it says that it is ready, ends it with SIGTERM and keeps its log."""

    command: tuple[str, ...] = ("up",)
    ready_within_s = 30.0

    def __init__(
        self,
        folder: Path,
        *,
        models: str | None = SIMULATED,
        environment: Mapping[str, str] | None = None,
        most_file_kib: int | None = None,
    ) -> None:
        # A limit on file sizes makes writes fail as on a full disk, and needs no disk of its own.
        limit = "unlimited" if most_file_kib is None else str(most_file_kib)
        self._prefix = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "--"]
        self.data_dir = folder / "data"
        self.log = folder / "up.log"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if models is not None:
            (self.data_dir / "models.toml").write_text(models)
        self._environment = dict(os.environ) | dict(environment or {})  # noqa: TID251 - the child's, handed through
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def simulate(self, folder: str, costs: Mapping[str, Any]) -> None:
        """Let the simulated model with this `path` cost, and do, what the backend's simulated.json may say."""
        place = self.data_dir / folder
        place.mkdir(exist_ok=True)
        (place / "simulated.json").write_text(json.dumps(costs))

    def __enter__(self) -> Self:
        service = [sys.executable, "-m", "sfumato", *self.command, "--port", "0", "--data-dir", str(self.data_dir)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*self._prefix, *service], stderr=log, stdout=log, env=self._environment)
        try:
            self.url = poll(self._address, within_s=self.ready_within_s)
        except BaseException:
            self._end()
            raise
        return self

    def _address(self) -> str:
        assert self.process is not None
        text = self.log.read_text()
        assert self.process.poll() is None, f"`sfumato {' '.join(self.command)}` ended early:\n{text}"
        found = re.search(r"\b(?:up|cluster)\b.*\bready on (http://[\d.:]+)", text)
        return found[1] if found else ""

    def stop(self, within_s: float = 10.0) -> int:
        """SIGTERM, then its exit status; an AssertionError when it takes longer than promised."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        if error is not None:
            sys.stderr.write(self.log.read_text()[-6000:])

    def _end(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of GET `path` (or a whole link)."""
        return answered(urllib.request.Request(path if path.startswith("http") else self.url + path))[:2]

    def job(self, job_id: str) -> dict[str, Any]:
        status, body = self.get(f"/api/jobs/{job_id}")
        assert status == 200, body
        parsed: dict[str, Any] = json.loads(body)
        return parsed

    def roles(self) -> dict[str, int]:
        """Role → process id of the children that live now."""
        assert self.process is not None
        return children(self.process.pid)

    def environment_of_roles(self) -> dict[str, str]:
        """The environment that the roles were given, for a command that asks the same stores."""
        pid = poll(lambda: self.roles().get("gateway"), within_s=20)
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)


def sfumato(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What the command says, with its data in `folder`."""
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(folder)}  # noqa: TID251 - the child's
    command = [sys.executable, "-m", "sfumato", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def children(pid: int) -> dict[str, int]:
    """The direct children of a process, by the verb they were started with."""
    found: dict[str, int] = {}
    try:
        ids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return found
    for child in ids:
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "sfumato" in words:
            found[words[words.index("sfumato") + 1]] = int(child)
    return found


def alive(pid: int) -> bool:
    """Whether the process is there and not just waiting to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes
    headers: Message


def picture_request(
    url: str, picture: bytes, *, key: str = "", media_type: str = "image/png", **query: str
) -> urllib.request.Request:
    """POST /api/diffusion as curl sends it."""
    border = "sfumato-test-border"
    about = f'Content-Disposition: form-data; name="image"; filename="p"\r\nContent-Type: {media_type}'
    head = f"--{border}\r\n{about}\r\n\r\n"
    body = head.encode() + picture + f"\r\n--{border}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={border}"} | ({"Idempotency-Key": key} if key else {})
    address = f"{url}/api/diffusion?{urllib.parse.urlencode(query)}"
    return urllib.request.Request(address, data=body, headers=headers, method="POST")


def post_picture(
    url: str, picture: bytes, *, key: str = "", media_type: str = "image/png", timeout_s: float = 30.0, **query: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of `picture_request`.

    Raises:
        OSError: no answer came; whether the job was accepted is unknown.
    """
    answer = answered(picture_request(url, picture, key=key, media_type=media_type, **query), timeout_s)
    return answer.status, json.loads(answer.body)


def answered(request: urllib.request.Request, timeout_s: float = 30.0) -> Answer:
    """The answer, whatever its status. Raises OSError when none came."""
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return Answer(answer.status, answer.read(), answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), error.headers)


def stream(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and data of each event, until the service ends the stream."""
    kind = ""
    with urllib.request.urlopen(url, timeout=30) as answer:
        for raw in answer:
            field, _, value = raw.decode().rstrip("\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                yield kind, json.loads(value)
