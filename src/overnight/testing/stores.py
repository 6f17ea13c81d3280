"""Stores in memory. They keep every promise of the ports but that of outliving the process."""

from __future__ import annotations

import operator
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from overnight.domain import quota
from overnight.domain.accounting import Days, UsageDay, UsageTotal, account_of, day_of, difference, tally_of
from overnight.domain.batch import ACTIVE, Batch, BatchStatus
from overnight.domain.file import File, Purpose
from overnight.domain.ids import ADMIN_RESOURCE
from overnight.domain.key import Key as ApiKey
from overnight.domain.lanes import lane_of
from overnight.domain.result import Tally
from overnight.domain.upload import Part, Upload, UploadStatus
from overnight.ports.batches import Admission, Page, Verdict
from overnight.ports.bounds import Bound, BoundReached
from overnight.testing.webhooks import WebhookTables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.domain.cap import Cap, Measure, Period
    from overnight.domain.ids import BatchId, FileId, KeyId, PartId, ResourceId, UploadId, WorkerId
    from overnight.domain.key import Resource
    from overnight.domain.lanes import Lane
    from overnight.domain.listing import BatchQuery, Condition
    from overnight.ports.files import PartRoom

Key = TypeVar("Key", bound=str)
Stored = TypeVar("Stored")
Listed = TypeVar("Listed", Batch, File)


class Tables:
    """What the stores of one service share; records stand in the order of their creation."""

    def __init__(self) -> None:
        self.batches: dict[BatchId, Batch] = {}
        self.leases: dict[BatchId, tuple[WorkerId | None, float]] = {}
        self.files: dict[FileId, File] = {}
        self.without_bytes: set[FileId] = set()
        self.uploads: dict[UploadId, Upload] = {}
        self.parts: dict[PartId, Part] = {}
        self.resources: dict[ResourceId, Resource] = {}
        self.keys: dict[KeyId, ApiKey] = {}
        self.usage: dict[tuple[ResourceId, str, str], Tally] = {}
        self.caps: dict[tuple[ResourceId, Period, Measure], Cap] = {}
        self.webhooks = WebhookTables()

    def book(self, before: Batch, after: Batch, now: float) -> None:
        """Raise the books by what a batch counts more than before."""
        more = difference(tally_of(after), tally_of(before))
        if more != Tally():
            key = (before.resource, day_of(now), account_of(before))
            self.usage[key] = _sum(self.usage.get(key, Tally()), more)

    def read_by_active_batch(self, file_id: FileId) -> bool:
        """Say whether a batch that has not ended has this input."""
        return any(batch.input_file_id == file_id and batch.status in ACTIVE for batch in self.batches.values())


