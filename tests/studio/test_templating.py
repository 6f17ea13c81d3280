"""Templates are compiled once the service has started, so that the first page does not wait for that."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import jinja2
from tests.studio.in_process import House


async def test_pages_that_come_after_the_start_compile_nothing(tmp_path: Path):
    house = House(tmp_path)
    with patch.object(
        jinja2.Environment, "compile", autospec=True, side_effect=jinja2.Environment.compile
    ) as compiling:
        await house.studio.prepare()
        at_the_start = compiling.call_count
        await house.sign_in()
        pages = [await house.get(f"/studio/{name}") for name in ("files", "batches", "upstreams", "nothing")]

    assert [page.status for page in pages] == [200, 200, 200, 404]
    assert at_the_start > 40
    assert compiling.call_count == at_the_start
