"""The jobs that wait, each priority apart."""

from sfumato.core.job import Priority
from sfumato.dispatcher.waiting import Waiting
from tests.support import NOW, job_id, make_job


def waiting(*priorities: str) -> Waiting:
    """Jobs 1, 2, … of these priorities; each expires a second after the one before."""
    found = Waiting()
    for number, priority in enumerate(priorities, 1):
        found.put(make_job(number, priority=priority, expires_at=NOW + number))
    return found


def test_first_to_expire_is_first_whatever_its_priority() -> None:
    assert waiting("low", "high").first() == (NOW + 1, job_id(1))
    assert Waiting().first() is None


def test_those_that_expire_are_at_most_so_many() -> None:
    jobs = waiting("low", "high", "low", "normal")
    assert sorted(jobs.up_to(NOW + 3, 10)) == [job_id(1), job_id(2), job_id(3)]
    assert len(jobs.up_to(NOW + 4, 2)) == 2


def test_each_priority_tells_how_many_wait_and_who_is_the_oldest() -> None:
    jobs = waiting("low", "high", "low")
    jobs.discard(job_id(1))
    jobs.discard(job_id(9))
    assert jobs.by_priority() == {
        Priority.HIGH: (1, job_id(2)),
        Priority.NORMAL: (0, ""),
        Priority.LOW: (1, job_id(3)),
    }


def test_a_job_that_is_put_twice_waits_once() -> None:
    jobs = waiting("low")
    jobs.put(make_job(1, priority="low", expires_at=NOW + 1))
    assert jobs.by_priority()[Priority.LOW] == (1, job_id(1))
