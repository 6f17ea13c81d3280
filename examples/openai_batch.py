"""A batch with `OpenAI`. Only `base_url` and the key are ours."""

import os
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.getenv("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"), api_key="any")
file = client.files.create(file=Path(__file__).with_name("requests.jsonl"), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status not in {"completed", "failed", "expired", "cancelled"}:
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)
print(batch.status, batch.request_counts)
if batch.output_file_id:
    print(client.files.content(batch.output_file_id).text)
