"""Structured logs on standard error: events with fields, never bodies or keys."""

from __future__ import annotations

import logging
import sys

import structlog

from overnight.observability.plain import format_exception, without_controls

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Libraries(logging.Handler):
    """Passes on what libraries log: which one, the first line of its words, and no values, which may be a caller's."""

    def emit(self, record: logging.LogRecord) -> None:
        words = str(record.msg).partition("\n")[0]
        structlog.get_logger().error("library.trouble", library=record.name, words=words, exc_info=record.exc_info)


def configure(level: str, style: str) -> None:
    """Set up logging for the process; ``style`` is ``text`` or ``json``."""
    renderer: structlog.typing.Processor
    if style == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    logging.basicConfig(level=logging.ERROR, handlers=[_Libraries()], force=True)
    # What breaks a request is logged once, by `api/errors.py`.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            format_exception,
            without_controls,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
