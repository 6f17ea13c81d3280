"""Live parts: rendered once for all who look, sent when they change, resumed, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from tests.studio.in_process import TEAM, House

from overnight.domain.errors import Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.ids import ResourceId
from overnight.services.batches import NewBatch
from overnight.studio.events import Hub, Topic
from overnight.testing.clock import ManualClock

TOPIC = Topic(ResourceId("blue"), "batches")
OTHER = Topic(ResourceId("green"), "batches")


class Entropy:
    def hex(self) -> str:
        return "a1" * 16

    def fraction(self) -> float:
        return 0.5


class Stage:
    """A hub, and what its topics show now."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.shown: dict[Topic, Mapping[str, str] | Exception] = {TOPIC: {"row-1": "<p>1</p>"}, OTHER: {}}
        self.rendered: list[Topic] = []
        self.hub = Hub(self.render, self.clock, Entropy())
        self.allowed = True

    async def render(self, topic: Topic) -> Mapping[str, str]:
        self.rendered.append(topic)
        shown = self.shown[topic]
        if isinstance(shown, Exception):
            raise shown
        return shown

    async def may(self) -> bool:
        return self.allowed

    def look(self, topic: Topic = TOPIC, last_event_id: str = "") -> AsyncIterator[bytes]:
        return self.hub.stream([topic], last_event_id, self.may)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def begin(stage: Stage, topic: Topic = TOPIC, last_event_id: str = "") -> AsyncIterator[bytes]:
    stream = stage.look(topic, last_event_id)
    assert await anext(stream) == b": alive\n\n"
    return stream


async def test_topic_is_rendered_once_for_all_who_look(stage: Stage):
    streams = [await begin(stage) for _ in range(50)]
    await stage.hub.refresh()

    seen = {await anext(stream) for stream in streams}

    assert stage.rendered == [TOPIC]
    assert seen == {
        b'id: a1a1a1a1-1\ndata: <hx-partial hx-target="#row-1" hx-swap="outerMorph"><p>1</p></hx-partial>\n\n'
    }


async def test_only_what_changed_is_sent(stage: Stage):
    stream = await begin(stage)
    stage.shown[TOPIC] = {"row-1": "<p>1</p>", "row-2": "<p>2</p>"}
    await stage.hub.refresh()
    await anext(stream)
    stage.shown[TOPIC] = {"row-1": "<p>1</p>", "row-2": "<p>two</p>"}
    await stage.hub.refresh()

    sent = await anext(stream)

    assert b"two" in sent
    assert b"row-1" not in sent


async def test_relative_times_that_pass_are_no_change(stage: Stage):
    stage.shown[TOPIC] = {"row-1": '<time datetime="x">1 s ago</time>'}
    await begin(stage)
    with stage.hub.subscribed([TOPIC]) as looking:
        await stage.hub.refresh()
        looking.waiting.clear()
        stage.shown[TOPIC] = {"row-1": '<time datetime="x">2 s ago</time>'}
        await stage.hub.refresh()

        assert looking.waiting == {}


async def test_slow_reader_gets_the_newest_state_only(stage: Stage):
    stream = await begin(stage)
    for number in range(100):
        stage.shown[TOPIC] = {"row-1": f"<p>{number}</p>"}
        await stage.hub.refresh()

    sent = await anext(stream)

    assert sent.count(b"data:") == 1
    assert b"<p>99</p>" in sent


async def test_reader_that_comes_back_gets_what_it_missed(stage: Stage):
    with stage.hub.subscribed([TOPIC]):
        stage.shown[TOPIC] = {"row-1": "<p>1</p>", "row-2": "<p>2</p>"}
        await stage.hub.refresh()
        stage.shown[TOPIC] = {"row-1": "<p>1</p>", "row-2": "<p>two</p>"}
        await stage.hub.refresh()

        with stage.hub.subscribed([TOPIC], "a1a1a1a1-1") as back:
            assert list(back.waiting) == ["row-2"]
        with stage.hub.subscribed([TOPIC], "a1a1a1a1-2") as back:
            assert list(back.waiting) == []


