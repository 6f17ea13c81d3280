"""Puts the service together from settings, runs it, and looks at its parts: the only package that names adapters."""
