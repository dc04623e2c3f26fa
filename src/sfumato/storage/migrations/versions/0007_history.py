"""What finds an owner's jobs, or everybody's, by how they stand."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_index("jobs_of_owner_in_state", "jobs", ["owner", "state", "created_at", "id"])
    op.create_index("jobs_in_state", "jobs", ["state", "created_at", "id"])
