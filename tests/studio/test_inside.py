"""The list of requests and one of them, rendered from what the services say."""

from __future__ import annotations

import re
from typing import cast

import pytest

from overnight.domain.batch import Batch
from overnight.domain.places import State
from overnight.domain.trail import ATTEMPTS_KEPT, NO_TRAIL, Attempted
from overnight.services.requests import RequestDetail
from overnight.services.sheets import RequestPage, RequestRow
from overnight.studio.inside import Wanted, list_of
from overnight.studio.one_request import view_of
from overnight.studio.templating import Templates

HOME = "/studio/batches/batch_1"
ODD = 'rack  2" onfocus="x'


def rendered(wanted: Wanted, *upstreams: str) -> str:
    page = RequestPage(rows=(), total=3, next_offset=None, searched=3, upstreams=upstreams)
    return Templates("").render("parts/requests.html", requests=list_of(page, wanted, HOME))


def test_upstream_is_chosen_by_its_exact_name():
    """The text of an option loses spaces on its way, its value does not."""
    page = rendered(Wanted(), ODD, "b")

    assert '<option value="rack  2&#34; onfocus=&#34;x">' in page


@pytest.mark.parametrize("known", [(), ("a",), ("a", "b")])
def test_upstream_that_is_asked_for_is_always_among_the_choices(known: tuple[str, ...]):
    page = rendered(Wanted(upstream="gone"), *known)

    assert '<option value="gone" selected>gone</option>' in page
    assert page.count("<option") == len(known) + 2


def test_one_upstream_is_no_choice():
    assert "<select" not in rendered(Wanted(), "a")


@pytest.mark.parametrize(("count", "expected"), [(2, ["first", "+ 5.0 s"]), (ATTEMPTS_KEPT + 1, ["then", "+ 5.0 s"])])
def test_first_attempt_that_is_listed_is_called_first_only_if_it_was(count: int, expected: list[str]):
    """Times count from it; how long after the very first it was is not known any more."""
    trail = NO_TRAIL
    for number in range(count):
        trail = trail.then(Attempted(upstream="a", at=1_790_000_000.0 + 5 * number, seconds=0.1, status=503))
    detail = RequestDetail(row=RequestRow(line=0, custom_id="r", state=State.FAILED), asked=None, got=None, trail=trail)

    one = view_of(detail, cast("Batch", SomeBatch), HOME, None)
    page = Templates("").render("parts/request.html", one=one)

    assert re.findall(r'<li><span class="num sub">([^<]*)</span>', page)[:2] == expected
    assert ("1 attempt before" in page) == (count > ATTEMPTS_KEPT)


class SomeBatch:
    """As much of a batch as a request needs."""

    ended = True
    total = 3