class MemoryBatches:
    """Keeps the promises of ``ports/batches.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, batch: Batch, *, bound: Bound | None = None) -> None:
        if bound is not None:
            self._check(batch, bound)
        _insert(self._tables.batches, batch.id, batch)

    async def add_once(self, batch: Batch, *, since: int, bound: Bound | None = None) -> Batch:
        repeated = None
        for stored in reversed(self._tables.batches.values()):
            if _repeats(batch, stored):
                if stored.created_at >= since:
                    return stored
                repeated = stored
                break
        await self.add(batch, bound=bound)
        if repeated is not None:
            self._tables.batches[repeated.id] = msgspec.structs.replace(repeated, idempotency_key=None)
        return batch

    def _check(self, batch: Batch, bound: Bound) -> None:
        alike = (each for each in self._tables.batches.values() if each.flavour is batch.flavour)
        times = sorted(
            each.created_at for each in alike if each.resource == batch.resource and each.created_at > bound.since
        )
        if len(times) >= bound.most:
            raise BoundReached(times[-bound.most])

    async def get(self, resource: ResourceId, batch_id: BatchId) -> Batch | None:
        batch = self._tables.batches.get(batch_id)
        return batch if batch is not None and batch.resource == resource else None

    async def page(self, resource: ResourceId, query: BatchQuery) -> Page[Batch] | None:
        owned = [batch for batch in self._tables.batches.values() if batch.resource == resource]
        if not query.oldest_first:
            owned.reverse()
        shown = [batch for batch in owned if all(_holds(condition, batch) for condition in query.conditions)]
        return _page(owned, shown, query.after, query.limit)

    async def save(self, new: Batch, *, expected: Batch, files: Sequence[File] = ()) -> bool:
        stored = self._current(expected)
        if stored is None or stored.status is not expected.status:
            return False
        names = [name for name in new.__struct_fields__ if getattr(new, name) != getattr(expected, name)]
        changes = {name: getattr(new, name) for name in names}
        added = dict(self._tables.files)
        for file in files:
            _insert(added, file.id, file)
        self._tables.files.update(added)
        after = msgspec.structs.replace(stored, **changes)
        self._tables.batches[new.id] = after
        self._tables.book(stored, after, new.moved_at)
        self._tables.webhooks.announce(new)
        return True

    async def admit(self, new: Batch, *, expected: Batch, limit: int, in_turn: bool) -> Admission:
        stored = self._current(expected)
        if stored is None or stored.status is not expected.status:
            return Admission(verdict=Verdict.LOST)
        sharing = [each for each in self._tables.batches.values() if _shares_quota(each, new) and each.id != new.id]
        enqueued = sum(map(_held, sharing))
        order = list(self._tables.batches)
        waiting = [each for each in sharing if each.status is BatchStatus.VALIDATING and each.prompt_tokens is not None]
        ahead = sum(order.index(each.id) < order.index(new.id) for each in waiting) if in_turn else 0
        if ahead or enqueued + new.reserved_tokens > limit:
            return Admission(verdict=Verdict.FULL, enqueued=enqueued, ahead=ahead)
        await self.save(new, expected=expected)
        return Admission(verdict=Verdict.ADMITTED, enqueued=enqueued)

    async def enqueued(self, resource: ResourceId, deployments: Sequence[str]) -> Mapping[str, int]:
        active = [each for each in self._tables.batches.values() if each.resource == resource and each.status in ACTIVE]
        return {name: sum(_held(each) for each in active if each.deployment == name) for name in deployments}

    async def repeated(self, batch: Batch, *, since: int) -> Batch | None:
        newest = reversed(self._tables.batches.values())
        return next((each for each in newest if _repeats(batch, each) and each.created_at >= since), None)

    async def record_progress(self, batch: Batch, tally: Tally, *, now: float) -> bool:
        stored = self._current(batch)
        if stored is None:
            return False
        counted = msgspec.structs.replace(stored, completed=tally.completed, failed=tally.failed, usage=tally.usage)
        self._tables.batches[batch.id] = counted
        self._tables.book(stored, counted, now)
        return True

    async def waiting(self, worker: WorkerId, *, now: float) -> Mapping[Lane, int]:
        return Counter(lane_of(batch, now) for batch in self._free(worker, now))

    async def claim(
        self, worker: WorkerId, *, now: float, until: float, limit: int, lane: Lane | None = None
    ) -> Sequence[Batch]:
        free = [batch for batch in self._free(worker, now) if lane in {None, lane_of(batch, now)}]
        if lane is not None and lane.deployment is None:
            free.sort(key=lambda batch: self._tables.leases.get(batch.id, (None, 0.0))[1])
        claimed = [msgspec.structs.replace(batch, epoch=batch.epoch + 1) for batch in free[:limit]]
        for batch in claimed:
            self._tables.batches[batch.id] = batch
            self._tables.leases[batch.id] = (worker, until)
        return claimed

    async def renew(self, batch: Batch, worker: WorkerId, *, until: float) -> Batch | None:
        stored = self._current(batch)
        if stored is None or not self._is_held(batch.id, worker):
            return None
        self._tables.leases[batch.id] = (worker, until)
        return stored

    async def release(self, batch: Batch, worker: WorkerId, *, until: float = 0.0) -> None:
        if self._current(batch) is not None and self._is_held(batch.id, worker):
            self._tables.leases[batch.id] = (None, until)

    async def known(self, batch_ids: Sequence[BatchId]) -> Sequence[Batch]:
        return [self._tables.batches[batch_id] for batch_id in batch_ids if batch_id in self._tables.batches]

    async def release_all(self, worker: WorkerId) -> None:
        for batch_id in [held for held, lease in self._tables.leases.items() if lease[0] == worker]:
            del self._tables.leases[batch_id]

    def _current(self, seen: Batch) -> Batch | None:
        stored = self._tables.batches.get(seen.id)
        return stored if stored is not None and stored.epoch == seen.epoch else None

    def _free(self, worker: WorkerId, now: float) -> list[Batch]:
        active = (batch for batch in self._tables.batches.values() if batch.status in ACTIVE)
        return [batch for batch in active if self._is_free(batch, worker, now)]

    def _is_free(self, batch: Batch, worker: WorkerId, now: float) -> bool:
        holder, until = self._tables.leases.get(batch.id, (None, 0.0))
        if holder is None:
            return until <= now or batch.status is BatchStatus.CANCELLING
        return until < now and holder != worker

    def _is_held(self, batch_id: BatchId, worker: WorkerId) -> bool:
        lease = self._tables.leases.get(batch_id)
        return lease is not None and lease[0] == worker


class MemoryFiles:
    """Keeps the promises of ``ports/files.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, file: File, *, bound: Bound | None = None) -> None:
        await self.check(file, bound)
        _insert(self._tables.files, file.id, file)

    async def get(self, resource: ResourceId, file_id: FileId, *, now: float) -> File | None:
        file = self._tables.files.get(file_id)
        return file if file is not None and file.resource == resource and file.visible(now) else None

    async def page(
        self,
        resource: ResourceId,
        *,
        after: FileId | None,
        limit: int,
        purpose: Purpose | None,
        oldest_first: bool,
        now: float,
    ) -> Page[File] | None:
        owned = [file for file in self._tables.files.values() if file.resource == resource]
        if not oldest_first:
            owned.reverse()
        shown = [file for file in owned if file.visible(now) and purpose in {None, file.purpose}]
        return _page(owned, shown, after, limit)

    async def delete(self, resource: ResourceId, file_id: FileId, *, now: float) -> bool:
        file = await self.get(resource, file_id, now=now)
        if file is None:
            return False
        self._tables.files[file_id] = msgspec.structs.replace(file, deleted_at=int(now))
        return True

    async def count(self, resource: ResourceId, *, expiring: bool, now: float) -> int:
        return sum(
            file.resource == resource
            and file.purpose is not Purpose.BATCH_OUTPUT
            and (file.expires_at is not None) is expiring
            and file.visible(now)
            for file in self._tables.files.values()
        )

    async def check(self, file: File, bound: Bound | None) -> None:
        """Raise ``BoundReached`` where one more file like this is one too many."""
        if bound is not None:
            expiring = file.expires_at is not None
            if await self.count(file.resource, expiring=expiring, now=bound.since) >= bound.most:
                raise BoundReached

    async def gone(self, *, now: float, limit: int, after: File | None = None) -> Sequence[File]:
        behind = _later(self._tables.files, None if after is None else after.id)
        stored = (file for file in behind if file.id not in self._tables.without_bytes)
        gone = (file for file in stored if not file.visible(now))
        return [file for file in gone if not self._tables.read_by_active_batch(file.id)][:limit]

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        stored = (file for file in self._tables.files.values() if file.id not in self._tables.without_bytes)
        return {file.blob for file in stored} & set(keys)

    async def forget_bytes(self, gone: Sequence[File]) -> None:
        self._tables.without_bytes.update(file.id for file in gone)


