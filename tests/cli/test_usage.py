"""Transcripts of `overnight usage` and of caps, on a data folder; beside a service see tests/conformance."""

from __future__ import annotations

import pytest
from tests.cli.conftest import MODEL, Cli, Outcome, request
from tests.cli.test_transcripts import Write

FOLDER = ("--data-dir", "data")
PRICE = f'currency = "EUR"\n[[deployments]]\nname = "{MODEL}"\ntokenizer = "cl100k"\nprice = '


def test_a_cap_is_set_shown_and_taken_away(bare: Cli) -> None:
    """One of each kind."""
    bare("resources", "create", "search", *FOLDER)
    put = bare("resources", "cap", "search", "--tokens", "5_000", "--per", "day", *FOLDER)
    shown = bare("resources", "caps", "--json", *FOLDER)
    gone = [bare("resources", "cap", "search", "--tokens", "none", "--per", "day", *FOLDER).stderr for _ in range(2)]
    none = bare("resources", "caps", *FOLDER)

    assert put == Outcome(stdout="search\tday\ttokens\t5000\t0\topen\n", stderr="", code=0)
    limits = {"limit": "5000", "used": "0", "reached": False}
    assert shown.json == [{"resource": "search", "period": "day", "measure": "tokens", **limits}]
    assert gone == ["the cap is taken away\n", "there was no such cap\n"]
    assert none.stdout == ""
    assert none.stderr.startswith("no cap yet; ")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("search", "--per", "day"), "error: say either --tokens or --spend\n", 2),
        (("search", "--tokens", "1", "--spend", "1", "--per", "day"), "error: say either --tokens or --spend\n", 2),
        (
            ("search", "--tokens", "1.5", "--per", "day"),
            "error: invalid value for '--tokens': `1.5` is not a number",
            2,
        ),
        (("search", "--tokens", "-1", "--per", "day"), "error: invalid value for '--tokens': `-1` is not a number", 2),
        (("search", "--spend", "much", "--per", "day"), "error: invalid value for '--spend': `much` is not an am", 2),
        (("search", "--spend", "1", "--per", "day"), "error: A cap on money needs prices", 2),
        (("sarch", "--tokens", "1", "--per", "day"), "error: there is no resource `sarch`\n", 2),
    ],
)
def test_a_cap_that_makes_no_sense_is_refused(bare: Cli, arguments: tuple[str, ...], said: str, code: int) -> None:
    """A slip of the finger must not leave a resource without its cap."""
    bare("resources", "create", "search", *FOLDER)

    found = bare("resources", "cap", *arguments, *FOLDER)

    assert found.stderr.startswith(said)
    assert (found.stdout, found.code) == ("", code)


def test_a_data_folder_without_any_use_has_none_to_show(bare: Cli) -> None:
    """And one without a database is not made by looking."""
    missing = bare("usage", "--all-resources", *FOLDER)
    bare("resources", "create", "search", *FOLDER)
    found = bare("usage", "--all-resources", *FOLDER)
    wrong = bare("usage", "--all-resources", "--from", "monday", *FOLDER)
    lost = bare("usage", *FOLDER)

    assert missing.stderr.startswith("error: there is no database in the data folder `data`\n")
    assert found == Outcome(stdout="", stderr="nothing was used in these days\n", code=0)
    assert "'monday' is no day. Write it as YYYY-MM-DD" in wrong.stderr
    assert lost.stderr.startswith("error: `--data-dir` and `--config` go with `--all-resources`\n")


def test_the_cost_of_a_file_is_told_where_there_is_a_price(bare: Cli, write: Write) -> None:
    """With its upper end, if each request has one."""
    write(request("a", "Hello world"))
    (bare.folder / "overnight.toml").write_text(f"{PRICE}{{ input = 2, output = 8 }}\n")
    bounded = bare("files", "stats", "prompts.jsonl")
    as_json = bare("files", "stats", "prompts.jsonl", "--json=currency,costs").json
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello world"}]}
    write(request("a", body=body))
    unbounded = bare("files", "stats", "prompts.jsonl")

    assert f"cost of {MODEL}: 0.000018 to 0.000146 EUR, by the length of the answers\n" in bounded.stderr
    assert as_json == [{"currency": "EUR", "costs": {MODEL: {"least": "0.000018", "most": "0.000146"}}}]
    assert f"cost of {MODEL}: from 0.000018 EUR; a request does not bound its answer" in unbounded.stderr


@pytest.mark.parametrize(
    "price", ["{ input = -1 }", "{ input = 0.0000001 }", "{ output = 1 }", "{ input = 1, out = 2 }"]
)
def test_a_price_that_cannot_be_is_refused(bare: Cli, write: Write, price: str) -> None:
    """With the place where it stands."""
    write(request("a"))
    (bare.folder / "overnight.toml").write_text(f"{PRICE}{price}\n")

    found = bare("files", "stats", "prompts.jsonl")

    assert found.stderr.startswith("error: `deployments.0.price.")
    assert found.code == 2
