"""Every limit with its default by flavour (CONTRACT section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.flavour import Flavour

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1024 * 1024
GIB = 1024 * MIB
DAY = 86_400

COMPLETION_WINDOW = "24h"
WINDOW_SECONDS = DAY

METADATA_PAIRS = 16
METADATA_KEY_CHARS = 64
METADATA_VALUE_CHARS = 512

FILENAME_CHARS = 512
MIME_TYPE_CHARS = 255

IDEMPOTENCY_KEY_CHARS = 255
KEY_SECONDS = DAY
"""How long an idempotency key is remembered."""
RETRY_SECONDS = 60
"""How long after a batch was created a request that a client sends again, without a key, is taken for the same one."""

LONGEST_LIFE = 36_500 * DAY
"""The longest time, of about a hundred years, after which anything can be told to expire: its end is a date."""

CREATION_SECONDS = 3_600
"""The time over which created batches are counted."""
ADMIN_PAGE, LARGEST_ADMIN_PAGE = 100, 1_000
"""Entries on a page of the admin API, unless another number is asked for, and at most."""

USAGE_DAYS = 366
"""The most days that one report of usage covers."""
USAGE_ROWS = 10_000
"""The most entries, one for each day and deployment, that one report of usage holds."""

PROBLEMS_KEPT = 100
"""How many problems of an input file are kept; the true total stands in a message."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one flavour accepts. Sizes are bytes, durations seconds; ``None`` means no limit.

    ``input_life`` and ``output_life`` hold for the files of a batch whose caller did not say when they expire.
    """

    requests_per_file: int
    input_file_bytes: int = 200 * MIB
    file_bytes: int = 512 * MIB
    line_bytes: int = 64 * MIB
    upload_bytes: int
    upload_part_bytes: int = 64 * MIB
    upload_life: int
    uploads_per_minute: int | None = None
    pending_uploads: int | None = 1_000
    pending_bytes: int | None = 64 * GIB
    parts_per_upload: int = 10_000
    batches_per_hour: int | None = None
    embedding_inputs: int | None = None
    files_without_expiry: int | None = None
    files_with_expiry: int | None = None
    batches_page: int = 100
    files_page: int = 10_000
    shortest_expiry: int
    longest_expiry: int = 30 * DAY
    input_life: int | None = None
    output_life: int | None = None


DEFAULTS: Mapping[Flavour, Limits] = {
    Flavour.OPENAI: Limits(
        requests_per_file=50_000,
        upload_bytes=8 * GIB,
        upload_life=3_600,
        uploads_per_minute=1_000,
        batches_per_hour=2_000,
        embedding_inputs=50_000,
        shortest_expiry=3_600,
        input_life=30 * DAY,
        output_life=30 * DAY,
    ),
    Flavour.AZURE: Limits(
        requests_per_file=100_000,
        upload_bytes=9 * GIB,
        upload_part_bytes=200 * MIB,
        upload_life=7_200,
        files_without_expiry=500,
        files_with_expiry=10_000,
        shortest_expiry=14 * DAY,
    ),
}
