"""On which host each worker runs."""

from sfumato.controller.placing import placed
from sfumato.core.scaling import Pool


def test_workers_stay_where_they_are() -> None:
    pools = [Pool("a", 4, {"restyle": 1}), Pool("b", 4, {"restyle": 2})]
    assert placed({"restyle": 3}, pools) == {"a": {"restyle": 1}, "b": {"restyle": 2}}


def test_new_workers_go_where_there_is_most_room() -> None:
    pools = [Pool("a", 4, {"restyle": 3}), Pool("b", 3, {})]
    assert placed({"restyle": 3, "sdxl": 2}, pools) == {"a": {"restyle": 3}, "b": {"sdxl": 2}}


def test_model_is_spread_over_hosts() -> None:
    pools = [Pool("a", 4, {}), Pool("b", 4, {})]
    assert placed({"restyle": 4}, pools) == {"a": {"restyle": 2}, "b": {"restyle": 2}}


def test_workers_of_a_host_that_went_go_to_the_others() -> None:
    assert placed({"restyle": 2}, [Pool("b", 4, {})]) == {"b": {"restyle": 2}}


def test_fewer_workers_leave_no_host_with_more_than_before() -> None:
    pools = [Pool("a", 4, {"restyle": 2}), Pool("b", 4, {"restyle": 2})]
    found = placed({"restyle": 3}, pools)
    assert sum(models["restyle"] for models in found.values()) == 3
    assert all(models["restyle"] <= 2 for models in found.values())


def test_no_host_gets_more_than_its_places() -> None:
    pools = [Pool("a", 1, {"gone": 1, "restyle": 3}), Pool("b", 0, {"sdxl": 1})]
    assert placed({"restyle": 5, "sdxl": 5}, pools) == {"a": {"restyle": 1}}


def test_model_that_is_no_longer_wanted_frees_its_place() -> None:
    assert placed({"restyle": 0, "sdxl": 1}, [Pool("a", 1, {"restyle": 1})]) == {"a": {"sdxl": 1}}


def test_without_hosts_there_is_nothing_to_place() -> None:
    assert placed({"restyle": 1}, []) == {}
