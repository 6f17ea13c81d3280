"""Which vendor's dialect of the Batch API a caller speaks."""

from enum import StrEnum


class Flavour(StrEnum):
    """The dialect of a route, kept on each batch made through it."""

    OPENAI = "openai"
    AZURE = "azure"
