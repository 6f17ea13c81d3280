"""What tests of content filters share: filters, what they answer, and a house whose deployment has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.engine.house import MODEL, House, line

from overnight.domain.content_filter import ContentFilter, FilterKind
from overnight.domain.deployment import Deployment
from overnight.domain.result import Answer
from overnight.testing.in_process import InProcessUpstream, Reply, ScriptedDeployments, Sent

MODERATION = ContentFilter(name="f", kind=FilterKind.MODERATION)
GUARD = ContentFilter(name="f", kind=FilterKind.GUARD, model="guard")


def chat(number: int, text: str = "hello", **more: Any) -> bytes:
    """Write the line of a request with a text."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "n": number, **more}
    return line(number, body=body)


def moderation(sent: Sent) -> Reply:
    """Find a text hateful by how often `bad` is in it."""
    given = json.loads(sent.body)["input"]
    results = [
        {"category_scores": {"hate": min(0.3 * text.count("bad"), 1.0), "self-harm": 0, "sexual": 0, "violence": 0}}
        for text in ([given] if isinstance(given, str) else given)
    ]
    return Reply(outcome=Answer(status=200, body=json.dumps({"results": results}).encode()))


def guard(sent: Sent) -> Reply:
    """Find a text unsafe if `bad` is in it."""
    said = json.loads(sent.body)["messages"][-1]["content"]
    return Reply(outcome=says("unsafe\nS10" if "bad" in said else "\n\nsafe"))


def says(text: str) -> Answer:
    """Answer as a guard, which uses 59 tokens for it."""
    body = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 50, "completion_tokens": 9}}
    return Answer(status=200, body=json.dumps(body).encode())


def add_filter(
    house: House, rules: ContentFilter = MODERATION, script: Callable[[Sent], Reply] = moderation
) -> InProcessUpstream:
    """Give the deployment of a house a filter, and its upstream."""
    judge = InProcessUpstream(house.clock, script, name="judge")
    house.upstreams.append(judge)
    deployment = Deployment(
        name=MODEL,
        model=MODEL,
        upstreams=(house.upstream.name,),
        content_filter=rules,
        filter_upstreams=(judge.name,),
    )
    house.deployments = ScriptedDeployments([deployment])
    return judge
