"""How torch's threads on a CPU wait for each other. Imports no torch: it has to be told before it is loaded."""

import os

POLICY = "OMP_WAIT_POLICY"


def wait_without_spinning() -> None:
    """Has threads sleep while they wait, unless the user's environment says otherwise; ranks started later inherit it.

    Threads that spin are quick only while each has a core: beside other work one that spins keeps the core from the
    one it waits for, and training comes nearly to a stop (benchmarks/training.md). Without effect on a process that
    has loaded torch already.
    """
    os.environ.setdefault(POLICY, "passive")
