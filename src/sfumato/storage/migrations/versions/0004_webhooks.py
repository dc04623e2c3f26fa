"""Webhooks: where they go, and what is to be delivered."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, Text, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "endpoints",
        Column("id", Text, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("url", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("events", Text, nullable=False),
        Column("secrets", Text, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("disabled_why", Text, nullable=False),
    )
    op.create_index("endpoints_of_owner", "endpoints", ["owner"])
    op.create_table(
        "deliveries",
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
        Column("row", Text, nullable=False, comment="the job right after the event"),
    )
    op.create_index("deliveries_of_job", "deliveries", ["job_id", "endpoint", "position"])
    op.create_index("deliveries_of_owner", "deliveries", ["owner", "at", "id"])
    pending = text("state = 'pending'")
    op.create_index("deliveries_due", "deliveries", ["due_at"], sqlite_where=pending, postgresql_where=pending)
