"""Why the service cannot start."""

from __future__ import annotations


class StartupError(Exception):
    """The service cannot start; ``hint`` says what to do, ``exit_code`` what to end with."""

    def __init__(self, message: str, hint: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
