"""``python -m bench [NAME ...] [--json FILE]``: run all benchmarks, or those named, and print one table."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import big_file, dispatch, embedded, heavy_tail, log, polling, recovery, requests, studio, tokens
from bench.figures import Figure, show

BENCHES: dict[str, Callable[[Path], list[Figure]]] = {
    "dispatch": dispatch.run,
    "heavy-tail": heavy_tail.run,
    "embedded": embedded.run,
    "big-file": big_file.run,
    "log": log.run,
    "recovery": recovery.run,
    "requests": requests.run,
    "studio": studio.run,
    "upload-and-polling": polling.run,
    "tokens": tokens.run,
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where to write the figures")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for name in arguments.names or BENCHES:
        with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder:
            figures += BENCHES[name](Path(folder))
    show(figures)
    arguments.json.write_text(json.dumps([figure.to_json() for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
