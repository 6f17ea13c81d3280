"""From an answer to a line of a file: bodies, outcomes, retries and the frames of the log."""

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.frame import HEADER_BYTES, MAGIC, encode, scan
from overnight.domain.outcome import examine, to_result
from overnight.domain.request import Request
from overnight.domain.result import (
    Answer,
    Count,
    Result,
    ResultKind,
    Tally,
    UnreadableBody,
    error_body,
    error_line,
    read_body,
    response_line,
)
from overnight.domain.retry import (
    Accept,
    Failure,
    Fault,
    Leave,
    Outcome,
    Retry,
    RetryPolicy,
    Trouble,
    is_retried,
    never_arrived,
    overloaded,
    succeeded,
    trouble_of,
)
from overnight.domain.trail import Attempted, Trail
from overnight.domain.usage import NO_USAGE, Usage

REQUEST = Request(line=3, custom_id=b'"a\\u0062"', body=b"{}")


class TestBody:
    """What may be embedded in a line."""

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"{}", b"{}"),
            (b'{"a": 1.0000000000000000001}', b'{"a": 1.0000000000000000001}'),
            (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
            (b'\n{\n\t"a": 1,\r\n "b": "x\\ny"}\r\n', b'{ \t"a": 1,   "b": "x\\ny"}'),
            ('{"ü":"\u2028"}'.encode(), '{"ü":"\u2028"}'.encode()),
        ],
    )
    def test_a_body_is_put_on_one_line_and_otherwise_left_alone(self, body: bytes, expected: bytes) -> None:
        """Number precision and spelling are the model's."""
        read, usage = read_body(body)

        assert (read, usage) == (expected, NO_USAGE)
        assert json.loads(read) == json.loads(body.removeprefix(b"\xef\xbb\xbf"))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"7",
            b'"x"',
            b"{",
            b"{}{}",
            b"<html>",
            b'{"a":NaN}',
            b'{"a":"\n"}',
            b'{"a":"\xff"}',
            b'{"\xff":1}',
            b'{"usage":"\xff"}',
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"usage":[],"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
        ids=lambda body: repr(body[:20]),
    )
    def test_what_is_not_a_json_object_is_not_embedded(self, body: bytes) -> None:
        """It would break the file for everybody who reads it."""
        with pytest.raises(UnreadableBody):
            read_body(body)

    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(input_tokens=3, output_tokens=4)),
            (None, NO_USAGE),
            ([], NO_USAGE),
            ("many", NO_USAGE),
            ({"prompt_tokens": "3"}, NO_USAGE),
            ({"prompt_tokens": 3.5}, NO_USAGE),
            ({"prompt_tokens": 10**30}, Usage(input_tokens=2**32 - 1)),
            ({"prompt_tokens": 3, "cost": {"x": []}}, Usage(input_tokens=3)),
        ],
    )
    def test_an_odd_usage_does_not_cost_the_answer(self, usage: object, expected: Usage) -> None:
        """It only counts as none."""
        assert read_body(json.dumps({"usage": usage, "x": 1}).encode())[1] == expected

    @given(st.binary(max_size=40))
    def test_whatever_comes_either_fits_a_line_or_is_refused(self, body: bytes) -> None:
        """Property: a line stays a line, and JSON stays JSON."""
        try:
            read, _ = read_body(body)
        except UnreadableBody:
            return
        assert b"\n" not in read
        assert isinstance(json.loads(response_line(b'"a"', "i", 200, "r", read))["response"]["body"], dict)


class TestLines:
    """CONTRACT 4.1 and 4.2."""

    def test_a_line_with_a_response_has_every_field(self) -> None:
        """The id as the caller wrote it."""
        line = json.loads(response_line(b'"a\\u0062"', "batch_req_1", 404, 'req"1', b'{"x":1}'))

        assert line == {
            "id": "batch_req_1",
            "custom_id": "ab",
            "response": {"status_code": 404, "request_id": 'req"1', "body": {"x": 1}},
            "error": None,
        }

    def test_a_line_without_a_response_has_every_field(self) -> None:
        """Code and message."""
        assert json.loads(error_line(b'"a"', "batch_req_1", "batch_expired", 'too "late"')) == {
            "id": "batch_req_1",
            "custom_id": "a",
            "response": None,
            "error": {"code": "batch_expired", "message": 'too "late"'},
        }

    def test_an_error_body_has_the_four_keys(self) -> None:
        """As clients read them."""
        assert json.loads(error_body("m", kind="server_error", code=None)) == {
            "error": {"message": "m", "type": "server_error", "param": None, "code": None}
        }


