"""One picture with many prompts at once, results taken as they come, from asyncio.

Start the service first (`sfumato up`), then: python examples/async_many.py images/cat.jpg mosaic neon "at night"
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from sfumato import AsyncClient, SfumatoError


async def restyle(client: AsyncClient, picture: Path, prompt: str, out: Path) -> Path:
    result = await client.generate(picture, "restyle", prompt=prompt)
    return result.save(out / f"{picture.stem} {prompt}{result.suffix}")


async def restyle_all(url: str, picture: Path, prompts: Sequence[str], out: Path) -> int:
    failed = 0
    async with AsyncClient(url) as client:
        await client.models()  # A service that is not there is told once, not once per prompt.
        for next_one in asyncio.as_completed([restyle(client, picture, prompt, out) for prompt in prompts]):
            try:
                sys.stdout.write(f"{await next_one}\n")
            except SfumatoError as error:
                failed += 1
                sys.stderr.write(f"{error}\n")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Restyle one picture in many ways at once.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    asked = parser.parse_args(arguments)
    try:
        failed = asyncio.run(restyle_all(asked.url, asked.picture, asked.prompts, asked.out))
    except SfumatoError as error:
        sys.exit(str(error))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
