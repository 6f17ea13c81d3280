"""A batch from upload to results with `AzureOpenAI`. Only the endpoint, the key and the file are ours."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from dotenv import load_dotenv
from openai import AzureOpenAI
from openai.types import Batch

HERE = Path(__file__).parent
INPUT = HERE / "test2-base64-encoded-image.jsonl"
# A batch is over once it has one of these. Note the two l of `cancelled`.
TERMINAL = {"completed", "failed", "expired", "cancelled"}

load_dotenv(HERE / ".env")
# Seconds between two looks. On a service that many people share, 60 is polite.
WAIT = float(os.getenv("WAIT_SECONDS", "5"))


def main() -> None:
    client = AzureOpenAI(
        api_key=os.getenv("AZURE_OPENAI_API_KEY"),
        api_version="2024-07-01-preview",
        azure_endpoint=os.environ["AZURE_OPENAI_ENDPOINT"],
    )
    file_id = upload(client)
    batch = wait_until_over(client, create(client, file_id))
    show_results(client, batch)
    cancel(client, file_id)
    for each in client.batches.list():
        print(each.id, each.status)


def upload(client: AzureOpenAI) -> str:
    with INPUT.open("rb") as source:
        file = client.files.create(file=source, purpose="batch")
    print(file.model_dump_json(indent=2))
    while file.status not in {"processed", "error"}:
        time.sleep(WAIT)
        file = client.files.retrieve(file.id)
        print(f"{datetime.now(UTC)} File Id: {file.id}, Status: {file.status}")
    if file.status == "error":
        raise SystemExit(f"The file was refused: {file.status_details}")
    return file.id


def create(client: AzureOpenAI, file_id: str) -> Batch:
    # The type of `endpoint` in the SDK lists OpenAI's spelling only.
    endpoint = "/chat/completions"
    batch = client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")  # type: ignore[arg-type]
    print(batch.model_dump_json(indent=2))
    return batch


def wait_until_over(client: AzureOpenAI, batch: Batch) -> Batch:
    while batch.status not in TERMINAL:
        time.sleep(WAIT)
        batch = client.batches.retrieve(batch.id)
        print(f"{datetime.now(UTC)} Batch Id: {batch.id}, Status: {batch.status}")
    for problem in (batch.errors and batch.errors.data) or []:
        print(f"Line {problem.line}: {problem.code}: {problem.message}")
    print(batch.model_dump_json(indent=2))
    return batch


def show_results(client: AzureOpenAI, batch: Batch) -> None:
    """Print both files. Each request is in exactly one of them."""
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id:
            for line in client.files.content(file_id).text.splitlines():
                print(json.dumps(json.loads(line), indent=2, ensure_ascii=False))


def cancel(client: AzureOpenAI, file_id: str) -> None:
    """Cancel a second batch; one that is over cannot be cancelled any more."""
    batch = client.batches.cancel(create(client, file_id).id)
    wait_until_over(client, batch)


if __name__ == "__main__":
    main()
