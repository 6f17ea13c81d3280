"""Help is read before anything else: it is short, complete, and quick."""

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Cli

import overnight
from overnight.cli.commands import Command, Group
from overnight.cli.error_guide import SECTIONS
from overnight.cli.exit_codes import MEANING, ExitCode, for_batch, worst
from overnight.cli.main import COMMANDS, PANELS, cli

BUDGET = 0.150


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command with its path."""
    waiting: list[tuple[str, click.Command, click.Context]] = [("overnight", cli, click.Context(cli))]
    while waiting:
        path, command, ctx = waiting.pop()
        yield path, command
        if isinstance(command, Group):
            for name in command.list_commands(ctx):
                found = command.get_command(ctx, name)
                assert found is not None
                waiting.append((f"{path} {name}", found, click.Context(found, info_name=name, parent=ctx)))


ALL = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    """The overview is written down apart so that it loads no command; it must not drift."""
    assert ALL[f"overnight {name}"].help == COMMANDS[name][1]


def test_each_command_stands_in_one_panel() -> None:
    """A command that no panel shows cannot be found."""
    assert sorted(COMMANDS) == sorted(name for names in PANELS.values() for name in names)


@pytest.mark.parametrize("path", ALL)
def test_each_command_explains_itself_with_examples(path: str) -> None:
    """People copy examples; each must be one of this very command."""
    command = ALL[path]

    assert isinstance(command, Command | Group)
    assert command.help
    assert not command.help.endswith(".")
    assert all(example.find(path) >= 0 for example in command.examples)
    assert command.examples


@pytest.mark.parametrize("path", ALL)
def test_each_option_is_explained(path: str) -> None:
    """An option without a word is a riddle."""
    silent = [each.opts[0] for each in ALL[path].params if isinstance(each, click.Option) and not each.help]

    assert silent == []


def test_the_examples_name_options_that_exist() -> None:
    """An example that fails is worse than none."""
    for command in ALL.values():
        assert isinstance(command, Command | Group)
        for example in command.examples:
            for part in re.findall(r"overnight [^|&)]*", example):
                path = max((each for each in ALL if part.startswith(each)), key=len)
                options = set(re.findall(r"(?<=\s)--[a-z-]+", part))

                assert options <= {name for each in ALL[path].params for name in each.opts}, example


def test_help_is_quick() -> None:
    """Start of Python included; in processor time, and the best of some, since a busy machine is no fault of ours."""
    times = []
    for _ in range(15):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "overnight.cli.main", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if times[-1] < BUDGET:
            break

    assert min(times) < BUDGET


def test_help_loads_nothing_heavy() -> None:
    """What keeps it quick on every machine."""
    code = """
import sys
from overnight.cli.main import cli
cli.main(["--help"], standalone_mode=False)
heavy = {"msgspec", "pyreqwest", "pydantic", "fastapi", "sqlalchemy", "openai", "rich", "asyncio"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stderr == "[]\n"


def test_a_group_alone_shows_its_help(bare: Cli) -> None:
    """Nobody means an error by it."""
    alone, asked = bare("batches"), bare("batches", "-h")

    assert (alone.stdout, alone.code) == (asked.stdout, 0)


def test_the_short_help_keeps_the_global_options_on_one_line(bare: Cli) -> None:
    """They are the same everywhere, so they must not bury what is special."""
    shown = bare("run", "-h").stdout

    assert "Global options: --url --api-key --json -q -v --no-color --no-progress --yes\n" in shown
    assert "More: `overnight help run`" in shown


def test_the_long_help_explains_the_global_options(bare: Cli) -> None:
    """Somewhere they must be."""
    shown = bare("help", "batches", "wait").stdout

    assert shown.startswith("Usage: overnight batches wait")
    assert "--json[=FIELDS]" in shown


def test_an_unknown_command_is_answered_with_the_nearest(bare: Cli) -> None:
    """A slip of the finger costs one more try, not a search."""
    found = bare("batches", "listt")

    assert found.stderr == (
        "error: there is no command `overnight batches listt`\n\nhint: did you mean `overnight batches list`?\n"
    )
    assert (found.stdout, found.code) == ("", 2)


def test_an_unknown_topic_is_answered_the_same(bare: Cli) -> None:
    """Topics are found as commands are."""
    found = bare("help", "exit-code")

    assert found.stderr == (
        "error: there is no topic `overnight help exit-code`\n\nhint: did you mean `overnight help exit-codes`?\n"
    )
    assert found.code == 2


def test_the_page_of_exit_codes_is_the_table(bare: Cli) -> None:
    """Scripts are written from this page."""
    page = bare("help", "exit-codes").stdout
    found = {
        int(code): " ".join(text.split())
        for code, text in re.findall(r"^  (\d+) +((?:.|\n {3,})+)$", page, re.MULTILINE)
    }

    assert found == {int(code): meaning for code, meaning in MEANING.items()}
    assert set(MEANING) == set(ExitCode)


def test_each_code_of_the_service_is_explained() -> None:
    """A hint sends people to this page, so what they look for must be there."""
    package = Path(overnight.__file__).parent
    sources = [path.read_text() for layer in ("domain", "services", "api") for path in (package / layer).rglob("*.py")]
    used = {code for source in sources for code in re.findall(r"\bcode=\"([A-Za-z_]+)\"", source)}
    explained = {code for section in SECTIONS.values() for code in section}

    assert used - explained == set()


def test_the_version_is_printed(bare: Cli) -> None:
    """The first thing a bug report needs."""
    assert re.fullmatch(r"overnight \d+\.\d+\.\d+\n", bare("--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(bare: Cli, shell: str) -> None:
    """The script calls us back by the variable that we listen to."""
    assert "_OVERNIGHT_COMPLETE" in bare("completion", shell).stdout


def test_completion_knows_the_commands(bare: Cli) -> None:
    """What the script of the shell asks for."""
    found = bare(COMP_WORDS="overnight batches wa", COMP_CWORD="2", _OVERNIGHT_COMPLETE="bash_complete")

    assert found.stdout == "plain,watch\nplain,wait\n"


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [
        ("completed", 0, 0),
        ("completed", 3, 3),
        ("failed", 0, 1),
        ("expired", 0, 1),
        ("cancelled", 2, 1),
        ("validating", 0, 8),
        ("in_progress", 1, 8),
        ("finalizing", 0, 8),
        ("cancelling", 0, 8),
    ],
)
def test_the_end_of_a_batch_is_an_exit_code(status: str, failed: int, code: int) -> None:
    """Scripts branch on it."""
    assert code == for_batch(status, failed)


def test_the_worst_of_several_batches_counts() -> None:
    """A failure must not hide behind a success."""
    assert worst([ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.FAILED, ExitCode.STILL_RUNNING]) == ExitCode.FAILED
    assert worst([ExitCode.OK, ExitCode.SOME_FAILED]) == ExitCode.SOME_FAILED
    assert worst([]) == ExitCode.OK
