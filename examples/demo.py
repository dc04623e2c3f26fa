"""From nothing to pictures: start the whole service, send the sample pictures through, lay out before and after.

Run it by `make demo`. The service listens on a free port, keeps its data in a temporary folder, and is stopped at the
end; everything it makes is in out/.
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from examples.contact_sheet import contact_sheet

PROMPTS = ("watercolor", "stained glass", "comic", "pencil drawing", "neon", "at sunset")
READY_WITHIN_S = 60.0


@contextmanager
def service(log: Path) -> Iterator[str]:
    """`sfumato up` on a free port and a folder of its own; gives its address once it is ready, stops it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Should this script be killed, the pipe closes and the service stops by itself.
    lifeline, ours = os.pipe()
    with tempfile.TemporaryDirectory(prefix="sfumato-demo-") as data, log.open("wb") as lines:
        command = [sys.executable, "-m", "sfumato", "up", "--port", str(port), "--data-dir", data]
        process = subprocess.Popen(
            [*command, "--lifeline", str(lifeline)], stdout=lines, stderr=lines, pass_fds=[lifeline]
        )
        os.close(lifeline)
        try:
            _until_ready(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(15)
            os.close(ours)


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass  # Not listening yet.
        if time.monotonic() > deadline:
            sys.exit(f"The service was not ready within {READY_WITHIN_S:.0f} s; see {log}.")
        try:
            status = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        sys.exit(f"The service ended with status {status}:\n{log.read_text()}")


def send(url: str, images: Path, prompt: str, out: Path) -> bool:
    """Send the folder through with the command that anyone would type; False when a picture failed."""
    words = ["submit", str(images), "--model", "restyle", "--prompt", prompt, "--seed", "7", "--out", str(out)]
    sys.stdout.write(f"\n$ sfumato {shlex.join(words)}\n")
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "sfumato", *words, "--url", url], check=False).returncode == 0


def lay_out(images: Path, out: Path) -> Path:
    """The contact sheet of what lies in `out`, as a file there."""
    pictures = sorted(path for path in images.iterdir() if path.suffix in (".jpg", ".png", ".webp"))
    rows = {
        picture: [next(_folder(out, prompt).glob(f"{picture.stem}.*"), None) for prompt in PROMPTS]
        for picture in pictures
    }
    sheet = out / "contact-sheet.jpg"
    contact_sheet(rows, PROMPTS, "each picture once as it came, then as each prompt made it").save(sheet, quality=92)
    return sheet


def _forget_old(images: Path, out: Path) -> None:
    """Remove what an earlier run made of these pictures, so that nothing on the sheet is older than this run."""
    for prompt in PROMPTS:
        for picture in images.iterdir():
            for old in _folder(out, prompt).glob(f"{picture.stem}.*"):
                old.unlink()


def _folder(out: Path, prompt: str) -> Path:
    return out / prompt.replace(" ", "-")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("images"), help="folder of pictures to send")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for everything that is made")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    sys.stdout.write("Starting the service: gateway, dispatcher, recorder and one worker …\n")
    with service(asked.out / "service.log") as url:
        sys.stdout.write(f"Ready after {time.monotonic() - begin:.1f} s on {url}\n")
        _forget_old(asked.images, asked.out)
        good = [send(url, asked.images, prompt, _folder(asked.out, prompt)) for prompt in PROMPTS]
    sheet = lay_out(asked.images, asked.out)
    sys.stdout.write(f"\nDone in {time.monotonic() - begin:.0f} s; the service is stopped. Look at {sheet}\n")
    sys.stdout.write("Run it for yourself: .venv/bin/sfumato up, then open http://127.0.0.1:8000\n")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
