"""The engine: claims batches, keeps their upstreams busy and records every result once."""
