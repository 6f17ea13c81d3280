"""What changes something: every one needs the token of the visitor's forms, and a key that may."""

from __future__ import annotations

from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, RedirectResponse

from overnight.domain.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    ServiceError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId
from overnight.domain.rate import Rate
from overnight.ports.blobs import StorageFull
from overnight.services.batches import NewBatch
from overnight.services.files import NewFile
from overnight.services.rates import Rates
from overnight.services.retry import NewRetry, Which
from overnight.studio import recipes
from overnight.studio.bulk import Bulk
from overnight.studio.pages import Shell
from overnight.studio.session import COOKIE, CSRF_FIELD, CSRF_HEADER, ONCE_FIELD, check_origin, check_token, set_cookie

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from overnight.domain.file import File
    from overnight.studio.context import Parts
    from overnight.studio.deeds import Deed
    from overnight.studio.pages import Pages
    from overnight.studio.session import Sessions, Visitor

# So much of a file may arrive before the right to send it is asked for again, as with the API.
_UNCHECKED = 16 * 1024 * 1024
_MOST_FORM_BYTES = 64 * 1024
# As many ids as one deed may have, and what else a form holds.
_MOST_FIELDS = 1_100
_SEE_OTHER = 303
# Wrong keys from one address in a minute: a person's slips, but no search.
_ATTEMPTS = Rate(most=10)

_UPLOAD_STATUS = ((Unauthorized, 401), (Forbidden, 403), (TooLarge, 413), (TooManyRequests, 429), (Unavailable, 503))

Form = dict[str, list[str]]


