"""Every picture of a folder through the service, with a progress line: the smallest useful client.

Start the service first (`sfumato up`), then: python examples/local_img2img.py images --prompt "stained glass"
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sfumato import Client, SfumatoError

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def restyle_folder(asked: argparse.Namespace) -> int:
    pictures = sorted(path for path in asked.folder.iterdir() if path.suffix.lower() in PICTURES)
    failed = 0
    with Client(asked.url) as client:
        # All are sent before the first is waited for: the service batches what waits together.
        jobs = [client.submit(path, asked.model, prompt=asked.prompt, priority=asked.priority) for path in pictures]
        for number, (path, job) in enumerate(zip(pictures, jobs, strict=True), 1):
            try:
                saved = client.result(job).save(asked.out / path.stem)
                sys.stdout.write(f"[{number}/{len(jobs)}] {path} → {saved}   {job.result_url}\n")
            except SfumatoError as error:
                failed += 1
                sys.stdout.write(f"[{number}/{len(jobs)}] {path}: {error}\n")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Restyle every picture of a folder.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("images"))
    parser.add_argument("--model", default="restyle")
    parser.add_argument("--prompt", default="stained glass")
    parser.add_argument("--priority", choices=["high", "normal", "low"], default="normal")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    asked = parser.parse_args(arguments)
    try:
        return 1 if restyle_folder(asked) else 0
    except (SfumatoError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
