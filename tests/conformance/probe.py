"""Drives a server with whichever version of the official SDK is installed, and prints what it saw as JSON.

It runs in an environment that has nothing but the SDK, so it imports nothing else, and it judges nothing: the tests do.
The task on stdin: ``{"url": the server, "keys": [keys, each of a resource that nobody used yet]}``.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import ssl
import sys
import tempfile
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import openai

# Reading the authorities takes longer than most tries, and each client does it.
ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment] # as good as it

AT_ONCE = 4
MODEL = "test-model"
TERMINAL = ("completed", "failed", "canceled", "cancelled", "expired")
VERSION = "2024-07-01-preview"

DATED, FULL = "/chat/completions", "/v1/chat/completions"


def openai_client(url, key):
    return "OpenAI", {"base_url": f"{url}/v1", "api_key": key}


def azure_client(url, key):
    return "AzureOpenAI", {"azure_endpoint": url, "api_version": VERSION, "api_key": key}


def azure_client_with_a_slash(url, key):
    return "AzureOpenAI", {"azure_endpoint": f"{url}/", "api_version": VERSION, "api_key": key}


def azure_client_with_a_deployment(url, key):
    return "AzureOpenAI", {"azure_endpoint": url, "api_version": VERSION, "api_key": key, "azure_deployment": MODEL}


def azure_client_with_a_token(url, key):
    return "AzureOpenAI", {"azure_endpoint": url, "api_version": VERSION, "azure_ad_token": key}


def azure_client_with_a_token_provider(url, key):
    return "AzureOpenAI", {"azure_endpoint": url, "api_version": VERSION, "azure_ad_token_provider": lambda: key}


def openai_client_on_azure_v1(url, key):
    return "OpenAI", {"base_url": f"{url}/openai/v1/", "api_key": key}


def azure_client_on_azure_v1(url, key):
    return "AzureOpenAI", {"base_url": f"{url}/openai/v1/", "api_version": "preview", "api_key": key}


# Each way to make a client, and the endpoint as its users write it.
CLIENTS = {
    "openai": (openai_client, FULL),
    "azure": (azure_client, DATED),
    "azure-slash": (azure_client_with_a_slash, DATED),
    "azure-deployment": (azure_client_with_a_deployment, DATED),
    "azure-token": (azure_client_with_a_token, DATED),
    "azure-token-provider": (azure_client_with_a_token_provider, DATED),
    "openai-on-azure-v1": (openai_client_on_azure_v1, FULL),
    "azure-on-azure-v1": (azure_client_on_azure_v1, DATED),
}
MODES = ("sync", "async")


class Wire:
    """A client, and the requests that it really sends."""

    def __init__(self, name, mode, url, key, **more):
        make, self.endpoint = CLIENTS[name]
        kind, arguments = make(url, key)
        self.client = getattr(openai, kind if mode == "sync" else f"Async{kind}")(**arguments, **more)
        self.sent = []
        self.listen(self.client)

    def listen(self, client):
        def note(request):
            self.sent.append(request)

        async def note_async(request):
            self.sent.append(request)

        hook = note_async if asyncio.iscoroutinefunction(client.post) else note
        client._client.event_hooks = {"request": [hook], "response": []}  # noqa: SLF001 - the only way in all versions

    @property
    def paths(self):
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.sent]

    @property
    def auth(self):
        return sorted(
            {name for request in self.sent for name in ("api-key", "authorization") if name in request.headers}
        )


async def done(result):
    """Give what a call of either kind of client gives."""
    return await result if inspect.isawaitable(result) else result


async def rows(pages):
    """Walk through all pages of either kind of client."""
    if hasattr(pages, "__aiter__"):
        return [row async for row in pages]
    return list(pages)


async def failure(wire, call):
    """Make a call that must fail, and tell how it did."""
    before = len(wire.sent)
    try:
        given = await done(call())
    except openai.OpenAIError as error:
        return {
            "type": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": getattr(error, "code", None),
            "param": getattr(error, "param", None),
            "kind": getattr(error, "type", None),
            "text": str(error),
            "request_id": getattr(error, "request_id", None),
            "requests": len(wire.sent) - before,
        }
    return {"type": None, "given": repr(given)}


def line(custom_id, url):
    body = {"model": MODEL, "messages": [{"role": "user", "content": custom_id}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def content_for(wire, count=3):
    return "".join(line(f"task-{number}", wire.endpoint) for number in range(count)).encode()


async def upload(wire, **more):
    file = ("input.jsonl", content_for(wire), "application/json")
    return await done(wire.client.files.create(file=file, purpose="batch", **more))


async def create(wire, file_id, **more):
    batches = wire.client.batches
    return await done(batches.create(input_file_id=file_id, endpoint=wire.endpoint, completion_window="24h", **more))


async def ended(wire, batch):
    while batch.status not in TERMINAL:
        await asyncio.sleep(0.03)
        batch = await done(wire.client.batches.retrieve(batch.id))
    return batch


async def seed_flow(wire):
    """The seed's script: create, poll, create, poll, read, cancel, list; and then delete."""
    files, batches = wire.client.files, wire.client.batches
    file = await upload(wire)
    while file.status != "processed":
        file = await done(files.retrieve(file.id))
    first = await create(wire, file.id)
    batch = await ended(wire, first)
    text = (await done(files.content(batch.output_file_id))).text
    cancel = await failure(wire, lambda: batches.cancel(batch.id))
    listed = await rows(batches.list())
    deleted = await done(files.delete(file.id))
    gone = await failure(wire, lambda: files.content(file.id))
    return {
        "first_status": first.status,
        "status": batch.status,
        "counts": batch.request_counts.to_dict() if hasattr(batch.request_counts, "to_dict") else None,
        "lines": [json.loads(each) for each in text.splitlines()],
        "cancel": cancel,
        "listed": [row.id for row in listed],
        "batch": batch.id,
        "deleted": [deleted.id == file.id, deleted.object, deleted.deleted],
        "gone": gone,
        "paths": wire.paths,
        "auth": wire.auth,
        "endpoint": batch.endpoint,
    }


