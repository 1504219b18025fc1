"""A real model server for tests and benchmarks: llama.cpp with the model that ships, as a process of its own.

python tests/llama_server.py GGUF NAME [THREADS]    prints its address and serves until its standard input ends
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTEXT = 2048


@contextmanager
def running(gguf: Path, name: str, threads: int = 1) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Its address (ends in /v1) and its process."""
    command = [sys.executable, __file__, str(gguf), name, str(threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), "the server did not start"
            yield f"{address}/v1", process
        finally:
            process.kill()


def serve(gguf: str, name: str, threads: str = "1") -> None:
    """Serve until standard input ends."""
    import xllamacpp

    told = xllamacpp.CommonParams()
    told.model.path = gguf
    told.model_alias = {name}
    told.n_ctx = CONTEXT
    told.n_parallel = 1
    told.cpuparams.n_threads = int(threads)
    told.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(told)
    print(server.listening_address, flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    serve(*sys.argv[1:])
