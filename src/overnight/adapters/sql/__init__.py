"""Metadata in an SQL database: small rows for files, uploads and batches, never one for a request."""
