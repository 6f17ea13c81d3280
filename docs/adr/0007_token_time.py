"""Measures the time of a token with as many threads as cores and with one less: idle, and beside one busy program."""

import json
import os
import subprocess
import sys
import time
from urllib.request import ProxyHandler, Request, build_opener

from overnight.adapters.upstreams.embedded import find_model

SERVER = """
import os, sys, xllamacpp
os.nice(10)
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port, params.n_ctx = sys.argv[1], ["127.0.0.1"], 0, 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def ms_per_token(url: str, tokens: int) -> float:
    question = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": tokens, "temperature": 0}
    request = Request(f"{url}/v1/chat/completions", json.dumps(question).encode(), {"content-type": "application/json"})  # noqa: S310 - our own server
    with build_opener(ProxyHandler({})).open(request) as answer:
        return float(json.load(answer)["timings"]["predicted_per_token_ms"])


def measure(threads: int) -> None:
    command = [sys.executable, "-c", SERVER, str(find_model()), str(threads)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ms_per_token(url, 4)
        idle = ms_per_token(url, 16)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
            time.sleep(0.5)
            busy = ms_per_token(url, 4)
            neighbour.kill()
        server.kill()
    print(f"{threads} threads: {idle:.0f} ms a token when idle, {busy:.0f} ms beside one busy program")


if __name__ == "__main__":
    cores = os.cpu_count() or 1
    for number in sorted({max(1, cores - 1), cores}):
        measure(number)
