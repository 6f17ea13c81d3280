"""What no log line may hold, and what none can be made to look like."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

from overnight.api import errors
from overnight.observability import logs
from overnight.observability.plain import frames

SECRET = "s3cret-marker"
FORGED = f"name\n2026-01-01 [error] forged\x1b[31mred\x07\x9b\u2028\u202e{'x' * 5_000}"


@pytest.fixture(autouse=True)
def _reset() -> object:
    yield
    logging.basicConfig(handlers=[], force=True)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str], style: str, log: Callable[[structlog.BoundLogger], object]) -> list[str]:
    logs.configure("debug", style)
    log(structlog.get_logger())
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("style", ["text", "json"])
def test_text_of_a_caller_stays_on_its_line(capsys: pytest.CaptureFixture[str], style: str):
    written = lines(capsys, style, lambda log: log.info("request.broken_off", path=FORGED, names=[FORGED], raw=b"\x1b"))

    assert len(written) == 1
    assert written[0].isprintable() or style == "text"
    assert not {"\x1b", "\x07", "\x9b", "\u2028", "\u202e"} & set(written[0])
    assert len(written[0]) < 2_500


def fail() -> None:
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError as error:
        raise ExceptionGroup(SECRET, [error, OSError(28, "No space left on device", SECRET)]) from None


@pytest.mark.parametrize("style", ["text", "json"])
def test_text_of_an_exception_is_not_written_but_its_type_and_place_are(capsys: pytest.CaptureFixture[str], style: str):
    def log(logger: structlog.BoundLogger) -> None:
        try:
            fail()
        except ExceptionGroup:
            logger.exception("dispatcher.trouble", during="renew")

    written = "\n".join(lines(capsys, style, log))

    assert SECRET not in written
    for part in ("ValueError", "which led to", "KeyError", "ExceptionGroup", "No space left on device", "in fail"):
        assert part in written


def test_libraries_are_quoted_without_values(capsys: pytest.CaptureFixture[str]):
    def log(_: structlog.BoundLogger) -> None:
        logger = logging.getLogger("asyncio")
        try:
            int(SECRET)
        except ValueError as error:
            logger.error(f"Task broke\nexception={error!r}", exc_info=True)  # noqa: G004, G201 - as asyncio does
        logger.error("%s broke", SECRET)
        logger.warning("not of interest")

    written = lines(capsys, "json", log)

    assert [json.loads(line)["words"] for line in written] == ["Task broke", "%s broke"]
    assert SECRET not in "".join(written)


async def test_handler_that_breaks_tells_neither_the_caller_nor_the_log(capsys: pytest.CaptureFixture[str]):
    logs.configure("debug", "json")
    app = FastAPI()
    errors.install(app)

    @app.get("/v1/broken")
    async def broken() -> None:
        raise ValueError(SECRET)

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/broken", "query_string": b"", "headers": []}
    with pytest.raises(ValueError, match=SECRET):
        await app(scope, receive, send)
    log = capsys.readouterr().err

    assert sent[0]["status"] == 500
    assert "ValueError" in log
    assert SECRET not in log
    assert SECRET.encode() not in sent[1]["body"]


def test_exceptions_that_refer_to_each_other_are_written_once():
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first

    assert frames(first).splitlines() == ["KeyError", "which led to", "ValueError"]


def test_what_is_no_text_stays_what_it_is(capsys: pytest.CaptureFixture[str]):
    [line] = lines(capsys, "json", lambda log: log.info("x", number=1, wait=0.5, yes=True, none=None))

    assert json.loads(line) | {"timestamp": 0} == {
        "event": "x",
        "level": "info",
        "timestamp": 0,
        "number": 1,
        "wait": 0.5,
        "yes": True,
        "none": None,
    }