async def pages(wire):
    files = [await upload(wire) for _ in range(3)]
    batches = [await create(wire, "file-none") for _ in range(3)]
    found = {}
    for name, resource, made in (("files", wire.client.files, files), ("batches", wire.client.batches, batches)):
        before = len(wire.sent)
        # Files came in one page only until cursors were added to the SDK.
        limit = {"limit": 1} if "limit" in inspect.signature(resource.list).parameters else {}
        listed = await asyncio.wait_for(rows(resource.list(**limit)), 20)
        found[name] = {
            "made": [row.id for row in made][::-1],
            "listed": [row.id for row in listed],
            "requests": len(wire.sent) - before,
        }
    return found


async def strict(wire):
    """Every object, with the client's own validation on."""
    client, found = wire.client, {}

    async def step(name, call):
        try:
            result = await done(call())
            # Pages are checked when they are read.
            found[name] = [len(await rows(result))] if hasattr(result, "has_next_page") else "ok"
        except (openai.OpenAIError, ValueError) as error:
            found[name] = repr(error)
            return None
        return result

    file = await step("files.create", lambda: upload(wire))
    await step("files.retrieve", lambda: client.files.retrieve(file.id))
    await step("files.list", client.files.list)
    new = await step("batches.create", lambda: create(wire, file.id, metadata={"a": "b"}))
    await step("batches.retrieve", lambda: client.batches.retrieve(new.id))
    await ended(wire, new)
    await step("batches.retrieve completed", lambda: client.batches.retrieve(new.id))
    failed = await step("batches.create for nothing", lambda: create(wire, "file-none"))
    await ended(wire, failed)
    await step("batches.retrieve failed", lambda: client.batches.retrieve(failed.id))
    await step("batches.list", client.batches.list)
    again = await create(wire, file.id)
    try:
        await done(client.batches.cancel(again.id))
        again = await ended(wire, again)
    except openai.ConflictError:
        pass
    await step("batches.retrieve cancelled", lambda: client.batches.retrieve(again.id))
    await strict_uploads(wire, step)
    await step("models.list", client.models.list)
    await step("models.retrieve", lambda: client.models.retrieve(MODEL))
    await step("files.delete", lambda: client.files.delete(file.id))
    return found