class TestOutcome:
    """What an outcome becomes."""

    def record(self, outcome: Outcome) -> tuple[Result, Any]:
        result = to_result(REQUEST, "own", examine(outcome))
        return result, json.loads(result.record)

    def test_a_success_counts_with_its_usage(self) -> None:
        """In the output file."""
        result, line = self.record(Answer(status=201, body=b'{"usage":{"prompt_tokens":2}}', request_id="r"))

        assert (result.line, result.kind, result.usage) == (3, ResultKind.SUCCEEDED, Usage(input_tokens=2))
        assert (line["custom_id"], line["response"]["status_code"], line["response"]["request_id"]) == ("ab", 201, "r")

    def test_an_error_keeps_its_answer_and_has_no_usage(self) -> None:
        """In the error file; our own id stands in for a missing one."""
        result, line = self.record(Answer(status=429, body=b'{"error":{},"usage":{"prompt_tokens":2}}'))

        assert (result.kind, result.usage) == (ResultKind.FAILED, NO_USAGE)
        assert line["error"] is None
        assert line["response"] == {
            "status_code": 429,
            "request_id": "own",
            "body": {"error": {}, "usage": {"prompt_tokens": 2}},
        }

    def test_a_success_that_cannot_be_read_is_a_failure(self) -> None:
        """And may be tried again."""
        outcome = examine(Answer(status=200, body=b"<html>"))
        _, line = self.record(outcome)

        assert isinstance(outcome, Failure)
        assert outcome.fault is Fault.UNREADABLE
        assert line["response"]["status_code"] == 502
        assert line["response"]["body"]["error"]["code"] == "upstream_unreadable"
        assert "<html>" not in outcome.detail

    @pytest.mark.parametrize(("status", "kind"), [(404, "invalid_request_error"), (503, "server_error"), (302, None)])
    def test_an_error_that_cannot_be_read_keeps_its_status(self, status: int, kind: str | None) -> None:
        """The body, which may echo prompts, is not quoted."""
        _, line = self.record(Answer(status=status, body=b"<html>secret"))

        assert line["response"]["status_code"] == status
        assert line["response"]["body"]["error"]["type"] == (kind or "invalid_request_error")
        assert "secret" not in json.dumps(line)

    def test_a_timeout_has_a_code_of_its_own(self) -> None:
        """CONTRACT 4.2."""
        _, line = self.record(Failure(fault=Fault.TIMEOUT))

        assert (line["response"], line["error"]["code"]) == (None, "request_timeout")

    @pytest.mark.parametrize(
        ("attempts", "statuses", "told"),
        [
            (1, [0], ""),
            (4, [0, 0, 503], " It was tried 4 times."),
            (4, [500, 503, 0, 502], " It was tried 4 times, with status 503 before."),
        ],
    )
    @pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.BROKEN_OFF])
    def test_an_error_of_ours_says_what_came_before(
        self, fault: Fault, attempts: int, statuses: list[int], told: str
    ) -> None:
        """The line is all that is left of the tries."""
        first = json.loads(to_result(REQUEST, "own", Failure(fault=fault, detail="Why.")).record)
        trail = Trail(tuple(Attempted(upstream="u", at=0, seconds=1, status=status) for status in statuses))
        last = json.loads(to_result(REQUEST, "own", Failure(fault=fault, detail="Why."), trail, attempts).record)

        before, after = ((line["error"] or line["response"]["body"]["error"])["message"] for line in (first, last))
        assert after == before + told

    @pytest.mark.parametrize("fault", sorted(set(Fault) - {Fault.TIMEOUT}))
    @pytest.mark.parametrize("status", [None, 507])
    def test_every_other_failure_is_a_bad_gateway(self, fault: Fault, status: int | None) -> None:
        """With what is known."""
        result, line = self.record(Failure(fault=fault, status=status, detail="d"))

        assert result.kind is ResultKind.FAILED
        assert line["response"]["status_code"] == (status or 502)
        assert line["response"]["body"]["error"]["code"] == f"upstream_{fault}"
        assert line["response"]["body"]["error"]["message"] == "d"


def an_answer(status: int, retry_after: float | None = None) -> Answer:
    return Answer(status=status, body=b"{}", retry_after=retry_after)


DEAD = Failure(fault=Fault.UNREACHABLE)


