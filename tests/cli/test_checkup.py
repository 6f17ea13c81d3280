"""What the doctor finds in the settings and in the database."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from sqlalchemy import insert
from tests.contract.test_batches import a_batch

from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.quotas import SqlQuotas
from overnight.adapters.sql.rows import to_row
from overnight.adapters.sql.tables import webhook_deliveries, webhook_endpoints
from overnight.adapters.sql.usage import SqlCaps
from overnight.bootstrap.checkup import Check, look_at_database, look_at_logs, look_at_settings
from overnight.config import Settings
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.ids import BatchId, EndpointId, EventId, ResourceId
from overnight.domain.key import Resource
from overnight.domain.quota import Own
from overnight.domain.webhook import Delivery, DeliveryStatus, Endpoint, EventType
from overnight.testing.results import Kept, MemoryResultLogs
from overnight.testing.stores import MemoryBatches, Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Cli

    from overnight.testing.upstream import ScriptedUpstream

NOW = 1_700_000_000
HERE = ResourceId("here")
URL = "http://127.0.0.1:9/v1"
OFFERS = {"gpu": ["m"]}


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"upstreams": [{"url": URL, "name": "gpu"}], **given})


def only(checks: list[Check]) -> Check:
    (found,) = checks
    return found


def test_settings_that_name_nothing_need_no_line() -> None:
    assert look_at_settings(settings(), OFFERS) == []


@pytest.mark.parametrize(
    ("deployments", "offers", "said", "worth_a_look"),
    [
        ([{"name": "m"}], OFFERS, "1 set", False),
        ([{"name": "a", "model": "m"}, {"name": "m"}], OFFERS, "2 set", False),
        ([{"name": "gone", "price": {"input": 1}}], OFFERS, "no upstream lists the model of `gone`", True),
        ([{"name": "gone"}], {"gpu": None}, "1 set", False),
        ([{"name": "gone"}], {"gpu": []}, "1 set", False),
        ([{"name": each} for each in "abcd"], OFFERS, "of `a`, `b`, `c` and 1 more", True),
    ],
)
def test_a_deployment_whose_model_nobody_lists_is_worth_a_look(
    deployments: list[Any], offers: Any, said: str, worth_a_look: bool
) -> None:
    """Its price is never asked. Where an upstream is silent or lists nothing, that cannot be told."""
    found = only(look_at_settings(settings(deployments=deployments), offers))

    assert found.ok
    assert said in found.detail
    assert bool(found.remedy) == worth_a_look


def test_a_deployment_that_is_set_twice_is_a_fault() -> None:
    """The price of the first one would be lost without a word."""
    found = only(look_at_settings(settings(deployments=[{"name": "m", "price": {"input": 1}}, {"name": "m"}]), OFFERS))

    assert not found.ok
    assert "`m` is set more than once" in found.detail


@pytest.mark.parametrize(
    ("rules", "offers", "ok", "said"),
    [
        ({"kind": "guard", "upstream": "gpu", "model": "m"}, OFFERS, True, "m at gpu"),
        ({"kind": "moderation", "upstream": "gpu"}, OFFERS, True, "moderations at gpu"),
        (
            {"kind": "guard", "upstream": "gpu", "model": "guard"},
            OFFERS,
            False,
            "`gpu` does not list its model `guard`",
        ),
        ({"kind": "guard", "upstream": "gpu", "model": "guard"}, {"gpu": []}, True, "guard at gpu"),
        ({"kind": "guard", "upstream": "gpu", "model": "m"}, {"gpu": None}, False, "which does not answer"),
        ({"kind": "guard", "deployment": "judge"}, OFFERS, True, "m at gpu"),
        ({"kind": "guard", "deployment": "judge"}, {"gpu": None}, False, "which does not answer"),
    ],
)
def test_a_filter_that_cannot_be_asked_is_a_fault(rules: dict[str, str], offers: Any, ok: bool, said: str) -> None:
    """Nothing passes unjudged, so its deployments stand still."""
    names = [{"name": "m", "content_filter": "f"}, {"name": "judge", "model": "m"}]
    found = look_at_settings(settings(deployments=names, content_filters=[{"name": "f", **rules}]), offers)[-1]

    assert (found.name, found.ok) == ("content filter f", ok)
    assert said in found.detail
    assert bool(found.remedy) == (not ok)


def test_a_filter_that_no_deployment_names_is_worth_a_look() -> None:
    unused = {"name": "f", "kind": "guard", "upstream": "gpu", "model": "m"}
    found = only(look_at_settings(settings(content_filters=[unused]), OFFERS))

    assert (found.ok, found.remedy) == (True, "set content_filter on one")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one resource, which each test gets a copy of."""
    folder = tmp_path_factory.mktemp("made")

    async def make() -> None:
        database = Database(sqlite_file(folder))
        await database.migrate()
        await SqlKeys(database).add_resource(Resource(name=HERE, created_at=NOW))
        await database.close()

    asyncio.run(make())
    return sqlite_file(folder)


