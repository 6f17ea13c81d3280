"""A deployment with a content filter: what reaches the model, what becomes of answers, and a filter that is down."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace
from tests.engine.filters import GUARD, MODERATION, add_filter, chat, guard, moderation, says
from tests.engine.house import MODEL, House, line, number_of

from overnight.dispatch import filtering
from overnight.domain.batch import BatchStatus
from overnight.domain.content_filter import ContentFilter, Judged, OnTrouble, Threshold, Thresholds
from overnight.domain.deployment import Deployment
from overnight.domain.flavour import Flavour
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault, Outcome
from overnight.testing.in_process import (
    InProcessUpstream,
    Reply,
    ScriptedDeployments,
    Sent,
    always,
    answer,
    unreachable,
)

SAFE = {"filtered": False, "severity": "safe"}
ALL_SAFE = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), SAFE)
HATE_HIGH = {**ALL_SAFE, "hate": {"filtered": True, "severity": "high"}}


Filtered = Callable[..., InProcessUpstream]


@pytest.fixture
def filtered(quick: House) -> Filtered:
    """Give the deployment of the house a filter, and its upstream."""
    return partial(add_filter, quick)


async def test_a_filtered_prompt_never_reaches_the_model(quick: House, filtered: Filtered) -> None:
    judge = filtered()
    batch = await quick.submit([chat(0), chat(1, "bad bad bad"), chat(2)])
    quick.start()

    done = await quick.reach(batch)

    output, (refused,) = await quick.check(done)
    assert {number_of(sent.body) for sent in quick.upstream.sent} == {0, 2}
    assert {sent.endpoint for sent in judge.sent} == {"/v1/moderations"}
    assert [entry["custom_id"] for entry in output] == ["r0", "r2"]
    assert refused["custom_id"] == "r1"
    assert refused["error"] is None
    assert refused["response"]["status_code"] == 400
    error = refused["response"]["body"]["error"]
    assert error.pop("message")
    assert error == {
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {**ALL_SAFE, "hate": {"filtered": True, "severity": "high"}},
        },
    }


async def test_an_answer_that_passes_says_so(quick: House, filtered: Filtered) -> None:
    filtered()
    batch = await quick.submit([chat(0)])
    quick.start()

    (entry,), _ = await quick.check(await quick.reach(batch))

    body = entry["response"]["body"]
    assert body["prompt_filter_results"] == [{"prompt_index": 0, "content_filter_results": ALL_SAFE}]
    assert body["choices"] == [{"message": {"content": "ok"}, "content_filter_results": ALL_SAFE}]
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}


@pytest.mark.parametrize(("rules", "script"), [(MODERATION, moderation), (GUARD, guard)])
async def test_a_filtered_answer_loses_its_text(
    quick: House, filtered: Filtered, rules: ContentFilter, script: Callable[[Sent], Reply]
) -> None:
    filtered(rules, script)
    quick.upstream.script = always(answer(text="bad bad bad"))
    batch = await quick.submit([chat(0)])
    quick.start()

    (entry,), errors = await quick.check(await quick.reach(batch))

    assert errors == []
    assert entry["response"]["status_code"] == 200
    assert entry["response"]["body"]["choices"] == [
        {
            "message": {"role": "assistant", "content": None},
            "logprobs": None,
            "finish_reason": "content_filter",
            "content_filter_results": HATE_HIGH,
        }
    ]


async def test_the_tokens_of_the_filter_are_not_the_batchs(quick: House, filtered: Filtered) -> None:
    filtered(GUARD, guard)
    batch = await quick.submit([chat(0), chat(1)])
    quick.start()

    done = await quick.reach(batch)

    assert (done.usage.input_tokens, done.usage.output_tokens) == (2, 4)


async def test_a_guard_judges_an_answer_beside_its_prompt(quick: House, filtered: Filtered) -> None:
    judge = filtered(GUARD, guard)
    batch = await quick.submit([chat(0, "why?")])
    quick.start()
    await quick.reach(batch)

    asked = [json.loads(sent.body)["messages"] for sent in judge.sent]

    assert asked == [
        [{"role": "user", "content": "why?"}],
        [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "ok"}],
    ]


async def test_a_threshold_that_is_off_lets_everything_pass(quick: House, filtered: Filtered) -> None:
    filtered(replace(MODERATION, thresholds=Thresholds(hate=Threshold.OFF)))
    batch = await quick.submit([chat(0, "bad bad bad")])
    quick.start()

    (entry,), _ = await quick.check(await quick.reach(batch))

    found = entry["response"]["body"]["prompt_filter_results"][0]["content_filter_results"]
    assert found["hate"] == {"filtered": False, "severity": "high"}


@pytest.mark.parametrize(("judged", "prompts", "answers"), [(Judged.PROMPT, True, False), (Judged.ANSWER, False, True)])
async def test_what_is_not_judged_is_not_spoken_of(
    quick: House, filtered: Filtered, judged: Judged, prompts: bool, answers: bool
) -> None:
    judge = filtered(replace(MODERATION, judges=frozenset({judged})))
    batch = await quick.submit([chat(0)])
    quick.start()

    (entry,), _ = await quick.check(await quick.reach(batch))

    body = entry["response"]["body"]
    assert len(judge.sent) == 1
    assert ("prompt_filter_results" in body) is prompts
    assert ("content_filter_results" in body["choices"][0]) is answers


async def test_requests_wait_for_a_filter_that_is_down(quick: House, filtered: Filtered) -> None:
    judge = filtered(script=always(unreachable()))
    batch = await quick.submit([chat(number) for number in range(20)])
    quick.start()
    await quick.clock.run_until(lambda: len(judge.sent) > 10)

    assert quick.upstream.sent == []

    judge.script = moderation
    output, errors = await quick.check(await quick.reach(batch))

    assert (len(output), errors) == (20, [])


async def test_an_answer_waits_for_a_filter_that_went_down(quick: House, filtered: Filtered) -> None:
    """The model is not asked again."""
    judge = filtered(replace(MODERATION, judges=frozenset({Judged.ANSWER})), always(unreachable()))
    batch = await quick.submit([chat(number) for number in range(6)])
    quick.start()
    await quick.clock.run_until(lambda: len(judge.sent) > 10)

    assert (await quick.look(batch)).completed == 0

    judge.script = moderation
    output, errors = await quick.check(await quick.reach(batch))

    assert (len(output), errors) == (6, [])
    assert len(quick.upstream.sent) == 6


def _name(trouble: Outcome) -> str:
    return str(trouble.status) if isinstance(trouble, Answer) else trouble.fault


TROUBLES = [
    unreachable(),
    answer(500),
    answer(401),
    answer(429),
    Failure(fault=Fault.TIMEOUT, detail="late"),
    says("?"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=_name)
@pytest.mark.parametrize("judged", Judged)
async def test_nothing_passes_unjudged_when_the_window_closes(
    quick: House, filtered: Filtered, trouble: Outcome, judged: Judged
) -> None:
    filtered(replace(GUARD, judges=frozenset({judged})), always(trouble))
    batch = await quick.submit([chat(number) for number in range(5)])
    await quick.clock.advance(batch.expires_at - quick.clock.now() - 60)
    quick.start()

    done = await quick.reach(batch)

    output, errors = await quick.check(done)
    codes = {entry["error"]["code"] for entry in errors}
    assert output == []
    assert "content_filter_unavailable" in codes
    assert codes <= {"content_filter_unavailable", "batch_expired"}
    assert "hello" not in json.dumps(errors)


@pytest.mark.parametrize("trouble", TROUBLES, ids=_name)
@pytest.mark.parametrize("judged", Judged)
async def test_a_filter_that_is_not_waited_for_fails_its_requests(
    quick: House, filtered: Filtered, trouble: Outcome, judged: Judged
) -> None:
    rules = replace(GUARD, judges=frozenset({judged}), on_trouble=OnTrouble.FAIL)
    filtered(rules, always(trouble))
    batch = await quick.submit([chat(number) for number in range(8)], Flavour.AZURE)
    quick.start()

    done = await quick.reach(batch, within=7_200)

    output, errors = await quick.check(done)
    assert done.status is BatchStatus.COMPLETED
    assert output == []
    assert {entry["error"]["code"] for entry in errors} == {"content_filter_unavailable"}


async def test_a_text_without_a_readable_verdict_ends(quick: House, filtered: Filtered) -> None:
    """A filter that is in order but says nothing of one text must not hold the batch up for ever."""

    def script(sent: Sent) -> Reply:
        return Reply(outcome=says("perhaps")) if b"odd" in sent.body else guard(sent)

    filtered(GUARD, script)
    batch = await quick.submit([chat(0), chat(1, "odd"), chat(2)], Flavour.AZURE)
    quick.start()

    output, (refused,) = await quick.check(await quick.reach(batch))

    assert len(output) == 2
    assert refused["error"]["code"] == "content_filter_unavailable"
    assert "neither `safe` nor `unsafe`" in refused["error"]["message"]
    assert "perhaps" not in refused["error"]["message"]


async def test_a_prompt_that_the_filter_cannot_read_is_refused(quick: House, filtered: Filtered) -> None:
    filtered()
    body = {"model": MODEL, "input": [1, 2, 3], "n": 1}
    lines = [line(number, url="/v1/embeddings", body={**body, "n": number}) for number in range(9)]
    lines.append(line(9, url="/v1/embeddings", body={"model": MODEL, "input": ["a", "bad"], "n": 9}))
    batch = await quick.submit(lines, endpoint="/v1/embeddings")
    quick.start()

    output, errors = await quick.check(await quick.reach(batch))

    assert {entry["error"]["code"] for entry in errors} == {"content_filter_unsupported"}
    assert len(errors) == 9
    assert [number_of(sent.body) for sent in quick.upstream.sent] == [9]
    assert [each["prompt_index"] for each in output[0]["response"]["body"]["prompt_filter_results"]] == [0, 1]


async def test_an_answer_of_an_unknown_form_is_refused(quick: House, filtered: Filtered) -> None:
    filtered()
    quick.upstream.script = always(Answer(status=200, body=b'{"id":"x"}'))
    batch = await quick.submit([chat(0)])
    quick.start()

    output, (refused,) = await quick.check(await quick.reach(batch))

    assert output == []
    assert refused["error"]["code"] == "content_filter_unsupported"


async def test_an_error_of_the_model_is_passed_on(quick: House, filtered: Filtered) -> None:
    judge = filtered()
    quick.upstream.script = always(answer(404))
    batch = await quick.submit([chat(0)])
    quick.start()

    _, (failed,) = await quick.check(await quick.reach(batch))

    assert failed["response"]["status_code"] == 404
    assert len(judge.sent) == 1


async def test_a_model_that_is_asked_again_needs_no_second_verdict(quick: House, filtered: Filtered) -> None:
    judge = filtered(replace(MODERATION, judges=frozenset({Judged.PROMPT})))
    quick.upstream.script = lambda sent: Reply(outcome=answer(500 if sent.attempt == 1 else 200))
    batch = await quick.submit([chat(number) for number in range(3)])
    quick.start()

    output, _ = await quick.check(await quick.reach(batch))

    assert len(judge.sent) == 3
    assert all("prompt_filter_results" in entry["response"]["body"] for entry in output)


async def test_the_model_is_busy_while_the_filter_works(quick: House, filtered: Filtered) -> None:
    """Neither holds a slot of the other: both are as full as they may be."""
    judge = filtered(script=lambda sent: replace(moderation(sent), delay=1))
    quick.upstream.script = always(answer(), delay=1)
    batch = await quick.submit([chat(number) for number in range(40)])
    quick.start()
    began = quick.clock.now()

    done = await quick.reach(batch)

    assert len((await quick.check(done))[0]) == 40
    assert judge.most_in_flight == quick.upstream.most_in_flight == 4
    # 80 checks, four at a time, and the first and last ones alone.
    assert quick.clock.now() - began < 20 + 6


async def test_answers_that_wait_for_the_filter_hold_the_model_up(
    quick: House, filtered: Filtered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "_MOST_ANSWERS", 3)
    monkeypatch.setattr(filtering, "_AHEAD", 2)

    def script(sent: Sent) -> Reply:
        return replace(moderation(sent), delay=50 if b"ok" in sent.body else 0)

    filtered(script=script)
    batch = await quick.submit([chat(number) for number in range(30)])
    quick.start()
    await quick.clock.advance(40)

    assert len(quick.upstream.sent) <= 3 + 4

    assert len((await quick.check(await quick.reach(batch)))[0]) == 30


async def test_a_guard_is_asked_about_one_text_at_a_time(quick: House, filtered: Filtered) -> None:
    judge = filtered(GUARD, guard)
    quick.upstream.script = always(
        Answer(
            status=200,
            body=b'{"choices":[{"index":0,"text":"one"},{"index":1,"text":"bad"},{"index":2,"text":" "}],'
            b'"usage":{"completion_tokens":2}}',
        )
    )
    body = {"model": MODEL, "prompt": ["a", "", "c"], "n": 0}
    batch = await quick.submit([line(0, url="/v1/completions", body=body)], endpoint="/v1/completions")
    quick.start()

    (entry,), _ = await quick.check(await quick.reach(batch))

    answered = entry["response"]["body"]
    assert len(answered["prompt_filter_results"]) == 3
    assert [choice["text"] for choice in answered["choices"]] == ["one", "", " "]
    assert answered["choices"][1]["finish_reason"] == "content_filter"
    asked = [[each["content"] for each in json.loads(sent.body)["messages"]] for sent in judge.sent]
    assert asked == [["a"], ["c"], ["a", "one"], ["", "bad"]]


@pytest.mark.parametrize("judged", Judged)
async def test_a_cancel_ends_what_waits_for_the_filter(quick: House, filtered: Filtered, judged: Judged) -> None:
    judge = filtered(replace(MODERATION, judges=frozenset({judged})), always(unreachable()))
    batch = await quick.submit([chat(number) for number in range(10)])
    quick.start()
    await quick.clock.run_until(lambda: len(judge.sent) > 8)
    await quick.cancel(batch)

    done = await quick.reach(batch, within=100)

    output, errors = await quick.check(done)
    codes = Counter(entry["error"]["code"] for entry in errors)
    assert done.status is BatchStatus.CANCELLED
    assert output == []
    # What the model was asked has run, and its tokens count.
    assert codes["content_filter_unavailable"] == len(quick.upstream.sent)
    assert codes["batch_cancelled"] == 10 - len(quick.upstream.sent)


async def test_an_answer_at_the_time_of_a_cancel_is_still_judged(quick: House, filtered: Filtered) -> None:
    judge = filtered(script=lambda sent: replace(moderation(sent), delay=5 if b"ok" in sent.body else 0))
    batch = await quick.submit([chat(number) for number in range(60)])
    quick.start()
    await quick.clock.run_until(lambda: judge.in_flight == 4)
    await quick.cancel(batch)

    output, errors = await quick.check(await quick.reach(batch, within=100))

    assert len(output) >= 4
    assert all("content_filter_results" in entry["response"]["body"]["choices"][0] for entry in output)
    codes = Counter(entry["error"]["code"] for entry in errors)
    assert len(output) + codes["content_filter_unavailable"] == len(quick.upstream.sent)
    assert codes.keys() <= {"batch_cancelled", "content_filter_unavailable"}


@pytest.mark.parametrize("asked", [1, 3, 9, 13])
async def test_a_crash_between_filter_and_model_merely_runs_again(quick: House, filtered: Filtered, asked: int) -> None:
    judge = filtered(script=lambda sent: replace(moderation(sent), delay=1))
    quick.upstream.script = always(answer(), delay=1)
    batch = await quick.submit([chat(number, "bad bad" if number == 3 else "fine") for number in range(8)])
    quick.start()
    await quick.clock.run_until(lambda: len(judge.sent) >= asked)
    await quick.kill()
    await quick.reopen()
    quick.start()

    output, errors = await quick.check(await quick.reach(batch))

    assert (len(output), len(errors)) == (7, 1)
    assert 3 not in {number_of(sent.body) for sent in quick.upstream.sent}


async def test_a_deployment_without_a_filter_can_say_so(quick: House) -> None:
    deployment = Deployment(name=MODEL, model=MODEL, upstreams=(quick.upstream.name,), says_unfiltered=True)
    quick.deployments = ScriptedDeployments([deployment])
    quick.upstream.script = lambda sent: Reply(outcome=answer(400 if number_of(sent.body) else 200))
    batch = await quick.submit(2)
    quick.start()

    (entry,), (failed,) = await quick.check(await quick.reach(batch))

    found = entry["response"]["body"]["choices"][0]["content_filter_results"]
    assert found["hate"] == {"filtered": False, "severity": "unknown"}
    assert found["error"]["code"] == "content_filter_error"
    assert list(failed["response"]["body"]) == ["error"]
