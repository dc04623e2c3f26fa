"""What the controller decides, who may decide, and which hosts run workers."""

from alembic import op
from sqlalchemy import Column, Double, Integer, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "leases",
        Column("name", Text, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("until", Double, nullable=False),
    )
    op.create_table(
        "decisions",
        Column("model", Text, primary_key=True),
        Column("replicas", Integer, nullable=False),
        Column("why", Text, nullable=False),
        Column("at", Double, nullable=False),
    )
    op.create_table(
        "pools",
        Column("name", Text, primary_key=True),
        Column("places", Integer, nullable=False),
        Column("ends", Text, nullable=False),
        Column("at", Double, nullable=False),
    )
    op.create_table(
        "placements",
        Column("pool", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("replicas", Integer, nullable=False),
        Column("idlest", Text, nullable=False),
    )
