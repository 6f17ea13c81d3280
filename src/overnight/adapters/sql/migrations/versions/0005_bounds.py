"""Counting what a resource has made lately without reading all of it."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("batches_by_creation", "batches", ["resource", "flavour", "created_at"])
    op.create_index("uploads_of_resource", "uploads", ["resource", "status"])