class MemoryUploads:
    """Keeps the promises of ``ports/files.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, upload: Upload, *, bound: Bound | None = None) -> None:
        if bound is not None:
            pending = [each for each in self._pending(upload.resource) if each.expires_at > bound.since]
            if len(pending) >= bound.most:
                raise BoundReached
        _insert(self._tables.uploads, upload.id, upload)

    async def get(self, resource: ResourceId, upload_id: UploadId) -> Upload | None:
        upload = self._tables.uploads.get(upload_id)
        return upload if upload is not None and upload.resource == resource else None

    async def save(
        self, new: Upload, *, expected: Upload, file: File | None = None, bound: Bound | None = None
    ) -> bool:
        if self._tables.uploads[expected.id].status is not expected.status:
            return False
        if file is not None:
            await MemoryFiles(self._tables).add(file, bound=bound)
        self._tables.uploads[new.id] = new
        return True

    async def add_part(self, part: Part, *, room: PartRoom | None = None) -> bool:
        upload = self._tables.uploads.get(part.upload_id)
        if upload is None or upload.status is not UploadStatus.PENDING:
            return False
        if room is not None:
            number = len(await self.parts(upload.id)) + 1
            if number > room.parts or await self.stored_bytes(upload.resource) + part.bytes > room.bytes:
                raise BoundReached
        _insert(self._tables.parts, part.id, part)
        return True

    async def stored_bytes(self, resource: ResourceId) -> int:
        pending = {upload.id for upload in self._pending(resource)}
        return sum(part.bytes for part in self._tables.parts.values() if part.upload_id in pending)

    def _pending(self, resource: ResourceId) -> list[Upload]:
        owned = (upload for upload in self._tables.uploads.values() if upload.resource == resource)
        return [upload for upload in owned if upload.status is UploadStatus.PENDING]

    async def parts(self, upload_id: UploadId, part_ids: Sequence[PartId] | None = None) -> Sequence[Part]:
        owned = [part for part in self._tables.parts.values() if part.upload_id == upload_id]
        return owned if part_ids is None else [part for part in owned if part.id in part_ids]

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        return {part.blob for part in self._tables.parts.values()} & set(keys)

    async def finished(self, *, now: float, limit: int, after: Upload | None = None) -> Sequence[Upload]:
        with_parts = {part.upload_id for part in self._tables.parts.values()}
        behind = _later(self._tables.uploads, None if after is None else after.id)
        uploads = (upload for upload in behind if upload.id in with_parts)
        return [upload for upload in uploads if upload.seen_at(now).status is not UploadStatus.PENDING][:limit]

    async def forget_parts(self, upload: Upload) -> None:
        for part in await self.parts(upload.id):
            del self._tables.parts[part.id]


class MemoryKeys:
    """Keeps the promises of ``ports/keys.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add_resource(self, resource: Resource) -> bool:
        return self._tables.resources.setdefault(resource.name, resource) is resource

    async def add_resources(self, new: Sequence[Resource]) -> None:
        for resource in new:
            self._tables.resources.setdefault(resource.name, resource)

    async def resource(self, name: ResourceId) -> Resource | None:
        return self._tables.resources.get(name)

    async def resources(self) -> Sequence[Resource]:
        return [each for each in self._tables.resources.values() if each.name != ADMIN_RESOURCE]

    async def resource_page(self, *, after: ResourceId | None, limit: int) -> Page[Resource] | None:
        return _behind({each.name: each for each in await self.resources()}, after, limit)

    async def add(self, key: ApiKey) -> bool:
        if key.resource not in self._tables.resources:
            return False
        _insert(self._tables.keys, key.id, key)
        return True

    async def get(self, key_id: KeyId) -> ApiKey | None:
        return self._tables.keys.get(key_id)

    async def page(self, resource: ResourceId | None, *, after: KeyId | None, limit: int) -> Page[ApiKey] | None:
        shown = {each.id: each for each in self._tables.keys.values() if resource in {None, each.resource}}
        return _behind(shown, after, limit)

    async def by_hash(self, digest: str) -> ApiKey | None:
        return next((key for key in self._tables.keys.values() if key.hash == digest), None)

    async def all(self) -> Sequence[ApiKey]:
        return list(self._tables.keys.values())

    async def any(self) -> bool:
        return bool(self._tables.keys)

    async def revoke(self, key_id: KeyId, *, now: float) -> ApiKey | None:
        key = self._tables.keys.get(key_id)
        if key is not None and key.revoked_at is None:
            key = self._tables.keys[key_id] = msgspec.structs.replace(key, revoked_at=int(now))
        return key

    async def note_use(self, uses: Mapping[KeyId, int]) -> None:
        for key_id, moment in uses.items():
            if key_id in self._tables.keys:
                used = msgspec.structs.replace(self._tables.keys[key_id], last_used_at=moment)
                self._tables.keys[key_id] = used


