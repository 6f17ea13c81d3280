"""Finding which blobs are named, and which files and uploads have something left to remove, without reading all."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("files_by_blob", "files", ["blob", "bytes_removed"])
    op.create_index("files_with_bytes", "files", ["bytes_removed", "seq"])
    op.create_index("parts_by_blob", "parts", ["blob"])
