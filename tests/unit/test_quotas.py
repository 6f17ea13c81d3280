"""Which quota applies, what a batch holds of it, and what is said when it does not fit."""

import json
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from overnight.adapters.tokens.choice import ChosenCounters
from overnight.adapters.tokens.openai_bpe import OpenAiBpe
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.deployment import Deployment
from overnight.domain.errors import InvalidRequest, NotFound, TokenLimitExceeded
from overnight.domain.file import File, Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, BatchId, FileId, ResourceId
from overnight.domain.key import Resource
from overnight.domain.limits import DEFAULTS
from overnight.domain.quota import (
    PRESETS,
    Basis,
    Limit,
    Offer,
    OverQuota,
    Own,
    Refusal,
    Terms,
    alone_too_large,
    amount,
    family_of,
    held,
    limit_of,
    refusal_message,
)
from overnight.ports.upstream import Known
from overnight.services.batches import BatchService, NewBatch
from overnight.services.gate import COUNTED_AT_ONCE, Gate
from overnight.services.quotas import Inputs, QuotaAdmin, QuotaService
from overnight.services.tokens import count_file
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import START, ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.in_process import ScriptedDeployments
from overnight.testing.offload import InPlace
from overnight.testing.quotas import MemoryQuotas
from overnight.testing.stores import MemoryBatches, MemoryFiles, MemoryKeys, Tables

AZURE, OPENAI = Flavour.AZURE, Flavour.OPENAI
MINE = ResourceId("mine")
K, M, B = 10**3, 10**6, 10**9


