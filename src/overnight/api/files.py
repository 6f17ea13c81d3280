"""Routes of files (CONTRACT sections 1.1 rows 5-9, 1.5 and 1.8)."""

import asyncio
import re
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from overnight.api import multipart
from overnight.api.context import Context, reply
from overnight.api.multipart import Field, Piece
from overnight.api.schemas import DeletedFile, FileObject, FilePage
from overnight.domain.errors import InvalidRequest, ServiceError, TooLarge, Unavailable
from overnight.domain.file import ExpiresAfter, File
from overnight.domain.ids import FileId
from overnight.ports.batches import Page
from overnight.ports.blobs import StorageFull
from overnight.services.files import FileQuery, NewFile, Receiver

_FIELD_BYTES = 64 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,12}")

_UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "examples": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}


def file_routes(context: Context) -> APIRouter:
    """Make the routes of files for one prefix."""
    routes = APIRouter()
    files, prefix, limits = context.services.files, context.prefix, context.limits

    @routes.post("/files", response_model=FileObject, status_code=prefix.file_created, openapi_extra=_UPLOAD_FORM)
    async def upload_file(request: Request) -> Response:
        """Upload a file; it can be used as soon as this answers."""
        resource = context.resource(request)
        async with files.receiving(prefix.flavour) as receiver:
            form = await _receive(request, receiver, max(limits.file_bytes, limits.input_file_bytes))
            try:
                file = await receiver.finish(resource, prefix.flavour, form.to_new_file())
            except StorageFull as error:
                raise _no_room() from error
        headers = context.located(request, "files", file.id)
        return reply(FileObject.of(file), status=prefix.file_created, headers=headers)

    @routes.get("/files", response_model=FilePage)
    async def list_files(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=limits.files_page)] = limits.files_page,
        purpose: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """List files, newest first unless asked otherwise."""
        resource = context.resource(request)
        cursor = FileId(after) if after else None
        query = FileQuery(after=cursor, limit=limit, purpose=purpose, oldest_first=order == "asc")
        page = await files.page(resource, query)
        # Ten thousand files take a fifth of a second to write out.
        return await asyncio.to_thread(_page, page)

    @routes.get("/files/{file_id}", response_model=FileObject)
    async def get_file(request: Request, file_id: str) -> Response:
        """Get what is known of a file."""
        return reply(FileObject.of(await files.get(context.resource(request), FileId(file_id))))

    @routes.delete("/files/{file_id}", response_model=DeletedFile)
    async def delete_file(request: Request, file_id: str) -> Response:
        """Delete a file; a batch that reads it goes on."""
        await files.delete(context.resource(request), FileId(file_id))
        return reply(DeletedFile(id=file_id))

    @routes.get("/files/{file_id}/content", response_class=StreamingResponse)
    async def get_file_content(request: Request, file_id: str) -> Response:
        """Get the bytes of a file."""
        file, content = await files.content(context.resource(request), FileId(file_id))
        return StreamingResponse(content, media_type="application/octet-stream", headers=_as_attachment(file))

    return routes


def _page(page: Page[File]) -> Response:
    data = [FileObject.of(file) for file in page.items]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return reply(FilePage(data=data, first_id=ends[0], last_id=ends[1], has_more=page.has_more))


class _Form:
    """The fields of an upload, in whatever order they came."""

    def __init__(self) -> None:
        self.values: dict[str, bytearray] = {}
        self.filename: str | None = None
        self._file: Field | None = None

    def add(self, name: str, data: bytes) -> None:
        value = self.values.setdefault(name, bytearray())
        value += data
        if len(value) > _FIELD_BYTES:
            raise InvalidRequest(f"The form field '{name[:64]}' is too long.", param=name[:64])

    def begin_file(self, piece: Piece) -> None:
        """Note the file's name. Raises ``InvalidRequest`` at a second file."""
        if self._file is not None and self._file is not piece.field:
            message = "The form has more than one 'file'. Upload one file at a time."
            raise InvalidRequest(message, param="file", code="invalid_value")
        self._file = piece.field
        self.filename = piece.field.filename or "upload"

    def text(self, name: str) -> str | None:
        """Give a field; brackets are how SDKs write members, dots how Azure's pages do."""
        value = self.values.get(name) or self.values.get(name.replace("[", ".").removesuffix("]"))
        return None if value is None else value.decode(errors="replace")

    def to_new_file(self) -> NewFile:
        if self.filename is None:
            raise _missing("file")
        purpose = self.text("purpose")
        if not purpose:
            raise _missing("purpose")
        return NewFile(filename=self.filename, purpose=purpose, expires_after=self._expires_after())

    def _expires_after(self) -> ExpiresAfter | None:
        anchor, seconds = self.text("expires_after[anchor]"), self.text("expires_after[seconds]")
        if anchor is None and seconds is None:
            return None
        if seconds is None:
            raise _missing("expires_after.seconds")
        if not _INTEGER.fullmatch(seconds.strip()):
            message = "Invalid type for 'expires_after.seconds': expected an integer, but got a string instead."
            raise InvalidRequest(message, param="expires_after.seconds", code="invalid_type")
        return ExpiresAfter(anchor=anchor or "created_at", seconds=int(seconds))


async def _receive(request: Request, receiver: Receiver, most: int) -> _Form:
    """Take the whole body; what is refused on the way is still read to its end, so that the client sees why."""
    form = _Form()
    refused: ServiceError | None = None
    async for piece in multipart.pieces(request, most):
        try:
            if piece.field.name == "file":
                form.begin_file(piece)
                if refused is None:
                    await receiver.write(piece.data)
            else:
                form.add(piece.field.name, piece.data)
        except (TooLarge, InvalidRequest) as error:
            refused = refused or error
        except StorageFull:
            refused = _no_room()
    if refused is not None:
        raise refused
    return form


def _no_room() -> Unavailable:
    return Unavailable("The server has no room left for this file. Ask its operator, or try again later.")


def _missing(field: str) -> InvalidRequest:
    message = f"Missing required parameter: '{field}'."
    return InvalidRequest(message, param=field, code="missing_required_parameter")


def _as_attachment(file: File) -> dict[str, str]:
    name = quote(file.filename, safe="")
    return {"content-length": str(file.bytes), "content-disposition": f"attachment; filename*=UTF-8''{name}"}
