"""The hook that every finished picture of a model goes through."""

import asyncio
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sfumato.core.errors import PermanentError
from sfumato.engine.events import Pixels
from sfumato.worker.filters import BadFilter, OutputFilter

PICTURE = np.full((4, 6, 3), 7, np.uint8)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module as an operator might have installed it."""
    module: Any = ModuleType("shop_checks")
    monkeypatch.setitem(sys.modules, "shop_checks", module)
    return module


def through(spec: str) -> Pixels:
    async def filtered() -> Pixels:
        return await OutputFilter(spec)(PICTURE, "a cat")

    return asyncio.run(filtered())


def test_without_a_filter_the_picture_passes_as_it_is() -> None:
    assert through("") is PICTURE


def test_filter_sees_picture_and_prompt_and_its_picture_is_served(checks: Any) -> None:
    seen: list[tuple[Any, str]] = []

    def darken(pixels: Pixels, prompt: str) -> Pixels:
        seen.append((pixels.shape, prompt))
        return pixels // 7

    checks.darken = darken

    assert (through("shop_checks:darken") == 1).all()
    assert seen == [((4, 6, 3), "a cat")]


def test_refused_picture_fails_its_job_with_a_reason(checks: Any) -> None:
    checks.refuse = lambda pixels, prompt: None

    with pytest.raises(PermanentError, match="refused the picture") as caught:
        through("shop_checks:refuse")
    assert caught.value.case == "output-refused"


@pytest.mark.parametrize("given", [PICTURE[:2], PICTURE.astype(float), "picture", True])
def test_what_is_no_picture_of_the_same_size_is_never_served(checks: Any, given: object) -> None:
    checks.wrong = lambda pixels, prompt: given

    with pytest.raises(PermanentError, match="output filter shop_checks:wrong gave"):
        through("shop_checks:wrong")


def test_picture_is_not_served_when_the_filter_raises(checks: Any) -> None:
    def choke(pixels: Pixels, prompt: str) -> Pixels:
        raise RuntimeError("no classifier")

    checks.choke = choke

    with pytest.raises(RuntimeError, match="no classifier"):
        through("shop_checks:choke")


def test_filter_is_called_by_one_thread_at_a_time(checks: Any) -> None:
    inside: list[int] = []
    most: list[int] = []

    def count(pixels: Pixels, prompt: str) -> Pixels:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.001)
        inside.pop()
        return pixels

    checks.count = count

    async def many() -> None:
        check = OutputFilter("shop_checks:count")
        await asyncio.gather(*(check(PICTURE, "x") for _ in range(20)))

    asyncio.run(many())
    assert most == [1] * 20


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no_such_module_here:check", "No module named 'no_such_module_here'"),
        ("shop_checks:absent", "has no attribute 'absent'"),
        ("shop_checks:number", "is no function"),
    ],
)
def test_filter_that_is_not_there_is_told_when_the_worker_starts(checks: Any, spec: str, said: str) -> None:
    checks.number = 7

    with pytest.raises(BadFilter, match=said):
        OutputFilter(spec)
