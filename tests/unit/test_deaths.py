"""Workers that are killed before they could say why they don't come up."""

from sfumato.controller.deaths import Deaths
from sfumato.core.scaling import Ends, Pool


def _pools(*ends: int, how: str = "ended with status -9") -> list[Pool]:
    return [Pool(f"host-{number}", 1, {"sdxl": 1}, {"sdxl": Ends(count, how)}) for number, count in enumerate(ends)]


def test_workers_that_end_three_times_unheard_are_a_trouble() -> None:
    deaths = Deaths()
    assert [deaths.troubles(_pools(count), heard=[]) for count in (0, 1, 2)] == [{}] * 3
    assert deaths.troubles(_pools(3), []) == {"sdxl": "its worker ended with status -9, 3 times since one was heard of"}


def test_worker_that_was_heard_of_begins_the_count_anew() -> None:
    deaths = Deaths()
    deaths.troubles(_pools(0), [])
    assert deaths.troubles(_pools(2), heard=["sdxl"]) == {}
    assert deaths.troubles(_pools(4), []) == {}
    assert "3 times" in deaths.troubles(_pools(5), [])["sdxl"]
    assert deaths.troubles(_pools(5), heard=["sdxl"]) == {}


def test_ends_of_before_the_first_look_do_not_count() -> None:
    deaths = Deaths()
    assert deaths.troubles(_pools(7), []) == {}
    assert deaths.troubles(_pools(9), []) == {}
    assert "3 times" in deaths.troubles(_pools(10), [])["sdxl"]


def test_ends_of_several_hosts_are_counted_together() -> None:
    deaths = Deaths()
    deaths.troubles(_pools(0, 0), [])
    assert "3 times" in deaths.troubles(_pools(1, 2), [])["sdxl"]


def test_host_that_forgot_its_ends_does_not_hide_the_next_ones() -> None:
    deaths = Deaths()
    deaths.troubles(_pools(5), [])
    assert deaths.troubles(_pools(0), []) == {}
    assert "3 times" in deaths.troubles(_pools(3), [])["sdxl"]


def test_model_whose_hosts_are_gone_is_in_no_trouble() -> None:
    deaths = Deaths()
    deaths.troubles(_pools(0), [])
    assert deaths.troubles(_pools(3), [])
    assert deaths.troubles([], []) == {}
