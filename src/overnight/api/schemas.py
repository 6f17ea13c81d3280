"""The wire types (CONTRACT section 1): what is sent and what is taken, and the way there from our records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from overnight.domain.batch import Batch
from overnight.domain.file import File
from overnight.domain.limits import COMPLETION_WINDOW

if TYPE_CHECKING:
    from overnight.domain.deployment import Deployment
    from overnight.domain.upload import Part, Upload
    from overnight.domain.usage import Usage


class Taken(BaseModel):
    """A request body: types are not bent, unknown members are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        # JSON can spell half a surrogate pair, which neither a database nor an answer can hold.
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            kind, message = "unicode", "a character is only half of a surrogate pair"
            raise PydanticCustomError(kind, message) from error
        return value


class ExpiresAfterBody(Taken):
    """When a file is to expire, counted from its creation."""

    anchor: str = "created_at"
    seconds: int


class CreateBatchBody(Taken):
    """``POST batches``."""

    input_file_id: str | None = Field(default=None, description="A file with purpose `batch`.")
    endpoint: str = Field(description="The endpoint that every line names, such as `/v1/chat/completions`.")
    completion_window: str = Field(description=f"Only `{COMPLETION_WINDOW}`.")
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfterBody | None = None
    anchor: str | None = Field(default=None, description="Beside `output_expires_after`, as one Azure sample has it.")
    input_blob: str | None = None


class CreateUploadBody(Taken):
    """``POST uploads``."""

    filename: str
    purpose: str
    bytes: int = Field(ge=0)
    mime_type: str
    expires_after: ExpiresAfterBody | None = None


class CompleteUploadBody(Taken):
    """``POST uploads/{id}/complete``."""

    part_ids: list[str]
    md5: str | None = None


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorObject(BaseModel):
    """The error envelope: a superset of what both vendors send, the same on every prefix."""

    error: ErrorDetail


class RequestCounts(BaseModel):
    """Requests of a batch."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Part of the input tokens."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """Part of the output tokens."""

    reasoning_tokens: int


class UsageObject(BaseModel):
    """Tokens, summed over the finished requests."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> UsageObject:
        """Put a usage into its wire shape."""
        return cls(
            input_tokens=usage.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.output_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.total_tokens,
        )


class ProblemObject(BaseModel):
    """One thing wrong with the input file; ``line`` counts from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class ProblemList(BaseModel):
    """What is wrong with the input file."""

    object: Literal["list"] = "list"
    data: list[ProblemObject]


class BatchObject(BaseModel):
    """A batch. Every member is always there."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: ProblemList | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: UsageObject | None
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Put a batch into its wire shape; before it is accepted its counts are zero, its usage shows at the end."""
        problems = [
            ProblemObject(code=problem.code, message=problem.message, param=problem.param, line=problem.line)
            for problem in batch.errors
        ]
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            model=batch.model,
            errors=ProblemList(data=problems) if problems else None,
            input_file_id=batch.input_file_id,
            completion_window=batch.completion_window,
            status=batch.status,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            created_at=batch.created_at,
            in_progress_at=batch.in_progress_at,
            expires_at=batch.expires_at,
            finalizing_at=batch.finalizing_at,
            completed_at=batch.completed_at,
            failed_at=batch.failed_at,
            expired_at=batch.expired_at,
            cancelling_at=batch.cancelling_at,
            cancelled_at=batch.cancelled_at,
            request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
            usage=UsageObject.of(batch.usage) if batch.ended else None,
            metadata=batch.metadata,
        )


class AzureBatchObject(BatchObject):
    """A batch on Azure's prefixes: its blobs are empty strings where it works on files."""

    input_blob: str = ""
    output_blob: str = ""
    error_blob: str = ""


class FileObject(BaseModel):
    """A file. Every member is always there."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: str | None

    @classmethod
    def of(cls, file: File) -> FileObject:
        """Put a file into its wire shape."""
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=file.created_at,
            expires_at=file.expires_at,
            filename=file.filename,
            purpose=file.purpose,
            status=file.status,
            status_details=file.status_details,
        )


class DeletedFile(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadObject(BaseModel):
    """An upload; ``file`` is there once it is complete."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None

    @classmethod
    def of(cls, upload: Upload, file: File | None = None) -> UploadObject:
        """Put an upload into its wire shape."""
        return cls(
            id=upload.id,
            bytes=upload.bytes,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
            filename=upload.filename,
            purpose=upload.purpose,
            status=upload.status,
            file=FileObject.of(file) if file else None,
        )


class PartObject(BaseModel):
    """A part of an upload; ``azure_block_id`` is Azure's name for it."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    azure_block_id: str

    @classmethod
    def of(cls, part: Part) -> PartObject:
        """Put a part into its wire shape."""
        return cls(id=part.id, created_at=part.created_at, upload_id=part.upload_id, azure_block_id=part.id)


class BatchPage(BaseModel):
    """A page of batches."""

    item: ClassVar[type[BatchObject]] = BatchObject

    object: Literal["list"] = "list"
    data: Sequence[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, batches: Sequence[Batch], *, has_more: bool) -> Self:
        """Put batches into their wire shape; an empty page that promised more would end an SDK's iteration early."""
        data = [cls.item.of(batch) for batch in batches]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=ends[0], last_id=ends[1], has_more=has_more and bool(data))


class AzureBatchPage(BatchPage):
    """A page of batches on Azure's prefixes."""

    item: ClassVar[type[BatchObject]] = AzureBatchObject

    data: Sequence[AzureBatchObject]


class FilePage(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelObject(BaseModel):
    """Something that a request can name as its model; a superset of both vendors' members."""

    id: str
    object: Literal["model"] = "model"
    created: int
    created_at: int
    owned_by: str = "overnight"
    status: str = "succeeded"
    lifecycle_status: str = "generally-available"
    capabilities: dict[str, bool] = {"inference": True, "fine_tune": False}

    @classmethod
    def of(cls, deployment: Deployment) -> ModelObject:
        """Show a deployment as a model."""
        return cls(id=deployment.name, created=deployment.created_at, created_at=deployment.created_at)


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class DeploymentObject(BaseModel):
    """A deployment as Azure shows it."""

    id: str
    object: Literal["deployment"] = "deployment"
    model: str
    owner: str = "overnight"
    status: str = "succeeded"
    scale_settings: dict[str, Any] = {"scale_type": "standard"}
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, deployment: Deployment) -> DeploymentObject:
        """Show a deployment."""
        made = deployment.created_at
        return cls(id=deployment.name, model=deployment.model, created_at=made, updated_at=made)


class DeploymentList(BaseModel):
    """All deployments."""

    object: Literal["list"] = "list"
    data: list[DeploymentObject]


class UpstreamState(BaseModel):
    """Whether an upstream answers; ``problem`` says why not, or why it is left alone.

    ``limit`` is how many requests it may have in flight now, as far as the service has found out. A ``paused`` one gets
    none until it is resumed.
    """

    name: str
    answers: bool
    problem: str | None
    in_flight: int = 0
    limit: int = 0
    paused: bool = False


class Waiting(BaseModel):
    """Batches that the disk keeps from going on; ``bytes`` of their results wait in memory and do not count yet."""

    batches: int
    since: int
    bytes: int


class Health(BaseModel):
    """Whether the service lives, and in ``/ready`` whether it can work."""

    status: Literal["ok", "not ready"]
    version: str
    upstreams: list[UpstreamState] = []
    waiting: Waiting | None = None
    problem: str | None = None
