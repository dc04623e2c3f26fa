"""What the rivals compute, from their documentation, as functions of numbers; `policies` plays them.

KEDA: a Kafka trigger tells the lag, cut to partitions · threshold, to a HorizontalPodAutoscaler as a metric with an
average value per pod; KEDA itself only switches between 0 and 1, every pollingInterval, and to 0 once nothing was
active for cooldownPeriod (keda.sh, "Apache Kafka" and "ScaledObject specification").

HorizontalPodAutoscaler, every 15 s: ceil(metric / target), nothing if that is within a tolerance of 10 %; at most
four pods or twice as many in 15 s; never below the highest recommendation of the last 300 s (kubernetes.io,
"Horizontal Pod Autoscaling").

Ray Serve: replicas · (ongoing requests / (replicas · target)), with a factor on the change, taken once it was wanted
for upscale_delay_s or downscale_delay_s on end; from 0 at once; never to 0 but from 1 (docs.ray.io, "Advanced Ray
Serve Autoscaling").
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Hpa", "RayDelays", "capped_lag", "hpa_desired", "hpa_ramped", "ray_desired"]

HPA_SYNC_S: Final = 15.0
TOLERANCE: Final = 0.1


def capped_lag(lag: int, threshold: int, partitions: int) -> int:
    """The lag that KEDA tells: more consumers than partitions would have nothing to read."""
    return partitions * threshold if lag // threshold > partitions else lag


def hpa_desired(current: int, metric: float, target: float, tolerance: float = TOLERANCE) -> int:
    """Pods for an external metric with an average value of `target` per pod, before behaviour and bounds."""
    if abs(1.0 - metric / (target * current)) <= tolerance:
        return current
    return math.ceil(metric / target)


def hpa_ramped(current: int, wanted: int) -> int:
    """At most four pods more, or twice as many, in one period of 15 s."""
    return min(wanted, max(current + 4, 2 * current))


@dataclass(slots=True)
class Hpa:
    """One HorizontalPodAutoscaler with its recommendations of `stabilization_s`."""

    stabilization_s: float = 300.0
    told: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, current: int, metric: float, target: float, most: int, now: float) -> int:
        """Pods from now on, 1 to `most`; asked every 15 s."""
        desired = hpa_desired(current, metric, target)
        while self.told and self.told[0][0] <= now - self.stabilization_s:
            self.told.popleft()
        highest = max((count for _, count in self.told), default=desired)
        self.told.append((now, desired))
        # Stabilised towards the present count: what was recommended higher keeps pods, it does not add any.
        stable = desired if desired >= current else min(current, max(highest, desired))
        return max(1, min(hpa_ramped(current, stable), most))


def ray_desired(
    requests: float, running: int, target: float, upscaling_factor: float = 1.0, downscaling_factor: float = 1.0
) -> int:
    """Replicas for so many ongoing requests, while `running` (at least one) serve them."""
    change = requests / target - running
    scaled = math.ceil(running + (upscaling_factor if change > 0 else downscaling_factor) * change)
    # A small factor must not keep a replica for ever.
    return scaled - 1 if math.ceil(requests / target) < running and scaled == running else scaled


@dataclass(slots=True)
class RayDelays:
    """For how long a change has been wanted, in one direction."""

    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    direction: int = 0
    since_s: float = 0.0

    def decide(self, target: int, wanted: int, now: float) -> int:
        """The new target: `wanted` once it was on the same side of `target` for the delay, never past 1 to 0."""
        direction = (wanted > target) - (wanted < target)
        if direction != self.direction:
            self.direction, self.since_s = direction, now
        delay_s = self.upscale_delay_s if direction > 0 else self.downscale_delay_s
        if not direction or now - self.since_s < delay_s:
            return target
        self.direction = 0
        return wanted if direction > 0 or target == 1 else max(wanted, 1)
