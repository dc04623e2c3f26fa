"""The first schema: job rows and what the recorder remembers.

Each migration spells its tables out, so that it makes the same ones after tables.py has moved on.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, SmallInteger, Text, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    _jobs()
    op.create_table("forgotten", Column("job_id", Text, primary_key=True))
    op.create_table(
        "pending",
        Column("job_id", Text, primary_key=True),
        Column("position", BigInteger, primary_key=True),
        Column("at", Double, nullable=False),
        Column("event", Text, nullable=False, comment="as in the event log"),
    )
    op.create_table("cursors", Column("log", Text, primary_key=True), Column("cursor", Text, nullable=False))
    op.create_table(
        "parked",
        Column("log", Text, primary_key=True),
        Column("position", BigInteger, primary_key=True),
        Column("raw", Text, nullable=False),
        Column("why", Text, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        Column("id", Text, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("priority", SmallInteger, nullable=False, comment="rank, 0 is first"),
        Column("state", Text, nullable=False),
        Column("cost", BigInteger, nullable=False, comment="pixels × steps"),
        Column("created_at", Double, nullable=False),
        Column("due_at", Double, comment="expires_at while the job may still expire, NULL once it has ended"),
        Column("row", Text, nullable=False),
    )
    op.create_index("jobs_of_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_of_model", "jobs", ["model", "state", "priority", "created_at"])
    op.create_index("jobs_by_age", "jobs", ["created_at"])
    due = text("due_at IS NOT NULL")
    op.create_index("jobs_due", "jobs", ["due_at"], sqlite_where=due, postgresql_where=due)
