"""What a model allows is resolved and refused in one place, in words that say what to do."""

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.core.params import ModelRules, ParamsRequest, ResizeMode, Sampler, Shape, evaluations, nearest_shape

RULES = ModelRules(
    shapes=(Shape(64, 64), Shape(96, 48), Shape(48, 96)), size_multiple=16, max_pixels=128 * 128, max_steps=60
)
SQUARE = Shape(500, 500)


def test_what_the_caller_left_out_comes_from_the_rules() -> None:
    params = RULES.resolve(ParamsRequest(prompt="x"), SQUARE, seed=11)
    assert (params.strength, params.num_inference_steps, params.seed) == (0.6, 30, 11)
    assert (params.shape, params.exact) == (Shape(64, 64), False)


@pytest.mark.parametrize(
    ("size", "bucket"), [(Shape(4000, 2000), Shape(96, 48)), (Shape(100, 260), Shape(48, 96)), (SQUARE, Shape(64, 64))]
)
def test_a_picture_goes_to_the_bucket_of_the_nearest_aspect(size: Shape, bucket: Shape) -> None:
    assert nearest_shape(size, RULES.shapes) == bucket


def test_an_asked_size_is_exact() -> None:
    params = RULES.resolve(ParamsRequest(width=80, height=64), SQUARE, seed=1)
    assert (params.shape, params.exact) == (Shape(80, 64), True)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (ParamsRequest(strength=0.0), "strength is 0.0; it must be above 0"),
        (ParamsRequest(strength=1.5), "at most 1"),
        (ParamsRequest(num_inference_steps=0), "1 to 60"),
        (ParamsRequest(num_inference_steps=61), "1 to 60"),
        (ParamsRequest(strength=0.1, num_inference_steps=5), "ask for at least 11 steps"),
        (ParamsRequest(guidance_scale=-1), "guidance_scale"),
        (ParamsRequest(seed=-5), "seed"),
        (ParamsRequest(sampler=Sampler.FLOW_MATCH_EULER), "is not one of this model's: euler"),
        (ParamsRequest(sampler=Sampler.LCM, num_inference_steps=51), "1 to 50 with sampler lcm"),
        (ParamsRequest(width=64), "both width and height"),
        (ParamsRequest(resize_mode=ResizeMode.FILL), "give width and height too"),
        (ParamsRequest(width=65, height=64), "multiple of 16"),
        (ParamsRequest(width=160, height=160), "at most 16384"),
        (ParamsRequest(prompt="x" * 4001), "4001 characters"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_its_range(asked: ParamsRequest, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        RULES.resolve(asked, SQUARE, seed=1)


def test_all_that_a_model_cannot_do_is_said_at_once() -> None:
    asked = ParamsRequest(strength=2.0, num_inference_steps=0, guidance_scale=99, seed=-1, width=65, height=64)
    with pytest.raises(InvalidRequest) as refused:
        RULES.resolve(asked, SQUARE, seed=1)
    for name in ("strength is 2.0", "num_inference_steps is 0", "guidance_scale is 99", "seed is -1", "width is 65"):
        assert name in refused.value.detail
    assert len(RULES.faults(asked)) == 5


def test_steps_that_run_follow_strength() -> None:
    assert [evaluations(20, strength, Sampler.EULER) for strength in (0.04, 0.5, 0.99, 1.0)] == [0, 10, 19, 20]


def test_flow_matching_rounds_the_steps_that_run_up() -> None:
    counts = [evaluations(20, strength, Sampler.FLOW_MATCH_EULER) for strength in (0.04, 0.5, 0.99, 1.0)]

    assert counts == [1, 10, 20, 20]


def test_the_steps_named_in_a_refusal_are_enough() -> None:
    for hundredths in range(1, 100):
        strength = hundredths / 100
        try:
            RULES.resolve(ParamsRequest(strength=strength, num_inference_steps=1), SQUARE, seed=1)
        except InvalidRequest as error:
            need = int(error.detail.split("at least ")[1].split()[0])
            assert evaluations(need, strength, RULES.sampler) >= 1


def test_rules_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 16"):
        RULES.model_copy(update={"shapes": (Shape(60, 64),)}).check()
