"""Every metric in one typed table: `sfumato_<noun>_<unit>`, its kind, its labels, and what it means.

Labels never carry a job id; `model` is always the model's slug. docs/metrics.md has this table; a test compares them.
"""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["METRICS", "Metric"]

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
ROWS: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    `several` is what a gauge shows that several living processes of one host set: the newest value, where they speak of
    the same thing, or the sum, where each has a share of its own. What a dead process set is shown no more.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS
    several: Literal["newest", "sum"] = "newest"


METRICS: Final = (
    # Accepting
    Metric("sfumato_accepts_total", "counter", "Jobs answered 202.", ("model", "priority")),
    Metric("sfumato_refusals_total", "counter", "Requests refused, by problem type.", ("problem",)),
    Metric(
        "sfumato_protocol_requests_total",
        "counter",
        "Requests in another service's protocol: automatic1111, openai, replicate.",
        ("protocol",),
    ),
    Metric(
        "sfumato_rates_alone_total",
        "counter",
        "Requests that a gateway counted alone, because what counts them for all gateways did not answer.",
    ),
    Metric(
        "sfumato_quota_refusals_total",
        "counter",
        "Requests refused for a key's limit, by policy: requests (a second), jobs-in-flight, pixel-steps (a day).",
        ("policy",),
    ),
    Metric("sfumato_api_keys", "gauge", "Keys as gateways know them, by state: good, expired, revoked.", ("state",)),
    Metric(
        "sfumato_key_readings_total",
        "counter",
        "Times that a gateway read the keys from the database, by result: read, failed.",
        ("result",),
    ),
    Metric("sfumato_accept_seconds", "histogram", "Request to 202, without the client's sending time.", ("model",)),
    # Waiting
    Metric("sfumato_waiting_jobs", "gauge", "Jobs waiting in the dispatcher.", ("model", "priority")),
    Metric("sfumato_oldest_waiting_seconds", "gauge", "Age of the oldest waiting job.", ("model", "priority")),
    Metric("sfumato_handouts_total", "counter", "Work messages written.", ("model",)),
    Metric("sfumato_redeliveries_total", "counter", "Hand-outs with delivery above 0.", ("model",)),
    Metric("sfumato_wait_seconds", "histogram", "Accept to start.", ("model", "priority")),
    # Making
    Metric("sfumato_running_jobs", "gauge", "Jobs that workers have in hand.", ("model",), several="sum"),
    Metric(
        "sfumato_stage_seconds",
        "histogram",
        "Time of a job in a stage of its worker: fetch, decode, generate, filter, encode, store, decide.",
        ("model", "stage"),
    ),
    Metric(
        "sfumato_step_seconds",
        "histogram",
        "One model call for one batch, with the encoding of who begins in it and the decoding of who ends.",
        ("model",),
    ),
    Metric("sfumato_batch_rows", "histogram", "Rows in one model call.", ("model",), ROWS),
    Metric("sfumato_gpu_memory_used_bytes", "gauge", "Memory in use on a worker's GPU, by whoever.", ("device",)),
    Metric("sfumato_gpu_memory_total_bytes", "gauge", "Memory of a worker's GPU.", ("device",)),
    # Ending
    Metric("sfumato_outcomes_total", "counter", "Jobs ended by this process, by state.", ("model", "state")),
    Metric("sfumato_job_seconds", "histogram", "Accept to outcome, but for canceled jobs.", ("model", "priority")),
    Metric("sfumato_duplicate_generations_total", "counter", "Results made that another had made before.", ("model",)),
    Metric("sfumato_retries_total", "counter", "Attempts that ended in a planned retry.", ("model",)),
    Metric("sfumato_dead_letters_total", "counter", "Jobs failed after killing workers alone.", ("model",)),
    Metric("sfumato_expired_total", "counter", "Jobs that waited past their time.", ("model",)),
    # The service itself
    Metric("sfumato_desired_replicas", "gauge", "Workers that the controller wants.", ("model",)),
    Metric("sfumato_replicas", "gauge", "Workers that take jobs.", ("model",)),
    Metric("sfumato_restarts_total", "counter", "Processes started again after they had ended.", ("role",)),
    Metric("sfumato_recorded_total", "counter", "Changes folded into rows.", ("log",)),
    Metric(
        "sfumato_recorder_lag_seconds",
        "gauge",
        "Age of the oldest change that is not in the rows yet, or how long nothing could be recorded; 0: none missing.",
    ),
    Metric(
        "sfumato_webhook_deliveries_total",
        "counter",
        "Attempts to deliver a webhook, by result: delivered, failed (tried again later), given_up.",
        ("result",),
    ),
    Metric("sfumato_webhook_pending_deliveries", "gauge", "Webhooks not delivered yet and not given up."),
    Metric("sfumato_webhook_oldest_pending_seconds", "gauge", "Age of the oldest of them; 0: none."),
    Metric(
        "sfumato_webhook_late_seconds",
        "gauge",
        "How long the longest due webhook waits for a recorder to send it; 0: none is due.",
    ),
    Metric(
        "sfumato_webhook_attempt_seconds",
        "histogram",
        "One attempt to deliver a webhook, by result as above.",
        ("result",),
    ),
    Metric("sfumato_webhook_delivery_seconds", "histogram", "Event to its delivery, with all attempts before."),
    Metric("sfumato_swept_total", "counter", "Objects, rows and outcomes removed for their age.", ("kind",)),
    Metric("sfumato_disk_free_bytes", "gauge", "Room left on the disk of the data folder."),
    Metric("sfumato_disk_size_bytes", "gauge", "Size of the disk of the data folder."),
)
