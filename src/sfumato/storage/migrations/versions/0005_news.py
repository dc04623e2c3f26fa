"""What happens to jobs, in one line that can be followed."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "news",
        Column("job_id", Text, primary_key=True),
        Column("position", BigInteger, primary_key=True, comment="in the event log; 0 is the job message"),
        Column("number", BigInteger, nullable=False, comment="of the transaction that recorded it"),
        Column("owner", Text, nullable=False),
        Column("at", Double, nullable=False, comment="when it was recorded, by the database's clock"),
        Column("line", Text, nullable=False, comment="as in the job's row"),
    )
    op.create_index("news_in_order", "news", ["number", "job_id", "position"])
