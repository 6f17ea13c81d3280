"""The tables. ``seq`` is the order of creation, which every list and cursor follows."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# SQLite counts rows up by itself only for INTEGER.
_SEQ = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("resource", String(80), nullable=False),
    Column("purpose", String(40), nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("blob", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("status", String(20), nullable=False),
    Column("status_details", Text),
    Column("deleted_at", BigInteger),
    Column("bytes_removed", Integer, nullable=False, server_default="0"),
    Index("files_of_resource", "resource", "seq"),
    Index("files_by_blob", "blob", "bytes_removed"),
    Index("files_with_bytes", "bytes_removed", "seq"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("resource", String(80), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(40), nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("status", String(20), nullable=False),
    Column("file_id", String(80)),
    Column("file_expires_after", BigInteger),
    Index("uploads_of_resource", "resource", "status"),
)

parts = Table(
    "parts",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("upload_id", String(80), ForeignKey("uploads.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("blob", Text, nullable=False),
    Index("parts_by_blob", "blob"),
)

batches = Table(
    "batches",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("resource", String(80), nullable=False),
    Column("flavour", String(20), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", String(80), nullable=False),
    Column("completion_window", String(20), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("expiry", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("metadata", Text),
    Column("output_expires_after", BigInteger),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Column("errors", Text, nullable=False),
    Column("output_file_id", String(80)),
    Column("error_file_id", String(80)),
    Column("total", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("input_blob", Text),
    Column("model", Text),
    Column("deployment", Text),
    Column("usage", Text, nullable=False),
    Column("worker", String(80)),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),
    Column("prompt_tokens", BigInteger),
    Column("reserved_tokens", BigInteger, nullable=False, server_default="0"),
    Index("batches_of_resource", "resource", "seq"),
    Index("batches_by_status", "status", "seq"),
    Index("batches_by_input", "input_file_id"),
    Index("batches_by_key", "resource", "idempotency_key", unique=True),
    Index("batches_by_fingerprint", "resource", "fingerprint"),
    Index("batches_by_deployment", "resource", "deployment", "status"),
    Index("batches_by_creation", "resource", "flavour", "created_at"),
)

resources = Table(
    "resources",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("offer", String(20)),
)

quotas = Table(
    "quotas",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("resource", String(80), ForeignKey("resources.name"), nullable=False),
    Column("deployment", Text, nullable=False),
    Column("tokens", BigInteger),
    Index("quotas_of_resource", "resource", "deployment", unique=True),
)

keys = Table(
    "keys",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("resource", String(80), ForeignKey("resources.name"), nullable=False),
    Column("prefix", String(20), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("revoked_at", BigInteger),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("resource", String(80), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("deployment", String(255), primary_key=True),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
)

caps = Table(
    "caps",
    metadata,
    Column("resource", String(80), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("measure", String(10), primary_key=True),
    Column("amount", BigInteger, nullable=False),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("resource", String(80), nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", Text, nullable=False),
    Column("secret", String(80), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("old_secret", String(80)),
    Column("old_secret_until", Float, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index("webhook_endpoints_of_resource", "resource", "seq"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("endpoint_id", String(80), nullable=False),
    Column("event_id", String(80), nullable=False),
    Column("type", String(40), nullable=False),
    Column("batch_id", String(80), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String(20), nullable=False),
    Column("due_at", Float, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Index("webhook_deliveries_of_endpoint", "endpoint_id", "event_id", unique=True),
    Index("webhook_deliveries_by_due", "status", "due_at"),
    Index("webhook_deliveries_in_turn", "endpoint_id", "status", "due_at"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("endpoint_id", String(80), nullable=False),
    Column("event_id", String(80), nullable=False),
    Column("at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    Index("webhook_attempts_of_delivery", "endpoint_id", "event_id", "seq"),
)