@pytest.fixture
async def database(made: Path, tmp_path: Path) -> AsyncIterator[Database]:
    shutil.copy(made, sqlite_file(tmp_path))
    opened = Database(sqlite_file(tmp_path))
    yield opened
    await opened.close()


async def look(database: Database, offers: Any = OFFERS, **given: Any) -> list[Check]:
    return await look_at_database(settings(**given), offers, database, NOW)


async def test_a_database_that_names_nothing_needs_no_line(database: Database) -> None:
    assert await look(database) == []


async def test_a_quota_of_a_deployment_that_there_is_not_is_worth_a_look(database: Database) -> None:
    """Unless an upstream is silent, which may have it."""
    for deployment in ("m", "a"):
        await SqlQuotas(database).put(Own(resource=HERE, deployment=deployment, tokens=5))
    known = only(await look(database, deployments=[{"name": "a"}]))
    unknown = only(await look(database))
    silent = only(await look(database, {"gpu": None}))

    assert (known.detail, known.remedy) == ("2 numbers", "")
    assert "there are not: `here for a`" in unknown.detail
    assert "overnight quota clear" in unknown.remedy
    assert (silent.ok, silent.remedy) == (True, "")


async def test_a_cap_of_a_resource_that_there_is_not_is_worth_a_look(database: Database, tmp_path: Path) -> None:
    """Those of the key file and the one without keys are there, whether they have a row or not."""
    keys = tmp_path / "keys.txt"
    keys.write_text("a-long-key-of-one filed\n")
    for name in (HERE, "filed", "default"):
        await SqlCaps(database).put(a_cap(name))
    there = only(await look(database, keys_file=keys))
    gone = only(await look(database))

    assert (there.detail, there.remedy) == ("3 caps", "")
    assert "there are not: `filed`" in gone.detail
    assert "overnight resources cap" in gone.remedy


async def test_a_cap_on_spend_where_nothing_has_a_price_is_worth_a_look(database: Database) -> None:
    await SqlCaps(database).put(a_cap(HERE, Measure.SPEND))
    free = only(await look(database, deployments=[{"name": "m"}]))
    priced = only(await look(database, deployments=[{"name": "m", "price": {"input": 1}}]))

    assert "no deployment has a price" in free.detail
    assert (priced.detail, priced.remedy) == ("1 cap", "")


def a_cap(resource: str, measure: Measure = Measure.TOKENS) -> Cap:
    return Cap(resource=ResourceId(resource), period=Period.DAY, measure=measure, amount=5)


async def told(database: Database, url: str, *waiting: Delivery) -> None:
    """Store a receiver, and what it is to be told."""
    endpoint = Endpoint(
        id=EndpointId("we_1"),
        resource=HERE,
        name="n",
        url=url,
        event_types=(EventType.FAILED,),
        secret="whsec_YQ==",
        created_at=NOW,
        updated_at=NOW,
    )
    async with database.transaction() as connection:
        await connection.execute(insert(webhook_endpoints), [to_row(endpoint)])
        for number, each in enumerate(waiting):
            await connection.execute(
                insert(webhook_deliveries), [to_row(replace(each, event_id=EventId(f"e{number}")))]
            )


A_DELIVERY = Delivery(
    endpoint_id=EndpointId("we_1"),
    event_id=EventId("e"),
    type=EventType.FAILED,
    batch_id=BatchId("b"),
    created_at=NOW,
    due_at=NOW + 60,
)


