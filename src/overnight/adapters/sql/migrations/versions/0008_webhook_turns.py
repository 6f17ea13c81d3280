"""Finding what each receiver of webhooks is to be told first without reading all that waits for it."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("webhook_deliveries_in_turn", "webhook_deliveries", ["endpoint_id", "status", "due_at"])
