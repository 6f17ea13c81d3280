"""What is said of a file before there is a batch of it."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.domain.batch import Problem
from overnight.domain.forecast import Forecast
from overnight.domain.ids import BatchId
from overnight.domain.price import CostRange
from overnight.domain.quota import Basis, Limit, OverQuota
from overnight.domain.tokens import Accuracy
from overnight.services.check import FileCheck, OfferedModel
from overnight.services.estimates import Estimate, PricedModel
from overnight.services.quotas import QuotaState
from overnight.services.tokens import FileTokens, ModelTokens
from overnight.services.validate import Report
from overnight.studio.checking import check_of, cost_words


def a_check(*models: OfferedModel, problems: tuple[Problem, ...] = (), count: int = 0) -> FileCheck:
    report = Report(
        requests=1_200, problems=problems, problem_count=count, model="qwen3", endpoint="/v1/embeddings", bytes=9
    )
    return FileCheck(report=report, first=(), models=models, endpoints=())


def an_estimate(*models: ModelTokens, **more: Any) -> Estimate:
    tokens = FileTokens(requests=1_200, unreadable=0, bytes=9, largest_line=1, largest_bytes=9, models=models)
    priced = tuple(PricedModel(tokens=each, cost=None) for each in models)
    return Estimate(tokens=tokens, models=priced, **{"cost": None, "currency": "EUR", **more})


def tokens_of(model: str = "qwen3", **changes: Any) -> ModelTokens:
    return ModelTokens(
        **{
            "model": model,
            "requests": 1_200,
            "prompt_tokens": 50_000,
            "error": 0,
            "accuracy": Accuracy.EXACT,
            "tokenizer": "o200k_base",
            "images": 0,
            "max_output_tokens": 9_600,
            "bounded": 1_200,
            **changes,
        }
    )


def a_quota(limit: int | None, enqueued: int = 0) -> QuotaState:
    bound = Limit(tokens=limit, basis=Basis.DEPLOYMENT)
    return QuotaState(deployment="qwen3", model="qwen3", limit=bound, enqueued=enqueued, over_quota=OverQuota.FAIL)


def test_a_good_file_may_become_a_batch():
    check = check_of(a_check(), an_estimate(tokens_of()), ())

    assert (check.tone, check.summary, check.why, check.more) == ("success", "1,200 requests, no problems", "", "")


def test_problems_are_listed_with_how_many_more_there_are():
    problems = (Problem(code="invalid_json", message="No \x1bJSON", line=12_000), Problem(code="a", message="b"))

    check = check_of(a_check(problems=problems, count=5), an_estimate(tokens_of()), ())

    assert (check.tone, check.summary, check.more) == (
        "danger",
        "5 problems in 1,200 requests",
        "3 more problems not listed",
    )
    assert check.why == "5 problems in the file: repair it and upload it again."
    assert check.problems == (("12,000", "invalid_json", "No ␛JSON"), ("", "a", "b"))


@pytest.mark.parametrize(
    ("offered", "tone", "word"),
    [
        (True, "success", "found"),
        (False, "danger", "no upstream has it"),
        (None, "warning", "not known yet: an upstream does not answer"),
    ],
)
def test_models_are_found_or_missing(offered: bool | None, tone: str, word: str):
    check = check_of(a_check(OfferedModel(name="qwen3", requests=1, offered=offered)), an_estimate(), ())

    (model,) = check.models
    assert (model.name, model.requests, model.tone, model.word) == ("qwen3", "1 request", tone, word)


def test_numbers_come_with_their_basis():
    sampled = tokens_of(error=210, accuracy=Accuracy.SAMPLED)
    duration = Forecast(seconds=200, rate=6.0, basis=BatchId("batch_7"))
    cost = CostRange(least=100_000, most=176_800)

    check = check_of(a_check(), an_estimate(sampled, cost=cost, duration=duration), ())

    assert check.numbers == (
        ("Prompt tokens", "50,000", "± 210, a sample counted with o200k_base"),
        ("Answers, at most", "9,600", "tokens, from the bounds in the requests"),
        ("Cost", "0.10 to 0.1768 EUR", "by the prices that are set, nothing cached"),
        ("Time", "about 4 min", "as fast as batch_7: 6.0 requests/s"),
    )


def test_what_is_not_known_is_not_told():
    unbounded = tokens_of("a", bounded=3), tokens_of("b", accuracy=Accuracy.ESTIMATE, tokenizer="by size")

    check = check_of(a_check(), an_estimate(*unbounded), ())

    assert [number[0] for number in check.numbers] == ["Prompt tokens, a", "Prompt tokens, b"]
    assert check.numbers[1][2] == "estimated, by size"
    assert cost_words(CostRange(least=100_000, most=None), "EUR") == "0.10 EUR and the answers"


@pytest.mark.parametrize(
    ("quota", "notes"),
    [
        (a_quota(60_000, 9_000), ("It fits: 51,000 tokens of the quota of qwen3 are free.",)),
        (a_quota(60_000, 20_000), ("It does not fit now: 40,000 tokens of the quota of qwen3 are free.",)),
        (a_quota(None), ()),
    ],
)
def test_room_in_the_quota_is_told(quota: QuotaState, notes: tuple[str, ...]):
    estimate = an_estimate(tokens_of(error=100), tokens_of("other"))

    assert check_of(a_check(), estimate, (quota,)).notes == notes
