import numpy as np
import pytest

from sfumato.core.errors import PermanentError
from sfumato.core.params import Sampler
from sfumato.engine.sampler import COLUMNS, TABLED, Table, table
from sfumato.engine.schedule import NoiseSchedule, UnsupportedSchedule

SCHEDULE = NoiseSchedule(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
DETERMINISTIC = (Sampler.EULER, Sampler.DDIM, Sampler.DPMPP_2M, Sampler.FLOW_MATCH_EULER)


def column(job: Table, name: str) -> list[float]:
    return list(job.rows[:, COLUMNS.index(name)])


@pytest.mark.parametrize("sampler", TABLED)
def test_table_has_a_row_for_each_evaluation(sampler: Sampler) -> None:
    assert table(sampler, SCHEDULE, 10, 4).rows.shape == (4, len(COLUMNS))


@pytest.mark.parametrize("sampler", TABLED)
def test_timesteps_fall(sampler: Sampler) -> None:
    t = column(table(sampler, SCHEDULE, 10, 10), "t")

    assert t == sorted(t, reverse=True)


@pytest.mark.parametrize("sampler", TABLED)
def test_numbers_are_finite(sampler: Sampler) -> None:
    cosine = NoiseSchedule(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    assert np.isfinite(table(sampler, cosine, 20, 20).rows).all()


@pytest.mark.parametrize("sampler", TABLED)
def test_weaker_strength_is_the_end_of_the_full_schedule(sampler: Sampler) -> None:
    full, part = table(sampler, SCHEDULE, 10, 10), table(sampler, SCHEDULE, 10, 3)

    assert column(part, "t") == column(full, "t")[-3:]


@pytest.mark.parametrize("sampler", TABLED)
def test_weaker_strength_begins_with_less_noise(sampler: Sampler) -> None:
    assert table(sampler, SCHEDULE, 10, 3).noise < table(sampler, SCHEDULE, 10, 10).noise


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(sampler: Sampler) -> None:
    assert not any(column(table(sampler, SCHEDULE, 10, 10), "d"))


@pytest.mark.parametrize("sampler", [Sampler.EULER_ANCESTRAL, Sampler.LCM])
def test_stochastic_samplers_draw_noise_in_every_step_but_the_last(sampler: Sampler) -> None:
    assert [bool(d) for d in column(table(sampler, SCHEDULE, 4, 4), "d")] == [True, True, True, False]


@pytest.mark.parametrize("sampler", [Sampler.EULER, Sampler.EULER_ANCESTRAL, Sampler.DPMPP_2M])
def test_last_step_lands_on_the_estimate(sampler: Sampler) -> None:
    job = table(sampler, SCHEDULE, 5, 5)

    assert [column(job, name)[-1] for name in "abcd"] == pytest.approx([0, 1, 0, 0])


def test_clamp_weighs_nothing_where_the_model_does_not_clip() -> None:
    assert not any(column(table(Sampler.DDIM, SCHEDULE, 5, 5), "e"))


@pytest.mark.parametrize(("steps", "evaluations"), [(5, 0), (5, 6)])
def test_count_outside_the_schedule_is_refused(steps: int, evaluations: int) -> None:
    with pytest.raises(PermanentError, match="can't be run"):
        table(Sampler.EULER, SCHEDULE, steps, evaluations)


def test_lcm_names_the_most_steps_it_can_make() -> None:
    with pytest.raises(PermanentError, match="at most 50"):
        table(Sampler.LCM, SCHEDULE, 51, 51)


@pytest.mark.parametrize("sampler", [Sampler.EULER, Sampler.DDIM, Sampler.DPMPP_2M])
def test_more_steps_than_were_trained_are_refused(sampler: Sampler) -> None:
    with pytest.raises(PermanentError, match="1000"):
        table(sampler, SCHEDULE, 1001, 5)


def test_start_that_the_clipped_schedule_has_cut_off_is_refused() -> None:
    clipped = NoiseSchedule(timestep_spacing="trailing", lambda_min_clipped=2.5)

    with pytest.raises(PermanentError, match="raise strength"):
        table(Sampler.DPMPP_2M, clipped, 10, 1)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"thresholding": True}, "thresholding"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"timestep_spacing": "random"}, "timestep_spacing"),
        ({"prediction_type": "score"}, "prediction_type"),
    ],
)
def test_config_that_no_table_can_follow_is_refused_by_name(config: dict[str, object], key: str) -> None:
    with pytest.raises(UnsupportedSchedule, match=key):
        NoiseSchedule.from_config(config)


def test_keys_of_other_schedulers_are_ignored() -> None:
    assert (
        NoiseSchedule.from_config({"_class_name": "X", "thresholding": False, "skip_prk_steps": True})
        == NoiseSchedule()
    )