class MemoryBooks:
    """Keeps the promises of ``ports/usage.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def days(
        self, resource: ResourceId, days: Days, *, deployment: str | None = None, limit: int
    ) -> Sequence[UsageDay]:
        found = self._within(days, resource, deployment)
        return [UsageDay(**entry) for entry in sorted(found, key=lambda each: (each["day"], each["deployment"]))][
            :limit
        ]

    async def totals(
        self, days: Days, *, resource: ResourceId | None = None, deployment: str | None = None
    ) -> Sequence[UsageTotal]:
        sums: dict[tuple[ResourceId, str], Tally] = {}
        for entry in self._within(days, resource, deployment):
            key = entry["resource"], entry["deployment"]
            tally = Tally(completed=entry["completed"], failed=entry["failed"], usage=entry["usage"])
            sums[key] = _sum(sums.get(key, Tally()), tally)
        return [
            UsageTotal(resource=owner, deployment=name, **msgspec.structs.asdict(tally))
            for (owner, name), tally in sorted(sums.items())
        ]

    def _within(self, days: Days, resource: ResourceId | None, deployment: str | None) -> list[dict[str, Any]]:
        return [
            {"resource": owner, "day": day, "deployment": name, **msgspec.structs.asdict(tally)}
            for (owner, day, name), tally in self._tables.usage.items()
            if days.first <= day <= days.last and resource in {None, owner} and deployment in {None, name}
        ]


class MemoryCaps:
    """Keeps the promises of ``ports/usage.py``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def all(self, resource: ResourceId | None = None) -> Sequence[Cap]:
        return [cap for key, cap in sorted(self._tables.caps.items()) if resource in {None, key[0]}]

    async def put(self, cap: Cap) -> None:
        self._tables.caps[cap.resource, cap.period, cap.measure] = cap

    async def remove(self, resource: ResourceId, period: Period, measure: Measure) -> bool:
        return self._tables.caps.pop((resource, period, measure), None) is not None


