"""What all measurements share."""

from __future__ import annotations

import subprocess
import sys


def test_a_user_error_is_a_sentence_and_a_bug_a_traceback() -> None:
    said = {}
    for error in ("HolismError('mend this')", "ValueError('a bug')"):
        program = f"import benchmarks\nfrom pipeline.errors import HolismError\nraise {error}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        said[error] = done.stderr
    assert said["HolismError('mend this')"] == "mend this\n"
    assert said["ValueError('a bug')"].startswith("Traceback")
