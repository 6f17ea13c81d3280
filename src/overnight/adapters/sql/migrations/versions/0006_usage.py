"""What was used by day, and the caps on it."""

import json
from collections import Counter
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COUNTS = ("completed", "failed", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def upgrade() -> None:
    """Create the tables; what batches have counted so far is booked on the day on which they ended or began."""
    days = op.create_table(
        "usage_days",
        sa.Column("resource", sa.String(80), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("deployment", sa.String(255), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
    )
    op.create_table(
        "caps",
        sa.Column("resource", sa.String(80), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("measure", sa.String(10), primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )
    entries = [
        {"resource": resource, "day": day, "deployment": deployment, **{name: counts[name] for name in _COUNTS}}
        for (resource, day, deployment), counts in _used().items()
    ]
    if entries:
        op.bulk_insert(days, entries)


def _used() -> dict[tuple[str, str, str], Counter[str]]:
    """Add up what the batches say."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    query = sa.text(
        "SELECT resource, deployment, completed, failed, usage,"
        " COALESCE(completed_at, expired_at, cancelled_at, in_progress_at) AS moment"
        " FROM batches WHERE completed + failed > 0"
    )
    for row in op.get_bind().execute(query).mappings():
        day = datetime.fromtimestamp(row["moment"], UTC).strftime("%Y-%m-%d")
        counts = found.setdefault((row["resource"], day, row["deployment"] or ""), Counter())
        counts.update({"completed": row["completed"], "failed": row["failed"]} | json.loads(row["usage"]))
    return found
