"""The real service, killed in the middle of its work: no recorded result is lost, and none is there twice."""

import json
from collections import Counter
from pathlib import Path

from tests.support.api import OPENAI, Api, chats
from tests.support.http import Http
from tests.support.service import Service

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
        for kill in range(1, KILLS + 1):
            upstream.wait_for(kill * REQUESTS // (KILLS + 2), timeout=30)
            recorded = max(recorded, _api(service).batch(batch_id)["request_counts"]["completed"])
            service.kill()
            service.start()
            shown = _api(service).batch(batch_id)["request_counts"]["completed"]
            assert shown >= recorded
        batch = _api(service).end(batch_id, timeout=60)
        output, errors = _api(service).results(batch)
        service.stop()

    asked = [json.loads(line)["custom_id"] for line in chats(REQUESTS, OPENAI.endpoint).splitlines()]
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert [entry["custom_id"] for entry in output] == asked
    assert errors == []
    tries = Counter(received.body for received in upstream.asked)
    assert len(tries) == REQUESTS
    assert max(tries.values()) <= 1 + KILLS


def _api(service: Service) -> Api:
    return Api(Http(service.url), OPENAI)
