"""What the overview and the upstreams show, and what is done with them and with several things at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from tests.studio.conftest import BLUE, Visitor
from tests.support.api import Api, chats
from tests.support.http import Reply
from tests.support.service import Service, eventually

from overnight.bootstrap.studio import KeyHolders
from overnight.domain.accounting import Days, UsageDay
from overnight.domain.batch import BatchStatus
from overnight.domain.cap import Cap, CapState, Measure, Period
from overnight.domain.deployment import UpstreamName
from overnight.domain.ids import ResourceId
from overnight.domain.quota import Basis, Limit, OverQuota
from overnight.domain.usage import Usage
from overnight.ports.upstream import UpstreamHealth
from overnight.services.keys import Authenticator
from overnight.services.meters import Activity, Figures, Tally
from overnight.services.quotas import QuotaState
from overnight.services.traffic import Points
from overnight.services.usage import PricedDay, UsageReport
from overnight.studio import dashboard
from overnight.studio.gallery import batch_in
from overnight.studio.looking import _events
from overnight.testing.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
TEAM = ResourceId("team")
NOW = 1_800_000_000


def points(**changes: tuple[float, ...]) -> Points:
    two = dict.fromkeys(("done", "failed", "tokens_in", "tokens_out"), (0.0, 0.0))
    return Points(length=3600, since=100.0, times=(5.0, 10.0), **{**two, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "No request has ended in this time. Counted since the service started, 10 s ago."),
        (
            {"done": (300.0, 212.25), "failed": (0.0, 1.5), "tokens_in": (0.0, 4000.0), "tokens_out": (0.0, 100.0)},
            (
                "212 requests/s succeed now, and 1.5 requests/s fail; at most it was 300 requests/s. "
                "They use 4,100 tokens a second. Counted since the service started, 10 s ago."
            ),
        ),
        (
            {"done": (3.0, 2.0)},
            "2.0 requests/s succeed now; at most it was 3.0 requests/s. Counted since the service started, 10 s ago.",
        ),
        (
            {"done": (1 / 900, 0.0), "failed": (0.0, 1 / 900)},
            (
                "No request succeeds now, and 4.0 requests/h fail; at most it was 4.0 requests/h. "
                "Counted since the service started, 10 s ago."
            ),
        ),
    ],
)
def test_chart_says_in_words_what_it_draws(changes: dict[str, tuple[float, ...]], expected: str):
    assert dashboard.chart(points(**changes), 110.0).summary == expected


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({}, ("Answers", "success")),
        ({"problem": "refused"}, ("Left alone", "danger")),
        ({"problem": "refused", "paused": True}, ("Paused", "neutral")),
    ],
)
def test_upstream_has_a_state(health: dict[str, object], expected: tuple[str, str]):
    state = UpstreamHealth(name=UpstreamName("vllm-1"), url="http://a/v1", **health)  # type: ignore[arg-type]
    row = dashboard.upstream_row(0, state, (), may_operate=False)

    assert (row.word, row.tone) == expected
    assert row.url == ""


def test_upstream_tells_how_it_answers():
    recent = Tally(succeeded=1950, refused=40, broken=1, rejected=9)
    figures = Figures(
        since_start=recent, recent=recent, seconds=300.0, p50=0.32, p95=12.0, tokens_in=900.4, tokens_out=1.0
    )
    health = UpstreamHealth(name=UpstreamName("vllm-1"), url="http://a/v1", in_flight=3, limit=4)
    row = dashboard.upstream_row(0, health, (), Activity(figures=figures, left_alone=2.6), may_operate=True)

    assert (row.p50, row.p95, row.errors, row.share) == ("320 ms", "12 s", "2.5 %", 75)
    assert dict(row.numbers) == {
        "p50": "320 ms",
        "p95": "12 s",
        "Succeeded": "97.5 %",
        "Refused (429)": "2 %",
        "Errors (5xx)": "under 0.1 %",
        "Other errors": "0.5 %",
        "Not answered": "0 %",
        "Tokens in": "900/s",
        "Tokens out": "1/s",
        "Left alone for": "3 s",
    }
    assert row.since_start == "1,950 succeeded and 50 failed"


def test_allowance_shows_limits_and_what_was_used():
    usage = Usage(input_tokens=700, output_tokens=300)
    days = [
        PricedDay(entry=UsageDay(resource=TEAM, deployment="m", day=day, completed=2, failed=1, usage=usage), cost=cost)
        for day, cost in (("2026-11-24", 1_500_000), ("2026-11-25", None))
    ]
    caps = [CapState(cap=Cap(resource=TEAM, period=Period.DAY, measure=Measure.TOKENS, amount=1000), used=850)]
    report = UsageReport(days=Days(first="2026-11-01", last="2026-11-25"), entries=days, caps=caps, currency="EUR")
    quotas = [
        QuotaState(
            deployment="m",
            model="m",
            limit=Limit(tokens=tokens, basis=next(iter(Basis))),
            enqueued=2000,
            over_quota=OverQuota.QUEUE,
        )
        for tokens in (2000, None)
    ]

    found = dashboard.allowance(quotas, report)

    assert [(meter.name, meter.text, meter.share, meter.tone) for meter in found.meters] == [
        ("Enqueued for m", "2,000 of 2,000 tokens", 100, "danger"),
        ("Cap on tokens", "85 % of 1,000 tokens a day", 85, "warning"),
    ]
    today, month = dict(found.uses)["Today"], dict(found.uses)["This month"]
    assert dict(today) == {"Succeeded": "2", "Failed": "1", "Tokens in": "700", "Tokens out": "300"}
    assert dict(month)["Cost"] == "1.50 EUR"


def traffic(visitor: Visitor, span: str = "1h") -> Mapping[str, Any]:
    answer: Mapping[str, Any] = json.loads(visitor.page(f"/studio/traffic?span={span}"))
    return answer


def test_requests_that_ended_are_in_the_chart_of_the_overview(visitor: Visitor, api: Api):
    api.end(api.create(api.upload(chats(5, CHAT))))

    week = eventually(lambda: traffic(visitor, "7d") if sum(traffic(visitor, "7d")["done"]) else None)

    assert week["length"] == 604_800
    assert 'data-source="/studio/traffic?span=7d"' in visitor.page("/studio?span=7d")
    assert 'data-source="/studio/traffic?span=1h"' in visitor.page("/studio?span=nonsense")


def test_resource_sees_its_own_traffic_only(blue: Visitor, newcomer: Visitor, blue_api: Api):
    blue_api.end(blue_api.create(blue_api.upload(chats(5, CHAT))))

    assert eventually(lambda: sum(traffic(blue)["done"]))
    assert traffic(newcomer)["times"] == []


def test_overview_shows_everything_also_before_the_first_batch(newcomer: Visitor):
    html = newcomer.page("/studio")

    for part in ("No batches yet", 'id="cards"', 'id="throughput"', 'id="strip"', 'id="allowance"', 'id="events"'):
        assert part in html


def test_operator_pauses_and_resumes_an_upstream(visitor: Visitor, api: Api):
    (name,) = re.findall(r'name="name" value="([^"]+)" aria-label="Test', visitor.page("/studio/upstreams"))
    visitor.submit("/studio/upstreams/pause", name=name)
    try:
        assert "Paused" in visitor.page("/studio/upstreams")
        batch = api.create(api.upload(chats(1, CHAT)))
        assert api.reach(batch, "in_progress")["request_counts"] == {"total": 1, "completed": 0, "failed": 0}
        assert "No upstream serves test-model now: it is paused" in visitor.page(f"/studio/batches/{batch}")
    finally:
        visitor.submit("/studio/upstreams/resume", name=name)

    assert api.end(batch)["status"] == "completed"
    assert "Paused" not in visitor.page("/studio/upstreams")


def walk(visitor: Visitor, path: str) -> Iterator[str]:
    """Go through the pages of a list."""
    while path:
        page = visitor.page(path)
        yield page
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = unescape(following[1]) if following else ""


def test_active_batches_come_first_page_after_page_and_stay_live(visitor: Visitor, api: Api):
    (name,) = re.findall(r'name="name" value="([^"]+)" aria-label="Test', visitor.page("/studio/upstreams"))
    of_them = {"crowd": "yes"}
    ended = [api.create(api.upload(chats(1, CHAT)), metadata=of_them) for _ in range(2)]
    for batch in ended:
        api.end(batch)
    visitor.submit("/studio/upstreams/pause", name=name)
    try:
        active = [api.create(api.upload(chats(1, CHAT)), metadata=of_them) for _ in range(52)]
        pages = list(walk(visitor, "/studio/batches?q=meta.crowd%3Ayes&first=active"))
    finally:
        visitor.submit("/studio/upstreams/resume", name=name)
    api.end(active[0])
    topics = [re.findall(r'data-topics="([^"]*)"', page) for page in pages]
    live = visitor.page(f"/studio/parts?topics={topics[1][0]}")

    shown = [re.findall(r'<tr role="row" id="row-(batch_\w+)"', page) for page in pages]
    assert [len(each) for each in shown] == [50, 4]
    assert [*shown[0], *shown[1]] == [*reversed(active), *reversed(ended)]
    assert topics[1] == [f"rows:{active[1]}.{active[0]}"]
    assert f'id="row-{active[0]}" data-state="Completed"' in live


def test_what_happened_last_is_told_of_old_batches_too():
    at = {"created_at": NOW - 9_000, "in_progress_at": NOW - 9_000, "completed_at": NOW - 1}
    old = batch_in(NOW, "old", BatchStatus.COMPLETED, **at)
    young = [
        batch_in(NOW, f"young {number}", BatchStatus.VALIDATING, created_at=NOW - 60 - number) for number in range(30)
    ]

    events = _events([*young, old], NOW, "")

    assert (events[0].name, events[0].text) == ("old", "completed")
    assert [each.name for each in events[1:]] == [f"young {number}" for number in range(9)]


def test_testing_an_upstream_shows_the_call_and_its_answer(visitor: Visitor, upstream: ScriptedUpstream):
    (name,) = re.findall(r'name="name" value="([^"]+)" aria-label="Test', visitor.page("/studio/upstreams"))

    html = visitor.submit("/studio/upstreams/test", name=name).body.decode()

    assert f"GET {upstream.url}/models" in html
    assert re.search(r"answered with status 200 in (under )?[\d.]+ m?s: 1 model<", html)


@pytest.mark.parametrize("deed", ["pause", "resume", "test"])
def test_nobody_but_an_operator_switches_upstreams(blue: Visitor, deed: str):
    assert blue.submit(f"/studio/upstreams/{deed}", name="upstream-1").status == 403


def test_an_unknown_upstream_cannot_be_switched(visitor: Visitor):
    assert visitor.submit("/studio/upstreams/pause", name="nobody").status == 404


def deed(visitor: Visitor, path: str, ids: list[str]) -> Reply:
    body = urlencode([("csrf", visitor.token()), *(("id", each) for each in ids)]).encode()
    return visitor.http.call("POST", path, body, {"content-type": "application/x-www-form-urlencoded"})


def test_files_that_were_chosen_are_deleted_after_a_question(visitor: Visitor, api: Api):
    ids = [api.upload(chats(1, CHAT), filename=f"chosen-{number}.jsonl") for number in range(2)]
    question = visitor.page(f"/studio/files/delete?id={ids[0]}&id={ids[1]}&id=file-gone&id={ids[0]}")

    assert "Delete 2 files?" in question
    assert "1 left out: gone already" in question
    done = deed(visitor, "/studio/files/delete", [*ids, "file-gone"]).body.decode()

    assert "Deleted 2 files" in done
    assert "1 left out: gone already" in done
    assert {visitor.get(f"/studio/files/{each}").status for each in ids} == {404}


def test_batches_that_ended_are_left_out_of_a_question(visitor: Visitor, api: Api):
    batch = api.create(api.upload(chats(1, CHAT)))
    api.end(batch)

    assert "Nothing to do" in visitor.page(f"/studio/batches/cancel?id={batch}")
    assert "Cancelled 0 batches" in deed(visitor, "/studio/batches/cancel", [batch, "batch_gone"]).body.decode()
    assert "Nothing was chosen" in visitor.page("/studio/batches/cancel")


def test_other_resources_cannot_be_chosen(blue_api: Api, newcomer: Visitor):
    file_id = blue_api.upload(chats(1, CHAT))

    assert "Nothing to do" in newcomer.page(f"/studio/files/delete?id={file_id}")


def test_active_batches_come_first_if_wanted(visitor: Visitor, api: Api):
    api.end(api.create(api.upload(chats(1, CHAT))))

    html = visitor.page("/studio/batches?first=active")

    assert 'value="active" checked' in html
    assert 'id="row-batch_' in html


def test_wrong_keys_are_refused_after_some_attempts(upstream: ScriptedUpstream, tmp_path: Path):
    (tmp_path / "keys.txt").write_text(f"{BLUE} blue\n")
    arguments = ["--keys-file", str(tmp_path / "keys.txt")]
    with Service(tmp_path, upstreams=[upstream.url], arguments=arguments) as service:
        visitor = Visitor(service.url)
        replies = [visitor.sign_in("wrong") for _ in range(11)]

    assert [reply.status for reply in replies] == [401] * 10 + [429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    assert "Too many attempts" in replies[-1].body.decode()


class NoKeys:
    """There is not one key."""

    async def needed(self) -> bool:
        return False


@pytest.mark.parametrize("bearers", [True, False])
async def test_tokens_of_an_issuer_close_the_studio_to_whoever_has_no_key(bearers: bool):
    holders = KeyHolders({}, cast("Authenticator", NoKeys()), bearers=bearers)

    assert (await holders.open_to("localhost") is None) == bearers