def _insert(table: dict[Key, Stored], key: Key, record: Stored) -> None:
    if key in table:
        message = f"{key} is there already"
        raise ValueError(message)
    table[key] = record


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(
        completed=one.completed + other.completed,
        failed=one.failed + other.failed,
        usage=one.usage + other.usage,
    )


def _repeats(batch: Batch, stored: Batch) -> bool:
    if (batch.resource, batch.idempotency_key) != (stored.resource, stored.idempotency_key):
        return False
    return batch.idempotency_key is not None or batch.fingerprint == stored.fingerprint


def _shares_quota(stored: Batch, batch: Batch) -> bool:
    same = (stored.resource, stored.deployment) == (batch.resource, batch.deployment)
    return same and stored.status in ACTIVE


def _held(batch: Batch) -> int:
    return quota.held(batch.reserved_tokens, batch.total, batch.completed + batch.failed)


def _holds(condition: Condition, batch: Batch) -> bool:
    value = getattr(batch, condition.field)
    return bool(getattr(operator, condition.operator)(value, condition.value))


def _later(table: Mapping[Key, Stored], after: Key | None) -> list[Stored]:
    order = list(table)
    return [table[key] for key in order[0 if after is None else order.index(after) + 1 :]]


def _behind(shown: Mapping[Key, Stored], after: Key | None, limit: int) -> Page[Stored] | None:
    """Cut a page out of what is shown, from behind the cursor."""
    names = list(shown)
    if after is not None and after not in shown:
        return None
    start = 0 if after is None else names.index(after) + 1
    return Page([shown[name] for name in names[start : start + limit]], len(names) > start + limit)


def _page(owned: Sequence[Listed], shown: Sequence[Listed], after: str | None, limit: int) -> Page[Listed] | None:
    """Cut a page out of what is shown; the cursor may name something that is not shown any more."""
    if after is None:
        behind = list(shown)
    else:
        order: list[str] = [record.id for record in owned]
        if after not in order:
            return None
        later = set(order[order.index(after) + 1 :])
        behind = [record for record in shown if record.id in later]
    return Page(behind[:limit], len(behind) > limit)
