"""vLLM's own OpenAI-compatible server, as a process that a test talks to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captioning.engines.vllm import CPU_BLOCK_TOKENS, ON_CPU

UP_SECONDS = 240  # two busy cores take half of that
DOWN_SECONDS = 20
# JSON allows any white space, in which a model of random weights loses itself.
ARGUMENTS = (
    "--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "256", "--max-num-seqs", "16",
    "--block-size", str(CPU_BLOCK_TOKENS), "--enable-prompt-tokens-details",
    "--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
)  # fmt: skip


@contextmanager
def serve(model: str, name: str, log: Path) -> Iterator[str]:
    """Serve the model folder under a name; yields the base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    own = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, "--model", model, "--served-model-name", name, *ARGUMENTS],
            env={**os.environ, **ON_CPU, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    until = time.monotonic() + UP_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError), urllib.request.urlopen(health, timeout=5):
            return
        time.sleep(0.5)
    how = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
    raise AssertionError(f"vLLM's server {how}; its last words:\n{log.read_text(errors='replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server first, which ends its engine; then whatever is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(DOWN_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