class Actions:
    """The forms of the Studio."""

    def __init__(self, parts: Parts, sessions: Sessions, pages: Pages) -> None:
        self._parts = parts
        self._sessions = sessions
        self._pages = pages
        self._home = f"{parts.root}/studio"
        self.bulk = Bulk(parts, sessions, pages.frame)
        self._attempts = Rates(_ATTEMPTS, parts.clock)

    async def sign_in_page(self, request: Request) -> Response:
        return await self._sign_in_form(request, self._local(request.query_params.get("next", "")))

    async def sign_in(self, request: Request) -> Response:
        check_origin(request)
        form = await _form(request)
        check_token(_first(form, CSRF_FIELD), self._sessions.form_token)
        after = self._local(_first(form, "next"))
        address = self._parts.neighbourhood(request.client.host if request.client else "")
        allowance = self._attempts.look(address)
        if not allowance.given:
            return await self._wait_form(request, after, allowance.wait)
        try:
            name = await self._sessions.sign_in(_first(form, "key").strip())
        except Unauthorized as error:
            self._attempts.take(address)
            return await self._sign_in_form(request, after, error.message, status=401)
        # Nobody can leave the old name any more once the browser has the new one.
        self._sessions.sign_out(request)
        response = RedirectResponse(after, _SEE_OTHER)
        set_cookie(response, request, name, self._home)
        return response

    async def _wait_form(self, request: Request, after: str, seconds: float) -> Response:
        wait = max(1, ceil(seconds))
        message = f"Too many attempts with a wrong key came from your address. Try again in {wait} s."
        response = await self._sign_in_form(request, after, message, status=429)
        response.headers["retry-after"] = str(wait)
        return response

    async def _sign_in_form(self, request: Request, after: str, error: str = "", *, status: int = 200) -> Response:
        shell = Shell(title="Sign in", section="", csrf=self._sessions.form_token)
        bearers = self._parts.callers.bearers
        return await self._pages.frame.page(
            request, "sign_in.html", shell, status=status, error=error, after=after, bearers=bearers
        )

    def _local(self, wanted: str) -> str:
        """Keep a redirect inside the Studio."""
        inside = wanted.startswith(f"{self._home}/") and "\\" not in wanted and ".." not in wanted
        return wanted if inside else self._home

    async def sign_out(self, request: Request) -> Response:
        visitor, _ = await self._admitted(request)
        self._sessions.sign_out(request)
        response = RedirectResponse(f"{self._home}/sign-in" if visitor.signed_in else self._home, _SEE_OTHER)
        response.delete_cookie(COOKIE, path=self._home)
        return response

    async def cancel(self, request: Request) -> Response:
        visitor, _ = await self._deed(request)
        batch = await self._parts.batches.cancel(visitor.caller.resource, BatchId(request.path_params["batch_id"]))
        return RedirectResponse(f"{self._home}/batches/{batch.id}", _SEE_OTHER)

    async def retry(self, request: Request) -> Response:
        """Run requests again that had no success, as a new batch."""
        visitor, form = await self._deed(request)
        text = request.query_params.get("which", "")
        if text not in list(Which):
            raise InvalidRequest("Say which requests are to run again.", param="which")
        old, once = BatchId(request.path_params["batch_id"]), _first(form, ONCE_FIELD)
        # All forms of a page carry the same token.
        new = NewRetry(which=Which(text), idempotency_key=f"{once}:{text}" if once else None)
        batch = await self._parts.retries.retry(visitor.caller.resource, old, new)
        return RedirectResponse(f"{self._home}/batches/{batch.id}", _SEE_OTHER)

    async def as_code(self, request: Request) -> Response:
        """Say what the form of a new batch holds as commands and code; nothing is changed."""
        _, form = await self._admitted(request)
        return await self._pages.recipes(request, recipes.wishes_in(form))

    async def create(self, request: Request) -> Response:
        visitor, form = await self._deed(request)
        wishes = recipes.wishes_in(form)
        try:
            batch = await self._parts.batches.create(
                visitor.caller.resource, wishes.flavour, await self._new(visitor, wishes, _first(form, ONCE_FIELD))
            )
        except InvalidRequest as error:
            field = (error.param or "").partition(".")[0]
            return await self._pages.new_form(request, visitor, wishes, error=error.message, field=field, status=400)
        return RedirectResponse(f"{self._home}/batches/{batch.id}", _SEE_OTHER)

    async def _new(self, visitor: Visitor, wishes: recipes.Wishes, once: str) -> NewBatch:
        if not wishes.file_id:
            raise InvalidRequest("Choose an input file first: upload one, or take one of those below.", param="file_id")
        try:
            await self._parts.files.get(visitor.caller.resource, FileId(wishes.file_id))
        except NotFound as error:
            raise InvalidRequest("There is no such file any more. Choose another one.", param="file_id") from error
        return NewBatch(
            input_file_id=wishes.file_id,
            endpoint=wishes.endpoint,
            completion_window=wishes.window,
            metadata=dict(wishes.metadata) or None,
            idempotency_key=recipes.key_of(wishes, once),
        )

    async def cancel_many(self, request: Request) -> Response:
        return await self._many(request, self.bulk.cancel)

    async def retry_many(self, request: Request) -> Response:
        return await self._many(request, self.bulk.retry)

    async def delete_many(self, request: Request) -> Response:
        return await self._many(request, self.bulk.delete)

    async def _many(self, request: Request, deed: Deed) -> Response:
        visitor, form = await self._admitted(request)
        visitor.must_submit()
        return await self.bulk.act(request, visitor, deed, form)

    async def delete_file(self, request: Request) -> Response:
        visitor, _ = await self._deed(request)
        await self._parts.files.delete(visitor.caller.resource, FileId(request.path_params["file_id"]))
        return RedirectResponse(f"{self._home}/files", _SEE_OTHER)

    async def pause(self, request: Request) -> Response:
        return await self._switch(request, self._parts.upstreams.pause)

    async def resume(self, request: Request) -> Response:
        return await self._switch(request, self._parts.upstreams.resume)

    async def _switch(self, request: Request, switch: Callable[[str], object]) -> Response:
        visitor, form = await self._admitted(request)
        visitor.must_operate()
        switch(_first(form, "name"))
        return RedirectResponse(f"{self._home}/upstreams", _SEE_OTHER)

    async def test(self, request: Request) -> Response:
        """Ask an upstream for its models."""
        visitor, form = await self._admitted(request)
        visitor.must_operate()
        tried = await self._parts.upstreams.test(_first(form, "name"))
        return await self._pages.upstreams_page(request, visitor, tried)

    async def upload(self, request: Request) -> Response:
        """Take the bytes of one file as the body; its name is in the URL."""
        try:
            visitor = await self._sessions.visitor(request)
            check_origin(request)
            check_token(request.headers.get(CSRF_HEADER, ""), visitor.csrf)
            visitor.must_submit()
            self._parts.allowances.count_request(visitor.key)
            self._parts.allowances.count_file(visitor.caller.resource, Flavour.OPENAI)
            with self._parts.allowances.uploading(visitor.caller.resource):
                file = await self._receive(request, visitor)
        except ServiceError as error:
            status = next((status for kind, status in _UPLOAD_STATUS if isinstance(error, kind)), 400)
            return JSONResponse({"error": error.message}, status_code=status)
        return JSONResponse({"id": file.id, "next": f"{self._home}/new?file={file.id}"}, status_code=201)

    async def _receive(self, request: Request, visitor: Visitor) -> File:
        name = request.query_params.get("name", "") or "upload.jsonl"
        new = NewFile(filename=name[:255], purpose="batch")
        async with self._parts.files.receiving(Flavour.OPENAI) as receiver:
            try:
                unchecked = 0
                async for chunk in request.stream():
                    await receiver.write(chunk)
                    unchecked += len(chunk)
                    if unchecked > _UNCHECKED:
                        unchecked = 0
                        await self._check_again(request, visitor)
                await self._check_again(request, visitor)
                return await receiver.finish(visitor.caller.resource, Flavour.OPENAI, new)
            except StorageFull as error:
                message = "The server has no room left for this file. Ask its operator, or try again later."
                raise Unavailable(message) from error

    async def _check_again(self, request: Request, visitor: Visitor) -> None:
        """Refuse an upload whose sign-in or key ended while it went on; it goes on while keys cannot be read."""
        with suppress(Unavailable):
            now = await self._sessions.visitor(request)
            now.must_submit()
            if now.caller.resource != visitor.caller.resource:
                raise Unauthorized("Sign in again and repeat the upload.")

    async def _deed(self, request: Request) -> tuple[Visitor, Form]:
        """Let in what would be a request to the API, too, and count it as one.

        Raises ``Forbidden`` and ``TooManyRequests``.
        """
        visitor, form = await self._admitted(request)
        visitor.must_submit()
        self._parts.allowances.count_request(visitor.key)
        return visitor, form

    async def _admitted(self, request: Request) -> tuple[Visitor, Form]:
        """Read a form that was made for this visitor. Raises ``Forbidden`` for any other."""
        visitor = await self._sessions.visitor(request)
        check_origin(request)
        form = await _form(request)
        check_token(_first(form, CSRF_FIELD), visitor.csrf)
        return visitor, form


async def _form(request: Request) -> Form:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM_BYTES:
            raise TooLarge("This form is too large.")
    try:
        return parse_qs(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequest("This form has too many fields.") from error


def _first(form: Form, name: str) -> str:
    return form.get(name, [""])[0]
