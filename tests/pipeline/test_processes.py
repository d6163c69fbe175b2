"""Processes of pools: what reaches them, and what they bring along."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from pipeline.processes import process_pool

SCRIPT = """
import math
from pipeline.processes import process_pool

print("imported", flush=True)
with process_pool(2) as pool:
    print(list(pool.map(math.factorial, [3, 4])))
"""


def test_ctrl_c_does_not_reach_them() -> None:
    with process_pool(1) as pool:
        assert pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result() == {signal.SIGINT}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_script_that_does_not_guard_its_main_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("imported\n[6, 24]\n", "")
