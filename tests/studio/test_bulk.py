"""What is done with many batches or files at once, by forms alone: no script is run here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from tests.studio.conftest import BLUE, GREEN, Visitor
from tests.studio.test_sign_in import keys
from tests.support.api import OPENAI, Api, chat_body, jsonl, request
from tests.support.http import Http, Reply
from tests.support.service import Service, eventually

from overnight.domain.errors import Conflict, NotFound, TooManyRequests
from overnight.domain.ids import ResourceId
from overnight.services.rates import Allowances, Running
from overnight.studio import bulk
from overnight.studio.deeds import Cancel, Deed, Made, Piece, Thing
from overnight.studio.session import Visitor as Visited
from overnight.testing.clock import ManualClock
from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, error, held

CHAT = "/v1/chat/completions"
TEAM = ResourceId("team")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("bulk")
    (folder / "keys.txt").write_text(f"{BLUE} blue\n{GREEN} green\n")
    gate = Gate()
    script = by_text({"fails": error(400, "no"), "waits": held(gate)}, answer())
    with (
        ScriptedUpstream(models=("test-model",), script=script) as upstream,
        Service(folder, upstreams=[upstream.url], arguments=["--keys-file", str(folder / "keys.txt")]) as service,
    ):
        yield service
        # Nothing is left to wait for when it stops.
        gate.open()


@pytest.fixture
def team(service: Service) -> Visitor:
    visitor = Visitor(service.url)
    visitor.sign_in(BLUE)
    return visitor


@pytest.fixture
def team_api(service: Service) -> Api:
    return Api(Http(service.url, {"authorization": f"Bearer {BLUE}"}), OPENAI)


def batch_of(api: Api, *texts: str, name: str) -> str:
    """Create a batch whose requests say these texts; it ends unless one waits."""
    lines = [request(f"r-{place}", CHAT, chat_body(text)) for place, text in enumerate(texts)]
    batch_id = api.create(api.upload(jsonl(*lines)), metadata={"name": name, "run": name})
    if "waits" not in texts:
        api.end(batch_id)
    return batch_id


def asked(html: str) -> list[tuple[str, str]]:
    """Give the fields of the form of a question, as a browser without scripts would send them."""
    form = html[html.index('class="panel"') :]
    return re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)">', form)


def send(visitor: Visitor, path: str, fields: list[tuple[str, str]]) -> Reply:
    headers = {"content-type": "application/x-www-form-urlencoded", "cookie": visitor.cookie}
    return visitor.http.call("POST", path, urlencode(fields).encode(), headers)


def deed(visitor: Visitor, path: str, *ids: str) -> str:
    return send(visitor, path, [("csrf", visitor.token()), *(("id", each) for each in ids)]).body.decode()


def matching(run: str, **more: str) -> str:
    return "?" + urlencode({"all": "1", "q": f"meta.run:{run}", **more})


def test_failed_requests_of_ticked_batches_run_again_after_a_question(team: Visitor, team_api: Api):
    failed, fine = batch_of(team_api, "fails", "ok", name="ticked"), batch_of(team_api, "ok", name="ticked")
    running, lost = batch_of(team_api, "waits", name="ticked"), batch_of(team_api, "fails", name="ticked")
    team_api.delete(f"/files/{team_api.batch(lost)['input_file_id']}")
    question = team.page("/studio/batches/retry?" + urlencode([("id", each) for each in (failed, fine, running, lost)]))

    html = send(team, "/studio/batches/retry", asked(question)).body.decode()

    assert "Retry 1 batch?" in question
    for why in ("no request failed", "not ended yet", "the input file is gone"):
        assert f"1 left out: {why}" in question
    assert "Retried 1 batch<" in html
    (made,) = set(re.findall(r'href="/studio/batches/(batch_[0-9a-f]+)"', html)) - {failed}
    assert team_api.batch(made)["metadata"]["retry_of"] == failed


def test_form_that_is_sent_twice_makes_nothing_twice(team: Visitor, team_api: Api):
    failed = batch_of(team_api, "fails", name="twice")
    fields = asked(team.page(f"/studio/batches/retry?id={failed}"))

    first, second = (send(team, "/studio/batches/retry", fields).body.decode() for _ in range(2))

    assert re.findall(r"/studio/batches/batch_[0-9a-f]+", first) == re.findall(
        r"/studio/batches/batch_[0-9a-f]+", second
    )


def test_all_that_match_are_retried_once(team: Visitor, team_api: Api):
    ids = {batch_of(team_api, "fails", name="every") for _ in range(3)}
    batch_of(team_api, "fails", name="other")
    question = team.page(f"/studio/batches/retry{matching('every')}")

    html = send(team, "/studio/batches/retry", asked(question)).body.decode()

    assert ids == {value for name, value in asked(question) if name == "id"}
    assert "Retried 3 batches" in html
    for each in set(re.findall(r'href="/studio/batches/(batch_[0-9a-f]+)"', html)):
        team_api.end(each)
    assert "3 left out: retried already" in team.page(f"/studio/batches/retry{matching('every')}")


def test_all_that_match_are_cancelled_except_what_changed_meanwhile(team: Visitor, team_api: Api):
    ids = [batch_of(team_api, "waits", name="stop") for _ in range(2)]
    ended = batch_of(team_api, "ok", name="stop")
    question = team.page(f"/studio/batches/cancel{matching('stop', view='active')}")
    fields = [*asked(question), ("id", ended)]

    html = send(team, "/studio/batches/cancel", fields).body.decode()

    assert "Cancel 2 batches?" in question
    assert "Cancelled 2 batches" in html
    assert "1 left out: Cannot cancel a batch with status" in html
    assert {team_api.batch(each)["status"] for each in ids} <= {"cancelling", "cancelled"}


def test_list_offers_all_that_match_only_where_there_is_a_filter_that_is_understood(team: Visitor, team_api: Api):
    batch_of(team_api, "ok", name="offer")

    assert "All matching (1)" in team.page("/studio/batches?q=meta.run:offer")
    assert "All matching" not in team.page("/studio/batches")
    assert "All matching" not in team.page("/studio/batches?q=meta.run:offer+colour:red")
    assert "All matching" in team.page("/studio/files?purpose=batch")
    assert "All matching" not in team.page("/studio/files")


@pytest.mark.parametrize("query", ["q=colour:red", "q=status:failed&view=other", "q=" + "x" * 501])
def test_filter_that_is_not_understood_in_full_is_no_filter_for_a_deed(team: Visitor, query: str):
    reply = team.get(f"/studio/batches/cancel?all=1&{query}")

    assert reply.status == 400
    assert b"not understood in full" in reply.body


def test_all_files_of_a_purpose_are_deleted(service: Service):
    visitor = Visitor(service.url)
    visitor.sign_in(GREEN)
    api = Api(Http(service.url, {"authorization": f"Bearer {GREEN}"}), OPENAI)
    ids = [api.upload(jsonl(request("r", CHAT))) for _ in range(3)]
    question = visitor.page("/studio/files/delete?all=1&purpose=batch")

    html = send(visitor, "/studio/files/delete", asked(question)).body.decode()

    assert "Delete 3 files?" in question
    assert "Deleted 3 files" in html
    assert {visitor.get(f"/studio/files/{each}").status for each in ids} == {404}


@pytest.mark.parametrize("path", ["/studio/batches/cancel", "/studio/batches/retry", "/studio/files/delete"])
def test_what_is_of_others_is_answered_as_what_is_not_there(service: Service, team_api: Api, path: str):
    batch_id = batch_of(team_api, "fails", name="foreign")
    file_id = team_api.batch(batch_id)["input_file_id"]
    theirs, unknown = (file_id, "file-" + "0" * 32) if "files" in path else (batch_id, "batch_" + "0" * 32)
    green = Visitor(service.url)
    green.sign_in(GREEN)

    def said(each: str) -> tuple[str, ...]:
        pages = (green.page(f"{path}?id={each}"), deed(green, path, each))
        return tuple(re.sub(r'name="once" value="[0-9a-f]+"', "", page.replace(each, "ID")) for page in pages)

    assert said(unknown) == said(theirs)
    assert "left out: gone already" in said(theirs)[0]
    assert team_api.get(f"/files/{file_id}").status == 200


@pytest.mark.parametrize("path", ["/studio/batches/cancel", "/studio/batches/retry", "/studio/files/delete"])
def test_nothing_is_done_without_the_token_or_beyond_the_bound(team: Visitor, path: str):
    many = 201 if "retry" in path else 1_001
    ids = [("id", f"batch_{number:032}") for number in range(many)]

    assert send(team, path, ids[:1]).status == 403
    assert send(team, path, [("csrf", team.token()), *ids]).status == 400


def test_as_many_as_the_bound_says_fit_into_a_form(team: Visitor):
    ids = [("id", f"batch_{number:032}") for number in range(1_000)]

    reply = send(team, "/studio/batches/cancel", [("csrf", team.token()), ("once", "x"), *ids])

    assert b"1,000 left out: gone already" in reply.body


def test_key_that_may_only_read_is_asked_and_refused(service: Service, team_api: Api):
    batch_id = batch_of(team_api, "fails", name="read")
    created = json.loads(keys(service, "create", "--resource", "blue", "--scope", "read", "--json=id,key"))
    reader = Visitor(service.url)
    eventually(lambda: reader.sign_in(created["key"]).status == 303)
    question = reader.page(f"/studio/batches/retry?id={batch_id}")

    reply = send(reader, "/studio/batches/retry", asked(question))

    assert re.search(r'<button class="button primary" disabled title="[^"]+">Retry 1 batch', question)
    assert reply.status == 403


class Fake:
    """A deed on things that are called by numbers; each takes a second."""

    words, section, name = Cancel.words, "batches", "cancel"

    def __init__(
        self, clock: ManualClock, *, most: int = 250, there: int = 10**6, refuse: Mapping[str, Exception]
    ) -> None:
        self.clock, self.most, self.there, self.refuse = clock, most, there, refuse

    async def look(self, _resource: ResourceId, thing_id: str) -> Thing:
        return Thing(id=thing_id, name=thing_id)

    async def done_before(self, _resource: ResourceId) -> frozenset[str]:
        return frozenset({"3"})

    async def matching(self, _resource: ResourceId, wanted: Mapping[str, str], after: str | None) -> Piece:
        start = int(after or 0)
        end = min(start + 100, self.there)
        things = [Thing(id=str(each), name="") for each in range(start, end) if "none" not in wanted]
        return Piece(things=tuple(things), looked=end - start, after=None if end == self.there else str(end))

    async def do(self, _resource: ResourceId, thing_id: str, _once: str) -> Made | None:
        if thing_id in self.refuse:
            raise self.refuse[thing_id]
        await asyncio.to_thread(lambda: None)
        self.clock.jump(1)
        return None


@pytest.mark.parametrize(
    ("there", "wanted", "count", "bound"),
    [
        (240, {}, 239, ""),
        (251, {}, 250, ""),
        (252, {}, 250, "At most 250 batches at once: these are the newest. Do it again for the others."),
        (10**6, {}, 250, "At most 250 batches at once: these are the newest. Do it again for the others."),
        (10**6, {"none": "1"}, 0, "Looked at the newest 10,000 batches only; older ones are not meant."),
    ],
)
def test_looking_for_all_that_match_ends_at_a_bound(there: int, wanted: dict[str, str], count: int, bound: str):
    fake = Fake(ManualClock(), there=there, refuse={})

    chosen = asyncio.run(bulk._all_matching(cast("Deed", fake), TEAM, wanted))  # noqa: SLF001 - a bound that is slow to reach from outside

    assert count == len(chosen.things)
    assert bound == chosen.bound


def doing(fake: Fake, ids: list[str]) -> bulk.Outcome:
    allowances = Allowances(None, {}, Running(None))
    parts = SimpleNamespace(root="", clock=fake.clock, allowances=allowances, batches=None, files=None, retries=None)
    visitor = cast("Visited", SimpleNamespace(caller=SimpleNamespace(resource=TEAM), key=b""))
    work = bulk.Bulk(cast("Any", parts), cast("Any", None), cast("Any", None))
    return asyncio.run(work._do(cast("Deed", fake), visitor, ids, "once"))  # noqa: SLF001 - time stands still only here


def test_deed_that_takes_long_stops_and_can_go_on():
    clock = ManualClock()

    outcome = doing(Fake(clock, refuse={"1": NotFound("x"), "2": Conflict("no")}), [str(each) for each in range(30)])

    assert outcome.title == "Cancelled 20 batches"
    assert outcome.left == ("1 left out: gone already", "1 left out: no")
    assert outcome.rest == tuple(str(each) for each in range(22, 30))
    assert outcome.word == "Cancel the other 8"


def test_deed_stops_where_no_more_is_let_in():
    outcome = doing(Fake(ManualClock(), refuse={"2": TooManyRequests("Wait.", wait=1.0)}), ["0", "1", "2", "3"])

    assert outcome.problem == "Wait."
    assert outcome.rest == ("2", "3")
