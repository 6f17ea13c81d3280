"""What every tokenizer keeps, and where each comes from."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from overnight.adapters.system import WorkerProcesses
from overnight.adapters.tokens.choice import ChosenCounters, by_setting
from overnight.adapters.tokens.huggingface import TokenizerUnusable
from overnight.bootstrap.tokens import token_counters
from overnight.config import ConfigError, Settings
from overnight.config_deployments import DeploymentSettings
from overnight.domain.tokens import Accuracy
from overnight.ports.tokens import TokenCounter
from overnight.services.tokens import count_file


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that knows two words and takes all else as unknown ones."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made = Tokenizer(WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    made.save(str(path))
    return path


@pytest.fixture(scope="module", params=["estimate", "o200k", "cl100k", "file"])
def counter(request: pytest.FixtureRequest, tokenizer_file: Path) -> TokenCounter:
    found = by_setting(str(tokenizer_file) if request.param == "file" else request.param, "m")
    found.count("so that it is loaded")
    return found


@given(text=st.text(max_size=300))
def test_any_text_has_a_count(counter: TokenCounter, text: str) -> None:
    """None is refused, none has more tokens than bytes, and the same text has the same count."""
    assert 0 <= counter.count(text) <= len(text.encode())
    assert counter.count(text) == counter.count(text)


def test_nothing_has_no_tokens(counter: TokenCounter) -> None:
    """An empty message has its overhead only."""
    assert counter.count("") == 0


def test_a_tokenizer_travels_to_a_worker(counter: TokenCounter) -> None:
    """Counting happens in another process."""
    copy = pickle.loads(pickle.dumps(counter))  # noqa: S301 - made here

    assert (copy.name, copy.exact) == (counter.name, counter.exact)
    assert copy.count("hello world") == counter.count("hello world")


@pytest.mark.parametrize(
    ("setting", "text", "tokens"),
    [
        ("o200k", "hello world", 2),
        ("cl100k", "hello world", 2),
        ("o200k", "<|endoftext|>", 7),
        ("cl100k", "tiktoken is great!", 6),
        ("o200k", "antidisestablishmentarianism", 6),
        ("cl100k", "2 + 2 = 4", 7),
        ("cl100k", "お誕生日おめでとう", 9),
        ("o200k", "お誕生日おめでとう", 8),
        ("estimate", "hello world", 3),
        ("estimate", "ü", 1),
    ],
)
def test_known_texts_have_known_counts(setting: str, text: str, tokens: int) -> None:
    """As OpenAI's cookbook gives them; what looks like a special token is plain text."""
    assert by_setting(setting, "").count(text) == tokens


def test_a_file_counts_as_its_model_does(tokenizer_file: Path) -> None:
    """Without the special tokens that a chat template adds."""
    counter = by_setting(str(tokenizer_file), "llama")

    assert (counter.name, counter.exact) == (str(tokenizer_file), True)
    assert counter.count("hello brave world") == 3


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """When it is chosen, not in the middle of counting."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(TokenizerUnusable, match="cannot be used"):
        by_setting(str(path), "m")


def test_the_settings_choose_by_deployment(tokenizer_file: Path) -> None:
    """`auto` goes by what the upstream calls the model; a name that is no deployment by itself."""
    settings = Settings(
        deployments=(
            DeploymentSettings(name="mine", tokenizer=str(tokenizer_file)),
            DeploymentSettings(name="chat", model="gpt-4o"),
            DeploymentSettings(name="gpt-4", tokenizer="estimate"),
        )
    )
    counters = token_counters(settings)
    names = [counters.of(model).name for model in ("mine", "chat", "gpt-4", "gpt-4-turbo", "other")]

    assert names == [str(tokenizer_file), "o200k_base", "bytes/4", "cl100k_base", "bytes/4"]
    assert token_counters(settings, "cl100k").of("mine").name == "cl100k_base"
    assert token_counters(settings, "auto").of("gpt-4").name == "cl100k_base"


def test_settings_with_a_tokenizer_that_there_is_not_are_refused(tmp_path: Path) -> None:
    """By name at once, by path when it is opened."""
    with pytest.raises(ValidationError, match="`words` is no tokenizer"):
        DeploymentSettings(name="m", tokenizer="words")
    settings = Settings(deployments=(DeploymentSettings(name="m", tokenizer=str(tmp_path / "nix.json")),))

    with pytest.raises(ConfigError, match="cannot be used"):
        token_counters(settings)


async def test_a_file_is_counted_in_a_worker_process(tmp_path: Path) -> None:
    """So that the event loop answers meanwhile."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello world"}]}
    path = tmp_path / "input.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}))
    workers = WorkerProcesses()
    try:
        found = await workers.run(count_file, path, ChosenCounters({}))
    finally:
        workers.close()

    assert [(each.prompt_tokens, each.accuracy) for each in found.models] == [(9, Accuracy.EXACT)]
