"""The commands and the code beside the form of a new batch: run as they stand, they make the same batch."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from html import unescape
from pathlib import Path

import pytest
from tests.studio.conftest import Visitor
from tests.support.api import Api, chats
from tests.support.http import Http
from tests.support.service import Service, overnight

from overnight.domain.flavour import Flavour
from overnight.studio.recipes import Wishes, all_of, first_batch

CHAT = "/v1/chat/completions"
METADATA = (("name", "the same"), ("team", "it's $HOME"))


@pytest.fixture(params=list(Flavour))
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return Flavour(request.param)


@pytest.fixture
def recipes(flavour: Flavour, open_service: Service, api: Api) -> Mapping[str, str]:
    wishes = Wishes(file_id=api.upload(chats(1, CHAT)), endpoint=CHAT, flavour=flavour, metadata=METADATA)
    return {recipe.name: recipe.text for recipe in all_of(wishes, open_service.url)}


def rules_of(visitor: Visitor, batch_id: str) -> tuple[bool, bool]:
    """Say by whose rules a batch goes, as its page tells it, and whether it has the metadata."""
    page = visitor.page(f"/studio/batches/{batch_id}")
    return "<dt>Rules of</dt><dd><bdi>Azure OpenAI</bdi>" in page, "it&#39;s $HOME" in page


def test_command_makes_the_same_batch(
    recipes: Mapping[str, str], flavour: Flavour, open_service: Service, visitor: Visitor
):
    _, option, url, *words = shlex.split(recipes["Command line"].replace("\\\n", ""))

    made = overnight(open_service, option, url, *words, "-q")

    assert rules_of(visitor, made.strip()) == (flavour is Flavour.AZURE, True)


def test_curl_makes_the_same_batch(
    recipes: Mapping[str, str], flavour: Flavour, open_service: Service, visitor: Visitor
):
    _, url, _, key, _, kind, _, body = shlex.split(recipes["curl"].replace("\\\n", ""))
    headers = dict(each.lower().split(": ") for each in (key, kind))

    reply = Http(open_service.url).call("POST", url.removeprefix(open_service.url), body.encode(), headers)

    assert rules_of(visitor, json.loads(reply.body)["id"]) == (flavour is Flavour.AZURE, True)
    assert ("api-key" in headers) == (flavour is Flavour.AZURE)


def test_code_makes_the_same_batch(
    recipes: Mapping[str, str],
    flavour: Flavour,
    visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("OVERNIGHT_API_KEY", "any")
    code = [text for name, text in recipes.items() if name.startswith("Python")]
    for text in code:
        exec(compile(text, "recipe", "exec"), {})  # noqa: S102 - it is ours

    made = capsys.readouterr().out.split()

    assert len(made) == len(code) == (2 if flavour is Flavour.AZURE else 1)
    assert {rules_of(visitor, each) for each in made} == {(flavour is Flavour.AZURE, True)}


def test_first_example_runs_as_it_stands(newcomer: Visitor, open_service: Service, tmp_path: Path):
    shown = unescape(newcomer.page("/studio/batches"))
    write, run = first_batch(open_service.url, ["test-model"]).splitlines()
    subprocess.run(["sh", "-c", write], check=True, cwd=tmp_path, timeout=10)
    _, option, url, command, file = shlex.split(run)

    overnight(open_service, option, url, command, str(tmp_path / file), "-q")

    assert write in shown
    assert "Say hello" in (tmp_path / "requests.output.jsonl").read_text()


def test_first_example_names_a_model_with_odd_characters_whole():
    text = first_batch("http://localhost", ["it's $HOME/x"])

    assert json.loads(shlex.split(text)[2])["body"]["model"] == "it's $HOME/x"


def test_commands_reach_a_service_below_a_path():
    texts = [recipe.text for recipe in all_of(Wishes(file_id="file-1"), "https://gateway.example/batch")]

    assert all("https://gateway.example/batch/v1" in text for text in texts)
