"""The real parts that benchmarks run against: the service as a process, nginx as an upstream, files of requests."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pyreqwest.client import SyncClient, SyncClientBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENTENCE = "An answer of a plausible length for a short chat. "

# As long as those of SDKs.
_BOUNDARY = b"d41d8cd98f00b204e9800998ecf8427e"

_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
  log_format seen '$msec $request_method'; access_log {log};
  keepalive_requests 100000000; client_body_buffer_size 1m; client_max_body_size 100m;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} backlog=4096; default_type application/json;
    location /v1/models {{ return 200 '{{"object":"list","data":[{{"id":"m","object":"model"}}]}}'; }}
    location /v1/ {{ return 200 '{answer}'; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service."""

    url: str
    pid: int
    client: SyncClient

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call the API and give the decoded answer."""
        request = self.client.request(method, f"{self.url}{path}")
        if body is not None:
            request = request.body_json(body)
        answer: dict[str, Any] = request.build().send().json()
        if "error" in answer and answer.get("object") is None:
            raise RuntimeError(answer["error"]["message"])
        return answer

    def upload(self, path: Path) -> str:
        """Upload a batch file as SDKs do and give its id."""
        with path.open("rb") as file:
            return str(self.upload_stream(path.name, path.stat().st_size, file)["id"])

    def upload_stream(self, name: str, size: int, file: Any) -> dict[str, Any]:  # noqa: ANN401 - a binary file
        """Send one multipart body from a file, with its length announced."""
        return send_form(self.url, name, size, file)

    def create(self, file_id: str) -> str:
        """Create a batch of chat completions and give its id."""
        body = {"input_file_id": file_id, "endpoint": "/chat/completions", "completion_window": "24h"}
        return str(self.call("POST", "/openai/batches", body)["id"])

    def until(self, batch_id: str, *statuses: str, every: float = 0.05) -> dict[str, Any]:
        """Poll until the batch has one of the statuses."""
        while True:
            batch = self.call("GET", f"/openai/batches/{batch_id}")
            if batch["status"] in statuses:
                return batch
            if batch["status"] in {"failed", "expired", "cancelled", "completed"}:
                raise RuntimeError(f"{batch['status']}: {batch['errors']}")
            time.sleep(every)

    def content(self, file_id: str) -> bytes:
        """Give the bytes of a file."""
        return bytes(self.client.get(f"{self.url}/v1/files/{file_id}/content").build().send().bytes())


def send_form(url: str, name: str, size: int, file: Any) -> dict[str, Any]:  # noqa: ANN401 - a binary file
    """Send one multipart body from a file to a server, with its length announced."""
    head = (
        b'--%s\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" % (_BOUNDARY, _BOUNDARY, name.encode())
    )
    tail = b"\r\n--%s--\r\n" % _BOUNDARY
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(
            b"POST /openai/files?api-version=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n"
            % (_BOUNDARY, len(head) + size + len(tail))
        )
        wire.sendall(head)
        wire.sendfile(file)
        wire.sendall(tail)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


@contextmanager
def service(folder: Path, *flags: str) -> Iterator[Service]:
    """Run the service on a folder; it is killed, not asked, if the body of the context already killed it."""
    command = [sys.executable, "-m", "overnight.cli.main", "serve", "--port", "0", "--json", "--data-dir", str(folder)]
    with (
        Path(folder.parent / f"{folder.name}.log").open("ab") as log,
        subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=log) as process,
        SyncClientBuilder().build() as client,
    ):
        if process.stdout is None:
            raise RuntimeError("no standard output")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start, see {log.name}")
        try:
            yield Service(url=json.loads(line)["url"], pid=process.pid, client=client)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


@contextmanager
def nginx(folder: Path, *, log: bool = False, sentences: int = 2) -> Iterator[str]:
    """Run nginx with one static completion of 51 bytes a sentence beside 300 others, and give its base URL.

    With ``log``, the file ``seen`` tells each call.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        sys.exit("error: nginx is missing\n\nhint: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    access_log = f"{folder}/seen seen" if log else "off"
    config.write_text(
        _NGINX.format(folder=folder, port=port, answer=json.dumps(_completion(sentences)), log=access_log)
    )
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _completion(sentences: int) -> dict[str, object]:
    message = {"role": "assistant", "content": _SENTENCE * sentences}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 120, "completion_tokens": 17, "total_tokens": 137},
    }


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens on {port}")


def make_file(path: Path, requests: int, words: tuple[int, int], *, seed: int = 1) -> Path:
    """Write a file of chat requests with so many words each, the same for the same arguments."""
    draw = random.Random(seed)  # noqa: S311 - made-up text
    stock = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    with path.open("w") as file:
        for number in range(requests):
            text = " ".join(draw.choices(stock, k=draw.randint(*words)))
            messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}]
            body = {"model": "m", "messages": messages, "max_tokens": 16}
            line = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


class Watch:
    """Samples the memory of a process and its children, and the answer time of a call, while something else runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before = memory(service.pid)
        self.peak = self.before
        self.waits: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        """How many MB the memory grew at most."""
        return (self.peak - self.before) / 1e6

    def slowest(self, share: float = 1.0) -> float:
        """Give the longest wait for an answer in milliseconds, or that of a share of the calls."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    def _sample(self) -> None:
        with SyncClientBuilder().build() as client:
            while not self._over.is_set():
                began = time.perf_counter()
                client.get(f"{self._service.url}/openai/batches?limit=5").build().send().bytes()
                self.waits.append(time.perf_counter() - began)
                self.peak = max(self.peak, memory(self._service.pid))
                time.sleep(0.005)


def memory(pid: int) -> int:
    """Give the resident memory of a process and its descendants in bytes."""
    total = 0
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            total += int(Path(f"/proc/{current}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            waiting += [int(child) for child in Path(f"/proc/{current}/task/{current}/children").read_text().split()]
        except FileNotFoundError:
            continue
    return total


def processor_time(pid: int) -> float:
    """Give the seconds of processor time, of programs and of the kernel for them, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