class TestRetry:
    """Which attempts are repeated, and when."""

    POLICY = RetryPolicy(attempts=3, overload_attempts=5, base=1.0, cap=8.0, longest_wait=60.0)

    def decide(self, outcome: Outcome, attempt: int = 1, deadline: float | None = None, jitter: float = 1.0) -> object:
        return self.POLICY.decide(outcome, attempt=attempt, now=1_000.0, deadline=deadline, jitter=jitter)

    @pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 413, 422, 501])
    def test_what_would_end_the_same_way_is_not_repeated(self, status: int) -> None:
        """At once."""
        assert not is_retried(status)
        assert self.decide(an_answer(status)) == Accept()

    @pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 504, 599])
    def test_what_may_pass_is_repeated_a_few_times(self, status: int) -> None:
        """The set of the official SDK, and 425."""
        assert is_retried(status)
        assert [type(self.decide(an_answer(status), attempt)) for attempt in (1, 2, 3, 4)] == [
            Retry,
            Retry,
            Accept,
            Accept,
        ]

    @pytest.mark.parametrize("status", [429, 503])
    def test_an_overloaded_upstream_is_asked_more_often(self, status: int) -> None:
        """It says nothing about the request."""
        assert [type(self.decide(an_answer(status), attempt)) for attempt in (1, 4, 5)] == [Retry, Retry, Accept]

    @pytest.mark.parametrize("fault", [Fault.BROKEN_OFF, Fault.TIMEOUT, Fault.UNREADABLE])
    def test_a_broken_try_is_repeated_and_counts(self, fault: Fault) -> None:
        """A few times."""
        assert self.decide(Failure(fault=fault)) == Retry(after=1.0, counts=True)
        assert self.decide(Failure(fault=fault), 3) == Accept()

    def test_an_answer_that_is_too_large_stays_too_large(self) -> None:
        """No second try."""
        assert self.decide(Failure(fault=Fault.TOO_LARGE)) == Accept()

    def test_an_upstream_that_is_not_there_costs_no_try(self) -> None:
        """However long it takes."""
        assert never_arrived(DEAD)
        assert not never_arrived(an_answer(503))
        assert self.decide(DEAD, attempt=10_000) == Retry(after=8.0, counts=False)

    @pytest.mark.parametrize(
        ("attempt", "jitter", "after"),
        [(1, 1.0, 1.0), (2, 1.0, 2.0), (2, 0.0, 0.2), (1, 0.5, 0.55), (10_000, 1.0, 8.0)],
    )
    def test_waits_grow_to_a_cap_with_a_floor_for_lucky_draws(self, attempt: int, jitter: float, after: float) -> None:
        """Full jitter but for a tenth."""
        decision = RetryPolicy(attempts=99_999, base=1.0, cap=8.0).decide(
            an_answer(500), attempt=attempt, now=0, deadline=None, jitter=jitter
        )

        assert isinstance(decision, Retry)
        assert decision.after == pytest.approx(after)

    @pytest.mark.parametrize(("said", "after"), [(0.0, 0.0), (7.5, 7.5), (-3.0, 0.0), (1e9, 60.0)])
    def test_what_the_upstream_says_counts_within_bounds(self, said: float, after: float) -> None:
        """Retry-After."""
        assert self.decide(an_answer(429, said)) == Retry(after=after, counts=True)

    def test_no_retry_starts_at_or_after_the_deadline(self) -> None:
        """The outcome stands; what never arrived ends with the batch."""
        assert self.decide(an_answer(500), deadline=1_001.0) == Accept()
        assert self.decide(an_answer(500), deadline=1_001.1) == Retry(after=1.0, counts=True)
        assert self.decide(DEAD, deadline=1_001.0) == Leave()

    @given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.integers(100, 599))
    def test_every_wait_is_within_bounds(self, attempt: int, jitter: float, status: int) -> None:
        """Property: never negative, never beyond the cap."""
        decision = self.decide(an_answer(status), attempt, jitter=jitter)

        assert isinstance(decision, Accept) or 0 < decision.after <= 8.0  # type: ignore[attr-defined]

    def test_success_is_told_from_all_else(self) -> None:
        """2xx only."""
        assert succeeded(an_answer(200))
        assert not succeeded(an_answer(300))
        assert not succeeded(DEAD)


COUNTS = st.integers(0, 2**32 - 1)
RESULTS = st.builds(
    Result,
    line=COUNTS,
    kind=st.sampled_from(ResultKind),
    record=st.binary(max_size=30),
    trail=st.binary(max_size=30),
    usage=st.builds(Usage, input_tokens=COUNTS, cached_tokens=COUNTS, output_tokens=COUNTS, reasoning_tokens=COUNTS),
)


