"""The broker of a cluster: Apache Kafka, shared by any number of hosts."""

import asyncio
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sfumato.broker.kafka_checks import Span, complaints
from sfumato.broker.kafka_client import Access
from sfumato.broker.kafka_events import KafkaEvents
from sfumato.broker.kafka_follower import KafkaFollower
from sfumato.broker.kafka_jobs import KafkaJobs
from sfumato.broker.kafka_producer import KafkaProducer
from sfumato.broker.kafka_protocol import GroupProtocol, Groups
from sfumato.broker.kafka_topics import EVENT_PARTITIONS, Topic, Topics
from sfumato.broker.kafka_work import KafkaWork
from sfumato.core.errors import UnusableStore
from sfumato.core.events import Event, Unreadable, decode_event, decode_job
from sfumato.core.job import Job

__all__ = ["KafkaBroker"]

DAY_S: Final = 86_400.0


class KafkaBroker:
    """Opens logs and queues as topics `<prefix>.jobs|work|events|dead.<slug>` (core.ports.Broker), made when missing.

    `replication` is the number of copies of each message; one broker less may be there for a message to be taken.
    A model's work has `work_partitions` lanes: no more workers than that get work at the same time. A reader or
    receiver silent for `takeover_s` is taken for dead. `log_keep_s` and `work_keep_s` are for topics made here. What is
    written is unknown when Kafka did not acknowledge it within `answer_s`.
    """

    def __init__(
        self,
        servers: str,
        *,
        takeover_s: float,
        replication: int = 1,
        work_partitions: int = 16,
        group_protocol: GroupProtocol = "auto",
        log_keep_s: float = 7 * DAY_S,
        work_keep_s: float = 2 * DAY_S,
        answer_s: float = 1.8,
        prefix: str = "sfumato",
        security_protocol: str = "plaintext",
        sasl_mechanism: str = "",
        sasl_username: str = "",
        sasl_password: str = "",
        ssl_ca: Path | None = None,
        ssl_certificate: Path | None = None,
        ssl_key: Path | None = None,
    ) -> None:
        self._access = Access(
            servers, security_protocol, sasl_mechanism, sasl_username, sasl_password, ssl_ca, ssl_certificate, ssl_key
        )
        self._prefix, self._work_partitions = prefix, work_partitions
        self._log_keep_s, self._work_keep_s = log_keep_s, work_keep_s
        self._topics = Topics(self._access, replication, answer_s)
        self._producer = KafkaProducer(self._access, self._topics, answer_s)
        self._groups = Groups(self._access, self._topics, takeover_s, group_protocol)
        self._ends: list[KafkaJobs | KafkaWork | KafkaEvents] = []

    async def reach(self) -> None:
        """Ask Kafka anything. Raises TransientError when it does not answer, UnusableStore for wrong settings."""
        await self._topics.listed()

    async def check(
        self, models: Iterable[str], *, job_wait_s: float, input_keep_s: float, result_keep_s: float
    ) -> None:
        """Make the topics of these models (slugs), and compare what they and the brokers keep with what we need.

        Raises:
            UnusableStore: something is lost too early, or kept for too long; the detail says what to change.
            TransientError: Kafka did not answer.
        """
        spans: list[Span] = []
        why = "inputs must be gone before them (SFUMATO_INPUT_KEEP_S) and results after them (SFUMATO_RESULT_KEEP_S)"
        in_hand = "a job may wait longer than that (SFUMATO_JOB_WAIT_S)"
        for model in models:
            spans += [
                Span(topic, input_keep_s, result_keep_s, why)
                for topic in (self._of_jobs(model), self._of_events(model))
            ]
            spans.append(Span(self._of_work(model), job_wait_s, math.inf, in_hand))
        if not spans:
            return
        for span in spans:
            await self._topics.ready(span.topic)
        classic = await self._groups.classic(spans[0].topic.name)
        found = await asyncio.to_thread(complaints, self._topics, spans, self._groups.takeover_s, classic)
        if found:
            raise UnusableStore(f"Kafka can't be used as it is set up: {'; '.join(found)}.")

    def _of_jobs(self, model: str) -> Topic:
        return Topic(f"{self._prefix}.jobs.{model}", 1, self._log_keep_s)

    def _of_work(self, model: str) -> Topic:
        return Topic(f"{self._prefix}.work.{model}", self._work_partitions, self._work_keep_s, grows=True)

    def _of_events(self, model: str) -> Topic:
        return Topic(f"{self._prefix}.events.{model}", EVENT_PARTITIONS, self._log_keep_s)

    def jobs(self, model: str) -> KafkaJobs:
        topic = self._of_jobs(model)
        follower: KafkaFollower[Job | Unreadable] = KafkaFollower(self._access, self._topics, topic, decode_job)
        end = KafkaJobs(topic, self._topics, self._producer, self._groups, follower)
        self._ends.append(end)
        return end

    def work(self, model: str) -> KafkaWork:
        dead = Topic(f"{self._prefix}.dead.{model}", 1, self._log_keep_s)
        end = KafkaWork(self._of_work(model), dead, self._topics, self._producer, self._groups)
        self._ends.append(end)
        return end

    def events(self, model: str) -> KafkaEvents:
        topic = self._of_events(model)
        follower: KafkaFollower[Event | Unreadable] = KafkaFollower(self._access, self._topics, topic, decode_event)
        end = KafkaEvents(topic, self._producer, follower)
        self._ends.append(end)
        return end

    async def trim(self, before: float) -> int:
        """Nothing: Kafka removes by itself what is older than a topic keeps."""
        return 0

    async def close(self) -> None:
        """Close every end, and send what was handed over."""
        for end in self._ends:
            await end.close()
        await self._producer.close()
        await self._topics.close()
