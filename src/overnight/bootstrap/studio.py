"""Puts the Studio together, and lets it stand beside the API."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from overnight import __version__, human
from overnight.adapters.sql.database import NEWEST_VERSION, sqlite_file
from overnight.adapters.system import SystemClock, SystemEntropy
from overnight.api.addresses import neighbourhood
from overnight.api.auth import is_loopback
from overnight.bootstrap.doctor import examine
from overnight.domain.errors import Forbidden
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.domain.key import Scope, hash_of
from overnight.studio.app import Studio
from overnight.studio.context import Caller, Finding, Parts, Setting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Connection

    from overnight.api.context import Services
    from overnight.config import Settings
    from overnight.domain.ids import ResourceId
    from overnight.services.keys import Authenticator
    from overnight.services.traffic import Traffic


class KeyHolders:
    """Who may come into the Studio: the holders of the keys that open the API; keeps ``studio/context.py``'s promise.

    A key of the key file says nothing of scopes: it may submit, as it may through the API, but not see the set-up. An
    admin key sees the set-up, and nobody's files and batches. Where tokens of an issuer open the API (``bearers``), the
    Studio asks for a key all the same: it takes no tokens.
    """

    def __init__(self, in_file: Mapping[str, ResourceId], stored: Authenticator, *, bearers: bool) -> None:
        self._in_file = {hash_of(key): resource for key, resource in in_file.items()}
        self._stored = stored
        self.bearers = bearers

    async def open_to(self, host: str) -> Caller | None:
        if self._in_file or self.bearers or await self._stored.needed():
            return None
        if not is_loopback(host):
            message = "Without API keys the Studio answers only on this machine. Make a key to open it."
            raise Forbidden(message, code="forbidden")
        return Caller(resource=DEFAULT_RESOURCE, may_submit=True, may_operate=True)

    async def recall(self, digest: str) -> Caller | None:
        if (resource := self._in_file.get(digest)) is not None:
            return Caller(resource=resource, may_submit=True, may_operate=False)
        key = await self._stored.recall(digest)
        if key is None or not (key.may(Scope.READ) or key.may(Scope.ADMIN)):
            return None
        return Caller(resource=key.resource, may_submit=key.may(Scope.SUBMIT), may_operate=key.may(Scope.ADMIN))


class Operations:
    """How the service is set up; keeps the promise of ``studio/context.py``."""

    def __init__(self, settings: Settings, sources: Mapping[str, str]) -> None:
        self._settings = settings
        self._sources = sources

    def settings(self) -> Sequence[Setting]:
        values = self._settings.model_dump(mode="json")
        return [
            Setting(name=name, value=_text(value), source=self._sources.get(name, "not known"))
            for name, value in values.items()
        ]

    def facts(self) -> Sequence[tuple[str, str]]:
        folder = self._settings.data_dir
        disk = shutil.disk_usage(folder)
        database = sqlite_file(folder)
        return (
            ("Version", __version__),
            ("Data folder", str(folder.absolute())),
            ("Database", f"SQLite, {human.size(database.stat().st_size)}"),
            ("Schema", NEWEST_VERSION),
            ("Results", self._settings.results_url or "in the data folder"),
            ("Disk", f"{human.size(disk.free)} of {human.size(disk.total)} free"),
        )

    async def checks(self) -> Sequence[Finding]:
        found = await examine(self._settings)
        return [Finding(name=each.name, ok=each.ok, detail=each.detail, remedy=each.remedy) for each in found]


class Beside:
    """Two applications under one address: the Studio at ``/`` and ``/studio``, the API everywhere else."""

    def __init__(self, studio: ASGIApp, api: ASGIApp, root: str) -> None:
        self._studio = studio
        self._api = api
        self._root = root

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(self._root) or "/"
            if path in {"/", "/studio"} or path.startswith("/studio/"):
                await self._studio({**scope, "path": path, "raw_path": path.encode()}, receive, send)
                return
        await self._api(scope, receive, send)


def make_studio(
    services: Services,
    problem: Callable[[], Awaitable[str | None]],
    callers: KeyHolders,
    operations: Operations,
    traffic: Traffic,
    settings: Settings,
) -> Studio:
    parts = Parts(
        files=services.files,
        batches=services.batches,
        requests=services.requests,
        retries=services.retries,
        checks=services.checks,
        estimates=services.estimates,
        quotas=services.quotas,
        deployments=services.deployments,
        troubles=services.troubles,
        problem=problem,
        callers=callers,
        operations=operations,
        upstreams=services.upstreams,
        traffic=traffic,
        usage=services.usage,
        allowances=services.allowances,
        neighbourhood=neighbourhood,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        root=settings.root_path,
        gallery=settings.dev,
    )
    return Studio(parts)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
