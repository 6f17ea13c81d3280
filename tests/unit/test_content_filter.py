"""What a content filter is asked, how its verdict is read, and the bodies that tell of it."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from overnight.domain.content_filter import (
    SAFE,
    Category,
    ContentFilter,
    FilterKind,
    FilterPolicy,
    NoVerdict,
    OnTrouble,
    Severity,
    Text,
    Threshold,
    Thresholds,
    Verdict,
    as_trouble,
    question_to,
    read_verdicts,
)
from overnight.domain.endpoints import EMBEDDINGS
from overnight.domain.filtered_body import (
    answers,
    prompt_error,
    with_unfiltered,
    with_verdicts,
    worst,
)
from overnight.domain.prompt_texts import CHAT, COMPLETIONS, RESPONSES, Unjudgeable, prompts
from overnight.domain.result import Answer
from overnight.domain.retry import Accept, Failure, Fault, Outcome, Retry

MODERATION = ContentFilter(name="m", kind=FilterKind.MODERATION)
GUARD = ContentFilter(name="g", kind=FilterKind.GUARD, model="guard")
ALL_ZERO = {"hate": 0, "self-harm": 0, "sexual": 0, "violence": 0}
BAD = Verdict(violence=Severity.HIGH)


def encode(content: object) -> bytes:
    return json.dumps(content).encode()


def scores(*each: dict[str, Any], **categories: bool) -> bytes:
    return encode({"results": [{"categories": categories, "category_scores": {**ALL_ZERO, **one}} for one in each]})


def says(text: str) -> bytes:
    return encode({"choices": [{"message": {"content": text}}]})


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0.0, "SAFE"),
        (0.19, "SAFE"),
        (0.2, "LOW"),
        (0.49, "LOW"),
        (0.5, "MEDIUM"),
        (0.79, "MEDIUM"),
        (0.8, "HIGH"),
        (1, "HIGH"),
    ],
)
def test_a_score_has_a_severity(score: float, severity: str) -> None:
    assert read_verdicts(MODERATION, scores({"hate": score}), 1) == (Verdict(hate=Severity[severity]),)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("hate/threatening", "hate"),
        ("harassment", "hate"),
        ("harassment/threatening", "hate"),
        ("self-harm/intent", "self_harm"),
        ("self-harm/instructions", "self_harm"),
        ("sexual/minors", "sexual"),
        ("violence/graphic", "violence"),
        ("illicit/violent", "violence"),
    ],
)
def test_the_categories_of_openai_are_those_of_azure(name: str, category: str) -> None:
    assert read_verdicts(MODERATION, scores({name: 0.9}), 1) == (Verdict(**{category: Severity.HIGH}),)


def test_what_has_no_counterpart_counts_for_nothing() -> None:
    assert read_verdicts(MODERATION, scores({"illicit": 0.9, "new": 7}), 1) == (SAFE,)


def test_what_a_server_flags_itself_is_at_least_medium() -> None:
    assert read_verdicts(MODERATION, scores({"hate": 0.1}, hate=True), 1) == (Verdict(hate=Severity.MEDIUM),)
    assert read_verdicts(MODERATION, scores({"hate": 0.9}, hate=True), 1) == (Verdict(hate=Severity.HIGH),)


def test_verdicts_keep_the_order_of_the_texts() -> None:
    assert read_verdicts(MODERATION, scores({}, {"violence": 1}), 2) == (SAFE, BAD)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[",
        b'{"results":[]}',
        b'{"results":[{}]}',
        b'{"results":[{"flagged":false,"category_scores":{}}]}',
        encode({"results": [{"category_scores": {"hate": 0, "violence": 0, "sexual": 0}}]}),
        scores({"hate": -0.1}),
        scores({"hate": 1.1}),
        scores({"hate": None}),
        scores({}, {}),
    ],
)
def test_moderations_that_leave_something_open_are_no_verdict(body: bytes) -> None:
    with pytest.raises(NoVerdict):
        read_verdicts(MODERATION, body, 1)


@pytest.mark.parametrize("text", ["safe", "\n\nsafe", " safe\n"])
def test_a_guard_says_safe(text: str) -> None:
    assert read_verdicts(GUARD, says(text), 1) == (SAFE,)


@pytest.mark.parametrize(
    ("hazards", "flagged"),
    [
        ("S1", {"violence"}),
        ("S2", set()),
        ("S3", {"sexual"}),
        ("S4", {"sexual"}),
        ("S9", {"violence"}),
        ("S10", {"hate"}),
        ("S11", {"self_harm"}),
        ("S12", {"sexual"}),
        ("S14", set()),
        ("S1,S10", {"violence", "hate"}),
        ("S1, S2 ,S11", {"violence", "self_harm"}),
    ],
)
def test_a_hazard_has_a_category_and_is_high(hazards: str, flagged: set[str]) -> None:
    (verdict,) = read_verdicts(GUARD, says(f"\n\nunsafe\n{hazards}"), 1)

    assert {category for category in Category if verdict.of(category) is Severity.HIGH} == flagged
    assert verdict == Verdict(**dict.fromkeys(flagged, Severity.HIGH))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unsafe",
        "unsafe\n",
        "unsafe" + "\n" * 9_000,
        "unsafe\nS0",
        "unsafe\nS15",
        "unsafe\nS1,",
        "unsafe S1",
        "safe\nS1",
        "I think it is safe",
        "not safe",
    ],
)
def test_anything_else_that_a_guard_says_is_no_verdict(text: str) -> None:
    with pytest.raises(NoVerdict):
        read_verdicts(GUARD, says(text), 1)


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', encode({"choices": [{"message": {"content": None}}]})])
def test_an_answer_that_is_no_chat_is_no_verdict(body: bytes) -> None:
    with pytest.raises(NoVerdict):
        read_verdicts(GUARD, body, 1)


def test_a_question_has_the_form_that_the_filter_knows() -> None:
    named = replace(MODERATION, model="omni")

    assert json.loads(question_to(MODERATION, (Text("a"),))) == {"input": "a"}
    assert json.loads(question_to(named, (Text("a"), Text("b")))) == {"model": "omni", "input": ["a", "b"]}
    asked = json.loads(question_to(GUARD, (Text("b", question="a"),)))
    assert asked["model"] == "guard"
    assert asked["temperature"] == 0
    assert asked["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert json.loads(question_to(GUARD, (Text("a"),)))["messages"] == [{"role": "user", "content": "a"}]


def test_each_kind_is_asked_at_its_endpoint() -> None:
    assert (MODERATION.endpoint, MODERATION.texts_at_once) == ("/v1/moderations", 32)
    assert (GUARD.endpoint, GUARD.texts_at_once) == ("/v1/chat/completions", 1)


@pytest.mark.parametrize(
    ("threshold", "filtered"),
    [
        (Threshold.LOW, [False, True, True, True]),
        (Threshold.MEDIUM, [False, False, True, True]),
        (Threshold.HIGH, [False, False, False, True]),
        (Threshold.OFF, [False, False, False, False]),
    ],
)
def test_a_text_is_filtered_from_the_threshold_on(threshold: Threshold, filtered: list[bool]) -> None:
    thresholds = Thresholds(hate=threshold)

    assert [thresholds.block(Verdict(hate=severity)) for severity in Severity] == filtered


def test_thresholds_are_medium_unless_set() -> None:
    assert Thresholds().report(Verdict(sexual=Severity.LOW, violence=Severity.MEDIUM)) == {
        "hate": {"filtered": False, "severity": "safe"},
        "self_harm": {"filtered": False, "severity": "safe"},
        "sexual": {"filtered": False, "severity": "low"},
        "violence": {"filtered": True, "severity": "medium"},
    }


# --- trouble ------------------------------------------------------------------------------------------------------

GONE = Failure(fault=Fault.UNREACHABLE)


@pytest.mark.parametrize(
    ("outcome", "patient", "hasty"),
    [
        (GONE, None, None),
        (Answer(status=401, body=b""), None, 1),
        (Answer(status=404, body=b""), None, 1),
        (Answer(status=429, body=b""), None, 100),
        (Answer(status=502, body=b""), None, 4),
        (Answer(status=500, body=b""), 100, 4),
        (Failure(fault=Fault.TIMEOUT), 100, 4),
        (Failure(fault=Fault.BROKEN_OFF), 100, 4),
        (Failure(fault=Fault.UNREADABLE), 4, 4),
        (Failure(fault=Fault.TOO_LARGE), 1, 1),
        (Answer(status=400, body=b""), 1, 1),
    ],
)
def test_a_filter_is_asked_as_often_as_the_trouble_is_worth(
    outcome: Outcome, patient: int | None, hasty: int | None
) -> None:
    def most(on_trouble: OnTrouble) -> int | None:
        policy = FilterPolicy(on_trouble=on_trouble)
        for attempt in range(1, 1_000):
            if isinstance(policy.decide(outcome, attempt=attempt, now=0, deadline=None, jitter=0.5), Accept):
                return attempt
        return None

    assert (most(OnTrouble.WAIT), most(OnTrouble.FAIL)) == (patient, hasty)


def test_a_filter_is_not_asked_again_past_the_deadline() -> None:
    policy = FilterPolicy()

    assert isinstance(policy.decide(GONE, attempt=1, now=0, deadline=100, jitter=0.5), Retry)
    assert policy.decide(GONE, attempt=1, now=100, deadline=100, jitter=0.5) == Accept()


def test_an_answer_without_a_verdict_is_trouble() -> None:
    outcome = as_trouble(GUARD, Answer(status=200, body=says("perhaps")), 1)

    assert isinstance(outcome, Failure)
    assert (outcome.fault, outcome.status) == (Fault.UNREADABLE, 200)
    assert "perhaps" not in outcome.detail


@pytest.mark.parametrize(
    "outcome", [GONE, Answer(status=500, body=b"{}"), Answer(status=200, body=says("safe"))], ids=str
)
def test_other_outcomes_of_a_filter_are_as_they_are(outcome: Outcome) -> None:
    assert as_trouble(GUARD, outcome, 1) is outcome


def test_a_filter_that_is_not_waited_for_fails_where_it_is_not_there() -> None:
    hasty = replace(GUARD, on_trouble=OnTrouble.FAIL)

    assert as_trouble(hasty, GONE, 1) == Failure(fault=Fault.BROKEN_OFF)
    assert as_trouble(hasty, Failure(fault=Fault.TIMEOUT), 1) == Failure(fault=Fault.TIMEOUT)


# --- texts --------------------------------------------------------------------------------------------------------


def test_the_texts_of_a_chat_are_one_prompt() -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": parts}]

    assert prompts(CHAT, encode({"messages": messages})) == ("a\nb",)
    assert prompts("/chat/completions", encode({"messages": messages})) == ("a\nb",)
    assert prompts(EMBEDDINGS, encode({"messages": messages})) == ("a\nb",)


def test_each_prompt_of_a_list_is_one() -> None:
    assert prompts(COMPLETIONS, encode({"prompt": ["a", "b"], "suffix": "c"})) == ("a\nc", "b\nc")
    assert prompts(COMPLETIONS, encode({"prompt": "a"})) == ("a",)
    assert prompts(EMBEDDINGS, encode({"input": ["a", "b"]})) == ("a", "b")


def test_the_texts_of_a_request_for_a_response_are_one_prompt() -> None:
    assert prompts(RESPONSES, encode({"instructions": "a", "input": [{"role": "user", "content": "b"}]})) == ("a\nb",)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (COMPLETIONS, {"prompt": [1, 2]}),
        (COMPLETIONS, {"prompt": ["a", [1]]}),
        (COMPLETIONS, {"prompt": []}),
        (COMPLETIONS, {}),
        (EMBEDDINGS, {"input": [[1], [2]]}),
        (RESPONSES, {"prompt": {"id": "p"}}),
        (RESPONSES, {"input": "a", "previous_response_id": "r"}),
        (RESPONSES, {"input": "a", "conversation": "c"}),
        ("/v1/images/generations", {"prompt": "a"}),
        ("/v1/moderations", {"input": "a"}),
        (CHAT, []),
        (CHAT, {"messages": [], "chat_template": "a"}),
        (CHAT, {"messages": [], "prompt": "a"}),
        (CHAT, {"messages": [], "Messages": [{"role": "user", "content": "a"}]}),
        (CHAT, {"messages": [], "prompt_token_ids": [1]}),
        (CHAT, {"messages": [], "chat_template_kwargs": {"chat_template": "a"}}),
        (CHAT, {"messages": [], "chat_template_kwargs": ["a"]}),
        (COMPLETIONS, {"prompt": "a", "prompt_embeds": "a"}),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "m"}]}),
        (RESPONSES, {"input": [{"id": "m"}]}),
    ],
)
def test_what_could_pass_unread_is_refused(endpoint: str, body: object) -> None:
    with pytest.raises(Unjudgeable):
        prompts(endpoint, encode(body))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "bad", "content": "a"},
        {"role": "assistant", "refusal": "bad"},
        {"role": "assistant", "content": "a", "reasoning_content": "bad"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "bad"}]},
        {"role": "user", "content": [{"type": "thinking", "thinking": ["bad"]}]},
        {"role": "user", "content": {"text": "bad"}},
        {"role": "user", "content": ["bad"]},
        {"role": "user", "content": "a", "Content": "bad"},
        {"role": "user", "content": [{"type": "document", "title": {"bad one": 1}}]},
        {"role": "user", "content": [{"type": "bad one", "text": "a"}]},
        {"role": "user", "name": "bad", "content": "a"},
        {"role": "tool", "tool_call_id": "bad", "content": "a"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"file": "bad"}}}]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a":"\\u0062ad"}'}},
        {"type": "function_call", "name": "f", "arguments": '{"bad":1}'},
        {"type": "function_call_output", "output": [{"type": "input_text", "text": "bad"}]},
        {"type": "function_call_output", "output": {"a": "bad"}},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "bad"}]},
        {"type": "code_interpreter_call", "code": "bad"},
        "bad",
    ],
)
@pytest.mark.parametrize(("endpoint", "member"), [(CHAT, "messages"), (RESPONSES, "input")])
def test_every_text_of_a_message_is_read(endpoint: str, member: str, message: object) -> None:
    (text,) = prompts(endpoint, encode({member: [message]}))

    assert "bad" in text


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"bad": {"type": "string"}}}}]},
        {"documents": [{"title": "bad"}]},
        {"chat_template_kwargs": {"model_identity": "bad"}},
        {"chat_template_kwargs": {"a bad one": True}},
        {"response_format": {"type": "json_schema", "json_schema": {"description": "bad"}}},
        {"prediction": "bad"},
        {"guided_choice": ["bad"]},
    ],
)
def test_every_member_that_a_model_may_read_is_read(more: dict[str, object]) -> None:
    (text,) = prompts(CHAT, encode({"messages": [{"role": "user", "content": "a"}], **more}))

    assert "bad" in text


@pytest.mark.parametrize("depth", [400, 700, 950, 5_000])
@pytest.mark.parametrize("member", ["messages", "tools"])
def test_nothing_is_nested_too_deeply(depth: int, member: str) -> None:
    body = b'{"messages":[],"%s":%s"bad"%s}' % (member.encode(), b'[{"a":' * depth, b"}]" * depth)
    try:
        (text,) = prompts(CHAT, body)
    except Unjudgeable:
        return

    assert "bad" in text


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"content":"bad"}],"messages":[]}',
        b'{"mess\\u0061ges":[{"content":"bad"}],"messages":[]}',
        b'{"messages":[{"content":"bad","content":"a"}]}',
        b'{"messages":[],"tools":[{"function":{"description":"bad","description":"a"}}]}',
        b'{"messages":[],"x":null,"x":null}',
    ],
)
def test_a_member_that_is_given_twice_is_refused(body: bytes) -> None:
    """We read the last one; RapidJSON and others give a server the first."""
    with pytest.raises(Unjudgeable, match="given twice"):
        prompts(CHAT, body)


def test_equal_members_of_different_objects_and_large_numbers_are_no_matter() -> None:
    body = b'{"messages":[{"content":"a"},{"content":"b"}],"seed":%s,"top_p":1e300}' % (b"9" * 400)

    assert prompts(CHAT, body) == ("a\nb",)


def test_escapes_hide_nothing() -> None:
    tools = b'[{"function":{"description":"\\u0062ad"}}]'

    assert "bad" in prompts(CHAT, b'{"messages":[],"tools":%s}' % tools)[0]
    assert prompts(CHAT, encode({"messages": [{"content": "C:\\users"}]})) == ("C:\\users",)


def test_settings_and_media_are_not_read() -> None:
    parts = [
        {"type": "input_audio", "input_audio": {"data": "bad"}},
        {"type": "input_file", "file_data": "bad"},
        {"type": "text", "text": "a"},
    ]
    settings = {"model": "bad", "temperature": 0, "stop": ["bad"], "user": "bad", "documents": None, "unknown": False}
    body = {"messages": [{"role": "user", "content": parts}], "chat_template_kwargs": {"enable_thinking": False}}

    assert prompts(CHAT, encode({**settings, **body})) == ("a",)


def test_a_body_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Unjudgeable):
        prompts(CHAT, b'{"messages":[],"tools":["\xff"]}')


def test_every_text_of_a_choice_is_read() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": "a", "reasoning_content": "b", "refusal": None, "tool_calls": [call]}

    assert answers(CHAT, encode({"choices": [{"message": message}, {"message": {"content": [{"text": "c"}]}}]})) == (
        'a\nb\nf\n{"a":1}',
        "c",
    )
    assert answers(COMPLETIONS, encode({"choices": [{"text": "a"}, {"text": "b"}]})) == ("a", "b")
    output = [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": "a"}]}]
    assert answers(RESPONSES, encode({"output": output})) == ("a",)
    assert answers(EMBEDDINGS, b"anything") == ()


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"id": "x"}),
        (CHAT, {"choices": [{"text": "a"}]}),
        (CHAT, {"choices": ["a"]}),
        (COMPLETIONS, {"choices": [{"message": {}}]}),
        (RESPONSES, {"id": "x"}),
    ],
)
def test_an_answer_of_an_unknown_form_is_refused(endpoint: str, body: object) -> None:
    with pytest.raises(Unjudgeable):
        answers(endpoint, encode(body))


# --- bodies -------------------------------------------------------------------------------------------------------


def test_values_keep_their_bytes() -> None:
    body = (
        b'{"id":"x", "n":1.00, "choices":[{"index":0,"e":1E400,"message":{"content":"\\u00e9"}}], '
        b'"z":12345678901234567890123}'
    )

    found = with_verdicts(CHAT, body, Thresholds(), (SAFE,), (SAFE,))

    assert found.startswith(
        b'{"id":"x","n":1.00,"choices":[{"index":0,"e":1E400,"message":{"content":"\\u00e9"},"content_'
    )
    assert b'"z":12345678901234567890123,"prompt_filter_results":' in found


def test_an_embedding_tells_of_its_prompts_alone() -> None:
    found = json.loads(with_verdicts(EMBEDDINGS, b'{"data":[]}', Thresholds(), (SAFE, SAFE), None))

    assert list(found) == ["data", "prompt_filter_results"]
    assert [each["prompt_index"] for each in found["prompt_filter_results"]] == [0, 1]


def test_a_filtered_choice_keeps_nothing_of_its_text() -> None:
    choices: list[dict[str, object]] = [
        {"index": 1, "message": {"content": "secret"}, "logprobs": {"content": ["secret"]}, "token_ids": [1]},
        {"message": {"content": "fine"}, "finish_reason": "stop"},
    ]

    found = json.loads(with_verdicts(CHAT, encode({"choices": choices}), Thresholds(), None, (BAD, SAFE)))

    assert list(found) == ["choices"]
    assert found["choices"][0] == {
        "index": 1,
        "message": {"role": "assistant", "content": None},
        "logprobs": None,
        "finish_reason": "content_filter",
        "content_filter_results": Thresholds().report(BAD),
    }
    assert found["choices"][1] == {**choices[1], "content_filter_results": Thresholds().report(SAFE)}


def test_a_filtered_completion_has_an_empty_text() -> None:
    found = json.loads(with_verdicts(COMPLETIONS, b'{"choices":[{"text":"x"}]}', Thresholds(), (SAFE,), (BAD,)))

    assert (found["choices"][0]["text"], found["choices"][0]["finish_reason"]) == ("", "content_filter")


def test_a_filtered_response_is_incomplete() -> None:
    body = encode({"status": "completed", "output": [{"content": [{"text": "x"}]}], "output_text": "x"})

    found = json.loads(with_verdicts(RESPONSES, body, Thresholds(), (SAFE,), (BAD,)))

    filters = found.pop("content_filters")
    assert found == {"status": "incomplete", "output": [], "incomplete_details": {"reason": "content_filter"}}
    assert [(each["source_type"], each["blocked"]) for each in filters] == [("prompt", False), ("completion", True)]


def test_a_response_that_passes_keeps_its_output() -> None:
    found = json.loads(with_verdicts(RESPONSES, b'{"output":["x"]}', Thresholds(), None, (SAFE,)))

    assert found["output"] == ["x"]
    assert [each["blocked"] for each in found["content_filters"]] == [False]


def test_the_error_of_a_prompt_names_the_worst_of_each_category() -> None:
    verdict = worst((BAD, Verdict(hate=Severity.LOW)))

    assert verdict == Verdict(hate=Severity.LOW, violence=Severity.HIGH)
    error = json.loads(prompt_error(Thresholds(), verdict))["error"]
    assert (error["code"], error["param"], error["type"], error["status"]) == ("content_filter", "prompt", None, 400)
    assert error["innererror"]["content_filter_result"]["violence"] == {"filtered": True, "severity": "high"}


def test_an_answer_can_say_that_nothing_was_judged() -> None:
    found = json.loads(with_unfiltered(CHAT, b'{"choices":[{"message":{"content":"a"}}]}'))

    block = found["choices"][0]["content_filter_results"]
    assert block == found["prompt_filter_results"][0]["content_filter_results"]
    assert {block[category]["filtered"] for category in Category} == {False}
    assert {block[category]["severity"] for category in Category} == {"unknown"}
    assert block["error"]["code"] == "content_filter_error"


def test_an_answer_of_an_unknown_form_says_nothing() -> None:
    assert with_unfiltered("/v1/moderations", b'{ "results": [] }') == b'{ "results": [] }'
