"""What becomes of the files of a batch once nobody may see them any more."""

import pytest
from tests.engine.house import MODEL, URL, House, line, number_of

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.errors import NotFound
from overnight.domain.file import ExpiresAfter, File
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, FileId
from overnight.services.batches import NewBatch
from overnight.testing.in_process import Reply, ScriptedDeployments, always, answer, deployment

S = BatchStatus
HOUR, MONTH = 3_600, 2_592_000
# A sweep comes every minute, and leaves an expired file alone for another one.
SWEPT = 130


async def _batch_of_a_file_that_soon_expires(house: House, requests: int = 9) -> tuple[Batch, File]:
    wish = ExpiresAfter(anchor="created_at", seconds=HOUR)
    file = await house.upload(b"\n".join(line(number) for number in range(requests)), expires_after=wish)
    house.clock.jump(HOUR - 10)
    new = NewBatch(input_file_id=file.id, endpoint=URL, completion_window="24h")
    return await house.batches.create(DEFAULT_RESOURCE, Flavour.OPENAI, new), file


async def _is_shown(house: House, file_id: FileId | None) -> bool:
    assert file_id is not None
    try:
        await house.files.get(DEFAULT_RESOURCE, file_id)
    except NotFound:
        return False
    return True


async def test_an_input_that_expires_while_its_batch_runs_does_no_harm(house: House) -> None:
    """Nobody sees it any more, but the batch reads it to its end, also after a restart; then the bytes go."""
    house.upstream.script = always(answer(), delay=10)
    batch, file = await _batch_of_a_file_that_soon_expires(house, requests=99)
    house.start()
    await house.clock.advance(10 + SWEPT)
    running, shown = await house.look(batch), await _is_shown(house, file.id)
    await house.kill()
    await house.reopen()
    house.upstream.script = always(answer())
    house.start()

    done = await house.reach(batch)

    assert (running.status, shown) == (S.IN_PROGRESS, False)
    assert 0 < running.completed < 99
    output, errors = await house.results(done)
    assert (done.status, len(output), errors) == (S.COMPLETED, 99, [])
    await house.clock.advance(SWEPT)
    assert await house.stores.blobs.size(file.blob) is None


async def test_an_input_that_expires_before_its_batch_is_looked_at_does_no_harm(house: House) -> None:
    """The batch waited for a model; the file was there when it was created."""
    house.deployments = ScriptedDeployments([], complete=False)
    batch, file = await _batch_of_a_file_that_soon_expires(house)
    house.start()
    await house.clock.advance(10 + SWEPT)
    waiting, shown = await house.look(batch), await _is_shown(house, file.id)
    house.deployments.now = ScriptedDeployments([deployment(MODEL, house.upstream)]).now

    done = await house.reach(batch)

    assert (waiting.status, shown) == (S.VALIDATING, False)
    assert (done.status, done.completed) == (S.COMPLETED, 9)


async def test_a_batch_of_an_expired_file_fails(house: House) -> None:
    """Though its bytes may still be there."""
    file = await house.upload(line(0), expires_after=ExpiresAfter(anchor="created_at", seconds=HOUR))
    house.clock.jump(HOUR)
    new = NewBatch(input_file_id=file.id, endpoint=URL, completion_window="24h")
    batch = await house.batches.create(DEFAULT_RESOURCE, Flavour.OPENAI, new)
    house.start()

    failed = await house.reach(batch)

    assert failed.status is S.FAILED
    assert [(problem.code, problem.param) for problem in failed.errors] == [("invalid_request", "file_id")]


@pytest.mark.parametrize(
    ("flavour", "wish", "life"),
    [
        (Flavour.OPENAI, None, MONTH),
        (Flavour.OPENAI, HOUR, HOUR),
        (Flavour.AZURE, None, None),
        (Flavour.AZURE, MONTH // 2, MONTH // 2),
    ],
)
async def test_the_life_of_result_files_is_counted_from_their_own_creation(
    house: House, flavour: Flavour, wish: int | None, life: int | None
) -> None:
    """CONTRACT 5.4: not from that of the batch; afterwards the bytes go."""
    house.upstream.script = lambda sent: Reply(outcome=answer(200 if number_of(sent.body) else 400), delay=50)
    asked = None if wish is None else ExpiresAfter(anchor="created_at", seconds=wish)
    batch = await house.submit(2, flavour, output_expires_after=asked)
    house.start()

    done = await house.reach(batch)

    assert done.output_file_id is not None
    assert done.error_file_id is not None
    files = [await house.files.get(DEFAULT_RESOURCE, name) for name in (done.output_file_id, done.error_file_id)]
    assert [file.created_at for file in files] == [done.completed_at] * 2
    assert files[0].created_at >= done.created_at + 50
    if life is None:
        assert [file.expires_at for file in files] == [None, None]
        return
    assert [file.expires_at for file in files] == [file.created_at + life for file in files]
    await house.stop()
    house.clock.jump(life)
    house.start()
    assert [await _is_shown(house, file.id) for file in files] == [False, False]
    await house.clock.advance(SWEPT)
    assert [await house.stores.blobs.size(file.blob) for file in files] == [None, None]
