"""Every table, and the type that turns JSON text into the domain's values. Times are Unix seconds."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
)

from sfumato.core.events import JobRow, Lifecycle
from sfumato.core.frozen import Frozen

__all__ = [
    "REVISION",
    "Json",
    "api_keys",
    "cursors",
    "decisions",
    "deliveries",
    "endpoints",
    "forgotten",
    "jobs",
    "leases",
    "metadata",
    "news",
    "parked",
    "pending",
    "placements",
    "pools",
]

REVISION: Final = "0007"
"""The migration that makes exactly these tables; a test compares both."""

metadata: Final = MetaData()


class Json(TypeDecorator[Any]):
    """A value of the domain, stored as the JSON text it has on the wire."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[Frozen] = Frozen) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Frozen | None, dialect: Dialect) -> str | None:
        return None if value is None else value.model_dump_json()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Frozen | None:
        return None if value is None else self.of.model_validate_json(value)


jobs: Final = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, comment="rank, 0 is first"),
    Column("state", Text, nullable=False),
    Column("cost", BigInteger, nullable=False, comment="pixels × steps"),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, comment="expires_at while the job may still expire, NULL once it has ended"),
    Column("row", Json(JobRow), nullable=False),
    Index("jobs_of_owner", "owner", "created_at", "id"),
    # Few jobs fail: without these a list of them would read all others.
    Index("jobs_of_owner_in_state", "owner", "state", "created_at", "id"),
    Index("jobs_in_state", "state", "created_at", "id"),
    # How many of an owner's jobs wait before one of them is asked whenever its place is shown.
    Index("jobs_of_model", "model", "state", "owner", "priority", "created_at"),
    Index("jobs_by_age", "created_at"),
)
# Most rows have ended; the watch for expired ones must not pay for them.
Index("jobs_due", jobs.c.due_at, sqlite_where=jobs.c.due_at.is_not(None), postgresql_where=jobs.c.due_at.is_not(None))
# How many jobs an owner has is asked before each of his next ones is taken.
_UNENDED: Final = jobs.c.due_at.is_not(None)
Index("jobs_in_flight", jobs.c.owner, sqlite_where=_UNENDED, postgresql_where=_UNENDED)
# So is what they cost today; who has made a hundred thousand of them must not have as many rows read for it.
Index("jobs_spent", jobs.c.owner, jobs.c.created_at, jobs.c.cost)

# Apart from jobs, because a job may be forgotten before its row is written.
forgotten: Final = Table("forgotten", metadata, Column("job_id", Text, primary_key=True))

# Events whose job message has not been read yet.
pending: Final = Table(
    "pending",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("at", Double, nullable=False),
    Column("event", Text, nullable=False, comment="as in the event log"),
)

# What happens to jobs, in one line that can be followed: the lines of their rows, each as it was recorded.
news: Final = Table(
    "news",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, comment="in the event log; 0 is the job message"),
    Column("number", BigInteger, nullable=False, comment="of the transaction that recorded it"),
    Column("owner", Text, nullable=False),
    Column("at", Double, nullable=False, comment="when it was recorded, by the database's clock"),
    Column("line", Json(Lifecycle), nullable=False, comment="as in the job's row"),
    Index("news_in_order", "number", "job_id", "position"),
)

cursors: Final = Table(
    "cursors",
    metadata,
    Column("log", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
)

# Messages that this build can't read, for whoever upgrades or repairs.
parked: Final = Table(
    "parked",
    metadata,
    Column("log", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("raw", Text, nullable=False),
    Column("why", Text, nullable=False),
)

# Who may act where only one should; `until` is by the database's own clock, so hosts need not agree on theirs.
leases: Final = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)

# How many workers the controller wants of a model (its slug), and why.
decisions: Final = Table(
    "decisions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# The hosts that run workers, how many each, how often those of a model ended (slug → [count, how], as JSON), and when
# the host last said so by the database's clock.
pools: Final = Table(
    "pools",
    metadata,
    Column("name", Text, primary_key=True),
    Column("places", Integer, nullable=False),
    Column("ends", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# Which of the workers wanted run on which host; `idlest` names those that have least to do, first.
placements: Final = Table(
    "placements",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("idlest", Text, nullable=False),
)

# Who may ask for what. Rows stay when they are revoked: a service that had a key once is never open by itself again.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("prefix", Text, primary_key=True),
    Column("digest", Text, nullable=False, comment="SHA-256 of the key, hex"),
    Column("owner", Text, nullable=False),
    Column("scopes", Text, nullable=False, comment="separated by spaces"),
    Column("max_priority", Text, nullable=False),
    Column("rate", Double, comment="requests a second"),
    Column("in_flight", Integer, comment="jobs not ended"),
    Column("per_day", BigInteger, comment="pixels × steps"),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("weight", Double, comment="1 where it is NULL"),
)
# Where an owner's events go. The secrets sign, so they are kept as they are: a list of [secret, until or null].
endpoints: Final = Table(
    "endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("secrets", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("disabled_why", Text, nullable=False),
    Index("endpoints_of_owner", "owner"),
)

# One event of one job for one endpoint. `due_at` and `leased_until` are by the database's own clock.
deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True, comment="follows from job, event and endpoint"),
    Column("job_id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("position", BigInteger, nullable=False, comment="of the event in its log"),
    Column("at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("leased_until", Double, nullable=False),
    Column("receipt", Text, nullable=False, comment="whose lease it is"),
    Column("last_status", Integer),
    Column("last_error", Text, nullable=False),
    Column("row", Json(JobRow), nullable=False, comment="the job right after the event"),
    Index("deliveries_of_job", "job_id", "endpoint", "position"),
    Index("deliveries_of_owner", "owner", "at", "id"),
)
_pending = deliveries.c.state == "pending"
# Most have been delivered; the watch for due ones must not pay for them.
Index("deliveries_due", deliveries.c.due_at, sqlite_where=_pending, postgresql_where=_pending)
