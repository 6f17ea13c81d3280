"""Everything the client raises, by what the caller can do about it.

ClientError
├── InvalidUrl          the base URL cannot be used: correct it
├── Unreachable         no answer came: start the server, or try again later
├── UnexpectedAnswer    something answered, but not a Batch API: check the URL
└── ApiError            the server refused: read `code`, `param` and `message`
    ├── NotAuthorised   the key is missing, wrong, or not allowed to do this
    └── NotFound        no such file or batch for this key
"""

from __future__ import annotations

from dataclasses import dataclass


class ClientError(Exception):
    """The base of all errors of the client."""


class InvalidUrl(ClientError):
    """The base URL is not an http or https address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"`{url}` is not an http or https URL")
        self.url = url


class Unreachable(ClientError):
    """The server did not answer: refused, timed out, or cut off in the middle."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"`{url}` does not answer ({reason})")
        self.url = url
        self.reason = reason


class UnexpectedAnswer(ClientError):
    """The server answered with success, but not with what the API promises."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"`{url}` answered, but not as a Batch API does ({reason})")
        self.url = url
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAdvice:
    """What the server said about calling again: seconds to wait, or not to (`x-should-retry: false`)."""

    after: float | None = None
    never: bool = False


class ApiError(ClientError):
    """The server refused the call and said why."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        body: bytes = b"",
        advice: RetryAdvice | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.body = body
        self.advice = advice or RetryAdvice()


class NotAuthorised(ApiError):
    """401 or 403: the API key is missing, wrong, or lacks the right."""


class NotFound(ApiError):
    """404: nothing under this id that this key may see."""
