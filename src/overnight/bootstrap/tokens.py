"""Chooses the tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.adapters.tokens.choice import ChosenCounters, by_setting
from overnight.adapters.tokens.huggingface import TokenizerUnusable
from overnight.config import ConfigError, Settings

if TYPE_CHECKING:
    from overnight.ports.tokens import TokenCounters


def token_counters(settings: Settings, every: str | None = None) -> TokenCounters:
    """Choose the tokenizers: those of the deployments, or what ``every`` says for all models.

    Raises ``ConfigError`` if the file of a tokenizer cannot be used.
    """
    deployments = () if every else settings.deployments
    try:
        chosen = {each.name: by_setting(each.tokenizer, each.model or each.name) for each in deployments}
        return ChosenCounters(chosen, by_setting(every, "") if every not in (None, "auto") else None)
    except TokenizerUnusable as error:
        raise ConfigError(str(error), error.hint) from error
