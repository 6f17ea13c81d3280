"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _create_files()
    _create_uploads()
    _create_batches()


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(80), nullable=False, unique=True),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("blob", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("status_details", sa.Text),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("bytes_removed", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("files_of_resource", "files", ["resource", "seq"])


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(80), nullable=False, unique=True),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("mime_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("file_id", sa.String(80)),
        sa.Column("file_expires_after", sa.BigInteger),
    )
    op.create_table(
        "parts",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("upload_id", sa.String(80), sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("blob", sa.Text, nullable=False),
    )
    op.create_index("ix_parts_upload_id", "parts", ["upload_id"])


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(80), nullable=False, unique=True),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("flavour", sa.String(20), nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("input_file_id", sa.String(80), nullable=False),
        sa.Column("completion_window", sa.String(20), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("expiry", sa.String(20), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.Text),
        sa.Column("output_expires_after", sa.BigInteger),
        sa.Column("in_progress_at", sa.BigInteger),
        sa.Column("finalizing_at", sa.BigInteger),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("expired_at", sa.BigInteger),
        sa.Column("cancelling_at", sa.BigInteger),
        sa.Column("cancelled_at", sa.BigInteger),
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("output_file_id", sa.String(80)),
        sa.Column("error_file_id", sa.String(80)),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_blob", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("deployment", sa.Text),
        sa.Column("usage", sa.Text, nullable=False),
        sa.Column("worker", sa.String(80)),
        sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
    )
    op.create_index("batches_of_resource", "batches", ["resource", "seq"])
    op.create_index("batches_by_status", "batches", ["status", "seq"])
    op.create_index("batches_by_input", "batches", ["input_file_id"])
