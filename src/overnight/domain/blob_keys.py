"""Under which keys of the blob store the files of a batch lie."""

from overnight.domain.batch import Batch

PLACES = ".places"


def index_key(batch: Batch) -> str:
    """Say where the index of the input is."""
    return f"batches/{batch.id}/index"


def output_key(batch: Batch) -> str:
    """Say where this epoch writes the output file: an owner that lost its lease cannot overwrite another's."""
    return f"batches/{batch.id}/{batch.epoch}.output.jsonl"


def error_key(batch: Batch) -> str:
    """Say where this epoch writes the error file."""
    return f"batches/{batch.id}/{batch.epoch}.error.jsonl"


def places_key(batch: Batch) -> str:
    """Say where this epoch writes where each request of its files lies (``domain/places.py``)."""
    return f"batches/{batch.id}/{batch.epoch}{PLACES}"
