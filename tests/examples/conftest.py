"""The examples as a reader has them: a folder of their own, and a `.env` that names the service."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream, answer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = "smollm2-135m-instruct"
# Seconds: a batch must not be over before the example has cancelled it.
DELAY = 0.5


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A model server that records what it is asked, and offers the model that the examples name."""
    with ScriptedUpstream([MODEL], answer(delay=DELAY)) as server:
        yield server


@pytest.fixture(scope="module")
def service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service process in front of it."""
    with Service(tmp_path_factory.mktemp("service"), upstreams=[upstream.url]) as running:
        yield running


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service process with the real embedded model."""
    with Service(tmp_path_factory.mktemp("embedded")) as running:
        yield running


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the folder; the test writes `.env` into it."""
    return shutil.copytree(EXAMPLES, tmp_path / "examples")