async def strict_uploads(wire, step):
    uploads, content = wire.client.uploads, content_for(wire)
    wish = {"bytes": len(content), "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    new = await step("uploads.create", lambda: uploads.create(**wish))
    part = await step("uploads.parts.create", lambda: uploads.parts.create(new.id, data=content))
    await step("uploads.complete", lambda: uploads.complete(new.id, part_ids=[part.id]))
    other = await step("uploads.create again", lambda: uploads.create(**wish))
    await step("uploads.cancel", lambda: uploads.cancel(other.id))


async def parts(wire):
    """A file in parts, the last one sent first, with its checksum."""
    client, content = wire.client, content_for(wire)
    cut = len(content) // 3
    wish = {"bytes": len(content), "filename": "parts.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    new = await done(client.uploads.create(**wish))
    second = await done(client.uploads.parts.create(new.id, data=content[cut:]))
    first = await done(client.uploads.parts.create(new.id, data=content[:cut]))
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    ready = await done(client.uploads.complete(new.id, part_ids=[first.id, second.id], md5=md5))
    read = await done(client.files.content(ready.file.id))
    batch = await ended(wire, await create(wire, ready.file.id))
    return {
        "new": [new.status, new.object, new.file is None],
        "part": [first.object, first.upload_id == new.id],
        "ready": [ready.status, ready.file.status, ready.file.bytes == len(content), ready.file.filename],
        "same": read.content == content,
        "batch": [batch.status, batch.request_counts.completed],
    }


async def chunked(wire):
    """The SDK's own helper, where it has one, from memory and from disk."""
    if not hasattr(wire.client.uploads, "upload_file_chunked"):
        return None
    content, found = content_for(wire, 40), []
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chunked.jsonl"
        path.write_bytes(content)
        for given in ({"file": content, "filename": "memory.jsonl", "bytes": len(content)}, {"file": path}):
            ready = await done(
                wire.client.uploads.upload_file_chunked(
                    **given, mime_type="application/jsonl", purpose="batch", part_size=1_000, md5=md5
                )
            )
            read = await done(wire.client.files.content(ready.file.id))
            found.append([ready.status, ready.file.filename, read.content == content])
    return found


async def expiry(wire):
    """Older versions have no argument for it; what they are given on top is encoded in the same way."""
    wish = {"anchor": "created_at", "seconds": 1_209_600}
    known = "expires_after" in inspect.signature(wire.client.files.create).parameters
    file = await upload(wire, **({"expires_after": wish} if known else {"extra_body": {"expires_after": wish}}))
    more = {"output_expires_after": wish}
    known = "output_expires_after" in inspect.signature(wire.client.batches.create).parameters
    batch = await ended(wire, await create(wire, file.id, **(more if known else {"extra_body": more})))
    output = await done(wire.client.files.retrieve(batch.output_file_id))
    return [each.expires_at - each.created_at for each in (file, output)]


async def metadata(wire):
    given = [{"kind": "nightly", "é": "値 😀", "empty": ""}, {}, None]
    return [[wish, (await create(wire, "file-none", metadata=wish)).metadata] for wish in given]


async def copies(wire):
    """Copies of a client find the same server with the same key."""
    file = await upload(wire)
    found = {}
    for name, copy in (
        ("with_options", wire.client.with_options(max_retries=0)),
        ("copy", wire.client.copy(timeout=20)),
        ("twice", wire.client.with_options(max_retries=1).with_options(timeout=20)),
    ):
        wire.listen(copy)
        batch = await done(copy.batches.create(input_file_id=file.id, endpoint=wire.endpoint, completion_window="24h"))
        found[name] = [
            [row.id == file.id for row in await rows(copy.files.list(purpose="batch"))],
            (await done(copy.files.retrieve(file.id))).id == file.id,
            (await ended(wire, batch)).status,
        ]
    found["paths"] = wire.paths
    return found


async def download(wire):
    """The content in every way that the SDK reads it."""
    content, files = content_for(wire, 2_000), wire.client.files
    file = await done(files.create(file=("big.jsonl", content), purpose="batch"))
    found = {"whole": (await done(files.content(file.id))).content == content}
    if asyncio.iscoroutinefunction(wire.client.post):
        async with files.with_streaming_response.content(file.id) as response:
            found["stream"] = b"".join([piece async for piece in response.iter_bytes(1_000)]) == content
        async with files.with_streaming_response.content(file.id) as response:
            found["lines"] = len([each async for each in response.iter_lines()])
    else:
        with files.with_streaming_response.content(file.id) as response:
            found["stream"] = b"".join(response.iter_bytes(1_000)) == content
        with files.with_streaming_response.content(file.id) as response:
            found["lines"] = len(list(response.iter_lines()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        (await done(files.content(file.id))).write_to_file(path)
        found["written"] = path.read_bytes() == content
    return found


async def empty_content(wire):
    """Zero bytes, as the error file of a clean batch on Azure."""
    batch = await ended(wire, await create(wire, (await upload(wire)).id))
    return (await done(wire.client.files.content(batch.error_file_id))).text if batch.error_file_id else None


async def names(wire):
    """Every kind of file that ``files.create`` takes."""
    content, found = content_for(wire), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Prüfung – 試験.jsonl"
        path.write_bytes(content)
        with path.open("rb") as opened:
            given = {"bytes": content, "tuple": ("named.jsonl", content), "path": path, "open": opened}
            for name, file in given.items():
                made = await done(wire.client.files.create(file=file, purpose="batch"))
                found[name] = [made.filename, made.bytes == len(content), made.status]
    return found


async def waiting(wire):
    file = await upload(wire)
    ready = await done(wire.client.files.wait_for_processing(file.id, poll_interval=0.05, max_wait_seconds=10))
    return [ready.id == file.id, ready.status]


async def errors(wire):
    """What callers see of a refusal."""
    client = wire.client
    plain = isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)) and "Azure" not in type(client).__name__
    wrong = client.with_options(api_key="sk-wrong") if plain else None
    file = await upload(wire)
    found = {
        "file": await failure(wire, lambda: client.files.retrieve("file-none")),
        "batch": await failure(wire, lambda: client.batches.retrieve("batch_none")),
        "delete": await failure(wire, lambda: client.files.delete("file-none")),
        "endpoint": await failure(
            wire,
            lambda: client.batches.create(input_file_id=file.id, endpoint="/v1/none", completion_window="24h"),
        ),
        "window": await failure(
            wire,
            lambda: client.batches.create(input_file_id=file.id, endpoint=wire.endpoint, completion_window="1h"),
        ),
        "limit": await failure(wire, lambda: client.batches.list(limit=101)),
        "purpose": await failure(wire, lambda: client.files.create(file=("a.jsonl", b"{}\n"), purpose="none")),
    }
    if wrong is not None:
        wire.listen(wrong)
        found["key"] = await failure(wire, wrong.files.list)
    return found


async def failed_batch(wire):
    """The problems of an input file, as the SDK shows them."""
    content = (line("a", wire.endpoint) + line("a", wire.endpoint) + "nonsense\n").encode()
    file = await done(wire.client.files.create(file=("bad.jsonl", content), purpose="batch"))
    batch = await ended(wire, await create(wire, file.id))
    return [batch.status, [[each.code, each.line, each.param] for each in batch.errors.data]]


async def request_id(wire):
    """Only newer versions tell it."""
    return getattr(await upload(wire), "_request_id", None)


# Each point, the clients that it is tried with, and what the client is made with besides.
ALL = tuple(CLIENTS)
BOTH = ("openai", "azure")
MANY = ("openai", "azure", "azure-deployment", "openai-on-azure-v1", "azure-on-azure-v1")
POINTS = {
    "seed_flow": (seed_flow, ALL, {}),
    "pages": (pages, MANY, {}),
    "strict": (strict, ("openai",), {"_strict_response_validation": True}),
    "parts": (parts, MANY, {}),
    "chunked": (chunked, BOTH, {}),
    "expiry": (expiry, BOTH, {}),
    "metadata": (metadata, BOTH, {}),
    "copies": (copies, ("openai", "azure", "azure-deployment"), {}),
    "download": (download, BOTH, {}),
    "empty_content": (empty_content, BOTH, {}),
    "names": (names, BOTH, {}),
    "waiting": (waiting, BOTH, {}),
    "errors": (errors, BOTH, {}),
    "failed_batch": (failed_batch, BOTH, {}),
    "request_id": (request_id, BOTH, {}),
}


def look(task):
    """Go through all points, some at a time."""
    keys = iter(task["keys"])
    tries = {
        f"{point} {name} {mode}": (see, partial(Wire, name, mode, task["url"], next(keys), **more))
        for point, (see, clients, more) in POINTS.items()
        for name in clients
        for mode in MODES
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda one: asyncio.run(look_at(*one)), tries.values())
        return dict(zip(tries, found, strict=True))


async def look_at(see, connect):
    """Try one point with one client; if it breaks, that is what was found."""
    try:
        wire = connect()
        found = {"found": await see(wire)}
        await done(wire.client.close())
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        return {"broke": traceback.format_exc()}
    return found


def main():
    """Do the task."""
    task = json.load(sys.stdin)
    warnings.simplefilter("ignore", DeprecationWarning)
    json.dump({"version": openai.__version__, "points": look(task)}, sys.stdout)


if __name__ == "__main__":
    main()