async def test_a_receiver_that_takes_everything_is_well(database: Database) -> None:
    done = replace(A_DELIVERY, status=DeliveryStatus.DELIVERED, attempts=3)
    await told(database, "https://example.com/secret", done, A_DELIVERY, replace(A_DELIVERY, due_at=NOW - 1.0))
    found = only(await look(database))

    assert (found.ok, found.detail, found.remedy) == (True, "1 receiver, 2 to be delivered", "")


async def test_a_receiver_that_does_not_take_its_webhooks_is_worth_a_look(database: Database) -> None:
    given_up = replace(A_DELIVERY, status=DeliveryStatus.FAILED, attempts=9)
    await told(database, "https://example.com/", replace(A_DELIVERY, attempts=2), A_DELIVERY, given_up)
    found = only(await look(database))

    assert found.detail == "1 receiver, 2 to be delivered, 1 of them in vain so far, 1 given up lately"
    assert "overnight webhooks deliveries we_1" in found.remedy
    assert found.ok


async def test_webhooks_that_nobody_sends_are_worth_a_look(database: Database) -> None:
    await told(database, "https://example.com/", replace(A_DELIVERY, due_at=NOW - 3_600.0))
    found = only(await look(database))

    assert found.remedy == "some are due for 1 h 00 min: they are sent while `overnight serve` runs on this data folder"
    assert found.ok


@pytest.mark.parametrize("url", ["http://10.1.2.3/secret", "http://0x7f.1/secret", "secret"])
async def test_a_receiver_that_may_not_be_reached_is_a_fault(database: Database, url: str) -> None:
    """It was allowed when it was created. Its URL may hold a secret and is not shown."""
    await told(database, url)
    found = only(await look(database))

    assert not found.ok
    assert "`we_1` leads where webhooks may not reach" in found.detail
    assert "secret" not in found.detail


async def test_a_receiver_that_is_allowed_is_no_fault(database: Database) -> None:
    await told(database, "http://10.1.2.3/")

    assert only(await look(database, webhooks={"allow": ["10.0.0.0/8"]})).ok


def test_a_note_is_shown_with_its_hint_and_is_no_failure(bare: Cli, shared_upstream: ScriptedUpstream) -> None:
    """Settings may be ahead of the servers."""
    del bare.environment["OVERNIGHT_URL"]
    table = f'[[upstreams]]\nurl = "{shared_upstream.url}"\n[[deployments]]\nname = "gone"\n'
    (bare.folder / "overnight.toml").write_text(table)
    found = bare("doctor", "--config", "overnight.toml", "--data-dir", "data")

    assert "deployments\tnote\t1 set; no upstream lists the model of `gone`\n" in found.stdout
    assert "hint: deployments: check model and upstreams" in found.stderr
    assert found.code == 0


async def test_results_of_batches_that_are_not_known_are_worth_a_look(tmp_path: Path) -> None:
    """They are another service's, or younger than the backup that the database is from."""
    tables = Tables()
    tables.batches[BatchId("batch_known")] = a_batch("batch_known")
    logs, batches = MemoryResultLogs(tmp_path), MemoryBatches(tables)
    logs.logs = {BatchId("batch_known"): Kept()}
    nothing = await look_at_logs(logs, batches)
    logs.logs |= {BatchId(f"batch_{number}"): Kept() for number in range(104)}
    found = only(await look_at_logs(logs, batches))

    assert nothing == []
    assert found.ok
    assert found.detail.endswith("104 result logs: `batch_0`, `batch_1`, `batch_2` and 101 more")
    assert "results_url of its own" in found.remedy


def test_the_doctor_tells_of_a_store_that_two_services_share(bare: Cli, shared_upstream: ScriptedUpstream) -> None:
    """As that of a copied data folder is, too."""
    log = bare.folder / "store" / "results" / "batch_strange"
    log.mkdir(parents=True)
    (log / "00000001.pin").write_text("[]")
    url = f"file://{bare.folder}/store"
    found = bare("doctor", "--upstream", shared_upstream.url, OVERNIGHT_RESULTS_URL=url)

    assert f"results\tok\t{url} can be written\n" in found.stdout
    assert "results\tnote\tthe database does not know the batches of 1 result log: `batch_strange`\n" in found.stdout
    assert "hint: results: give each service a results_url of its own" in found.stderr
