"""Puts the service together from settings, runs it, and looks at its parts: the only package that names adapters."""

from overnight.bootstrap.checkup import Check
from overnight.bootstrap.doctor import diagnose
from overnight.bootstrap.errors import StartupError
from overnight.bootstrap.keys import read_keys, with_keys
from overnight.bootstrap.quotas import with_quotas
from overnight.bootstrap.server import ReadyInfo, serve
from overnight.bootstrap.tokens import token_counters
from overnight.bootstrap.usage import prices, with_usage

__all__ = [
    "Check",
    "ReadyInfo",
    "StartupError",
    "diagnose",
    "prices",
    "read_keys",
    "serve",
    "token_counters",
    "with_keys",
    "with_quotas",
    "with_usage",
]
