"""What reaches the model server: the very bytes of each request's body, each request once, and never a stream."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.api import AZURE, OPENAI, Api, Prefix, chat_body, chats, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, log_shown

from overnight.testing.upstream import ScriptedUpstream

MAPPED = "my-gpt-batch"
IMAGE = base64.b64encode(random.Random(7).randbytes(150_000)).decode()

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'
BODIES = {
    "plain": '{"model":"MODEL",' + MESSAGES + "}",
    "odd-spacing": '{  "messages" :[ {"role"\t:"user" ,"content":"hi"} ] ,\t"model"  :  "MODEL"  }',
    "big-numbers": '{"model":"MODEL",' + MESSAGES + ',"seed":12345678901234567890123,"top_p":1.0000000000000000001}',
    "exponents": '{"model":"MODEL",' + MESSAGES + ',"a":1E400,"b":-0.0,"c":1e-7,"d":100e+2,"e":0.10}',
    "escapes": '{"model":"MODEL","messages":[{"role":"user","content":"h\\u00e9 \\ud83d\\ude00 \\/ \\" \\\\n"}]}',
    "plain-unicode": '{"model":"MODEL","messages":[{"role":"user","content":"é 😀 试验 \u2028\u0085 "}]}',
    "nul": '{"model":"MODEL","messages":[{"role":"user","content":"a\\u0000b"}]}',
    "image": (
        '{"model":"MODEL","messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},'
        f'{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{IMAGE}"}}}}]}}]}}'
    ),
    "unknown-members": '{"zeta":1,"model":"MODEL",' + MESSAGES + ',"alpha":{"b":[],"a":{}},"n":null,"t":true}',
    "repeated-members": '{"model":"MODEL",' + MESSAGES + ',"x":1,"x":2}',
    "stream-off": '{"model":"MODEL","stream":false,' + MESSAGES + "}",
    "stream-null": '{"model":"MODEL","stream":null,' + MESSAGES + "}",
    "model-last": "{" + MESSAGES + ',"model":"MODEL"}',
    "decoy-before": '{"metadata":{"model":"MODEL","x":[{"model":"MODEL"}]},"model":"MODEL",' + MESSAGES + "}",
    "decoy-after": '{"model":"MODEL","metadata":{"model":"MODEL"},' + MESSAGES + "}",
    "decoy-in-text": '{"messages":[{"role":"user","content":"{\\"model\\":\\"MODEL\\"}"}],"model":"MODEL"}',
    "decoy-as-value": '{"messages":[{"role":"user","content":"model"}],"user":"model","model":"MODEL"}',
}
# The value that is to be replaced, where it is not the first one in the body.
PLACE = {"decoy-before": 2}


def raw_line(custom_id: str, url: str, body: str) -> bytes:
    """Write a line around a body."""
    return f'{{"custom_id": "{custom_id}", "method": "POST", "url": "{url}", "body": {body}}}'.encode()


def expected(name: str, sent: str, asked: str) -> bytes:
    """Give the bytes that the model server must get: only the value of the model member may differ."""
    before = BODIES[name].split("MODEL")
    place = PLACE.get(name, _last(name))
    filled = [part for number, text in enumerate(before) for part in (text, asked if number == place else sent)]
    return "".join(filled[:-1]).encode()


def _last(name: str) -> int:
    return BODIES[name].count("MODEL") - 1 if name == "decoy-in-text" else 0


@pytest.fixture(scope="module")
def asked() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model", "real/model-1")) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def own_service(asked: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a deployment of another name than its model."""
    folder: Path = tmp_path_factory.mktemp("bodies")
    config = folder / "deployments.toml"
    config.write_text(
        f'[[upstreams]]\nname = "here"\nurl = "{asked.url}"\n'
        f'[[deployments]]\nname = "{MAPPED}"\nmodel = "real/model-1"\nupstreams = ["here"]\n'
    )
    with Service(folder, arguments=["--config", str(config)]) as service:
        yield service


@pytest.fixture
def api(own_service: Service, asked: ScriptedUpstream, request: pytest.FixtureRequest) -> Iterator[Api]:
    prefix: Prefix = getattr(request, "param", OPENAI)
    asked.forget()
    with log_shown(own_service):
        yield Api(Http(own_service.url), prefix)


