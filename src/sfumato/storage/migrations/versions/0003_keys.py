"""API keys, and what finds the jobs of an owner that have not ended, and what they cost."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, Text, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "api_keys",
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
    )
    unended = text("due_at IS NOT NULL")
    op.create_index("jobs_in_flight", "jobs", ["owner"], sqlite_where=unended, postgresql_where=unended)
    op.create_index("jobs_spent", "jobs", ["owner", "created_at", "cost"])
