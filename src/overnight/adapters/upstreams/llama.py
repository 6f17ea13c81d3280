"""The child process of the embedded model: serves one GGUF file over HTTP on loopback until its parent is gone.

Usage: python -m overnight.adapters.upstreams.llama MODEL NAME SLOTS
"""

from __future__ import annotations

import os
import sys

# Enough for the packaged model's chats; a longer prompt is refused by the model as too long.
_CONTEXT_PER_SLOT = 2048
_NICENESS = 10


def main(model: str, name: str, slots: int) -> None:
    """Serve, and print the address once requests are answered; or print why the library cannot be loaded."""
    os.nice(_NICENESS)
    try:
        import xllamacpp  # noqa: PLC0415 - heavy, native, and needed by the child alone
    except ImportError as error:
        sys.exit(print(error, flush=True))  # noqa: T201 - the parent reads it

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = _CONTEXT_PER_SLOT * slots
    # One core is left to the service. llama.cpp's threads spin while they wait for each other: with as many of them as
    # cores, one other busy program made a token take 3 s instead of 10 ms.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 1) - 1)
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_slots = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - the parent reads it
    # The parent holds the other end open for as long as it lives, whatever way it dies.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
