"""Quotas in SQL; keeps the promises of ``ports/quotas.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, literal, select, update

from overnight.adapters.sql.rows import to_record, to_row
from overnight.adapters.sql.tables import quotas, resources
from overnight.domain.quota import Offer, Own, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.adapters.sql.database import Database
    from overnight.domain.ids import ResourceId


class SqlQuotas:
    """Quotas in the tables ``quotas`` and ``resources``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def terms(self, resource: ResourceId) -> Terms:
        row = await self._database.row(select(resources.c.offer).where(resources.c.name == resource))
        if row is None:
            return Terms()
        own = await self._database.rows(
            select(quotas.c.deployment, quotas.c.tokens).where(quotas.c.resource == resource)
        )
        return Terms(
            offer=None if row["offer"] is None else Offer(row["offer"]),
            own={each["deployment"]: each["tokens"] for each in own},
        )

    async def own(self) -> Sequence[Own]:
        return [to_record(Own, row) for row in await self._database.rows(select(quotas).order_by(quotas.c.seq))]

    async def put(self, own: Own) -> bool:
        same = quotas.c.resource == own.resource, quotas.c.deployment == own.deployment
        async with self._database.transaction() as connection:
            # The write comes first: it takes the lock, so that of two at once the second finds the row of the first.
            written = await connection.execute(update(quotas).where(*same).values(tokens=own.tokens))
            if written.rowcount:
                return True
            owner = select(literal(1)).where(resources.c.name == own.resource)
            if (await connection.execute(owner)).first() is None:
                return False
            await connection.execute(insert(quotas).values(to_row(own)))
        return True

    async def remove(self, resource: ResourceId, deployment: str) -> bool:
        removing = delete(quotas).where(quotas.c.resource == resource, quotas.c.deployment == deployment)
        async with self._database.transaction() as connection:
            return (await connection.execute(removing)).rowcount > 0

    async def put_offer(self, resource: ResourceId, offer: Offer | None) -> bool:
        putting = update(resources).where(resources.c.name == resource).values(offer=offer)
        async with self._database.transaction() as connection:
            return (await connection.execute(putting)).rowcount > 0
