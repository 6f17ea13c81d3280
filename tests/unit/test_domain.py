"""The small rules of the domain, as tables."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain import errors, ids
from overnight.domain.batch import (
    ACTIVE,
    DEFAULT_EXPIRY,
    TERMINAL,
    TRANSITIONS,
    Batch,
    BatchStatus,
    Expiry,
    InvalidTransition,
    StopCause,
    terminal_status,
)
from overnight.domain.deployment import Deployment, UpstreamName
from overnight.domain.endpoints import ENDPOINTS, REQUIRED_FIELD, canonical, is_supported, same_endpoint
from overnight.domain.file import (
    UPLOAD_PURPOSES,
    UPLOADABLE,
    File,
    Purpose,
    check_batch_filename,
    parse_purpose,
)
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, UploadId
from overnight.domain.index import ENTRY_BYTES, Index, pack
from overnight.domain.limits import DEFAULTS, GIB, MIB
from overnight.domain.listing import Condition, parse_filter, parse_order
from overnight.domain.upload import Upload, UploadStatus
from overnight.domain.usage import NO_USAGE, ReportedUsage, Usage
from overnight.ports.upstream import Known

S = BatchStatus
NOW = 1_700_000_000.9

# CONTRACT 5.1, with a cancel accepted while the files are written, and a window that closes in validating.
STEPS = {
    (S.VALIDATING, S.IN_PROGRESS): "in_progress_at",
    (S.VALIDATING, S.FAILED): "failed_at",
    (S.VALIDATING, S.CANCELLING): "cancelling_at",
    (S.VALIDATING, S.EXPIRED): "expired_at",
    (S.IN_PROGRESS, S.FINALIZING): "finalizing_at",
    (S.IN_PROGRESS, S.CANCELLING): "cancelling_at",
    (S.FINALIZING, S.COMPLETED): "completed_at",
    (S.FINALIZING, S.EXPIRED): "expired_at",
    (S.FINALIZING, S.CANCELLING): "cancelling_at",
    (S.CANCELLING, S.CANCELLED): "cancelled_at",
}


def a_batch(status: S = S.VALIDATING, **changes: Any) -> Batch:
    given: dict[str, Any] = {
        "id": BatchId("batch_1"),
        "resource": ResourceId("r"),
        "flavour": Flavour.OPENAI,
        "endpoint": "/v1/chat/completions",
        "input_file_id": FileId("file-1"),
        "completion_window": "24h",
        "created_at": 5,
        "expires_at": 100,
        "expiry": Expiry.EXPIRE,
    }
    return Batch(status=status, **given | changes)


class TestBatch:
    """The state machine of CONTRACT 5.1."""

    @pytest.mark.parametrize("new", S)
    @pytest.mark.parametrize("old", S)
    def test_only_the_steps_of_the_contract_exist(self, old: S, new: S) -> None:
        """And each sets its own timestamp and no other."""
        batch = a_batch(old)
        stamp = STEPS.get((old, new))
        if stamp is None:
            with pytest.raises(InvalidTransition, match=f"from {old} to {new}") as raised:
                batch.to(new, NOW)
            assert (raised.value.old, raised.value.new) == (old, new)
            return

        moved = batch.to(new, NOW, total=3)

        changed = {name for name in batch.__struct_fields__ if getattr(batch, name) != getattr(moved, name)}
        assert changed == {"status", stamp, "total"}
        assert (moved.status, getattr(moved, stamp), moved.total) == (new, 1_700_000_000, 3)

    def test_every_status_is_active_or_terminal(self) -> None:
        """None is both."""
        assert {S.FAILED, S.COMPLETED, S.EXPIRED, S.CANCELLED} == TERMINAL
        assert ACTIVE == frozenset(TRANSITIONS) == frozenset(S) - TERMINAL
        assert [status for status in S if a_batch(status).ended] == [status for status in S if status in TERMINAL]

    def test_a_batch_is_accepted_once_it_ran(self) -> None:
        """Also if it was cancelled since."""
        assert not a_batch().accepted
        assert a_batch().to(S.IN_PROGRESS, NOW).to(S.CANCELLING, NOW).accepted

    @pytest.mark.parametrize(
        ("expiry", "now", "overdue"),
        [
            (Expiry.EXPIRE, 99.9, False),
            (Expiry.EXPIRE, 100, True),
            (Expiry.EXPIRE, 1e9, True),
            (Expiry.CONTINUE, 1e9, False),
        ],
    )
    def test_the_window_closes_to_the_second(self, expiry: Expiry, now: float, overdue: bool) -> None:
        """Where it closes at all."""
        batch = a_batch(expiry=expiry)

        assert batch.overdue(now) is overdue
        assert batch.deadline() == (100 if expiry is Expiry.EXPIRE else None)

    def test_the_flavours_differ_in_what_the_end_of_the_window_does(self) -> None:
        """CONTRACT 5.3."""
        assert DEFAULT_EXPIRY == {Flavour.OPENAI: Expiry.EXPIRE, Flavour.AZURE: Expiry.CONTINUE}

    def test_each_cause_of_a_stop_has_its_end(self) -> None:
        """After the others somebody goes on with the batch."""
        ends = {StopCause.DONE: S.COMPLETED, StopCause.CANCEL: S.CANCELLED, StopCause.EXPIRY: S.EXPIRED}
        ends |= {StopCause.CAP: S.CANCELLED}

        assert {cause: terminal_status(cause) for cause in ends} == ends
        for cause in set(StopCause) - ends.keys():
            with pytest.raises(KeyError):
                terminal_status(cause)


class TestEndpoints:
    """CONTRACT 2.3."""

    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    def test_azure_takes_endpoints_with_and_without_version(self, endpoint: str) -> None:
        """OpenAI compares exactly."""
        bare = endpoint.removeprefix("/v1")

        assert is_supported(endpoint, Flavour.OPENAI)
        assert is_supported(endpoint, Flavour.AZURE)
        assert is_supported(bare, Flavour.AZURE)
        assert not is_supported(bare, Flavour.OPENAI)
        assert canonical(bare) == canonical(endpoint) == endpoint
        assert same_endpoint(bare, endpoint, Flavour.AZURE)
        assert not same_endpoint(bare, endpoint, Flavour.OPENAI)

    @pytest.mark.parametrize(
        "endpoint", ["", "/", "/v1", "/v1/", "/v1/files", "v1/embeddings", "/V1/embeddings", "/v2/x"]
    )
    def test_nothing_else_is_an_endpoint(self, endpoint: str) -> None:
        """For nobody."""
        assert not is_supported(endpoint, Flavour.OPENAI)
        assert not is_supported(endpoint, Flavour.AZURE)

    def test_required_fields_are_those_of_endpoints(self) -> None:
        """No typing mistake in the table."""
        assert set(REQUIRED_FIELD) <= set(ENDPOINTS)


class TestFile:
    """CONTRACT 2.1 and 2.2."""

    @pytest.mark.parametrize(
        ("now", "changes", "visible"),
        [
            (10, {}, True),
            (10, {"expires_at": 11}, True),
            (11, {"expires_at": 11}, False),
            (10, {"deleted_at": 9}, False),
            (10, {"deleted_at": 9, "expires_at": 99}, False),
        ],
    )
    def test_a_file_is_seen_until_it_is_deleted_or_expires(self, now: float, changes: Any, visible: bool) -> None:
        """To the second."""
        file = File(
            id=FileId("f"),
            resource=ResourceId("r"),
            purpose=Purpose.BATCH,
            filename="x",
            bytes=1,
            created_at=1,
            blob="b",
            **changes,
        )

        assert file.visible(now) is visible

    def test_only_what_callers_may_name_is_a_purpose(self) -> None:
        """The message lists what may be named."""
        assert parse_purpose("batch", UPLOADABLE) is Purpose.BATCH
        assert UPLOAD_PURPOSES < UPLOADABLE
        for wrong in ("batch_output", "", "BATCH", "x"):
            with pytest.raises(errors.InvalidRequest, match="'assistants', 'batch'") as raised:
                parse_purpose(wrong, UPLOADABLE)
            assert (raised.value.param, raised.value.code) == ("purpose", "invalid_value")

    @pytest.mark.parametrize(
        ("name", "strict", "good"),
        [
            ("a.jsonl", True, True),
            ("A.JSONL", True, True),
            (".jsonl", True, True),
            ("upload", False, True),
            ("upload", True, False),
            ("a.json", False, False),
            ("a.jsonl.gz", False, False),
            ("jsonl.", False, False),
        ],
    )
    def test_a_batch_file_has_its_suffix(self, name: str, strict: bool, good: bool) -> None:
        """Raw bytes of the SDK have a name without any."""
        for flavour, error in ((Flavour.OPENAI, errors.InvalidFileFormat), (Flavour.AZURE, errors.InvalidFileName)):
            if good:
                check_batch_filename(name, flavour, strict=strict)
                continue
            with pytest.raises(error) as raised:
                check_batch_filename(name, flavour, strict=strict)
            assert raised.value.param == ("file" if flavour is Flavour.AZURE else None)


class TestUpload:
    """CONTRACT 1.6."""

    def test_a_pending_upload_expires_by_itself(self) -> None:
        """One that has ended does not."""
        upload = Upload(
            id=UploadId("u"), resource=ResourceId("r"), filename="f", purpose=Purpose.BATCH, mime_type="m", bytes=1,
            created_at=1, expires_at=10,
        )  # fmt: skip
        done = msgspec.structs.replace(upload, status=UploadStatus.COMPLETED)

        assert upload.seen_at(9.9) is upload
        assert upload.seen_at(10).status is UploadStatus.EXPIRED
        assert done.seen_at(99) is done
        upload.require_pending()
        for ended in (done, upload.seen_at(10)):
            with pytest.raises(errors.Conflict, match=f"is {ended.status}") as raised:
                ended.require_pending()
            assert raised.value.param == "upload_id"


class TestUsage:
    """Two vocabularies, one count."""

    @pytest.mark.parametrize(
        ("reported", "expected"),
        [
            ({}, NO_USAGE),
            (
                {
                    "prompt_tokens": 5,
                    "completion_tokens": 7,
                    "prompt_tokens_details": {"cached_tokens": 2},
                    "completion_tokens_details": {"reasoning_tokens": 3},
                },
                Usage(input_tokens=5, cached_tokens=2, output_tokens=7, reasoning_tokens=3),
            ),
            (
                {
                    "input_tokens": 5,
                    "output_tokens": 7,
                    "input_tokens_details": {"cached_tokens": 2},
                    "output_tokens_details": {"reasoning_tokens": 3},
                },
                Usage(input_tokens=5, cached_tokens=2, output_tokens=7, reasoning_tokens=3),
            ),
            ({"prompt_tokens": 4}, Usage(input_tokens=4)),
            ({"prompt_tokens": -4, "output_tokens": 2**40}, Usage(output_tokens=2**32 - 1)),
            ({"prompt_tokens": None, "input_tokens": 0, "prompt_tokens_details": {}}, NO_USAGE),
        ],
    )
    def test_both_vocabularies_are_read(self, reported: dict[str, Any], expected: Usage) -> None:
        """Of chat completions and of responses."""
        assert msgspec.convert(reported, ReportedUsage).to_usage() == expected

    def test_counts_add_up(self) -> None:
        """Cached and reasoning tokens are parts of the others."""
        one = Usage(input_tokens=1, cached_tokens=2, output_tokens=3, reasoning_tokens=4)

        assert one + one == Usage(input_tokens=2, cached_tokens=4, output_tokens=6, reasoning_tokens=8)
        assert one.total_tokens == 4
        assert one + NO_USAGE == one


class TestIds:
    """Shapes that clients rely on."""

    HEX = "0123456789abcdef0123456789abcdef"

    def test_ids_look_as_each_vendor_writes_them(self) -> None:
        """Azure prints UUIDs with dashes."""
        assert ids.batch_id(Flavour.OPENAI, self.HEX) == f"batch_{self.HEX}"
        assert ids.batch_id(Flavour.AZURE, self.HEX) == "batch_01234567-89ab-4def-8123-456789abcdef"
        assert ids.file_id(self.HEX) == f"file-{self.HEX}"
        assert ids.output_file_id(Flavour.OPENAI, self.HEX) == f"file-{self.HEX}"
        assert ids.output_file_id(Flavour.AZURE, self.HEX) == "file-01234567-89ab-4def-8123-456789abcdef"
        assert ids.upload_id(self.HEX) == f"upload_{self.HEX}"
        assert ids.part_id(self.HEX) == f"part_{self.HEX}"

    @pytest.mark.parametrize("flavour", Flavour)
    def test_a_request_has_the_same_id_at_every_attempt(self, flavour: Flavour) -> None:
        """And another than every other request of the batch."""
        batch = ids.batch_id(flavour, self.HEX)
        made = [ids.request_id(batch, line) for line in (0, 1, 255, 99_999)]

        assert len(set(made)) == 4
        assert made == [ids.request_id(batch, line) for line in (0, 1, 255, 99_999)]
        assert {len(name) for name in made} == {len("batch_req_") + 32}
        assert all(name.startswith(ids.request_id_prefix(batch)) for name in made)


class TestListing:
    """Azure's ``$filter`` and ``$orderby``."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (None, ()),
            ("", ()),
            ("created_at gt 1728860560", (Condition("created_at", "gt", 1_728_860_560),)),
            ("status eq 'Completed'", (Condition("status", "eq", "completed"),)),
            ("status ne 'InProgress'", (Condition("status", "ne", "in_progress"),)),
            ("STATUS EQ 'in_progress'", (Condition("status", "eq", "in_progress"),)),
            (
                " created_at ge 1  AND created_at lt 9 and status eq 'failed' ",
                (
                    Condition("created_at", "ge", 1),
                    Condition("created_at", "lt", 9),
                    Condition("status", "eq", "failed"),
                ),
            ),
        ],
    )
    def test_conditions_are_read(self, text: str | None, expected: tuple[Condition, ...]) -> None:
        """All of them have to hold."""
        assert parse_filter(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "created_at",
            "created_at gt",
            "created_at gt 'x'",
            "created_at like 7",
            "id eq 'x'",
            "status eq completed",
            "status eq 'nothing'",
            "status gt 'failed'",
            "status eq 7",
            "created_at gt 1 or created_at lt 2",
            "created_at gt 1 and",
            "created_at gt 1; drop table batches",
        ],
    )
    def test_what_cannot_be_read_is_refused(self, text: str) -> None:
        """Never ignored: a list of everything would look like an answer."""
        with pytest.raises(errors.InvalidRequest, match="Invalid value for") as raised:
            parse_filter(text)

        assert (raised.value.param, raised.value.code) == ("$filter", "invalid_value")

    @pytest.mark.parametrize("digits", [20, 5_000])
    def test_a_moment_of_many_digits_is_refused(self, digits: int) -> None:
        """It must break neither the reader nor the database behind it, which keeps 64 bits."""
        with pytest.raises(errors.InvalidRequest):
            parse_filter("created_at gt " + "9" * digits)

    @pytest.mark.parametrize(
        ("text", "oldest_first"),
        [
            (None, False),
            ("", False),
            ("created_at", True),
            ("created_at asc", True),
            ("created_at desc", False),
            (" CREATED_AT  DESC ", False),
        ],
    )
    def test_an_order_is_read(self, text: str | None, oldest_first: bool) -> None:
        """Newest first unless asked otherwise."""
        assert parse_order(text) is oldest_first

    @pytest.mark.parametrize("text", ["status", "created_at up", "created_at asc, id", "desc"])
    def test_another_order_is_refused(self, text: str) -> None:
        """With what there is."""
        with pytest.raises(errors.InvalidRequest, match="created_at desc") as raised:
            parse_order(text)

        assert raised.value.param == "$orderby"


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=20))
def test_an_index_gives_back_what_was_written(places: list[tuple[int, int]]) -> None:
    """Twelve bytes a request."""
    data = b"".join(pack(offset, length) for offset, length in places)
    index = Index(data)

    assert len(index) == len(places)
    assert list(index) == places
    assert [index[line] for line in range(len(places))] == places
    assert len(data) == ENTRY_BYTES * len(places)


