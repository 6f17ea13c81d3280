"""What a line of a result file says of the end of its request."""

import json

import pytest

from overnight.domain.ids import BatchId, line_of, request_id
from overnight.domain.reason import UNREADABLE, Ending, custom_id_in, ending, status_code
from overnight.domain.result import error_line, response_line

TRICKY = '"response":{"status_code":999 "custom_id":"x"\\'


def a_line(**members: object) -> bytes:
    return json.dumps({"custom_id": "a"} | members).encode()


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        (a_line(error={"code": "batch_expired", "message": "late"}), "batch_expired", "late"),
        (a_line(error={}), "error", ""),
        (a_line(), "no_response", ""),
        (a_line(response={"status_code": 400, "body": {"error": {"code": "c", "message": "a\n b"}}}), "c", "a b"),
        (a_line(response={"status_code": 429, "body": {"error": {"code": "429", "type": "t"}}}), "t", ""),
        (a_line(response={"status_code": 429, "body": {"error": {"code": 429}}}), "http_429", ""),
        (a_line(response={"status_code": 429, "body": {"error": {"code": "", "type": ""}}}), "http_429", ""),
        (a_line(response={"status_code": 500, "body": {"error": "broken"}}), "http_500", "broken"),
        (a_line(response={"status_code": 500, "body": [1]}), "http_500", ""),
        (b'{"custom_id":"a","response":{"status_code":500,"body":{"error":"\xff"}}}', "http_500", ""),
        (a_line(response={"status_code": 500, "body": {"error": "x" * 300}}), "http_500", "x" * 199 + "…"),
    ],
)
def test_the_reason_is_a_code_and_what_was_said(raw: bytes, code: str, message: str) -> None:
    """The code of the error, else its type, else the status."""
    assert ending(raw) == Ending(code=code, custom_id="a", message=message)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"\xff"', b'{"custom_id":1}'])
def test_a_line_that_cannot_be_read_says_so(raw: bytes) -> None:
    """Other servers may have written it."""
    assert ending(raw) == Ending(code=UNREADABLE, custom_id="", message="")


def test_a_line_without_an_id_has_an_empty_one() -> None:
    """Nothing is made up."""
    assert ending(b'{"error":{"code":"c"}}') == Ending(code="c", custom_id="", message="")


def test_the_beginning_of_a_line_tells_its_status_id_and_place() -> None:
    """Also where the custom_id looks like other parts of the line."""
    own = request_id(BatchId("batch_12-34"), 0xABC)
    custom_id = json.dumps(TRICKY).encode()
    good, bad = response_line(custom_id, own, 201, "q", b"{}"), error_line(custom_id, own, "c", TRICKY)

    assert (status_code(good), status_code(bad)) == (201, 0)
    assert [custom_id_in(line) for line in (good, bad)] == [TRICKY, TRICKY]
    assert [line_of(line) for line in (good, bad)] == [0xABC, 0xABC]
    assert custom_id_in(good[:60]) is None
