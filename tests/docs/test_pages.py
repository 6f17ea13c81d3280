"""The documentation is complete, its links lead somewhere, and it says what the program says."""

import configparser
import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
from tests.docs.codes import emitted_codes
from tests.docs.pages import DOCS, PAGES, ROOT, anchor_of, blocks_of, headings_of, links_of

from overnight.cli.error_guide import SECTIONS
from overnight.cli.serve import serve
from overnight.domain.batch import TERMINAL, TRANSITIONS

GUIDE = DOCS / "guides" / "troubleshooting.md"
MADE = sorted((DOCS / "reference").glob("*.md"))
PATH = re.compile(r"`((?:src|tests|bench|docs|examples|requirements)/[\w./-]*)`")
EDGE = re.compile(r"^ +(\S+) --> (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_somewhere(page: Path) -> None:
    """Pages move, headings are reworded."""
    broken = [link for link in links_of(page) if "://" not in link and not _leads_somewhere(page, link)]

    assert broken == []


def test_each_page_can_be_reached_from_the_index() -> None:
    """A page that nobody finds was written in vain."""
    index = DOCS / "index.md"
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(index)}

    assert {page for page in DOCS.rglob("*.md") if page != index} - listed == set()


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """The reference pages as they would be written now."""
    module = runpy.run_path(str(DOCS / "generate.py"))
    return {name: make() for name, make in module["PAGES"].items()}


def test_the_reference_says_what_the_program_says(generated: dict[str, str]) -> None:
    """`.venv/bin/python docs/generate.py` brings it up to date."""
    stale = [name for name, text in generated.items() if (DOCS / "reference" / name).read_text() != text]

    assert stale == []
    assert sorted(generated) == [page.name for page in MADE]


def test_each_error_code_has_its_section() -> None:
    """Whoever meets a code looks for it by name."""
    explained = {code for heading in headings_of(GUIDE) for code in re.findall(r"`([^`]+)`", heading)}

    assert emitted_codes() == explained


def test_codes_are_found_in_the_source() -> None:
    """The search for codes must be able to find some of each kind."""
    some = {"duplicate_custom_id", "url_mismatch", "batch_expired", "invalid_type", "notFound", "upstream_too_large"}

    assert some <= emitted_codes()


def test_the_command_line_explains_no_code_that_the_guide_does_not() -> None:
    """`overnight help errors` is the short form of the guide; some of its entries are for other servers."""
    of_other_servers = {"input_modified", "http_4xx", "http_5xx"}
    short = {code for section in SECTIONS.values() for code in section}

    assert short - of_other_servers <= emitted_codes()


def test_the_state_diagram_is_the_state_machine() -> None:
    """The diagram is what people remember."""
    (diagram,) = (block for block in blocks_of(DOCS / "concepts" / "batch-life.md") if block.language == "mermaid")
    steps = {(str(old), str(new)) for old, news in TRANSITIONS.items() for new in news}
    ends = {("[*]", "validating")} | {(str(status), "[*]") for status in TERMINAL}

    assert set(EDGE.findall(diagram.text)) == steps | ends


def test_structure_names_only_what_there_is() -> None:
    """A newcomer follows it to the letter."""
    named = set(PATH.findall((DOCS / "structure.md").read_text()))

    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_structure_names_every_package() -> None:
    """A folder without a line is one that newcomers do not open."""
    text = (DOCS / "structure.md").read_text()
    package = ROOT / "src" / "overnight"
    folders = {each.parent for pattern in ("*.py", "*.jsonl") for each in package.rglob(pattern)}
    missing = {f"{each.relative_to(ROOT)}/" for each in folders if f"| `{each.relative_to(ROOT)}/` |" not in text}

    assert missing == set()


def test_the_unit_of_the_production_guide_starts_the_service() -> None:
    """Its options are those of `overnight serve`."""
    (unit,) = (block for block in blocks_of(DOCS / "guides" / "production.md") if block.language == "ini")
    parser = configparser.ConfigParser()
    parser.read_string(unit.text)
    program, command, *arguments = shlex.split(parser["Service"]["ExecStart"])

    context = serve.make_context("serve", arguments, resilient_parsing=False)

    assert (Path(program).name, command) == ("overnight", "serve")
    assert isinstance(context, click.Context)


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("*.md")), ids=lambda page: page.name)
def test_a_decision_has_its_four_parts(page: Path) -> None:
    """And fits on a page."""
    title, *parts = headings_of(page)

    assert title.startswith(f"{page.name[:4]} · ")
    assert parts == ["Context", "Decision", "Consequences", "Non-goals"]
    assert len(page.read_text().splitlines()) <= 60


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, fragment = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not fragment or fragment in {anchor_of(heading) for heading in headings_of(target)}