def test_the_limits_are_those_of_the_vendors() -> None:
    """CONTRACT 3.2."""
    openai, azure = DEFAULTS[Flavour.OPENAI], DEFAULTS[Flavour.AZURE]

    assert (openai.requests_per_file, azure.requests_per_file) == (50_000, 100_000)
    assert openai.input_file_bytes == azure.input_file_bytes == 200 * MIB
    assert (openai.upload_bytes, azure.upload_bytes) == (8 * GIB, 9 * GIB)
    assert (openai.input_life, openai.output_life, azure.input_life, azure.output_life) == (2_592_000,) * 2 + (
        None,
    ) * 2
    assert (openai.files_without_expiry, azure.files_without_expiry, azure.files_with_expiry) == (None, 500, 10_000)


def test_a_deployment_is_found_by_its_name() -> None:
    """Not by that of its model."""
    one = Deployment(name="fast", model="big/model", upstreams=(UpstreamName("u"),))
    known = Known(deployments=(one,), complete=True)

    assert known.find("fast") is one
    assert known.find("big/model") is None


def test_an_error_carries_its_fields() -> None:
    """And not only prose."""
    error = errors.InvalidRequest("what, where, and what to do", param="p", code="c")

    assert (str(error), error.message, error.param, error.code) == (error.message, error.message, "p", "c")
    assert isinstance(error, errors.ServiceError)
