"""What docs/sdk.md and examples/ show runs: here against a service in memory."""

import functools
import re
from pathlib import Path
from types import ModuleType

import examples.async_many
import examples.local_img2img
import httpx
import pytest

import sfumato.client
from sfumato.client import errors, flows
from sfumato.core.retry import RetryPolicy
from tests.fake_service import FakeService

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeService:
    """Both clients speak to it; the current folder has images/."""
    fake = FakeService(picture=b"mosaic")
    transport = httpx.MockTransport(fake)
    for name in ("Client", "AsyncClient"):
        real = getattr(sfumato.client, name)
        monkeypatch.setattr(sfumato.client, name, functools.partial(real, transport=transport))
        for example in (examples.async_many, examples.local_img2img):
            if hasattr(example, name):
                monkeypatch.setattr(example, name, functools.partial(real, transport=transport))
    monkeypatch.setattr(flows, "_SHORTEST_PAUSE_S", 0.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("cat.jpg", "rocket.jpg"):
        (tmp_path / "images" / name).write_bytes(b"picture")
    return fake


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_sdk_page_block_runs(service: FakeService, block: str) -> None:
    exec(compile(block, "docs/sdk.md", "exec"), {"__name__": "docs"})  # noqa: S102 - our own page
    assert service.requests


def test_sdk_page_shows_the_tree_of_errors() -> None:
    assert errors.__doc__ is not None
    assert errors.__doc__.partition("\n\n")[2].strip() in PAGE


def test_local_img2img_saves_each_picture_of_the_folder(service: FakeService) -> None:
    assert examples.local_img2img.main(["images", "--prompt", "neon"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["cat.png", "rocket.png"]
    assert {dict(request.url.params).get("prompt", "neon") for request in service.requests} == {"neon"}


def test_local_img2img_goes_on_after_a_failure(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/cat.jpg").write_bytes(b"broken")
    assert examples.local_img2img.main([]) == 1
    assert [path.name for path in Path("out").iterdir()] == ["rocket.png"]
    assert "The picture is broken." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "words"),
    [(examples.async_many, ["images/cat.jpg", "neon", "mosaic"]), (examples.local_img2img, ["images"])],
)
def test_an_example_without_a_service_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, service: FakeService, example: ModuleType, words: list[str]
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    for name in ("Client", "AsyncClient"):
        if hasattr(example, name):
            deaf = functools.partial(
                getattr(sfumato.client, name).func,
                transport=httpx.MockTransport(refuse),
                patience=RetryPolicy(max_attempts=1),
            )
            monkeypatch.setattr(example, name, deaf)
    with pytest.raises(SystemExit, match=r"^no answer from http://127.*Connection refused"):
        example.main(words)


def test_async_many_goes_on_after_a_failure(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/cat.jpg").write_bytes(b"broken")
    assert examples.async_many.main(["images/cat.jpg", "neon", "mosaic"]) == 1
    assert capsys.readouterr().err == "The picture is broken.\n" * 2


def test_async_many_saves_one_result_a_prompt(service: FakeService) -> None:
    assert examples.async_many.main(["images/cat.jpg", "neon", "at night"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["cat at night.png", "cat neon.png"]
