"""Two processes on one data folder at one quota, and at one cap: what they let in together stays within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.chaos.world import name_of
from tests.support.api import OPENAI, Api, chat_body, jsonl, request
from tests.support.http import Http
from tests.support.quotas import Watch, quota
from tests.support.service import Service, overnight

from overnight.testing.upstream import ScriptedUpstream, answer

EACH = 8
"""The prompt tokens of a request here: one of its text, 4 of the message, 3 of the prompt."""
SIZE = 5
"""The requests of each batch that competes for the quota."""
BATCHES = 10
LIMIT = 3 * SIZE * EACH + EACH
CONCURRENCY = 4
CAP = 400
DELAY = 0.2
CONFIG = f"""
stop_grace = 5.0
[[upstreams]]
url = "{{url}}"
max_concurrency = {CONCURRENCY}
start_concurrency = {CONCURRENCY}
[[deployments]]
name = "test-model"
tokenizer = "o200k"
[[deployments]]
name = "limited"
model = "test-model"
tokenizer = "o200k"
enqueued_tokens = {LIMIT}
over_quota = "queue"
"""

LAUNCHER = (
    "overnight.testing.crashing",
    *("--set", "overnight.dispatch.admitting:_ASK_AGAIN=0.1"),
    *("--set", "overnight.dispatch.dispatcher:_CLAIM_EVERY=0.2"),
    "--",
)

Both = tuple[Service, Service]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model",)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def both(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("two")
    config, keys = folder / "limits.toml", folder / "keys.txt"
    config.write_text(CONFIG.format(url=upstream.url))
    keys.write_text("key-a quota-team\nkey-b cap-team\n")
    arguments = ["--config", str(config), "--keys-file", str(keys)]
    first, second = (Service(folder, arguments=arguments, name=name) for name in ("first", "second"))
    try:
        for service in (first, second):
            service.start(LAUNCHER)
        yield first, second
    finally:
        first.kill()
        second.kill()


def apis(both: Both, key: str) -> list[Api]:
    return [Api(Http(service.url, {"authorization": f"Bearer {key}"}), OPENAI) for service in both]


def requests(name: str, count: int, model: str) -> bytes:
    return jsonl(*(request(f"{name}-{n}", OPENAI.endpoint, chat_body(f"{name}-{n}", model)) for n in range(count)))


def both_worked(both: Both, batches: list[str]) -> bool:
    """Whether each process asked for room for some of these batches; which of them got it is a matter of luck."""
    return all(any(_asked_for(service, batch) for batch in batches) for service in both)


def _asked_for(service: Service, batch: str) -> bool:
    lines = [line for line in service.log().splitlines() if batch in line]
    return any(event in line for line in lines for event in ("batch.moved", "batch.waits"))


@pytest.mark.timeout(240)
def test_two_processes_never_let_in_more_than_a_quota_has(both: Both, upstream: ScriptedUpstream):
    upstream.script = answer(delay=0.1)
    ours = apis(both, "key-a")
    content = jsonl(*(request(f"r-{n}", OPENAI.endpoint, chat_body("word", "limited")) for n in range(SIZE)))
    files = [api.upload(content) for api in ours]

    def submit(number: int) -> str:
        return ours[number % 2].create(files[number % 2])

    with Watch(ours[0], "limited") as one, Watch(ours[1], "limited") as other, ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(submit, range(BATCHES)))
        ended = [ours[0].end(batch, timeout=100) for batch in batches]
    outputs = [ours[1].results(batch)[0] for batch in ended]
    used = ours[1].get("/usage").json()["data"]

    assert [len(output) for output in outputs] == [SIZE] * BATCHES
    assert LIMIT // 2 < max(one.seen + other.seen) <= LIMIT
    assert [quota(api, "limited")["enqueued_tokens"] for api in ours] == [0, 0]
    assert sum(entry["request_counts"]["completed"] for entry in used) == BATCHES * SIZE
    assert both_worked(both, batches)


@pytest.mark.timeout(240)
def test_two_processes_stop_at_one_cap(both: Both, upstream: ScriptedUpstream):
    """What is over it is what was in flight; all of that is booked, in a result file, and was asked once."""
    upstream.script = answer(delay=DELAY)
    upstream.forget()
    ours = apis(both, "key-b")
    inputs = [api.upload(requests(name, 400, "test-model")) for api, name in zip(ours, ("a", "b"), strict=True)]
    cap(both[0], CAP)
    batches = [api.create(file) for api, file in zip(ours, inputs, strict=True)]
    ended = [ours[0].end(batch, timeout=60) for batch in batches]
    results = [ours[1].results(batch) for batch in ended]
    usage = ours[1].get("/usage").json()

    assert [batch["status"] for batch in ended] == ["cancelled"] * 2
    assert {problem["code"] for batch in ended for problem in batch["errors"]["data"]} == {"billing_hard_limit_reached"}
    done = [line["custom_id"] for output, _ in results for line in output]
    assert Counter(name_of(each) for each in upstream.asked) == Counter(done)
    assert [len(output) + len(errors) for output, errors in results] == [400] * 2
    assert sum(entry["request_counts"]["completed"] for entry in usage["data"]) == len(done)
    tokens = sum(line["response"]["body"]["usage"]["total_tokens"] for output, _ in results for line in output)
    assert usage["caps"][0]["used"] == str(tokens)
    each = tokens // len(done)
    # What the guide says: as much as the upstreams bring in two seconds.
    assert CAP <= tokens <= CAP + 2 * each * 2 * CONCURRENCY / DELAY


def cap(service: Service, tokens: int) -> None:
    """Set a cap while both run."""
    folder = ("--data-dir", str(service.data_dir))
    overnight(service, "resources", "cap", "cap-team", "--tokens", str(tokens), "--per", "day", *folder)
