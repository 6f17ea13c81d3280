"""What tells a request that is sent again from a new one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the batches that are there can be repeated by none."""
    op.add_column("batches", sa.Column("idempotency_key", sa.String(255)))
    op.add_column("batches", sa.Column("fingerprint", sa.String(64)))
    # Where there is no key it is NULL, and no NULL equals another.
    op.create_index("batches_by_key", "batches", ["resource", "idempotency_key"], unique=True)
    op.create_index("batches_by_fingerprint", "batches", ["resource", "fingerprint"])
