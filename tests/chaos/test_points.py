"""The crash points: each is really reached, and nothing but a test can arm them."""

from __future__ import annotations

import ast
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.chaos.world import CRASHING, Figures, World
from tests.support.service import eventually

from overnight import crash_points
from overnight.crash_points import POINTS
from overnight.domain.batch import BatchStatus
from overnight.testing import crashing
from overnight.testing.upstream import ScriptedUpstream

SOURCE = Path(crash_points.__file__).parent
SWITCHED = {f"batch.{status}" for status in BatchStatus} | {f"upload.{status}" for status in ("completed", "cancelled")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ScriptedUpstream() as upstream:
        world = World(tmp_path, upstream, Random(1), Figures())
        yield world
        world.service.stop()


@pytest.fixture
def disarmed() -> Iterator[None]:
    """What a test arms in this process ends with it."""
    yield
    crash_points.forget_watchers()


@pytest.mark.timeout(300)
def test_each_point_is_reached(world: World, tmp_path: Path):
    """A point that nothing comes by would give a false sense of safety."""
    record = tmp_path / "points"
    launcher = [*CRASHING, "--record", str(record), "--"]
    world.service.start(launcher)
    world.watch()
    for step in (world.submit, world.submit_in_parts, world.cancel_upload, world.spoil, world.submit_and_cancel):
        step()
    eventually(lambda: world.statuses() >= {"completed", "failed", "cancelled"}, 60)
    world.delete()
    # Nobody tries a message again before its claim is over, so what the kill cuts short would not come back in time.
    eventually(lambda: "webhook.recorded" in record.read_text(), 60)
    held = world.submit_held()
    eventually(lambda: world.statuses() and world.history.last[held]["status"] == "in_progress", 60)
    world.kill()
    world.close_window(held)
    world.service.start(launcher)

    problems = world.settle()

    assert problems == []
    assert sorted(set(record.read_text().split())) == sorted(POINTS)


def test_each_point_in_the_code_has_its_name_in_the_list():
    """And the list has no other."""
    called = {name for module in SOURCE.rglob("*.py") for name in _points_in(ast.parse(module.read_text()))}

    assert called | SWITCHED - {"batch.validating"} == set(POINTS)
    assert list(POINTS) == sorted(POINTS)


def _points_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="reached"), args=[ast.Constant(value=str(name))]):
                yield name


def test_only_the_kit_for_tests_can_arm_a_point():
    """No setting, no flag, no environment variable: the service has no code that could."""
    arming = {
        module.relative_to(SOURCE).as_posix()
        for module in SOURCE.rglob("*.py")
        if re.search(r"\bcrash_points\.(watch|_watchers)|import .*\bwatch\b", module.read_text())
    }

    assert arming == {"testing/crashing.py"}
    assert not hasattr(crash_points, "os")


def test_an_action_happens_at_its_time_and_once(disarmed: None):
    done: list[float] = []
    crashing.crash_at("log.synced", 2, lambda: done.append(time.time()))

    for point in ("log.synced", "log.written", "log.synced", "log.synced"):
        crash_points.reached(point)

    assert len(done) == 1


def test_an_unknown_point_is_refused():
    with pytest.raises(ValueError, match=r"no crash point 'log\.sunk'"):
        crashing.crash_at("log.sunk")


def test_a_constant_that_is_not_there_is_refused():
    with pytest.raises(TypeError, match="has no number LESE"):
        crashing.set_constant("overnight.dispatch.dispatcher:LESE=1")


def test_a_process_dies_where_it_is_told_to(world: World):
    world.service.launch([*CRASHING, "--at", "file.added", "--"])
    world.service.wait_until_ready()
    with pytest.raises((OSError, ConnectionError)):
        world.api().upload(b"{}")

    assert world.service.exit_code(10) == -signal.SIGKILL