@pytest.fixture(scope="module")
def arrived(own_service: Service, asked: ScriptedUpstream) -> dict[tuple[str, str], bytes]:
    """All bodies, sent once under the model's own name and once under the deployment's, as they arrived."""
    found: dict[tuple[str, str], bytes] = {}
    for model, prefix in (("test-model", OPENAI), (MAPPED, AZURE)):
        asked.forget()
        api = Api(Http(own_service.url), prefix)
        lines = [raw_line(name, prefix.endpoint, body.replace("MODEL", model)) for name, body in BODIES.items()]
        batch = api.run(jsonl(*lines))
        assert batch["errors"] is None, batch["errors"]
        requests = {line["response"]["request_id"]: line["custom_id"] for line in api.results(batch)[0]}
        for one in asked.asked:
            found[model, requests[f"req_upstream_{one.number}"]] = one.body
    return found


@pytest.mark.parametrize("name", BODIES)
def test_body_arrives_byte_for_byte(arrived: dict[tuple[str, str], bytes], name: str):
    assert arrived["test-model", name] == expected(name, "test-model", "test-model")


@pytest.mark.parametrize("name", BODIES)
def test_mapped_model_is_the_only_difference(arrived: dict[tuple[str, str], bytes], name: str):
    assert arrived[MAPPED, name] == expected(name, MAPPED, "real/model-1")


def test_model_whose_key_is_spelled_with_escapes_is_mapped_too(api: Api, asked: ScriptedUpstream):
    body = '{"mod\\u0065l":"' + MAPPED + '",' + MESSAGES + "}"

    batch = api.run(jsonl(raw_line("a", "/v1/chat/completions", body)))

    assert batch["request_counts"]["completed"] == 1
    assert [one.json()["model"] for one in asked.asked] == ["real/model-1"]


def test_requests_go_to_the_endpoint_as_json(api: Api, asked: ScriptedUpstream):
    api.run(chats(1, "/v1/chat/completions"))

    (one,) = asked.asked
    assert (one.method, one.path) == ("POST", "/v1/chat/completions")
    assert one.headers["content-type"] == "application/json"
    assert one.headers["content-length"] == str(len(one.body))
    assert "authorization" not in one.headers
    assert "api-key" not in one.headers


@pytest.mark.parametrize("api", [OPENAI, AZURE], indirect=True, ids=lambda prefix: prefix.name)
def test_every_request_is_asked_once_and_gets_its_own_answer(api: Api, asked: ScriptedUpstream):
    """A peer mixed up the answers of equal custom_ids, others lose or repeat lines (contract section 7, row 11)."""
    count = 1_000

    batch = api.run(chats(count, api.prefix.endpoint))

    times = Counter(one.json()["messages"][0]["content"] for one in asked.asked)
    assert times == Counter({f"r-{number}": 1 for number in range(count)})
    output, errors = api.results(batch)
    assert errors == []
    assert [line["custom_id"] for line in output] == [f"r-{number}" for number in range(count)]
    for line in output:
        assert line["response"]["body"]["choices"][0]["message"]["content"] == f"echo: {line['custom_id']}"


@pytest.mark.parametrize("api", [OPENAI, AZURE], indirect=True, ids=lambda prefix: prefix.name)
@pytest.mark.parametrize(
    "member",
    [
        '"stream":true',
        '"stream" : true',
        '"stream":true,"stream":false',
        '"stream":false,"stream":true',
        '"str\\u0065am":true',
        '"stream":true,"str\\u0065am":false',
        '"stream":1',
        '"stream":"true"',
    ],
)
def test_stream_never_arrives(api: Api, asked: ScriptedUpstream, member: str):
    body = f'{{"model":"test-model",{member},{MESSAGES}}}'

    batch = api.run(jsonl(raw_line("a", api.prefix.endpoint, body)))

    assert batch["status"] == "failed"
    assert [problem["param"] for problem in batch["errors"]["data"]] == ["body.stream"]
    assert asked.asked == ()


def test_stream_deeper_in_the_body_is_no_matter(api: Api, asked: ScriptedUpstream):
    body = chat_body(metadata={"stream": True})

    batch = api.run(jsonl(request("a", "/v1/chat/completions", body)))

    assert batch["request_counts"]["completed"] == 1
    assert [one.json() for one in asked.asked] == [body]


def test_custom_id_comes_back_as_it_was_written(api: Api):
    names = ["plain", "with space", '"quoted"\\', "é😀", "a\nb", "x" * 512, "\u2028", "0", "-"]

    output, _ = api.results(api.run(jsonl(*(request(name, "/v1/chat/completions") for name in names))))

    assert [line["custom_id"] for line in output] == names


def test_content_of_result_files_is_plain_json_lines(api: Api):
    batch = api.run(chats(3, "/v1/chat/completions"))

    content = api.content(batch["output_file_id"])

    assert content.count(b"\n") == 3
    assert [json.loads(line)["custom_id"] for line in content.splitlines()] == ["r-0", "r-1", "r-2"]
