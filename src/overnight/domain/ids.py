"""The shapes of our identifiers; the randomness in them is handed in."""

from typing import NewType
from uuid import UUID

from overnight.domain.flavour import Flavour

ResourceId = NewType("ResourceId", str)
FileId = NewType("FileId", str)
BatchId = NewType("BatchId", str)
UploadId = NewType("UploadId", str)
PartId = NewType("PartId", str)
WorkerId = NewType("WorkerId", str)
KeyId = NewType("KeyId", str)
EndpointId = NewType("EndpointId", str)
EventId = NewType("EventId", str)

DEFAULT_RESOURCE = ResourceId("default")

# No resource can be created with this name. It owns nothing; keys that manage the others belong to it.
ADMIN_RESOURCE = ResourceId("_admin")


def batch_id(flavour: Flavour, entropy: str) -> BatchId:
    """Name a batch as its vendor would; ``entropy`` is 32 hexadecimal digits."""
    return BatchId(f"batch_{UUID(entropy, version=4)}" if flavour is Flavour.AZURE else f"batch_{entropy}")


def file_id(entropy: str) -> FileId:
    """Name an uploaded file."""
    return FileId(f"file-{entropy}")


def output_file_id(flavour: Flavour, entropy: str) -> FileId:
    """Name a file that the service itself wrote: Azure prints these as UUIDs with dashes."""
    return FileId(f"file-{UUID(entropy, version=4)}" if flavour is Flavour.AZURE else f"file-{entropy}")


def upload_id(entropy: str) -> UploadId:
    """Name an upload of several parts."""
    return UploadId(f"upload_{entropy}")


def part_id(entropy: str) -> PartId:
    """Name one part of an upload."""
    return PartId(f"part_{entropy}")


def key_id(entropy: str) -> KeyId:
    """Name a key, without a hint of the key itself."""
    return KeyId(f"key_{entropy}")


def endpoint_id(entropy: str) -> EndpointId:
    """Name a receiver of webhooks."""
    return EndpointId(f"we_{entropy}")


def request_id(batch: BatchId, line: int) -> str:
    """Name one request of a batch, the same at every attempt; ``line`` counts from 0."""
    return f"{request_id_prefix(batch)}{line:08x}"


def request_id_prefix(batch: BatchId) -> str:
    """Give what the ids of all requests of a batch begin with; the number of the line follows in 8 digits."""
    return f"batch_req_{batch.removeprefix('batch_').replace('-', '')[:24]}"


_ID_END = b'","custom_id":'


def line_of(record: bytes) -> int:
    """Read off a line of a result file, which begins with the id of its request, which request that is, from 0."""
    end = record.index(_ID_END)
    return int(record[end - 8 : end], 16)
