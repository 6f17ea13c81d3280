"""What the error codes of the service mean and what to do; `overnight help errors` prints it."""

from __future__ import annotations

from collections.abc import Mapping

VALIDATION: Mapping[str, str] = {
    "billing_hard_limit_reached": "A cap of your resource is used up. Wait for the next day or month, or ask for more",
    "duplicate_custom_id": "Two lines share a custom_id. Give each request its own",
    "empty_file": "The file holds no request",
    "input_modified": "The input changed after the batch was created. Create a new one",
    "invalid_json_line": "The line is not valid JSON in UTF-8. Write one whole object on one line",
    "invalid_request": "A part of the request has the wrong form; `param` names it",
    "invalid_url": "The url differs from the endpoint of the batch. Make one batch for each endpoint",
    "mismatched_model": "The lines name different models. Make one batch for each model",
    "missing_required_parameter": "The line lacks custom_id, method, url or body; `param` names it",
    "model_mismatch": "As mismatched_model, on Azure paths",
    "model_not_found": "The service knows no such model. `overnight api GET /models` lists those it knows",
    "streaming_unsupported": "The body asks for `stream: true`. Leave it out",
    "token_limit_exceeded": "Too many tokens wait for this model; `overnight quota list`. Create the batch again later",
    "too_many_tasks": "The file has more lines than a batch may have. Split it",
    "url_mismatch": "As invalid_url, on Azure paths",
}

RESULTS: Mapping[str, str] = {
    "batch_cancelled": "The batch was cancelled before this request ran. Run it again in a new batch",
    "batch_expired": "The completion window closed before this request ran. Run it again in a new batch",
    "billing_hard_limit_reached": "A cap of your resource was used up before this request ran. Run it again later",
    "content_filter": "The content filter of the deployment filtered the prompt; `innererror` says for what. Change it",
    "content_filter_unavailable": "The content filter gave no verdict, so there is no answer. Run it again later",
    "content_filter_unsupported": "The content filter cannot judge such a request; the message says why. Send text",
    "request_timeout": "The model did not answer in time, in any of the attempts",
    "http_4xx": "The model server refused the request; the line quotes its answer. Correct the request",
    "http_5xx": "The model server failed, in all of the attempts; the line quotes its last answer",
}

CALLS: Mapping[str, str] = {
    "file_too_large": "The file is larger than the service accepts. Split it",
    "forbidden": "The key or token may not do that; or a server without keys was called from another machine",
    "headers_too_large": "The headers of the call are larger than the service reads. Look for an endless cookie or key",
    "idempotency_key_reused": "The Idempotency-Key was used for another request within a day. Take a new one",
    "integer_above_max_value": "A number is too large; `param` names it",
    "integer_below_min_value": "A number is too small; `param` names it",
    "invalid_api_key": "The key is missing or unknown, or the token bad. Set OVERNIGHT_API_KEY, or pass `--api-key`",
    "invalid_type": "A field has the wrong type; `param` names it",
    "invalid_value": "A field has a value that is not supported; the message lists those that are",
    "malformed_request": "The call is not HTTP as it must be; the message says why. Look at a proxy on the way",
    "method_not_allowed": "The path exists, but not for this method",
    "missing_required_parameter": "A field is missing; `param` names it",
    "model_not_found": "The service knows no such model. `overnight api GET /models` lists those it knows",
    "object_above_max_properties": "There are too many metadata pairs",
    "quotaExceeded": "There are too many files, unfinished uploads or webhooks. Delete some, or let them expire",
    "rate_limit_exceeded": "Too much was asked for in too short a time. Wait as long as the header Retry-After says",
    "request_too_large": "The body of the call is larger than the service accepts",
    "slow_request": "The call arrived too slowly and was given up. Try again, on a better line",
    "string_above_max_length": "A text is too long; `param` names it",
    "token_limit_exceeded": "Too many tokens wait for this model; `overnight quota list`. Create the batch again later",
    "too_many_connections": "The service has as many connections as it takes. Close some, or wait a moment",
    "too_many_parameters": "The URL of the call has too many parameters",
    "url_too_long": "The URL of the call is longer than the service reads",
    "webhook_address_refused": "Webhooks may not reach this address. Take a public one, or set webhooks.allow",
    "webhook_unreachable": "The receiver gave no answer to the test; the message says why",
}

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "A batch failed validation (`overnight batches errors ID`)": VALIDATION,
    "A request failed (`overnight batches errors ID --group`)": RESULTS,
    "A call was refused": CALLS,
}
