"""A key's weight, and what finds an owner's waiting jobs of a model."""

from alembic import op
from sqlalchemy import Column, Double

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("api_keys", Column("weight", Double, comment="1 where it is NULL"))
    op.drop_index("jobs_of_model", "jobs")
    op.create_index("jobs_of_model", "jobs", ["model", "state", "owner", "priority", "created_at"])
