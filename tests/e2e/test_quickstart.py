"""What README.md and the docs tell a newcomer to type is typed here, in its order, and shows what they say."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

from tests.reader import ROOT, Block, Reader, blocks
from tests.service import Service, answered, picture_request
from tests.support import poll

DOCS: Final = ROOT / "docs"
STANDS_FOR: Final[dict[str, str | None]] = {
    # What make would install is installed already: this environment. The rest of its recipe is this.
    "make demo": ".venv/bin/python -m examples.demo",
    # The service runs already, on a port that was free. Its lines are in its log.
    "make up": "cat up.log",
    # As above; torch is among what the tests install, and a second installation would change this environment.
    "pip install 'sfumato[diffusers]'": ".venv/bin/python -c 'import diffusers'",
    # Weights of gigabytes, and a hub behind the network: tests/integration/test_models_hub.py fetches from one here.
    "sfumato models add sdxl weights/stable-diffusion-xl-base-1.0": None,
    "sfumato models add sdxl owner/name --revision v1.0": None,
}


NOBODY: Final = "http://127.0.0.1:8000/api/jobs"
"""What the quickstart asks without a key."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """`sfumato up` where a newcomer has it: no list of models, its data in ./sfumato-data."""
    with _up(tmp_path, "sfumato-data") as service:
        yield service


def _up(folder: Path, data: str, **environment: str) -> Service:
    service = Service(folder, models=None, environment=environment)
    service.data_dir = folder / data
    return service


def _sizes(folder: Path) -> dict[str, tuple[int, int]]:
    sizes = {}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            sizes[str(path.relative_to(folder))] = picture.size
    return sizes


def test_quickstart_works_from_its_top_to_its_end(service: Service, tmp_path: Path) -> None:
    reader = Reader(tmp_path, service, STANDS_FOR)
    for block in blocks(DOCS / "quickstart.md"):
        if block.text == f"curl -s {NOBODY}\n":
            # Half a minute at the latest, the page says; a reader takes that long, and this one has to wait.
            poll(lambda: service.get("/api/jobs")[0] == 401, within_s=30)
        reader.do(block)

    made = _sizes(tmp_path / "out")
    assert {"neon.png", "night.png", "rocket.png", "pencil/cat.png", "neon/cat.png"} <= made.keys()
    assert made["neon.png"][0] > made["neon.png"][1]


def test_readme_works_from_its_top_to_its_end(service: Service, tmp_path: Path) -> None:
    # Weights of one's own are one's own; a copy of the bundled model's stands where the list says they are.
    shutil.copytree(ROOT / "src/sfumato/models/bundled/restyle", service.data_dir / "weights" / "sd15-onnx")
    Reader(tmp_path, service, STANDS_FOR).follow(ROOT / "README.md")

    assert {"cat.png", "rocket.png"} <= _sizes(tmp_path / "out").keys()
    photo = (ROOT / "images" / "cat.jpg").read_bytes()
    asked = picture_request(service.url, photo, media_type="image/jpeg", model_name="sd/1.5", prompt="neon")
    poll(lambda: answered(asked).status == 202, within_s=20, every_s=0.3)


@pytest.mark.parametrize("block", [Block("sh", "make cluster\n"), Block("", "sfumato jobs\n"), Block("yaml", "a: 1\n")])
def test_a_block_that_no_rule_covers_fails(tmp_path: Path, block: Block) -> None:
    reader = Reader(tmp_path, Service(tmp_path), STANDS_FOR)
    with pytest.raises(AssertionError, match="no rule says"):
        reader.do(block)


def test_the_home_page_shows_commands_of_the_readme() -> None:
    known = " ".join(block.text for block in blocks(ROOT / "README.md"))
    (block,) = blocks(DOCS / "index.md")
    assert re.findall(r"^make \w+", block.text, re.MULTILINE) == ["make demo", "make up"]
    assert all(f"{line}  " in known for line in ("make demo", "make up"))


def test_a_model_of_ones_own_is_served_as_its_page_says(service: Service, tmp_path: Path) -> None:
    reader = Reader(tmp_path, service, STANDS_FOR)
    reader.type(". .venv/bin/activate")
    for block in blocks(DOCS / "how-to" / "own-model.md"):
        if "--model mine" in block.text:
            _until_listed(service, "mine")
        reader.do(block)
        if block.language == "toml":
            poll(lambda: _models(service).get("mine", {}).get("summary") == "A light touch.", within_s=20)

    assert _sizes(tmp_path / "out" / "mine").keys() == {"cat.png"}
    poll(lambda: _models(service).keys() == {"restyle"}, within_s=20)


def _models(service: Service) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(service.get("/api/models")[1])["models"]}


def _until_listed(service: Service, name: str) -> None:
    poll(lambda: name in _models(service), within_s=20)


def test_a_backup_has_the_jobs_and_their_links(tmp_path: Path) -> None:
    copy, restore = (block.text for block in blocks(DOCS / "how-to" / "backup.md"))
    with _up(tmp_path, "sfumato-data") as service:
        reader = Reader(tmp_path, service, {})
        reader.type(
            ". .venv/bin/activate; sfumato submit images/cat.jpg --model restyle --prompt neon --wait > links.txt"
        )
        service.stop()
    reader.do(Block("sh", copy))
    shutil.rmtree(tmp_path / "sfumato-data")
    link = re.sub(r".*(/api/jobs/\S+).*", r"\1", (tmp_path / "links.txt").read_text(), flags=re.DOTALL)

    assert restore.strip() == "sfumato up --data-dir sfumato-backup"
    with _up(tmp_path, "sfumato-backup") as restored:
        assert restored.get(link)[0] == 200
