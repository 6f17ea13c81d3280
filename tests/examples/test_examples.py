"""Each example runs, against a real service, with nothing changed but endpoint and key."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import nbformat
import pytest
from nbclient import NotebookClient
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream

INPUT = "test2-base64-encoded-image.jsonl"
IMAGE = b"data:image/png;base64,"


class Line(msgspec.Struct):
    """An input line, its body as it was written."""

    body: msgspec.Raw


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples wait as long as is polite; here nobody shares the service, and no proxy is in between."""
    monkeypatch.setenv("WAIT_SECONDS", "0.05")
    monkeypatch.setenv("NO_PROXY", "*")


def test_the_script_goes_the_whole_way(service: Service, upstream: ScriptedUpstream, examples: Path) -> None:
    """Upload, create, poll, print, download, cancel, list."""
    upstream.forget()

    printed = _run(examples, "azure_batch.py", service)

    assert "Status: completed" in printed
    assert '"custom_id": "image-of-a-face"' in printed
    assert '"content": "echo: Quelle est la couleur du ciel à midi ?"' in printed
    assert _listed(printed)[:2] == ["cancelled", "completed"]
    _assert_bodies_arrived(upstream, examples)


def test_the_notebook_goes_the_same_way(service: Service, upstream: ScriptedUpstream, examples: Path) -> None:
    """Cell by cell, in the kernel that readers use."""
    upstream.forget()
    _name_service(examples, service)
    notebook = nbformat.read(examples / "azure_batch.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": examples}})

    client.execute()

    assert _shown_by(notebook, "file.status") == ["'processed'"]
    assert _shown_by(notebook, "second.status")[-1] == "'cancelled'"
    assert "image-of-a-face" in "".join(_shown_by(notebook, "show(batch_response.output_file_id)"))
    _assert_bodies_arrived(upstream, examples)


def test_the_notebook_is_kept_without_what_it_showed(examples: Path) -> None:
    """Outputs are ids and times of one afternoon."""
    notebook = nbformat.read(examples / "azure_batch.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert len(code) >= 10
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_the_short_script_prints_the_answers(service: Service, examples: Path) -> None:
    """Only `base_url` differs from the vendor's."""
    printed = _run(examples, "openai_batch.py", service)

    assert printed.startswith("completed BatchRequestCounts(completed=3, failed=0, total=3)")
    assert "echo: What is the capital of France?" in printed


def test_the_script_runs_on_the_embedded_model(embedded: Service, examples: Path) -> None:
    """It cannot see, so the request with the picture is in the error file, and the others have real answers."""
    printed = _run(examples, "azure_batch.py", embedded)

    assert '"completed": 3' in printed
    assert '"failed": 1' in printed
    assert printed.count('"finish_reason"') == 3
    assert printed.index('"custom_id": "capital-of-japan"') < printed.index('"custom_id": "image-of-a-face"')


def test_the_picture_is_a_picture(examples: Path) -> None:
    """Some servers look."""
    (body,) = (body for body in _bodies(examples) if IMAGE in body)
    encoded = body.partition(IMAGE)[2].partition(b'"')[0]

    assert msgspec.json.decode(b'"%s"' % encoded, type=bytes).startswith(b"\x89PNG\r\n\x1a\n")


def _run(examples: Path, script: str, service: Service) -> str:
    _name_service(examples, service)
    environment = os.environ | {"OPENAI_BASE_URL": f"{service.url}/v1", "PYTHONUTF8": "1"}
    finished = subprocess.run(
        [sys.executable, examples / script],
        cwd=examples.parent,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _listed(printed: str) -> list[str]:
    """Give the statuses in the list at the end, newest first."""
    return [line.split()[1] for line in printed.splitlines() if line.startswith("batch_")]


def _name_service(examples: Path, service: Service) -> None:
    template = (examples / ".env.example").read_text()
    (examples / ".env").write_text(template.replace("http://127.0.0.1:8080", service.url))


def _assert_bodies_arrived(upstream: ScriptedUpstream, examples: Path) -> None:
    """Every body of the first batch arrived as it was written; a second one was cancelled and may have sent some."""
    arrived = {received.body for received in upstream.asked}

    assert arrived == set(_bodies(examples))
    assert {received.path for received in upstream.asked} == {"/v1/chat/completions"}
    assert any(IMAGE in body for body in arrived)


def _bodies(examples: Path) -> list[bytes]:
    lines = (examples / INPUT).read_bytes().splitlines()
    return [bytes(msgspec.json.decode(line, type=Line).body) for line in lines]


def _shown_by(notebook: nbformat.NotebookNode, source: str) -> list[str]:
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source.split("\n")[-1])
    return [output.get("text") or output["data"]["text/plain"] for output in cell.outputs]