@pytest.mark.parametrize(
    ("outcome", "trouble", "too_much"),
    [
        (Answer(status=200, body=b""), None, False),
        (Answer(status=404, body=b""), None, False),
        (Answer(status=409, body=b""), None, False),
        (Answer(status=501, body=b""), None, False),
        (Answer(status=429, body=b""), Trouble.REFUSING, True),
        (Answer(status=503, body=b""), Trouble.REFUSING, True),
        (Answer(status=500, body=b""), Trouble.FAILING, False),
        (Answer(status=502, body=b""), Trouble.AWAY, False),
        (Answer(status=504, body=b""), Trouble.AWAY, False),
        (Failure(fault=Fault.UNREACHABLE), Trouble.UNREACHABLE, False),
        (Failure(fault=Fault.TIMEOUT), Trouble.FAILING, True),
        (Failure(fault=Fault.BROKEN_OFF), Trouble.FAILING, False),
        (Failure(fault=Fault.UNREADABLE), Trouble.FAILING, False),
        (Failure(fault=Fault.TOO_LARGE), None, False),
    ],
)
def test_what_an_outcome_says_about_the_server(outcome: Outcome, trouble: Trouble | None, too_much: bool) -> None:
    """And not about the request alone."""
    assert trouble_of(outcome) == trouble
    assert overloaded(outcome) == too_much


class TestFrames:
    """The layout of the result log."""

    def read(self, data: bytes, length: int | None = None) -> list[Result]:
        return [
            Result(
                line=frame.line,
                kind=frame.kind,
                record=data[frame.offset : frame.offset + frame.length],
                usage=frame.usage,
                trail=data[frame.offset + frame.length : frame.end],
            )
            for frame in scan(BytesIO(data), len(data) if length is None else length)
        ]

    @given(st.lists(RESULTS, max_size=5))
    def test_what_was_laid_out_is_read_back(self, results: list[Result]) -> None:
        """Every field."""
        data = MAGIC + b"".join(map(encode, results))

        assert self.read(data) == results
        assert [frame.trail for frame in scan(BytesIO(data), len(data))] == [result.trail for result in results]

    def test_a_tail_torn_at_any_byte_is_cut(self) -> None:
        """Whole frames before it stay, whether the file or only its valid length ends there."""
        results = [Result(line=line, kind=ResultKind.FAILED, record=b"r" * line, trail=b"t") for line in (0, 3, 9)]
        frames = [encode(result) for result in results]
        data = MAGIC + b"".join(frames)
        ends = [len(MAGIC) + sum(map(len, frames[:count])) for count in range(4)]
        for cut in range(len(data) + 1):
            whole = max((count for count in range(4) if ends[count] <= cut), default=0)

            assert len(self.read(data[:cut])) == whole
            assert len(self.read(data, cut)) == whole
            assert len(self.read(data[:cut], len(data))) == whole

    def test_a_flipped_bit_ends_the_log_there(self) -> None:
        """Wherever it is in the frame."""
        first, second = (
            encode(Result(line=line, kind=ResultKind.SUCCEEDED, record=b"abc", trail=b"t")) for line in (1, 2)
        )
        for place in range(len(second)):
            broken = bytearray(MAGIC + first + second)
            broken[len(MAGIC) + len(first) + place] ^= 1

            assert [result.line for result in self.read(bytes(broken))] == [1]

    @pytest.mark.parametrize("data", [b"", b"ovn", bytes(8), bytes(4096), b"x" * 100])
    def test_what_is_not_a_segment_holds_nothing(self, data: bytes) -> None:
        """Not even noughts, which file systems leave behind."""
        assert self.read(data) == []
        assert self.read(MAGIC + bytes(4096)) == []
        assert HEADER_BYTES == 32


def test_a_count_adds_up_what_it_was_given() -> None:
    """By kind, tokens of failures included."""
    count = Count()
    count.add(ResultKind.SUCCEEDED, Usage(input_tokens=5, cached_tokens=1, output_tokens=3, reasoning_tokens=2))
    count.add(ResultKind.SUCCEEDED, NO_USAGE)
    count.add(ResultKind.FAILED, Usage(input_tokens=7))

    usage = Usage(input_tokens=12, cached_tokens=1, output_tokens=3, reasoning_tokens=2)
    assert count.tally() == Tally(completed=2, failed=1, usage=usage)