@pytest.mark.parametrize("last", ["", "another0-7", "a1a1a1a1-", "a1a1a1a1-x", "a1a1a1a1-²", "a1a1a1a1-" + "9" * 50])
async def test_reader_of_another_life_gets_everything(stage: Stage, last: str):
    with stage.hub.subscribed([TOPIC]):
        await stage.hub.refresh()
        with stage.hub.subscribed([TOPIC], last) as back:
            assert list(back.waiting) == ["row-1"]


async def test_resources_hear_nothing_of_each_other(stage: Stage):
    with stage.hub.subscribed([OTHER]) as looking, stage.hub.subscribed([TOPIC]):
        await stage.hub.refresh()

        assert looking.waiting == {}


async def test_nothing_is_rendered_while_nobody_looks(stage: Stage):
    async with asyncio.TaskGroup() as group:
        living = group.create_task(stage.hub.keep_live())
        await stage.clock.advance(60)
        before = list(stage.rendered)
        stream = await begin(stage)
        await stage.clock.advance(3)
        await stream.aclose()  # type: ignore[attr-defined]
        looked = len(stage.rendered)
        await stage.clock.advance(60)
        after = len(stage.rendered)
        living.cancel()

    assert before == []
    assert 3 <= looked <= 5
    assert after <= looked + 1


async def test_silent_stream_shows_that_it_lives(stage: Stage):
    stream = await begin(stage)
    waiting = asyncio.ensure_future(anext(stream))
    await stage.clock.advance(15)

    assert await waiting == b": alive\n\n"


async def test_stream_ends_when_the_key_does(stage: Stage):
    stream = await begin(stage)
    stage.allowed = False
    await stage.hub.refresh()

    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_streams_end_with_the_service(stage: Stage):
    async with asyncio.TaskGroup() as group:
        living = group.create_task(stage.hub.keep_live())
        await stage.clock.advance(1)
        stream = await begin(stage)
        living.cancel()

    assert b"".join([piece async for piece in stream]) == b""
    with pytest.raises(Unavailable), stage.hub.subscribed([TOPIC]):
        pass


async def test_what_cannot_be_read_is_told_once_and_when_it_is_over(stage: Stage):
    stream = await begin(stage)
    await stage.hub.refresh()
    await anext(stream)
    good = stage.shown[TOPIC]
    stage.shown[TOPIC] = Unavailable("The database cannot be read.")
    await stage.hub.refresh()
    broken = await anext(stream)
    await stage.hub.refresh()
    stage.shown[TOPIC] = good
    await stage.hub.refresh()
    mended = await anext(stream)

    assert broken == b"event: stale\ndata: The database cannot be read.\n\n"
    assert mended == b"event: fresh\ndata: \n\n"


async def test_streams_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("overnight.studio.events._MOST_STREAMS", 1)
    with stage.hub.subscribed([TOPIC]), pytest.raises(Unavailable), stage.hub.subscribed([TOPIC]):
        pass
    with stage.hub.subscribed([TOPIC]):
        pass


async def test_html_of_several_lines_stays_one_event(stage: Stage):
    stage.shown[TOPIC] = {"row-1": "<p>\none\r\n\ntwo</p>"}
    stream = await begin(stage)
    await stage.hub.refresh()

    sent = await anext(stream)

    assert sent.count(b"\n\n") == 1
    assert sent.endswith(b"\n\n")


async def test_reader_that_goes_between_two_topics_misses_neither(stage: Stage):
    stage.shown[OTHER] = {"row-2": "<p>2</p>"}
    with stage.hub.subscribed([TOPIC, OTHER]) as both:
        await stage.hub.refresh()
        ids = {event.partition(b"\n")[0] for event in both.waiting.values()}

    assert ids == {b"id: a1a1a1a1-1", b"id: a1a1a1a1-2"}


async def test_what_a_reader_saw_last_speaks_for_all_before(stage: Stage):
    with stage.hub.subscribed([TOPIC, OTHER]) as slow:
        stage.shown[OTHER] = {"row-2": "<p>2</p>"}
        await stage.hub.refresh()
        stage.shown[TOPIC] = {"row-1": "<p>one</p>"}
        await stage.hub.refresh()

        assert list(slow.waiting)[-1] == "row-1"


async def test_defect_in_one_part_neither_ends_the_service_nor_stops_the_others(stage: Stage):
    stage.shown[OTHER] = RuntimeError("a damaged file")
    with stage.hub.subscribed([OTHER]) as broken, stage.hub.subscribed([TOPIC]) as whole:
        await stage.hub.refresh()

        assert list(whole.waiting) == ["row-1"]
        assert b"event: stale" in broken.waiting["stale:batches"]
        assert b"damaged" not in broken.waiting["stale:batches"]


