"""The rivals' formulas give what those projects' own tests expect."""

import pytest

from sfumato.controller.simulation.rivals import Hpa, RayDelays, capped_lag, hpa_desired, hpa_ramped, ray_desired


@pytest.mark.parametrize(
    ("current", "metric", "target", "tolerance", "expected"),
    [
        (3, 8600, 2150, 0.1, 4),
        (5, 8600, 2867, 0.1, 3),
        (3, 8600, 2900, 0.1, 3),
        (3, 8600, 2800, 0.01, 4),
    ],
    ids=["scale up", "scale down", "within default tolerance", "outside configurable 1% tolerance"],
)
def test_pods_for_an_external_metric_per_pod(
    current: int, metric: float, target: float, tolerance: float, expected: int
) -> None:
    """kubernetes/kubernetes pkg/controller/podautoscaler/replica_calculator_test.go,
    TestReplicaCalcExternalPerPodMetric."""
    assert hpa_desired(current, metric, target, tolerance) == expected


@pytest.mark.parametrize(
    ("told", "desired", "expected"),
    [
        ([], 5, 5),
        ([(-120.0, 4), (-60.0, 5)], 3, 5),
        ([(-120.0, 1), (-60.0, 2)], 3, 3),
        ([(-600.0, 10), (-540.0, 9)], 3, 3),
    ],
    ids=["empty log", "stabilize", "no stabilize", "no stabilize, old recommendations"],
)
def test_pods_stay_at_the_highest_recommendation_of_the_window(
    told: list[tuple[float, int]], desired: int, expected: int
) -> None:
    """kubernetes/kubernetes pkg/controller/podautoscaler/horizontal_test.go, TestNormalizeDesiredReplicas."""
    hpa = Hpa(stabilization_s=300.0)
    hpa.told.extend(told)
    assert hpa.decide(current=5, metric=desired, target=1, most=100, now=0.0) == expected


def test_pods_double_or_rise_by_four_in_one_period() -> None:
    """kubernetes.io, "Horizontal Pod Autoscaling", default behaviour."""
    assert [hpa_ramped(1, 100), hpa_ramped(3, 100), hpa_ramped(10, 100), hpa_ramped(3, 4)] == [5, 7, 20, 4]


@pytest.mark.parametrize(("lag", "expected"), [(2, 2), (7, 3)])
def test_no_more_pods_than_partitions(lag: int, expected: int) -> None:
    """kedacore/keda tests/scalers/kafka/kafka_test.go, testEarliestPolicy: lagThreshold 1, three partitions; two
    messages, then five more."""
    told = capped_lag(lag, threshold=1, partitions=3)
    assert hpa_desired(1, told, 1) == expected


@pytest.mark.parametrize("requests", [20, 100, 10])
def test_replicas_follow_the_ongoing_requests(requests: int) -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py,
    test_single_replica_receives_all_requests: four replicas, target 5."""
    assert ray_desired(requests, 4, 5) == requests / 5


def test_replicas_that_do_not_run_yet_are_not_counted() -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py, test_replicas_delayed_startup."""
    delays = RayDelays(upscale_delay_s=0.0, downscale_delay_s=100_000.0)
    first = delays.decide(1, ray_desired(100, 1, 1), 0.0)
    still = delays.decide(first, ray_desired(100, 1, 1), 1.0)
    more = delays.decide(still, ray_desired(123, 3, 1), 2.0)
    assert [first, still, more, delays.decide(more, ray_desired(10, 4, 1), 3.0)] == [100, 100, 123, 123]


def test_a_small_factor_keeps_no_replica_for_ever() -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py,
    test_scaling_factor_scale_down_to_0_replicas: from five with a downscaling factor of 0.2."""
    delays, replicas = RayDelays(0.0, 0.0), 5
    for second in range(5):
        replicas = delays.decide(replicas, ray_desired(0, replicas, 2, downscaling_factor=0.2), float(second))
    assert replicas == 0


def test_a_large_factor_stops_at_one_before_nothing() -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py,
    test_scaling_factor_scale_down_to_0_replicas: from five with a downscaling factor of 10."""
    delays = RayDelays(0.0, 0.0)
    first = delays.decide(5, max(0, ray_desired(0, 5, 2, downscaling_factor=10)), 0.0)
    second = delays.decide(first, max(0, ray_desired(0, 1, 2, downscaling_factor=10)), 1.0)
    assert [first, second] == [1, 0]


def test_changes_wait_for_their_delay_and_start_over_when_interrupted() -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py, test_upscale_downscale_delay."""
    delays = RayDelays(upscale_delay_s=30.0, downscale_delay_s=600.0)
    assert [delays.decide(1, 2, float(second)) for second in (0, 15, 29, 30)] == [1, 1, 1, 2]
    assert [delays.decide(2, 0, float(second)) for second in (31, 330, 630, 631)] == [2, 2, 2, 1]
    assert [delays.decide(1, 0, float(second)) for second in (632, 1_231, 1_232)] == [1, 1, 0]
    assert [delays.decide(1, wanted, float(second)) for second, wanted in ((1_300, 2), (1_315, 0), (1_316, 2))] == [
        1
    ] * 3
    assert [delays.decide(1, 2, float(second)) for second in (1_331, 1_345, 1_346)] == [1, 1, 2]


@pytest.mark.parametrize("delay_s", [30.0, 0.0])
def test_what_fluctuates_faster_than_the_delay_changes_nothing(delay_s: float) -> None:
    """ray-project/ray python/ray/serve/tests/unit/test_autoscaling_policy.py, test_fluctuating_ongoing_requests."""
    delays = RayDelays(delay_s, delay_s)
    up = [delays.decide(1, ray_desired(100, 1, 50), 2.0 * trial) for trial in range(1)]
    down = [delays.decide(2, ray_desired(40, 2, 50), 1.0)]
    assert (up, down) == (([1], [2]) if delay_s else ([2], [1]))
