"""Looks for what the settings and the database name and there is not, and for webhooks that do not arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.quotas import SqlQuotas
from overnight.adapters.sql.usage import SqlCaps
from overnight.adapters.sql.webhooks import SqlWebhooks
from overnight.bootstrap.keys import read_keys
from overnight.domain.addresses import parse_url
from overnight.domain.cap import Measure
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.human import listing, plural, span

if TYPE_CHECKING:
    from overnight.adapters.sql.database import Database
    from overnight.adapters.sql.webhooks import Standing
    from overnight.config import Settings
    from overnight.config_deployments import ContentFilterSettings, DeploymentSettings
    from overnight.domain.addresses import Policy
    from overnight.domain.webhook import Endpoint
    from overnight.ports.batches import Batches
    from overnight.ports.results import ResultLogs

Offers = Mapping[str, Sequence[str] | None]
"""The models of each upstream, by its name; ``None`` if it does not answer."""

_NAMED_AT_ONCE = 3
_ASKED_AT_ONCE = 100
# A delivery that is due is sent within a second or two, unless many are waiting for slow receivers.
_LATE_SECONDS = 300.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The finding of ``overnight doctor`` on one part; one that is ok and has a remedy is worth a look."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def look_at_settings(settings: Settings, offers: Offers) -> list[Check]:
    """Look at what the settings name, and whether it is there."""
    filters = [_filter(settings, each, offers) for each in settings.content_filters]
    return [*_deployments(settings, offers), *filters]


async def look_at_database(settings: Settings, offers: Offers, database: Database, now: float) -> list[Check]:
    """Look at what the database names, and whether it is there. Raises ``SQLAlchemyError``."""
    return [
        *await _quotas(settings, offers, database),
        *await _caps(settings, database),
        *await _webhooks(settings.webhooks.policy(), SqlWebhooks(database), now),
    ]


async def look_at_logs(logs: ResultLogs, batches: Batches) -> list[Check]:
    """Look for results of batches that the database does not know. Raises ``Unavailable``, ``SQLAlchemyError``."""
    strange: list[str] = []
    found = await logs.batch_ids()
    for start in range(0, len(found), _ASKED_AT_ONCE):
        ids = found[start : start + _ASKED_AT_ONCE]
        known = {batch.id for batch in await batches.known(ids)}
        strange += [batch_id for batch_id in ids if batch_id not in known]
    if not strange:
        return []
    detail = f"the database does not know the batches of {plural(len(strange), 'result log')}: {_some(strange)}"
    remedy = "give each service a results_url of its own; they are left alone, and after a restored backup are waste"
    return [Check(name="results", ok=True, detail=detail, remedy=remedy)]


def _deployments(settings: Settings, offers: Offers) -> list[Check]:
    if not settings.deployments:
        return []
    names = Counter(each.name for each in settings.deployments)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        detail = f"{_some(twice)} is set more than once, and only the last one counts"
        remedy = "put its model, price and filter under one [[deployments]]"
        return [Check(name="deployments", ok=False, detail=detail, remedy=remedy)]
    unlisted = [each.name for each in settings.deployments if _is_unlisted(each, offers)]
    if not unlisted:
        return [Check(name="deployments", ok=True, detail=f"{len(names)} set")]
    detail = f"{len(names)} set; no upstream lists the model of {_some(unlisted)}"
    remedy = "check model and upstreams of the deployment; nothing may answer there, and its price would never be asked"
    return [Check(name="deployments", ok=True, detail=detail, remedy=remedy)]


def _is_unlisted(deployment: DeploymentSettings, offers: Offers) -> bool:
    """Say whether all that could serve it say what they have, and none has it."""
    lists = [offers.get(label) for label in deployment.upstreams or offers]
    return all(lists) and not any((deployment.model or deployment.name) in (models or ()) for models in lists)


def _filter(settings: Settings, rules: ContentFilterSettings, offers: Offers) -> Check:
    name = f"content filter {rules.name}"
    asked = {each.name: each for each in settings.deployments}.get(rules.deployment)
    labels = (asked.upstreams or tuple(offers)) if asked else (rules.upstream,)
    model = rules.model or (asked.model or asked.name if asked else "")
    answering = {label: models for label in labels if (models := offers.get(label)) is not None}
    if not answering:
        detail = f"it is asked at {_some(labels)}, which does not answer"
        remedy = "start that server: nothing passes unjudged, so the requests of its deployments wait or fail"
        return Check(name=name, ok=False, detail=detail, remedy=remedy)
    if model and all(answering.values()) and not any(model in models for models in answering.values()):
        detail = f"{_some(answering)} does not list its model `{model}`"
        remedy = "load that model there, or name another as model of the filter"
        return Check(name=name, ok=False, detail=detail, remedy=remedy)
    detail = f"{model or 'moderations'} at {', '.join(answering)}"
    if rules.name not in {each.content_filter for each in settings.deployments}:
        return Check(name=name, ok=True, detail=f"{detail}; no deployment names it", remedy="set content_filter on one")
    return Check(name=name, ok=True, detail=detail)


async def _quotas(settings: Settings, offers: Offers, database: Database) -> list[Check]:
    own = await SqlQuotas(database).own()
    if not own:
        return []
    detail = plural(len(own), "number")
    # While an upstream is silent, nobody knows which models there are.
    lists = [models for models in offers.values() if models is not None]
    known = {each.name for each in settings.deployments}.union(*lists)
    strange = [f"{each.resource} for {each.deployment}" for each in own if each.deployment not in known]
    if not strange or len(lists) < len(offers):
        return [Check(name="quotas", ok=True, detail=detail)]
    detail = f"{detail}; of deployments that there are not: {_some(strange)}"
    remedy = "`overnight quota clear RESOURCE DEPLOYMENT` forgets one; set it again under the right name"
    return [Check(name="quotas", ok=True, detail=detail, remedy=remedy)]


async def _caps(settings: Settings, database: Database) -> list[Check]:
    caps = await SqlCaps(database).all()
    if not caps:
        return []
    resources = {each.name for each in await SqlKeys(database).resources()}
    known = resources | {DEFAULT_RESOURCE, *read_keys(settings).values()}
    strange = sorted({str(each.resource) for each in caps if each.resource not in known})
    if strange:
        detail = f"{plural(len(caps), 'cap')}; of resources that there are not: {_some(strange)}"
        remedy = "`overnight resources cap NAME --tokens none` (or --spend) takes one away; set it under the right name"
        return [Check(name="caps", ok=True, detail=detail, remedy=remedy)]
    in_money = any(each.measure is Measure.SPEND for each in caps)
    if in_money and not any(each.price for each in settings.deployments):
        detail = f"{plural(len(caps), 'cap')}; some are on spend, and no deployment has a price"
        remedy = "give the deployments a price: what has none costs nothing, so these caps are never reached"
        return [Check(name="caps", ok=True, detail=detail, remedy=remedy)]
    return [Check(name="caps", ok=True, detail=plural(len(caps), "cap"))]


async def _webhooks(policy: Policy, webhooks: SqlWebhooks, now: float) -> list[Check]:
    endpoints = await webhooks.everyone()
    if not endpoints:
        return []
    standing = await webhooks.standing(now)
    refused = [each.id for each in endpoints if _is_refused(policy, each)]
    detail = f"{plural(len(endpoints), 'receiver')}, {_deliveries(standing)}"
    if refused:
        detail = f"{detail}; the URL of {_some(refused)} leads where webhooks may not reach"
        remedy = "name its network or host in `allow` under [webhooks], or give it another URL"
        return [Check(name="webhooks", ok=False, detail=detail, remedy=remedy)]
    return [Check(name="webhooks", ok=True, detail=detail, remedy=_webhooks_remedy(standing, now))]


def _is_refused(policy: Policy, endpoint: Endpoint) -> bool:
    """Say whether its URL cannot be used; where a name leads is seen only when it is looked up."""
    try:
        return policy.problem_of_host(parse_url(endpoint.url).host) is not None
    except ValueError:
        return True


def _deliveries(standing: Standing) -> str:
    parts = [f"{standing.waiting} to be delivered" if standing.waiting else "nothing to be delivered"]
    if standing.failing:
        parts.append(f"{standing.tried} of them in vain so far")
    if standing.given_up:
        parts.append(f"{standing.given_up} given up lately")
    return ", ".join(parts)


def _webhooks_remedy(standing: Standing, now: float) -> str:
    if standing.failing:
        first = standing.failing[0]
        return (
            f"`overnight webhooks deliveries {first}` tells what that receiver answers; `webhooks test` sends a sample"
        )
    if standing.oldest_due is not None and standing.oldest_due < now - _LATE_SECONDS:
        late = span(now - standing.oldest_due)
        return f"some are due for {late}: they are sent while `overnight serve` runs on this data folder"
    return ""


def _some(names: Sequence[str] | Mapping[str, object]) -> str:
    """Name the first few."""
    shown = [f"`{name}`" for name in list(names)[:_NAMED_AT_ONCE]]
    more = len(names) - len(shown)
    return listing([*shown, f"{more} more"] if more else shown)
