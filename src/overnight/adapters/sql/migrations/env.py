"""Runs migrations on the connection that the caller holds open."""

from alembic import context

from overnight.adapters.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
