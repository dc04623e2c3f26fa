"""The training's parts that decide without learning: targets, prompts, files, time."""

import random
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.learner import Course, Learner
from training.prompts import prompt
from training.render import COLORLESS, render, render_mixed
from training.stage import Budget
from training.words import MOOD_WORDS, MOODS, STYLE_WORDS, STYLES


def pictures(count: int = 1, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_the_same_for_the_same_picture_and_keeps_its_size(style: str) -> None:
    x = pictures()

    once, again = render(x, style, "none"), render(x, style, "none")

    assert once.shape == x.shape
    assert torch.equal(once, again)
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    assert style == "photo" or not torch.equal(once, x)


@pytest.mark.parametrize("mood", MOODS[1:])
def test_a_mood_changes_the_light(mood: str) -> None:
    x = pictures()
    assert float((render(x, "photo", mood) - x).abs().mean()) > 0.02


def test_a_mixed_batch_is_its_pictures_one_by_one() -> None:
    x = pictures(16)
    style, mood = torch.arange(16) % len(STYLES), torch.arange(16) % len(MOODS)

    together = render_mixed(x, style, mood)

    for number in range(16):
        alone = render(x[number : number + 1], STYLES[int(style[number])], MOODS[int(mood[number])])
        # Sums in another order may tip single pixels over a threshold.
        assert float((together[number : number + 1] - alone).abs().mean()) < 1e-3


def test_styles_without_colours_are_tinted_by_a_mood() -> None:
    red, _, blue = render(pictures(), "ink", "blue").mean((0, 2, 3)).tolist()
    assert "ink" in COLORLESS
    assert blue > red


def test_a_prompt_has_a_word_of_its_style_and_of_its_mood() -> None:
    dice = random.Random(5)
    for _ in range(300):
        style, mood = dice.choice(STYLES[1:]), dice.choice(MOODS[1:])
        text = prompt(style, mood, dice).lower()
        assert any(word in text for word in STYLE_WORDS[style])
        assert any(word in text for word in MOOD_WORDS[mood])


def test_a_file_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state" / "x.pt"
    checkpoint.save(file, {"step": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.checkpoint.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(file, {"step": 2})

    assert checkpoint.load(file) == {"step": 1}
    assert checkpoint.load(tmp_path / "none.pt") is None


def test_a_learner_goes_on_from_its_file(tmp_path: Path) -> None:
    def fresh() -> Learner:
        torch.manual_seed(1)
        return Learner(torch.nn.Conv2d(3, 3, 3), torch.float32, 0.1, (0.9, 0.9), 0.0)

    first, second = fresh(), fresh()
    first.learn(first.net(pictures()).square().mean(), 1.0, 0.9)
    first.save(tmp_path / "x.pt", spent_s=7.0)

    assert fresh().restore(tmp_path / "none.pt") == 0.0
    assert second.restore(tmp_path / "x.pt") == 7.0
    assert second.step == 1
    for one in (first, second):
        one.learn(one.net(pictures()).square().mean(), 1.0, 0.9)
    begun = fresh().mean.weight
    assert not torch.equal(first.mean.weight, begun), "the running mean follows what is learnt"
    assert (first.mean.weight - begun).norm() <= (first.net.weight - begun).norm() * 1.01
    assert torch.equal(first.net.weight, second.net.weight)
    assert torch.equal(first.mean.weight, second.mean.weight)


def test_rate_is_full_first_and_falls_to_its_floor() -> None:
    course = Course(hold=0.4, floor=0.01, refresh_every=1)
    rates = [course.rate(share / 100) for share in range(101)]
    assert rates[:41] == [1.0] * 41
    assert rates == sorted(rates, reverse=True)
    assert course.rate(0.7) == pytest.approx(0.5)
    assert rates[-1] == 0.01


def test_a_stage_that_has_spent_its_time_has_one_turn_more() -> None:
    assert list(Budget("stage", total_s=5.0, spent_s=6.0).turns()) == [1.0]
