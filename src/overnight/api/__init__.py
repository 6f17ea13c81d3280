"""The HTTP API: wire types, routes on every prefix, errors, keys."""
