"""`overnight upstreams …`: how the model servers behind a running service do, and switches for them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click

from overnight import human
from overnight.cli.commands import Group
from overnight.cli.console import Column, Shape
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError, explain
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.client import Upstream, UpstreamTest
    from overnight.client.models import AttemptCounts

P = ParamSpec("P")

NAME = "NAME"
ANSWERS = "answers"
_NAMED_AT_ONCE = 5
_WHO = (
    "Asks the running service, with an admin key (`overnight keys create --admin` makes one). Where the service asks "
    "for no key, none is needed on its own machine."
)
_HOW_LONG = (
    "A pause lasts until `overnight upstreams resume` or until the service stops: after a restart requests flow again. "
    "It concerns the one service that was asked. To keep an upstream out for good, take it out of the settings."
)
_WHICH = "NAME is the name in the settings (host and port if it has none), or a beginning of it that no other has."


def _in_flight(upstream: Upstream) -> str:
    return f"{upstream.in_flight}/{upstream.limit}"


def _exact(seconds: float | None) -> str:
    return "" if seconds is None else str(seconds)


def _succeeded(upstream: Upstream) -> str:
    attempts = upstream.recent.attempts
    return f"{attempts.succeeded}/{attempts.total}"


def _succeeded_pleasant(upstream: Upstream) -> str:
    attempts = upstream.recent.attempts
    return human.share(attempts.succeeded, attempts.total)


def _state(upstream: Upstream) -> str:
    return upstream.state.replace("_", " ")


def _counts(attempts: AttemptCounts) -> str:
    parts = _parts(attempts)
    return ", ".join(f"{count} {name}" for name, count in parts) or "none"


def _shares(upstream: Upstream) -> str:
    attempts = upstream.recent.attempts
    return ", ".join(f"{human.share(count, attempts.total)} {name}" for name, count in _parts(attempts)) or "–"


def _parts(attempts: AttemptCounts) -> list[tuple[str, int]]:
    named = (
        ("succeeded", attempts.succeeded),
        ("refused (429)", attempts.status_429),
        ("failed (5xx)", attempts.status_5xx),
        ("other errors", attempts.other_status),
        ("not answered", attempts.unanswered),
    )
    return [(name, count) for name, count in named if count]


def _tokens(upstream: Upstream) -> str:
    recent = upstream.recent
    return f"{recent.input_tokens_per_second:,.0f}/s in, {recent.output_tokens_per_second:,.0f}/s out"


def _left_alone(upstream: Upstream) -> str:
    return human.span(upstream.left_alone_seconds) if upstream.left_alone_seconds else ""


UPSTREAMS: Shape[Upstream] = Shape(
    (
        Column("name", lambda each: each.id),
        Column("state", lambda each: each.state, _state),
        Column("in flight", _in_flight, right=True),
        Column(
            "p50",
            lambda each: _exact(each.recent.p50_seconds),
            lambda each: human.took(each.recent.p50_seconds),
            right=True,
        ),
        Column(
            "p95",
            lambda each: _exact(each.recent.p95_seconds),
            lambda each: human.took(each.recent.p95_seconds),
            right=True,
        ),
        Column("ok", _succeeded, _succeeded_pleasant, right=True),
        Column("problem", lambda each: each.problem or "", wraps=True),
    ),
    lambda each: each.raw,
)
UPSTREAM: Shape[Upstream] = Shape(
    (
        Column("name", lambda each: each.id),
        Column("state", lambda each: each.state, _state),
        Column("url", lambda each: each.url),
        Column("problem", lambda each: each.problem or ""),
        Column("left alone for", lambda each: str(each.left_alone_seconds), _left_alone),
        Column("models", lambda each: ",".join(each.models), lambda each: ", ".join(each.models) or "none known yet"),
        Column("in flight", _in_flight),
        Column("p50", lambda each: _exact(each.recent.p50_seconds), lambda each: human.took(each.recent.p50_seconds)),
        Column("p95", lambda each: _exact(each.recent.p95_seconds), lambda each: human.took(each.recent.p95_seconds)),
        Column("last minutes", lambda each: _counts(each.recent.attempts), _shares),
        Column("tokens", _tokens),
        Column("since start", lambda each: _counts(each.since_start)),
    ),
    lambda each: each.raw,
)
TESTS: Shape[UpstreamTest] = Shape(
    (
        Column("name", lambda each: each.id),
        Column("answer", lambda each: "ok" if each.answered else "none"),
        Column("took", lambda each: str(each.seconds), lambda each: human.took(each.seconds), right=True),
        Column("models", lambda each: ",".join(each.models) if each.answered else "", wraps=True),
        Column("problem", lambda each: each.problem or "", wraps=True),
    ),
    lambda each: each.raw,
)


def _operating(
    command: Callable[Concatenate[Session, P], ExitCode | None],
) -> Callable[Concatenate[Session, P], ExitCode | None]:
    """Say of a refusal what is special here: which key is asked for, and that not every server has upstreams."""

    @wraps(command)
    def operate(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> ExitCode | None:
        from overnight.client import NotAuthorised, NotFound

        try:
            return command(session, *args, **kwargs)
        except NotAuthorised as error:
            failure = explain(error)
            said = failure.message if failure else error.message
            hint = "this needs an admin key in OVERNIGHT_API_KEY: `overnight keys create --admin` makes one"
            raise CliError(said, hint, ExitCode.NOT_AUTHORISED) from error
        except NotFound as error:
            hint = "other servers, and older ones, have no such call; `overnight api GET /models` shows their models"
            raise CliError(f"{session.client.url} tells nothing of its upstreams ({error.status})", hint) from error

    return operate


@click.group(
    cls=Group,
    examples=(
        "overnight upstreams",
        "overnight upstreams pause small-gpu",
        "overnight upstreams test small-gpu",
    ),
    alone="list",
    details=f"Without a command it lists them, as `overnight upstreams list` does.\n\n{_WHICH}\n\n{_WHO}",
)
def upstreams() -> None:
    """See, pause, resume and test the upstreams of a service."""


@upstreams.command(
    "list",
    examples=(
        "overnight upstreams list",
        "overnight upstreams list --json",
        "overnight upstreams list --json=id,state,in_flight,limit",
    ),
    details="Requests in flight stand before the limit that the service has found out. The times of answers, and how "
    f"many attempts were `ok`, are of the last five minutes; in a pipe, times are milliseconds.\n\n{_WHO}",
)
@pass_session
@_operating
def list_(session: Session) -> None:
    """List upstreams, and how each does."""
    session.console.rows(UPSTREAMS, session.client.upstreams.list())


@upstreams.command(
    examples=("overnight upstreams get small-gpu", "overnight upstreams get small-gpu --json"),
    details=f"{_WHICH}\n\n{_WHO}",
)
@click.argument("name", metavar=NAME)
@pass_session
@_operating
def get(session: Session, name: str) -> None:
    """Show one upstream."""
    session.console.record(UPSTREAM, _find(session.client.upstreams.list(), name))


@upstreams.command(
    examples=("overnight upstreams pause small-gpu", "overnight upstreams pause small-gpu -q"),
    details=f"What is in flight there ends; its batches go on at other upstreams, or wait. {_HOW_LONG}\n\n{_WHICH}"
    f"\n\n{_WHO}",
)
@click.argument("name", metavar=NAME)
@pass_session
@_operating
def pause(session: Session, name: str) -> None:
    """Send nothing more to an upstream until it is resumed."""
    known = session.client.upstreams.list()
    paused = session.client.upstreams.pause(_find(known, name).id)
    session.console.rows(UPSTREAMS, [paused])
    ending = f"; {human.plural(paused.in_flight, 'request')} in flight will end" if paused.in_flight else ""
    session.console.say(f"nothing more is sent to {paused.id}, until it is resumed or the service restarts{ending}")
    if alone := _left_without(known, paused):
        session.console.say(f"no other upstream serves {human.listing(alone)} now: those requests wait")
    session.console.suggest(f"`overnight upstreams resume {shlex.quote(paused.id)}` ends the pause")


@upstreams.command(
    examples=("overnight upstreams resume small-gpu", "overnight upstreams resume small-gpu -q"),
    details=f"One that is not paused stays as it is.\n\n{_WHICH}\n\n{_WHO}",
)
@click.argument("name", metavar=NAME)
@pass_session
@_operating
def resume(session: Session, name: str) -> None:
    """Send requests to an upstream again."""
    found = _find(session.client.upstreams.list(), name)
    session.console.rows(UPSTREAMS, [session.client.upstreams.resume(found.id)])
    session.console.say(f"requests go to {found.id} again" if found.paused else f"{found.id} was not paused")


@upstreams.command(
    examples=("overnight upstreams test small-gpu", "overnight upstreams test small-gpu --json=answered,problem"),
    details="The service asks it for `GET /models`, as it does by itself every few seconds, also while it is paused. "
    f"The exit code is 5 if it does not answer.\n\n{_WHICH}\n\n{_WHO}",
)
@click.argument("name", metavar=NAME)
@pass_session
@_operating
def test(session: Session, name: str) -> ExitCode:
    """Have the service ask an upstream for its models now."""
    tested = session.client.upstreams.test(_find(session.client.upstreams.list(), name).id)
    session.console.rows(TESTS, [tested])
    return ExitCode.OK if tested.answered else ExitCode.UNREACHABLE


def _find(known: Sequence[Upstream], name: str) -> Upstream:
    """Find the one that is meant, by its name or a beginning of it that no other has."""
    if not name:
        # Every name begins like this; it comes from a variable of a script that is not set.
        raise CliError("the name of the upstream is empty", "`overnight upstreams list` shows them", ExitCode.USAGE)
    matching = [each for each in known if each.id == name] or [each for each in known if each.id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        hint = f"write more of it: {_some([each.id for each in matching])}"
        raise CliError(f"`{name}` fits {len(matching)} upstreams", hint, ExitCode.USAGE)
    names = [each.id for each in known]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {_some(names)}"
    raise CliError(f"no upstream is called `{name}`", hint)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_ONCE]) + (", …" if len(names) > _NAMED_AT_ONCE else "")


def _left_without(known: Sequence[Upstream], paused: Upstream) -> list[str]:
    """Name the models that nobody serves while this one is paused."""
    others = (each for each in known if each.id != paused.id and each.state == ANSWERS)
    served = {model for each in others for model in each.models}
    return [model for model in paused.models if model not in served]
