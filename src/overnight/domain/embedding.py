"""How many things one request for embeddings asks about."""

from __future__ import annotations

import msgspec

# A text, the tokens of one, or a list of either; what else it may hold is for the upstream to judge.
_decoder = msgspec.json.Decoder(str | list[msgspec.Raw])


def count_inputs(raw: bytes) -> int:
    """Count the inputs of a request, from the JSON of its ``input``: each is a text or the tokens of a text."""
    try:
        given = _decoder.decode(raw)
    except msgspec.ValidationError:
        return 1
    if isinstance(given, str) or not given:
        return 1
    # Numbers are the tokens of one text.
    return len(given) if bytes(given[0])[:1] in b'"[' else 1
