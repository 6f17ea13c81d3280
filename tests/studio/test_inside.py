"""The list of requests and one of them, rendered from what the services say."""

from __future__ import annotations

import pytest

from overnight.services.sheets import RequestPage
from overnight.studio.inside import Wanted, list_of
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
