"""Colours and bars that move are for terminals; into a pipe goes plain text, and as wide as it is."""

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.fake_service import FakeService, job_json

JOB = "0190b0f0-0000-7000-8000-000000000001"
FAILED = "0190b0f0-0000-7000-8000-000000000002"
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])[;m]")
ESCAPE = b"\x1b"
MOVES = re.compile(rb"\x1b\[[0-9;?]*[A-HJKhl]")
TROUBLE = "its folder is gone " * 40


class Wired(FakeService):
    """The service in memory, with a broken model whose reason is long."""

    def __init__(self) -> None:
        super().__init__(models=("restyle", "lost"))
        self.jobs[JOB] = job_json(JOB, status="succeeded", prompt="neon " * 60)
        error = {"type": "urn:sfumato:problem:broken", "title": "broken", "detail": "The picture is broken."}
        self.jobs[FAILED] = job_json(FAILED, status="failed", error=error)

    def _model(self, name: str) -> dict[str, object]:
        told = super()._model(name)
        return told | ({"state": "broken", "trouble": TROUBLE.strip()} if name == "lost" else {})


@pytest.fixture
def url() -> Iterator[str]:
    service = Wired()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = service(httpx.Request("GET", f"http://{self.headers['Host']}{self.path}"))
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Not onto the tests' standard error."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def environment(**more: str) -> dict[str, str]:
    plain = dict(os.environ)  # noqa: TID251 - the child's, handed through
    for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "COLUMNS"):
        plain.pop(name, None)
    return plain | {"TERM": "xterm-256color"} | more


def on_a_terminal(words: list[str], **more: str) -> bytes:
    """All that a terminal gets of the command, 80 columns wide."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sfumato", *words]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment(COLUMNS="80", **more))
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:
        pass  # Linux tells so that nobody holds the other end any more.
    finally:
        os.close(ours)
        process.wait(30)
    return shown


def into_pipes(words: list[str], **more: str) -> tuple[bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "sfumato", *words], capture_output=True, env=environment(**more), timeout=30, check=False
    )
    return done.stdout, done.stderr


WORDS = {
    "help": ["--help"],
    "error": ["lst"],
    "table": ["jobs", "list", "--url"],
    "models": ["models", "--url"],
    "bar": ["watch", FAILED, "--url"],
}


@pytest.mark.parametrize("what", WORDS)
def test_a_terminal_gets_colours_and_a_pipe_none(what: str, url: str) -> None:
    words = WORDS[what] + ([url] if WORDS[what][-1] == "--url" else [])
    assert COLOUR.search(on_a_terminal(words))
    assert ESCAPE not in b"".join(into_pipes(words))


@pytest.mark.parametrize("what", WORDS)
def test_no_color_turns_colours_off_and_force_color_turns_them_on(what: str, url: str) -> None:
    words = WORDS[what] + ([url] if WORDS[what][-1] == "--url" else [])
    assert not COLOUR.search(on_a_terminal(words, NO_COLOR="1"))
    forced = b"".join(into_pipes(words, FORCE_COLOR="1"))
    assert COLOUR.search(forced)
    assert not MOVES.search(forced)
    assert not COLOUR.search(b"".join(into_pipes(words, FORCE_COLOR="1", NO_COLOR="1")))


def test_rows_in_a_pipe_are_neither_folded_nor_cut_to_a_terminal(url: str) -> None:
    out, _ = into_pipes(["models", "--url", url], COLUMNS="40")
    heads, restyle, lost = out.decode().splitlines()
    assert heads.split()[0] == "model"
    assert "restyles" in restyle
    assert TROUBLE.strip() in lost
    out, _ = into_pipes(["jobs", "--url", url], COLUMNS="40")
    assert all(len(line) > 80 for line in out.decode().splitlines())


def test_results_go_to_standard_output_and_progress_to_standard_error(url: str, tmp_path: Path) -> None:
    out, err = into_pipes(["watch", JOB, "--url", url])
    assert JOB.encode() in out
    assert b"succeeded" in err
    out, err = into_pipes(["watch", JOB, "--json", "--url", url])
    assert out.startswith(b"{")
    assert err == b""
    out, err = into_pipes(["jobs", "export", "--format", "jsonl", "--url", url])
    assert out.count(b"\n") == 2
    assert b"jobs" in err


def test_a_measurement_moves_nothing_in_a_pipe_and_says_each_thing_in_a_line() -> None:
    code = "from sfumato.bench.progress import bar\nwith bar() as told:\n    told.tell('the network alone')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(FORCE_COLOR="1"), timeout=30, check=True
    )
    assert not MOVES.search(done.stderr)
    assert b"the network alone" in done.stderr.splitlines()[0]
