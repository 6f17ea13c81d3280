"""Quotas: what a batch reserves, a resource's offer and its own numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; batches that run already reserve nothing."""
    op.add_column("batches", sa.Column("prompt_tokens", sa.BigInteger()))
    op.add_column("batches", sa.Column("reserved_tokens", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("batches_by_deployment", "batches", ["resource", "deployment", "status"])
    op.add_column("resources", sa.Column("offer", sa.String(20)))
    op.create_table(
        "quotas",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("resource", sa.String(80), sa.ForeignKey("resources.name"), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger()),
    )
    op.create_index("quotas_of_resource", "quotas", ["resource", "deployment"], unique=True)
