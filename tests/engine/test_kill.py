"""The real service, killed in the middle of its work: no recorded result is lost, and none is there twice."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

from tests.support.api import OPENAI, Api, chats
from tests.support.http import Http
from tests.support.service import Service, eventually

from overnight.testing.upstream import ScriptedUpstream, answer

REQUESTS = 400
KILLS = 3


def test_a_service_killed_again_and_again_ends_each_request_exactly_once(tmp_path: Path) -> None:
    """``kill -9`` is the only crash that nothing can prepare for."""
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.02)) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url])
        service.start()
        batch_id = _api(service).create(_api(service).upload(chats(REQUESTS, OPENAI.endpoint)))
        recorded = 0
        listed: set[str] = set()
        for kill in range(1, KILLS + 1):
            upstream.wait_for(kill * REQUESTS // (KILLS + 2), timeout=30)
            recorded = max(recorded, _api(service).batch(batch_id)["request_counts"]["completed"])
            listed |= _listed(service, batch_id)
            service.kill()
            service.start()
            shown = _api(service).batch(batch_id)["request_counts"]["completed"]
            assert shown >= recorded
            assert _listed(service, batch_id) >= listed
        assert listed
        _check_end(service, batch_id)
        assert len(_listed(service, batch_id)) == REQUESTS
        service.stop()

    tries = Counter(received.body for received in upstream.asked)
    assert len(tries) == REQUESTS
    assert max(tries.values()) <= 1 + KILLS


def test_a_service_with_its_results_in_an_object_store_ends_each_request_exactly_once(tmp_path: Path) -> None:
    """Each time it is killed once more results are stored: those are found again, and the rest is sent again."""
    store = tmp_path / "store"
    settings = tmp_path / "overnight.toml"
    settings.write_text(f'results_url = "{store.as_uri()}"\n')
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.5)) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url], arguments=["--config", str(settings)])
        service.start()
        batch_id = _api(service).create(_api(service).upload(chats(REQUESTS, OPENAI.endpoint)))
        recorded = 0
        for _ in range(KILLS):
            recorded = eventually(partial(_more_completed, service, batch_id, recorded))
            assert list(store.glob(f"results/{batch_id}/*.log")) != []
            service.kill()
            service.start()
            assert _completed(service, batch_id) >= recorded
        _check_end(service, batch_id)
        assert eventually(lambda: not list(store.rglob("*.*")))
        service.stop()

    tries = Counter(received.body for received in upstream.asked)
    assert len(tries) == REQUESTS
    assert max(tries.values()) <= 1 + KILLS
    assert list((tmp_path / "data" / "results").glob("*")) == []


def test_the_books_of_a_service_killed_again_and_again_say_what_its_result_files_say(tmp_path: Path) -> None:
    """Every result is counted once, also those whose progress note was lost."""
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.02)) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url])
        service.start()
        content = chats(REQUESTS, OPENAI.endpoint)
        batches = [_api(service).create(_api(service).upload(content)) for _ in range(2)]
        for kill in range(1, KILLS + 1):
            upstream.wait_for(kill * 2 * REQUESTS // (KILLS + 2), timeout=30)
            service.kill()
            service.start()
        used: Counter[str] = Counter()
        for batch_id in batches:
            batch = _api(service).end(batch_id, timeout=60)
            output, _ = _api(service).results(batch)
            for line in output:
                usage = line["response"]["body"]["usage"]
                used.update(completed=1, input=usage["prompt_tokens"], output=usage["completion_tokens"])
        report = _api(service).get("/usage").json()
        service.stop()

    assert report["request_counts"] == {"completed": used["completed"], "failed": 0}
    assert report["usage"]["input_tokens"] == used["input"]
    assert report["usage"]["output_tokens"] == used["output"]
    assert used["completed"] == 2 * REQUESTS


def _listed(service: Service, batch_id: str) -> set[str]:
    """Say which requests are listed as done."""
    reply = _api(service).get(f"/batches/{batch_id}/requests?status=succeeded&limit={REQUESTS}")
    assert reply.status == 200, reply
    return {row["custom_id"] for row in reply.json()["data"]}


def _completed(service: Service, batch_id: str) -> int:
    return int(_api(service).batch(batch_id)["request_counts"]["completed"])


def _more_completed(service: Service, batch_id: str, recorded: int) -> int:
    """Say how many requests are completed once these are more than before."""
    completed = _completed(service, batch_id)
    return completed if completed > recorded else 0


def _check_end(service: Service, batch_id: str) -> None:
    batch = _api(service).end(batch_id, timeout=60)
    output, errors = _api(service).results(batch)
    asked = [json.loads(line)["custom_id"] for line in chats(REQUESTS, OPENAI.endpoint).splitlines()]
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert [entry["custom_id"] for entry in output] == asked
    assert errors == []


def _api(service: Service) -> Api:
    return Api(Http(service.url), OPENAI)