class TestLimits:
    """The decisions."""

    def test_the_presets_are_those_of_the_table(self) -> None:
        """Row by row, in the order enterprise, default, credit card, MSDN, free."""
        expected = {
            "gpt-4o": [5 * B, 50 * M, 1_350 * K, 90 * K, None],
            "gpt-4-turbo": [300 * M, 40 * M, 1_350 * K, 90 * K, None],
            "gpt-4": [150 * M, 5 * M, 200 * K, 100 * K, None],
            "gpt-35-turbo": [10 * B, 100 * M, 5 * M, 2 * M, 50 * K],
        }

        assert expected == {family: list(row.values()) for family, row in PRESETS.items()}
        assert all(list(Offer) == list(row) for row in PRESETS.values())

    @pytest.mark.parametrize(
        ("model", "family"),
        [
            ("gpt-4o", "gpt-4o"),
            ("GPT-4o", "gpt-4o"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("openai/gpt-4o", "gpt-4o"),
            ("gpt-4-turbo", "gpt-4-turbo"),
            ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
            ("gpt-4-turbo-preview", "gpt-4-turbo"),
            ("gpt-4-1106-preview", "gpt-4-turbo"),
            ("gpt-4-0125-preview", "gpt-4-turbo"),
            ("gpt-4", "gpt-4"),
            ("gpt-4-0613", "gpt-4"),
            ("gpt-35-turbo", "gpt-35-turbo"),
            ("gpt-3.5-turbo", "gpt-35-turbo"),
            ("gpt-3.5-turbo-0125", "gpt-35-turbo"),
            ("gpt-4o-mini", None),
            ("gpt-4o-mini-2024-07-18", None),
            ("gpt-4o-audio-preview", None),
            ("gpt-4-32k", None),
            ("gpt-4.1", None),
            ("gpt-35-turbo-instruct", None),
            ("ft:gpt-4o:org::id", None),
            ("my-gpt-4o", None),
            ("qwen2.5-7b", None),
            ("", None),
        ],
    )
    def test_a_model_belongs_to_the_row_that_names_it_or_its_undated_form(self, model: str, family: str | None) -> None:
        """A variant with a price of its own is another model."""
        assert family == family_of(model)

    @pytest.mark.parametrize(
        ("terms", "setting", "expected"),
        [
            (Terms(), None, Limit(tokens=None, basis=Basis.NONE)),
            (Terms(), 7, Limit(tokens=7, basis=Basis.DEPLOYMENT)),
            (Terms(), 0, Limit(tokens=0, basis=Basis.DEPLOYMENT)),
            (Terms(offer=Offer.MSDN), 7, Limit(tokens=90 * K, basis=Basis.OFFER, offer=Offer.MSDN)),
            (Terms(offer=Offer.FREE), 7, Limit(tokens=0, basis=Basis.OFFER, offer=Offer.FREE)),
            (Terms(offer=Offer.MSDN, own={"chat": 5}), 7, Limit(tokens=5, basis=Basis.RESOURCE)),
            (Terms(offer=Offer.MSDN, own={"chat": None}), 7, Limit(tokens=None, basis=Basis.RESOURCE)),
            (Terms(own={"other": 5}), 7, Limit(tokens=7, basis=Basis.DEPLOYMENT)),
        ],
    )
    def test_the_own_number_comes_before_the_offer_and_that_before_the_setting(
        self, terms: Terms, setting: int | None, expected: Limit
    ) -> None:
        """And where nothing is said there is no limit."""
        assert expected == limit_of(terms, "chat", "gpt-4o", setting)

    def test_an_offer_says_nothing_of_a_model_that_is_not_in_the_table(self) -> None:
        """The deployment's setting applies."""
        limit = limit_of(Terms(offer=Offer.FREE), "chat", "qwen", 7)

        assert Limit(tokens=7, basis=Basis.DEPLOYMENT) == limit

    @pytest.mark.parametrize(
        ("reserved", "total", "done", "expected"),
        [(100, 4, 0, 100), (100, 4, 1, 75), (100, 3, 1, 67), (100, 3, 3, 0), (1, 100_000, 99_999, 1), (9, 0, 0, 0)],
    )
    def test_a_batch_holds_the_share_of_its_unfinished_requests(
        self, reserved: int, total: int, done: int, expected: int
    ) -> None:
        """Rounded up, so that what runs is never counted as less than it is."""
        assert expected == held(reserved, total, done)

    @pytest.mark.parametrize(
        ("tokens", "text"),
        [
            (0, "0"),
            (999, "999"),
            (30_000, "30K"),
            (1_350_000, "1.35M"),
            (5 * B, "5B"),
            (1_234_567, "1234567"),
            (12_345, "12345"),
            (100 * M, "100M"),
            (1_500, "1.5K"),
        ],
    )
    def test_round_numbers_are_written_as_azure_does(self, tokens: int, text: str) -> None:
        """Others in full: a limit must not be read as another."""
        assert text == amount(tokens)

    @pytest.mark.parametrize("flavour", Flavour)
    def test_a_refusal_names_its_code_in_the_text(self, flavour: Flavour) -> None:
        """Newer SDKs show nothing but the text."""
        message = refusal_message(_refusal(tokens=12_000, enqueued=25_000), flavour)

        assert "token_limit_exceeded" in message
        assert "12,000" in message
        assert "25,000 of 30,000" in message

    def test_each_vendor_has_its_words(self) -> None:
        """CONTRACT section 3.4."""
        azure, openai = (refusal_message(_refusal(tokens=1), flavour) for flavour in (AZURE, OPENAI))

        assert azure.startswith(
            "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'chat'. Please"
            " either increase the limit or try again once the current jobs have finished."
        )
        assert openai.startswith(
            "Enqueued token limit reached for chat in organization mine. Limit: 30,000 enqueued tokens. Please try"
            " again once some in_progress batches have been completed."
        )

    def test_a_refusal_says_what_to_do(self) -> None:
        """Waiting helps neither a file that is too large by itself nor whoever has another offer."""
        alone = refusal_message(_refusal(tokens=30_001), AZURE)
        uncounted = refusal_message(_refusal(tokens=None, enqueued=30_000), AZURE)
        free = Limit(tokens=0, basis=Basis.OFFER, offer=Offer.FREE)
        not_offered = refusal_message(_refusal(tokens=5, limit=free), AZURE)
        nothing = refusal_message(_refusal(tokens=5, limit=Limit(tokens=0, basis=Basis.RESOURCE)), OPENAI)

        assert "this file alone has 30,001 prompt tokens, split it" in alone
        assert "(token_limit_exceeded: 30,000 of 30,000 are enqueued)" in uncounted
        assert "the model gpt-4o is not part of the offer 'free'" in not_offered
        assert "Limit: 0 enqueued tokens" in nothing
        assert not alone_too_large(Limit(tokens=None, basis=Basis.NONE), 10**12)
        # An empty prompt is answered, too.
        assert alone_too_large(Limit(tokens=0, basis=Basis.OFFER, offer=Offer.FREE), 0)


def _refusal(tokens: int | None, enqueued: int = 0, limit: Limit | None = None) -> Refusal:
    return Refusal(
        deployment="chat",
        model="gpt-4o",
        resource=MINE,
        limit=limit or Limit(tokens=30_000, basis=Basis.DEPLOYMENT),
        enqueued=enqueued,
        tokens=tokens,
    )


def chat(name: str = "chat", *, tokens: int | None = None, over: OverQuota = OverQuota.FAIL) -> Deployment:
    """A deployment of gpt-4o."""
    return Deployment(name=name, model="gpt-4o", upstreams=(), enqueued_tokens=tokens, over_quota=over)


def line(text: str = "hello", model: str = "chat") -> bytes:
    """A request: each with a text of one token has 8."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return (
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode() + b"\n"
    )


class Broken:
    """A place for work where none is done."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        raise self.error


class Desk:
    """The services on stores in memory."""

    def __init__(self, folder: Path, *deployments: Deployment) -> None:
        self.clock, self.tables, self.entropy = ManualClock(), Tables(), CountedEntropy()
        self.quotas, self.keys = MemoryQuotas(self.tables), MemoryKeys(self.tables)
        self.batches, self.files = MemoryBatches(self.tables), MemoryFiles(self.tables)
        self.blobs = MemoryBlobs(folder, self.clock.now)
        self.deployments = ScriptedDeployments(deployments)
        self.service = QuotaService(self.quotas, self.batches, self.deployments)
        self.admin = QuotaAdmin(self.quotas, self.keys, self.clock)
        self.use(InPlace(), InPlace())

    def use(self, counting: Any, peeking: Any) -> None:
        """Let the gate do its work there."""
        counters = ChosenCounters({"chat": OpenAiBpe("o200k_base")})
        self.inputs = Inputs(self.blobs, counting, peeking, counters, self.entropy)
        self.gate = Gate(self.service, self.files, self.inputs, self.deployments, self.clock)

    def batch_created(self) -> None:
        """Nobody works here (``ports/signals.py``)."""

    def batch_changed(self, batch_id: BatchId) -> None:
        """Nobody works here (``ports/signals.py``)."""

    async def resource(self, offer: Offer | None = None) -> None:
        """Make ours."""
        await self.keys.add_resource(Resource(name=MINE, created_at=1, offer=offer))

    async def file(self, content: bytes, *, purpose: Purpose = Purpose.BATCH, size: int | None = None) -> File:
        """Store an input."""
        name = f"file-{len(self.blobs.held)}"
        self.blobs.put(name, content)
        file = File(
            id=FileId(name),
            resource=MINE,
            purpose=purpose,
            filename="in.jsonl",
            bytes=len(content) if size is None else size,
            created_at=int(START),
            blob=name,
        )
        await self.files.add(file)
        return file

    def batch(self, file_id: str, name: str = "batch_1") -> Batch:
        """A new batch of a file."""
        return Batch(
            id=BatchId(name),
            resource=MINE,
            flavour=AZURE,
            endpoint="/chat/completions",
            input_file_id=FileId(file_id),
            completion_window="24h",
            created_at=int(START),
            expires_at=int(START) + 86_400,
            expiry=Expiry.EXPIRE,
        )

    async def enqueue(self, tokens: int, name: str = "batch_0") -> None:
        """Let a batch run that holds so many tokens."""
        batch = self.batch("file-x", name)
        await self.batches.add(batch)
        running = batch.to(BatchStatus.IN_PROGRESS, START, total=1, deployment="chat", reserved_tokens=tokens)
        await self.batches.save(running, expected=batch)


class TestQuotaService:
    """Looking things up."""

    async def test_the_state_of_a_quota_is_what_is_held_of_its_limit(self, tmp_path: Path) -> None:
        """A limit that was lowered leaves nothing available, never less."""
        desk = Desk(tmp_path, chat(tokens=100), chat("free"))
        await desk.enqueue(120)
        limited, unlimited = await desk.service.states(MINE)
        limit = await desk.service.limit(MINE, chat(tokens=100))

        assert (limited.enqueued, limited.limit.tokens, limited.available) == (120, 100, 0)
        assert (unlimited.enqueued, unlimited.limit.tokens, unlimited.available) == (0, None, None)
        assert limited == await desk.service.state(MINE, "chat")
        assert limit == limited.limit

    async def test_an_unknown_deployment_has_no_quota(self, tmp_path: Path) -> None:
        """It is not there."""
        with pytest.raises(NotFound):
            await Desk(tmp_path, chat()).service.state(MINE, "chatt")

    async def test_a_limit_is_looked_for_only_where_there_may_be_one(self, tmp_path: Path) -> None:
        """A setting, an offer or an own number."""
        free, by_setting = Desk(tmp_path, chat()), Desk(tmp_path, chat(tokens=0))
        by_offer, by_number = Desk(tmp_path, chat()), Desk(tmp_path, chat())
        await by_offer.resource(Offer.MSDN)
        await by_number.resource()
        await by_number.admin.put(MINE, "chat", 5)

        assert not await free.service.limited(MINE)
        assert await by_setting.service.limited(MINE)
        assert await by_offer.service.limited(MINE)
        assert await by_number.service.limited(MINE)


class TestQuotaAdmin:
    """Handing out quotas."""

    async def test_numbers_are_set_listed_and_forgotten(self, tmp_path: Path) -> None:
        """Of resources that there are."""
        desk = Desk(tmp_path)
        await desk.resource()
        mine = await desk.admin.put(MINE, "chat", 5)
        default = await desk.admin.put(DEFAULT_RESOURCE, "chat", None)
        listed = await desk.admin.own(), await desk.admin.own(MINE)
        await desk.admin.remove(MINE, "chat")

        assert Own(resource=MINE, deployment="chat", tokens=5) == mine
        assert ([mine, default], [mine]) == listed
        assert [default] == await desk.admin.own()
        with pytest.raises(NotFound, match="no number of its own"):
            await desk.admin.remove(MINE, "chat")
        with pytest.raises(NotFound, match="No resource found with name 'mime'"):
            await desk.admin.put("mime", "chat", 5)
        with pytest.raises(InvalidRequest):
            await desk.admin.put(MINE, "chat", -1)

    async def test_numbers_are_listed_page_by_page(self, tmp_path: Path) -> None:
        """And the resource of admin keys has none."""
        desk = Desk(tmp_path)
        await desk.resource()
        numbers = [await desk.admin.put(MINE, name, 5) for name in ("chat", "other")]

        first = await desk.admin.own_page(None, after=None, limit=1)
        rest = await desk.admin.own_page(MINE, after=f"{MINE}/chat", limit=1)

        assert numbers == [*first.items, *rest.items]
        assert (first.has_more, rest.has_more) == (True, False)
        with pytest.raises(NotFound):
            await desk.admin.put("_admin", "chat", 5)

    async def test_a_resource_is_put_on_an_offer_and_off_it(self, tmp_path: Path) -> None:
        """The default resource is made by that."""
        desk = Desk(tmp_path)
        on = await desk.admin.put_offer(DEFAULT_RESOURCE, Offer.MSDN)
        off = await desk.admin.put_offer(DEFAULT_RESOURCE, None)

        assert (on.offer, off.offer) == (Offer.MSDN, None)
        with pytest.raises(NotFound):
            await desk.admin.put_offer("mime", None)


class TestInputs:
    """Counting."""

    async def test_all_tokens_of_an_input_are_counted(self, tmp_path: Path) -> None:
        """Exactly, in a file that is not large."""
        desk = Desk(tmp_path)

        assert await desk.inputs.tokens(await desk.file(line() * 3)) == 8 * 3

    def test_a_sampled_count_takes_its_error_on_top(self, tmp_path: Path) -> None:
        """A quota is a promise: what is reserved must not be less than what comes."""
        path = tmp_path / "in.jsonl"
        path.write_bytes(b"".join(line("word " * (1 + number % 50)) for number in range(2_000)))
        sampled = count_file(path, ChosenCounters({"chat": OpenAiBpe("o200k_base")}), exact_bytes=20_000, seed=1)
        (model,) = sampled.models

        assert model.error > 0
        assert model.prompt_tokens + model.error == sampled.at_most

    def test_the_seed_decides_which_texts_are_drawn(self, tmp_path: Path) -> None:
        """So whoever does not know it cannot write a file around the sample."""
        path = tmp_path / "in.jsonl"
        path.write_bytes(b"".join(line("word " * (1 + number % 50)) for number in range(2_000)))
        counters = ChosenCounters({"chat": OpenAiBpe("o200k_base")})
        counts = {count_file(path, counters, exact_bytes=20_000, seed=seed).at_most for seed in range(5)}

        assert len(counts) > 1

    async def test_each_count_has_a_seed_of_its_own(self, tmp_path: Path) -> None:
        """From what nobody can foresee."""
        seeds: list[int] = []

        class Seen(InPlace):
            async def run(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                seeds.append(args[3])
                return await super().run(work, *args, **kwargs)

        desk = Desk(tmp_path)
        desk.use(Seen(), InPlace())
        file = await desk.file(line())
        for _ in range(2):
            await desk.inputs.tokens(file)

        assert len(set(seeds)) == 2


FAST, QUEUE = OverQuota.FAIL_FAST, OverQuota.QUEUE


class TestGate:
    """What is said while a batch is created."""

    async def test_a_batch_that_does_not_fit_is_refused_at_once(self, tmp_path: Path) -> None:
        """Where the deployment wants that."""
        desk = Desk(tmp_path, chat(tokens=20, over=FAST))
        small, large = await desk.file(line()), await desk.file(line() * 3)
        await desk.enqueue(12)

        await desk.gate.check(desk.batch(small.id))
        with pytest.raises(TokenLimitExceeded) as raised:
            await desk.gate.check(desk.batch(large.id))

        assert raised.value.code == "token_limit_exceeded"
        assert "token_limit_exceeded" in raised.value.message

    async def test_a_large_file_is_refused_without_counting_if_nothing_is_left(self, tmp_path: Path) -> None:
        """Otherwise validation counts it: the call has to answer soon."""
        desk = Desk(tmp_path, chat(tokens=5, over=FAST))
        file = await desk.file(line(), size=COUNTED_AT_ONCE + 1)

        await desk.gate.check(desk.batch(file.id))
        await desk.enqueue(5)
        with pytest.raises(TokenLimitExceeded, match="5 of 5 are enqueued"):
            await desk.gate.check(desk.batch(file.id))

    @pytest.mark.parametrize("over", [OverQuota.FAIL, OverQuota.QUEUE])
    async def test_other_deployments_say_nothing_yet(self, tmp_path: Path, over: OverQuota) -> None:
        """Validation does."""
        desk = Desk(tmp_path, chat(tokens=1, over=over))
        beside = Desk(tmp_path, chat(tokens=1, over=over), chat("other", over=FAST))
        for each in (desk, beside):
            await each.gate.check(each.batch((await each.file(line())).id))

    async def test_without_a_limit_nothing_is_refused(self, tmp_path: Path) -> None:
        """For this resource or this deployment."""
        desk = Desk(tmp_path, chat(over=FAST))
        file = await desk.file(line())

        await desk.gate.check(desk.batch(file.id))
        await desk.resource()
        await desk.admin.put(MINE, "other", 1)
        await desk.gate.check(desk.batch(file.id))

        assert await desk.gate.state(desk.batch(file.id)) is None

    @pytest.mark.parametrize("error", [OSError("gone"), BrokenExecutor("died")])
    async def test_what_cannot_be_told_now_is_left_to_validation(self, tmp_path: Path, error: Exception) -> None:
        """Nor is it a reason to refuse."""
        desk = Desk(tmp_path, chat(tokens=1, over=FAST))
        batch = desk.batch((await desk.file(line())).id)
        for places in ((Broken(error), InPlace()), (InPlace(), Broken(error))):
            desk.use(*places)
            await desk.gate.check(batch)

        assert await desk.gate.state(batch) is None

    @pytest.mark.parametrize(("over", "enqueued", "refused"), [(FAST, 8, True), (FAST, 7, False), (QUEUE, 8, False)])
    async def test_before_a_part_of_an_input_is_copied_only_no_room_at_all_refuses_it(
        self, tmp_path: Path, over: OverQuota, enqueued: int, *, refused: bool
    ) -> None:
        """The part may be small."""
        desk = Desk(tmp_path, chat(tokens=8, over=over))
        batch = desk.batch((await desk.file(line())).id)
        await desk.enqueue(enqueued)

        with pytest.raises(TokenLimitExceeded) if refused else nullcontext():
            await desk.gate.require_any(batch)

    async def test_the_quota_of_a_new_batch_is_that_of_the_model_of_its_first_request(self, tmp_path: Path) -> None:
        """Where that can be told."""
        desk = Desk(tmp_path, chat(tokens=100))
        found = await desk.gate.state(desk.batch((await desk.file(line())).id))
        silent = [
            await desk.file(line(model="unknown")),
            await desk.file(b"no JSON\n"),
            await desk.file(line(), purpose=Purpose.ASSISTANTS),
        ]
        names = [file.id for file in silent] + [FileId("file-that-is-not-there")]

        assert found == await desk.service.state(MINE, "chat")
        assert [await desk.gate.state(desk.batch(name)) for name in names] == [None] * 4
        for name in names:
            await desk.gate.check(desk.batch(name))

    async def test_a_repeated_create_is_told_of_its_batch_though_that_took_the_room(self, tmp_path: Path) -> None:
        """An SDK that saw no answer must not be told that there is no room for what it has enqueued."""
        desk = Desk(tmp_path, chat(tokens=8, over=FAST))
        service = BatchService(desk.batches, desk.clock, desk.entropy, DEFAULTS, desk, desk.gate)
        file = await desk.file(line())
        new = NewBatch(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", idempotency_key="key"
        )
        created = await service.create(MINE, AZURE, new)
        await desk.enqueue(8)

        assert created == await service.create(MINE, AZURE, new)
        with pytest.raises(TokenLimitExceeded):
            await service.create(
                MINE, AZURE, NewBatch(input_file_id=file.id, endpoint=new.endpoint, completion_window="24h")
            )

    async def test_deployments_that_are_not_known_yet_are_no_reason_to_refuse(self, tmp_path: Path) -> None:
        """An upstream may tell of them later."""
        desk = Desk(tmp_path, chat(tokens=1, over=FAST))
        file = await desk.file(line(model="later"))
        desk.deployments.now = Known(deployments=desk.deployments.now.deployments, complete=False)

        await desk.gate.check(desk.batch(file.id))