async def test_what_could_never_be_shown_is_forgotten_with_its_readers(stage: Stage):
    stage.shown[OTHER] = Unavailable("There is no such batch.")
    with stage.hub.subscribed([OTHER]):
        await stage.hub.refresh()
    await stage.hub.refresh()

    with stage.hub.subscribed([OTHER]) as back:
        assert back.waiting == {}


async def test_page_that_comes_after_all_have_gone_gets_nothing_old(stage: Stage):
    with stage.hub.subscribed([TOPIC]):
        await stage.hub.refresh()
    with stage.hub.subscribed([TOPIC]) as next_page:
        before = dict(next_page.waiting)
        stage.shown[TOPIC] = {"row-1": "<p>2</p>"}
        await stage.hub.refresh()

        assert before == {}
        assert b"<p>2</p>" in next_page.waiting["row-1"]


async def test_nothing_old_is_left_of_a_topic_while_another_is_looked_at(stage: Stage):
    stage.shown[OTHER] = {"row-2": "<p>2</p>"}
    with stage.hub.subscribed([TOPIC]):
        with stage.hub.subscribed([TOPIC, OTHER]):
            await stage.hub.refresh()
        with stage.hub.subscribed([TOPIC, OTHER]) as back:
            assert list(back.waiting) == ["row-1"]


@pytest.mark.parametrize("shown", [{"row-1": "<p>1</p>"}, Unavailable("The database cannot be read.")])
async def test_what_comes_after_its_last_reader_is_not_kept(
    stage: Stage, shown: Mapping[str, str] | Exception, monkeypatch: pytest.MonkeyPatch
):
    stage.shown[TOPIC] = shown
    rendered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(topic: Topic) -> Mapping[str, str]:
        rendered.set()
        await go_on.wait()
        return await stage.render(topic)

    monkeypatch.setattr(stage.hub, "_render", slowly)
    async with asyncio.TaskGroup() as group:
        with stage.hub.subscribed([TOPIC]):
            group.create_task(stage.hub.refresh())
            await rendered.wait()
        go_on.set()

    with stage.hub.subscribed([TOPIC]) as next_page:
        assert next_page.waiting == {}


async def test_reader_that_comes_late_is_told_what_cannot_be_shown(stage: Stage):
    stage.shown[TOPIC] = Unavailable("The database cannot be read.")
    with stage.hub.subscribed([TOPIC]):
        await stage.hub.refresh()
        late = await begin(stage)

        assert await anext(late) == b"event: stale\ndata: The database cannot be read.\n\n"


async def test_parts_that_are_gone_are_not_kept_for_newcomers(stage: Stage):
    with stage.hub.subscribed([TOPIC]):
        await stage.hub.refresh()
        stage.shown[TOPIC] = {"row-2": "<p>2</p>"}
        await stage.hub.refresh()

        with stage.hub.subscribed([TOPIC]) as late:
            assert list(late.waiting) == ["row-2"]


async def test_one_resource_leaves_streams_for_others(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("overnight.studio.events._MOST_OF_A_RESOURCE", 1)
    with stage.hub.subscribed([TOPIC]):
        with pytest.raises(Unavailable), stage.hub.subscribed([TOPIC]):
            pass
        with stage.hub.subscribed([OTHER]):
            pass


async def test_duration_that_goes_on_is_no_change(tmp_path: Path):
    """Browsers keep it up to date by themselves: rows of batches that wait are not sent again each second."""
    house = House(tmp_path)
    new = NewBatch(input_file_id="file-1", endpoint="/v1/embeddings", completion_window="24h")
    batch = await house.batches.create(TEAM, Flavour.OPENAI, new)
    with house.studio.hub.subscribed([Topic(TEAM, f"row:{batch.id}"), Topic(TEAM, "batches")]) as looking:
        await house.studio.hub.refresh()
        sent = b"".join(looking.waiting.values())
        looking.waiting.clear()
        house.clock.jump(65)
        await house.studio.hub.refresh()

        assert b"data-running>under 1 s</time>" in sent
        assert looking.waiting == {}
