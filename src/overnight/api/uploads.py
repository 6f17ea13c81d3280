"""Routes of uploads (CONTRACT sections 1.1 rows 11-14 and 1.6)."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from overnight.api import multipart
from overnight.api.context import Context, reply
from overnight.api.schemas import CompleteUploadBody, CreateUploadBody, ExpiresAfterBody, PartObject, UploadObject
from overnight.domain.errors import InvalidRequest, Unavailable
from overnight.domain.file import ExpiresAfter
from overnight.domain.ids import UploadId
from overnight.ports.blobs import StorageFull
from overnight.services.uploads import NewUpload

_PART_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def upload_routes(context: Context) -> APIRouter:
    """Make the routes of uploads for one prefix."""
    routes = APIRouter()
    uploads, flavour, limits = context.services.uploads, context.prefix.flavour, context.limits

    @routes.post("/uploads", response_model=UploadObject)
    async def create_upload(request: Request, body: CreateUploadBody) -> Response:
        """Announce a file that will arrive in parts."""
        new = NewUpload(
            filename=body.filename,
            purpose=body.purpose,
            bytes=body.bytes,
            mime_type=body.mime_type,
            expires_after=to_expires_after(body.expires_after),
        )
        upload = await uploads.create(context.resource(request), flavour, new)
        return reply(UploadObject.of(upload), headers=context.located(request, "uploads", upload.id))

    @routes.post("/uploads/{upload_id}/parts", response_model=PartObject, openapi_extra=_PART_FORM)
    async def add_upload_part(request: Request, upload_id: str) -> Response:
        """Add a part; parts may be sent side by side."""
        resource = context.resource(request)
        try:
            data = _data(request, limits.upload_part_bytes)
            part = await uploads.add_part(resource, flavour, UploadId(upload_id), data)
        except StorageFull as error:
            raise Unavailable("The server has no room left for this part. Ask its operator.") from error
        return reply(PartObject.of(part))

    @routes.post("/uploads/{upload_id}/complete", response_model=UploadObject)
    async def complete_upload(request: Request, upload_id: str, body: CompleteUploadBody) -> Response:
        """Put the parts together in the order named."""
        resource = context.resource(request)
        try:
            upload, file = await uploads.complete(resource, flavour, UploadId(upload_id), body.part_ids, body.md5)
        except StorageFull as error:
            raise Unavailable("The server has no room left for this file. Ask its operator.") from error
        return reply(UploadObject.of(upload, file))

    @routes.post("/uploads/{upload_id}/cancel", response_model=UploadObject)
    async def cancel_upload(request: Request, upload_id: str) -> Response:
        """End an upload without a file."""
        return reply(UploadObject.of(await uploads.cancel(context.resource(request), UploadId(upload_id))))

    return routes


def to_expires_after(body: ExpiresAfterBody | None) -> ExpiresAfter | None:
    """Read a wish for expiry."""
    return None if body is None else ExpiresAfter(anchor=body.anchor, seconds=body.seconds)


async def _data(request: Request, most: int) -> AsyncIterator[bytes]:
    seen = False
    async for piece in multipart.pieces(request, most):
        if piece.field.name == "data":
            seen = True
            yield piece.data
    if not seen:
        message = "Missing required parameter: 'data'."
        raise InvalidRequest(message, param="data", code="missing_required_parameter")
