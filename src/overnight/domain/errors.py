"""What can go wrong for a caller: one tree, told apart by what the caller can do about it.

Every error carries fields; ``api/errors.py`` alone turns them into HTTP.
"""


class ServiceError(Exception):
    """Base of all errors that a caller is told about.

    ``message`` says what happened, where and what to do; ``param`` names the field at fault;
    ``code`` is the machine-readable reason of CONTRACT sections 3.4 and 3.5, or ``None``.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidRequest(ServiceError):
    """The request is wrong as it stands; repeating it cannot help."""


class InvalidFileFormat(InvalidRequest):
    """The uploaded bytes cannot be a batch input file."""


class InvalidFileName(InvalidRequest):
    """The name of an uploaded file has the wrong suffix."""


class InvalidPurpose(InvalidRequest):
    """A file cannot be made for this purpose."""


class QuotaExceeded(InvalidRequest):
    """A limit on the number of stored things is reached."""


class TokenLimitExceeded(InvalidRequest):
    """A batch has more prompt tokens than its deployment may have enqueued now; it may fit when others have ended."""


class TooLarge(ServiceError):
    """More bytes were sent than this server accepts."""


class Unauthorized(ServiceError):
    """The key is missing or unknown."""


class Forbidden(ServiceError):
    """Whoever calls may not call from there."""


class NotFound(ServiceError):
    """There is no such object for this resource: foreign and unknown ids are told the same."""


class Conflict(ServiceError):
    """The object is in a state that does not allow the action; repeating it cannot help."""


class Unavailable(ServiceError):
    """The service cannot do this now; repeating it later may help."""


class TooManyRequests(ServiceError):
    """Something was asked for too often; ``wait`` is the number of seconds after which it can be asked for again."""

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.wait = wait
